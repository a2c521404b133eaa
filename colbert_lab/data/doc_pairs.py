"""Examples out of the docpairs of an ir_datasets set: query, relevant and less relevant document, by id."""

import hashlib
from array import array
from itertools import islice
from typing import Any

import numpy as np

from colbert_lab.artifact import hash_json
from colbert_lab.data.collection import Collection, Qrels
from colbert_lab.data.examples import Example, choose, texts_of
from colbert_lab.data.ir_datasets import read
from colbert_lab.errors import DataError


class DocPairs:
    """One example for each docpair of the ir_datasets set `id`, whose ids are those of `collection`.

    Rows are kept, 24 bytes a pair. `qrels`, where given, add to the known positives of a query. DataError, with the
    number of the pair, for an unknown id; for a set without docpairs, and one whose files cannot be had.
    """

    limit = 1

    def __init__(self, collection: Collection, id: str, qrels: Qrels | None = None):
        self._collection = collection
        self._qrels = qrels or {}
        self._id = id
        rows, pairs = array("q"), read(id, "docpairs")
        while batch := list(islice(pairs, 4096)):
            rows.frombytes(_rows(collection, id, batch).tobytes())
        if not rows:
            raise DataError(f"the ir_datasets set {id!r} has no docpairs in it")
        self._rows = np.frombuffer(rows, dtype=np.int64).reshape(-1, 3)
        positives = sorted(
            (q, sorted(d for d, grade in judged.items() if grade > 0)) for q, judged in self._qrels.items()
        )
        content = hashlib.sha256(self._rows.tobytes()).hexdigest()
        self.fingerprint = hash_json(["docpairs", collection.digest, content, positives])

    def __len__(self) -> int:
        return len(self._rows)

    def sample(self, index: int, rng: np.random.Generator, negatives: int) -> Example:
        """Pair number `index` from 0; 0 or 1 negatives."""
        taken = choose(1, negatives, rng, f"{self._id} docpairs:{index + 1}", "first")
        query, rows = int(self._rows[index, 0]), self._rows[index, 1 : 2 + len(taken)]
        corpus, query_id = self._collection.corpus, self._collection.queries.id(query)
        ids = tuple(corpus.ids(rows))
        judged = self._qrels.get(query_id, {})
        known = frozenset([ids[0], *(document for document, grade in judged.items() if grade > 0)])
        return Example(
            query=self._collection.queries[[query]][0],
            documents=tuple(corpus[rows]),
            query_id=query_id,
            document_ids=ids,
            scores=None,
            known_positives=known,
            known_texts=texts_of(corpus, known),
        )

    def describe(self) -> dict[str, Any]:
        """The set's id and the number of pairs."""
        return {"id": self._id, "examples": len(self)}


def _rows(collection: Collection, id: str, batch: list[tuple[int, Any]]) -> np.ndarray:
    columns = []
    for texts, field in (
        (collection.queries, "query_id"),
        (collection.corpus, "doc_id_a"),
        (collection.corpus, "doc_id_b"),
    ):
        ids = [str(getattr(pair, field)) for _, pair in batch]
        columns.append(texts.find(ids))
        if (columns[-1] < 0).any():
            first = int((columns[-1] < 0).argmax())
            raise DataError(f"{id} docpairs:{batch[first][0]}: {ids[first]!r} is no id in {texts.name}")
    return np.stack(columns, axis=1)
