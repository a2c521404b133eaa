"""Show the table of a sweep: python experiments/table.py sweep=SWEEP_DIR"""

from colbert_lab.stages.launch import launch

if __name__ == "__main__":
    launch("table")
