"""Distillation: the teacher's scores reach the loss, the gradient is KL's, a teacher that cannot teach is told of."""

import logging

import pytest
import torch

from colbert_lab.data.examples import Example
from colbert_lab.data.texts import hash_text
from colbert_lab.errors import ConfigError
from colbert_lab.losses.contrastive import InBatch, NWay
from colbert_lab.losses.distillation import KL, MarginMSE
from colbert_lab.losses.weighted import WeightedLoss
from colbert_lab.models.backbone import set_attention_dropout
from colbert_lab.training.batches import BatchStream, Collate
from colbert_lab.training.distillation import DistillationModule, TeacherWatch
from colbert_lab.training.module import Scores
from colbert_lab.training.schedule import Constant


class Taught:
    """The examples of another source with a teacher's scores: what `teacher` says of a document's text."""

    limit = None

    def __init__(self, examples, teacher):
        self._examples, self._teacher = examples, teacher

    def __len__(self):
        return len(self._examples)

    def sample(self, index, rng, negatives):
        example = self._examples.sample(index, rng, negatives)
        scores = tuple(self._teacher(text) for text in example.documents)
        return Example(**{**example.__dict__, "scores": scores})


def length(text):
    return len(text) / 10


def module_of(model, *terms, seed=0, **options):
    loss = WeightedLoss({f"term_{number}": term for number, term in enumerate(terms)})
    return DistillationModule(model, loss, torch.optim.SGD, Constant().factor(1), seed, **options)


@pytest.fixture
def still_model(tiny_model):
    """Without dropout, so that a step can be followed by hand."""
    set_attention_dropout(tiny_model.backbone, 0.0)
    for layer in tiny_model.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    return tiny_model


@pytest.fixture
def batch(examples, tiny_model):
    return BatchStream(Taught(examples, length), Collate(tiny_model.tokenizer), 3, 3, seed=0)[0]


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("beside", [(), (InBatch(weight=1e-12),)], ids=["own documents", "all pairs scored"])
def test_the_gradient_is_that_of_kl_by_hand(still_model, batch, beside):
    module = module_of(still_model, KL(student_temperature=2.0, teacher_temperature=0.5), *beside)
    module.training_step(batch, 0).backward()
    got = gradients(still_model)
    still_model.zero_grad()
    queries, documents = still_model(batch.queries), still_model(batch.documents)
    total = 0.0
    for row, query in enumerate(queries):
        own = range(row * batch.width, (row + 1) * batch.width)
        scores = torch.stack([(query @ documents[d][batch.documents.scored[d]].T).amax(1).sum() for d in own])
        # The slope of Σ t (log t - log softmax(s / T)) in s is (softmax(s / T) - t) / T; B = 3 queries make a mean.
        slope = ((scores / 2).softmax(0) - (batch.targets[row] / 0.5).softmax(0)) / 2 / 3
        total = total + (slope.detach() * scores).sum()
    total.backward()
    expected = gradients(still_model)
    assert got.keys() == expected.keys()
    assert max(float(g.abs().max()) for g in expected.values()) > 1e-3
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-4)


def test_targets_reach_the_loss_in_the_order_of_the_documents(examples, tiny_model, monkeypatch):
    seen, texts = [], []

    class Noting(torch.nn.Module):
        scope, weight = "teacher", 1.0

        def forward(self, scores, targets):
            seen.append(targets)
            return scores.sum()

    collate = Collate(tiny_model.tokenizer)
    stream = BatchStream(
        Taught(examples, length), lambda index, drawn: texts.append(drawn) or collate(index, drawn), 4, 5, seed=3
    )
    module_of(tiny_model, Noting()).training_step(stream[2], 0)
    expected = torch.tensor([[length(text) for text in example.documents] for example in texts[0]])
    assert torch.equal(seen[0], expected)
    assert len(expected.unique()) > 1


def test_examples_without_scores_are_refused(examples, tiny_model):
    stream = BatchStream(examples, Collate(tiny_model.tokenizer), 4, 2, seed=0)
    with pytest.raises(ConfigError, match=r"term_0\), but the training examples have none\n.*try: "):
        module_of(tiny_model, KL()).training_step(stream[0], 0)


def test_a_loss_without_a_teacher_is_refused(tiny_model):
    with pytest.raises(ConfigError, match=r"none of its terms \(term_0, term_1\) does\n.*try: loss=kl"):
        module_of(tiny_model, NWay(), InBatch())


def test_agreement_is_the_share_of_queries_with_the_same_best(tiny_model, batch):
    module = module_of(tiny_model, MarginMSE())
    targets = torch.tensor([[1.0, 2, 0, 0], [5, 5, 0, 0], [0, 0, 0, 9]])
    # The student's best: the teacher's; one that the teacher has as an equal best; another.
    scores = torch.tensor([[0.0, 7, 1, 1], [0, 3, 1, 1], [4, 0, 0, 1]])
    figures = module.figures(Scores(scores), type("B", (), {"width": 4, "targets": targets}))
    assert figures["teacher_agreement"] == pytest.approx(2 / 3)
    assert "target_entropy" not in figures, "no softmax is taken of the teacher's scores"


def said(caplog):
    return [record.getMessage() for record in caplog.records if "the teacher" in record.getMessage()]


def told(caplog, targets, batches, loss=None):
    """What a watch says of this many batches with the same targets, and its last figures."""
    caplog.clear()
    watch = TeacherWatch(loss or WeightedLoss({"kl": KL()}))
    for _ in range(batches):
        figures = watch.figures(targets, targets)
    return said(caplog), figures


def test_a_teacher_out_of_scale_is_told_of_once(caplog):
    logits = torch.arange(4.0).repeat(16, 1)
    assert told(caplog, 100 * logits, batches=1)[0] == [], "16 queries are not enough to say"
    (sharp,), figures = told(caplog, 100 * logits, batches=9)
    assert "nearly all its weight on one document" in sharp
    assert sharp.endswith("try: teacher_temperature=4 in the term kl of the loss (it is 1)")
    assert figures["target_entropy"] < 1e-6
    (flat,), figures = told(caplog, logits / 100, batches=9, loss=WeightedLoss({"a": NWay(), "b": KL(1.0, 8.0)}))
    assert "hardly prefers any" in flat
    assert flat.endswith("try: teacher_temperature=2 in the term b of the loss (it is 8)")
    # softmax(0, 1, 2, 3) = 0.0321, 0.0871, 0.2369, 0.6439: entropy 0.9475 of log 4 = 1.3863.
    nothing, figures = told(caplog, logits, batches=9)
    assert nothing == []
    assert figures["target_entropy"] == pytest.approx(0.9475 / 1.3863, abs=1e-4)
    narrow = WeightedLoss({"kl": KL(entropy_band=(0.7, 0.9))})
    assert len(told(caplog, logits, batches=9, loss=narrow)[0]) == 1


def test_it_is_the_mean_that_counts(caplog):
    watch = TeacherWatch(WeightedLoss({"kl": KL()}))
    useful, sharp = torch.arange(4.0).repeat(16, 1), 100 * torch.arange(4.0).repeat(16, 1)
    for targets in (useful, *[sharp] * 11):  # 0.683 in the first of 12 batches: 0.057 in the mean
        watch.figures(targets, targets)
    assert said(caplog) == []
    watch.figures(sharp, sharp)
    watch.figures(sharp, sharp)  # of 14: 0.049
    assert len(said(caplog)) == 1


def test_fitting_logs_the_figures_and_does_not_swallow_the_warning(tmp_path, fit_with, examples, tiny_model, caplog):
    collate = Collate(tiny_model.tokenizer)
    stream = BatchStream(Taught(examples, lambda text: float(hash_text(text) % 10**6)), collate, 10, 2, seed=0)
    with caplog.at_level(logging.WARNING):
        log, _ = fit_with(tmp_path / "training", module_of(tiny_model, KL()), stream, None, max_steps=6)
    assert len(said(caplog)) == 1
    assert [step for step, _ in log["train/target_entropy"]] == [2, 4, 6]
    assert all(0 <= value <= 1 for _, value in log["train/teacher_agreement"])
