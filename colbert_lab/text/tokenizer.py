"""Text to token ids, by the contract of a ColBERT model.

    query     [CLS] [Q] w1..wr [SEP] [MASK]*      mask tokens are scored, and attended to only if the contract says so
    document  [CLS] [D] w1..wr [SEP]              vectors at skipped ids (punctuation) are not scored

A prompt's ids stand right after the marker's and count to it; the blank that ends a prompt begins every text.
Special tokens are the backbone's own (`<s>`, `</s>`, none, ...): they are read off its tokenizer, not assumed.
"""

import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from colbert_lab.errors import ConfigError
from colbert_lab.text.contract import Contract
from colbert_lab.text.positions import Kind, Positions, Span, joined

Role = Literal["query", "document"]


@dataclass(frozen=True)
class Tokens:
    """Texts as ids, each as long as it is: lists of ids, how many of each are attended to, and what was cut.

    `attended[i]` counts the leading ids that are attended to (all but unattended mask tokens).
    `cut[i]` counts the ids of text i that its maximum length left out.
    """

    ids: list[list[int]]
    attended: list[int]
    cut: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> list[int]:
        """The number of ids of each text."""
        return [len(ids) for ids in self.ids]

    def select(self, rows: Sequence[int]) -> "Tokens":
        """The texts with these numbers, in this order."""
        return Tokens([self.ids[r] for r in rows], [self.attended[r] for r in rows], [self.cut[r] for r in rows])


@dataclass(frozen=True)
class Batch:
    """Token ids padded to the longest of the batch: ids, attention and score masks, all [N, L].

    `attention` is True where a position may be attended to; `scored` where its vector takes part in MaxSim.
    """

    ids: Tensor
    attention: Tensor
    scored: Tensor

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on another device."""
        return Batch(*(t.to(device, non_blocking=True) for t in (self.ids, self.attention, self.scored)))


class ColBERTTokenizer:
    """A backbone's tokenizer under a contract: `queries` and `documents` turn texts into Tokens, `batch` pads them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, contract: Contract):
        """ConfigError where the vocabulary lacks what the contract asks for: a marker, the mask, a skipped word."""
        self.tokenizer = tokenizer
        self.contract = contract
        self.prefix, self.suffix = _special_ids(tokenizer)
        self.query_marker = self._marker(contract.query_marker, "query_marker")
        self.document_marker = self._marker(contract.document_marker, "document_marker")
        self.query_marker += self._prompt(contract.query_prompt, "query_prompt")
        self.document_marker += self._prompt(contract.document_prompt, "document_prompt")
        self.mask_id = self._mask_id()
        self.pad_id = _first_known(tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
        self.skip_ids = frozenset(self._skipped() if contract.skip_punctuation != "off" else ())
        # By the largest id and not by the number of entries: a vocabulary may have holes.
        skip = torch.zeros(max(tokenizer.get_vocab().values()) + 1, dtype=torch.bool)
        skip[list(self.skip_ids)] = True
        self._skip = skip

    def queries(self, texts: Sequence[str]) -> Tokens:
        """Queries as ids, expanded as the contract says."""
        contract = self.contract
        tokens = self._encode(texts, "query", contract.query_length)
        target = {"off": 0, "fixed": contract.query_length, "min": contract.expansion_length}[contract.expansion]
        expanded = [ids + [self.mask_id] * (target - len(ids)) for ids in tokens.ids]
        attended = [len(ids) for ids in (expanded if contract.attend_to_expansion else tokens.ids)]
        return Tokens(expanded, attended, tokens.cut)

    def documents(self, texts: Sequence[str]) -> Tokens:
        """Documents as ids."""
        return self._encode(texts, "document", self.contract.document_length)

    def encode(self, texts: Sequence[str], role: Role) -> Tokens:
        """`queries` or `documents`."""
        return self.queries(texts) if role == "query" else self.documents(texts)

    def batch(self, tokens: Tokens, role: Role) -> Batch:
        """Pad to the longest: [N, L] ids and masks; skipped ids are unscored on the sides that the contract names."""
        lengths = torch.tensor(tokens.lengths)
        # At least one column: without special tokens an empty text has no id at all.
        positions = torch.arange(max(1, int(lengths.max())))
        ids = torch.full((len(tokens), len(positions)), self.pad_id, dtype=torch.long)
        real = positions < lengths[:, None]
        ids[real] = torch.tensor([i for sequence in tokens.ids for i in sequence], dtype=torch.long)
        attention = positions < torch.tensor(tokens.attended)[:, None]
        skips = role == "document" or self.contract.skip_punctuation == "both"
        scored = real & ~self._skip[ids] if skips else real
        return Batch(ids, attention, scored)

    def positions(self, texts: Sequence[str], role: Role) -> list[Positions]:
        """What the scored positions of each text stand for, aligned with the vectors that encoding it gives."""
        if not len(texts):
            return []
        tokens = self.encode(texts, role)
        scored = self.batch(tokens, role).scored
        return [
            self._positions(text, ids, spans, keep.tolist(), cut, role)
            for text, ids, spans, keep, cut in zip(texts, tokens.ids, self._spans(texts, role), scored, tokens.cut)
        ]

    def save(self, directory: Path) -> None:
        """Write the backbone tokenizer's files; the contract is saved by the model."""
        self.tokenizer.save_pretrained(directory)

    def _encode(self, texts: Sequence[str], role: Role, length: int) -> Tokens:
        if not len(texts):
            return Tokens([], [], [])
        marker = self.query_marker if role == "query" else self.document_marker
        room = length - len(self.prefix) - len(marker) - len(self.suffix)
        blank = self._blank(role)
        encoded = self.tokenizer(
            [blank + text for text in texts] if blank else list(texts),
            add_special_tokens=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        ids = [[*self.prefix, *marker, *content[:room], *self.suffix] for content in encoded]
        return Tokens(ids, [len(i) for i in ids], [max(0, len(content) - room) for content in encoded])

    def _spans(self, texts: Sequence[str], role: Role) -> list[list[Span | None]]:
        """Where each content id of each whole text stands in it, blanks around it left out; None where none is told."""
        told, blank = self.tokenizer.is_fast, self._blank(role)
        texts = [blank + text for text in texts]
        encoded = self.tokenizer(
            texts, add_special_tokens=False, return_offsets_mapping=told, truncation=False, verbose=False
        )
        if not told:
            return [[None] * len(ids) for ids in encoded["input_ids"]]
        return [
            [_trimmed(text, start, end, len(blank)) for start, end in offsets]
            for text, offsets in zip(texts, encoded["offset_mapping"])
        ]

    def _positions(
        self, text: str, ids: list[int], spans: list[Span | None], keep: list[bool], cut: int, role: Role
    ) -> Positions:
        marker = self.query_marker if role == "query" else self.document_marker
        content = len(spans) - cut
        before, after = ["special"] * len(self.prefix) + ["marker"] * len(marker), ["special"] * len(self.suffix)
        kinds: list[Kind] = [*before, *["word"] * content, *after]
        kinds += ["mask"] * (len(ids) - len(kinds))
        places = [*[None] * len(before), *spans[:content]]
        places += [None] * (len(ids) - len(places))
        strings = self.tokenizer.convert_ids_to_tokens(ids)
        # What is not scored still ends a word: `3.5` without its point is two.
        follows = [goes_on and keep[i - 1] for i, goes_on in enumerate(joined(strings, kinds))]
        kept = [i for i in range(len(ids)) if keep[i]]
        columns = ([column[i] for i in kept] for column in (strings, kinds, follows, places))
        return Positions(*map(tuple, columns), text, cut)

    def _marker(self, marker: str | None, name: str) -> list[int]:
        if marker is None:
            return []
        vocabulary = self.tokenizer.get_vocab()
        if marker not in vocabulary:
            raise ConfigError(
                f"{name}={marker!r} is not in the vocabulary of this backbone, so it would become the unknown token\n"
                f"try: text.{name}=<a string of the vocabulary that texts do not contain>, text.{name}=null for no "
                "marker, or backbone.add_markers=true to add it"
            )
        return [vocabulary[marker]]

    def _prompt(self, prompt: str, name: str) -> list[int]:
        """The ids of a prompt without the blank at its end, which vocabularies make part of the word that follows."""
        if not prompt:
            return []
        words = prompt.rstrip()

        def ids(text: str) -> list[int]:
            return self.tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]

        found = ids(words)
        for text in ("river", "2", "(a)"):
            if ids(prompt + text) != found + ids(prompt[len(words) :] + text):
                raise ConfigError(
                    f"{name}={prompt!r} and the text after it share a token in this vocabulary\n"
                    "try: a prompt that ends in a blank"
                )
        return found

    def _blank(self, role: Role) -> str:
        prompt = self.contract.query_prompt if role == "query" else self.contract.document_prompt
        return prompt[len(prompt.rstrip()) :]

    def _skipped(self) -> list[int]:
        if self.contract.skip_words is None:
            return punctuation_ids(self.tokenizer)
        vocabulary = self.tokenizer.get_vocab()
        if unknown := [word for word in self.contract.skip_words if word not in vocabulary]:
            raise ConfigError(f"skip_words has {unknown}, which the vocabulary of this backbone has not")
        return [vocabulary[word] for word in self.contract.skip_words]

    def _mask_id(self) -> int:
        if self.contract.expansion == "off":
            return -1
        if self.tokenizer.mask_token_id is None:
            raise ConfigError("this backbone has no mask token to expand queries with\ntry: text.expansion=off")
        return self.tokenizer.mask_token_id


def punctuation_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids of the 32 ASCII punctuation symbols: each one's at a text's start, after a blank and after a letter.

    BPE has an id for `,` and one for ` ,`; SentencePiece gives its own only where no word starts. Only symbols that are
    one known token count: the unknown token is never among them.
    """

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    letter = ids("a")
    found = set()
    for symbol in string.punctuation:
        joined = ids("a" + symbol)
        after_letter = joined[len(letter) :] if joined[: len(letter)] == letter else []
        for tokens in (ids(symbol), ids(" " + symbol), after_letter):
            if len(tokens) == 1 and tokens[0] != tokenizer.unk_token_id:
                found.add(tokens[0])
    return sorted(found)


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The special ids that this tokenizer puts before and after a text."""
    bare = tokenizer("a", add_special_tokens=False, verbose=False)["input_ids"]
    full = tokenizer("a", add_special_tokens=True, verbose=False)["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return list(full[:start]), list(full[start + len(bare) :])
    raise ConfigError("this tokenizer changes a text's ids when it adds special tokens; it cannot be used here")


def _trimmed(text: str, start: int, end: int, before: int = 0) -> Span | None:
    """A span without the blanks at its ends (some tokenisers count the blank before a word to it); None if empty.

    `before` is how many characters stand in front of what the span is counted in.
    """
    found = text[start:end]
    start += len(found) - len(found.lstrip())
    end = start + len(found.strip())
    return (start - before, end - before) if end > start else None


def _first_known(*ids: int | None) -> int:
    return next(i for i in ids if i is not None)
