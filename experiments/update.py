"""Make another index of one: python experiments/update.py index=INDEX_DIR data=beir data.root=DIR delete=FILE"""

from colbert_lab.stages.launch import launch

if __name__ == "__main__":
    launch("update")
