"""Documents shared between processes: each scores its own queries against the documents of all.

The gradient then needs no factor. With R processes of B queries each, a process's loss is the mean over its own B, so
the joint batch's loss is (Σ_r L_r) / R. Backward, a process's documents collect what every process's loss says of
them (the sum over ranks in `gather_documents`), so the parameters' gradients, summed over processes, are those of
Σ_r L_r; DistributedDataParallel divides that sum by R. What comes out is one process's gradient on the joint batch,
whatever R is: to multiply a loss by R, or to let gradients reach local documents only, would change the learning rate
or the direction with the number of devices.

Without torch.distributed, or alone in it, every function here gives back what it was given.
"""

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from colbert_lab.errors import ConfigError

Item = TypeVar("Item")


def gather_documents(vectors: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The documents of all R processes in rank order: [N, n, d] and [N, n] give [R·N, n_max, d] and [R·N, n_max].

    Gradients flow to every process's own documents, summed over the processes. Shorter documents are padded to the
    longest process's n, with a mask of False. All processes must call it, and go backward through it, alike.
    ConfigError, in every process, where their N differ: queries' places in the joint batch could not be told.
    """
    if _world_size() == 1:
        return vectors, mask
    counts, lengths = _shapes(vectors)
    if len(set(counts)) != 1:
        told = ", ".join(f"{count} in process {rank}" for rank, count in enumerate(counts))
        raise ConfigError(
            f"processes share their documents, but have different numbers of them: {told}\n"
            "try: the same train.batch_queries and train.negatives in every process"
        )
    padding = max(lengths) - vectors.shape[1]
    padded = F.pad(vectors, (0, 0, 0, padding))
    # As bytes: not every backend gathers booleans.
    padded_mask = F.pad(mask, (0, padding)).to(torch.uint8)
    masks = [torch.empty_like(padded_mask) for _ in counts]
    dist.all_gather(masks, padded_mask.contiguous())
    return _Gather.apply(padded), torch.cat(masks).bool()


def gather_objects(items: list[Item]) -> list[Item]:
    """The items of all processes in rank order, ids for example; lists may differ in length. Items must pickle."""
    if _world_size() == 1:
        return items
    lists: list[list[Item]] = [[] for _ in range(_world_size())]
    dist.all_gather_object(lists, items)
    return [item for part in lists for item in part]


def own_part(items: Sequence[Item]) -> Sequence[Item]:
    """This process's part of a batch, in rank order, as many as every other's; ConfigError where that cannot be."""
    size = _world_size()
    if len(items) % size:
        equal = size * max(1, len(items) // size)
        raise ConfigError(
            f"{size} processes cannot share {len(items)} queries equally\ntry: train.batch_queries={equal}"
        )
    part = len(items) // size
    return items if size == 1 else items[rank_offset(part) :][:part]


def rank_offset(local_count: int) -> int:
    """The place of this process's first query in the joint batch, where each process has `local_count` of them."""
    return dist.get_rank() * local_count if _world_size() > 1 else 0


class _Gather(torch.autograd.Function):
    """Tensors of equal shape [N, ...] to [R·N, ...]; backward, the sum over ranks of the gradients of the own part."""

    @staticmethod
    def forward(ctx, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own) for _ in range(_world_size())]
        dist.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        # Summed whole and then cut: not every backend can reduce and scatter in one go.
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(_world_size())[dist.get_rank()]


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _shapes(vectors: Tensor) -> tuple[list[int], list[int]]:
    """N and n of every process."""
    own = torch.tensor(vectors.shape[:2], device=vectors.device)
    shapes = [torch.empty_like(own) for _ in range(_world_size())]
    dist.all_gather(shapes, own)
    counts, lengths = torch.stack(shapes).T.tolist()
    return counts, lengths
