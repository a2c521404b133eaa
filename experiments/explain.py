"""Why a document scored as it did: python experiments/explain.py model=MODEL_DIR data=beir data.root=DIR query=ID document=ID"""

from colbert_lab.stages.launch import launch

if __name__ == "__main__":
    launch("explain")
