"""Which passages these are, in Stanford's directories: by our ids.json, or by RAGatouille's pid_docid_map.json.

Ours has an id a passage, in order. RAGatouille's has a document a passage, and one that it cut stands there several
times: then all passages are numbered, the n-th of document D as `D#n`, as an index of passages has them
(index/by_document.py).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from colbert_lab.errors import ArtifactError, DataError

IDS = "ids.json"
RAGATOUILLE_IDS = "pid_docid_map.json"
# In the metadata of an index of passages that we wrote.
OF_PASSAGES = "colbert_lab_passages"


def ragatouille_ids(
    by_number: Mapping[str, object], passages: int, removed: np.ndarray, file: Path
) -> tuple[list[str], int]:
    """The ids of so many passages by the content of RAGatouille's `file`, and how many documents are several passages.

    `removed` are the numbers of passages that do not count any more: RAGatouille forgets their documents, and their ids
    are "". ArtifactError where the file lacks any other.
    """
    named = {number: str(by_number[str(number)]) for number in range(passages) if str(number) in by_number}
    forgotten = set(removed.tolist())
    absent = [number for number in range(passages) if number not in named and number not in forgotten]
    if absent:
        raise ArtifactError(f"{file}: lacks {len(absent)} passages, {absent[0]} is the first")
    split = sum(count > 1 for count in Counter(named.values()).values())
    if not split:
        return [named.get(number, "") for number in range(passages)], 0
    seen: Counter[str] = Counter()
    ids = []
    for number in range(passages):
        document = named.get(number)
        ids.append("" if document is None else f"{document}#{seen[document]}")
        seen[document] += 1
    return ids, split


def refuse_repeated(ids: Sequence[str], removed: np.ndarray, source: str | Path) -> None:
    """DataError where two passages, removed ones aside, have the same id."""
    gone = set(removed.tolist())
    repeated = [i for i, count in Counter(one for n, one in enumerate(ids) if n not in gone).items() if count > 1]
    if repeated:
        raise DataError(f"{source}: {repeated[0]!r} is the id of several passages")
