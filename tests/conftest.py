"""What all tests share: no network, quiet threads, a tiny random backbone with a real vocabulary, a toy collection."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import json
import shutil
from pathlib import Path

import pytest


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the end-to-end proofs that take minutes")


def pytest_collection_modifyitems(config, items):
    import torch

    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def minilm_dir() -> Path:
    """The embedded backbone's directory."""
    from colbert_lab.models.backbone import EMBEDDED, resolve

    return Path(resolve(EMBEDDED))


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory, minilm_dir) -> Path:
    """A directory with a random BERT of 2 layers and 32 dimensions over BERT's own vocabulary."""
    import torch
    from transformers import BertConfig, BertModel

    directory = tmp_path_factory.mktemp("tiny-bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(directory)
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(minilm_dir / name, directory / name)
    return directory


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory) -> Path:
    """A BEIR folder of 60 documents in 20 topics; 20 train, 10 dev, 10 test queries, 3 relevant documents each."""
    root = tmp_path_factory.mktemp("toy")
    topics = [
        "river",
        "stone",
        "bridge",
        "garden",
        "engine",
        "signal",
        "harvest",
        "winter",
        "market",
        "island",
        "copper",
        "forest",
        "planet",
        "violin",
        "cotton",
        "marble",
        "candle",
        "desert",
        "silver",
        "thunder",
    ]
    details = ["small", "large", "distant"]
    with (root / "corpus.jsonl").open("w") as corpus:
        for t, topic in enumerate(topics):
            for d, detail in enumerate(details):
                text = f"The {detail} {topic} was described by a visitor who wrote about the {topic} for many pages."
                corpus.write(json.dumps({"_id": f"d{t}-{d}", "title": topic, "text": text}) + "\n")
    splits = {"train": range(20), "dev": range(20, 30), "test": range(30, 40)}
    (root / "qrels").mkdir()
    with (root / "queries.jsonl").open("w") as queries:
        for number in range(40):
            topic = topics[number % 20]
            ask = ("what is known about the", "who wrote of a")[number >= 20]
            queries.write(json.dumps({"_id": f"q{number}", "text": f"{ask} {topic}?"}) + "\n")
    for split, numbers in splits.items():
        with (root / "qrels" / f"{split}.tsv").open("w") as qrels:
            qrels.write("query-id\tcorpus-id\tscore\n")
            for number in numbers:
                for d in range(3):
                    qrels.write(f"q{number}\td{number % 20}-{d}\t{3 - d}\n")
    return root


class HerePool:
    """Runs a job of a sweep when it is started, in this process: importing torch costs each process seconds."""

    free = True

    def __init__(self):
        self.running, self.ended = {}, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def start(self, job, command, log):
        from colbert_lab.stages.launch import run_sweep_job
        from colbert_lab.stages.sweeps.pool import Ended

        good = run_sweep_job(Path(command[3]), job.number)
        self.ended.append(Ended(job, 0 if good else 1, 0.5, os.getpid()))
        self.running = {job: 0}

    def wait(self, seconds):
        ended, self.ended, self.running = self.ended, [], {}
        return ended


@pytest.fixture
def jobs_here(monkeypatch):
    """Sweeps run their jobs in this process, one after the other."""
    for kind in ("grid", "bayes"):
        monkeypatch.setattr(f"colbert_lab.stages.sweeps.{kind}.pool_of", lambda plan: HerePool())
