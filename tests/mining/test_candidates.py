"""Mining a run: the window of ranks, what is never a negative and counted, small corpora, the file, contamination."""

import pickle

import numpy as np
import pytest

from colbert_lab.errors import ArtifactError, ConfigError, DataError
from colbert_lab.mining.candidates import (
    Mining,
    QueryCandidates,
    contaminated,
    mine,
    read_candidates,
    write_candidates,
)
from colbert_lab.run import Hits, Run


def run_of(**found):
    return Run({query: Hits(tuple(ids), np.arange(len(ids), 0, -1.0)) for query, ids in found.items()})


def mined(made, run, **knobs):
    return taken(mine(run, made.qrels("train"), made, Mining(**knobs)))


def taken(found):
    """All rows, and then the counts."""
    return list(found), found.counts


@pytest.fixture
def fifty(make):
    """d0..d49; d1 and d30 are relevant to q (grades 1, 2), d31 of the lower grade 1, d2 judged not relevant."""
    documents = {f"d{i}": f"text {i}" for i in range(50)}
    return make(documents, {"q": "?", "other": "!"}, [("q", "d1", 1), ("q", "d30", 2), ("q", "d2", 0)])


@pytest.fixture
def everything(fifty):
    return run_of(q=fifty.corpus.all_ids())


def test_d1_the_window_is_inclusive_and_counted_over_the_whole_list(fifty, everything):
    (row,), counts = mined(fifty, everything, ranks=(11, 14))
    assert row.query == "q"
    assert row.documents == ("d30", "d1", "d10", "d11", "d12", "d13")
    assert row.ranks == (31, 2, 11, 12, 13, 14)
    # 50 hits, of which 2 are positives and 4 are candidates.
    assert counts["dropped"]["outside_window"] == {"total": 44, "queries": 1, "per_query": [44, 44, 44]}


def test_positives_come_first_by_grade_then_rank_wherever_they_rank(make):
    made = make(
        {x: x for x in "abcdef"},
        {"q": "?"},
        [("q", "f", 1), ("q", "e", 1), ("q", "d", 1), ("q", "a", 3), ("q", "b", 1)],
    )
    # d and f were not found: rank 0, after those that were, by id.
    (row,), counts = mined(made, run_of(q="ecba"), ranks=(2, 2))
    assert row == QueryCandidates("q", ("a", "e", "b", "d", "f", "c"), (4, 1, 3, 0, 0, 2), (3, 1, 1, 1, 1, -1))
    assert row.positives == 5
    assert (counts["positives"], counts["positives_not_found"]) == (5, 2)
    (row,), counts = mined(made, run_of(q="ecba"), positives=2)
    assert row.documents == ("a", "e", "c")
    assert counts["dropped"]["surplus_positive"]["total"] == 3


def test_d2_fewer_candidates_than_asked_for_are_reported(fifty, everything):
    assert mined(fifty, everything, depth=48)[1]["short"] == 0
    counts = mined(fifty, everything, depth=49)[1]
    assert (counts["short"], counts["negatives"], counts["negatives_per_query"]) == (1, 48, [48, 48, 48])
    (row,), counts = mined(fifty, run_of(), depth=1)
    assert (row.documents, counts["short"], counts["not_in_run"]) == (("d30", "d1"), 1, 1)
    (row,), counts = mined(fifty, everything, depth=3)
    assert row.documents[2:] == ("d0", "d2", "d3")
    assert counts["dropped"]["beyond_depth"]["total"] == 45


@pytest.mark.parametrize("count", [1, 2, 7, 50])
def test_d3_windows_larger_than_the_corpus(make, count):
    made = make({f"d{i}": f"text {i}" for i in range(count)}, {"q": "?"}, [("q", "d0", 1)])
    run = run_of(q=made.corpus.all_ids())
    for ranks in ((1, 1000), (1, 1), (count, count), (count + 1, 1000)):
        (row,), _ = mined(made, run, ranks=ranks)
        assert row.documents == ("d0", *(f"d{i}" for i in range(1, count) if ranks[0] <= i + 1 <= ranks[1]))


def test_d5_a_document_that_is_not_in_the_corpus_raises_with_its_id(fifty):
    with pytest.raises(DataError, match=r"query 'q': 'gone' is no id .* another collection"):
        mined(fifty, run_of(q=["d0", "gone"]), ranks=(1, 1))
    with pytest.raises(DataError, match="'nobody' is no id in the queries"):
        mined(fifty, run_of(nobody=["d0"]), unjudged=True)


def test_d7_copies_of_a_positive_and_of_an_earlier_candidate_are_dropped(make):
    documents = {"pos": "same", "copy": "same", "low": "lower grade", "copy-of-low": "lower grade", "a": "x", "b": "x"}
    made = make(documents | {"c": "y"}, {"q": "?"}, [("q", "pos", 2), ("q", "low", 1)])
    (row,), counts = mined(made, run_of(q=["copy", "b", "copy-of-low", "a", "c", "pos"]), min_grade=2)
    assert row.documents == ("pos", "b", "c")
    assert counts["dropped"]["copy_of_positive"]["total"] == 2
    assert counts["dropped"]["copy_of_earlier"]["total"] == 1
    # A copy counts only beside what was kept: b is outside the window, so a stays.
    assert mined(made, run_of(q=["b", "a"]), ranks=(2, 9))[0][0].documents[-1] == "a"


def test_grades_below_the_least_are_neither_and_judged_not_relevant_is_a_negative(make):
    made = make({x: x for x in "abcd"}, {"q": "?"}, [("q", "a", 2), ("q", "b", 1), ("q", "c", 0), ("q", "d", -2)])
    (row,), counts = mined(made, run_of(q="abcd"), min_grade=2)
    assert row == QueryCandidates("q", ("a", "c", "d"), (1, 3, 4), (2, 0, 0))
    assert counts["dropped"]["below_min_grade"]["total"] == 1


def test_the_query_itself_and_empty_documents_are_dropped(make):
    documents = {"q": "a document with the query's id", "twin": "what is it?", "blank": " ", "pos": "yes", "neg": "no"}
    made = make(documents, {"q": "what is it?"}, [("q", "pos", 1), ("q", "blank", 1)])
    (row,), counts = mined(made, run_of(q=["q", "twin", "neg", "pos"]))
    assert row.documents == ("pos", "neg")
    assert counts["dropped"]["self"]["total"] == 2
    assert counts["dropped"]["empty"]["total"] == 1
    found = mine(run_of(q=["blank", "neg"]), {"q": {"pos": 1, "gone": 1}}, made, Mining())
    (row,), counts = taken(found)
    assert row.documents == ("pos", "neg")
    assert counts["dropped"]["empty"]["total"] == 1
    assert counts["dropped"]["unknown_positive"]["total"] == 1


def test_queries_without_judgements_are_mined_only_when_asked_for(make):
    made = make({x: x for x in "abc"}, {"q": "?", "free": "!", "blank": "", "none": "..."}, [("q", "a", 1)])
    run = run_of(free="ab", q="ab", blank="ab", none="")
    assert [row.query for row in mined(made, run)[0]] == ["q"]
    rows, counts = mined(made, run, unjudged=True)
    assert [row.query for row in rows] == ["q", "free"]
    assert rows[1] == QueryCandidates("free", ("a", "b"), (1, 2), (-1, -1))
    assert counts["left_out"] == {"empty_query": 1, "nothing_found": 1, "kept_for_judging": 0}
    assert (counts["queries"], counts["without_positive"], counts["pairs"]) == (2, 1, 4)


def test_rows_are_found_one_at_a_time_and_counted_at_the_end(make):
    made = make({"a": "x", "b": "y"}, {"p": "?", "q": "!"}, [("p", "a", 1), ("q", "a", 1)])
    found = mine(run_of(p="ab", q=["gone"]), made.qrels("train"), made, Mining())
    rows = iter(found)
    assert next(rows).query == "p", "the mistake in q is not met yet"
    with pytest.raises(RuntimeError, match="known when all of them were taken"):
        found.counts  # noqa: B018
    with pytest.raises(DataError, match="'gone'"):
        next(rows)
    found = mine(run_of(p="ab"), made.qrels("train"), made, Mining())
    assert (len(list(found)), found.counts["queries"]) == (2, 2)
    with pytest.raises(RuntimeError, match="made once"):
        list(found)


def test_drops_are_told_a_query(make):
    made = make({"a": "x", "b": "x", "c": "x", "d": "x"}, {q: q for q in "pqr"}, [(q, "d", 1) for q in "pqr"])
    counts = mined(made, run_of(p="abc", q="a", r=""))[1]
    assert counts["dropped"]["copy_of_positive"] == {"total": 4, "queries": 2, "per_query": [0, 1, 3]}


def test_d12_the_file_is_equal_byte_for_byte_and_reads_back(tmp_path, fifty, everything):
    rows, _ = mined(fifty, everything)
    rows += [QueryCandidates(f"q{i}", ("a", "b")[: i % 3], (1, 2)[: i % 3], (0, -1)[: i % 3]) for i in range(2500)]
    for name in ("one", "two"):
        write_candidates(tmp_path / name / "candidates.arrow", iter(rows))
    files = [tmp_path / name / "candidates.arrow" for name in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()
    read = read_candidates(files[0])
    assert list(read) == [read[i] for i in range(len(read))] == rows
    pairs = [(row.query, document) for row in rows for document in row.documents]
    assert [(query, document) for query, documents in read.groups() for document in documents] == pairs
    assert list(read.queries()) == [row.query for row in rows]
    assert read.total == len(pairs) == 50 + 2499
    assert read.offsets.tolist() == np.cumsum([0, *(len(row.documents) for row in rows)]).tolist()
    assert pickle.loads(pickle.dumps(read))[1700] == rows[1700]
    with pytest.raises(IndexError):
        read[len(rows)]


def test_a_file_that_holds_no_candidates_is_refused(tmp_path):
    write_candidates(tmp_path / "none.arrow", [])
    read = read_candidates(tmp_path / "none.arrow")
    assert (len(read), list(read), read.total, read.offsets.tolist()) == (0, [], 0, [0])
    (tmp_path / "text").write_text("query\n")
    with pytest.raises(ArtifactError, match="cannot be read as an Arrow file"):
        read_candidates(tmp_path / "text")
    with pytest.raises(ArtifactError, match="does not exist"):
        read_candidates(tmp_path / "nowhere")


def test_d13_test_queries_among_the_training_queries_are_reported(make):
    queries = {"a": "How  TALL is\tit?", "b": "other", "c": "how tall is it?", "d": "", "e": "", "f": "STRASSE"}
    made = make({"x": "x"}, queries | {"g": "straße"})
    assert contaminated(["a", "b", "d", "f"], ["e", "c", "g"], made) == [("a", "c"), ("f", "g")]
    assert contaminated(["b", "d", "a"], ["d", "a", "c"], made) == [("d", "d"), ("a", "a"), ("a", "c")]
    with pytest.raises(DataError, match="'z' is no id"):
        contaminated(["z"], [], made)


def test_wrong_knobs_are_told_together():
    with pytest.raises(ConfigError, match="4 problems in mining") as told:
        Mining(depth=0, ranks=(0, 5), min_grade=0, positives=0)
    assert "try: ranks=[1,1000]" in str(told.value)
    with pytest.raises(ConfigError, match=r"ranks=\[6,5\]"):
        Mining(ranks=(6, 5))
