"""Have a teacher score candidates: python experiments/score.py candidates=DIR teachers=DIR"""

from colbert_lab.stages.launch import launch

if __name__ == "__main__":
    launch("score")
