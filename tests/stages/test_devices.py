"""devices: several processes make what one makes, and what they made is found again by one."""

import pytest

from colbert_lab.artifact import Artifact
from colbert_lab.errors import ConfigError
from colbert_lab.tracking.read import read_metrics

TWO = "devices=2"


@pytest.fixture
def alone(tmp_path, lab):
    """A lab where one device does all."""
    return lab.elsewhere(tmp_path / "alone")


@pytest.mark.parametrize(
    "more", [(), ("pooling.factor=2",), ("passages.length=6",)], ids=["whole", "pooled", "passages"]
)
def test_two_devices_index_what_one_does(alone, fresh_lab, chain, more):
    arguments = (f"model={chain['model'].path}", *more)
    one = alone("index", *arguments).artifact
    two = fresh_lab("index", *arguments, TWO).artifact
    assert two.digest == one.digest
    assert two.manifest["counts"] == one.manifest["counts"]
    assert two.path.name == one.path.name
    steps = [[line["step"] for line in read_metrics(made.path / "log")] for made in (one, two)]
    assert steps[0] == steps[1]
    assert len(steps[0]) >= 4


def test_two_devices_score_what_one_does(lab, alone, fresh_lab, chain):
    """Each in a lab of its own: what one had scored would be known to the other."""
    found = lab("search", f"index_dir={chain['index'].path}", "split=train").artifact
    mined = lab("mine", f"run={found.path}").artifact
    given = (f"candidates={mined.path}", f"teachers={chain['model'].path}")
    one, two = alone("score", *given).artifact, fresh_lab("score", *given, TWO).artifact
    assert two.digest == one.digest
    assert two.path.name == one.path.name
    (cache,) = fresh_lab.root.glob("cache/scores/*.bin")
    assert cache.read_bytes() == (alone.root / "cache" / "scores" / cache.name).read_bytes()


def test_two_devices_train_and_one_finds_it(fresh_lab):
    two = fresh_lab("train", TWO).artifact
    assert fresh_lab("train").artifact == two
    lines = read_metrics(two.path / "log")
    assert [line["step"] for line in lines if "train/loss" in line] == [1, 2, 3]
    assert [line["step"] for line in lines if "val/ndcg_10" in line] == [0, 2, 3]
    assert Artifact.open(two.path).manifest["counts"]["dev"]["ndcg_10"] >= 0


def test_a_teacher_is_trained_by_two(fresh_lab):
    assert fresh_lab("teacher", TWO).artifact == fresh_lab("teacher").artifact


@pytest.mark.parametrize(
    ("verb", "given", "told"),
    [
        (
            "train",
            "devices=3",
            "train.batch_queries=4 cannot be shared equally by devices=3\n *try: train.batch_queries=3",
        ),
        ("rounds", "devices=8", "distil_train.batch_queries=4 cannot be shared equally by devices=8"),
        ("index", "devices=0", "devices=0 must be at least 1"),
    ],
)
def test_devices_that_cannot_share_are_refused(fresh_lab, verb, given, told):
    with pytest.raises(ConfigError, match=told):
        fresh_lab(verb, given)
    assert not fresh_lab.root.exists()
