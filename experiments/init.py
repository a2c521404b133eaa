"""Make an untrained model: python experiments/init.py backbone=minilm projection=pca data=beir data.root=DIR"""

from colbert_lab.stages.launch import launch

if __name__ == "__main__":
    launch("init")
