"""Documents shared between processes: the averaged gradient of two is that of one on the joint batch."""

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.functional import normalize

from colbert_lab.errors import ConfigError
from colbert_lab.losses.contrastive import InBatch
from colbert_lab.losses.distillation import KL
from colbert_lab.losses.weighted import WeightedLoss
from colbert_lab.scoring.maxsim import maxsim
from colbert_lab.training.gather import gather_documents, gather_objects, rank_offset

RANKS, QUERIES, WIDTH, FEATURES = 2, 2, 3, 5
LENGTHS = (4, 7)  # document tokens, a process
# Ids of each query's documents, the positive first. Query 0 knows k as another positive, query 3 knows b: both are
# documents of a query of the other process.
DOCUMENT_IDS = (["a", "b", "c", "d", "e", "f"], ["g", "h", "i", "j", "k", "l"])
KNOWN = ([{"a", "k"}, {"d"}], [{"g"}, {"j", "b"}])
CASES = {f"{own}{'-excluded' * excluded}": (own, excluded) for own in ("drop", "keep") for excluded in (False, True)}


class Step(nn.Module):
    """A training step in small: encode, share, score, loss. Queries and documents pass through the same weights."""

    def __init__(self, own_negatives):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(FEATURES, 4)
        self.loss = WeightedLoss({"kl": KL(teacher_temperature=2.0), "in_batch": InBatch(own_negatives, 0.5)})

    def forward(self, batch, excluded):
        queries, documents = (normalize(self.encoder(batch[name]), dim=-1) for name in ("queries", "documents"))
        documents, mask = gather_documents(documents, batch["mask"])
        scores = maxsim(queries, documents, document_mask=mask)
        return self.loss(scores, WIDTH, excluded, batch["targets"], offset=rank_offset(len(queries)))["loss"]


def made(rank):
    """What one process has: each of its documents is of another length, up to LENGTHS[rank]."""
    draw = torch.Generator().manual_seed(rank)
    length = LENGTHS[rank]
    lengths = torch.randint(1, length, (QUERIES * WIDTH,), generator=draw)
    lengths[0] = length
    return {
        "queries": torch.randn(QUERIES, 3, FEATURES, generator=draw),
        "documents": torch.randn(QUERIES * WIDTH, length, FEATURES, generator=draw),
        "mask": torch.arange(length) < lengths[:, None],
        "targets": torch.randn(QUERIES, WIDTH, generator=draw) * 3,
    }


def excluded_by(known, ids):
    return torch.tensor([[name in own for name in ids] for own in known])


def averaged(gradients):
    """What DistributedDataParallel makes of gradients; the class itself takes seconds to load in each process."""
    for gradient in gradients:
        dist.all_reduce(gradient)
        gradient /= RANKS
    return gradients


def work(rank, place):
    """Both processes run this; rank 0 is pytest's own, which has torch loaded already."""
    limit = timedelta(seconds=120)
    dist.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=RANKS, timeout=limit)
    try:
        torch.save(shared(rank), Path(place) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def work_as_other(number, place):
    work(number + 1, place)


def shared(rank):
    """What a process comes to: averaged gradients by case, and what the single functions give."""
    batch, found = made(rank), {}
    for name, (own_negatives, excluded) in CASES.items():
        step = Step(own_negatives)
        ids = gather_objects(DOCUMENT_IDS[rank])
        step(batch, excluded_by(KNOWN[rank], ids) if excluded else None).backward()
        found[name] = averaged([p.grad for p in step.parameters()])
    found["gathered"] = gather_documents(batch["documents"], batch["mask"])
    found["objects"] = gather_objects([rank] * (rank + 1))
    found["offset"] = rank_offset(QUERIES)
    try:
        gather_documents(batch["documents"][rank:], batch["mask"][rank:])
    except ConfigError as error:
        found["refused"] = str(error)
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of two processes came to."""
    place = tmp_path_factory.mktemp("processes")
    other = mp.spawn(work_as_other, args=(str(place),), nprocs=RANKS - 1, join=False, daemon=True)
    work(0, str(place))
    other.join()
    return [torch.load(place / f"{rank}.pt") for rank in range(RANKS)]


def joint():
    """Both processes' batches as one, its documents padded to the longest."""
    batches = [made(rank) for rank in range(RANKS)]
    for batch, length in zip(batches, LENGTHS):
        missing = max(LENGTHS) - length
        batch["documents"] = nn.functional.pad(batch["documents"], (0, 0, 0, missing))
        batch["mask"] = nn.functional.pad(batch["mask"], (0, missing))
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_step_as_one_on_the_joint_batch(found, case):
    own_negatives, excluded = CASES[case]
    step = Step(own_negatives)
    known, ids = KNOWN[0] + KNOWN[1], DOCUMENT_IDS[0] + DOCUMENT_IDS[1]
    step(joint(), excluded_by(known, ids) if excluded else None).backward()
    expected = [p.grad for p in step.parameters()]
    assert all(gradient.abs().max() > 1e-3 for gradient in expected)
    for rank in range(RANKS):
        torch.testing.assert_close(found[rank][case], expected, atol=1e-6, rtol=0)


def test_cases_are_different_steps(found):
    weights = [found[0][case][0] for case in CASES]
    assert all(not torch.allclose(a, b, atol=1e-4) for i, a in enumerate(weights) for b in weights[:i])


def test_every_process_has_all_documents_in_rank_order(found):
    whole = joint()
    for rank in range(RANKS):
        vectors, mask = found[rank]["gathered"]
        assert torch.equal(vectors, whole["documents"])
        assert torch.equal(mask, whole["mask"])
        assert mask.dtype == torch.bool
        assert found[rank]["objects"] == [0, 1, 1]
        assert found[rank]["offset"] == rank * QUERIES


def test_different_numbers_of_documents_are_refused_by_all(found):
    for rank in range(RANKS):
        assert "6 in process 0, 5 in process 1\n" in found[rank]["refused"]


def test_alone_nothing_changes(tmp_path):
    vectors, mask = torch.randn(4, 3, 2, requires_grad=True), torch.ones(4, 3, dtype=torch.bool)
    ids = ["a", "b"]

    def untouched():
        return gather_documents(vectors, mask)[0] is vectors and gather_objects(ids) is ids and rank_offset(2) == 0

    assert untouched(), "without a process group"
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        assert untouched(), "in a group of one"
    finally:
        dist.destroy_process_group()
