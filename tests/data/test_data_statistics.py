"""Statistics of a collection, every number worked out by hand from what is written here."""

import numpy as np
import pytest

from colbert_lab.data.statistics import histogram, lengths_statistics, split_statistics, statistics, title_only

DOCUMENTS = [
    ("d1", "", "one two three four five six seven"),
    ("d2", "", ""),
    ("d3", "A title", ""),
    ("d4", "", "one two three four five six seven"),
    ("d5", "", "One, two; three four FIVE six seven!"),
    ("d6", "", "entirely other words"),
]


@pytest.fixture
def collection(make):
    return make(
        DOCUMENTS,
        {"q1": "a b c d", "q2": "", "q3": "a b c d", "q4": "x"},
        {
            "train": [("q1", "d1", 2), ("q1", "d6", 0), ("q2", "gone", 1), ("q3", "d6", 0)],
            "test": [("q4", "d1", 1), ("q4", "d4", 3), ("q4", "gone", 1)],
        },
    )


def test_texts(collection):
    found = statistics(collection)
    documents, queries = found["documents"], found["queries"]
    assert (documents["count"], documents["first_and_last"]) == (6, ["d1", "d6"])
    assert documents["empty"] == {"count": 1, "shown": ["d2"]}
    assert documents["duplicates"] == {"count": 1, "shown": [["d1", "d4"]]}
    # d5 differs from d1 in case and punctuation alone; d4, which repeats it, is counted above.
    assert documents["near_duplicates"] == {"count": 1, "shown": ["d5"]}
    # Words: 7, 0, 2 (the title), 7, 7, 3.
    assert documents["words"] == {
        "mean": 26 / 6,
        "median": 5.0,
        "p95": 7.0,
        "max": 7,
        "total": 26,
        "bins": [[0, 0, 1], [1, 1, 0], [2, 3, 2], [4, 7, 3]],
    }
    assert queries["duplicates"] == {"count": 1, "shown": [["q1", "q3"]]}
    assert queries["empty"]["shown"] == ["q2"]
    assert statistics(collection, near_limit=5)["documents"]["near_duplicates"] is None
    assert statistics(collection, near_limit=5)["queries"]["near_duplicates"] == {"count": 0, "shown": []}


def test_judgements(collection):
    train, test = split_statistics(collection, "train"), split_statistics(collection, "test")
    assert train == {
        "queries": 3,
        "first_and_last": ["q1", "q3"],
        "judgements": 4,
        "grades": {"0": 2, "1": 1, "2": 1},
        "positives_per_query": 1.0,
        "without_positive": {"count": 1, "shown": ["q3"]},
        "unknown_documents": {"count": 1, "shown": ["gone"]},
        "positives_all_unknown": {"count": 1, "shown": ["q2"]},
    }
    assert test["first_and_last"] == ["q4"]
    assert test["positives_per_query"] == 3.0
    assert test["positives_all_unknown"]["count"] == 0


def test_documents_with_a_title_alone(memory):
    assert title_only(memory(DOCUMENTS, {}, {})) == {"count": 1, "shown": ["d3"]}


def test_no_queries(make):
    found = statistics(make({"d": "text"}))["queries"]
    assert (found["count"], found["first_and_last"], found["words"]["bins"]) == (0, [], [])


def test_a_histogram_shows_every_bin_that_is_not_empty():
    lines = histogram(lengths_statistics(np.array([3] * 200 + [5] + [1000] * 100))["bins"], width=10)
    assert lines[0].split() == ["2-3", "##########", "200"]
    # One of 200 rounds to no bar at all, and is there.
    assert lines[1].split() == ["4-7", "#", "1"]
    assert lines[-1].split() == ["512-1,023", "#####", "100"]
    assert len(lines) == 9
    assert histogram([]) == []
