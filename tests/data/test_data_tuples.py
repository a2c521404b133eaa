"""Files of tuples and triples: the forms, their order, what is refused with file and line, repeatable draws."""

import pickle
import types

import numpy as np
import pytest

from colbert_lab.data import doc_pairs
from colbert_lab.data.doc_pairs import DocPairs
from colbert_lab.data.lines import Lines
from colbert_lab.data.text_triples import TextTriples
from colbert_lab.data.texts import hash_text
from colbert_lab.data.tuples import Tuples
from colbert_lab.errors import DataError


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def made(make):
    return make({str(i): f"text {i}" for i in range(10)} | {"a b": "blank"}, {"1": "one", "x y": "two"}, {})


@pytest.fixture
def file(tmp_path):
    def write(*lines, name="file"):
        path = tmp_path / name
        path.write_bytes(b"".join((x if isinstance(x, bytes) else x.encode()) + b"\n" for x in lines))
        return path

    return write


def test_lines_are_found_where_they_lie(file):
    path = file("one", "", "two\u2028\x85still two", "\r", "three\r")
    lines = Lines(path)
    assert [lines[i] for i in (2, 0, 1)] == [
        (f"{path}:5", "three"),
        (f"{path}:1", "one"),
        (f"{path}:3", "two\u2028\x85still two"),
    ]
    visited = []
    Lines(path, lambda *entry: visited.append(entry))
    assert visited == [lines[i] for i in range(3)]
    assert pickle.loads(pickle.dumps(lines))[2] == lines[2]
    with pytest.raises(IndexError):
        lines[3]
    with pytest.raises(DataError, match="gunzip -k"):
        Lines(file("x", name="file.gz"))


def test_ids_and_scored_lines(made, file):
    plain = Tuples(made, file('[1, 3, "a b", 0]', '["x y", 4, 5]', name="plain"))
    example = plain.sample(0, rng(), 2)
    assert (example.query, example.query_id) == ("one", "1")
    assert example.document_ids == ("3", "a b", "0")
    assert example.documents == ("text 3", "blank", "text 0")
    assert example.scores is None
    assert plain.limit == 1
    assert plain.describe()["negatives"] == [1, 2]
    scored = Tuples(
        made, file("[1, [3, 9.5], [2, 1], [0, -2e1]]", name="scored"), qrels={"1": {"3": 1, "8": 2, "9": 0}}
    )
    example = scored.sample(0, rng(), 2)
    assert example.document_ids == ("3", "2", "0")
    assert example.scores == (9.5, 1.0, -20.0)
    assert example.known_positives == {"3", "8"}
    assert example.known_texts == {hash_text("text 3"), hash_text("text 8")}
    columns = Tuples(made, file("1\t3\ta b", "x y\t4\t5", name="columns.tsv"))
    assert columns.sample(1, rng(), 1).document_ids == ("4", "5")


def test_negatives_are_sampled_or_the_first(made, file):
    path = file("[1, [9, 9.0], [0, 0], [1, 1], [2, 2], [3, 3], [4, 4]]")
    sampled, first = Tuples(made, path), Tuples(made, path, pick="first")
    assert first.sample(0, rng(7), 2).document_ids == ("9", "0", "1")
    draws = [sampled.sample(0, rng(i), 2) for i in range(20)]
    assert {id for e in draws for id in e.document_ids[1:]} == {"0", "1", "2", "3", "4"}
    assert all(e.document_ids[0] == "9" and [str(int(s)) for s in e.scores] == list(e.document_ids) for e in draws)
    assert sampled.sample(0, rng(3), 2) == sampled.sample(0, rng(3), 2)
    assert sampled.fingerprint != first.fingerprint
    with pytest.raises(DataError, match=r"file:1: 6 negatives are wanted, but there are 5"):
        sampled.sample(0, rng(), 6)
    with pytest.raises(DataError, match="pick=all must be one of sample, first"):
        Tuples(made, path, pick="all")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["[1, 2, 3]", "[1, 2, 99]"], r"file:2: '99' is no id in the corpus of memory"),
        (["[5, 2, 3]"], r"file:1: '5' is no id in the queries of memory"),
        (["[1, [9.5, 3], [1.5, 2]]"], "file:1: the document id must be a string or an integer, not 9.5"),
        (['[1, ["9.5", 3], ["1.5", 2]]'], r"file:1: '9.5' is no id .*; the order is \[document, score\]"),
        (['[1, [3, "9.5"]]'], r"file:1: expected \[document, score\] with a score that is a number"),
        (["[1, [3, NaN]]"], r"file:1: expected \[document, score\] with a score that is a number"),
        (["[1, [3, true]]"], "with a score that is a number"),
        (["[1, [3, 1.0, 2]]"], r"file:1: expected \[document, score\], found"),
        (["[1, 2, 3]", "[1, [2, 1.0], [3, 2.0]]"], "file:2: lines with and without scores are mixed"),
        (["[1, 2, [3, 2.0]]"], "file:1: lines with and without scores are mixed"),
        (["[1]"], "file:1: expected a list of a query and its documents"),
        (["[1, 2, 2]"], "file:1: a document is there twice"),
        (["[1, 2, 3"], "file:1: not a line of JSON"),
        (["1\t2\t3", "1\t2"], r"file:2: expected 3 columns separated by tabs .* found 2"),
        (["1 2 3"], "file:1: expected 3 columns"),
        ([b"[1, \xff]"], "file:1: not UTF-8"),
        ([], "is empty"),
    ],
)
def test_faults_are_named_with_file_and_line(made, file, lines, message):
    with pytest.raises(DataError, match=message):
        Tuples(made, file(*lines))


def test_ids_beyond_the_checked_lines_are_refused_when_drawn(made, file):
    examples = Tuples(made, file("[1, 2, 3]", "[1, 2, 99]"), checked=1)
    with pytest.raises(DataError, match="file:2: '99' is no id"):
        examples.sample(1, rng(), 1)
    with pytest.raises(DataError, match="checked=-1"):
        Tuples(made, file("[1, 2, 3]"), checked=-1)


def test_raw_texts(file):
    triples = TextTriples(file("q\tp one\u2028\tn", "q2\tp2\tn2"))
    assert len(triples) == 2
    example = triples.sample(0, rng(), 1)
    assert (example.query, example.documents, example.document_ids) == ("q", ("p one\u2028", "n"), None)
    assert triples.sample(1, rng(), 0).documents == ("p2",)
    with pytest.raises(DataError, match="2 negatives are wanted, but there are 1"):
        triples.sample(0, rng(), 2)
    with pytest.raises(DataError, match=r"bad:2: expected 3 columns .* found 4"):
        TextTriples(file("q\tp\tn", "q\tp\twith tab\tn", name="bad"))
    with pytest.raises(DataError, match=r"bad:1: one of query, positive, negative is empty"):
        TextTriples(file("q\t\tn", name="bad"))


def test_docpairs(made, monkeypatch):
    def pairs(*rows):
        entries = [types.SimpleNamespace(query_id=q, doc_id_a=a, doc_id_b=b) for q, a, b in rows]
        monkeypatch.setattr(doc_pairs, "read", lambda id, what: iter(enumerate(entries, 1)))

    pairs(("1", "3", "4"), ("x y", "a b", "0"))
    examples = DocPairs(made, "some/set", qrels={"1": {"7": 1}})
    assert examples.sample(1, rng(), 1).documents == ("blank", "text 0")
    example = examples.sample(0, rng(), 0)
    assert example.known_positives == {"3", "7"}
    assert example.known_texts == {hash_text("text 3"), hash_text("text 7")}
    pairs(("1", "3", "4"), ("1", "3", "44"))
    with pytest.raises(DataError, match="some/set docpairs:2: '44' is no id"):
        DocPairs(made, "some/set")
