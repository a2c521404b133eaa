"""A search that is killed loses one chunk of queries, and its run has the bytes of an undisturbed one."""

from functools import partial

import numpy as np
import pytest
from killed_at import killed_at
from stages_toy import beir

from colbert_lab.artifact import Builder
from colbert_lab.run import Hits, Run, read_trec, write_trec
from colbert_lab.stages import found_in_chunks as chunked
from colbert_lab.stages import search as searching
from colbert_lab.tracking.read import summary

QUERIES = ["q 0", "q1", "nothing", "q3", "é", "q5", "q6"]


def hits(query):
    """Up to 3 documents, scores with many digits; none for one of the queries."""
    count = 0 if query == "nothing" else 1 + len(query) % 3
    return Hits(tuple(f"{query} {i}" for i in range(count)), -np.arange(1, count + 1) / 3)


def find(asked, queries):
    """The hits of `queries`, which are noted in the file `asked`."""
    with asked.open("a") as lines:
        lines.write("".join(f"{query}\n" for query in queries))
    return Run({query: hits(query) for query in queries}, 3), {"cut": len(queries), "seconds": 0.5}


@pytest.fixture
def whole(tmp_path, monkeypatch):
    monkeypatch.setattr(chunked, "CHUNK", 3)
    write_trec(Run({query: hits(query) for query in QUERIES}, 3), tmp_path / "whole.trec.gz")
    return (tmp_path / "whole.trec.gz").read_bytes()


def test_killed_between_any_two_operations(tmp_path, whole):
    results = sum(len(hits(query)) for query in QUERIES)
    for moment in range(1000):
        builder, asked = Builder(tmp_path / f"{moment}"), tmp_path / f"asked {moment}"
        builder.path.mkdir()
        made = partial(chunked.found_in_chunks, builder, QUERIES, partial(find, asked))
        was_killed = killed_at(moment, made)
        # Three chunks, the last of one query; queries without results count.
        assert made() == {"queries": 7, "results": results, "cut": 7, "seconds": 1.5}
        assert (builder.path / "run.trec.gz").read_bytes() == whole
        assert {file.name for file in builder.path.iterdir()} == {"run.trec.gz", "log"}
        # Every query once, but for one chunk of them.
        times = asked.read_text().splitlines()
        assert set(times) == set(QUERIES)
        assert len(times) <= len(QUERIES) + 3
        if not was_killed:
            break
    assert len(times) == len(QUERIES)
    assert moment > 10


def test_no_queries_are_an_empty_run(tmp_path):
    assert chunked.found_in_chunks(Builder(tmp_path), [], None) == {"queries": 0, "results": 0}
    assert len(read_trec(tmp_path / "run.trec.gz")) == 0


@pytest.mark.parametrize("kind", ["exact", "bm25"])
def test_the_verb_goes_on_with_the_queries_that_are_left(lab, chain, fresh_lab, monkeypatch, kind):
    index = chain["index"] if kind == "exact" else lab("index", "index=bm25").artifact
    at_once = lab("search", f"index_dir={index.path}").artifact
    monkeypatch.setattr(chunked, "CHUNK", 4)
    arguments = (f"index_dir={index.path}", "name=other")
    expected = fresh_lab.elsewhere(fresh_lab.root / "whole")("search", *arguments).artifact
    assert expected.manifest["counts"] == at_once.manifest["counts"]
    one, other = (read_trec(run.path / "run.trec.gz") for run in (expected, at_once))
    for query in other:
        np.testing.assert_allclose(one[query].scores, other[query].scores, atol=1e-5)

    real, left = chunked.chunk_log.note, [2]

    def dying(*given):
        real(*given)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(chunked.chunk_log, "note", dying)
        with pytest.raises(KeyboardInterrupt):
            fresh_lab("search", *arguments)
    encoded, searched = [], []
    encode, wrap = searching._encoded, searching.found_in_chunks
    monkeypatch.setattr(searching, "_encoded", lambda c, e, texts: encoded.append(len(texts)) or encode(c, e, texts))

    def watched(builder, queries, find):
        return wrap(builder, queries, lambda some: searched.append(len(some)) or find(some))

    monkeypatch.setattr(searching, "found_in_chunks", watched)
    again = fresh_lab("search", *arguments).artifact
    # Of ten queries eight were done.
    assert searched == [2]
    assert encoded == ([2] if kind == "exact" else [])
    assert again.digest == expected.digest
    assert again.manifest["counts"] == expected.manifest["counts"]
    times = summary(again.path / "log")
    assert times["search/queries"] == 10
    assert times["search/qps"] > 0
    assert ("search/encode_ms" in times) == (kind == "exact")


def test_a_query_is_left_out_of_its_own_results_in_every_chunk(fresh_lab, tmp_path, monkeypatch):
    """With as many results left whether or not a chunk holds such a query."""
    texts = {name: f"river and stone, {name}" for name in "abcdef"}
    queries = {"a": "river stone", "x": "river stone", "b": "stone"}
    root = beir(tmp_path / "self", texts, queries, {"test": [(query, "c", 1) for query in queries]})
    index = fresh_lab("index", "index=bm25", f"data.root={root}").artifact
    runs = []
    for size in (1024, 1):
        monkeypatch.setattr(chunked, "CHUNK", size)
        made = fresh_lab.elsewhere(fresh_lab.root / str(size))
        runs.append(made("search", f"index_dir={index.path}", "search.drop_self=true", "search.k=5").artifact)
    assert runs[0].digest == runs[1].digest
    assert runs[0].manifest["counts"] == runs[1].manifest["counts"]
    assert runs[0].manifest["counts"]["dropped_self"] == 2
    assert {q: len(hits) for q, hits in read_trec(runs[0].path / "run.trec.gz").items()} == {"a": 5, "x": 5, "b": 5}
