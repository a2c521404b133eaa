"""Passages: a document longer than a model reads, cut into pieces of whole words that are encoded each by itself.

A number is of words and not of a tokeniser's ids, so that every system, BM25 among them, sees the same passages;
`model` fills what one model reads, so that nothing of a document is lost to it. A text is cut as the collection has it:
where titles are put before texts, the title stands at the head of the first passage alone.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from colbert_lab.errors import ConfigError
from colbert_lab.text.tokenizer import ColBERTTokenizer

_WORD = re.compile(r"\S+")
# Characters of a word, or of an id, with its blank: only how many documents are held in memory at once hangs on it.
_CHARACTERS = 5


@dataclass(frozen=True)
class Split:
    """N documents as passages: P texts end to end, and how many of them each document has (`counts` [N], sum P).

    left_out: passages beyond `most` that are not among them; shortened: the documents that these are of.
    """

    texts: list[str]
    counts: list[int]
    left_out: int
    shortened: int


@dataclass(frozen=True)
class Passages:
    """How documents are cut.

    length     words (what blanks separate) of a passage; "model": as many whole words as fill the model's
               document_length, and a longer word in pieces; None: documents are not cut
    overlap    words at a passage's end that the next one begins with
    most       passages of a document; those behind are left out, and counted; None: all
    """

    length: int | Literal["model"] | None = None
    overlap: int = 0
    most: int | None = None

    def __post_init__(self):
        problems = []
        if not (self.length in (None, "model") or (isinstance(self.length, int) and self.length >= 1)):
            problems.append(f"length={self.length} is no number of words\ntry: passages.length=180 or =model")
        if self.overlap < 0 or (isinstance(self.length, int) and self.overlap >= self.length):
            problems.append(f"overlap={self.overlap} must be 0 or more and below the length\ntry: passages.overlap=0")
        if self.most is not None and self.most < 1:
            problems.append(f"most={self.most}, but a document has at least one passage\ntry: passages.most=null")
        if problems:
            raise ConfigError(problems, "the passages")

    def split(self, texts: Sequence[str], tokenizer: ColBERTTokenizer | None = None) -> Split:
        """The passages of every text, in order; a text that fits into one, or is empty, is one, unchanged.

        ConfigError where length is "model" and there is no tokenizer, one that does not say where its ids stand, or an
        overlap that leaves no room for anything new.
        """
        words = [[found.span() for found in _WORD.finditer(text)] for text in texts]
        if self.length == "model":
            room = self._room(tokenizer)
            weighed = _weighed(texts, words, room, tokenizer)
        else:
            room = self.length
            weighed = [(spans, np.ones(len(spans), dtype=np.int64)) for spans in words]
        flat: list[str] = []
        counts, left_out, shortened = [], 0, 0
        for text, (spans, weights) in zip(texts, weighed, strict=True):
            found = [text] if room is None else _cut(text, spans, weights, room, self.overlap)
            kept = found[: self.most]
            flat += kept
            counts.append(len(kept))
            left_out += len(found) - len(kept)
            shortened += len(found) > len(kept)
        return Split(flat, counts, left_out, shortened)

    def estimate(self, characters: np.ndarray, tokenizer: ColBERTTokenizer | None = None) -> np.ndarray:
        """About how many passages [N] texts of these lengths [N] have; for what is to be held in memory, no more."""
        if self.length is None:
            return np.ones(len(characters), dtype=np.int64)
        room = self._room(tokenizer) if self.length == "model" else self.length
        found = characters // (_CHARACTERS * max(1, room - self.overlap)) + 1
        return found if self.most is None else np.minimum(found, self.most)

    def _room(self, tokenizer: ColBERTTokenizer | None) -> int:
        """Ids of text that a document's maximum leaves room for; ConfigError where the overlap takes all of it."""
        if tokenizer is None:
            raise ConfigError("passages.length=model, but there is no model to fill\ntry: passages.length=180")
        special = len(tokenizer.prefix) + len(tokenizer.document_marker) + len(tokenizer.suffix)
        room = tokenizer.contract.document_length - special
        if self.overlap >= room:
            raise ConfigError(
                f"passages.overlap={self.overlap} words, and a passage has room for {room} ids of text\n"
                "try: passages.overlap=0"
            )
        return room


def _weighed(
    texts: Sequence[str], words: Sequence[list[tuple[int, int]]], room: int, tokenizer: ColBERTTokenizer
) -> Iterator[tuple[list[tuple[int, int]], np.ndarray]]:
    """Every text's words as spans of characters, with how many ids each is; a word of more than `room` in pieces."""
    if not texts:
        return
    if not tokenizer.tokenizer.is_fast:
        raise ConfigError("this tokenizer does not say where its ids stand in a text\ntry: passages.length=120")
    offsets = tokenizer.tokenizer(
        list(texts),
        add_special_tokens=False,
        truncation=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["offset_mapping"]
    for spans, tokens in zip(words, offsets, strict=True):
        starts = np.array([start for start, _ in tokens], dtype=np.int64)
        # By its last character: that of a word may come with the blank before it.
        last = np.array([end - 1 for _, end in tokens], dtype=np.int64)
        owner = np.searchsorted(np.array([start for start, _ in spans], dtype=np.int64), last, side="right") - 1
        weights = np.bincount(np.maximum(owner, 0), minlength=len(spans))[: len(spans)]
        if len(spans) and weights.max() > room:
            spans, weights = _broken(spans, weights, starts[np.argsort(owner, kind="stable")], room)
        yield spans, weights


def _broken(
    spans: list[tuple[int, int]], weights: np.ndarray, starts: np.ndarray, room: int
) -> tuple[list[tuple[int, int]], np.ndarray]:
    """The same with every word of more than `room` ids cut before each id that would not fit any more."""
    pieces, sizes, first = [], [], 0
    for (start, end), weight in zip(spans, weights.tolist(), strict=True):
        places = [start, *starts[first + room : first + weight : room].tolist(), end]
        pieces += pairwise(places)
        sizes += [room] * (len(places) - 2) + [weight - room * (len(places) - 2)]
        first += weight
    return pieces, np.array(sizes, dtype=np.int64)


def _cut(text: str, spans: list[tuple[int, int]], weights: np.ndarray, room: int, overlap: int) -> list[str]:
    sums = np.concatenate([[0], np.cumsum(weights)])
    if sums[-1] <= room:
        return [text]
    passages, first = [], 0
    while True:
        last = max(first + 1, int(np.searchsorted(sums, sums[first] + room, side="right")) - 1)
        passages.append(text[spans[first][0] : spans[last - 1][1]])
        if last == len(spans):
            return passages
        first = last - min(overlap, last - first - 1)
