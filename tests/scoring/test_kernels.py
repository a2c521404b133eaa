"""Packed MaxSim and pruned search are the loop: any size, dtype and place; what is pruned is never among the best."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numba.core.caching
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from colbert_lab.errors import ConfigError
from colbert_lab.ragged import Ragged
from colbert_lab.scoring import codes, kernels, llvm, pruned
from colbert_lab.scoring.codes import Codes
from colbert_lab.scoring.compiled import sources
from colbert_lab.scoring.kernels import PackedDocuments, maxsim_packed
from colbert_lab.scoring.maxsim import EMPTY, maxsim_ragged
from colbert_lab.scoring.pruned import PrunedSearch
from colbert_lab.scoring.reference import maxsim_loop

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
SIMILARITIES = ["cosine", "l2"]
needs_avx2 = pytest.mark.skipif(not llvm.has_avx2(), reason="8-bit estimates need AVX2")


def vectors(seed, lengths, dim, dtype=torch.float32, scale=1.0):
    values = torch.randn(sum(lengths), dim, generator=torch.Generator().manual_seed(seed))
    return Ragged((normalize(values, dim=-1) * scale).to(dtype), torch.tensor(lengths, dtype=torch.int64))


def lengths(seed, count, longest):
    return torch.randint(0, longest + 1, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def in_fp64(queries, documents, similarity):
    return maxsim_ragged(queries.to(dtype=torch.float64), documents.to(dtype=torch.float64), similarity).numpy()


@settings(max_examples=25, deadline=None)
@given(
    document_lengths=st.lists(st.sampled_from([0, 1, 2, 3, 7, 13, 25]), max_size=7),
    query_lengths=st.lists(st.sampled_from([0, 1, 5, 8, 9, 25]), min_size=1, max_size=3),
    dim=st.sampled_from([1, 3, 8, 12, 16, 24]),
    dtype=st.sampled_from(DTYPES),
    similarity=st.sampled_from(SIMILARITIES),
    scale=st.sampled_from([1.0, 0.1, 30.0]),
    seed=st.integers(0, 999),
)
def test_packed_is_the_loop(document_lengths, query_lengths, dim, dtype, similarity, scale, seed):
    queries = vectors(seed, query_lengths, dim)
    documents = vectors(seed + 1, document_lengths, dim, dtype, scale)
    found = maxsim_packed(queries, documents, similarity)
    assert found.dtype == torch.float32
    expected = [[maxsim_loop(q, d, similarity) for d in documents] for q in queries]
    expected = np.array(expected).reshape(len(queries), len(documents))
    # Of one similarity: 2**-18 of the sizes that are added and taken away from each other.
    size = max(scale, scale**2 if similarity == "l2" else 0, 1.0)
    bound = 4e-6 * size * queries.lengths.numpy()[:, None] + 1e-6 * np.abs(expected)
    assert (np.abs(found.numpy() - expected) <= bound).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [16, 20])
def test_some_rows_are_scored_as_all_are(dtype, dim, monkeypatch):
    documents, queries = vectors(0, [4, 0, 9, 1, 30, 2], dim, dtype), vectors(1, [5, 40], dim)
    packed = PackedDocuments(documents, "l2")
    whole = packed.scores(queries)
    rows = np.array([4, 1, 0, 4])
    assert np.array_equal(packed.scores(queries, rows), whole[:, rows])
    assert packed.scores(queries, rows[:0]).shape == (2, 0)
    monkeypatch.setattr(kernels, "_COPIED_VALUES", 3 * dim)
    assert np.array_equal(packed.scores(queries, rows), whole[:, rows])


def test_a_score_does_not_depend_on_what_it_is_computed_with():
    """Equal documents far apart, in a batch or alone, one thread or three: equal bits."""
    twin = vectors(0, [13], 24)
    documents = Ragged.cat([vectors(1, [3, 5], 24), twin, vectors(2, [30, 1], 24), twin])
    queries = vectors(3, [7, 32, 21], 24)
    scores = maxsim_packed(queries, documents)
    assert torch.equal(scores[:, 2], scores[:, 5])
    for i in range(3):
        assert torch.equal(maxsim_packed(queries[i : i + 1], documents)[0], scores[i])


def test_threads_change_nothing(monkeypatch):
    documents, queries = vectors(0, lengths(0, 200, 9), 16), vectors(1, [5, 9], 16)
    expected, search = maxsim_packed(queries, documents), PrunedSearch(documents)
    best = search.best(queries, 7, np.arange(200))
    monkeypatch.setattr(kernels, "_ONE_THREAD", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(maxsim_packed(queries, documents), expected)
    again = search.best(queries, 7, np.arange(200))
    assert all(np.array_equal(np.sort(a[1]), np.sort(b[1])) for a, b in zip(best, again))


def test_an_error_in_a_thread_is_raised(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with pytest.raises(ZeroDivisionError):
        kernels.in_threads(10, 2**40, lambda first, last: first // 0)


def held_to_all(search, packed, queries, k, rows):
    """The best are those of all exact scores, with every tie at the cut, bit for bit."""
    scores = packed.scores(queries)[:, rows]
    for found, (best, numbers) in zip(scores, search.best(queries, k, rows), strict=True):
        kth = np.sort(found)[-min(k, len(rows))] if len(rows) else 0
        assert set(numbers) == set(rows[found >= kth])
        assert len(set(numbers)) == len(numbers)
        assert np.array_equal(best, found[np.searchsorted(rows, numbers)])


@settings(max_examples=20, deadline=None)
@given(
    count=st.integers(1, 60),
    longest=st.sampled_from([1, 4, 11]),
    query_lengths=st.lists(st.sampled_from([1, 6, 25]), min_size=1, max_size=3),
    k=st.sampled_from([1, 3, 10, 1000]),
    dim=st.sampled_from([3, 8, 20, 32]),
    dtype=st.sampled_from(DTYPES),
    similarity=st.sampled_from(SIMILARITIES),
    scales=st.sampled_from([[1.0], [0.01, 1.0, 50.0]]),
    estimates=st.sampled_from([1, 50, 2**22]),
    seed=st.integers(0, 999),
)
def test_the_best_are_the_best_of_all(
    count, longest, query_lengths, k, dim, dtype, similarity, scales, estimates, seed
):
    documents = vectors(seed, lengths(seed, count, longest), dim, dtype)
    scale = torch.tensor(scales).repeat(len(documents.values))[: len(documents.values), None]
    noise = 1 + 1e-4 * torch.randn(documents.values.shape, generator=torch.Generator().manual_seed(seed))
    documents = Ragged(documents.values * scale.to(dtype), documents.lengths)
    # Duplicates, and documents that differ by less than the estimates can tell.
    documents = Ragged.cat([documents, documents, Ragged((documents.values * noise).to(dtype), documents.lengths)])
    rows = np.flatnonzero(np.random.default_rng(seed).random(3 * count) < 0.9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pruned, "_ESTIMATES", estimates)
        packed = PackedDocuments(documents, similarity)
        held_to_all(PrunedSearch(documents, similarity), packed, vectors(seed + 1, query_lengths, dim), k, rows)


@needs_avx2
def test_most_documents_are_not_scored_exactly(monkeypatch):
    documents, queries = vectors(0, [8] * 2000, 64), vectors(1, [8], 64)
    search, scored = PrunedSearch(documents), []
    original = PrunedSearch.scores
    monkeypatch.setattr(
        PrunedSearch, "scores", lambda self, q, rows: scored.append(len(rows)) or original(self, q, rows)
    )
    search.best(queries, 10, np.arange(2000))
    assert 10 <= sum(scored) < 400


def adversarial(kind, dim, generator):
    """Document and query vectors that make errors as large as they come."""
    noise = torch.randn(40, dim, generator=generator)
    signs = noise.sign()
    match kind:
        case "half steps":  # every component in the middle between two codes, all errors of one sign as the query
            return signs * 0.5 / 127 + (torch.arange(dim) == 0), signs * 0.1 + (torch.arange(dim) == 0)
        case "one component":  # the largest code there is, and the query's
            return torch.eye(dim)[:8].repeat(5, 1) * noise[:, :1].sign(), torch.eye(dim)[:8].repeat(5, 1)
        case "one pair":  # two products of 255 x 64 meet in one 16-bit lane
            return (torch.arange(dim) < 2).float().repeat(40, 1), (torch.arange(dim) < 2).float().repeat(40, 1)
        case "one half":  # all of the norm in one of the two 16-bit sums
            mask = torch.arange(dim) // 2 % 2 == 0
            return noise * mask, noise * mask
        case "opposite":
            return noise, -noise
        case "flat":
            return signs, signs
        case "norms apart":
            return noise * 10.0 ** torch.arange(-4, 4).repeat(5)[:, None], noise * 10.0 ** -torch.arange(40.0)[:, None]
        case "nothing":
            return torch.zeros(40, dim), noise
        case _:
            return noise, torch.zeros(40, dim)


KINDS = [
    "half steps",
    "one component",
    "one pair",
    "one half",
    "opposite",
    "flat",
    "norms apart",
    "nothing",
    "no query",
]


@needs_avx2
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("dim", [8, 30, 128, 512])
@pytest.mark.parametrize("kind", KINDS)
def test_the_bound_is_never_passed(kind, dim, similarity):
    for seed in range(3):
        documents, queries = adversarial(kind, dim, torch.Generator().manual_seed(seed))
        documents = Ragged(documents, torch.tensor([1] * 20 + [0] + [5] * 4))
        queries = Ragged(queries, torch.tensor([1, 1, 6, 32]))
        packed = PackedDocuments(documents, similarity)
        estimates, bounds = Codes.of(packed).estimates(queries, np.arange(25))
        with np.errstate(invalid="raise"):
            assert (np.abs(estimates - in_fp64(queries, documents, similarity)) <= bounds).all()
            assert (np.abs(estimates - packed.scores(queries)) <= bounds).all()
        assert (bounds[:, 20] == 0).all()


@needs_avx2
@settings(max_examples=20, deadline=None)
@given(dim=st.sampled_from([4, 16, 37, 128]), similarity=st.sampled_from(SIMILARITIES), seed=st.integers(0, 9999))
def test_the_bound_holds_for_heavy_tails(dim, similarity, seed):
    generator = torch.Generator().manual_seed(seed)
    documents, queries = (torch.randn(60, dim, generator=generator) ** 5 for _ in range(2))
    documents, queries = Ragged(documents, torch.tensor([3] * 20)), Ragged(queries, torch.tensor([20, 1, 39]))
    estimates, bounds = Codes.of(PackedDocuments(documents, similarity)).estimates(queries, np.arange(20))
    assert (np.abs(estimates - in_fp64(queries, documents, similarity)) <= bounds).all()


@needs_avx2
@settings(max_examples=25, deadline=None)
@given(
    document_lengths=st.lists(st.sampled_from([0, 1, 2, 7, 25, 127, 128, 129, 300]), min_size=1, max_size=5),
    query_lengths=st.lists(st.sampled_from([0, 1, 5, 8, 9, 25, 33]), min_size=1, max_size=3),
    dim=st.sampled_from([8, 16, 24, 128]),
    dtype=st.sampled_from(DTYPES),
    similarity=st.sampled_from(SIMILARITIES),
    close=st.sampled_from([0.0, 1e-3, 0.3]),
    seed=st.integers(0, 999),
)
def test_scores_by_codes_are_the_scores(document_lengths, query_lengths, dim, dtype, similarity, close, seed):
    """Also where all vectors of a document are nearly the same, so that estimates tell nothing."""
    queries, documents = vectors(seed, query_lengths, dim), vectors(seed + 1, document_lengths, dim)
    if close and len(documents.values):
        documents = Ragged(normalize(documents.values[:1] + close * documents.values), documents.lengths)
    packed = PackedDocuments(documents.to(dtype=dtype), similarity)
    found = Codes.of(packed).scores(queries)
    assert np.array_equal(found, packed.scores(queries))
    rows = np.random.default_rng(seed).permutation(len(documents))[:3]
    assert np.array_equal(Codes.of(packed).scores(queries, rows), found[:, rows])
    assert np.array_equal(PrunedSearch(packed.documents, similarity).scores(queries, rows), found[:, rows])


@needs_avx2
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("kind", KINDS)
def test_scores_by_codes_hold_where_errors_are_large(kind, similarity):
    for dim in (8, 128):
        documents, queries = adversarial(kind, dim, torch.Generator().manual_seed(dim))
        documents = Ragged(documents, torch.tensor([1] * 20 + [0, 20]))
        queries = Ragged(queries, torch.tensor([1, 7, 32]))
        packed = PackedDocuments(documents, similarity)
        assert np.array_equal(Codes.of(packed).scores(queries), packed.scores(queries))


@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1e12, 1e25])
def test_values_at_the_ends_of_fp32_are_ranked(scale):
    """Their squares leave fp32, and so do their bounds: then nothing may be pruned."""
    documents, queries = vectors(0, [2] * 60, 16, scale=scale), vectors(1, [3], 16)
    held_to_all(PrunedSearch(documents), PackedDocuments(documents), queries, 5, np.arange(60))
    held_to_all(
        PrunedSearch(queries.select([0] * 60)),
        PackedDocuments(queries.select([0] * 60)),
        documents[:2],
        5,
        np.arange(60),
    )


def test_a_query_that_is_not_finite_ends():
    documents, query = vectors(0, [2] * 60, 16), vectors(1, [3], 16)
    query.values[1, 4] = torch.inf
    assert len(PrunedSearch(documents).best(query, 5, np.arange(60))[0][1]) >= 5


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_other_hardware_finds_the_same(monkeypatch, similarity):
    documents, queries = vectors(0, lengths(0, 90, 9), 16, torch.float16), vectors(1, [5, 30], 16)
    expected, rows = maxsim_packed(queries, documents, similarity), np.arange(90)
    monkeypatch.setattr(llvm, "has_avx2", lambda: False)
    monkeypatch.setattr(llvm, "widens_half", lambda: False)
    assert torch.equal(maxsim_packed(queries, documents, similarity), expected)
    held_to_all(PrunedSearch(documents, similarity), PackedDocuments(documents, similarity), queries, 4, rows)
    assert not codes.codes_fit(documents)


FOUND = """
import hashlib, torch
from colbert_lab.ragged import Ragged
from colbert_lab.scoring import llvm
from colbert_lab.scoring.kernels import PackedDocuments
from colbert_lab.scoring.pruned import PrunedSearch

generator = torch.Generator().manual_seed(0)
found = hashlib.sha256()
for dim, similarity in ((16, "cosine"), (24, "l2"), (128, "cosine")):
    lengths = torch.randint(0, 40, (300,), generator=generator)
    values = torch.nn.functional.normalize(torch.randn(int(lengths.sum()), dim, generator=generator), dim=1)
    documents = Ragged(values.half(), lengths)
    queries = Ragged(values[:70].clone(), torch.tensor([1, 8, 20, 41]))
    search = PrunedSearch(documents, similarity)
    for scores, rows in search.best(queries, 10, torch.arange(300).numpy()):
        order = rows.argsort()
        found.update(scores[order].tobytes() + rows[order].tobytes())
    found.update(PackedDocuments(documents, similarity).scores(queries).tobytes())
print(llvm.LANES, found.hexdigest())
"""


@pytest.mark.slow
@pytest.mark.skipif(not llvm.WIDE, reason="needs AVX-512 beside AVX2")
def test_registers_of_either_size_find_the_same():
    """The loops of CPUs without AVX-512, on one that has it: their own tests, and the same numbers bit for bit."""
    narrow = os.environ | {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+f16c,+sse4.2"}
    lanes, found = zip(*(run_python(["-c", FOUND], env).split() for env in (os.environ, narrow)), strict=True)
    assert lanes == ("16", "8")
    assert len(set(found)) == 1
    tests = [Path(__file__), Path(__file__).parents[1] / "index" / "test_residual_kernels.py"]
    run_python(["-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, tests)], narrow)


@pytest.mark.slow
def test_instructions_that_numba_does_without_are_not_called_for():
    without = os.environ | {"NUMBA_ENABLE_AVX": "0"}
    lanes, found = zip(*(run_python(["-c", FOUND], env).split() for env in (os.environ, without)), strict=True)
    assert lanes[1] == "8"
    assert len(set(found)) == 1


def run_python(arguments, environment) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_codes_are_made_where_a_quarter_of_the_memory_holds_them(monkeypatch):
    monkeypatch.setattr(llvm, "has_avx2", lambda: True)
    documents = vectors(0, [100], 8)
    for pages, fits in ((6399, False), (6400, True)):  # 100 vectors of 8 + 8 bytes are 1600, a quarter of 6400
        monkeypatch.setattr(codes.os, "sysconf", lambda name, pages=pages: pages if "PHYS" in name else 1)
        assert codes.codes_fit(documents) == fits


def test_empty_documents_and_none_at_all():
    documents, queries = Ragged(torch.empty(0, 8), torch.zeros(9, dtype=torch.int64)), vectors(0, [2], 8)
    assert maxsim_packed(queries, documents, "l2").tolist() == [[2 * EMPTY] * 9]
    assert PrunedSearch(documents).best(queries, 2, np.arange(9))[0][1].tolist() == list(range(9))
    assert len(PrunedSearch(documents).best(queries, 2, np.arange(0))[0][1]) == 0
    assert maxsim_packed(queries, documents[:0]).shape == (1, 0)


def test_fp64_is_left_to_torch():
    documents, queries = vectors(0, [3, 0, 2], 8, torch.float64), vectors(1, [4], 8, torch.float64)
    assert torch.equal(maxsim_packed(queries, documents), maxsim_ragged(queries, documents))


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ConfigError, match="4 dimensions, document vectors 8"):
        maxsim_packed(vectors(0, [2], 4), vectors(1, [2], 8))
    with pytest.raises(ConfigError, match="4 dimensions, document vectors 8"):
        PrunedSearch(vectors(1, [2] * 9, 8)).best(vectors(0, [2], 4), 1, np.arange(9))
    with pytest.raises(ConfigError, match="'dot'"):
        PackedDocuments(vectors(1, [2], 8), "dot")


def test_numba_is_loaded_when_something_is_scored():
    code = (
        "import sys, colbert_lab.scoring.maxsim, colbert_lab.scoring.pruned, colbert_lab.search.rerank;"
        "print('numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("module", ["scoring.simd", "compression.codewords", "index.residual.simd"])
def test_compiled_loops_need_no_place_to_be_kept(monkeypatch, module):
    """As in an installation that cannot be written to, of a user without a home."""
    found = importlib.util.find_spec(f"colbert_lab.{module}")
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    again = importlib.util.module_from_spec(found)
    found.loader.exec_module(again)
    compiled = vars(again).get("compiled")

    @compiled(error_model="numpy") if module != "index.residual.simd" else compiled
    def doubled(x):
        return 2 * x

    assert doubled(3.0) == 6.0


def test_what_is_kept_holds_until_any_source_changes(tmp_path, monkeypatch):
    """numba looks at a function's own file alone, and goes on with what it inlined from another."""
    file = tmp_path / "loops.py"
    file.write_text(
        "from colbert_lab.scoring.compiled import compiled\n@compiled()\ndef doubled(x):\n    return 2 * x\n"
    )

    def kept() -> bool:
        found = importlib.util.spec_from_file_location("loops", file)
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        assert module.doubled(3.0) == 6.0
        return sum(module.doubled.stats.cache_hits.values()) == 1

    assert [kept(), kept()] == [False, True]
    other = tmp_path / "other.py"
    monkeypatch.setattr("colbert_lab.scoring.compiled.sources", lambda: (str(other), 1, 2.0))
    assert [kept(), kept()] == [False, True]


def test_sources_are_those_of_all_compiled_loops():
    package = Path(kernels.__file__).parents[1]
    loops = {str(file) for file in package.rglob("*.py") if "@compiled" in file.read_text()}
    assert loops <= {name for name, _, _ in sources()}
    assert len(loops) >= 5


@needs_avx2
def test_the_codes_keep_no_memory_that_only_making_them_needed():
    codes = Codes.of(PackedDocuments(vectors(0, [50], 8)))
    for kept in (codes.codes, codes.scales, codes.bias):
        assert kept.base is None
