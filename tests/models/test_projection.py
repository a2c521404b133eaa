import pytest
import torch
import torch.nn.functional as F

from colbert_lab.errors import ConfigError
from colbert_lab.models.backbone import Backbone
from colbert_lab.models.build import build_model
from colbert_lab.models.encoding import encode
from colbert_lab.models.projection import NoProjection, PcaProjection, RandomProjection
from colbert_lab.text.contract import Contract


def axes(**sides: list[int]):
    """`Vectors` of the coordinate axes: axes(document=[0, 0, 1]) has e0 twice and e1, in parts of two."""
    asked = []

    def vectors(role, count):
        asked.append((role, count))
        return list(F.one_hot(torch.tensor(sides.get(role, []), dtype=torch.long), 3).float().split(2))

    vectors.asked = asked
    return vectors


def cloud(seed: int):
    """`Vectors` of skewed Gaussian directions in 8 dimensions."""
    generator = torch.Generator().manual_seed(seed)
    sides = {
        role: torch.randn(200, 8, generator=generator) @ torch.randn(8, 8, generator=generator)
        for role in ("document", "query")
    }
    return lambda role, count: [F.normalize(sides[role][:count], dim=1)]


def test_pca_takes_the_directions_that_both_sides_share():
    """C_d = diag(3, 2, 1)/6 and C_q = diag(0, 3, 1)/4: their product is largest along e1, then e2, then e0."""
    vectors = axes(document=[0, 0, 0, 1, 1, 2], query=[1, 1, 1, 2])
    weight = PcaProjection(2, documents=6, queries=4, whiten=0).build(3, vectors, 0).weight
    torch.testing.assert_close(weight.detach(), torch.tensor([[0.0, 1, 0], [0, 0, 1]]))
    assert sorted(vectors.asked) == [("document", 6), ("query", 4)]


@pytest.mark.parametrize("asked", [0, 500])
def test_pca_without_queries_is_that_of_the_documents(asked):
    sides = {"document": [0, 0, 0, 1, 1, 2]} | ({"query": [1, 1, 1, 2]} if asked == 0 else {})
    weight = PcaProjection(2, queries=asked, whiten=0).build(3, axes(**sides), 0).weight
    torch.testing.assert_close(weight.detach(), torch.eye(3)[:2])


def test_pca_finds_a_slanted_direction_about_the_origin():
    """All vectors are the same (0.6, 0.8): about their mean they would not vary at all."""
    same = torch.tensor([[0.6, 0.8]] * 5)
    weight = PcaProjection(1).build(2, lambda role, count: [same], 0).weight
    torch.testing.assert_close(weight.detach(), same[:1])


def test_pca_rows_are_orthonormal_and_deterministic():
    layer = PcaProjection(5, whiten=0).build(8, cloud(0), 0)
    assert layer.bias is None
    torch.testing.assert_close((layer.weight @ layer.weight.T).detach(), torch.eye(5), atol=1e-6, rtol=0)
    assert torch.equal(layer.weight, PcaProjection(5, whiten=0).build(8, cloud(0), 7).weight)
    assert (layer.weight.gather(1, layer.weight.abs().argmax(1, keepdim=True)) > 0).all()


def test_pca_does_not_depend_on_how_the_sample_is_split():
    whole = cloud(3)
    split = lambda role, count: whole(role, count)[0].split(7)  # noqa: E731
    torch.testing.assert_close(PcaProjection(3).build(8, whole, 0).weight, PcaProjection(3).build(8, split, 0).weight)


def test_pca_of_all_dimensions_changes_no_similarity():
    layer = PcaProjection(8, whiten=0).build(8, cloud(1), 0)
    (vectors,) = cloud(2)("document", 20)
    torch.testing.assert_close((layer(vectors) @ layer(vectors).T).detach(), vectors @ vectors.T, atol=1e-5, rtol=0)


def test_whitening_by_hand():
    """C_d = diag(3, 2, 1)/6: the mean squares of e0 and e1 are 1/2 and 1/3, to the power -0.25 1.1892 and 1.3161; their
    root mean square sqrt((1.4142 + 1.7321) / 2) = 1.2542."""
    weight = PcaProjection(2, queries=0, whiten=0.25).build(3, axes(document=[0, 0, 0, 1, 1, 2]), 0).weight
    torch.testing.assert_close(weight.detach(), torch.tensor([[0.9482, 0, 0], [0, 1.0493, 0]]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("queries", [0, 200])
def test_fully_whitened_directions_count_alike(queries):
    layer = PcaProjection(4, queries=queries, whiten=0.5).build(8, cloud(2), 0)
    (documents,) = cloud(2)("document", 500)
    squares = layer(documents).detach().square().mean(0)
    torch.testing.assert_close(squares, squares.mean().expand(4))
    assert layer.weight.detach().square().sum(1).mean().item() == pytest.approx(1, abs=1e-5)


def test_a_direction_that_no_document_uses_stays_finite():
    weight = PcaProjection(3, queries=0).build(3, axes(document=[0, 0, 1]), 0).weight
    assert torch.isfinite(weight).all()
    none = PcaProjection(3, queries=0).build(3, axes(), 0).weight
    assert torch.isfinite(none).all()


@pytest.mark.parametrize("whiten", [-0.1, 0.6])
def test_whitening_out_of_range_is_refused(whiten):
    with pytest.raises(ConfigError, match=r"projection\.whiten="):
        PcaProjection(2, whiten=whiten).build(3, axes(document=[0]), 0)


def test_pca_to_more_dimensions_than_there_are_is_refused():
    with pytest.raises(ConfigError, match=r"dim=4 exceeds the backbone's 3(.|\n)*projection.dim=3"):
        PcaProjection(4).build(3, axes(), 0)


def test_random_is_seeded_and_of_the_papers_scale():
    first = RandomProjection(64).build(256, axes(), 5)
    assert first.weight.shape == (64, 256)
    assert first.bias is None
    assert torch.equal(first.weight, RandomProjection(64).build(256, axes(), 5).weight)
    assert not torch.equal(first.weight, RandomProjection(64).build(256, axes(), 6).weight)
    assert first.weight.std().item() == pytest.approx(0.02, rel=0.05)


class Sample:
    """Documents and queries of a tiny collection; notes what it is asked for."""

    def __init__(self):
        self.asked = {}

    def documents(self, count):
        self.asked["documents"] = count
        return ["river stone", "copper, violin", "winter market of the island"][:count]

    def queries(self, count):
        self.asked["queries"] = count
        return ["what is known about the river?"][:count]


@pytest.mark.parametrize("projection", [PcaProjection(8, 2, 1), RandomProjection(8), NoProjection()])
def test_build_model(tiny_backbone, projection):
    text = Contract(query_length=16, document_length=32)

    def build():
        sample = Sample()
        return build_model(Backbone(str(tiny_backbone)), text, projection, "cosine", 3, sample, "fp32"), sample.asked

    model, asked = build()
    assert asked == ({"documents": 2, "queries": 1} if isinstance(projection, PcaProjection) else {})
    assert model.dim == (32 if isinstance(projection, NoProjection) else 8)
    assert not model.training
    assert all(p.device.type == "cpu" and p.requires_grad for p in model.parameters())
    vectors = encode(model, ["river stone"], "document", "fp32").embeddings.values
    assert torch.equal(vectors, encode(build()[0], ["river stone"], "document", "fp32").embeddings.values)
