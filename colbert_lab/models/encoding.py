"""Encoding: texts to a Ragged of the vectors that are scored, in the order of the texts.

Texts are tokenised together, sorted by length, and run in batches of a bounded number of ids, each padded only to its
own longest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from colbert_lab.models.backbone import hidden_states
from colbert_lab.models.colbert import ColBERT
from colbert_lab.models.precision import Precision, autocast
from colbert_lab.models.single_vector import SingleVector
from colbert_lab.progress import Progress
from colbert_lab.ragged import Ragged
from colbert_lab.text.tokenizer import Role

# What turns texts into vectors to search by: it has tokenizer, dim, similarity, device, forward and scored.
Encoder = ColBERT | SingleVector


@dataclass(frozen=True)
class Encoded:
    """Embeddings in the texts' order, and what the lengths of the contract cost.

    embeddings: Ragged of N texts. cut_texts: how many were longer than their maximum. cut_tokens: how many ids that
    left out. tokens: ids that went through the model, without padding. padded: the same with padding.
    """

    embeddings: Ragged
    cut_texts: int
    cut_tokens: int
    tokens: int
    padded: int


@torch.inference_mode()
def encode(
    model: Encoder,
    texts: Sequence[str],
    role: Role,
    precision: Precision = "auto",
    batch_tokens: int = 8192,
    dtype: torch.dtype = torch.float32,
    bar: Progress | None = None,
) -> Encoded:
    """Embed texts as queries or documents; values on the CPU in `dtype`. A SingleVector gives one vector a text.

    `batch_tokens` bounds a batch's ids, padding included (a single longer text is its own batch). The model is left in
    the mode in which it was found; dropout is off meanwhile.
    """
    tokens = model.tokenizer.encode(texts, role)
    order = np.argsort(tokens.lengths, kind="stable")[::-1]
    was_training = model.training
    model.eval()
    parts, padded = [], 0
    with autocast(precision, model.device):
        for rows in batches(order, tokens.lengths, batch_tokens):
            batch = model.tokenizer.batch(tokens.select(rows), role)
            embeddings = model(batch.to(model.device))
            parts.append(_scored(embeddings, model.scored(batch), dtype))
            padded += batch.ids.numel()
            if bar is not None:
                bar.advance(len(rows), tokens=sum(tokens.lengths[r] for r in rows))
    model.train(was_training)
    values = (
        Ragged.cat(parts)
        if parts
        else Ragged(torch.empty(0, model.dim, dtype=dtype), torch.empty(0, dtype=torch.int64))
    )
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order))
    cut = np.asarray(tokens.cut, dtype=np.int64)
    return Encoded(values.select(inverse), int((cut > 0).sum()), int(cut.sum()), sum(tokens.lengths), padded)


@torch.inference_mode()
def backbone_vectors(
    model: ColBERT, texts: Sequence[str], role: Role, precision: Precision, batch_tokens: int = 8192
) -> Iterator[Tensor]:
    """The backbone's own unit-length vectors [T_i, h] at scored positions, batch by batch, before any projection."""
    tokens = model.tokenizer.encode(texts, role)
    order = np.argsort(tokens.lengths, kind="stable")[::-1]
    model.eval()
    for rows in batches(order, tokens.lengths, batch_tokens):
        batch = model.tokenizer.batch(tokens.select(rows), role).to(model.device)
        with autocast(precision, model.device):
            states = hidden_states(model.backbone, batch.ids, batch.attention)
        yield F.normalize(states.float(), dim=-1)[batch.scored].cpu()


def batches(order: np.ndarray, lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Consecutive runs of `order` (longest first), each of at most batch_tokens ids once padded to its longest."""
    first = 0
    while first < len(order):
        count = max(1, batch_tokens // max(1, lengths[order[first]]))
        yield order[first : first + count].tolist()
        first += count


def _scored(embeddings: Tensor, scored: Tensor, dtype: torch.dtype) -> Ragged:
    kept = embeddings[scored.to(embeddings.device)].to(dtype)
    return Ragged(kept.cpu(), scored.sum(1))
