"""Tell offline runs to W&B, once: python experiments/replay.py runs=[DIR,DIR]"""

from colbert_lab.stages.launch import launch

if __name__ == "__main__":
    launch("replay")
