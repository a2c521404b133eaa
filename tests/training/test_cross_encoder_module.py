"""A cross-encoder in training: it learns, goes on bit for bit after an interruption, refuses what it cannot serve."""

import numpy as np
import pytest
import torch
from interrupted import Stopping, curves, same

from colbert_lab.data.examples import Example
from colbert_lab.errors import ConfigError
from colbert_lab.losses.contrastive import InBatch, NWay
from colbert_lab.losses.distillation import MarginMSE
from colbert_lab.losses.pairwise import PairwiseSoftmax
from colbert_lab.losses.weighted import WeightedLoss
from colbert_lab.models.cross_encoder import CrossEncoder, score_pairs
from colbert_lab.run import Hits, Run
from colbert_lab.training.batches import BatchStream, PairCollate
from colbert_lab.training.cross_encoder import CrossEncoderModule
from colbert_lab.training.dev import DevCandidates
from colbert_lab.training.schedule import Linear


class Marked:
    """A toy problem: relevant is what speaks of a harvest, whatever the question."""

    fingerprint, limit = "marked", None

    def __init__(self, scored=False):
        self._scored = scored

    def __len__(self):
        return 12

    def sample(self, index, rng, negatives):
        words = [f"a {word} of the year" for word in ("market", "desert", "winter", "signal")]
        documents = ("the harvest of the year", *(words[i] for i in rng.integers(4, size=negatives)))
        scores = tuple(-float(i) for i in range(1 + negatives)) if self._scored else None
        return Example(f"question {index}", documents, None, None, scores, frozenset())


def module_of(model, loss=None, steps=12, lr=1e-2):
    factor = Linear().factor(steps)
    return CrossEncoderModule(
        model, loss or WeightedLoss({"nway": NWay()}), lambda w: torch.optim.AdamW(w, lr=lr), factor, seed=0
    )


def test_it_learns_to_put_the_positive_first(tmp_path, tiny_cross_encoder, fit_with):
    examples = Marked()
    stream = BatchStream(examples, PairCollate(tiny_cross_encoder), 4, 3, seed=0)
    module = module_of(tiny_cross_encoder, lr=5e-3)

    def first(model):
        """The share of examples, drawn as in no epoch of the training, whose positive is strictly best."""
        drawn = [examples.sample(i, np.random.default_rng([99, i]), 4) for i in range(12)]
        texts = [(e.query, document) for e in drawn for document in e.documents]
        scores, _ = score_pairs(model, *zip(*texts), "fp32")
        scores = scores.reshape(12, 5)
        return float((scores[:, 0] > scores[:, 1:].max(1)).mean())

    before = first(tiny_cross_encoder)
    fit_with(tmp_path / "training", module, stream, None, max_steps=12)
    assert before < 0.5
    assert first(module.model) == 1.0
    assert first(CrossEncoder.load(tmp_path / "training" / "best")) == 1.0


def test_scores_are_of_each_query_and_its_own_documents(tiny_cross_encoder):
    drawn = [Marked().sample(i, np.random.default_rng(i), 2) for i in range(3)]
    module = module_of(tiny_cross_encoder)
    module.model.eval()
    scores = module.scores(PairCollate(tiny_cross_encoder)(0, drawn)).values
    alone, _ = score_pairs(
        tiny_cross_encoder, [e.query for e in drawn for _ in range(3)], [d for e in drawn for d in e.documents], "fp32"
    )
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.detach(), torch.from_numpy(alone).view(3, 3), atol=1e-6, rtol=1e-5)


@pytest.fixture
def candidates(collection):
    """The first 12 documents of the corpus for every dev query, of which they are relevant to some."""
    ids = tuple(collection.corpus.all_ids()[:12])
    run = Run({query: Hits(ids, -np.arange(12.0)) for query in collection.qrels("dev")})
    return DevCandidates.draw(collection, collection.qrels("dev"), run, 4, 10, seed=0)


def test_a_second_fit_goes_on_bit_for_bit(tmp_path, tiny_backbone, examples, candidates, fit_with):
    def fit(name, stop=None):
        model = CrossEncoder.from_pretrained(str(tiny_backbone), max_length=32, seed=0)
        stream = BatchStream(examples, PairCollate(model), 4, 2, seed=0)
        module = module_of(model, WeightedLoss({"nway": NWay(), "softmax": PairwiseSoftmax()}), steps=6)
        torch.seed()  # what was drawn before must not matter
        stream = stream if stop is None else Stopping(stream, stop)
        plan = {"max_steps": 6, "judge_every": 2, "checkpoint_every": 2}
        return module, fit_with(tmp_path / name / "training", module, stream, candidates, **plan)[1]

    module, best = fit("whole")
    with pytest.raises(OSError, match="batch 5"):
        fit("broken", stop=5)
    again, best_again = fit("broken")
    assert same(again, module)
    assert best_again == best
    assert curves(tmp_path / "broken") == curves(tmp_path / "whole")
    kept = [CrossEncoder.load(tmp_path / name / "training" / "best") for name in ("broken", "whole")]
    assert same(*kept)


def test_terms_over_all_pairs_are_refused(tiny_cross_encoder):
    loss = WeightedLoss({"nway": NWay(), "in_batch": InBatch()})
    with pytest.raises(ConfigError, match=r"documents: in_batch\n.*try: teacher_loss\.terms\.in_batch\.weight=0"):
        module_of(tiny_cross_encoder, loss)
    module_of(tiny_cross_encoder, WeightedLoss({"nway": NWay(), "in_batch": InBatch(weight=0.0)}))


def test_a_cross_encoder_can_have_a_teacher(tiny_cross_encoder):
    stream = BatchStream(Marked(scored=True), PairCollate(tiny_cross_encoder), 4, 3, seed=0)
    module = module_of(tiny_cross_encoder, WeightedLoss({"margin_mse": MarginMSE()}))
    module.training_step(stream[0], 0)
    # The teacher's margins are 1, 2 and 3, an untrained student's near 0: the loss is near (1 + 4 + 9) / 3.
    assert module.last["loss"] == pytest.approx(14 / 3, rel=0.2)
    assert 0 <= module.last["teacher_agreement"] <= 1
