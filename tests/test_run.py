"""Runs: their order, and that TREC files keep everything."""

import gzip
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.run import Hits, Run, rank, read_trec, write_trec

IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
SCORES = st.floats(allow_nan=False, allow_infinity=False)


def lines(*rows):
    return "".join(f"{row}\n" for row in rows)


def test_equal_scores_by_policy():
    ids, scores = ["b", "c", "a"], [1.0, 1.0, 1.0]
    assert rank(ids, scores).ids == ("a", "b", "c")
    assert rank(ids, scores, "file").ids == ("b", "c", "a")
    assert rank(ids, scores, "trec_eval").ids == ("c", "b", "a")


def test_trec_eval_compares_single_precision():
    ids, scores = ["a", "b"], [1.0 + 1e-9, 1.0]
    assert rank(ids, scores).ids == ("a", "b")
    assert rank(ids, scores, "trec_eval").ids == ("b", "a")
    assert rank(["a", "b"], [1e300, 1e301], "trec_eval").ids == ("b", "a")


def test_scores_follow_their_documents_and_may_be_negative():
    hits = rank(["x", "y", "z"], [-3.5, -0.5, 0.0])
    assert list(hits) == [("z", 0.0), ("y", -0.5), ("x", -3.5)]
    assert len(rank([], [])) == 0


@pytest.mark.parametrize(
    ("ids", "scores", "said"),
    [
        (["a", "a"], [1, 2], "'a' appears twice"),
        (["a", "b"], [1, float("nan")], "'b' is not a number"),
        (["a"], [1, 2], "1 document ids, but 2 scores"),
    ],
)
def test_refuses_unusable_results(ids, scores, said):
    with pytest.raises(DataError, match=said):
        rank(ids, scores)


def test_refuses_unknown_ties():
    with pytest.raises(ConfigError, match="trec_eval"):
        rank(["a"], [1], "random")


def test_cut_without_and_equality():
    hits = rank(["a", "b", "c"], [3, 2, 1])
    assert hits.cut(2) == Hits(("a", "b"), np.array([3.0, 2.0]))
    assert hits.without({"b"}).ids == ("a", "c")
    assert hits != hits.cut(2)
    run = Run({"q": hits})
    assert run.depth == 3
    assert run.cut(2).depth == 2
    assert Run({"q": hits}, 10).cut(20).depth == 10


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(IDS, st.dictionaries(IDS, SCORES, min_size=1, max_size=4), max_size=3))
def test_round_trip(tmp_path_factory, found):
    run = Run({query: rank(list(scores), list(scores.values())) for query, scores in found.items()})
    path = tmp_path_factory.mktemp("run") / "run.trec"
    write_trec(run, path)
    again = read_trec(path)
    assert again == run
    assert list(again) == list(run)


@pytest.mark.parametrize("name", ["run.trec", "run.trec.gz"])
def test_round_trip_keeps_ids_and_digits(tmp_path, name):
    single = np.float32(0.1) + np.arange(5, dtype=np.float32) / 7
    ids = ["plain", "with blank", "50%25", "<dbpedia:A_%28b%29>", "\ufeffé\u2003ü\x85"]
    run = Run({"\ufeffquery": rank(ids, single), "a query": rank(ids, single), "q": rank(ids, -single)})
    write_trec(run, tmp_path / name)
    again = read_trec(tmp_path / name)
    assert again == run
    assert (again["a query"].scores.astype(np.float32) == np.sort(single)[::-1]).all()


def test_foreign_percent_signs_are_left_alone(tmp_path):
    (tmp_path / "run").write_text("q%201 Q0 a%20b 1 2.0 bm25\n")
    assert read_trec(tmp_path / "run")["q%201"].ids == ("a%20b",)


def test_ranks_count_from_1_and_order_is_kept(tmp_path):
    run = Run({"q": Hits(("b", "a", "c"), np.array([1.0, 1.0, 0.5]))})
    write_trec(run, tmp_path / "run", tag="mine")
    assert (tmp_path / "run").read_text() == lines("q Q0 b 1 1.0 mine", "q Q0 a 2 1.0 mine", "q Q0 c 3 0.5 mine")
    assert read_trec(tmp_path / "run", "file") == run
    assert read_trec(tmp_path / "run", depth=100).depth == 100


def test_equal_runs_make_equal_files(tmp_path):
    run = Run({"q": rank(["a"], [1.0])})
    for name in ("one.gz", "two.gz"):
        write_trec(run, tmp_path / name)
    assert (tmp_path / "one.gz").read_bytes()[4:8] == bytes(4), "a time in the header"
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()


def test_line_order_and_ranks_are_not_trusted(tmp_path):
    rng = np.random.default_rng(0)
    rows = [f"q{i % 3} Q0 d{i} {rng.integers(100)} {i % 4} x" for i in range(60)]
    (tmp_path / "one").write_text(lines(*rows))
    (tmp_path / "two").write_text(lines(*rng.permutation(rows)))
    assert read_trec(tmp_path / "one") == read_trec(tmp_path / "two")


def test_reads_blank_lines_windows_line_ends_and_a_byte_order_mark(tmp_path):
    (tmp_path / "run").write_bytes(b"\xef\xbb\xbfq Q0 a 1 2 x\r\n\r\nq\tQ0\tb\t2\t1e-3\tx")
    assert list(read_trec(tmp_path / "run")["q"]) == [("a", 2.0), ("b", 0.001)]
    (tmp_path / "empty").write_text("")
    assert len(read_trec(tmp_path / "empty")) == 0


def test_a_result_takes_16_bytes_however_many_queries_share_a_document(tmp_path):
    ids = [f"document-{i}" for i in range(400)]
    run = Run({f"q{i}": Hits(tuple(ids), -np.arange(400) / 3) for i in range(100)})
    write_trec(run, tmp_path / "run")
    tracemalloc.start()
    try:
        again = read_trec(tmp_path / "run")
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert again == run
    assert again["q7"].ids[5] is again["q99"].ids[5]
    # Ids and queries apart: 8 bytes of a reference and 8 of a score.
    room = 400 * 200 + 100 * 500
    assert kept < 40_000 * 16 + room
    assert most < 40_000 * 20 + room


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("q Q0 a 1 2 x\nq Q0 a b 1 2 x\n", ":2: a run line has 6 columns, this one 7"),
        ("q Q0 a 1 high x\n", ":1: the score 'high' is not a number"),
        ("q Q0 a 1 nan x\n", "query 'q': the score of document 'a' is not a number"),
        ("q Q0 a 1 2 x\nq Q0 a 2 1 x\n", "query 'q': document 'a' appears twice"),
    ],
)
def test_says_where_a_file_is_wrong(tmp_path, content, said):
    (tmp_path / "run").write_text(content)
    with pytest.raises(DataError, match=said):
        read_trec(tmp_path / "run")


def test_says_what_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_trec(tmp_path / "absent")
    (tmp_path / "latin").write_bytes(b"q Q0 a 1 2 x\nq Q0 \xe9 2 1 x\n")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"q Q0 a 1 2 x\n" * 1000)[:-12])
    (tmp_path / "plain.gz").write_bytes(b"q Q0 a 1 2 x\n")
    for name in ("latin", "cut.gz", "plain.gz"):
        with pytest.raises(DataError, match="cannot be read"):
            read_trec(tmp_path / name)


def test_refuses_what_it_could_not_read_back(tmp_path):
    for tag in ("two words", "", "mine%"):
        with pytest.raises(ConfigError, match="one word"):
            write_trec(Run({}), tmp_path / "run", tag)
    with pytest.raises(DataError, match="empty id"):
        write_trec(Run({"": rank(["a"], [1.0])}), tmp_path / "run")
