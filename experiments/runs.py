"""List local runs: python experiments/runs.py"""

from colbert_lab.stages.launch import launch

if __name__ == "__main__":
    launch("runs")
