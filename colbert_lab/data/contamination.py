"""Contamination: what training examples share with the queries and relevant documents of a test.

Texts are compared by their words alone: letter case, punctuation and blanks do not count. All pairs that reach the
threshold are found, and no others: prefix filtering (Chaudhuri, Ganti and Kaushik 2006; Bayardo, Ma and Srikant 2007)
leaves out only pairs that cannot reach it.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from colbert_lab.data.collection import Collection
from colbert_lab.data.examples import Examples
from colbert_lab.data.near_duplicates import grams

# Near duplicates: queries that share so many of their different words, documents of their word 3-grams (Jaccard).
QUERY_SIMILARITY, DOCUMENT_SIMILARITY = 0.8, 0.8
_QUERY_GRAMS, _DOCUMENT_GRAMS = 1, 3
_SHOWN = 5
_WORD = re.compile(r"\w+")
_TOLD = {
    "queries": "test queries are training queries (the same id)",
    "query_texts": "test queries have the text of a training query",
    "near_queries": f"test queries nearly have it (Jaccard of words >= {QUERY_SIMILARITY})",
    "positives": "relevant documents of the test are relevant to training queries too (the same id)",
    "positive_texts": "relevant documents of the test have the text of a training positive",
    "near_positives": f"relevant documents of the test nearly have it (Jaccard of 3-grams >= {DOCUMENT_SIMILARITY})",
    "pairs": "test pairs of a query's text and a relevant document are training pairs",
}


@dataclass(frozen=True)
class Pairs:
    """Queries and their relevant documents: what a test asks for, or what a model was trained on.

    name: what these are called. ids: the digest of the collection whose ids they have; None where ids stand for
    nothing. queries, documents: id -> text. positives: query id -> ids in `documents`.
    """

    name: str
    ids: str | None
    queries: Mapping[str, str]
    documents: Mapping[str, str]
    positives: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Shared:
    """How many of the test's `of` are in training, and the first of them: [test id, training id] each."""

    count: int
    of: int
    shown: list[list[str]]

    @property
    def share(self) -> float:
        """count / of, 0 where there is none."""
        return self.count / max(1, self.of)


@dataclass(frozen=True)
class Contamination:
    """What the split `test` shares with the split `train`, by kind (see the keys of `found`).

    A test query or document counts once, under the first kind that it is of: the same id, the same text, nearly it.
    Pairs are counted besides.
    """

    collection: str
    train: str
    test: str
    found: dict[str, Shared] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether no test query, nor nearly one, is among the training queries; shared documents are no secret."""
        return not any(self.found[kind].count for kind in ("queries", "query_texts", "near_queries"))

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values, shares included."""
        plain = asdict(self)
        for kind, shared in self.found.items():
            plain["found"][kind]["share"] = shared.share
        return plain

    def notes(self) -> list[str]:
        """What was found, a line each; one line where nothing was."""
        lines = [
            f"{self.train} -> {self.test}: {shared.count:,} of {shared.of:,} ({shared.share:.1%}) {_TOLD[kind]}"
            + f"; the first: {', '.join(' = '.join(map(repr, dict.fromkeys(pair))) for pair in shared.shown[:2])}"
            for kind, shared in self.found.items()
            if shared.count
        ]
        return lines or [f"{self.train} -> {self.test}: no query and no relevant document is shared"]


def contamination(collection: Collection, train: str, test: str) -> Contamination:
    """What the split `test` of a collection shares with its split `train`."""
    return shared_with(collection, test, pairs_of_split(collection, train))


def shared_with(collection: Collection, test: str, training: Pairs) -> Contamination:
    """What the split `test` of a collection shares with training's pairs; ids count within one collection alone."""
    ours = pairs_of_split(collection, test)
    same = training.ids == collection.digest
    found: dict[str, Shared] = {}
    kinds = (
        ("queries", "query_texts", "near_queries", _QUERY_GRAMS, QUERY_SIMILARITY),
        ("positives", "positive_texts", "near_positives", _DOCUMENT_GRAMS, DOCUMENT_SIMILARITY),
    )
    sides = ((ours.queries, training.queries), (ours.documents, training.documents))
    for (by_id, by_text, near, size, similarity), (test_texts, train_texts) in zip(kinds, sides):
        left, matches = dict(test_texts), {i: i for i in test_texts if same and i in train_texts}
        for kind in (by_id, by_text, near):
            if kind == by_text:
                matches = equal_texts(left, train_texts)
            elif kind == near:
                matches = {i: j for i, (j, _) in nearest(left, train_texts, similarity, size).items()}
            found[kind] = _shared(matches, len(test_texts))
            left = {i: text for i, text in left.items() if i not in matches}
    found["pairs"] = _shared(_pairs(ours, training), sum(map(len, ours.positives.values())))
    return Contamination(collection.name, training.name, test, found)


def pairs_of_split(collection: Collection, split: str, name: str | None = None) -> Pairs:
    """A split's queries with a positive, and those of their positives that are in the corpus."""
    qrels = collection.qrels(split)
    positives = {query: [d for d, grade in judged.items() if grade > 0] for query, judged in qrels.items()}
    return pairs_of_ids(collection, {query: found for query, found in positives.items() if found}, name or split)


def pairs_of_ids(collection: Collection, positives: Mapping[str, Sequence[str]], name: str) -> Pairs:
    """Queries and positives by id; documents that are not in the corpus have no text to compare, and are left out."""
    documents = list(dict.fromkeys(document for found in positives.values() for document in found))
    known = [document for document, row in zip(documents, collection.corpus.find(documents)) if row >= 0]
    texts = dict(zip(known, collection.corpus.get(known)))
    within = {query: [document for document in found if document in texts] for query, found in positives.items()}
    queries = dict(zip(positives, collection.queries.get(list(positives))))
    return Pairs(name, collection.digest, queries, texts, within)


def pairs_of_examples(examples: Examples, name: str, ids: str | None, most: int) -> Pairs:
    """The queries and positives of training examples; of more than `most`, of as many that are spread over all.

    In place of ids that examples do not have there is the number, from 1, of the first with that text.
    """
    numbers: tuple[dict[str, str], dict[str, str]] = ({}, {})
    chosen = np.unique(np.linspace(0, len(examples) - 1, min(most, len(examples))).round().astype(np.int64))
    queries, documents = {}, {}
    positives: dict[str, dict[str, None]] = {}
    for index in chosen.tolist():
        example = examples.sample(index, np.random.default_rng(0), 0)
        query, document = example.query_id, (example.document_ids or (None,))[0]
        if query is None or document is None:
            texts = (example.query, example.documents[0])
            query, document = (known.setdefault(text, f"{index + 1}") for known, text in zip(numbers, texts))
        queries[query], documents[document] = example.query, example.documents[0]
        positives.setdefault(query, {})[document] = None
    return Pairs(name, ids, queries, documents, {query: list(found) for query, found in positives.items()})


def normalised(text: str) -> str:
    """A text's words in order: equal for texts that differ in case, punctuation and blanks alone."""
    return " ".join(_WORD.findall(text.lower()))


def equal_texts(test: Mapping[str, str], train: Mapping[str, str]) -> dict[str, str]:
    """Test id -> the first training id of the same words; texts without a word are like no other."""
    known: dict[str, str] = {}
    for i, text in train.items():
        known.setdefault(normalised(text), i)
    matches = {i: known.get(words) for i, text in test.items() if (words := normalised(text))}
    return {i: j for i, j in matches.items() if j is not None}


def nearest(
    test: Mapping[str, str], train: Mapping[str, str], similarity: float, size: int
) -> dict[str, tuple[str, float]]:
    """Test id -> the training id with the largest Jaccard of word n-grams (n = size), where that is >= similarity.

    Of several equally near the first. A text shorter than n words is one n-gram; one without words is like no other.
    """
    vocabulary: dict[str, int] = {}
    ids = list(test)
    ours = [_grams(test[i], size, vocabulary) for i in ids]
    index = _index(ours, similarity)
    best: dict[int, tuple[str, float]] = {}
    for i, text in train.items() if index else ():
        one = _grams(text, size, vocabulary)
        for row in sorted({row for gram in index.keys() & one for row in index[gram]}):
            both = len(one & ours[row])
            found = both / (len(one) + len(ours[row]) - both)
            if found >= similarity and (row not in best or found > best[row][1]):
                best[row] = (i, found)
    return {ids[row]: best[row] for row in sorted(best)}


def _index(sets: Sequence[frozenset[int]], similarity: float) -> dict[int, list[int]]:
    """Gram -> the sets that have it among their rarest; whatever is as near as `similarity` to a set has one of these.

    Such a set shares at least c = ceil(similarity * n) of a set's n grams, so it cannot lack any n - c + 1 of them.
    """
    rarity = Counter(gram for one in sets for gram in one)
    index: dict[int, list[int]] = defaultdict(list)
    for row, one in enumerate(sets):
        # Less a little, so that a product a hair above a whole number asks for no more than that.
        shared = math.ceil(similarity * len(one) - 1e-9)
        for gram in sorted(one, key=lambda gram: (rarity[gram], gram))[: len(one) - shared + 1]:
            index[gram].append(row)
    return index


def _pairs(ours: Pairs, theirs: Pairs) -> dict[str, str]:
    """ "query / document" of the test -> the same of training, for pairs with the same words."""

    def pairs(side: Pairs) -> dict[str, tuple[str, str]]:
        words = {i: normalised(text) for i, text in side.queries.items()}
        bodies = {i: normalised(text) for i, text in side.documents.items()}
        return {f"{q} / {d}": (words[q], bodies[d]) for q, found in side.positives.items() for d in found}

    known: dict[tuple[str, str], str] = {}
    for name, pair in pairs(theirs).items():
        known.setdefault(pair, name)
    return {name: known[pair] for name, pair in pairs(ours).items() if pair in known}


def _shared(matches: Mapping[str, str], of: int) -> Shared:
    return Shared(len(matches), of, [[i, j] for i, j in list(matches.items())[:_SHOWN]])


def _grams(text: str, size: int, vocabulary: dict[str, int]) -> frozenset[int]:
    return frozenset(grams(text, size, vocabulary).tolist()) if _WORD.search(text) else frozenset()
