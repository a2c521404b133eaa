"""Show one run: python experiments/show.py of=DIR"""

from colbert_lab.stages.launch import launch

if __name__ == "__main__":
    launch("show")
