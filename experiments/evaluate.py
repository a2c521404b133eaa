"""Judge runs: python experiments/evaluate.py run=RUN_DIR"""

from colbert_lab.stages.launch import launch

if __name__ == "__main__":
    launch("evaluate")
