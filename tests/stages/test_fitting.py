"""A training that has ended is never lost: killed anywhere between that and the finished artifact, no step repeats."""

import json
from functools import partial
from types import SimpleNamespace

import pytest
from killed_at import armed, killed_at
from omegaconf import OmegaConf
from stages_toy import leaves

from colbert_lab.artifact import Artifact, build
from colbert_lab.stages.fitting import decisive, fitted
from colbert_lab.stages.sections import section
from colbert_lab.tracking.read import summary
from colbert_lab.tracking.tracker import RunIdentity, Tracker
from colbert_lab.training.fit import collect

BEST = {"ndcg_10": 0.5, "step": 4}


class Examples(SimpleNamespace):
    def __len__(self):
        return 7

    def describe(self):
        return {"kind": "told"}


@pytest.fixture
def make(tmp_path):
    """make(path) -> the artifact, of a training whose steps are noted in `steps`."""

    def train(folder, tracker):
        # What `fit` does: goes on from its last checkpoint, and has its best weights in a directory.
        if not (folder / "last.ckpt").exists():
            with (tmp_path / "steps").open("a") as steps:
                steps.write(f"{folder.parent.name}\n")
            (folder / "best").mkdir()
            for name in ("model.safetensors", "config.json"):
                (folder / "best" / name).write_text(name)
            (folder / "last.ckpt").write_text("all of it")
        armed[0] = True
        return BEST

    def make(path):
        with (
            build(path, "model", "the key") as builder,
            Tracker.start(builder.log, RunIdentity(), {}, []) as tracker,
        ):
            fitted(builder, tracker, 1, Examples(), train)
        return Artifact.open(path)

    return make


def test_killed_at_every_step_after_training(tmp_path, make):
    whole = make(tmp_path / "whole")
    assert whole.manifest["files"].keys() == {"config.json", "model.safetensors"}
    assert whole.manifest["counts"] == {"dev": BEST, "examples": 7}
    moment = 0
    while killed_at(moment, partial(make, tmp_path / f"{moment}"), begin=False):
        path = tmp_path / f"{moment}"
        again = path if (path / "manifest.json").exists() else make(path).path
        assert Artifact.open(again).digest == whole.digest
        assert Artifact.open(again).manifest["counts"] == whole.manifest["counts"]
        assert summary(again / "log")["objective"] == 0.5
        assert json.loads((again / "log" / "examples.json").read_text()) == {"kind": "told"}
        assert not list(path.parent.glob("*.partial"))
        moment += 1
    # At least: 2 links, the training folder aside, 3 files and 2 folders removed, the manifest, the artifact in place.
    assert moment > 10
    trained = (tmp_path / "steps").read_text().split()
    assert len(trained) == len(set(trained)) == moment + 2


@pytest.mark.parametrize("training", ["", "teacher", "distil"])
def test_the_key_of_a_training_has_all_that_decides_and_nothing_else(lab, training):
    """Another value for each key of each section, one at a time: another key, but for those that leave no trace."""
    sections = ["loss", "optim", "schedule", "train", "dev", "seed"]
    cfg = OmegaConf.masked_copy(section(lab.compose("rounds")[0], training), sections)
    before, without_trace = decisive(cfg), set()
    for key in leaves(cfg):
        if not key.endswith(("_target_", "_partial_")):
            other = cfg.copy()
            OmegaConf.update(other, key, "another")
            if decisive(other) == before:
                without_trace.add(key)
    told = {"loss.terms.kl.entropy_band"} if training == "distil" else set()
    assert without_trace == {"train.log_every", "train.checkpoint_every"} | told
    assert list(before) == sections


def test_a_key_has_the_precision_that_this_machine_computes_in(lab, monkeypatch):
    """Else what one machine trained in bf16 would be found again as what another trains in fp32."""
    auto = lab.compose("train", "train.precision=auto", "encode.precision=auto")[0]
    found = {}
    for here in ("fp32", "bf16"):
        monkeypatch.setattr("colbert_lab.models.precision.resolve_precision", lambda asked, device, found=here: found)
        found[here] = decisive(auto)["train"]
        assert found[here].pop("precision") == here
    assert found["fp32"] == found["bf16"]


def test_collecting_twice_is_collecting_once(tmp_path):
    (tmp_path / "training" / "best").mkdir(parents=True)
    (tmp_path / "training" / "best" / "weights").write_text("w")
    for _ in range(2):
        collect(tmp_path / "training", tmp_path)
        assert [file.name for file in tmp_path.iterdir()] == ["weights"]
