"""BM25: scores by hand, few documents, empty texts, order, and the figures known for real collections."""

import gzip
import json
import logging
import math
from pathlib import Path

import pytest

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.evaluation.metrics import evaluate
from colbert_lab.evaluation.qrels import read_qrels
from colbert_lab.search.bm25 import Bm25

COLLECTIONS = Path(__file__).parents[2].parent / "shared" / "collections"


def collection(name, split):
    root = COLLECTIONS / name
    if not root.is_dir():
        pytest.skip(f"needs the collection {root}")
    documents, queries = [], {}
    with gzip.open(root / "corpus.jsonl.gz", "rt") as handle:
        documents = [json.loads(line) for line in handle]
    with gzip.open(root / "queries.jsonl.gz", "rt") as handle:
        queries = {q["_id"]: q["text"] for q in map(json.loads, handle)}
    return documents, queries, read_qrels(root / "qrels" / f"{split}.tsv")


def test_scores_by_hand():
    index = Bm25(["a", "b"], ["wing wing flow", "plate"], stopwords=None, stemmer=None)
    ((document, score),) = index.search(["q"], ["wing"], 10)["q"]
    expected = math.log(1 + 1.5 / 1.5) * 2 / (2 + 0.9 * (1 - 0.4 + 0.4 * 3 / 2))
    assert document == "a"
    assert score == pytest.approx(expected, rel=1e-6)
    assert index.search(["q"], ["wing wing"], 10)["q"].scores[0] == pytest.approx(2 * expected, rel=1e-6)


def test_stems_and_stop_words():
    index = Bm25(["a"], ["The wings of an aircraft"])
    assert index.search(["q"], ["winged"], 1)["q"].ids == ("a",)
    assert index.search(["q"], ["wing"], 1)["q"].ids == ("a",)
    assert len(index.search(["q"], ["of the"], 1)["q"]) == 0
    assert Bm25(["a"], ["of the"], stopwords=None).search(["q"], ["of"], 1)["q"].ids == ("a",)
    assert len(Bm25(["a"], ["one two"], stopwords=["two"]).search(["q"], ["two"], 1)["q"]) == 0


@pytest.mark.parametrize("n", [1, 2, 7])
def test_more_asked_for_than_there_are(n):
    index = Bm25([f"d{i}" for i in range(n)], (f"wing number{i}" for i in range(n)))
    run = index.search(["q"], ["wing"], 1000)
    assert sorted(run["q"].ids) == [f"d{i}" for i in range(n)]
    assert run.depth == 1000
    assert len(index) == n


def test_only_documents_that_share_a_word():
    index = Bm25(["a", "b", "c"], ["wing flow", "plate", ""])
    run = index.search(["known", "unknown", "empty", "blank"], ["wing", "zebra", "", " \n"], 3)
    assert [len(hits) for hits in run.values()] == [1, 0, 0, 0]
    assert list(run) == ["known", "unknown", "empty", "blank"]


def test_documents_without_words():
    run = Bm25(["a", "b"], ["", "?"]).search(["q"], ["wing"], 2)
    assert len(run["q"]) == 0


def test_equal_scores_by_id_also_at_the_cut():
    ids = ["d", "b", "e", "a", "c"]
    index = Bm25(ids, ["wing flow"] * 4 + ["wing wing flow"])
    for k in range(1, 6):
        assert index.search(["q"], ["wing"], k)["q"].ids == ("c", "a", "b", "d", "e")[:k]


def test_searching_does_not_change_the_index():
    index = Bm25(["a", "b"], ["flowing water", "the plate"])
    first = index.search(["q"], ["flow"], 2)
    index.search(["x", "y"], ["zebra flows plates", "unseen"], 1)
    assert index.search(["q"], ["flow"], 2) == first


def test_is_silent(capfd, caplog):
    with caplog.at_level(logging.DEBUG):
        Bm25(["a"], ["wing"]).search(["q"], ["wing"], 1)
    assert not [record for record in caplog.records if record.name == "bm25s"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"k1": -1}, "k1 is -1"),
        ({"b": 2}, "b is 2"),
        ({"stemmer": "klingon"}, "english"),
        ({"stopwords": "klingon"}, "stopwords is 'klingon'"),
        ({"k1": -1, "b": 2}, "2 problems"),
    ],
)
def test_refuses_settings(changes, said):
    with pytest.raises(ConfigError, match=said):
        Bm25(["a"], ["wing"], **changes)


def test_refuses_data():
    for ids, texts, said in (([], [], "needs documents"), (["a", "a"], ["x", "y"], "own id"), (["a"], [], "0 texts")):
        with pytest.raises(DataError, match=said):
            Bm25(ids, texts)
    index = Bm25(["a"], ["wing"])
    with pytest.raises(ConfigError, match="k is 0"):
        index.search(["q"], ["wing"], 0)
    for ids, texts in ((["q"], []), (["q", "q"], ["wing", "wing"])):
        with pytest.raises(DataError, match="distinct and match"):
            index.search(ids, texts, 1)


@pytest.mark.parametrize(
    ("name", "ndcg", "mrr", "recall"), [("nfcorpus", 0.318, 0.522, 0.247), ("cranfield", 0.514, 0.767, 0.759)]
)
def test_known_figures(name, ndcg, mrr, recall):
    documents, queries, qrels = collection(name, "test")
    index = Bm25([d["_id"] for d in documents], (f"{d['title']} {d['text']}" for d in documents))
    run = index.search(list(qrels), [queries[query] for query in qrels], 100)
    found = evaluate(run, qrels, ["ndcg_10", "mrr_10", "recall_100"]).means
    assert found == pytest.approx({"ndcg_10": ndcg, "mrr_10": mrr, "recall_100": recall}, abs=0.003)
