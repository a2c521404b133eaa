"""The codecs: golden bytes, against slow loops, tiny samples at every bits, what is stored, what cannot be packed."""

import math
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from colbert_lab.compression.codewords import nearest_codewords
from colbert_lab.compression.residual import (
    BITS,
    Codec,
    pack,
    quantile_buckets,
    random_rotation,
    train_codec,
    train_residuals,
    unpack,
)
from colbert_lab.errors import ArtifactError, ConfigError

KINDS = ["stanford", "product"]
EVERY = [(kind, bits) for kind in KINDS for bits in BITS]


def drawn(*shape, seed=0):
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.fixture(scope="module")
def codecs():
    """Codecs of 16 dimensions and 20 centroids, made once."""
    sample = drawn(3000, 16)
    return {(kind, bits): train_codec(sample, 20, bits, kind) for kind, bits in EVERY}


@pytest.mark.parametrize(
    ("bits", "buckets", "expected"),
    [
        (1, [1, 0, 0, 0, 0, 0, 0, 1], [129]),
        (2, [0, 1, 2, 3, 3, 2, 1, 0], [39, 216]),
        (4, [1, 8], [129]),
        (8, [1], [128]),
    ],
)
def test_golden_bytes(bits, buckets, expected):
    packed = pack(torch.tensor([buckets]), bits)
    assert packed.tolist() == [expected]
    assert packed.dtype == torch.uint8
    assert unpack(packed, bits).tolist() == [buckets]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(BITS), st.integers(0, 5), st.integers(1, 3), st.integers(0, 100))
def test_packing_is_undone(bits, rows, columns, seed):
    buckets = torch.randint(0, 2**bits, (rows, 8 * columns), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(unpack(pack(buckets, bits), bits), buckets)


def test_buckets_are_quantiles_of_all_dimensions_together():
    # Of 0 .. 8 the quantiles 1/4, 1/2, 3/4 are 2, 4, 6 and 1/8, 3/8, 5/8, 7/8 are 1, 3, 5, 7.
    cutoffs, weights = quantile_buckets(torch.arange(9.0).reshape(3, 3), 2)
    assert (cutoffs.tolist(), weights.tolist()) == ([2, 4, 6], [1, 3, 5, 7])


def test_a_residual_on_a_cutoff_belongs_to_the_bucket_below():
    centroids = torch.tensor([[1.0, 0, 0, 0, 0, 0, 0, 0]])
    arrays = {"centroids": centroids, "cutoffs": torch.tensor([0.0]), "weights": torch.tensor([-0.5, 0.5])}
    codec = Codec.from_arrays(arrays, {"codec": "stanford", "bits": 1})
    _, packed, _ = codec.encode(torch.tensor([[1.0, 0.1, 0, 0, 0, 0, 0, 0]]))
    assert packed.tolist() == [[0b01000000]]


@pytest.mark.parametrize("bits", BITS)
def test_stanford_against_a_slow_loop(codecs, bits):
    codec, vectors = codecs["stanford", bits], drawn(30, 16, seed=1)
    codes, packed, scales = codec.encode(vectors)
    decoded = codec.decode(codes, packed, scales)
    assert scales is None
    assert packed.shape == (30, codec.bytes) == (30, 2 * bits)
    for vector, code, row in zip(vectors, codes.tolist(), decoded):
        centroid = codec.centroids[code]
        buckets = [int((codec.cutoffs < value).sum()) for value in (vector - centroid).tolist()]
        expected = centroid + torch.stack([codec.weights[bucket] for bucket in buckets])
        torch.testing.assert_close(row, expected / expected.norm())


@pytest.mark.parametrize("bits", BITS)
def test_product_against_a_slow_loop(codecs, bits):
    codec, vectors = codecs["product", bits], drawn(30, 16, seed=1)
    codes, packed, scales = codec.encode(vectors)
    width, words = 8 // bits, codec.table[0, :, : 8 // bits]
    assert packed.shape == (30, codec.bytes) == (30, 2 * bits)
    assert scales.dtype == torch.uint8
    for vector, code, row in zip(vectors, codes.tolist(), packed.tolist()):
        centroid = normalize(codec.centroids[code], dim=0)
        across = normalize(vector - (vector @ centroid) * centroid, dim=0) @ codec.rotation
        for byte, piece in zip(row, across.split(width)):
            distances = (words - piece).square().sum(1)
            assert distances[byte] <= distances.min() + 1e-6


@pytest.mark.parametrize("bits", BITS)
def test_the_angle_with_the_centroid_comes_back(codecs, bits):
    codec, vectors = codecs["product", bits], drawn(200, 16, seed=1)
    codes, packed, scales = codec.encode(vectors)
    centroids = normalize(codec.centroids[codes.long()], dim=1)
    before = (vectors * centroids).sum(1)
    after = (codec.decode(codes, packed, scales) * centroids).sum(1)
    # A scale's step is 2.5 %, so an angle a is off by 1.3 % of sin(2a) / 2 at most, and by what the codewords' part
    # along the centroid makes of it.
    assert (after - before).abs().mean() < 0.005


@pytest.mark.parametrize(("kind", "bits"), EVERY)
def test_decoding_is_what_kernels_do_with_the_tables(codecs, kind, bits):
    codec, vectors = codecs[kind, bits], drawn(20, 16, seed=2)
    codes, packed, scales = codec.encode(vectors)
    queries = drawn(3, 16, seed=3)
    rotated, tables = codec.rotate_queries(queries), codec.centroids_rotated
    assert codec.table.shape == (codec.bytes, 256, 8)
    for i in range(20):
        residual = torch.zeros(16)
        for p in range(codec.bytes):
            start, end = int(codec.first[p]), int(codec.first[p + 1])
            residual[start:end] = codec.table[p, int(packed[i, p]), : end - start]
        scale = codec.scale_levels[int(scales[i])] if codec.scaled else 1
        total = tables[codes[i]] + scale * residual
        expected = rotated @ total / total.norm()
        torch.testing.assert_close(queries @ codec.decode(codes, packed, scales)[i], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_more_bits_are_nearer_and_norms_are_one(codecs, kind):
    vectors, errors = drawn(500, 16, seed=4), []
    for bits in BITS:
        decoded = codecs[kind, bits].decode(*codecs[kind, bits].encode(vectors))
        torch.testing.assert_close(decoded.norm(dim=1), torch.ones(500))
        errors.append(float((decoded - vectors).norm(dim=1).mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.03


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_product_is_nearer_than_stanford_at_equal_bits(codecs, bits):
    vectors = drawn(500, 16, seed=5)
    near = {
        kind: (codecs[kind, bits].decode(*codecs[kind, bits].encode(vectors)) * vectors).sum(1).mean() for kind in KINDS
    }
    assert near["product"] > near["stanford"]


@pytest.mark.parametrize(("kind", "bits"), EVERY)
def test_tiny_samples(kind, bits):
    for size in (0, 1, 2, 7):
        sample = drawn(size, 8, seed=6) if size else torch.empty(0, 8)
        for vectors in (sample, sample[:1].expand(size, 8)):
            codec = train_codec(vectors, 64, bits, kind)
            assert 1 <= len(codec.centroids) <= max(1, size)
            decoded = codec.decode(*codec.encode(vectors))
            # Every vector is a centroid, up to that one's rounding to 16 bits.
            torch.testing.assert_close(decoded, vectors, atol=2e-3, rtol=0)


@pytest.mark.parametrize("size", range(130, 136))
def test_around_the_sizes_where_the_formula_asks_for_too_much(size):
    vectors = drawn(size, 8)
    assert train_codec(vectors, 128, 2).decode(*train_codec(vectors, 128, 2).encode(vectors)).shape == (size, 8)


def test_product_of_a_tiny_sample_serves_vectors_that_come_later():
    codec = train_codec(drawn(2, 32), 2, 4)
    later = drawn(100, 32, seed=9)
    later = later[(later @ codec.centroids.T).max(1).values > 0.1]
    assert len(later) > 20
    assert (codec.decode(*codec.encode(later)) * later).sum(1).mean() > 0.97


def test_a_vector_opposite_to_every_centroid_is_still_encoded():
    codec = train_codec(torch.tensor([[1.0] + [0] * 15]), 1, 2)
    decoded = codec.decode(*codec.encode(-codec.centroids))
    assert torch.isfinite(decoded).all()


def test_residuals_beyond_what_torch_takes_quantiles_of():
    # 45,000 x 384 = 17.3M values; torch.quantile refuses more than 2^24.
    codec = train_residuals(torch.rand(45_000, 384), torch.zeros(1, 384), 1, "stanford")
    assert codec.cutoffs.item() == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(("kind", "bits"), EVERY)
def test_what_is_stored_gives_the_same_codec(codecs, kind, bits):
    codec, vectors = codecs[kind, bits], drawn(40, 16, seed=7)
    arrays = {name: array.numpy() for name, array in codec.arrays().items()}
    again = Codec.from_arrays(arrays, codec.facts)
    for a, b in zip(codec.encode(vectors), again.encode(vectors)):
        assert (a is None and b is None) or torch.equal(a, b)
    assert torch.equal(codec.decode(*codec.encode(vectors)), again.decode(*again.encode(vectors)))
    assert arrays["centroids"].dtype == np.float16
    arrays.pop("weights" if kind == "stanford" else "rotation")
    with pytest.raises(ArtifactError, match="weights" if kind == "stanford" else "rotation"):
        Codec.from_arrays(arrays, codec.facts)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_bytes_whatever_the_threads_and_the_chunk(kind):
    sample = drawn(4000, 16)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            codec = train_codec(sample, 30, 2, kind, seed=5)
            results.append([*codec.arrays().values(), *(part for part in codec.encode(sample) if part is not None)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results))
    parts = [codec.encode(part)[1] for part in sample.split(1000)]
    assert torch.equal(torch.cat(parts), codec.encode(sample)[1])


def test_a_rotation_keeps_products():
    rotation = random_rotation(24, 0).double()
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(24, dtype=torch.float64), atol=1e-6, rtol=0)
    assert not torch.equal(random_rotation(24, 0), random_rotation(24, 1))


def test_scales_are_fine_enough():
    levels = train_codec(drawn(10, 8), 1, 8).scale_levels
    assert (levels[0], levels[-1]) == (0, 8)
    assert math.log(levels[2] / levels[1]) == pytest.approx(math.log(512) / 254, rel=1e-3)


@pytest.mark.parametrize(
    ("dim", "bits", "kind", "problem"),
    [
        (12, 1, "product", "12 dimensions of 1 bits(.|\n)*index.bits=2 or 4 or 8"),
        (7, 2, "stanford", "7 dimensions of 2 bits(.|\n)*index.bits=8"),
        (16, 3, "product", "bits=3(.|\n)*1, 2, 4 or 8"),
        (16, 2, "other", "'other'(.|\n)*index.codec=product"),
    ],
)
def test_what_cannot_be_packed(dim, bits, kind, problem):
    with pytest.raises(ConfigError, match=problem):
        train_codec(drawn(20, dim), 4, bits, kind)


def test_vectors_of_another_dimension_are_refused(codecs):
    with pytest.raises(ConfigError, match="vectors have 8 dimensions, the codec 16"):
        codecs["product", 2].encode(drawn(3, 8))


def test_codewords_are_found_in_a_fork_and_in_threads_at_once():
    """numba's own threads survive neither; enough work that it is shared among threads."""
    vectors, words = torch.randn(2100, 8, generator=torch.Generator().manual_seed(0)), torch.randn(256, 4)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = nearest_codewords(vectors, words)

        def child():
            os._exit(0 if torch.equal(nearest_codewords(vectors, words), expected) else 1)

        forked = multiprocessing.get_context("fork").Process(target=child)
        forked.start()
        with ThreadPoolExecutor(3) as pool:
            assert all(
                torch.equal(found, expected) for found in pool.map(nearest_codewords, [vectors] * 6, [words] * 6)
            )
        forked.join(60)
        assert forked.exitcode == 0
    finally:
        torch.set_num_threads(before)
    # The nearest by its plain definition; halves of a distance apart only by rounding.
    plain = torch.cdist(vectors.view(-1, 4), words).min(1).values
    chosen = (vectors.view(-1, 4) - words[expected.view(-1).long()]).norm(dim=1)
    torch.testing.assert_close(chosen, plain, atol=1e-4, rtol=1e-4)
