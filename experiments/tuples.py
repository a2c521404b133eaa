"""Make training tuples of a teacher's scores: python experiments/tuples.py scores=DIR"""

from colbert_lab.stages.launch import launch

if __name__ == "__main__":
    launch("tuples")
