"""Verify an artifact, every byte of it: python experiments/verify.py artifact=DIR"""

from colbert_lab.stages.launch import launch

if __name__ == "__main__":
    launch("verify")
