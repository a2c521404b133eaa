"""Re-rank a run: python experiments/rerank.py model=MODEL_DIR candidates=RUN data=beir data.root=DIR split=test"""

from colbert_lab.stages.launch import launch

if __name__ == "__main__":
    launch("rerank")
