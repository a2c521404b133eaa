"""`index=ivfpq`, ColBERTv1's (arXiv 2004.12832, sections 3.4 to 3.6): faiss finds candidates, MaxSim ranks them.

Every query vector brings the documents of its k' nearest token vectors; the union is scored from the stored
embeddings. Beside the files of a store (index/store.py) lies `faiss`, the inverted file as faiss writes it, which is
read into memory at the first search.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch

from colbert_lab.errors import ConfigError
from colbert_lab.index import inverted
from colbert_lab.index.files import Files
from colbert_lab.index.rows import check_search, refuse_repeated
from colbert_lab.index.store import Store, StoreDtype, edit_rows, stage
from colbert_lab.ragged import Ragged
from colbert_lab.run import Hits, Run
from colbert_lab.scoring.kernels import PackedDocuments
from colbert_lab.scoring.maxsim import Similarity

# Results of faiss alive at once: about 64 MB.
_RESULTS = 2**22
# Up to so many hits a query vector a search is widened; beyond, scoring everything costs no more.
_WIDEST = 2**14
_PROBES = 10


@dataclass(frozen=True)
class IvfPqProbe:
    """`probe=ivfpq`: how wide one search is; None is resolved from k at every call.

    probes: partitions a query vector looks into (the paper's 10, P at most). hits: k', the token vectors that it brings
    (the paper's k/2). threads: of faiss and torch in this search; None leaves them as they are.
    """

    probes: int | None = None
    hits: int | None = None
    threads: int | None = None

    def __post_init__(self):
        if found := self.problems(**asdict(self)):
            raise ConfigError([f"{one}\ntry: probe.{one.partition('=')[0]}=null" for one in found], "probe=ivfpq")

    @staticmethod
    def problems(**given: int | None) -> list[str]:
        """What is wrong with these values, in words."""
        return [f"{key}={n} must be at least 1" for key, n in given.items() if n is not None and n < 1]

    def resolved(self, k: int, partitions: int) -> "IvfPqProbe":
        """What it comes to for k results from an index of P partitions."""
        probes = min(self.probes or _PROBES, max(1, partitions))
        return IvfPqProbe(probes, self.hits or (k + 1) // 2, self.threads)


@dataclass(frozen=True)
class IvfPqIndexKind:
    """`index=ivfpq`: P partitions (None: 2^ceil(log2(8 sqrt(n)))), `subvectors` bytes a vector, `sample` training
    vectors a partition; token embeddings in `dtype` for the exact scores. How small collections are: inverted.trained.
    """

    partitions: int | None = None
    subvectors: int = 16
    sample: int = 64
    seed: int = 0
    dtype: StoreDtype = "fp16"
    takes: ClassVar[Literal["embeddings"]] = "embeddings"
    probe: ClassVar[type] = IvfPqProbe

    def __post_init__(self):
        if found := self.problems(**asdict(self)):
            raise ConfigError(found, "index=ivfpq")

    @staticmethod
    def problems(partitions: int | None, subvectors: int, sample: int, seed: int, dtype: str) -> list[str]:
        """What is wrong with these values, in words."""
        found = [] if partitions is None or partitions >= 1 else [f"partitions={partitions} must be at least 1"]
        found += [] if subvectors >= 1 else [f"subvectors={subvectors} must be at least 1"]
        found += [] if sample >= 39 else [f"sample={sample} must be at least 39: k-means needs them for every centroid"]
        found += [] if seed >= 0 else [f"seed={seed} must be at least 0"]
        types = get_args(StoreDtype)
        return found + ([] if dtype in types else [f"dtype={dtype!r} is none of {', '.join(types)}"])

    def writer(self, directory: Path, dim: int, similarity: Similarity) -> "IvfPqWriter":
        """Begin, or go on with, an index; ConfigError where the sub-vectors do not divide the vectors evenly."""
        inverted.load_faiss()
        if dim % self.subvectors:
            fitting = [n for n in range(1, min(dim, 64) + 1) if not dim % n]
            raise ConfigError(
                f"index.subvectors={self.subvectors} does not divide the {dim} dimensions of the vectors\n"
                f"try: index.subvectors=<one of {', '.join(map(str, fitting))}>"
            )
        return IvfPqWriter(directory, {"dim": dim, "similarity": similarity, **asdict(self)})

    def open(self, directory: Path) -> "IvfPqIndex":
        """The finished index in this directory."""
        return IvfPqIndex(directory)


class IvfPqWriter:
    """Stores embeddings as they come; trains and files them all when nothing more comes."""

    def __init__(self, directory: Path, facts: dict[str, Any]):
        self._files = Files.edit(directory, facts)

    @property
    def documents(self) -> int:
        """How many documents are committed."""
        return self._files.rows("ids")

    def append(self, ids: Sequence[str], documents: Ragged) -> None:
        """Add documents with their embeddings and commit them to the disk."""
        if self._files.finished:
            raise ValueError("the index is finished; nothing can be appended")
        stage(self._files, ids, documents)
        self._files.commit()

    def finish(self) -> None:
        """Train on a sample of all vectors and file them; DataError for an id that came twice."""
        if self._files.finished:
            return
        refuse_repeated(self._files.strings("ids"))
        values = Store.of(self._files).embeddings.values
        index, facts = _trained(self._files, inverted.Vectors(range(len(values)), values))
        self._files.replace("faiss", None if index is None else inverted.to_bytes(index))
        self._files.commit(finished=True, lists=facts)


class IvfPqIndex:
    """Candidates from an inverted file, exact MaxSim over the store.

    Added vectors are filed under the centroids there are, and compressed by the quantiser there is; how far they lie
    from the centroids, beside those trained on, stands in `stats`. When an index holds twice the vectors that it was
    trained for, it is trained anew. Stale centroids cost candidates alone: whatever is found is scored exactly.
    """

    def __init__(self, directory: Path):
        self._directory = directory
        self._load()

    def _load(self) -> None:
        self._store = Store.open(self._directory)
        self.__dict__.pop("_lists", None)
        self._packed = PackedDocuments(self._store.embeddings, self._store.facts["similarity"])
        self._offsets = self._store.embeddings.offsets
        # Mapped now: an edit by another takes the file away, and leaves what is mapped.
        self._faiss = self._store.files.array("faiss") if "faiss" in self._store.files else None

    @cached_property
    def _lists(self) -> Any:
        return None if self._faiss is None else inverted.from_bytes(self._faiss)

    @property
    def ids(self) -> list[str]:
        """The documents that it holds."""
        return self._store.rows.ids

    def __len__(self) -> int:
        return len(self._store.rows)

    def stats(self) -> dict[str, Any]:
        """Documents, vectors, bytes of all files, what was asked for, what the inverted file came to, how stale it is.

        The last in the words of index/staleness.py, by root mean square distances, since the lists were last trained.
        """
        facts = dict(self._store.facts)
        lists = facts.pop("lists")
        lists = {**lists, **inverted.stale(lists)}
        return {**facts, "asked_partitions": facts["partitions"], **lists, "bytes": self._store.files.bytes()}

    def verify(self) -> None:
        """Read every file; ArtifactError names the first that is not as it was written."""
        self._store.files.verify()

    def embeddings(self, ids: Sequence[str]) -> Ragged:
        """The stored embeddings of these documents; DataError for an id that is not in the index."""
        return self._store.embeddings.select(self._store.rows.of(ids).tolist())

    def scores(self, queries: Ragged, ids: Sequence[str]) -> np.ndarray:
        """MaxSim, fp32 [B, n], of every query and these documents where they lie; DataError for an unknown id."""
        return self._packed.scores(queries, self._store.rows.of(ids))

    def resolved(self, k: int, probe: IvfPqProbe | None = None) -> dict[str, Any]:
        """The parameters that a search for k results has; ConfigError for another index's probe."""
        if probe is not None and not isinstance(probe, IvfPqProbe):
            raise ConfigError(
                f"this index is probed by an IvfPqProbe, {type(probe).__name__} was given\ntry: probe=ivfpq"
            )
        return asdict((probe or IvfPqProbe()).resolved(k, self._store.facts["lists"]["partitions"]))

    def search(
        self,
        query_ids: Sequence[str],
        queries: Ragged,
        k: int,
        only: Sequence[str] | None = None,
        probe: IvfPqProbe | None = None,
    ) -> Run:
        """The best min(k, N) of every query's candidates by exact MaxSim, equal scores by id.

        Where candidates are fewer than that, probes and hits are doubled until they are not, and beyond 2^14 hits a
        query vector everything is scored. Of `only` so many documents as would be candidates anyway are all scored; of
        more, faiss looks at these alone.
        """
        check_search(k, queries, self._store.embeddings.dim, query_ids)
        wide = IvfPqProbe(**self.resolved(k, probe))
        allowed = self._store.rows.allowed(only)
        count = int(allowed.sum())
        results = wide.hits * max(1, int(queries.lengths.max()) if len(queries) else 0)
        few = only is not None and count <= max(k, results)
        among = None if only is None or few else np.repeat(allowed, self._store.embeddings.lengths.numpy())
        hits = []
        with inverted.threads(wide.threads):
            for first in range(0, len(queries), step := max(1, _RESULTS // results)):
                batch = queries[first : first + step]
                if few or self._lists is None:
                    found = [np.flatnonzero(allowed)] * len(batch)
                else:
                    found = self._candidates(batch, wide, among)
                for i, rows in enumerate(found):
                    query = batch[i : i + 1]
                    if len(rows) < min(k, count):
                        rows = self._widened(query, wide, among, allowed, min(k, count))
                    hits.append(self._ranked(query, rows, k))
        return Run(dict(zip(query_ids, hits, strict=True)), depth=k)

    def stages(
        self, query: torch.Tensor, k: int, only: Sequence[str] | None = None, probe: IvfPqProbe | None = None
    ) -> dict[str, list[str]]:
        """The documents left after each stage of a search for one query [m, d]: what the candidates lose.

        `candidates` as the probe brings them, before a search that found too few widens it; `found`, best first.
        """
        one = Ragged(query, torch.tensor([len(query)]))
        allowed = self._store.rows.allowed(only)
        rows = np.flatnonzero(allowed)
        if self._lists is not None:
            wide = IvfPqProbe(**self.resolved(k, probe))
            among = None if only is None else np.repeat(allowed, self._store.embeddings.lengths.numpy())
            with inverted.threads(wide.threads):
                (rows,) = self._candidates(one, wide, among)
        names = self._store.ids
        hits = self.search(["query"], one, k, only, probe)["query"]
        return {"candidates": [names[row] for row in rows], "found": list(hits.ids)}

    def add(self, ids: Sequence[str], documents: Ragged) -> None:
        """Add documents; all are there when it returns, or none. DataError for an id that is there already."""
        self._edit(added=ids, documents=documents)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove documents; what they were stays on the disk, but is found no more. DataError for an unknown id."""
        self._edit(removed=ids)

    def update(self, ids: Sequence[str], documents: Ragged) -> None:
        """Put other embeddings in the place of these documents' own; DataError for an unknown id."""
        self._edit(added=ids, documents=documents, replace=True)

    def _edit(self, removed=(), added=(), documents: Ragged | None = None, replace: bool = False) -> None:
        store = self._store
        with Files.edit(self._directory, seen=store.files) as files:
            edit_rows(files, store.rows, removed, added, replace)
            gone = store.rows.of([*removed, *(added if replace else ())])
            if not len(gone) and not len(added):
                return
            live = store.rows.live.copy()
            live[gone] = False
            kept = np.repeat(live, store.embeddings.lengths.numpy())
            coming = torch.empty(0, store.embeddings.dim)
            if documents is not None:
                stage(files, added, documents)
                coming = documents.values.to(store.embeddings.values.dtype)
            vectors = inverted.Vectors(
                np.concatenate([np.flatnonzero(kept), len(kept) + np.arange(len(coming))]),
                store.embeddings.values,
                coming,
            )
            facts = files.facts["lists"]
            if len(vectors) >= 2 * facts["trained_vectors"]:
                index, facts = _trained(files, vectors)
            else:
                # Its own copy: where the commit fails, the one in use must be as it was.
                index = inverted.from_bytes(store.files.array("faiss"))
                index.remove_ids(np.flatnonzero(~kept))
                if len(coming):
                    values = coming.float().numpy()
                    index.add_with_ids(values, len(kept) + np.arange(len(coming)))
                    facts = inverted.with_added(facts, len(coming), inverted.distance(index, values))
            files.replace("faiss", None if index is None else inverted.to_bytes(index))
            files.commit(lists=facts)
        self._load()

    def _candidates(self, queries: Ragged, wide: IvfPqProbe, among: np.ndarray | None) -> list[np.ndarray]:
        """For every query the rows of the documents that its vectors bring, each once."""
        numbers = inverted.nearest(self._lists, queries.values.float().numpy(), wide.hits, wide.probes, among)
        ends = np.cumsum(queries.lengths.numpy())[:-1]
        return [
            np.unique(np.searchsorted(self._offsets[1:].numpy(), part[part >= 0], side="right"))
            for part in np.split(numbers, ends)
        ]

    def _widened(self, query: Ragged, wide: IvfPqProbe, among: np.ndarray | None, allowed: np.ndarray, need: int):
        while wide.hits < min(_WIDEST, self._lists.ntotal):
            wide = IvfPqProbe(min(2 * wide.probes, self._lists.nlist), 2 * wide.hits)
            (rows,) = self._candidates(query, wide, among)
            if len(rows) >= need:
                return rows
        return np.flatnonzero(allowed)

    def _ranked(self, query: Ragged, rows: np.ndarray, k: int) -> Hits:
        """The k best of these rows by exact MaxSim, scored where they lie."""
        return self._store.rows.best(self._packed.scores(query, rows)[0], rows, k)


def _trained(files: Files, vectors: inverted.Vectors) -> tuple[Any, dict[str, Any]]:
    names = ("dim", "similarity", "partitions", "subvectors", "sample", "seed")
    return inverted.trained(vectors, **{name: files.facts[name] for name in names})
