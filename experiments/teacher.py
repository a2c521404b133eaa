"""Train a cross-encoder, or take a given one: python experiments/teacher.py data=beir data.root=DIR"""

from colbert_lab.stages.launch import launch

if __name__ == "__main__":
    launch("teacher")
