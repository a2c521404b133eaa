"""Train, index, search and evaluate in one command: python experiments/pipeline.py data=beir data.root=DIR"""

from colbert_lab.stages.launch import launch

if __name__ == "__main__":
    launch("pipeline")
