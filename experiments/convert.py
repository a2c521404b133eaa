"""Convert a Stanford index directory to an index, or back: python experiments/convert.py source=DIR model=MODEL_DIR"""

from colbert_lab.stages.launch import launch

if __name__ == "__main__":
    launch("convert")
