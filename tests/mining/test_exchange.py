"""Tuples in other formats: Stanford's lines and PyLate's tables, there and back, and what is refused."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colbert_lab.data.examples import Example
from colbert_lab.data.tuples import Tuples
from colbert_lab.errors import ConfigError, DataError
from colbert_lab.mining.examples import PooledExamples
from colbert_lab.mining.exchange import (
    pylate_pools,
    read_pylate,
    write_pylate,
    write_pylate_tables,
    write_pylate_texts,
    write_stanford,
)
from colbert_lab.mining.pools import Pool, write_pools
from colbert_lab.mining.samplers import Uniform

POOLS = 40


@pytest.fixture
def made(make):
    ids = {str(i): f"text {i}" for i in range(30)} | {"a b": "blank", "007": "agent", "é\u2028": "line"}
    return make(ids, {str(i): f"query {i}" for i in range(POOLS)} | {"x y": "blank"})


@pytest.fixture
def examples(made, tmp_path):
    generator = np.random.default_rng(0)

    def pool(query):
        ids = generator.permutation(["a b", "007", "é\u2028", *map(str, range(30))]).tolist()
        scores = generator.normal(0, 9, size=33).astype(np.float32).tolist()
        return Pool(query, tuple(ids[:2]), tuple(scores[:2]), tuple(ids[2:]), tuple(scores[2:]), tuple(range(1, 32)))

    write_pools(tmp_path / "pools.arrow", map(pool, ["x y", *map(str, range(POOLS - 1))]))
    return PooledExamples(made, tmp_path, Uniform(), 7)


def drawn(examples, seed, epoch, negatives):
    """The epoch as training draws it, written out once more."""
    order = np.random.default_rng([seed, epoch]).permutation(len(examples)).tolist()
    return [examples.sample(row, np.random.default_rng([seed, epoch, row]), negatives) for row in order]


class Given:
    """Examples as they are given."""

    fingerprint, limit = "", None

    def __init__(self, *examples):
        self._examples = examples

    def __len__(self):
        return len(self._examples)

    def sample(self, index, rng, negatives):
        return self._examples[index]


def example(ids=("1", "2"), scores=(1.0, 0.0), query="0"):
    return Example("?", ("x",) * len(ids or (1, 2)), query, ids, scores, frozenset())


def test_stanford_lines_are_read_back_with_every_id_and_bit(made, examples, tmp_path):
    assert write_stanford(examples, tmp_path / "tuples.jsonl", seed=3, epoch=1, ways=8) == POOLS
    read = Tuples(made, tmp_path / "tuples.jsonl")
    assert read.limit == 7
    wanted = drawn(examples, 3, 1, 7)
    found = [read.sample(i, np.random.default_rng(0), 7) for i in range(POOLS)]
    for field in ("query_id", "document_ids", "documents", "scores"):
        assert [getattr(one, field) for one in found] == [getattr(one, field) for one in wanted]


def test_stanford_lines_have_integers_where_they_can_and_the_positive_first(tmp_path):
    ids = ("12", "0", "007", "-1", "a", "١", "9" * 18, "9" * 19)
    given = Given(example(ids, (0.5, *range(7)), query="3"), example(("2", "1"), None, query="q"))
    write_stanford(given, tmp_path / "file", 0, 0, 8)
    lines = sorted(map(json.loads, (tmp_path / "file").read_text("utf-8").splitlines()), key=str)
    assert lines[0] == ["q", 2, 1]
    assert [pid for pid, _ in lines[1][1:]] == [12, 0, "007", "-1", "a", "١", int("9" * 18), "9" * 19]
    assert (lines[1][0], lines[1][1]) == (3, [12, 0.5])


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
@pytest.mark.parametrize("write", [write_stanford, write_pylate])
def test_d12_files_are_equal_byte_for_byte_and_epochs_differ(examples, tmp_path, write, name):
    files = []
    for place, epoch in (("one", 0), ("two", 0), ("three", 1)):
        (tmp_path / place).mkdir()
        write(examples, tmp_path / place / name, 0, epoch, 4)
        files.append((tmp_path / place / name).read_bytes())
    assert files[0] == files[1] != files[2]
    if name.endswith(".gz"):
        write(examples, tmp_path / "plain.jsonl", 0, 0, 4)
        assert gzip.decompress(files[0]) == (tmp_path / "plain.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('["0", ["1", 2.5], ["gone", 1.0]]', r"file:2: 'gone' is no id in the corpus"),
        ('["0", ["1", 2.5], ["2", NaN]]', r"file:2: expected \[document, score\] with a score that is a number"),
        ('["0"]', "file:2: expected a list of a query and its documents"),
        ("[0, [2.5, 1], [1.0, 2]]", "file:2: the document id must be a string or an integer, not 2.5"),
        ('[0, [2.5, "a b"], [1.0, "2"]]', r"file:2: expected \[document, score\] with a score that is a number"),
        # Stanford's distillation_scores.json: [qid, [[score, pid], ...]].
        ("[0, [[2.5, 1], [1.0, 2]]]", r"file:2: expected \[document, score\]"),
        ("[0, 1, 2]", "file:2: lines with and without scores are mixed"),
    ],
)
def test_d8_a_damaged_line_is_refused_with_its_place(made, examples, tmp_path, line, message):
    write_stanford(examples, tmp_path / "whole", 0, 0, 4)
    lines = (tmp_path / "whole").read_text("utf-8").split("\n")
    lines[1] = line
    (tmp_path / "file").write_text("\n".join(lines), "utf-8")
    with pytest.raises(DataError, match=message):
        Tuples(made, tmp_path / "file")


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz", "t.parquet"])
def test_pylates_table_is_read_back_with_every_id_and_bit(made, examples, tmp_path, name):
    assert write_pylate(examples, tmp_path / name, seed=3, epoch=1, ways=8) == POOLS
    wanted = drawn(examples, 3, 1, 7)
    rows = list(read_pylate(tmp_path / name))
    assert [(row.query, row.documents, row.scores) for row in rows] == [
        (one.query_id, one.document_ids, one.scores) for one in wanted
    ]
    assert rows[4].where == f"{tmp_path / name}:5"
    write_pools(tmp_path / "back.arrow", pylate_pools(rows, made))
    back = PooledExamples(made, tmp_path / "back.arrow", Uniform(), 7)
    for i in (0, 39):
        found = back.sample(i, np.random.default_rng(0), 7)
        assert (found.query_id, found.document_ids, found.scores) == (rows[i].query, rows[i].documents, rows[i].scores)


def test_tables_of_many_rows_are_whole(make, tmp_path):
    write_pylate(Given(*(example(query=str(i)) for i in range(2500))), tmp_path / "t.parquet", 0, 0, 2)
    assert sorted(int(row.query) for row in read_pylate(tmp_path / "t.parquet")) == list(range(2500))
    many = make({str(i): f"text {i}" for i in range(2500)}, {})
    write_pylate_texts(many.corpus, tmp_path / "d.parquet", "document")
    assert pq.read_table(tmp_path / "d.parquet")["text"].to_pylist() == [f"text {i}" for i in range(2500)]


def test_pylates_table_has_its_columns_and_ids_that_are_strings(made, examples, tmp_path):
    write_pylate(examples, tmp_path / "train.jsonl", 0, 0, 3)
    first = json.loads((tmp_path / "train.jsonl").read_text("utf-8").split("\n")[0])
    assert list(first) == ["query_id", "document_ids", "scores"]
    assert len(first["document_ids"]) == len(first["scores"]) == 3
    assert all(isinstance(id, str) for id in [first["query_id"], *first["document_ids"]])
    assert write_pylate_texts(made.corpus, tmp_path / "documents.parquet", "document") == 33
    table = pq.read_table(tmp_path / "documents.parquet").to_pydict()
    assert dict(zip(table["document_id"], table["text"])) == dict(zip(made.corpus.all_ids(), made.corpus[:]))
    assert write_pylate_texts(made.queries, tmp_path / "queries.jsonl", "query") == POOLS + 1
    lines = (tmp_path / "queries.jsonl").read_text("utf-8").split("\n")
    assert json.loads(lines[POOLS]) == {"query_id": "x y", "text": "blank"}


def test_pylates_folder_is_loaded_as_its_own_examples_load_one(made, examples, tmp_path):
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "export"
    rows = write_pylate_tables(examples, made, folder, seed=3, epoch=1, ways=8)
    assert rows == {"train": POOLS, "queries": POOLS + 1, "documents": 33}
    loaded = {
        name: datasets.load_dataset(str(folder), name, split="train", cache_dir=str(tmp_path / "cache"))
        for name in rows
    }
    assert loaded["train"].column_names == ["query_id", "document_ids", "scores"]
    # KDProcessing looks the texts up by these columns.
    texts = {
        name: dict(zip(*(loaded[name][c] for c in loaded[name].column_names))) for name in ("queries", "documents")
    }
    for row, example in zip(loaded["train"], drawn(examples, 3, 1, 7)):
        assert texts["queries"][row["query_id"]] == example.query
        assert tuple(texts["documents"][id] for id in row["document_ids"]) == example.documents


def test_pylates_texts_lie_beside_a_table_under_its_name(made, examples, tmp_path):
    (tmp_path / "queries.jsonl").write_text("another's")
    write_pylate_tables(examples, made, tmp_path / "tuples.jsonl.gz", 0, 0, 3)
    written = {"tuples.jsonl.gz", "tuples-queries.jsonl.gz", "tuples-documents.jsonl.gz"}
    assert written < {file.name for file in tmp_path.iterdir()}
    assert (tmp_path / "queries.jsonl").read_text() == "another's"
    with pytest.raises(ConfigError, match="must end in"):
        write_pylate_tables(examples, made, tmp_path / "tuples.csv", 0, 0, 3)


def test_pylates_rows_become_pools(made, tmp_path):
    (tmp_path / "t.jsonl").write_text(
        '{"query_id": 7, "document_ids": [3, 4, "007"], "scores": [1, 2.5, -3.0]}\n'
        '{"query_id": "8", "document_ids": "[\'a b\', 5]", "scores": "[0.5, 1e-3]"}\n'
    )
    first, second = pylate_pools(read_pylate(tmp_path / "t.jsonl"), made)
    assert first == Pool("7", ("3",), (1.0,), ("4", "007"), (2.5, -3.0), (2, 3))
    assert second == Pool("8", ("a b",), (0.5,), ("5",), (0.001,), (2,))
    best = next(pylate_pools(read_pylate(tmp_path / "t.jsonl"), made, positive="best"))
    assert best == Pool("7", ("4",), (2.5,), ("3", "007"), (1.0, -3.0), (1, 3))
    with pytest.raises(ConfigError, match="positive=worst must be one of first, best"):
        next(pylate_pools([], made, positive="worst"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query_id": "1", "document_ids": ["1"]}, r"t.jsonl:2: expected the columns query_id, document_ids, scores"),
        ({"document_ids": ["1", "2"], "scores": [1.0]}, "t.jsonl:2: 2 document ids and 1 scores"),
        ({"document_ids": [], "scores": []}, "t.jsonl:2: 0 document ids and 0 scores"),
        ({"document_ids": ["1", 1], "scores": [1.0, 2.0]}, "t.jsonl:2: a document is there twice"),
        ({"document_ids": [2.5, 1.0], "scores": [1, 2]}, "t.jsonl:2: the document id must be .* not 2.5"),
        ({"document_ids": ["1"], "scores": ["2"]}, "t.jsonl:2: a score must be a number, not '2'"),
        ({"document_ids": ["1"], "scores": [float("nan")]}, "t.jsonl:2: a score must be a number, not nan"),
        ({"document_ids": "__import__('os').getcwd()", "scores": [1]}, "t.jsonl:2: document_ids must be a list"),
        ({"document_ids": "1, [", "scores": [1]}, "t.jsonl:2: document_ids must be a list"),
        ({"document_ids": None, "scores": [1]}, "t.jsonl:2: document_ids must be a list"),
        ({"document_ids": ["gone"], "scores": [1]}, "t.jsonl:2: 'gone' is no id in the corpus"),
        ({"query_id": "gone", "document_ids": ["1"], "scores": [1]}, "t.jsonl:2: 'gone' is no id in the queries"),
        ({"query_id": "0", "document_ids": ["1"], "scores": [1]}, "'0' was there before, at .*t.jsonl:1"),
        ([], "t.jsonl:2: expected the columns"),
    ],
)
def test_d5_d8_faults_in_pylates_table_are_named_with_their_place(made, tmp_path, row, message):
    whole = {"query_id": "0", "document_ids": ["1"], "scores": [1.0]}
    row = {"query_id": "1", **row} if isinstance(row, dict) else row
    (tmp_path / "t.jsonl").write_text(f"{json.dumps(whole)}\n{json.dumps(row)}\n")
    with pytest.raises(DataError, match=message):
        list(pylate_pools(read_pylate(tmp_path / "t.jsonl"), made))


def test_other_files_are_refused(tmp_path, examples):
    for name in ("t.csv", "t.parquet.gz", "t"):
        with pytest.raises(ConfigError, match=r"must end in .jsonl, .jsonl.gz or .parquet"):
            write_pylate(examples, tmp_path / name, 0, 0, 2)
        with pytest.raises(ConfigError, match="must end in"):
            list(read_pylate(tmp_path / name))
    for name in ("gone.jsonl", "gone.parquet"):
        with pytest.raises(DataError, match="does not exist"):
            list(read_pylate(tmp_path / name))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and more")
    with pytest.raises(DataError, match="cannot be read as a Parquet file"):
        list(read_pylate(tmp_path / "broken.parquet"))
    pq.write_table(pa.table({"query_id": ["1"]}), tmp_path / "columns.parquet")
    with pytest.raises(DataError, match=r"columns.parquet:1: expected the columns"):
        list(read_pylate(tmp_path / "columns.parquet"))


@pytest.mark.parametrize("write", [write_stanford, write_pylate])
def test_examples_that_no_file_can_hold_are_refused(examples, tmp_path, write):
    file = tmp_path / "t.jsonl"
    with pytest.raises(DataError, match="texts only"):
        write(Given(example(ids=None, scores=None)), file, 0, 0, 2)
    with pytest.raises(DataError, match=r"query '0': the scores .* are not all numbers"):
        write(Given(example(scores=(1.0, float("nan")))), file, 0, 0, 2)
    with pytest.raises(DataError, match="ways=9 needs 8 negatives, but the examples have 7"):
        write(examples, file, 0, 0, 9)
    with pytest.raises(ConfigError, match="ways=0"):
        write(examples, file, 0, 0, 0)


def test_pylates_tuples_need_scores(tmp_path):
    with pytest.raises(DataError, match="has no scores"):
        write_pylate(Given(example(scores=None)), tmp_path / "t.jsonl", 0, 0, 2)
