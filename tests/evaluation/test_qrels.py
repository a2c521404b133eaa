"""Files of relevance judgements."""

import pytest

from colbert_lab.errors import DataError
from colbert_lab.evaluation.qrels import read_qrels, write_qrels

QRELS = {"q1": {"d1": 2, "d2": 0, "d3": -1}, "q2": {"d1": 1}}


@pytest.mark.parametrize("name", ["test.tsv", "test.tsv.gz", "test.qrels", "test.qrels.gz"])
def test_round_trip(tmp_path, name):
    write_qrels(QRELS, tmp_path / name)
    assert read_qrels(tmp_path / name) == QRELS


def test_writes_the_known_formats(tmp_path):
    write_qrels({"q": {"d": 1}}, tmp_path / "a.tsv")
    write_qrels({"q": {"d": 1}}, tmp_path / "a.txt")
    assert (tmp_path / "a.tsv").read_text() == "query-id\tcorpus-id\tscore\nq\td\t1\n"
    assert (tmp_path / "a.txt").read_text() == "q 0 d 1\n"


def test_reads_what_others_write(tmp_path):
    (tmp_path / "marco.tsv").write_text("1\t0\t7\t1\r\n\r\n2\t0\t8\t1\n")
    assert read_qrels(tmp_path / "marco.tsv") == {"1": {"7": 1}, "2": {"8": 1}}
    (tmp_path / "headless.tsv").write_text("1\ta blank id\t3\n1\ta blank id\t3\n")
    assert read_qrels(tmp_path / "headless.tsv") == {"1": {"a blank id": 3}}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("q 0 d 1\nq 0 d\n", ":2: judgements have 4 columns"),
        ("query-id\tcorpus-id\tscore\nq\td\n", ":2: judgements have 3 columns"),
        ("q 0 d high\n", ":1: the grade 'high' is not an integer"),
        ("query-id\tcorpus-id\tscore\nq\td\t0.5\n", ":2: the grade '0.5' is not an integer"),
        ("q 0 d 1\nq 0 d 2\n", ":2: document 'd' of query 'q' has grade 2, an earlier line says 1"),
        ("query-id\tcorpus-id\tscore\n", "no judgements"),
        ("", "no judgements"),
    ],
)
def test_says_where_a_file_is_wrong(tmp_path, content, said):
    (tmp_path / "qrels").write_text(content)
    with pytest.raises(DataError, match=said):
        read_qrels(tmp_path / "qrels")


def test_refuses_ids_the_format_cannot_hold(tmp_path):
    with pytest.raises(DataError, match="'a b' cannot be written to TREC"):
        write_qrels({"q": {"a b": 1}}, tmp_path / "q.txt")
    write_qrels({"q": {"a b": 1}}, tmp_path / "q.tsv")
    assert read_qrels(tmp_path / "q.tsv") == {"q": {"a b": 1}}
    for name in ("a\tb", "", "a\nb"):
        with pytest.raises(DataError, match=r"cannot be written to a \.tsv"):
            write_qrels({"q": {name: 1}}, tmp_path / "q.tsv")
