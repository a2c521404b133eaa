"""k-means and assignment: the formula and its clamp, ties, tiny samples, duplicates, threads."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from colbert_lab.compression.kmeans import Assigner, assign, kmeans, partitions


def drawn(*shape, seed=0):
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def clustered(count, clusters, dim, seed=0):
    middles = drawn(clusters, dim, seed=seed)
    noise = drawn(count, dim, seed=seed + 1)
    return normalize(middles[torch.arange(count) % clusters] + 0.5 * noise, dim=1)


@pytest.mark.parametrize(
    ("vectors", "points", "sampled", "expected"),
    # 16·sqrt(608,414) = 12,480, 16·sqrt(597.9M) = 391,233: the powers of two below. 500: 357, so 256; 125 = 500 // 4.
    [(608_414, 4, None, 8192), (597_900_000, 4, None, 262_144), (500, 1, None, 256), (500, 4, None, 125)]
    # Few vectors, no vectors, and a sample that allows fewer centroids than the collection.
    + [(1, 4, None, 1), (7, 4, None, 1), (7, 1, None, 7), (0, 4, None, 1), (608_414, 4, 1000, 250)],
)
def test_partitions(vectors, points, sampled, expected):
    assert partitions(vectors, points, sampled) == expected


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 20), st.integers(1, 12), st.integers(1, 5), st.integers(0, 1000))
def test_assign_is_the_first_of_the_greatest(count, k, dim, seed):
    # Small whole numbers: products are exact in fp32 and ties are frequent.
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randint(-2, 3, (count, dim), generator=generator).float()
    centroids = torch.randint(-2, 3, (k, dim), generator=generator).float()
    products = [[sum(a * b for a, b in zip(v, c)) for c in centroids.tolist()] for v in vectors.tolist()]
    codes = assign(vectors, centroids)
    assert codes.dtype == torch.int32
    assert codes.tolist() == [row.index(max(row)) for row in products]


def test_two_steps_find_nearly_what_one_finds():
    centroids = kmeans(clustered(6000, 300, 16), 1200, iterations=1)
    vectors = clustered(3000, 300, 16, seed=0)
    exact, found = assign(vectors, centroids), Assigner(centroids)(vectors)
    assert (exact == found).float().mean() > 0.9
    lost = (vectors * (centroids[exact.long()] - centroids[found.long()])).sum(1)
    assert lost.min() > -1e-6
    assert lost.mean() < 0.01


@pytest.mark.parametrize("size", [1, 2, 7])
def test_tiny_samples_are_their_own_centroids(size):
    sample = drawn(size, 4)
    centroids = kmeans(sample, 64)
    nearest = (sample @ centroids.T).max(1)
    assert sorted(nearest.indices.tolist()) == list(range(size)) == list(range(len(centroids)))
    torch.testing.assert_close(nearest.values, torch.ones(size))


def test_no_vector_still_gives_a_centroid():
    assert kmeans(torch.empty(0, 4), 8).norm(dim=1).tolist() == pytest.approx([1])


def test_a_centroid_without_vectors_goes_where_it_is_needed():
    # All but one vector are equal: whichever three are drawn, two centroids are equal at first.
    sample = torch.cat([drawn(1, 4).expand(50, 4), drawn(2, 4, seed=1)])
    centroids = kmeans(sample, 3)
    torch.testing.assert_close((sample @ centroids.T).max(1).values, torch.ones(52))


def test_duplicates_only():
    sample = drawn(1, 4).expand(20, 4)
    torch.testing.assert_close(kmeans(sample, 5), sample[:5])


def test_vectors_that_cancel_out_leave_a_centroid_of_norm_one():
    sample = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    assert kmeans(sample, 1).norm(dim=1).tolist() == pytest.approx([1])


def test_iterations_bring_centroids_nearer():
    sample = clustered(2000, 50, 16)
    near = [(sample @ kmeans(sample, 50, iterations=i).T).max(1).values.mean() for i in (0, 1, 4)]
    assert near[0] < near[1] < near[2]


def test_equal_bytes_whatever_the_threads():
    sample = clustered(6000, 300, 16)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(kmeans(sample, 1100, seed=3, iterations=2))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)
    assert not torch.equal(results[0], kmeans(sample, 1100, seed=4, iterations=2))
