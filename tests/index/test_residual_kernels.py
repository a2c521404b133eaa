"""Every compiled loop computes what its plain reference does."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from colbert_lab.compression.residual import train_codec
from colbert_lab.index.residual import kernels, reference, search
from colbert_lab.index.residual.codes import Codes, offsets
from colbert_lab.index.residual.lists import best_cells, build_lists, rows_of_cells
from colbert_lab.index.residual.search import Searcher
from colbert_lab.index.rows import Rows
from colbert_lab.scoring.codes import CodedQueries
from colbert_lab.scoring.llvm import has_avx2

SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=20)


def codes_of(seed, lengths, dim=16, bits=2, kind="product", partitions=12):
    generator = torch.Generator().manual_seed(seed)
    values = torch.nn.functional.normalize(torch.randn(sum(lengths), dim, generator=generator), dim=1)
    codec = train_codec(values, partitions, bits, kind, seed, 2)
    codes, packed, scales = codec.encode(values)
    scales = np.empty(0, np.uint8) if scales is None else scales.numpy()
    return Codes(codec, codes.numpy().astype(np.uint16), packed.numpy(), scales, offsets(np.array(lengths)))


def searcher_of(codes):
    lists, sizes = build_lists(codes.codes, codes.offsets, codes.centroids)
    return Searcher(codes, lists, sizes, Rows([f"{row:03d}" for row in range(len(codes.offsets) - 1)]))


def query_of(seed, vectors, dim=16):
    values = np.random.default_rng(seed).standard_normal((vectors, dim)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@settings(max_examples=40, deadline=None)
@given(
    lengths=SIZES,
    vectors=st.sampled_from([1, 7, 8, 9, 31, 32, 33, 70]),
    bits=st.sampled_from([1, 2, 4, 8]),
    kind=st.sampled_from(["product", "stanford"]),
    dim=st.sampled_from([8, 24, 40]),
    margin=st.sampled_from([0, 1, 20, 90, 255]),
    seed=st.integers(0, 99),
)
def test_the_stages(lengths, vectors, bits, kind, dim, margin, seed):
    codes = codes_of(seed, lengths, dim, bits, kind)
    searcher = searcher_of(codes)
    query = query_of(seed, vectors, dim)
    rotated = codes.codec.rotate_queries(torch.from_numpy(query)).numpy()

    scores = searcher._centroid_scores(rotated, 1)
    expected = codes.codec.centroids.numpy() @ query.T
    np.testing.assert_allclose(scores[: codes.centroids, :vectors], expected, atol=1e-5)

    table, step = searcher._table(scores, vectors, 1)
    here = scores[: codes.centroids, :vectors]
    width = np.float32(255) / np.float32(step)
    plain = reference.quantise(here, here.max(0) - width, np.float32(step))
    # One step apart where rounding falls on the border.
    assert np.abs(table[: codes.centroids, :vectors].astype(int) - plain).max() <= 1
    assert table[: codes.centroids, :vectors].max() >= 254
    assert not table[:, vectors:].any()

    rows = np.random.default_rng(seed).permutation(len(lengths))
    found = np.empty(len(rows), np.int32)
    kernels.approximate(table, codes.codes, codes.offsets, rows, found, 0, len(rows))
    assert found.tolist() == reference.approximate(table[:, :vectors], codes.codes, codes.offsets, rows)

    filled = rows[np.array(lengths)[rows] > 0]
    refined = np.empty(len(filled), np.float32)
    tables, arrays = codes.tables, codes.arrays
    kernels.refine(table, vectors, margin, rotated, tables, arrays, filled, refined, 0, len(filled))
    expected = reference.refine(table[:, :vectors], margin, query, codes, filled)
    np.testing.assert_allclose(refined, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.skipif(not has_avx2(), reason="8-bit products need AVX2")
@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.sampled_from([0, 1, 5, 9, 127, 128, 129, 300]), min_size=1, max_size=4),
    vectors=st.sampled_from([1, 8, 9, 20, 32, 70]),
    bits=st.sampled_from([1, 2, 4, 8]),
    kind=st.sampled_from(["product", "stanford"]),
    dim=st.sampled_from([16, 48, 128]),
    margin=st.sampled_from([0, 20, 255]),
    seed=st.integers(0, 99),
)
def test_refining_by_codes(lengths, vectors, bits, kind, dim, margin, seed):
    codes = codes_of(seed, lengths, dim, bits, kind)
    searcher, query = searcher_of(codes), query_of(seed, vectors, dim)
    rotated = codes.rotate(query)
    scores = searcher._centroid_scores(rotated, 1)
    table, _ = searcher._table(scores, vectors, 1)
    filled = np.flatnonzero(np.array(lengths))
    expected = reference.refine(table[:, :vectors], margin, query, codes, filled, together=True)
    coded = CodedQueries.of(rotated, codes.quarters)
    lanes = (coded.blocks, coded.table, coded.correction, coded.units)
    tables, small, arrays = codes.tables, codes.small, codes.arrays
    for window in (np.inf, search._WINDOW):
        found, ends = np.empty(len(filled), np.float32), (tables, small, arrays, filled)
        kernels.refine_by_codes(
            table, vectors, margin, np.float32(window), scores, rotated, lanes, *ends, found, 0, len(filled)
        )
        # What the window leaves out is another vector that is about as good; with Stanford's codec less closely.
        lost = 0 if window == np.inf else 1e-4 * vectors + (window if kind == "stanford" else 0)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5 + lost)


@pytest.mark.skipif(not has_avx2(), reason="8-bit products need AVX2")
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize(("kind", "allowed"), [("product", 1e-5), ("stanford", 3e-4)])
def test_the_window_leaves_out_next_to_nothing(bits, kind, allowed):
    codes, query = codes_of(0, [60] * 60, 128, bits, kind, 64), query_of(0, 32, 128)
    searcher, rows = searcher_of(codes), np.arange(60)
    rotated = codes.rotate(query)
    scores = searcher._centroid_scores(rotated, 1)
    table, _ = searcher._table(scores, 32, 1)
    coded = CodedQueries.of(rotated, codes.quarters)
    lanes = (coded.blocks, coded.table, coded.correction, coded.units)
    ends, found = (scores, rotated, lanes, codes.tables, codes.small, codes.arrays, rows), np.empty((2, 60), np.float32)
    for window, refined in zip((np.inf, search._WINDOW), found):
        kernels.refine_by_codes(table, 32, 255, np.float32(window), *ends, refined, 0, 60)
    lost = found[0] - found[1]
    assert lost.min() >= -1e-5
    assert lost.mean() <= allowed


def test_a_wider_code_is_read_whole():
    # 70,000 centroids need 32 bits; 66,000 in 16 would be 464.
    table = np.zeros((70_000, 32), np.uint8)
    table[66_000, 0], table[464, 0] = 5, 9
    codes, rows = np.array([66_000, 1], np.uint32), np.array([0])
    found = np.empty(1, np.int32)
    kernels.approximate(table, codes, np.array([0, 2]), rows, found, 0, 1)
    assert found.tolist() == [5]


@settings(max_examples=40, deadline=None)
@given(lengths=SIZES, gap=st.sampled_from([1, 100, 200, 20_000]), seed=st.integers(0, 99), data=st.data())
def test_lists(lengths, gap, seed, data):
    # Rows far apart, with empty documents between them, need more than one byte.
    spaced = np.zeros(len(lengths) * gap, np.int64)
    spaced[::gap] = lengths
    ends = offsets(spaced)
    codes = np.random.default_rng(seed).integers(0, 7, sum(lengths)).astype(np.uint16)
    lists, sizes = build_lists(codes, ends, 8)
    plain = reference.lists(codes, ends, 8)
    starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    assert sizes.sum() == len(lists)
    for cell, rows in enumerate(plain):
        taken = np.empty(len(spaced), np.int64)
        count = rows_of_cells(np.array([cell]), lists, starts, np.ones(len(spaced), np.uint8), taken)
        assert taken[:count].tolist() == rows
    cells = data.draw(st.lists(st.integers(-1, 7), max_size=5))
    free = np.random.default_rng(seed).integers(0, 2, len(spaced)).astype(np.uint8)
    taken = np.empty(len(spaced), np.int64)
    count = rows_of_cells(np.array(cells, np.int64), lists, starts, free.copy(), taken)
    wanted = {row for cell in cells if cell >= 0 for row in plain[cell] if free[row]}
    assert sorted(taken[:count].tolist()) == sorted(wanted)


def test_golden_list():
    # Centroid 1 stands in rows 0, 2 and 300: gaps less one are 0, 1 and 297 = 2·128 + 41, its low bits first.
    lengths = np.zeros(301, np.int64)
    lengths[[0, 2, 300]] = 1, 2, 1
    lists, sizes = build_lists(np.array([1, 1, 1, 1], np.uint16), offsets(lengths), 3)
    assert lists.tolist() == [0, 1, 128 | 41, 2]
    assert sizes.tolist() == [0, 4, 0]


@example(cells=5, threshold=-0.2, seed=3)  # a score that equals the threshold in single precision
@settings(max_examples=40, deadline=None)
@given(cells=st.integers(1, 6), threshold=st.sampled_from([-np.inf, -0.2, 0.0, 0.5, 2.0]), seed=st.integers(0, 99))
def test_best_cells(cells, threshold, seed):
    # One decimal: many are equal.
    scores = np.round(np.random.default_rng(seed).standard_normal((16, 8)), 1).astype(np.float32)
    found = np.empty((5, cells), np.int64)
    best_cells(scores, 11, 5, cells, threshold, found)
    assert found.tolist() == reference.best_cells(scores[:11, :5], cells, threshold)


def test_offsets_beyond_32_bits():
    lengths = np.array([2**30, 2**30, 2**30, 5], np.int32)
    assert offsets(lengths).tolist() == [0, 2**30, 2**31, 3 * 2**30, 3 * 2**30 + 5]
