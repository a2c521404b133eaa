"""Judge systems of every paradigm: python experiments/compare.py model=MODEL_DIR data=beir data.root=DIR"""

from colbert_lab.stages.launch import launch

if __name__ == "__main__":
    launch("compare")
