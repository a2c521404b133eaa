"""Train a model: python experiments/train.py experiment=pairwise data=beir data.root=DIR loss=hinge"""

from colbert_lab.stages.launch import launch

if __name__ == "__main__":
    launch("train")
