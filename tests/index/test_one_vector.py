"""index=single_vector: what a text's vectors are pooled to, worked out by hand, and the search as a product."""

import pytest
import torch
from torch.nn.functional import normalize

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.index.single_vector import SingleVectorIndexKind, pooled
from colbert_lab.ragged import Ragged


def ragged(*sequences) -> Ragged:
    return Ragged.from_list([torch.tensor(s, dtype=torch.float32).reshape(-1, 2) for s in sequences])


def build(folder, documents, ids, kind=None, similarity="cosine"):
    kind = kind or SingleVectorIndexKind(dtype="fp32")
    writer = kind.writer(folder, documents.dim, similarity)
    writer.append(ids, documents)
    writer.finish()
    return kind.open(folder)


def test_pooling_by_hand():
    documents = ragged([[1, 0], [0, 1]], [], [[0.3, 0.4]], [[0, 2], [3, 0]])
    half = 0.5**0.5  # (1/2, 1/2) scaled to norm 1
    mean = pooled(documents, "mean")
    assert mean.lengths.tolist() == [1, 0, 1, 1]
    # The last mean is (1.5, 1), its norm sqrt(3.25); the lone (0.3, 0.4) is no unit vector and stays as it is.
    expected = [[half, half], [0.3, 0.4], [1.5 / 3.25**0.5, 1 / 3.25**0.5]]
    assert torch.allclose(mean.values, torch.tensor(expected))
    assert pooled(documents, "first").values.tolist() == [[1, 0], [pytest.approx(0.3), pytest.approx(0.4)], [0, 1]]


def test_one_vector_passes_bit_by_bit():
    values = normalize(torch.randn(50, 7, generator=torch.Generator().manual_seed(0)), dim=1)
    lone = Ragged(values, torch.ones(50, dtype=torch.int64))
    for pooling in ("mean", "first"):
        assert torch.equal(pooled(lone, pooling).values, values)


@pytest.mark.parametrize("similarity", ["cosine", "l2"])
def test_the_search_is_a_product_of_pooled_vectors(tmp_path, similarity):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([3, 1, 0, 4, 2, 2])
    documents = Ragged(torch.randn(12, 5, generator=generator), lengths)
    queries = Ragged(torch.randn(5, 5, generator=generator), torch.tensor([4, 1]))
    made = build(tmp_path, documents, list("abcdef"), similarity=similarity)
    d, q = pooled(documents, "mean").values, pooled(queries, "mean").values
    scores = q @ d.T if similarity == "cosine" else -torch.cdist(q, d).square()
    run = made.search(["x", "y"], queries, 6)
    for query, row in zip(run, scores):
        expected = [("abdef")[i] for i in row.argsort(descending=True)]
        assert list(run[query].ids) == [*expected, "c"]
        assert torch.allclose(torch.from_numpy(run[query].scores[:5]).float(), row.sort(descending=True)[0], atol=1e-5)
    assert made.search(["x"], queries[:1], 2, only=["c", "a"])["x"].ids == ("a", "c")
    assert made.stats()["vectors"] == 5
    assert made.stats()["pooling"] == "mean"


def test_edits_are_pooled_too(tmp_path):
    made = build(tmp_path, ragged([[1, 0], [0, 1]], [[0, 1]]), ["a", "b"])
    made.add(["c"], ragged([[-1, 0], [0, -1]]))
    made.update(["b"], ragged([[1, 0], [1, 0]]))
    made.delete(["a"])
    run = made.search(["q"], ragged([[2, 0], [2, 0]]), 5)
    assert dict(run["q"]) == {"b": pytest.approx(1.0), "c": pytest.approx(-(0.5**0.5))}
    made.verify()


def test_what_cannot_be_is_refused(tmp_path):
    made = build(tmp_path, ragged([[1, 0]]), ["a"])
    with pytest.raises(ConfigError, match="try: probe=auto"):
        made.search(["q"], ragged([[1, 0]]), 1, probe=object())
    # Scores of MaxSim with pooled vectors would be neither the index's nor the model's.
    assert not hasattr(made, "embeddings")
    writer = SingleVectorIndexKind().writer(tmp_path / "twice", 2, "cosine")
    writer.append(["a", "a"], ragged([[1, 0]], [[0, 1]]))
    with pytest.raises(DataError, match="'a' was indexed twice"):
        writer.finish()
