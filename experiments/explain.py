"""Why a document scored as it did: python experiments/explain.py run=RUN_DIR query=ID"""

from colbert_lab.stages.launch import launch

if __name__ == "__main__":
    launch("explain")
