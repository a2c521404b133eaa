"""Two processes that train together take the step that one would on both batches: known positives included."""

import multiprocessing

import pytest
import torch
import torch.distributed as dist

from colbert_lab.data.examples import Example
from colbert_lab.losses.contrastive import InBatch, NWay
from colbert_lab.losses.weighted import WeightedLoss
from colbert_lab.models.backbone import set_attention_dropout
from colbert_lab.training.batches import Collate
from colbert_lab.training.pairwise import PairwiseModule
from colbert_lab.training.schedule import Constant

# Query 0 knows "6", a document of query 2; query 3's positive has the text of a negative of query 0.
EXAMPLES = [
    Example("what is a river", ("a river", "a stone and more"), None, ("0", "1"), None, frozenset({"0", "6"})),
    Example("what is a garden", ("a garden", "an engine"), None, ("2", "3"), None, frozenset({"2"})),
    Example("what is a market", ("the long market of the year", "the silver"), None, ("5", "6"), None, frozenset("5")),
    Example("what is a stone", ("a stone and more", "a candle"), None, ("7", "8"), None, frozenset({"7"})),
]


@pytest.fixture
def module(tiny_model):
    """Without dropout, whose masks differ from process to process."""
    set_attention_dropout(tiny_model.backbone, 0.0)
    for layer in tiny_model.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    loss = WeightedLoss({"nway": NWay(), "in_batch": InBatch(temperature=0.1)})
    return PairwiseModule(tiny_model, loss, torch.optim.SGD, Constant().factor(1), seed=0)


def gradients(module):
    return {name: p.grad for name, p in module.model.named_parameters() if p.grad is not None}


def work(module, place, rank):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=2)
    batch = Collate(module.model.tokenizer)(0, EXAMPLES[2 * rank : 2 * rank + 2])
    module.training_step(batch, 0).backward()
    found = gradients(module)
    for gradient in found.values():  # what DistributedDataParallel does
        dist.all_reduce(gradient)
        gradient /= 2
    torch.save((found, module.last, module.scores(batch)), place / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_are_one_on_the_joint_batch(tmp_path, module):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(module, tmp_path, rank)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    batch = Collate(module.model.tokenizer)(0, EXAMPLES)
    # Document "6" for query 0, and for query 3 the negative of query 0 that has its positive's text.
    assert batch.excluded.nonzero().tolist() == [[0, 5], [3, 1]]
    module.training_step(batch, 0).backward()
    expected, last = gradients(module), module.last
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 0.1
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2)]
    for rank, (got, _, scores) in enumerate(found):
        assert got.keys() == expected.keys()
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-3)
        assert torch.equal(scores.excluded, batch.excluded[2 * rank : 2 * rank + 2])
        assert scores.offset == 2 * rank
    for name in ("loss", "loss_in_batch", "score_margin"):
        assert sum(figures[name] for _, figures, _ in found) / 2 == pytest.approx(last[name], rel=1e-5)


def test_processes_draw_dropout_of_their_own(module, monkeypatch):
    seeds = []
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    batch = Collate(module.model.tokenizer)(0, EXAMPLES)
    module.training_step(batch, 0)
    monkeypatch.setattr("colbert_lab.training.module.rank_offset", lambda count: 3 * count)
    module.training_step(batch, 0)
    assert len(set(seeds)) == 2
