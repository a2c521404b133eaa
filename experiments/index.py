"""Index a collection: python experiments/index.py model=MODEL_DIR data=beir data.root=DIR index=exact"""

from colbert_lab.stages.launch import launch

if __name__ == "__main__":
    launch("index")
