"""The exact index finds what the loop finds, whatever its tiles, and orders equal documents by id."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.index import exact
from colbert_lab.index.exact import ExactIndexKind
from colbert_lab.ragged import Ragged
from colbert_lab.scoring import pruned
from colbert_lab.scoring.maxsim import EMPTY
from colbert_lab.scoring.reference import maxsim_loop


def vectors(seed, lengths, dim=8):
    values = torch.randn(sum(lengths), dim, generator=torch.Generator().manual_seed(seed))
    return Ragged(normalize(values, dim=-1), torch.tensor(lengths))


def index(folder, documents, ids=None, dtype="fp32", similarity="cosine"):
    kind = ExactIndexKind(dtype)
    writer = kind.writer(folder, documents.dim, similarity)
    writer.append(ids or [f"d{i}" for i in range(len(documents))], documents)
    writer.finish()
    return kind.open(folder)


def brute_force(queries, documents, ids, k, similarity):
    """For each query [(id, score)], by the loop."""
    found = []
    for query in queries:
        scored = [(i, maxsim_loop(query, document, similarity)) for i, document in zip(ids, documents)]
        found.append(sorted(scored, key=lambda pair: (-pair[1], pair[0]))[:k])
    return found


def agree(run, expected):
    for hits, wanted in zip(run.values(), expected, strict=True):
        assert list(hits.ids) == [i for i, _ in wanted]
        np.testing.assert_allclose(hits.scores, [s for _, s in wanted], rtol=1e-5, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=12),
    query_lengths=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    k=st.integers(1, 15),
    dtype=st.sampled_from(["fp32", "fp16", "bf16"]),
    similarity=st.sampled_from(["cosine", "l2"]),
    seed=st.integers(0, 999),
)
def test_search_is_brute_force(tmp_path_factory, lengths, query_lengths, k, dtype, similarity, seed):
    documents, queries = vectors(seed, lengths), vectors(seed + 1, query_lengths)
    made = index(tmp_path_factory.mktemp("index"), documents, None, dtype, similarity)
    query_ids = [f"q{i}" for i in range(len(queries))]
    run = made.search(query_ids, queries, k)
    ids = [f"d{i}" for i in range(len(documents))]
    stored = documents.to(dtype={"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[dtype])
    agree(run, brute_force(queries, stored, ids, k, similarity))
    assert list(run) == query_ids
    assert run.depth == k
    assert all(len(set(hits.ids)) == len(hits) == min(k, len(lengths)) for hits in run.values())


@pytest.mark.parametrize("count", [1, 7])
def test_more_is_asked_for_than_there_is(tmp_path, count):
    documents, queries = vectors(0, [3] * count), vectors(1, [2, 2])
    run = index(tmp_path, documents).search(["a", "b"], queries, 1000)
    assert [len(set(hits.ids)) for hits in run.values()] == [count, count]
    assert run.depth == 1000


@pytest.mark.parametrize("tiles", [(2**24, 1024), (64, 1024), (8, 1), (1, 1), (200, 5)])
@pytest.mark.parametrize("k", [1, 5, 1000])
def test_tiles_change_nothing(tmp_path, monkeypatch, tiles, k):
    lengths = [4, 1, 9, 0, 5, 5, 2, 30, 7, 0, 3, 3, 6]
    documents, queries = vectors(0, lengths), vectors(1, [3, 1, 4, 2, 5])
    made = index(tmp_path, documents)
    query_ids = list("abcde")
    ids = [f"d{i}" for i in range(len(lengths))]
    monkeypatch.setattr(pruned, "_ESTIMATES", tiles[0])
    monkeypatch.setattr(exact, "_QUERY_VECTORS", tiles[1])
    found = made.search(query_ids, queries, k)
    agree(found, brute_force(queries, documents, ids, k, "cosine"))
    for position, query in enumerate(query_ids):
        alone = made.search([query], queries[position : position + 1], k)[query]
        assert alone.ids == found[query].ids


@pytest.mark.parametrize("k", [1, 3, 6, 100])
@pytest.mark.parametrize(("length", "query_length"), [(1, 1), (1, 2), (3, 1), (5, 32), (40, 7)])
def test_equal_documents_are_ordered_by_id(tmp_path, k, length, query_length):
    one, other, query = vectors(0, [length], 16), vectors(1, [length], 16), vectors(2, [query_length], 16)
    ids = ["10", "9", "b", "a b", "B", "é", "a", "2"]
    made = index(tmp_path, Ragged.cat([one, other] * 4), ids)
    first, second = sorted(ids[0::2]), sorted(ids[1::2])
    expected = max([first, second], key=lambda half: made.search(["q"], query, 8)["q"].ids[0] in half)
    rest = second if expected is first else first
    assert list(made.search(["q"], query, k)["q"].ids) == (expected + rest)[:k]


@pytest.mark.parametrize("length", [2, 13])
def test_equal_documents_far_apart_are_ordered_by_id(tmp_path, monkeypatch, length):
    """In other tiles, among documents of other lengths."""
    dim = 64
    twin, queries = vectors(0, [length], dim), vectors(1, [32, 5, 2], dim)
    others = vectors(2, [4, 13, 30, 2, 7, 21, 9, 40, 3, 3, 60, 13], dim)
    places = Ragged.cat([twin, others[:5], twin, others[5:9], twin, others[9:], twin])
    ids = [f"x{i}" for i in range(len(places))]
    twins = [0, 6, 11, 15]
    for name, row in zip(("t2", "t4", "t1", "t3"), twins):
        ids[row] = name
    made = index(tmp_path, places, ids)
    monkeypatch.setattr(pruned, "_ESTIMATES", 4)
    for hits in made.search(["a", "b", "c"], queries, 1000).values():
        assert [i for i in hits.ids if i.startswith("t")] == ["t1", "t2", "t3", "t4"]
        assert len({score for i, score in hits if i.startswith("t")}) == 1


@pytest.mark.parametrize("similarity", ["cosine", "l2"])
def test_empty_documents_come_last(tmp_path, similarity):
    documents = vectors(0, [0, 3, 0, 2])
    documents = Ragged(-documents.values.abs(), documents.lengths)
    queries = vectors(1, [4])
    run = index(tmp_path, documents, ["b", "x", "a", "y"], similarity=similarity).search(
        ["q"], Ragged(queries.values.abs(), queries.lengths), 10
    )
    assert run["q"].ids[2:] == ("a", "b")
    assert run["q"].scores[2:].tolist() == [4 * EMPTY] * 2
    assert run["q"].scores[1] > 4 * EMPTY


def test_nothing_but_empty_documents(tmp_path):
    made = index(tmp_path, Ragged(torch.empty(0, 8), torch.zeros(3, dtype=torch.int64)))
    run = made.search(["q"], vectors(0, [2]), 2)
    assert run["q"].ids == ("d0", "d1")


def test_what_cannot_be_searched_is_refused(tmp_path):
    made = index(tmp_path, vectors(0, [3, 2]))
    with pytest.raises(ConfigError, match="4 dimensions, the index 8"):
        made.search(["q"], vectors(1, [2], 4), 5)
    with pytest.raises(ConfigError, match="k=0"):
        made.search(["q"], vectors(1, [2]), 0)


def test_embeddings_and_stats(tmp_path):
    documents = vectors(0, [3, 0, 2, 1])
    made = index(tmp_path, documents, ["a", "b", "c", "d"], "fp16")
    found = made.embeddings(["d", "b", "a"])
    assert found.lengths.tolist() == [1, 0, 3]
    assert torch.equal(found.values.float(), documents.select([3, 0]).values.half().float())
    with pytest.raises(DataError, match="2 documents are not in the index, 'x' is the first"):
        made.embeddings(["a", "x", "y"])
    assert len(made) == 4
    assert made.similarity == "cosine"
    stats = made.stats()
    assert (stats["documents"], stats["vectors"], stats["dim"]) == (4, 6, 8)
    assert stats["bytes"] == sum(file.stat().st_size for file in tmp_path.iterdir())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), edits=st.lists(st.sampled_from(["add", "delete", "update"]), min_size=1, max_size=6))
def test_edited_is_rebuilt(tmp_path_factory, seed, edits):
    """After any edits a search finds what an index made anew of the same documents finds."""
    rng = np.random.default_rng(seed)
    held = {f"d{i}": vectors(seed + i, [2])[0] for i in range(3)}
    made = index(tmp_path_factory.mktemp("edited"), Ragged.from_list(list(held.values())), list(held))
    for number, edit in enumerate(edits):
        if edit == "delete" and held:
            gone = str(rng.choice(sorted(held)))
            made.delete([gone])
            del held[gone]
        elif edit == "update" and held:
            changed = str(rng.choice(sorted(held)))
            held[changed] = vectors(seed + 50 + number, [3])[0]
            made.update([changed], Ragged.from_list([held[changed]]))
        else:
            # An id that was deleted may come again.
            new = next(i for i in ("d0", "d1", f"new{number}") if i not in held)
            held[new] = vectors(seed + 90 + number, [1])[0]
            made.add([new], Ragged.from_list([held[new]]))
    assert sorted(made.ids) == sorted(held)
    assert len(made) == len(held)
    queries = vectors(seed + 7, [2, 3])
    if held:
        rebuilt = index(tmp_path_factory.mktemp("rebuilt"), Ragged.from_list(list(held.values())), list(held))
        assert dict(made.search(["q", "p"], queries, 4)) == dict(rebuilt.search(["q", "p"], queries, 4))
    made.verify()


def test_only_these_documents(tmp_path):
    documents, queries = vectors(0, [2] * 9), vectors(1, [2])
    made = index(tmp_path, documents)
    everything = made.search(["q"], queries, 9)["q"]
    some = [everything.ids[8], everything.ids[2]]
    assert made.search(["q"], queries, 5, only=some)["q"].ids == (some[1], some[0])
    with pytest.raises(DataError, match="'x' is the first"):
        made.search(["q"], queries, 5, only=["x"])
    with pytest.raises(ConfigError, match="nothing to probe"):
        made.search(["q"], queries, 5, probe=object())


def test_an_edit_that_cannot_be_changes_nothing(tmp_path):
    documents = vectors(0, [2] * 3)
    made = index(tmp_path, documents)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(DataError, match="'d1' is the first; update them instead"):
        made.add(["new", "d1"], documents[:2])
    with pytest.raises(DataError, match="'x' is the first"):
        made.update(["d0", "x"], documents[:2])
    with pytest.raises(DataError, match="'x' is the first"):
        made.delete(["d0", "x"])
    with pytest.raises(DataError, match="'d0' was indexed twice"):
        made.delete(["d0", "d0"])
    made.delete([])
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_type_that_no_store_has_is_refused():
    with pytest.raises(ConfigError, match="dtype='fp8' is none of fp32, fp16, bf16"):
        ExactIndexKind("fp8")


def test_query_ids_that_do_not_fit_are_refused(tmp_path):
    made, queries = index(tmp_path, vectors(0, [2] * 3)), vectors(1, [1, 1])
    for ids in (["a"], ["a", "a"], ["a", "b", "c"]):
        with pytest.raises(DataError, match="must be distinct and match 2 queries"):
            made.search(ids, queries, 2)
