"""The verbs in this process, on the toy collection with the tiny backbone: importing torch costs seconds."""

import importlib
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import open_dict

from colbert_lab.artifact import Artifact
from colbert_lab.stages.launch import conf_dir, run_job

ENCODE = ("encode.batch_tokens=2048", "encode.chunk=16")
MODEL = (
    "projection=random",
    "projection.dim=16",
    "text.query_length=12",
    "text.document_length=24",
    "encode.precision=fp32",
)
TRAIN = (
    "optim.lr=1e-3",
    "train.max_steps=3",
    "train.batch_queries=4",
    "train.precision=fp32",
    "train.log_every=1",
    "train.judge_every=2",
    "train.checkpoint_every=1",
    "examples.ranks=[1,20]",
    "dev.queries=10",
    "dev.documents=40",
)
TEACHER = (
    "teacher.max_length=40",
    "teacher.dev_candidates=10",
    "teacher_optim.lr=1e-3",
    "teacher_train.max_steps=3",
    "teacher_train.batch_queries=4",
    "teacher_train.negatives=2",
    "teacher_train.precision=fp32",
    "teacher_train.log_every=1",
    "teacher_train.judge_every=2",
    "teacher_train.checkpoint_every=1",
)
DISTIL = (
    "distil_optim.lr=1e-3",
    "distil_train.max_steps=3",
    "distil_train.batch_queries=4",
    "distil_train.negatives=3",
    "distil_train.precision=fp32",
    "distil_train.log_every=1",
    "distil_train.judge_every=2",
    "distil_train.checkpoint_every=1",
)
# By verb: what makes it small, and whether it reads data and makes models.
SMALL = {
    "init": MODEL,
    "train": (*MODEL, *TRAIN),
    "index": ENCODE,
    "update": ENCODE,
    "search": (ENCODE[0], "search.k=60"),
    "rerank": (ENCODE[0], "rerank.k=20"),
    "evaluate": (),
    "fidelity": (*ENCODE, "encode.precision=fp32", "fidelity.timed=3", "fidelity.warmup=1"),
    "pipeline": (*MODEL, *TRAIN, *ENCODE, "search.k=60"),
    "teacher": (*TEACHER, "examples.ranks=[1,20]", "dev.queries=10", "encode.precision=fp32"),
    "mine": ("mine.depth=8", "dev.holdout=5"),
    "score": (ENCODE[0], "encode.precision=fp32"),
    "tuples": (),
    "describe": (),
    "compare": (*ENCODE, "encode.precision=fp32", "search.k=60", "systems=quick", "cost.timed=3", "cost.warmup=1"),
    "explain": ENCODE[:1],
    "rounds": (
        *MODEL,
        *TRAIN,
        *TEACHER,
        *DISTIL,
        *ENCODE,
        "search.k=60",
        "mine.depth=8",
        "mine.ranks=[1,30]",
        "rerank.k=10",
    ),
}
VERBS = {
    "data": ("init", "train", "index", "rerank", "pipeline", "teacher", "rounds", "fidelity", "describe", "compare")
}
VERBS["backbone"] = ("init", "train", "pipeline", "rounds", "describe")
VERBS["teacher"] = ("teacher", "rounds")


class Lab:
    """`lab("train", "loss=hinge")` -> Outcome; artifacts lie under `root`, and what is done before is found again."""

    def __init__(self, root: Path, backbone: Path, toy: Path):
        self.root, self.backbone, self.toy = root, backbone, toy

    def elsewhere(self, root: Path) -> "Lab":
        """The same with another root."""
        return Lab(root, self.backbone, self.toy)

    def arguments(self, verb: str, *overrides: str) -> list[str]:
        """The command line behind a call; `overrides` win."""
        if "!all" in overrides:
            return [override for override in overrides if override != "!all"]
        given = [f"root={self.root}", "tracking=none", *SMALL[verb]]
        if verb in VERBS["data"]:
            given += ["data=beir", f"data.root={self.toy}"]
        if verb in VERBS["backbone"]:
            given.append(f"backbone.name={self.backbone}")
        if verb in VERBS["teacher"]:
            given.append(f"teacher.backbone={self.backbone}")
        taken = {override.lstrip("+~!").partition("=")[0] for override in overrides}
        kept = [one for one in given if one.partition("=")[0] not in taken]
        # A ! takes out one of the small settings, where the chosen group has no such key.
        return kept + [one for one in overrides if not one.startswith("!")]

    def compose(self, verb: str, *overrides: str):
        """The configuration of a call, the overrides it came of, and Hydra's choices."""
        overrides = self.arguments(verb, *overrides)
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = compose(verb, overrides=overrides, return_hydra_config=True)
        choices = dict(cfg.hydra.runtime.choices)
        with open_dict(cfg):
            del cfg["hydra"]
        return cfg, overrides, choices

    def __call__(self, verb: str, *overrides: str):
        cfg, overrides, choices = self.compose(verb, *overrides)
        stage = importlib.import_module(f"colbert_lab.stages.{verb}")
        made, real = [], stage.run
        stage.run = lambda cfg: made.append(real(cfg)) or made[0]
        try:
            run_job(verb, cfg, overrides, choices)
        finally:
            stage.run = real
        return made[0]

    def artifacts(self) -> dict[str, str]:
        """Place under the root -> digest, of everything made so far."""
        found = (manifest.parent for manifest in self.root.glob("*/*/manifest.json"))
        return {str(path.relative_to(self.root)): Artifact.open(path).digest for path in found}


@pytest.fixture(scope="session")
def lab(tmp_path_factory, tiny_backbone, toy_folder) -> Lab:
    """A lab whose artifacts all tests share: none may change them."""
    return Lab(tmp_path_factory.mktemp("lab"), tiny_backbone, toy_folder)


@pytest.fixture
def fresh_lab(tmp_path, lab) -> Lab:
    """A lab of one test's own."""
    return lab.elsewhere(tmp_path / "outputs")


@pytest.fixture(scope="session")
def chain(lab) -> dict[str, Artifact]:
    """One artifact of each kind, each made of the one before."""
    made = {"start": lab("init").artifact, "model": lab("train").artifact}
    made["index"] = lab("index", f"model={made['model'].path}").artifact
    made["run"] = lab("search", f"index_dir={made['index'].path}").artifact
    made["metrics"] = lab("evaluate", f"run={made['run'].path}").artifact
    made["reranked"] = lab("rerank", f"model={made['start'].path}", f"candidates={made['run'].path}").artifact
    return made
