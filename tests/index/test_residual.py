"""The residual index finds what exact search of its decoded vectors finds, and what it prunes it prunes as told."""

import os
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.index.exact import ExactIndexKind
from colbert_lab.index.files import Files
from colbert_lab.index.residual.kind import ResidualIndexKind
from colbert_lab.index.residual.probe import SCANNED, ResidualProbe
from colbert_lab.processes import cores
from colbert_lab.ragged import Ragged
from colbert_lab.run import rank
from colbert_lab.scoring.maxsim import EMPTY, maxsim_ragged

EVERYTHING = ResidualProbe(cells=0, candidates=10**6, margin=float("inf"))


def vectors(seed, lengths, dim=16):
    values = torch.randn(sum(lengths), dim, generator=torch.Generator().manual_seed(seed))
    return Ragged(normalize(values, dim=-1), torch.tensor(lengths, dtype=torch.int64))


def lengths(seed, count, most=9):
    return torch.randint(0, most + 1, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def names(count):
    """Ids with blanks and other letters, sorted otherwise than by row."""
    return [f"{(7 * row) % 10007:05d} dökümän" if row % 2 else f"{row:03d}" for row in range(count)]


def made(folder, documents, ids=None, similarity="cosine", kind=ResidualIndexKind, **options):
    kind = kind(**options)
    writer = kind.writer(folder, documents.dim, similarity)
    writer.append(ids or names(len(documents)), documents)
    writer.finish()
    return kind.open(folder)


def search(index, queries, k, **options):
    return index.search([f"q{i}" for i in range(len(queries))], queries, k, **options)


def agree(run, queries, documents, ids, k, similarity="cosine", tolerance=2e-5):
    """Hits are those of exact search of `documents`, up to the order of scores nearer to each other than tolerance."""
    for hits, scores in zip(run.values(), maxsim_ragged(queries, documents, similarity).numpy(), strict=True):
        wanted = rank(ids, scores).cut(k)
        assert len(set(hits.ids)) == len(hits) == len(wanted)
        np.testing.assert_allclose(hits.scores, wanted.scores, rtol=1e-5, atol=tolerance)
        own = dict(zip(ids, scores.tolist()))
        np.testing.assert_allclose(hits.scores, [own[i] for i in hits.ids], rtol=1e-5, atol=tolerance)


@settings(max_examples=15, deadline=None)
@given(
    count=st.integers(1, 60),
    query_lengths=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    k=st.sampled_from([1, 5, 1000]),
    bits=st.sampled_from([1, 2, 4, 8]),
    codec=st.sampled_from(["product", "stanford"]),
    dim=st.sampled_from([8, 24]),
    threads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_nothing_pruned_is_exact_search_of_the_decoded(
    tmp_path_factory, count, query_lengths, k, bits, codec, dim, threads, seed
):
    documents, queries = vectors(seed, lengths(seed, count), dim), vectors(seed + 1, query_lengths, dim)
    index = made(tmp_path_factory.mktemp("index"), documents, bits=bits, codec=codec)
    decoded = index.embeddings(names(count))
    for probe in (
        ResidualProbe(cells=0, candidates=10**6, margin=float("inf"), threads=threads),
        ResidualProbe(cells=10**6, candidates=count, margin=3, threads=threads),
        ResidualProbe(cells=1, candidates=1, margin=0, exact=True, threads=threads),
    ):
        agree(search(index, queries, k, probe=probe), queries, decoded, names(count), k)


@pytest.mark.parametrize(("codec", "error"), [("product", 0.02), ("stanford", 0.03)])
def test_eight_bits_are_nearly_exact(tmp_path, codec, error):
    documents, queries = vectors(0, lengths(0, 200), 32), vectors(1, [12, 20], 32)
    index = made(tmp_path, documents, bits=8, codec=codec)
    found = search(index, queries, 200, probe=EVERYTHING)
    for hits, scores in zip(found.values(), maxsim_ragged(queries, documents).numpy(), strict=True):
        own = dict(zip(names(200), scores.tolist()))
        # The error stated is that of a query vector's best match.
        assert np.abs(hits.scores - [own[i] for i in hits.ids]).max() < error * 20
        exact = rank(names(200), scores).cut(20)
        assert len(set(hits.ids[:20]) & set(exact.ids)) >= 19


@pytest.mark.parametrize("similarity", ["cosine", "l2"])
def test_an_empty_document_is_last_with_the_score_of_exact_search(tmp_path, similarity):
    documents, queries = vectors(0, [3, 0, 2, 0, 1]), vectors(1, [4])
    ids = ["a", "z", "b", "y", "c"]
    options = {"similarity": similarity, "ids": ids}
    found = search(made(tmp_path / "r", documents, bits=8, **options), queries, 5)["q0"]
    exact = search(made(tmp_path / "e", documents, kind=ExactIndexKind, **options), queries, 5)["q0"]
    assert found.ids[3:] == exact.ids[3:] == ("y", "z")
    assert found.scores[3:].tolist() == exact.scores[3:].tolist() == [4 * EMPTY] * 2
    np.testing.assert_allclose(found.scores[:3], exact.scores[:3], atol=0.3)


def test_squared_distances_rank_as_cosine(tmp_path):
    documents, queries = vectors(0, lengths(0, 50)), vectors(1, [5, 9])
    cosine = search(made(tmp_path / "c", documents, bits=4), queries, 50, probe=EVERYTHING)
    l2 = search(made(tmp_path / "l", documents, bits=4, similarity="l2"), queries, 50, probe=EVERYTHING)
    for query, vectors_of_it in (("q0", 5), ("q1", 9)):
        assert cosine[query].ids == l2[query].ids
        some = cosine[query].scores > EMPTY
        # -|q - v|² = 2 q·v - 2 for unit vectors, summed over the query's.
        expected = 2 * cosine[query].scores[some] - 2 * vectors_of_it
        np.testing.assert_allclose(l2[query].scores[some], expected, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_tiny_collections(tmp_path, count, bits):
    documents = vectors(0, [1, 2, 3, 1, 1, 2, 4][:count])
    run = search(made(tmp_path, documents, bits=bits), vectors(1, [3]), 1000)
    assert sorted(run["q0"].ids) == sorted(names(count))
    assert run.depth == 1000


@pytest.mark.parametrize("sizes", [[], [0, 0, 0]])
def test_nothing_to_compress(tmp_path, sizes):
    index = made(tmp_path, vectors(0, sizes))
    assert len(index) == len(sizes)
    assert len(search(index, vectors(1, [3]), 5)["q0"]) == len(sizes)
    index.add(["new"], vectors(2, [2]))
    assert search(index, vectors(1, [3]), 5)["q0"].ids[0] == "new"


def test_a_query_without_vectors(tmp_path):
    index = made(tmp_path, vectors(0, [2, 0, 3]), ["c", "a", "b"])
    run = search(index, vectors(1, [0, 2]), 2)
    assert run["q0"].ids == ("a", "b")
    assert run["q0"].scores.tolist() == [0, 0]


@pytest.mark.parametrize("probe", [ResidualProbe(candidates=3), ResidualProbe(cells=1, candidates=3), EVERYTHING])
def test_equal_documents_are_ordered_by_id(tmp_path, probe):
    one = vectors(0, [4])
    documents = Ragged.cat([one] * 9 + [vectors(1, [3] * 9)])
    ids = [f"same {i}" for i in (4, 8, 2, 0, 6, 1, 7, 3, 5)] + [f"other {i}" for i in range(9)]
    index = made(tmp_path, documents, ids)
    assert search(index, one, 3, probe=probe)["q0"].ids == ("same 0", "same 1", "same 2")


@pytest.mark.parametrize("probe", [ResidualProbe(cells=1, candidates=1), ResidualProbe(cells=2, threshold=0.9), None])
def test_always_k_results(tmp_path, probe):
    # Sixty documents on as many topics: the first cells hold few of them.
    index = made(tmp_path, vectors(0, [2] * 60), points_per_centroid=1)
    for k in (1, 10, 59, 1000):
        run = search(index, vectors(1, [2, 3]), k, probe=probe)
        assert [len(set(hits.ids)) for hits in run.values()] == [min(k, 60)] * 2


@pytest.mark.parametrize("probe", [ResidualProbe(cells=1, candidates=1), ResidualProbe(), EVERYTHING])
def test_a_filter_comes_before_the_candidates(tmp_path, probe):
    documents, queries = vectors(0, [3] * 200), vectors(1, [4])
    index = made(tmp_path, documents)
    everything = search(index, queries, 200, probe=EVERYTHING)["q0"]
    # The three that an unfiltered search finds last.
    only = list(everything.ids[-3:])
    found = search(index, queries, 10, only=only[::-1], probe=probe)["q0"]
    if probe.candidates == 1:
        assert set(found.ids) == set(only)
    else:
        assert found.ids == tuple(only)
        np.testing.assert_allclose(found.scores, everything.scores[-3:], rtol=1e-6)
    with pytest.raises(DataError, match="'nobody'"):
        search(index, queries, 10, only=["nobody"])


def test_each_parameter_prunes(tmp_path):
    documents, query = vectors(0, [4] * 300), vectors(1, [5])
    index = made(tmp_path, documents, points_per_centroid=1)

    def stages(k=1, **options):
        found = index.stages(query.values, k, probe=ResidualProbe(**options))
        return {name: set(ids) for name, ids in found.items()}

    few, more = stages(cells=1), stages(cells=4)
    assert len(few["candidates"]) < len(more["candidates"]) < len(stages(cells=0)["candidates"]) == 300
    assert few["candidates"] < more["candidates"]
    assert stages(cells=4, threshold=9.0)["candidates"] == few["candidates"]
    assert few["candidates"] < stages(cells=4, threshold=0.6)["candidates"] < more["candidates"]
    assert [len(stages(cells=0, candidates=n)["refined"]) for n in (1, 7, 300)] == [1, 7, 300]
    assert stages(candidates=7)["refined"] < stages(candidates=8)["refined"]
    assert len(stages(k=20, candidates=7)["found"]) == 20
    scores = [search(index, query, 300, probe=ResidualProbe(margin=m))["q0"] for m in (0, 0.05, float("inf"))]
    by_id = [dict(hits) for hits in scores]
    for fewer, wider in pairwise(by_id):
        # More vectors to take the best of.
        assert all(fewer[i] <= wider[i] + 1e-5 for i in fewer)
        assert fewer != wider


def test_a_search_leaves_no_trace_in_the_next(tmp_path):
    index, queries = made(tmp_path / "a", vectors(0, [3] * 100)), vectors(1, [4, 3])
    before = search(index, queries, 100)
    search(index, queries, 1, probe=ResidualProbe(cells=1, candidates=1, margin=0))
    search(index, vectors(2, [50]), 1)
    assert search(index, queries, 100) == before
    assert search(ResidualIndexKind().open(tmp_path / "a"), queries, 100) == before


def test_parameters_are_resolved_from_k_at_each_call(tmp_path):
    index = made(tmp_path, vectors(0, [3] * 10))
    assert index.resolved(10)["candidates"] < index.resolved(1000)["candidates"]
    assert index.resolved(1000)["candidates"] >= 1000
    assert index.resolved(10, ResidualProbe(candidates=3))["candidates"] == 10
    given = ResidualProbe(cells=3, threshold=0.4, candidates=77, margin=0.1, threads=3)
    assert index.resolved(10, given) == asdict(given)
    assert [name for name, value in index.resolved(10).items() if value is None] == ["threshold"]
    assert ResidualProbe().resolved(10, SCANNED).cells == 0
    assert ResidualProbe().resolved(10, SCANNED + 1).cells > 0


def test_a_system_that_does_not_say_which_cores_are_ours_is_searched_with_all(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert cores() == 3
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert ResidualProbe().resolved(10, 100).threads == 3


def test_threads_change_nothing(tmp_path):
    index = made(tmp_path, vectors(0, lengths(0, 3000, 5), 8), bits=1)
    queries = vectors(1, [5, 40, 3, 1, 9], 8)
    one = search(index, queries, 50, probe=ResidualProbe(threads=1))
    for threads in (2, 4):
        # Five queries: one a thread; one query: all threads for it.
        assert search(index, queries, 50, probe=ResidualProbe(threads=threads)) == one
        for number in range(5):
            alone = index.search(["q"], queries[number : number + 1], 50, probe=ResidualProbe(threads=threads))
            assert alone["q"] == one[f"q{number}"]


def test_what_cannot_be_searched_is_refused(tmp_path):
    index = made(tmp_path, vectors(0, [3, 2]))
    with pytest.raises(ConfigError, match="4 dimensions, the index 16"):
        search(index, vectors(1, [2], 4), 5)
    with pytest.raises(ConfigError, match="k=0"):
        search(index, vectors(1, [2]), 0)
    with pytest.raises(ConfigError, match="a residual index takes a ResidualProbe"):
        search(index, vectors(1, [2]), 5, probe=object())
    with pytest.raises(ConfigError, match=r"(?s)2 problems.*cells=-1.*margin=nan"):
        ResidualProbe(cells=-1, margin=float("nan"))


def test_what_cannot_be_built_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="do not fill whole bytes"):
        ResidualIndexKind(bits=1).writer(tmp_path, 12, "cosine")
    with pytest.raises(ConfigError, match="iterations=0"):
        ResidualIndexKind(iterations=0)
    with pytest.raises(ConfigError, match="fewer than points_per_centroid=9"):
        ResidualIndexKind(points_per_centroid=9, sample_per_centroid=8)
    twice = vectors(0, [2, 1])
    twice.values[2] *= 2
    writer = ResidualIndexKind().writer(tmp_path / "x", 16, "cosine")
    with pytest.raises(DataError, match=r"1 vectors are not of unit norm, the first, of document 'b', has 2\.000"):
        writer.append(["a", "b"], twice)
    twice.values[2] /= 2
    writer.append(["a", "b"], twice)
    twice.values[2, 3] = float("nan")
    with pytest.raises(DataError, match="'d' is not finite"):
        writer.append(["c", "d"], twice)
    writer.append(["a", "c"], vectors(0, [1, 1]))
    with pytest.raises(DataError, match="'a' was indexed twice"):
        writer.finish()


def test_exact_takes_all_documents_whatever_their_vectors_and_the_query(tmp_path):
    # Of four documents three are without vectors: more than there are vectors.
    index = made(tmp_path / "few", vectors(0, [1, 0, 0, 0]))
    for k in (1, 3, 9):
        assert len(search(index, vectors(1, [2]), k, probe=ResidualProbe(exact=True))["q0"]) == min(k, 4)
    # A hundred times as long a query has a hundred times the scores; any fixed margin would leave vectors out.
    documents, query = vectors(0, [9] * 40), vectors(1, [5])
    index, long = made(tmp_path / "long", documents, bits=1), Ragged(query.values * 100, query.lengths)
    found = search(index, long, 40, probe=ResidualProbe(exact=True))
    agree(found, long, index.embeddings(names(40)), names(40), 40, tolerance=2e-3)
    # No infinity, which JSON does not have.
    assert np.isfinite(index.resolved(10, ResidualProbe(exact=True))["margin"])


def test_stages_read_the_ids_once(tmp_path, monkeypatch):
    index = made(tmp_path, vectors(0, [2] * 6), list("abcdef"))
    index.delete(["a", "d"])
    assert set(index.stages(vectors(1, [2]).values, 4)["found"]) == set("bcef")
    monkeypatch.setattr(Files, "strings", lambda *given: pytest.fail("read again"))
    told = index.stages(vectors(1, [2]).values, 4)
    assert told["candidates"] == told["refined"] == list("bcef")
