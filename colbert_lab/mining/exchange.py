"""Tuples with a teacher's scores for other code bases, and from them: Stanford's lines of JSON, PyLate's three tables.

    Stanford    [qid, [pid, score], ...]              read by colbert_lab.data.tuples.Tuples
    PyLate      query_id, document_ids, scores        read by read_pylate; the texts are two tables of their own

What is written is one epoch as training would see it: the order of the lines and the draw in each are functions of
(seed, epoch) alone, those of colbert_lab.training.batches. Both formats have the positive first.
"""

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from colbert_lab.data.collection import Collection
from colbert_lab.data.examples import Example, Examples
from colbert_lab.data.lines import json_id, numbered_lines, parse_json
from colbert_lab.data.texts import Texts
from colbert_lab.errors import ConfigError, DataError
from colbert_lab.mining.pools import Pool
from colbert_lab.run import create_text

Positive = Literal["first", "best"]
_COLUMNS = ("query_id", "document_ids", "scores")
_TUPLES = pa.schema({"query_id": pa.string(), "document_ids": pa.list_(pa.string()), "scores": pa.list_(pa.float32())})
_BATCH = 1000
# What Python writes for an integer, short enough for 64 bits: such an id comes back from JSON as it was.
_INTEGER = re.compile(r"(0|[1-9][0-9]{0,17})", re.ASCII)


class PylateRow(NamedTuple):
    """A query and its documents with a teacher's scores, as a file has them; `where` is the place in it."""

    where: str
    query: str
    documents: tuple[str, ...]
    scores: tuple[float, ...]


def write_stanford(examples: Examples, path: str | Path, seed: int, epoch: int, ways: int) -> int:
    """Write `[qid, [pid, score], ...]` a line, `ways` documents each (.gz too); returns the number of lines.

    Without a teacher's scores a line is `[qid, pid, ...]`. Stanford's ColBERT looks ids up by integer, so an id that
    is an integer in plain decimal is written as one; every other is written as a string, which only our Tuples reads
    (Stanford's pids must moreover be the line numbers of its collection.tsv). Stanford's ColBERT takes the lines in
    the order of the file. Scores keep all their digits. DataError for examples without ids, a score that is no number,
    or too few negatives.
    """
    path = Path(path)
    with create_text(path) as handle:
        for example in _epoch(examples, seed, epoch, ways):
            documents = [_stanford_id(id) for id in example.document_ids]
            if example.scores is not None:
                documents = [[id, score] for id, score in zip(documents, example.scores)]
            line = [_stanford_id(example.query_id), *documents]
            handle.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
    return len(examples)


def write_pylate(examples: Examples, path: str | Path, seed: int, epoch: int, ways: int) -> int:
    """Write PyLate's table of tuples, `ways` documents a row, as .jsonl, .jsonl.gz or .parquet; returns the rows.

    PyLate keeps the first n_ways documents of a row: write as many as are wanted. All ids are strings, as they are in
    the tables of write_pylate_texts. ConfigError for another suffix; DataErrors as in write_stanford, and for examples
    without scores.
    """
    _write_table(Path(path), _TUPLES, _pylate_rows(_epoch(examples, seed, epoch, ways)))
    return len(examples)


def write_pylate_texts(texts: Texts, path: str | Path, what: Literal["query", "document"]) -> int:
    """Write PyLate's table of queries or documents (columns query_id or document_id, text), as write_pylate."""
    schema = pa.schema({f"{what}_id": pa.string(), "text": pa.string()})
    slices = (range(start, min(start + _BATCH, len(texts))) for start in range(0, len(texts), _BATCH))
    pairs = (pair for rows in slices for pair in zip(texts.ids(rows), texts[rows]))
    _write_table(Path(path), schema, ({f"{what}_id": id, "text": text} for id, text in pairs))
    return len(texts)


def pylate_paths(path: str | Path) -> dict[str, Path]:
    """Where PyLate's three tables lie, as train, queries and documents.

    In a folder they are Parquet files of these names. For a path that is a table's own name (.jsonl, .jsonl.gz,
    .parquet) the two others lie beside it, as <name>-queries and <name>-documents.
    """
    path = Path(path)
    if not path.suffix or path.is_dir():
        return {name: path / f"{name}.parquet" for name in ("train", "queries", "documents")}
    _suffix(path)
    stem, ending = path.name.partition(".")[0], path.name.partition(".")[2]
    beside = {name: path.with_name(f"{stem}-{name}.{ending}") for name in ("queries", "documents")}
    return {"train": path, **beside}


def write_pylate_tables(
    examples: Examples, collection: Collection, path: str | Path, seed: int, epoch: int, ways: int
) -> dict[str, int]:
    """Write PyLate's three tables where `pylate_paths` says: the rows of each. Errors as in `write_pylate`.

    A folder gets a README.md too, by which `datasets.load_dataset(folder, "train")` finds them, as PyLate's examples
    load the tables of its KDProcessing.
    """
    paths = pylate_paths(path)
    folder = paths["train"] != Path(path)
    if folder:
        Path(path).mkdir(parents=True, exist_ok=True)
    rows = {
        "train": write_pylate(examples, paths["train"], seed, epoch, ways),
        "queries": write_pylate_texts(collection.queries, paths["queries"], "query"),
        "documents": write_pylate_texts(collection.corpus, paths["documents"], "document"),
    }
    if folder:
        configs = (f"- config_name: {name}\n  data_files: {file.name}\n" for name, file in paths.items())
        (Path(path) / "README.md").write_text(f"---\nconfigs:\n{''.join(configs)}---\n")
    return rows


def read_pylate(path: str | Path) -> Iterator[PylateRow]:
    """The rows of PyLate's table of tuples: .jsonl, .jsonl.gz or .parquet, ids strings or integers.

    Lists that are stored as strings are parsed as literals. DataError, with file and row, for a missing column, lists
    of unequal length, a score that is no number, a document that is there twice; ConfigError for another suffix.
    """
    path = Path(path)
    for where, row in _read_table(path):
        if not isinstance(row, Mapping) or any(column not in row for column in _COLUMNS):
            raise DataError(f"{where}: expected the columns {', '.join(_COLUMNS)}, found {row!r:.80}")
        query = json_id(row["query_id"], where, "query id")
        ids, scores = (_list(row[column], f"{where}: {column}") for column in _COLUMNS[1:])
        documents = tuple(json_id(id, where, "document id") for id in ids)
        if len(documents) != len(scores) or not documents:
            raise DataError(
                f"{where}: {len(documents)} document ids and {len(scores)} scores; expected as many, 1 or more"
            )
        if len(set(documents)) != len(documents):
            raise DataError(f"{where}: a document is there twice: {documents!r:.80}")
        for score in scores:
            if isinstance(score, bool) or not isinstance(score, int | float) or not np.isfinite(score):
                raise DataError(f"{where}: a score must be a number, not {score!r}")
        yield PylateRow(where, query, documents, tuple(map(float, scores)))


def pylate_pools(rows: Iterable[PylateRow], collection: Collection, positive: Positive = "first") -> Iterator[Pool]:
    """A pool for each row: its positive is the "first" document or the "best" by score, the others are its negatives.

    A negative's rank is its place in the row, counted from 1. DataError, with the place, for a query or document that
    is not in the collection, and for a query that has two rows.
    """
    if positive not in get_args(Positive):
        raise ConfigError(f"positive={positive} must be one of {', '.join(get_args(Positive))}", "PyLate's tuples")
    seen: dict[str, str] = {}
    for where, query, documents, scores in rows:
        try:
            collection.queries.row(query)
            collection.corpus.rows(documents)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        if query in seen:
            raise DataError(f"{where}: the query {query!r} was there before, at {seen[query]}")
        seen[query] = where
        chosen = int(np.argmax(scores)) if positive == "best" else 0
        others = [place for place in range(len(documents)) if place != chosen]
        yield Pool(
            query,
            (documents[chosen],),
            (scores[chosen],),
            tuple(documents[i] for i in others),
            tuple(scores[i] for i in others),
            tuple(i + 1 for i in others),
        )


def _epoch(examples: Examples, seed: int, epoch: int, ways: int) -> Iterator[Example]:
    """The examples of an epoch as training draws them, with what both formats need checked."""
    if ways < 1:
        raise ConfigError(f"ways={ways} must be 1 or more: the documents of a tuple, its positive counted", "tuples")
    if examples.limit is not None and ways - 1 > examples.limit:
        raise DataError(f"ways={ways} needs {ways - 1} negatives, but the examples have {examples.limit}")
    for row in np.random.default_rng([seed, epoch]).permutation(len(examples)).tolist():
        example = examples.sample(row, np.random.default_rng([seed, epoch, row]), ways - 1)
        if example.query_id is None or example.document_ids is None:
            raise DataError(f"example {row} has texts only, but a file of tuples is made of ids")
        if example.scores is not None and not np.isfinite(example.scores).all():
            raise DataError(f"query {example.query_id!r}: the scores {example.scores!r:.80} are not all numbers")
        yield example


def _stanford_id(id: str) -> int | str:
    return int(id) if _INTEGER.fullmatch(id) else id


def _pylate_rows(examples: Iterable[Example]) -> Iterator[dict[str, Any]]:
    for example in examples:
        if example.scores is None:
            raise DataError(f"query {example.query_id!r} has no scores, but PyLate's tuples are for distillation")
        yield dict(zip(_COLUMNS, (example.query_id, list(example.document_ids), list(example.scores))))


def _write_table(path: Path, schema: pa.Schema, rows: Iterator[dict[str, Any]]) -> None:
    if _suffix(path) == ".parquet":
        with pq.ParquetWriter(path, schema) as writer:
            while batch := list(islice(rows, _BATCH)):
                writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
    else:
        with create_text(path) as handle:
            for row in rows:
                handle.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def _read_table(path: Path) -> Iterator[tuple[str, Any]]:
    if _suffix(path) == ".jsonl":
        yield from ((where, parse_json(line, where)) for where, line in numbered_lines(path))
        return
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    try:
        number = 0
        for batch in pq.ParquetFile(path).iter_batches(_BATCH):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}:{number}", row
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} cannot be read as a Parquet file: {error}") from error


def _suffix(path: Path) -> str:
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix not in (".jsonl", ".parquet") or path.name.endswith(".parquet.gz"):
        raise ConfigError(f"{path} must end in .jsonl, .jsonl.gz or .parquet", "PyLate's tuples")
    return suffix


def _list(value: Any, where: str) -> list:
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
            raise DataError(f"{where} must be a list, or one as text, not {value!r:.80}") from error
    if not isinstance(value, list | tuple):
        raise DataError(f"{where} must be a list, or one as text, not {value!r:.80}")
    return list(value)
