"""Losses: values worked out by hand, what leaves them alone, and that every knob turns the stated way."""

import math

import pytest
import torch
from torch import nn, tensor

from colbert_lab.errors import ConfigError
from colbert_lab.losses.columns import in_batch_columns, own_columns
from colbert_lab.losses.contrastive import InBatch, NWay, in_batch_cross_entropy, nway_cross_entropy
from colbert_lab.losses.pairwise import PairwiseHinge, PairwiseSoftmax, pairwise_hinge, pairwise_softmax
from colbert_lab.losses.weighted import WeightedLoss

OWN = [pairwise_hinge, pairwise_softmax, nway_cross_entropy]
# Two queries of three documents each: columns 0-2 are the first query's, 3-5 the second's.
BATCH = tensor([[2.0, 1.0, 0.0, 1.0, -1.0, 0.5], [0.0, 3.0, 1.0, 1.0, 2.0, -1.0]], dtype=torch.float64)


def cross_entropy(positive, others):
    return math.log(sum(math.exp(s) for s in [positive, *others])) - positive


@pytest.mark.parametrize(("pair", "hinge", "softmax"), [((3, 1), 0, 0.1269), ((1, 1), 1, 0.6931), ((1, 3), 3, 2.1269)])
def test_pairs(pair, hinge, softmax):
    scores = tensor([pair], dtype=torch.float64)
    assert pairwise_hinge(scores).item() == hinge
    assert pairwise_softmax(scores).item() == pytest.approx(softmax, abs=5e-5)
    assert nway_cross_entropy(scores).item() == pytest.approx(softmax, abs=5e-5)


def test_more_than_one_negative():
    scores = tensor([[2.0, 1.5, 0.0], [0.0, 1.0, -1.0]], dtype=torch.float64)
    assert pairwise_hinge(scores).item() == pytest.approx((0.5 + 0 + 2 + 0) / 4)
    pairs = sum(math.log(1 + math.exp(s)) for s in (-0.5, -2, 1, -1)) / 4
    assert pairwise_softmax(scores).item() == pytest.approx(pairs)
    nway = (cross_entropy(2, [1.5, 0]) + cross_entropy(0, [1, -1])) / 2
    assert nway_cross_entropy(scores).item() == pytest.approx(nway)


@pytest.mark.parametrize("loss", OWN)
def test_order_of_negatives_and_a_constant_do_not_matter(loss):
    scores = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert loss(scores[:, [0, 3, 1, 4, 2]]).item() == pytest.approx(loss(scores).item())
    assert loss(scores + 17).item() == pytest.approx(loss(scores).item())
    assert loss(scores[:, [1, 0, 2, 3, 4]]).item() != pytest.approx(loss(scores).item()), "column 0 is the positive"


@pytest.mark.parametrize("loss", OWN)
def test_gradients_push_the_positive_up(loss):
    scores = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(loss, scores)
    level = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    loss(level).backward()
    assert (level.grad[:, 0] < 0).all()
    assert (level.grad[:, 1:] > 0).all()


@pytest.mark.parametrize("loss", [pairwise_softmax, nway_cross_entropy])
def test_large_scores_stay_finite(loss):
    scores = tensor([[-1e4, 1e4], [1e4, -1e4]], requires_grad=True)
    assert loss(scores).item() == pytest.approx(1e4)
    loss(scores).backward()
    assert torch.isfinite(scores.grad).all()


def test_which_columns_compete_in_a_batch():
    drop, keep = (in_batch_columns(2, 3, own) for own in ("drop", "keep"))
    assert [row.nonzero()[:, 0].tolist() for row in drop] == [[0, 3, 4, 5], [0, 1, 2, 3]]
    assert (drop.sum(1) == 2 * 3 - 3 + 1).all()
    assert keep.all()
    assert own_columns(BATCH, 3).tolist() == [[2, 1, 0], [1, 2, -1]]


def test_in_batch():
    drop = (cross_entropy(2, [1, -1, 0.5]) + cross_entropy(1, [0, 3, 1])) / 2
    keep = (cross_entropy(2, [1, 0, 1, -1, 0.5]) + cross_entropy(1, [0, 3, 1, 2, -1])) / 2
    assert in_batch_cross_entropy(BATCH, 3).item() == pytest.approx(drop)
    assert in_batch_cross_entropy(BATCH, 3, "keep").item() == pytest.approx(keep)
    assert keep > drop
    assert in_batch_cross_entropy(BATCH[:1, :3], 3).item() == 0, "one query alone has no other's documents"


def test_excluded_columns_do_not_compete():
    excluded = torch.zeros(2, 6, dtype=torch.bool)
    excluded[0, 3] = excluded[1, 1] = True
    expected = (cross_entropy(2, [-1, 0.5]) + cross_entropy(1, [0, 1])) / 2
    assert in_batch_cross_entropy(BATCH, 3, excluded=excluded).item() == pytest.approx(expected)
    scores = BATCH.clone().requires_grad_()
    in_batch_cross_entropy(scores, 3, excluded=excluded).backward()
    out = excluded | ~in_batch_columns(2, 3)
    assert (scores.grad[out] == 0).all()
    assert (scores.grad[~out] != 0).all()
    all_but_own = in_batch_cross_entropy(BATCH, 3, excluded=torch.ones(2, 6, dtype=torch.bool))
    assert all_but_own.item() == 0, "a query's own positive stays"


def test_in_batch_gradients():
    scores = BATCH.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: in_batch_cross_entropy(s, 3, "keep", 0.5), scores)
    moved = BATCH[:, [0, 2, 1, 3, 5, 4]]
    assert in_batch_cross_entropy(moved, 3).item() == pytest.approx(in_batch_cross_entropy(BATCH, 3).item())


class Refusing(nn.Module):
    scope, weight = "batch", 0.0

    def forward(self, *scores):
        raise AssertionError("a term of weight 0 was computed")


def test_terms_add_up_by_weight():
    loss = WeightedLoss({"hinge": PairwiseHinge(weight=2), "batch": InBatch(weight=0.5), "off": Refusing()})
    own = own_columns(BATCH, 3)
    parts = loss(BATCH, 3)
    assert set(parts) == {"loss", "loss_hinge", "loss_batch"}
    assert parts["loss_hinge"].item() == pytest.approx(pairwise_hinge(own).item())
    assert parts["loss_batch"].item() == pytest.approx(in_batch_cross_entropy(BATCH, 3).item())
    assert parts["loss"].item() == pytest.approx(2 * parts["loss_hinge"].item() + 0.5 * parts["loss_batch"].item())
    excluded = torch.zeros(2, 6, dtype=torch.bool)
    excluded[0, 3] = True
    assert loss(BATCH, 3, excluded)["loss_batch"] < parts["loss_batch"]


def test_all_pairs_are_asked_for_only_where_a_term_looks_at_them():
    assert WeightedLoss({"a": NWay(), "b": InBatch()}).needs_all_pairs
    alone = WeightedLoss({"a": NWay(), "b": InBatch(weight=0)})
    assert not alone.needs_all_pairs
    assert alone(own_columns(BATCH, 3), 3)["loss"].item() == pytest.approx(alone(BATCH, 3)["loss"].item())


def test_a_loss_without_terms_is_refused():
    with pytest.raises(ConfigError, match="weight 0"):
        WeightedLoss({"nway": NWay(weight=0), "hinge": PairwiseHinge(weight=0)})


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (PairwiseHinge(margin=0.5), PairwiseHinge(margin=2)),
        (PairwiseHinge(weight=0.5), PairwiseHinge(weight=2)),
        (PairwiseSoftmax(weight=0.5), PairwiseSoftmax(weight=2)),
        (NWay(weight=0.5), NWay(weight=2)),
        (InBatch(weight=0.5), InBatch(weight=2)),
        (InBatch(own_negatives="drop"), InBatch(own_negatives="keep")),
        # Where every positive wins, a lower temperature sharpens towards no loss at all.
        (NWay(temperature=0.5), NWay(temperature=2)),
        (InBatch(temperature=0.5), InBatch(temperature=2)),
    ],
)
def test_every_knob_turns_the_stated_way(low, high):
    scores = tensor([[2.0, 1.0, 0.0, 1.0, -1.0, 0.5], [0.0, 1.0, 0.5, 2.0, 1.5, -1.0]])
    assert WeightedLoss({"term": low})(scores, 3)["loss"] < WeightedLoss({"term": high})(scores, 3)["loss"]
