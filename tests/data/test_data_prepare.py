"""prepare: every check of ids, texts and judgements, once for all sources; the same source gives the same artifact."""

import pytest

from colbert_lab.data.collection import Collection, holdout
from colbert_lab.data.source import prepare, report
from colbert_lab.errors import ArtifactError, DataError

DOCUMENTS = [("d1", "Title", "text one"), ("d2", "", "text two"), ("d3", "", " \n"), ("d4", "", "text two")]
QUERIES = {"q1": "what", "q2": ""}
QRELS = {
    "train": [("q1", "d1", 2), ("q1", "d2", 0), ("q1", "gone", 1)],
    "odd/split": [("q2", "d2", 0), ("q2", "d2", 0)],
}


def test_a_collection_and_what_is_odd_about_it(make):
    made = make(DOCUMENTS, QUERIES, QRELS)
    assert made.corpus.get(["d1", "d2", "d3"]) == ["Title text one", "text two", ""]
    assert made.splits == ("train", "odd/split")
    assert made.qrels("train") == {"q1": {"d1": 2, "d2": 0, "gone": 1}}
    assert made.qrels("odd/split") == {"q2": {"d2": 0}}
    counts = made.artifact.manifest["counts"]
    assert (counts["documents"], counts["empty_documents"], counts["duplicate_documents"]) == (4, 1, 1)
    assert counts["splits"]["train"]["unknown_documents"] == 1
    assert counts["splits"]["odd/split"]["repeated"] == 1
    assert counts["splits"]["odd/split"]["queries_without_positive"] == 1
    told = "\n".join(report(made))
    for words in ("'d3'", "'q2'", "titles are put before", "outside the corpus", "no relevant document"):
        assert words in told
    with pytest.raises(DataError, match="no split 'test'; it has: train, odd/split"):
        made.qrels("test")


def test_titles_can_be_dropped_and_that_is_another_collection(make):
    kept, dropped = make(DOCUMENTS), make(DOCUMENTS, title="drop")
    assert dropped.corpus.get(["d1"]) == ["text one"]
    assert kept.digest != dropped.digest
    assert dropped.artifact.manifest["config"]["title"] == "drop"
    with pytest.raises(DataError, match="title=both must be one of prepend, drop"):
        make(DOCUMENTS, title="both")


def test_twice_is_the_same_bytes_and_is_read_once(memory, tmp_path):
    first = prepare(memory(DOCUMENTS, QUERIES, QRELS), tmp_path / "a")
    second = prepare(memory(DOCUMENTS, QUERIES, QRELS), tmp_path / "b")
    assert first.digest == second.digest
    source = memory(DOCUMENTS, QUERIES, QRELS)
    source.documents = None
    assert prepare(source, tmp_path / "a").digest == first.digest
    with pytest.raises(ArtifactError):
        Collection.open(tmp_path)


@pytest.mark.parametrize(
    ("documents", "qrels", "message"),
    [
        ([("a", "", "x"), ("b", "", "y"), ("a", "", "z")], [], r"docs:3: the id 'a' was there before, at docs:1"),
        ([("", "", "x")], [], "docs:1: the id must be a string that is not empty"),
        ([("a", "", "\ud800")], [], "docs:1: 'a' has half a surrogate pair"),
        ([], [], "has no documents"),
        ([("a", "", "x")], [("q9", "a", 1)], r"test:1: the query 'q9' is judged, but is not among the queries"),
        ([("a", "", "x")], [("q1", "a", 1.5)], "test:1: a grade is an integer, not 1.5"),
        ([("a", "", "x")], [("q1", "a", 1), ("q1", "a", 2)], "test:2: .* has grade 2, but had 1 before"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(make, documents, qrels, message):
    with pytest.raises(DataError, match=message):
        make(documents, QUERIES, {"test": qrels})


def test_unknown_documents_can_be_an_error(make):
    with pytest.raises(DataError, match=r"train:3: the document 'gone' .* unknown_documents=count"):
        make(DOCUMENTS, QUERIES, QRELS, unknown_documents="error")


def test_holdout_is_disjoint_whole_and_independent_of_order():
    qrels = {f"q{i}": {"d": i % 3} for i in range(60)}
    rest, held = holdout(qrels, 10, seed=0)
    assert len(held) == 10
    assert not rest.keys() & held.keys()
    assert {**rest, **held} == qrels
    assert all(max(judged.values()) > 0 for judged in held.values())
    assert holdout(dict(reversed(qrels.items())), 10, seed=0)[1].keys() == held.keys()
    assert holdout(qrels, 10, seed=1)[1].keys() != held.keys()
    assert holdout(qrels, 5, seed=0)[1].keys() < held.keys()
    with pytest.raises(DataError, match="40 queries cannot be held out of 40"):
        holdout(qrels, 40, seed=0)
