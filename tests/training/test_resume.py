"""Training that was interrupted and taken up is the training that was not: weights, curves and best, bit for bit."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from interrupted import Stopping, curves, same

from colbert_lab.models.checkpoint import load_model
from colbert_lab.training.callbacks import AtomicCheckpointIO


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """(folder, module, best) of a run that nothing stopped, one for each accumulation, made when first asked for."""
    done = {}

    def get(fitted, accumulate):
        if accumulate not in done:
            folder = tmp_path_factory.mktemp(f"whole-{accumulate}")
            done[accumulate] = (folder, *fitted(folder / "training", accumulate=accumulate))
        return done[accumulate]

    return get


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("step", [2, 5, 6, 7])
def test_a_second_fit_goes_on_bit_for_bit(tmp_path, fitted, uninterrupted, step, accumulate):
    whole, module, best = uninterrupted(fitted, accumulate)
    work = tmp_path / "training"
    # With accumulation in the middle of a step: what was half accumulated is lost and made again.
    at = step * accumulate + accumulate - 1
    with pytest.raises(OSError, match=f"batch {at}"):
        fitted(work, accumulate=accumulate, wrap=lambda stream: Stopping(stream, at))
    assert (work / "last.ckpt").exists() == (step >= 3)
    again, best_again = fitted(work, accumulate=accumulate)
    assert same(again, module)
    assert best_again == best
    assert curves(tmp_path) == curves(whole)
    assert same(load_model(work / "best"), load_model(whole / "training" / "best"))


def test_a_fit_may_go_on_with_other_checkpoints_and_another_log(tmp_path, fitted, uninterrupted):
    """Neither decides what is trained; of the log, every line after the checkpoint is the mean since the one before."""
    whole, module, best = uninterrupted(fitted, 1)
    with pytest.raises(OSError, match="batch 7"):
        fitted(tmp_path / "training", checkpoint_every=5, wrap=lambda stream: Stopping(stream, 7))
    again, best_again = fitted(tmp_path / "training", checkpoint_every=2, log_every=3)
    assert same(again, module)
    assert best_again == best
    assert same(load_model(tmp_path / "training" / "best"), load_model(whole / "training" / "best"))
    fitted(tmp_path / "every" / "training", log_every=1)
    each = dict(losses(tmp_path / "every"))
    told = losses(tmp_path)
    # Until the checkpoint after step 5 every second step, from then on every third, and the last.
    assert [step for step, _ in told] == [2, 4, 6, 9, 12]
    for (before, _), (step, loss) in zip([(0, 0.0), *told], told):
        between = [each[one] for one in range(before + 1, step + 1)]
        assert loss == pytest.approx(sum(between) / len(between))


def losses(folder):
    return [(line["step"], line["train/loss"]) for line in curves(folder) if "train/loss" in line]


def test_an_interrupted_fit_interpolates_from_the_same_start(tmp_path, fitted):
    fitted(tmp_path / "whole" / "training", interpolate=0.3)
    with pytest.raises(OSError, match="batch 7"):
        fitted(tmp_path / "training", interpolate=0.3, wrap=lambda stream: Stopping(stream, 7))
    fitted(tmp_path / "training", interpolate=0.3)
    ends = [load_model(folder / "training" / "best") for folder in (tmp_path, tmp_path / "whole")]
    assert same(*ends)


def test_a_finished_fit_called_again_changes_nothing(tmp_path, fitted, uninterrupted):
    module, best = fitted(tmp_path / "training")
    before = curves(tmp_path)
    again, best_again = fitted(tmp_path / "training")
    assert same(again, module)
    assert best_again == best
    assert curves(tmp_path) == before


def test_dropout_is_on_and_seeded(tmp_path, fitted, uninterrupted, monkeypatch):
    """Else the tests above would not see whether it is repeated."""
    _, module, _ = uninterrupted(fitted, 1)
    twice, _ = fitted(tmp_path / "a" / "training")
    assert same(twice, module)
    other, _ = fitted(tmp_path / "b" / "training", seed=1)
    assert not same(other, module)
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda self, states: states)
    without, _ = fitted(tmp_path / "c" / "training")
    assert not same(without, module)


KILLED = """
import json, os, signal, sys
from pathlib import Path
from colbert_lab.data.collection import Collection
from colbert_lab.data.qrels_examples import QrelsExamples
from colbert_lab.training.dev import DevSample
sys.path.insert(0, {tests!r})
import conftest
tiny, place, work, kill_at = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
collection = Collection.open(place)
examples = QrelsExamples(collection, collection.qrels("train"), negatives="random")
sample = DevSample.draw(collection, collection.qrels("dev"), 5, 20, seed=0)

class Killing:
    def __init__(self, stream):
        self.stream = stream
    def __getitem__(self, index):
        if index == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.stream[index]

conftest.fitted.__wrapped__(tiny, examples, sample)(work, wrap=Killing)
"""


def test_sigkill(tmp_path, fitted, uninterrupted, tiny_backbone, collection):
    whole, module, best = uninterrupted(fitted, 1)
    script = KILLED.format(tests=str(Path(__file__).parent))
    given = [str(tiny_backbone), str(collection.artifact.path), str(tmp_path / "training"), "8"]
    ended = subprocess.run([sys.executable, "-c", script, *given], capture_output=True, text=True, timeout=600)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert (tmp_path / "training" / "last.ckpt").exists()
    again, best_again = fitted(tmp_path / "training")
    assert same(again, module)
    assert best_again == best
    assert curves(tmp_path) == curves(whole)
    assert [s["state"] for s in json.loads((tmp_path / "log" / "state.json").read_text())["segments"]] == [
        "killed",
        "finished",
    ]


class Fatal:
    """What cannot be pickled alive."""

    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_checkpoint_is_whole_whenever_its_writer_dies(tmp_path):
    path, io = tmp_path / "last.ckpt", AtomicCheckpointIO()
    io.save_checkpoint({"global_step": 3}, path)
    half = {"x": torch.zeros(10_000), "global_step": 6, "y": Fatal()}
    dying = multiprocessing.get_context("fork").Process(target=io.save_checkpoint, args=(half, path))
    dying.start()
    dying.join(60)
    assert dying.exitcode == -signal.SIGKILL
    assert os.listdir(tmp_path) != ["last.ckpt"], "the writer died before it had begun"
    assert torch.load(path)["global_step"] == 3
    io.save_checkpoint({"global_step": 9}, path)
    assert torch.load(path)["global_step"] == 9
    assert os.listdir(tmp_path) == ["last.ckpt"]
