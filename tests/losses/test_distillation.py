"""Distillation losses: values and gradients worked out by hand, direction, temperatures, documents without vectors."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.losses.columns import own_columns
from colbert_lab.losses.contrastive import InBatch, NWay, in_batch_cross_entropy
from colbert_lab.losses.distillation import ABSENT, KL, MarginMSE, kl_divergence, margin_mse, min_max, target_entropy
from colbert_lab.losses.weighted import WeightedLoss
from colbert_lab.scoring.maxsim import EMPTY

LN2, LN3 = math.log(2), math.log(3)
DISTILLATION = [kl_divergence, margin_mse]


def f64(rows):
    return tensor(rows, dtype=torch.float64)


def drawn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gradient(loss, scores):
    scores = scores.clone().requires_grad_()
    loss(scores).backward()
    return scores.grad


def test_kl_is_of_the_teacher_to_the_student():
    # t = (3, 1) / 4, s = (1, 1) / 2: 3/4 log(3/2) + 1/4 log(1/2) = 0.3041 - 0.1733 = 0.1308.
    # The other way round: 1/2 log(2/3) + 1/2 log 2 = -0.2027 + 0.3466 = 0.1438.
    scores, targets = f64([[0, 0]]), f64([[LN3, 0]])
    assert kl_divergence(scores, targets).item() == pytest.approx(0.1308, abs=5e-5)
    assert kl_divergence(targets, scores).item() == pytest.approx(0.1438, abs=5e-5)
    # Its gradient is s - t = (1/2 - 3/4, 1/2 - 1/4).
    grad = gradient(lambda s: kl_divergence(s, targets), scores)
    assert grad[0].tolist() == pytest.approx([-0.25, 0.25])


def test_kl_of_several_documents_is_the_mean_over_queries():
    # Query 1: t = (1, 1, 2) / 4, s = (2, 1, 1) / 4: 1/4 log(1/2) + 0 + 1/2 log 2 = 1/4 log 2.
    # Query 2: t = (2, 1, 1) / 4, s = (1, 1, 1) / 3: 1/2 log(3/2) + 2 · 1/4 log(3/4) = 0.2027 - 0.1438 = 0.0589.
    scores, targets = f64([[LN2, 0, 0], [5, 5, 5]]), f64([[0, 0, LN2], [LN2, 0, 0]])
    assert kl_divergence(scores, targets).item() == pytest.approx((LN2 / 4 + 0.0589) / 2, abs=5e-5)
    # s - t, halved by the mean: (1/4, 0, -1/4) / 2 and (-1/6, 1/12, 1/12) / 2.
    grad = gradient(lambda s: kl_divergence(s, targets), scores)
    assert grad.flatten().tolist() == pytest.approx([1 / 8, 0, -1 / 8, -1 / 12, 1 / 24, 1 / 24])
    twice = kl_divergence(scores.repeat(2, 1), targets.repeat(2, 1))
    assert twice.item() == pytest.approx(kl_divergence(scores, targets).item())


def test_temperatures_divide_each_its_own_side():
    # s = softmax(2 log 3 / 2, 0) = (3, 1) / 4, t = softmax(log 2 / 0.5, 0) = (4, 1) / 5:
    # 4/5 log(16/15) + 1/5 log(4/5) = 0.05163 - 0.04463 = 0.00700.
    scores, targets = f64([[2 * LN3, 0]]), f64([[LN2, 0]])
    loss = kl_divergence(scores, targets, student_temperature=2, teacher_temperature=0.5)
    assert loss.item() == pytest.approx(0.00700, abs=5e-6)
    # (s - t) / 2 = (3/4 - 4/5) / 2.
    grad = gradient(lambda s: kl_divergence(s, targets, 2, 0.5), scores)
    assert grad[0].tolist() == pytest.approx([-0.025, 0.025])
    # Rescaled, four times as much.
    rescaled = kl_divergence(scores, targets, 2, 0.5, rescale=True)
    assert rescaled.item() == pytest.approx(4 * loss.item())
    assert KL(2, 0.5, rescale=True)(scores, targets).item() == rescaled.item()


def test_nothing_to_learn_where_the_student_is_the_teacher():
    scores = drawn(3, 4)
    for loss in DISTILLATION:
        assert loss(scores, scores + 5).item() == pytest.approx(0, abs=1e-12)
        assert gradient(lambda s, loss=loss: loss(s, scores + 5), scores).abs().max() < 1e-12
    assert gradient(lambda s: kl_divergence(s, scores / 2, 2, 1), scores).abs().max() < 1e-12


@pytest.mark.parametrize("loss", DISTILLATION)
def test_order_of_negatives_and_constants_do_not_matter(loss):
    scores, targets, order = drawn(4, 5), drawn(4, 5, seed=1), [0, 3, 1, 4, 2]
    value = loss(scores, targets).item()
    assert loss(scores[:, order], targets[:, order]).item() == pytest.approx(value)
    assert loss(scores[:, order], targets).item() != pytest.approx(value), "each document has its own target"
    assert loss(scores + 17, targets - 3).item() == pytest.approx(value)


@pytest.mark.parametrize("loss", DISTILLATION)
def test_gradients_are_those_of_the_value(loss):
    scores, targets = drawn(3, 4).requires_grad_(), drawn(3, 4, seed=1)
    assert torch.autograd.gradcheck(lambda s: loss(s, targets), scores)
    assert torch.autograd.gradcheck(lambda s: loss(min_max(s), targets), scores)


def test_margin_mse():
    # Margins of the student (1, 3) and (-1, 0), of the teacher (2, 2) and (1, 0): (1 + 1 + 4 + 0) / 4.
    scores, targets = f64([[3, 2, 0], [0, 1, 0]]), f64([[5, 3, 3], [1, 0, 1]])
    assert margin_mse(scores, targets).item() == 1.5
    assert MarginMSE()(scores, targets).item() == 1.5
    # 2/4 · (margin - target) = (-1/2, 1/2) and (-1, 0): their sum for the positive, minus each for its negative.
    grad = gradient(lambda s: margin_mse(s, targets), scores)
    assert grad.tolist() == [[0, 0.5, -0.5], [-1, 1, 0]]


def test_min_max():
    assert min_max(f64([[1, 3, 2], [-4, 0, -3]])).tolist() == [[0, 1, 0.5], [0, 1, 0.25]]
    level = f64([[7, 7, 7], [1, 2, 3]])
    assert min_max(level)[0].tolist() == [0, 0, 0]
    assert torch.isfinite(gradient(lambda s: min_max(s).square().sum(), level)).all()


def test_target_entropy():
    # (3, 1) / 4: (3/4 log(4/3) + 1/4 log 4) / log 2 = 0.8113.
    assert target_entropy(f64([[LN3, 0]])).item() == pytest.approx(0.8113, abs=5e-5)
    assert target_entropy(f64([[LN3, 0], [6, 6]])).item() == pytest.approx(1.8113 / 2, abs=5e-5)
    assert target_entropy(f64([[2 * LN3, 0]]), 2).item() == pytest.approx(0.8113, abs=5e-5)
    assert target_entropy(f64([[2, 2, 2, 2, 2]])).item() == pytest.approx(1)
    assert target_entropy(f64([[1e4, 0, -1e4]])).item() == 0
    assert target_entropy(f64([[3], [1]])).item() == 0


@pytest.mark.parametrize("normalise", ["none", "student", "teacher", "both"])
def test_normalise_says_which_side(normalise):
    scores, targets = f64([[3, 1, 2]]), f64([[10, 0, 5]])
    student = f64([[1, 0, 0.5]]) if normalise in ("student", "both") else scores
    teacher = f64([[1, 0, 0.5]]) if normalise in ("teacher", "both") else targets
    term = KL(0.5, 0.25, normalise)
    assert term(scores, targets).item() == pytest.approx(kl_divergence(student, teacher, 0.5, 0.25).item())
    assert term.entropy(targets).item() == pytest.approx(target_entropy(teacher, 0.25).item())


def test_a_document_without_vectors_takes_no_part():
    # The last two of the first query and all of the second's have no vector; a teacher may well like them.
    scores = tensor([[2.0, 1.0, 0.5, EMPTY, 32 * EMPTY], [EMPTY] * 5])
    targets = tensor([[1.0, -0.5, 2.0, 4.0, -1.0], [0.0, 1.0, 2.0, 3.0, 4.0]])
    assert EMPTY < ABSENT
    assert tensor(EMPTY, dtype=torch.bfloat16) < ABSENT, "rounded to 16 bits too"
    absent = scores <= EMPTY
    for term in (KL(), KL(0.5, normalise="student"), KL(0.5, normalise="both"), MarginMSE()):
        grad = gradient(lambda s, term=term: term(s, targets), scores)
        assert torch.isfinite(grad).all()
        assert (grad[absent] == 0).all()
        assert (grad[~absent] != 0).all()
    expected = kl_divergence(scores[:1, :3], targets[:1, :3])
    assert kl_divergence(scores, targets).item() == pytest.approx(expected.item() / 2)
    assert min_max(scores)[0].tolist() == pytest.approx([1, 1 / 3, 0, EMPTY, 32 * EMPTY])
    # Margins (1, 1.5) and (1.5, -1): 1/4 + 25/4 over eight pairs, of which six count 0.
    assert margin_mse(scores, targets).item() == 6.5 / 8


@pytest.mark.parametrize("loss", DISTILLATION)
def test_computed_in_fp32(loss):
    scores, targets = drawn(3, 4).bfloat16(), drawn(3, 4, seed=1).half()
    value = loss(scores, targets)
    assert value.dtype == torch.float32
    assert value.item() == loss(scores.float(), targets.float()).item()


@pytest.mark.parametrize("loss", DISTILLATION)
def test_shapes_that_only_broadcast_are_refused(loss):
    with pytest.raises(DataError, match=r"\[3, 4\], the teacher's \[3, 1\]"):
        loss(drawn(3, 4), drawn(3, 1))


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(ConfigError) as refused:
        KL(student_temperature=0, teacher_temperature=-1, normalise="students")
    assert len(refused.value.problems) == 3, "told together"
    assert all("try: loss.terms.NAME." in problem for problem in refused.value.problems)
    with pytest.raises(ConfigError, match=r"student_temperature=nan"):
        KL(student_temperature=math.nan)
    for band in ((0.9, 0.1), (0.1, 1.1), (0.1, 0.2, 0.3)):
        with pytest.raises(ConfigError, match=r"try: loss.terms.NAME.entropy_band=\[0.05,0.95\]"):
            KL(entropy_band=band)
    with pytest.raises(ConfigError, match=r"try: train.negatives"):
        margin_mse(drawn(3, 1), drawn(3, 1))


def test_a_teachers_term_in_a_sum():
    scores, targets = drawn(2, 6), drawn(2, 3, seed=1)
    own = own_columns(scores, 3)
    loss = WeightedLoss({"nway": NWay(), "kl": KL(0.5, 2, weight=3), "in_batch": InBatch()})
    assert loss.needs_targets
    parts = loss(scores, 3, None, targets)
    assert parts["loss_kl"].item() == pytest.approx(kl_divergence(own, targets, 0.5, 2).item())
    expected = parts["loss_nway"] + 3 * parts["loss_kl"] + parts["loss_in_batch"]
    assert parts["loss"].item() == pytest.approx(expected.item())
    assert loss.entropy(targets).item() == pytest.approx(target_entropy(targets, 2).item())
    with pytest.raises(ConfigError, match=r"teacher's scores \(kl\)(.|\n)*try: .*experiment=colbertv2_small"):
        loss(scores, 3)
    without = WeightedLoss({"nway": NWay(), "margin": MarginMSE(weight=0)})
    assert not without.needs_targets
    assert without.entropy(targets) is None
    assert WeightedLoss({"margin": MarginMSE()}).entropy(targets) is None


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.sampled_from(["drop", "keep"]), st.integers(0, 99))
def test_a_joint_batch_in_parts(ranks, queries, width, own_negatives, seed):
    """Rows of a joint batch, each process's with its offset: their losses' mean is the joint batch's loss."""
    joint = ranks * queries
    scores, targets = drawn(joint, joint * width, seed=seed), drawn(joint, width, seed=seed + 1)
    excluded = drawn(joint, joint * width, seed=seed + 2) > 1
    terms = {"in_batch": InBatch(own_negatives, 0.5), "kl": KL(), "nway": NWay()}
    loss = WeightedLoss(terms)
    whole = loss(scores, width, excluded, targets)
    rows = [slice(first, first + queries) for first in range(0, joint, queries)]
    parts = [loss(scores[r], width, excluded[r], targets[r], offset=r.start) for r in rows]
    for name in whole:
        assert sum(part[name] for part in parts).item() / ranks == pytest.approx(whole[name].item())
    assert torch.equal(torch.cat([own_columns(scores[r], width, r.start) for r in rows]), own_columns(scores, width))


def test_an_offset_by_hand():
    # The second process's one query of two, two documents each: its positive is column 2.
    row = f64([[1, 2, 0.5, 3]])
    drop = math.log(math.exp(1) + math.exp(2) + math.exp(0.5)) - 0.5
    keep = math.log(math.exp(1) + math.exp(2) + math.exp(0.5) + math.exp(3)) - 0.5
    assert own_columns(row, 2, 1).tolist() == [[0.5, 3]]
    assert in_batch_cross_entropy(row, 2, "drop", offset=1).item() == pytest.approx(drop)
    assert in_batch_cross_entropy(row, 2, "keep", offset=1).item() == pytest.approx(keep)
    with pytest.raises((IndexError, RuntimeError)):
        own_columns(row, 2, 2)
