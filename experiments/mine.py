"""Mine candidates from a run of the training queries: python experiments/mine.py run=RUN_DIR"""

from colbert_lab.stages.launch import launch

if __name__ == "__main__":
    launch("mine")
