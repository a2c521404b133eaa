"""How far indexes are from exact: python experiments/fidelity.py model=MODEL_DIR data=beir data.root=DIR split=test"""

from colbert_lab.stages.launch import launch

if __name__ == "__main__":
    launch("fidelity")
