"""Denoised supervision in rounds: python experiments/rounds.py experiment=colbertv2_small data=beir data.root=DIR"""

from colbert_lab.stages.launch import launch

if __name__ == "__main__":
    launch("rounds")
