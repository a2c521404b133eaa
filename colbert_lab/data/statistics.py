"""A collection's statistics: what a researcher should have seen before believing a number measured on it."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from colbert_lab.data.collection import Collection
from colbert_lab.data.near_duplicates import first_of_kind
from colbert_lab.data.source import Source
from colbert_lab.data.texts import Texts

# A near duplicate: so many of the word 5-grams of both are shared (Jaccard); looked for among at most so many texts.
SIMILARITY, GRAMS = 0.8, 5
NEAR_LIMIT = 30_000
_SHOWN = 5
_BATCH = 4096
_WORD = re.compile(r"\S+")


def statistics(collection: Collection, near_limit: int = NEAR_LIMIT) -> dict[str, Any]:
    """Documents, queries, and the judgements of every split, as JSON; at most five examples of anything by id."""
    return {
        "collection": collection.name,
        "title": collection.artifact.manifest["config"]["title"],
        "titles": collection.artifact.manifest["counts"]["titles"],
        "documents": texts_statistics(collection.corpus, near_limit),
        "queries": texts_statistics(collection.queries, near_limit),
        "splits": {split: split_statistics(collection, split) for split in collection.splits},
    }


def texts_statistics(texts: Texts, near_limit: int = NEAR_LIMIT) -> dict[str, Any]:
    """Count, first and last ids, empty texts, exact and near duplicates, and lengths in words.

    duplicates: how many texts repeat another's, an empty one's aside. near_duplicates: how many more resemble one
    before them (see SIMILARITY); None where there are more than `near_limit` texts and this was not looked for.
    """
    count = len(texts)
    words = []
    everything: list[str] | None = [] if count <= near_limit else None
    for first in range(0, count, _BATCH):
        batch = texts[first : first + _BATCH]
        words += [len(_WORD.findall(text)) for text in batch]
        if everything is not None:
            everything += batch
    lengths = np.array(words, dtype=np.int64)
    filled = np.flatnonzero(np.asarray(texts.characters) > 0)
    empty = np.flatnonzero(np.asarray(texts.characters) == 0)
    repeated, originals = _repeated(np.asarray(texts.content)[filled])
    near = None
    if everything is not None:
        distinct = np.delete(filled, repeated)
        keep = first_of_kind([everything[row] for row in distinct], GRAMS, SIMILARITY)
        near = {"count": len(keep) - sum(keep), "shown": texts.ids(distinct[~np.array(keep, dtype=bool)][:_SHOWN])}
    ends = [0, *([count - 1] if count > 1 else [])] if count else []
    return {
        "count": count,
        "first_and_last": texts.ids(ends),
        "empty": {"count": len(empty), "shown": texts.ids(empty[:_SHOWN])},
        "duplicates": {
            "count": len(repeated),
            "shown": [texts.ids([filled[a], filled[b]]) for a, b in zip(originals[:_SHOWN], repeated[:_SHOWN])],
        },
        "near_duplicates": near,
        "words": lengths_statistics(lengths),
    }


def split_statistics(collection: Collection, split: str) -> dict[str, Any]:
    """Queries and judgements of a split: positives a query, grades, queries without one, unknown documents."""
    qrels = collection.qrels(split)
    positives = {query: [d for d, grade in judged.items() if grade > 0] for query, judged in qrels.items()}
    judged = list(dict.fromkeys(document for documents in qrels.values() for document in documents))
    unknown = [document for document, row in zip(judged, collection.corpus.find(judged)) if row < 0]
    missing = set(unknown)
    without = [query for query, found in positives.items() if not found]
    lost = [query for query, found in positives.items() if found and missing.issuperset(found)]
    counts = [len(found) for found in positives.values() if found]
    ids = list(qrels)
    return {
        "queries": len(qrels),
        "first_and_last": [*ids[:1], *ids[1:][-1:]],
        "judgements": sum(map(len, qrels.values())),
        "grades": dict(sorted(Counter(str(g) for j in qrels.values() for g in j.values()).items())),
        "positives_per_query": float(np.mean(counts)) if counts else 0.0,
        "without_positive": {"count": len(without), "shown": without[:_SHOWN]},
        "unknown_documents": {
            "count": sum(document in missing for j in qrels.values() for document in j),
            "shown": unknown[:_SHOWN],
        },
        "positives_all_unknown": {"count": len(lost), "shown": lost[:_SHOWN]},
    }


def title_only(source: Source) -> dict[str, Any]:
    """Documents of a source with a title and no text: under data.title=drop they would be empty."""
    found = [record.id for record in source.documents() if record.title.strip() and not record.text.strip()]
    return {"count": len(found), "shown": found[:_SHOWN]}


def lengths_statistics(lengths: np.ndarray) -> dict[str, Any]:
    """Mean, quantiles, and how many of these lengths [N] there are by powers of two: 0, 1, 2-3, 4-7, ...

    `bins` are [first, last, count], without the empty ones above the longest.
    """
    if not len(lengths):
        return {"mean": 0.0, "median": 0.0, "p95": 0.0, "max": 0, "total": 0, "bins": []}
    kinds = np.where(lengths > 0, np.floor(np.log2(np.maximum(lengths, 1))).astype(np.int64) + 1, 0)
    counts = np.bincount(kinds)
    return {
        "mean": float(lengths.mean()),
        "median": float(np.median(lengths)),
        "p95": float(np.quantile(lengths, 0.95)),
        "max": int(lengths.max()),
        "total": int(lengths.sum()),
        "bins": [[2 ** (i - 1) if i else 0, 2**i - 1 if i else 0, int(n)] for i, n in enumerate(counts)],
    }


def histogram(bins: Sequence[Sequence[int]], width: int = 40) -> list[str]:
    """Lines of a histogram in text, from the first to the last bin that is not empty; a bar where there is any."""
    filled = [i for i, (*_, count) in enumerate(bins) if count]
    shown = bins[filled[0] : filled[-1] + 1] if filled else []
    most = max((count for *_, count in shown), default=1)
    lines = []
    for first, last, count in shown:
        label = f"{first:,}" if first == last else f"{first:,}-{last:,}"
        bar = "#" * max(round(width * count / most), count > 0)
        lines.append(f"{label:>17}  {bar:<{width}}  {count:,}")
    return lines


def _repeated(content: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of texts that repeat an earlier one, ascending, and the place of the first of each."""
    _, first, kind = np.unique(content, return_index=True, return_inverse=True)
    originals = first[kind]
    repeated = np.flatnonzero(originals != np.arange(len(content)))
    return repeated, originals[repeated]
