"""A collection's statistics: python experiments/describe.py data=beir data.root=DIR"""

from colbert_lab.stages.launch import launch

if __name__ == "__main__":
    launch("describe")
