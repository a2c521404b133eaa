"""One HTML page of what runs came to: python experiments/report.py runs=[DIR,DIR]"""

from colbert_lab.stages.launch import launch

if __name__ == "__main__":
    launch("report")
