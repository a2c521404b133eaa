"""Training batches: what batch t is made of is decided by (seed, t) alone, so any interruption can be taken up."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from colbert_lab.data.examples import Example, Examples
from colbert_lab.errors import ConfigError, DataError
from colbert_lab.text.tokenizer import Batch, ColBERTTokenizer, Tokens


@dataclass(frozen=True)
class TrainingBatch:
    """B queries and their B·w documents, query-major, each query's positive first.

    excluded [B, B·w] is True where a document is another known positive of the query (or the same document as its
    positive). index is the batch's number in the run; tokens counts the ids in it without padding.
    """

    index: int
    queries: Batch
    documents: Batch
    width: int
    excluded: Tensor
    tokens: int

    def to(self, device: torch.device, non_blocking: bool = False) -> "TrainingBatch":
        """The batch on another device."""
        moved = {"queries": self.queries.to(device), "documents": self.documents.to(device)}
        return replace(self, **moved, excluded=self.excluded.to(device, non_blocking=non_blocking))

    @property
    def padding_share(self) -> float:
        """The share of the batch's positions that are padding, between 0 and 1."""
        positions = self.queries.ids.numel() + self.documents.ids.numel()
        return 1 - self.tokens / positions


class BatchStream(Dataset):
    """Batch t of a run, t = 0, 1, ...: epoch e shuffles all examples by (seed, e); its last, partial batch is dropped.

    An example's positive and negatives are drawn anew in every epoch, by (seed, epoch, example).
    """

    def __init__(
        self,
        examples: Examples,
        tokenizer: ColBERTTokenizer,
        queries: int,
        negatives: int,
        seed: int,
        document_length: int | None = None,
    ):
        """`queries` a batch with `negatives` each; `document_length` cuts training documents shorter than the contract.

        DataError where there are fewer examples than a batch needs.
        """
        if len(examples) < queries:
            raise DataError(
                f"there are {len(examples)} training examples, but a batch needs {queries}\n"
                f"try: train.batch_queries={max(1, len(examples))}, or more training data"
            )
        if document_length is not None and not 4 <= document_length <= tokenizer.contract.document_length:
            raise ConfigError(
                f"train.document_length={document_length} must be between 4 and the model's "
                f"{tokenizer.contract.document_length}"
            )
        self._examples, self._tokenizer = examples, tokenizer
        self._queries, self._negatives, self._seed = queries, negatives, seed
        self._document_length = document_length
        self.batches_per_epoch = len(examples) // queries
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0))

    def __getitem__(self, index: int) -> TrainingBatch:
        epoch, position = divmod(index, self.batches_per_epoch)
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([self._seed, epoch]).permutation(len(self._examples)))
        rows = self._order[1][position * self._queries : (position + 1) * self._queries]
        examples = [
            self._examples.sample(int(row), np.random.default_rng([self._seed, epoch, int(row)]), self._negatives)
            for row in rows
        ]
        return collate(index, examples, self._tokenizer, self._document_length)


def collate(
    index: int, examples: list[Example], tokenizer: ColBERTTokenizer, document_length: int | None = None
) -> TrainingBatch:
    """Examples of equal width as one batch; DataError where widths differ."""
    widths = {len(example.documents) for example in examples}
    if len(widths) != 1:
        raise DataError(f"examples of one batch have {sorted(widths)} documents; all need as many")
    queries = tokenizer.queries([example.query for example in examples])
    documents = tokenizer.documents([text for example in examples for text in example.documents])
    if document_length is not None:
        documents = _shorten(documents, document_length, len(tokenizer.suffix))
    return TrainingBatch(
        index,
        tokenizer.batch(queries, "query"),
        tokenizer.batch(documents, "document"),
        widths.pop(),
        _excluded(examples),
        sum(queries.lengths) + sum(documents.lengths),
    )


class TrainingData(pl.LightningDataModule):
    """Feeds a BatchStream to Lightning from where an interrupted run left off."""

    def __init__(self, stream: BatchStream, batches: int):
        """`batches` in the whole run, accumulation parts counted."""
        super().__init__()
        self._stream, self._batches = stream, batches
        self.batches_done = 0

    def train_dataloader(self) -> DataLoader:
        """The batches from `batches_done` on."""
        # Without its own generator a loader draws from the global one, at times that a resumed run does not repeat.
        return DataLoader(
            self._stream,
            batch_size=None,
            sampler=_From(self),
            num_workers=0,
            generator=torch.Generator().manual_seed(0),
        )

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint keeps of it."""
        return {"batches_done": self.batches_done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a checkpoint."""
        self.batches_done = state["batches_done"]

    def __len__(self) -> int:
        return self._batches


class _From:
    """A sampler that starts at the first batch not done, and whose length is still the whole run's.

    Lightning goes on counting batches where the checkpoint was, and compares with the length.
    """

    def __init__(self, data: TrainingData):
        self._data = data

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._data.batches_done, len(self._data)))

    def __len__(self) -> int:
        return len(self._data)


def _excluded(examples: list[Example]) -> Tensor:
    """[B, B·w]: other documents that are known positives of a query, by id; or its own positive's text again."""
    width = len(examples[0].documents)
    mask = torch.zeros(len(examples), len(examples) * width, dtype=torch.bool)
    for row, example in enumerate(examples):
        for other, owner in enumerate(examples):
            for column in range(width):
                known = owner.document_ids is not None and owner.document_ids[column] in example.known_positives
                same = owner.documents[column] == example.documents[0]
                mask[row, other * width + column] = known or same
        mask[row, row * width] = False
    return mask


def _shorten(tokens: Tokens, length: int, suffix: int) -> Tokens:
    ids = [i if len(i) <= length else i[: length - suffix] + i[len(i) - suffix :] for i in tokens.ids]
    return Tokens(ids, [len(i) for i in ids], tokens.cut)
