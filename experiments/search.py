"""Search an index: python experiments/search.py index=INDEX_DIR split=test"""

from colbert_lab.stages.launch import launch

if __name__ == "__main__":
    launch("search")
