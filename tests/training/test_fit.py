"""Fitting: it learns, keeps the best and not the last, judges as a search would, and stops at what is no number."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from colbert_lab.errors import ConfigError, TrainingError
from colbert_lab.evaluation.metrics import Evaluation, evaluate
from colbert_lab.index.exact import ExactIndexKind
from colbert_lab.losses.contrastive import InBatch
from colbert_lab.models.checkpoint import load_model
from colbert_lab.models.encoding import encode
from colbert_lab.tracking.read import history, read_table
from colbert_lab.training.dev import METRICS, DevSample
from colbert_lab.training.fit import Training, collect
from colbert_lab.training.schedule import Constant, Linear


class Told:
    """A dev sample whose verdicts are written down beforehand, one for each time it is asked."""

    collection = SimpleNamespace(name="told")

    def __init__(self, *verdicts):
        self.verdicts, self.judged = list(verdicts), []

    def judge(self, model, precision):
        self.judged.append({name: value.clone() for name, value in model.state_dict().items()})
        return Evaluation(("q",), {"ndcg_10": np.array([self.verdicts[len(self.judged) - 1]])}, {}, 1)


def same(model, state):
    return all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_tiny_model_learns(tmp_path, fitted, collection):
    dev = DevSample.draw(collection, collection.qrels("dev"), 10, 60, seed=0)
    plan = {"max_steps": 60, "batch_queries": 10, "negatives": 1, "judge_every": 10, "checkpoint_every": 60}
    _, best = fitted(tmp_path / "training", dev=dev, loss=InBatch(temperature=0.3), layers=1, **plan)
    start = dict(history(tmp_path / "log")["val/ndcg_10"])[0]
    assert best["ndcg_10"] > start + 0.2, (start, best)


@pytest.mark.parametrize(
    ("verdicts", "step"), [((0.1, 0.5, 0.3, 0.5), 4), ((0.6, 0.5, 0.3, 0.5), 0), ((0, 0, 0, 1), 12)]
)
def test_the_best_is_exported_not_the_last(tmp_path, fitted, verdicts, step):
    told = Told(*verdicts)
    module, best = fitted(tmp_path / "training", dev=told)
    assert best == {"ndcg_10": max(verdicts), "step": step}
    exported = load_model(tmp_path / "training" / "best")
    assert [same(exported, state) for state in told.judged] == [at == step for at in (0, 4, 8, 12)]
    assert same(module.model, told.judged[-1])
    (tmp_path / "model").mkdir()
    collect(tmp_path / "training", tmp_path / "model")
    assert same(load_model(tmp_path / "model"), told.judged[step // 4])
    assert not list(tmp_path.glob("training*"))


def test_collecting_goes_on_where_it_was_killed(tmp_path, fitted, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    fitted(tmp_path / "training", max_steps=2)
    names = sorted(f.name for f in (tmp_path / "training" / "best").iterdir())
    (tmp_path / "model").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("colbert_lab.training.fit.shutil.rmtree", stop)
        with pytest.raises(KeyboardInterrupt):
            collect(tmp_path / "training", tmp_path / "model")
    collect(tmp_path / "training", tmp_path / "model")
    assert sorted(f.name for f in (tmp_path / "model").iterdir()) == names
    assert not list(tmp_path.glob("training*"))


@pytest.mark.parametrize("state", ["old", "new"])
def test_weights_that_a_kill_left_out_of_place_are_found(tmp_path, fitted, state):
    work = tmp_path / "training"
    module, best = fitted(work, max_steps=2, checkpoint_every=1, dev=Told(0.1, 0.5))
    (work / "best").rename(work / f"best.{state}")
    assert fitted(work, max_steps=2, checkpoint_every=1, dev=Told())[1] == best
    assert same(load_model(work / "best"), module.model.state_dict())
    (work / "best").rename(work / f"best.{state}")
    (tmp_path / "model").mkdir()
    collect(work, tmp_path / "model")
    assert same(load_model(tmp_path / "model"), module.model.state_dict())


def test_without_a_dev_sample_the_last_is_exported(tmp_path, fitted):
    module, best = fitted(tmp_path / "training", dev=None, max_steps=3)
    assert best == {}
    assert same(load_model(tmp_path / "training" / "best"), module.model.state_dict())


@pytest.mark.parametrize("judged", [True, False])
def test_no_steps_export_the_start(tmp_path, fitted, tiny_model, sample, judged):
    _, best = fitted(tmp_path / "training", dev=sample if judged else None, max_steps=0)
    assert same(load_model(tmp_path / "training" / "best"), tiny_model.state_dict())
    if judged:
        assert best == {"ndcg_10": sample.judge(tiny_model, "fp32").means["ndcg_10"], "step": 0}


def test_the_last_step_is_judged_whatever_the_interval(tmp_path, fitted):
    fitted(tmp_path / "training", max_steps=3, judge_every=2)
    assert [step for step, _ in history(tmp_path / "log")["val/ndcg_10"]] == [0, 2, 3]
    assert [step for step, _ in history(tmp_path / "log")["train/loss"]] == [2, 3]


def test_judging_is_what_an_exact_index_finds(tmp_path, tiny_model, collection):
    sample = DevSample.draw(collection, collection.qrels("dev"), 10, 40, seed=1)
    assert len(sample.documents) == len(set(sample.documents)) == 40
    assert {d for judged in sample.qrels.values() for d in judged} <= set(sample.documents)
    kind = ExactIndexKind("fp32")
    writer = kind.writer(tmp_path, tiny_model.dim, tiny_model.similarity)
    documents = list(sample.documents)[::-1]
    writer.append(documents, encode(tiny_model, collection.corpus.get(documents), "document", "fp32").embeddings)
    writer.finish()
    queries = encode(tiny_model, collection.queries.get(list(sample.qrels)), "query", "fp32").embeddings
    run = kind.open(tmp_path).search(list(sample.qrels), queries, 100)
    offline = evaluate(run, sample.qrels, METRICS, collection_size=40).means
    assert sample.judge(tiny_model, "fp32").means == pytest.approx(offline)
    assert 0 < offline["ndcg_10"] < 1


def test_judging_leaves_the_training_alone(tmp_path, fitted):
    often, _ = fitted(tmp_path / "a" / "training", judge_every=1)
    never, _ = fitted(tmp_path / "b" / "training", dev=None)
    assert often.training
    assert same(often, never.state_dict())


def test_interpolation_is_exported_and_judged_and_leaves_the_training_alone(tmp_path, fitted, tiny_model, sample):
    trained, _ = fitted(tmp_path / "a" / "training", dev=None)
    halfway, _ = fitted(tmp_path / "b" / "training", dev=None, interpolate=0.5)
    assert same(halfway, trained.state_dict())
    exported, start = load_model(tmp_path / "b" / "training" / "best"), tiny_model.state_dict()
    for name, weight in exported.state_dict().items():
        torch.testing.assert_close(weight, (start[name] + trained.model.state_dict()[name]) / 2)
    _, best = fitted(tmp_path / "c" / "training", interpolate=0.5, judge_every=12)
    kept = load_model(tmp_path / "c" / "training" / "best")
    assert best["ndcg_10"] == sample.judge(kept, "fp32").means["ndcg_10"]
    kept_queries = {row["query"]: row["ndcg_10"] for row in read_table(tmp_path / "c" / "log", "val/per_query")}
    assert set(kept_queries) == set(sample.qrels)
    assert sum(kept_queries.values()) / len(kept_queries) == pytest.approx(best["ndcg_10"])


def test_dev_samples_are_seeded_and_bounded(collection):
    def draw(seed, queries=4, documents=20):
        return DevSample.draw(collection, collection.qrels("dev"), queries, documents, seed)

    assert draw(0) == draw(0)
    assert draw(0).qrels.keys() != draw(1).qrels.keys()
    assert len(draw(0).qrels) == 4
    tight = draw(0, queries=10, documents=7)
    assert len(tight.qrels) == 2, "three documents are judged for each"
    assert {d for judged in tight.qrels.values() for d in judged} < set(tight.documents)
    assert len(tight.documents) == 7
    assert len(draw(0, documents=2).documents) == 3, "one query always fits"
    assert len(draw(0, documents=10**6).documents) == 60


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_it_before_the_step(tmp_path, fitted, monkeypatch, bad):
    from colbert_lab.training.pairwise import PairwiseModule

    steps = []
    whole = PairwiseModule.training_step

    def broken(self, batch, batch_idx):
        steps.append(batch.index)
        return whole(self, batch, batch_idx) * (bad if batch.index == 5 else 1)

    monkeypatch.setattr(PairwiseModule, "training_step", broken)
    with pytest.raises(TrainingError, match=r"the loss became (nan|inf) at step 5.*\ntry: a lower optim.lr"):
        fitted(tmp_path / "training")
    assert steps == [0, 1, 2, 3, 4, 5]
    kept = torch.load(tmp_path / "training" / "last.ckpt")
    assert kept["global_step"] == 3
    assert load_model(tmp_path / "training" / "best").dim == 16, "the best so far is kept"


def test_a_gradient_that_is_no_number_ends_it(tmp_path, fitted, monkeypatch):
    from colbert_lab.training.pairwise import PairwiseModule

    whole = PairwiseModule.training_step

    def broken(self, batch, batch_idx):
        # The square root's value at 0 is 0, its slope is not.
        return whole(self, batch, batch_idx) + (self.model.projection.weight * 0).square().sum().sqrt()

    monkeypatch.setattr(PairwiseModule, "training_step", broken)
    with pytest.raises(TrainingError, match="the gradient became nan at step 0"):
        fitted(tmp_path / "training", dev=None)


def test_clip_bounds_the_step(tmp_path, fitted, monkeypatch):
    seen = {}
    for clip in (0.0, 0.01):
        applied = []
        step = torch.optim.AdamW.step

        def noting(self, *args, step=step, applied=applied, **kwargs):
            done = step(self, *args, **kwargs)
            weights = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
            applied.append(float(torch.nn.utils.get_total_norm(weights)))
            return done

        monkeypatch.setattr(torch.optim.AdamW, "step", noting)
        fitted(tmp_path / str(clip) / "training", dev=None, max_steps=1, log_every=1, clip=clip)
        monkeypatch.setattr(torch.optim.AdamW, "step", step)
        seen[clip] = (*applied, history(tmp_path / str(clip) / "log")["train/grad_norm"][0][1])
    assert seen[0.0][0] == pytest.approx(seen[0.0][1])
    assert seen[0.01][0] == pytest.approx(0.01, rel=1e-3)
    assert seen[0.01][1] == seen[0.0][1] > 0.01, "what is logged is the norm before it is clipped"


def test_linear_schedule():
    factor = Linear(warmup=0.2).factor(10)
    expected = [1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0]
    assert [factor(step) for step in range(11)] == pytest.approx(expected)
    assert [Linear(warmup=2).factor(10)(step) for step in range(11)] == pytest.approx(expected)
    assert [Linear(warmup=0).factor(4)(step) for step in range(5)] == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert {Constant().factor(4)(step) for step in range(5)} == {1.0}
    assert Linear().factor(0)(0) == 0
    with pytest.raises(ConfigError, match=r"schedule\.warmup=-1"):
        Linear(warmup=-1)


def test_learning_rates_follow_the_schedule(tmp_path, fitted):
    fitted(tmp_path / "training", dev=None, max_steps=10, log_every=1, lr=0.5)
    rates = [rate for _, rate in history(tmp_path / "log")["train/lr"]]
    # After step n the optimiser stands at the rate of the next.
    assert rates == pytest.approx([0.5 * Linear().factor(10)(step) for step in range(1, 11)])


def test_problems_of_a_plan():
    assert Training.problems(max_steps=0, batch_queries=1, clip=0) == []
    assert Training.problems(max_steps=-1, batch_queries=0) == [
        "max_steps=-1 must be at least 0",
        "batch_queries=0 must be at least 1",
    ]
