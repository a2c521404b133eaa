"""Training batches: what batch t is made of is decided by (seed, t) alone, so any interruption can be taken up."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from colbert_lab.data.examples import Example, Examples
from colbert_lab.data.texts import hash_text
from colbert_lab.errors import ConfigError, DataError
from colbert_lab.models.cross_encoder import CrossEncoder, PairBatch
from colbert_lab.text.tokenizer import Batch, ColBERTTokenizer, Tokens
from colbert_lab.training.gather import own_part


class RankingBatch(Protocol):
    """What a training step and its log need of a batch of B queries, each with `width` documents, its positive first.

    index: the batch's number in the run. targets: a teacher's scores [B, w] in the order of the documents, or None.
    tokens: the ids in it without padding. size: B. padding_share: the share of its positions that are padding.
    """

    index: int
    width: int
    targets: Tensor | None
    tokens: int
    size: int
    padding_share: float


class Identity(NamedTuple):
    """Who the documents of a query are: their ids (None: no ids), hashes of their texts; its known positives' both."""

    ids: tuple[str, ...] | None
    texts: tuple[int, ...]
    known: frozenset[str]
    known_texts: frozenset[int] = frozenset()


@dataclass(frozen=True)
class TrainingBatch:
    """B queries and their B·w documents for ColBERT, query-major, each query's positive first: a RankingBatch.

    excluded [B, B·w] is True where a document is another known positive of the query, or has the text of one;
    `identities` are what it was computed from.
    """

    index: int
    queries: Batch
    documents: Batch
    width: int
    excluded: Tensor
    identities: tuple[Identity, ...]
    targets: Tensor | None
    tokens: int

    def to(self, device: torch.device) -> "TrainingBatch":
        """The batch on another device."""
        return replace(
            self,
            queries=self.queries.to(device),
            documents=self.documents.to(device),
            excluded=self.excluded.to(device),
            targets=None if self.targets is None else self.targets.to(device),
        )

    @property
    def size(self) -> int:
        """B, the number of queries."""
        return len(self.queries.ids)

    @property
    def padding_share(self) -> float:
        """The share of the batch's positions that are padding, between 0 and 1."""
        positions = self.queries.ids.numel() + self.documents.ids.numel()
        return 1 - self.tokens / positions


@dataclass(frozen=True)
class PairTrainingBatch:
    """B queries, each paired with its own w documents, query-major, its positive first: a RankingBatch of B·w pairs."""

    index: int
    pairs: PairBatch
    width: int
    targets: Tensor | None
    tokens: int

    def to(self, device: torch.device) -> "PairTrainingBatch":
        """The batch on another device."""
        targets = None if self.targets is None else self.targets.to(device)
        return replace(self, pairs=self.pairs.to(device), targets=targets)

    @property
    def size(self) -> int:
        """B, the number of queries."""
        return len(self.pairs.ids) // self.width

    @property
    def padding_share(self) -> float:
        """The share of the batch's positions that are padding, between 0 and 1."""
        return 1 - self.tokens / self.pairs.ids.numel()


class BatchStream(Dataset):
    """Batch t of a run, t = 0, 1, ...: epoch e shuffles all examples by (seed, e); its last, partial batch is dropped.

    An example's positive and negatives are drawn anew in every epoch, by (seed, epoch, example). Where several
    processes train together, each has its own part of every batch.
    """

    def __init__(
        self,
        examples: Examples,
        collate: Callable[[int, list[Example]], Any],
        queries: int,
        negatives: int,
        seed: int,
    ):
        """`queries` a batch with `negatives` each; `collate` makes a RankingBatch of a batch's number and its examples.

        DataError where there are fewer examples than a batch needs.
        """
        if len(examples) < queries:
            raise DataError(
                f"there are {len(examples)} training examples, but a batch needs {queries}\n"
                f"try: train.batch_queries={max(1, len(examples))}, or more training data"
            )
        self._examples, self._collate = examples, collate
        self._queries, self._negatives, self._seed = queries, negatives, seed
        self.batches_per_epoch = len(examples) // queries
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0))

    def __getitem__(self, index: int) -> RankingBatch:
        epoch, position = divmod(index, self.batches_per_epoch)
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([self._seed, epoch]).permutation(len(self._examples)))
        rows = self._order[1][position * self._queries : (position + 1) * self._queries]
        examples = [
            self._examples.sample(int(row), np.random.default_rng([self._seed, epoch, int(row)]), self._negatives)
            for row in own_part(rows)
        ]
        return self._collate(index, examples)


class Collate:
    """Examples as a TrainingBatch, tokenised for ColBERT: `document_length` may cut documents below the contract."""

    def __init__(self, tokenizer: ColBERTTokenizer, document_length: int | None = None):
        """ConfigError where `document_length` has no room for a word, or is more than the contract's."""
        most = tokenizer.contract.document_length
        if document_length is not None and not 4 <= document_length <= most:
            raise ConfigError(f"train.document_length={document_length} must be between 4 and the model's {most}")
        self._tokenizer, self._document_length = tokenizer, document_length

    def __call__(self, index: int, examples: list[Example]) -> TrainingBatch:
        """Batch number `index`; DataError where the examples differ in width, or in having a teacher's scores."""
        tokenizer, width = self._tokenizer, width_of(examples)
        queries = tokenizer.queries([example.query for example in examples])
        documents = tokenizer.documents([text for example in examples for text in example.documents])
        if self._document_length is not None:
            documents = _shorten(documents, self._document_length, len(tokenizer.suffix))
        identities = tuple(
            Identity(e.document_ids, tuple(map(hash_text, e.documents)), e.known_positives, e.known_texts)
            for e in examples
        )
        return TrainingBatch(
            index=index,
            queries=tokenizer.batch(queries, "query"),
            documents=tokenizer.batch(documents, "document"),
            width=width,
            excluded=excluded(identities, identities),
            identities=identities,
            targets=targets_of(examples),
            tokens=sum(queries.lengths) + sum(documents.lengths),
        )


class PairCollate:
    """Examples as a PairTrainingBatch, tokenised by the cross-encoder's own rule."""

    def __init__(self, model: CrossEncoder):
        self._model = model

    def __call__(self, index: int, examples: list[Example]) -> PairTrainingBatch:
        """Batch number `index`; DataError where the examples differ in width, or in having a teacher's scores."""
        width = width_of(examples)
        queries = [example.query for example in examples for _ in range(width)]
        tokens = self._model.tokenize(queries, [text for example in examples for text in example.documents])
        return PairTrainingBatch(index, self._model.batch(tokens), width, targets_of(examples), sum(tokens.lengths))


def width_of(examples: Sequence[Example]) -> int:
    """How many documents each example of a batch has; DataError where they differ."""
    widths = {len(example.documents) for example in examples}
    if len(widths) != 1:
        raise DataError(f"examples of one batch have {sorted(widths)} documents; all need as many")
    return widths.pop()


def targets_of(examples: Sequence[Example]) -> Tensor | None:
    """The teacher's scores [B, w] in fp32, in the order of the documents; None where no example has any.

    DataError where some examples have scores and others none, or not one for each document.
    """
    if all(example.scores is None for example in examples):
        return None
    for example in examples:
        count = None if example.scores is None else len(example.scores)
        if count != len(example.documents):
            raise DataError(
                f"query {example.query_id or example.query!r}: {len(example.documents)} documents, but "
                f"{count or 'no'} scores of a teacher, which other examples have; all documents need one"
            )
    return torch.tensor([example.scores for example in examples], dtype=torch.float32)


def excluded(queries: Sequence[Identity], owners: Sequence[Identity], first: int = 0) -> Tensor:
    """[B, N·w]: which documents of the owners are no negatives of each of B queries; query i is owner `first` + i.

    True for known positives of the query, by id or by text, the one drawn among them; never for its own positive.
    """
    width = len(owners[0].texts)
    by_id: dict[str, list[int]] = defaultdict(list)
    by_text: dict[int, list[int]] = defaultdict(list)
    for number, owner in enumerate(owners):
        for column, text in enumerate(owner.texts, number * width):
            by_text[text].append(column)
        for column, id in enumerate(owner.ids or (), number * width):
            by_id[id].append(column)
    mask = torch.zeros(len(queries), len(owners) * width, dtype=torch.bool)
    for row, query in enumerate(queries):
        known = [column for id in query.known if id in by_id for column in by_id[id]]
        known += [column for text in query.known_texts if text in by_text for column in by_text[text]]
        mask[row, known + by_text[query.texts[0]]] = True
        mask[row, (first + row) * width] = False
    return mask


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


def _shorten(tokens: Tokens, length: int, suffix: int) -> Tokens:
    ids = [i if len(i) <= length else i[: length - suffix] + i[len(i) - suffix :] for i in tokens.ids]
    return Tokens(ids, [len(i) for i in ids], tokens.cut)
