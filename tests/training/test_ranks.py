"""Ranks: several processes train what one trains, are taken up as one is, and fail with the error of the first."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from interrupted import Stopping, curves, same
from ranks_at_work import Terminating, fail, tell, tell_much, train

from colbert_lab.errors import ConfigError, TrainingError
from colbert_lab.models.checkpoint import load_model
from colbert_lab.tracking.log import SUMMARY
from colbert_lab.tracking.read import read_metrics
from colbert_lab.tracking.tracker import RunIdentity, Tracker
from colbert_lab.training.gather import own_part
from colbert_lab.training.ranks import together


@pytest.fixture
def trained(tiny_backbone, examples, sample):
    """trained(folder, devices, dropout, wrap) -> the best figures; the log and `training/best` lie in the folder."""

    def run(folder: Path, devices: int, dropout: bool = True, wrap: Callable | None = None):
        work = folder / "training"
        work.mkdir(parents=True, exist_ok=True)
        given = (tiny_backbone, examples, sample, dropout, wrap, work)
        with Tracker.start(folder / "log", RunIdentity(), {}, []) as tracker:
            return together(devices, train, *given, tracker=tracker)

    return run


def close(left, right, **how):
    """Whether two lines of a log are the same, numbers but for rounding."""
    numbers = [{n: v for n, v in line.items() if isinstance(v, float | int)} for line in (left, right)]
    others = [{n: v for n, v in line.items() if not isinstance(v, float | int)} for line in (left, right)]
    return others[0] == others[1] and numbers[1] == pytest.approx(numbers[0], **how)


def best(folder):
    return load_model(folder / "training" / "best")


def test_two_train_what_one_trains(tmp_path, trained):
    """Losses and scores of both processes' queries are logged; without dropout nothing but rounding differs."""
    alone = trained(tmp_path / "one", 1, dropout=False)
    found = trained(tmp_path / "two", 2, dropout=False)
    assert found == alone
    assert alone["step"] > 0, "else the start is compared with itself"
    for name, value in best(tmp_path / "one").state_dict().items():
        torch.testing.assert_close(best(tmp_path / "two").state_dict()[name], value, atol=2e-4, rtol=0)
    one, two = (curves(tmp_path / name) for name in ("one", "two"))
    assert [line["step"] for line in two] == [line["step"] for line in one]
    for left, right in zip(one, two):
        # Each process pads its own part of a batch.
        names = left.keys() - {"train/padding_share"}
        assert names == right.keys() - {"train/padding_share"}
        assert close({n: left[n] for n in names}, {n: right[n] for n in names}, rel=1e-3, abs=1e-4)
    tokens = [
        sum(line["train/tokens_per_s"] / line["train/queries_per_s"] for line in read_metrics(tmp_path / name / "log")
            if "train/tokens_per_s" in line)
        for name in ("one", "two")
    ]  # fmt: skip
    assert tokens[1] == pytest.approx(tokens[0])


@pytest.mark.slow
def test_what_is_interrupted_goes_on_bit_for_bit(tmp_path, trained):
    whole = trained(tmp_path / "whole", 2)
    with pytest.raises(OSError, match="batch 5") as broken:
        trained(tmp_path, 2, wrap=partial(Stopping, at=5))
    assert "ranks_at_work" in "".join(broken.value.__notes__), "where it came from"
    assert (tmp_path / "training" / "last.ckpt").exists()
    assert trained(tmp_path, 2) == whole
    assert same(best(tmp_path), best(tmp_path / "whole"))
    one, two = curves(tmp_path / "whole"), curves(tmp_path)
    assert [line.keys() for line in one] == [line.keys() for line in two]
    assert all(close(left, right, rel=1e-6) for left, right in zip(one, two))


def test_the_first_rank_is_heard(tmp_path):
    before = torch.get_num_threads()
    with Tracker.start(tmp_path / "log", RunIdentity(), {}, []) as tracker:
        assert together(2, tell, tracker=tracker) == (2, max(1, before // 2))
        assert together(1, tell, tracker=tracker) == (1, before)
    assert torch.get_num_threads() == before
    assert '"first"' in (tmp_path / "log" / SUMMARY).read_text()
    assert [line["train/loss"] for line in read_metrics(tmp_path / "log")] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("how", "kind", "told"),
    [
        ("kill", TrainingError, "process 1 of the 2 that train together was ended by SIGKILL"),
        ("bug", KeyError, "no such thing"),
        ("both", ConfigError, "2 problems in what was given\n  one thing\n  another"),
    ],
)
def test_one_that_fails_ends_all_with_its_own_error(tmp_path, how, kind, told):
    start = time.monotonic()
    with pytest.raises(kind) as caught:
        together(2, fail, how, tmp_path, tracker=Tracker.silent())
    assert str(caught.value).startswith(told) or str(caught.value) == repr(told)
    assert time.monotonic() - start < 300, "nobody waited for the one that waits"


def test_what_was_told_before_is_heard(tmp_path):
    heard = []

    class Slow:
        def log(self, values, step):
            time.sleep(0.005)
            heard.append(step)

    with pytest.raises(ConfigError, match="one thing"):
        together(2, tell_much, tmp_path, tracker=Slow())
    assert heard == list(range(100))


@pytest.mark.slow
def test_a_rank_that_is_terminated_ends_all(tmp_path, trained):
    """Not, as Lightning would have it, when the others have come to where they can be told."""
    with pytest.raises(TrainingError, match="process 1 of the 2 that train together was ended by SIGTERM"):
        trained(tmp_path, 2, wrap=partial(Terminating, at=5))
    assert (tmp_path / "training" / "last.ckpt").exists()


STARTER = """
import sys
sys.path.insert(0, {tests!r})
if __name__ == "__main__":
    from colbert_lab.tracking.tracker import Tracker
    from colbert_lab.training.ranks import together
    from ranks_at_work import wait
    together(2, wait, sys.argv[1], tracker=Tracker.silent())
"""


def test_no_rank_outlives_the_one_that_started_it(tmp_path):
    script, there = tmp_path / "starter.py", tmp_path / "there"
    script.write_text(STARTER.format(tests=str(Path(__file__).parent)))
    there.mkdir()
    starter = subprocess.Popen([sys.executable, script, there], stderr=subprocess.DEVNULL)
    _until(lambda: len(list(there.iterdir())) == 2)
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    _until(lambda: not any(_alive(int(one.name)) for one in there.iterdir()))


def test_batches_are_parted_or_refused(monkeypatch):
    assert list(own_part([1, 2, 3])) == [1, 2, 3]
    monkeypatch.setattr("colbert_lab.training.gather._world_size", lambda: 2)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 1)
    assert list(own_part([1, 2, 3, 4])) == [3, 4]
    with pytest.raises(ConfigError, match=r"2 processes cannot share 5 queries equally\n *try: train.batch_queries=4"):
        own_part([1, 2, 3, 4, 5])


def _until(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "it never came to it"
        time.sleep(0.1)


def _alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # One that has ended stays in the table until its parent, here the first process of all, has taken note.
    return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
