"""Truncation: how many texts a model's lengths cut, and the share of their tokens that is lost."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from colbert_lab.data.collection import Collection
from colbert_lab.data.texts import Texts
from colbert_lab.text.tokenizer import ColBERTTokenizer, Role

# Of a larger corpus so many documents are counted, evenly spread over it.
SAMPLE = 100_000
_BATCH = 1000


def truncation(collection: Collection, tokenizer: ColBERTTokenizer, split: str, sample: int = SAMPLE) -> dict[str, Any]:
    """What the model's contract cuts of the corpus and of a split's queries, as JSON.

    documents, queries: how many are cut; documents_of, queries_of: of how many that were counted (at most `sample`
    documents); documents_share_lost, queries_share_lost: the share of all their ids, special ones left out, that no
    vector stands for; document_length, query_length: the contract's.
    """
    rows = spread(len(collection.corpus), sample)
    queries = collection.queries.rows(list(collection.qrels(split)))
    counts: dict[Role, np.ndarray] = {
        "document": content_ids(tokenizer, collection.corpus, rows),
        "query": content_ids(tokenizer, collection.queries, queries),
    }
    found: dict[str, Any] = {}
    for what, role in (("documents", "document"), ("queries", "query")):
        lost = cut(counts[role], tokenizer, role)
        found |= {what: lost["cut"], f"{what}_of": lost["of"], f"{what}_share_lost": lost["share_lost"]}
        found[f"{role}_length"] = lost["length"]
    return found


def cut(ids: np.ndarray, tokenizer: ColBERTTokenizer, role: Role) -> dict[str, Any]:
    """Of texts with so many content ids [N]: how many are cut, of how many, the share of ids lost, at which length."""
    lost = np.maximum(ids - room(tokenizer, role), 0)
    return {
        "cut": int((lost > 0).sum()),
        "of": len(ids),
        "share_lost": float(lost.sum() / max(1, ids.sum())),
        "length": length_of(tokenizer, role),
    }


def content_ids(tokenizer: ColBERTTokenizer, texts: Texts, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """How many ids [N] the texts of these rows have, uncut and without special ones."""
    found = (len(ids) for batch in _batches(texts, rows) for ids in _encoded(tokenizer, batch))
    return np.fromiter(found, dtype=np.int64)


def room(tokenizer: ColBERTTokenizer, role: Role) -> int:
    """Content ids that the contract's length leaves room for beside the special ones."""
    marker = tokenizer.query_marker if role == "query" else tokenizer.document_marker
    return length_of(tokenizer, role) - len(tokenizer.prefix) - len(marker) - len(tokenizer.suffix)


def length_of(tokenizer: ColBERTTokenizer, role: Role) -> int:
    """The contract's length of a query or a document, special ids included."""
    contract = tokenizer.contract
    return contract.query_length if role == "query" else contract.document_length


def spread(count: int, sample: int) -> np.ndarray:
    """At most `sample` of the rows 0 to count - 1, evenly spread, ascending."""
    return np.arange(count) if count <= sample else np.arange(sample) * count // sample


def _encoded(tokenizer: ColBERTTokenizer, texts: list[str]) -> list[list[int]]:
    options = {"add_special_tokens": False, "truncation": False, "verbose": False}
    return tokenizer.tokenizer(texts, return_attention_mask=False, return_token_type_ids=False, **options)["input_ids"]


def _batches(texts: Texts, rows: Sequence[int] | np.ndarray) -> Iterator[list[str]]:
    for first in range(0, len(rows), _BATCH):
        yield texts[rows[first : first + _BATCH]]
