"""What the scored vectors of one text stand for: a string and a kind a vector, and the words that pieces make up."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

# Part of the text; query expansion; the marker of the side; what the backbone puts around any text.
Kind = Literal["word", "mask", "marker", "special"]
Span = tuple[int, int]

# WordPiece marks a piece that goes on; byte-level BPE and SentencePiece mark one that begins a word.
_GOES_ON = "##"
_BEGINS = ("Ġ", "▁")


@dataclass(frozen=True)
class Word:
    """Pieces that belong together: the text as it is read, its kind, their positions, and its place in the text."""

    text: str
    kind: Kind
    positions: tuple[int, ...]
    span: Span | None = None


@dataclass(frozen=True)
class Positions:
    """The n scored positions of one text, aligned with its vectors [n, d].

    tokens: vocabulary strings. joined: whether a position goes on with the word of the one before it. spans: where in
    `text` a position stands (characters, end excluded), None where nowhere, or where the tokeniser does not tell. cut:
    how many ids of the text its maximum length left out.
    """

    tokens: tuple[str, ...]
    kinds: tuple[Kind, ...]
    joined: tuple[bool, ...]
    spans: tuple[Span | None, ...]
    text: str = ""
    cut: int = 0

    def __post_init__(self):
        lengths = {len(self.tokens), len(self.kinds), len(self.joined), len(self.spans)}
        if len(lengths) != 1:
            raise ValueError(f"tokens, kinds, joined and spans must be equally many, not {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def of(cls, tokens: Sequence[str], kinds: Sequence[Kind] | None = None) -> "Positions":
        """Positions of strings alone, all of them words where no kinds are given."""
        kinds = tuple(kinds) if kinds is not None else ("word",) * len(tokens)
        return cls(tuple(tokens), kinds, joined(tokens, kinds), (None,) * len(tokens))

    def words(self) -> list[Word]:
        """The words, in order; every position is in one of them. Markers, masks and specials stand alone."""
        groups: list[list[int]] = []
        for i, goes_on in enumerate(self.joined):
            if goes_on and groups:
                groups[-1].append(i)
            else:
                groups.append([i])
        return [self._word(group) for group in groups]

    def _word(self, group: list[int]) -> Word:
        kind = self.kinds[group[0]]
        spans = [self.spans[i] for i in group]
        if kind == "word" and None not in spans:
            span = (spans[0][0], spans[-1][1])
            return Word(self.text[slice(*span)], kind, tuple(group), span)
        pieces = [self.tokens[i] for i in group]
        return Word("".join(map(bare, pieces)) if kind == "word" else pieces[0], kind, tuple(group))


def joined(tokens: Sequence[str], kinds: Sequence[Kind]) -> tuple[bool, ...]:
    """Whether each token goes on with the word of the token before it, by how its vocabulary marks pieces.

    A symbol is a word of its own, also where the vocabulary would let it go on (byte-level `what` + `?`).
    """
    begins_are_marked = any(token.startswith(_BEGINS) for token, kind in zip(tokens, kinds) if kind == "word")
    found = []
    for i, token in enumerate(tokens):
        inside = i > 0 and kinds[i] == kinds[i - 1] == "word"
        goes_on = token.startswith(_GOES_ON) or (begins_are_marked and not token.startswith(_BEGINS))
        found.append(inside and goes_on and _spelled(token) and _spelled(tokens[i - 1]))
    return tuple(found)


def bare(token: str) -> str:
    """A token without the mark of its vocabulary; a token that is nothing but a mark stays."""
    for mark in (_GOES_ON, *_BEGINS):
        if token.startswith(mark) and token != mark:
            return token[len(mark) :]
    return token


def _spelled(token: str) -> bool:
    return any(c.isalnum() for c in bare(token))
