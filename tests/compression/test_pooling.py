"""Token pooling: an example by hand, which distances are clustered, what is too short to pool, norms."""

import math

import pytest
import torch

from colbert_lab.compression.pooling import Pooling
from colbert_lab.errors import ConfigError
from colbert_lab.ragged import Ragged


def at(*degrees):
    return torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in degrees])


def angles(vectors):
    return [round(math.degrees(math.atan2(y, x))) % 360 for x, y in vectors.tolist()]


def drawn(*lengths, dim=8, seed=0):
    values = torch.randn(sum(lengths), dim, generator=torch.Generator().manual_seed(seed))
    return Ragged(torch.nn.functional.normalize(values, dim=1), torch.tensor(lengths))


def test_four_vectors_by_hand():
    # 1 - cos: 150-195 .293 (merged first), 90-150 .5, 0-90 1, 90-195 1.259, 0-150 1.866, 0-195 1.966.
    # Ward's distance of 90 to {150, 195}: sqrt((2·.5² + 2·1.259² - .293²) / 3) = 1.093 > 1, so 0 and 90 merge next.
    # Means point to 45 and 172.5 degrees; their norms are cos 45° and cos 22.5°.
    document = Ragged.from_list([at(0, 150, 90, 195)])
    pooled = Pooling(factor=2, protected=0)(document)
    assert angles(pooled.values) == [45, 172]
    plain = Pooling(factor=2, protected=0, renormalise=False)(document)
    assert plain.values.norm(dim=1).tolist() == pytest.approx([math.cos(math.pi / 4), math.cos(math.pi / 8)])
    # Taken for points, the rows of the square matrix put 90, 150 and 195 together: their mean points to 146.1 degrees.
    rows = Pooling(factor=2, protected=0, distances="rows")(document)
    assert angles(rows.values) == [0, 146]


def test_protected_vectors_stay_first_and_means_have_norm_one():
    document = drawn(11)
    pooled = Pooling(factor=2, protected=3)(document)
    assert torch.equal(pooled.values[:3], document.values[:3])
    # 8 unprotected vectors give 4 clusters; where all 11 count, 11 // 2 = 5.
    assert pooled.lengths.tolist() == [3 + 4]
    assert Pooling(factor=2, protected=3, count="all")(document).lengths.tolist() == [3 + 5]
    torch.testing.assert_close(pooled.values.norm(dim=1), torch.ones(7))


@pytest.mark.parametrize("factor", [2, 5])
def test_nothing_to_pool_passes_unchanged(factor):
    documents = drawn(0, 1, 2, 0)
    pooled = Pooling(factor=factor)(documents)
    assert torch.equal(pooled.values, documents.values)
    assert torch.equal(pooled.lengths, documents.lengths)
    assert len(Pooling(factor=factor)(drawn())) == 0


def test_a_document_does_not_depend_on_its_neighbours():
    documents = drawn(9, 0, 30, 4)
    pooled = Pooling(factor=3)(documents)
    assert pooled.lengths.tolist() == [1 + 2, 0, 1 + 9, 1 + 1]
    alone = Pooling(factor=3)(documents.select([2]))
    assert torch.equal(pooled[2], alone.values)


def test_duplicates_become_one():
    document = Ragged.from_list([at(10, 80, 80, 80, 80)])
    assert angles(Pooling(factor=4)(document).values) == [10, 80]


def test_half_precision_is_kept():
    assert Pooling(factor=2)(drawn(9).to(dtype=torch.float16)).values.dtype == torch.float16


def test_factor_one_changes_nothing():
    documents = drawn(5, 3)
    assert Pooling()(documents) is documents


def test_mistakes_are_told_together():
    with pytest.raises(
        ConfigError, match=r"4 problems(.|\n)*factor=0(.|\n)*protected=-1(.|\n)*distances=x(.|\n)*count=y"
    ):
        Pooling(factor=0, protected=-1, distances="x", count="y")
