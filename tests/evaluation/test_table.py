"""Comparisons against a baseline, and the table that shows them."""

import numpy as np
import pytest

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.evaluation.comparison import compare
from colbert_lab.evaluation.metrics import Evaluation
from colbert_lab.evaluation.table import results_table


def evaluation(queries=40, **metrics):
    return Evaluation(tuple(f"q{i}" for i in range(queries)), metrics, {"judged": queries}, 1)


@pytest.fixture
def systems():
    rng = np.random.default_rng(0)
    base = rng.random(40) * 0.5
    noise = rng.normal(0, 0.1, 40)
    return {
        "bm25": evaluation(ndcg_10=base, mrr_10=base),
        "better": evaluation(ndcg_10=base + 0.3, mrr_10=base + noise - noise.mean()),
        "worse": evaluation(ndcg_10=base - 0.2),
    }


def test_compares_each_with_the_baseline(systems):
    compared = compare(systems, "bm25", resamples=999)
    assert [(c.system, c.metric, c.mark()) for c in compared] == [
        ("better", "ndcg_10", "+"),
        ("better", "mrr_10", ""),
        ("worse", "ndcg_10", "-"),
    ]
    # Two systems have ndcg_10, so each p is twice what it was; one has mrr_10.
    assert [c.p / c.test.p for c in compared] == pytest.approx([2, 1, 2])


def test_refuses_what_cannot_be_compared(systems):
    with pytest.raises(ConfigError, match="'bm26' is none of bm25"):
        compare(systems, "bm26")
    with pytest.raises(DataError, match="different queries"):
        compare({**systems, "other": evaluation(3, ndcg_10=np.ones(3))}, "bm25")


def test_the_whole_table(systems):
    means = {name: e.means for name, e in systems.items()}
    means["bm25"] = {"ndcg_10": 0.25, "mrr_10": 0.26}
    means["better"] = {"ndcg_10": 0.55, "mrr_10": 0.26}
    means["worse"] = {"ndcg_10": 0.05}
    text = results_table(means, "scifact", "test", 1300, compare(systems, "bm25", resamples=999), notes=["a note"])
    assert text == (
        "scifact test, 1,300 queries\n"
        "\n"
        "system  ndcg_10    mrr_10\n"
        "--------------------------\n"
        "bm25     0.2500    0.2600*\n"
        "better   0.5500*+  0.2600*\n"
        "worse    0.0500-        -\n"
        "\n"
        "* best of the column   + - better, worse than bm25 (randomisation, Holm, p < 0.05)\n"
        "a note\n"
    )


def test_one_system_is_not_called_best():
    text = results_table({"only": {"map": 0.5}}, "c", "dev", 1)
    assert text == "c dev, 1 query\n\nsystem     map\n--------------\nonly    0.5000\n\n"


def test_stays_within_the_width():
    names = ["run/" + "x" * 80 + f"/seed_{i}" for i in range(3)]
    means = {name: {f"recall_{k}": i / 7 for k in range(100, 112)} for i, name in enumerate(names)}
    text = results_table(means, "c", "test", 10, width=90)
    assert max(map(len, text.splitlines())) <= 90
    assert all(text.count(f"recall_{k}") == 1 for k in range(100, 112))
    assert all(f"seed_{i}" in text for i in range(3))


def test_refuses_an_empty_table():
    with pytest.raises(DataError, match="no results"):
        results_table({}, "c", "test", 1)
