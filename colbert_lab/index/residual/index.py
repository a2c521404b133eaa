"""A finished residual index: searched, and changed in place."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from colbert_lab.index.files import Files
from colbert_lab.index.residual.build import GAUGED, check_documents, compress, stage_lists, train
from colbert_lab.index.residual.codes import Codes, stage_codec
from colbert_lab.index.residual.probe import ResidualProbe, checked
from colbert_lab.index.residual.search import Found, Searcher
from colbert_lab.index.rows import Rows, check_search
from colbert_lab.index.staleness import staleness
from colbert_lab.index.store import edit_rows
from colbert_lab.ragged import Ragged
from colbert_lab.run import Hits, Run
from colbert_lab.scoring.kernels import maxsim_packed
from colbert_lab.scoring.maxsim import Similarity
from colbert_lab.threads import each

# The loss by edits: how much less of exact search's first ten an index finds of whose documents half were added or
# updated since its centroids were trained, than one built anew finds (overlap@10, default search, 2 or 4 bits). The
# first where the later vectors are of the kind that the centroids were trained on, the second where they are of none
# that was there. Held on clustered random vectors by a test; `stats` tells which of the two an index comes near.
LOSS_LIKE, LOSS_UNLIKE = 0.03, 0.06


class ResidualIndex:
    """ColBERTv2's compressed vectors with inverted lists."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._read()

    def _read(self) -> None:
        self._files = files = Files.open(self._directory)
        self._codes = Codes.of(files)
        self._rows = Rows(files.strings("ids"), files.array("deleted") if "deleted" in files else None)
        self._searcher = Searcher(self._codes, files.array("lists"), files.array("list_bytes"), self._rows)

    @property
    def ids(self) -> list[str]:
        """The documents that it holds."""
        return self._rows.ids

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def similarity(self) -> Similarity:
        """How its vectors are compared."""
        return self._files.facts["similarity"]

    def resolved(self, k: int, probe: ResidualProbe | None = None) -> dict[str, Any]:
        """The parameters that a search for k documents with this probe has; ConfigError for another index's probe."""
        return asdict(self._resolved(k, probe))

    def _resolved(self, k: int, probe: ResidualProbe | None) -> ResidualProbe:
        return checked(probe).resolved(k, self._codes.vectors)

    def embeddings(self, ids: Sequence[str]) -> Ragged:
        """These documents' vectors as the codec gives them back; DataError for an id that is not in the index."""
        return self._codes.decoded(self._rows.of(ids))

    def scores(self, queries: Ragged, ids: Sequence[str]) -> np.ndarray:
        """MaxSim, fp32 [B, n], of every query and these documents, decoded; DataError for an unknown id."""
        return maxsim_packed(queries, self.embeddings(ids), self.similarity).numpy()

    def search(
        self,
        query_ids: Sequence[str],
        queries: Ragged,
        k: int,
        only: Sequence[str] | None = None,
        probe: ResidualProbe | None = None,
    ) -> Run:
        """The best min(k, N) of every query (of `only` these documents), equal scores by id.

        Scores are of the decoded vectors. At least as many queries as threads take one thread each; fewer share them.
        """
        check_search(k, queries, self._codes.codec.dim, query_ids)
        allowed, probe = self._rows.allowed(only), self._resolved(k, probe)
        vectors = [query.float().numpy() for query in queries]
        alone = len(vectors) < probe.threads

        def search_one(query: np.ndarray) -> Hits:
            found = self._searcher.find(query, k, allowed, probe, probe.threads if alone else 1)
            return self._rows.best(self._scores(found, query), found.rows, k)

        hits = each(search_one, vectors, 1 if alone else probe.threads)
        return Run(dict(zip(query_ids, hits, strict=True)), depth=k)

    def stages(
        self, query: torch.Tensor, k: int, only: Sequence[str] | None = None, probe: ResidualProbe | None = None
    ) -> dict[str, list[str]]:
        """The documents that are left after each stage of a search for one query [m, d]: what each of them loses.

        `candidates`, then `refined` (the best of them by their centroids), then `found` (min(k, N), best first).
        """
        check_search(k, Ragged(query, torch.tensor([len(query)])), self._codes.codec.dim)
        probe, query = self._resolved(k, probe), query.float().numpy()
        found = self._searcher.find(query, k, self._rows.allowed(only), probe, probe.threads)
        hits = self._rows.best(self._scores(found, query), found.rows, k)
        # Whatever is found is live, and Rows keeps the ids of what is.
        names, places = self._rows.ids, np.cumsum(self._rows.live) - 1
        return {
            "candidates": [names[place] for place in places[found.candidates]],
            "refined": [names[place] for place in places[found.rows]],
            "found": list(hits.ids),
        }

    def _scores(self, found: Found, query: np.ndarray) -> np.ndarray:
        if self.similarity == "cosine":
            return found.scores
        # -|q - v|² of unit vectors v; a document without vectors keeps the score that it has.
        squared = 2 * found.scores - (np.square(query).sum(dtype=np.float32) + np.float32(len(query)))
        return np.where(self._codes.empty[found.rows], found.scores, squared)

    def stats(self) -> dict[str, Any]:
        """Documents, vectors, bytes of all files and what they are a stored vector, codec, and how stale centroids are.

        The last in the words of index/staleness.py, by mean distances; vectors of deleted documents count there too.
        """
        facts, lengths = self._files.facts, np.diff(self._codes.offsets)
        stored, size = self._codes.vectors, self._files.bytes()
        added = facts["added_vectors"]
        return {
            "documents": len(self),
            "vectors": int(lengths[self._rows.live].sum()),
            "dim": facts["dim"],
            "similarity": facts["similarity"],
            "codec": facts["codec"],
            "bits": facts["bits"],
            "centroids": self._codes.centroids,
            "bytes": size,
            "bytes_per_vector": size / max(1, stored),
            "deleted_documents": int((~self._rows.live).sum()),
            **staleness(stored - added, added, facts["distance"], facts["added_distance"]),
        }

    def verify(self) -> None:
        """Read every file; ArtifactError names the first that is not as it was written."""
        self._files.verify()

    def add(self, ids: Sequence[str], documents: Ragged) -> None:
        """Add documents, compressed with the standing codec; all are there when it returns, or none.

        What that loses beside an index built anew: LOSS_LIKE, LOSS_UNLIKE. An index without any vector yet loses
        nothing: its codec is trained on theirs, as if it were built of them. DataError for an id that is there already.
        """
        self._edit(added=ids, documents=documents)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove documents from every later search; their codes stay on the disk. DataError for an unknown id."""
        self._edit(removed=ids)

    def update(self, ids: Sequence[str], documents: Ragged) -> None:
        """Put other embeddings in these documents' place, at the loss that `add` has; DataError for an unknown id."""
        self._edit(added=ids, documents=documents, replace=True)

    def _edit(self, removed=(), added=(), documents: Ragged | None = None, replace: bool = False) -> None:
        with Files.edit(self._directory, seen=self._files) as files:
            edit_rows(files, self._rows, removed, added, replace)
            facts = self._stage(files, added, documents) if documents is not None else {}
            files.commit(**facts)
        self._read()

    def _stage(self, files: Files, ids: Sequence[str], documents: Ragged) -> dict[str, Any]:
        """Stage documents and all the lists; the facts that change with them."""
        check_documents(files.facts, ids, documents)
        # As the build does: through 16 bits.
        vectors, lengths = documents.values.half(), documents.lengths.numpy().astype(np.int32)
        facts, codec, begun = files.facts, self._codes.codec, not self._codes.vectors and "stanford" not in files.facts
        if begun and len(vectors):
            # A codec that was trained on no vector would stand for none of them, and nothing is stored in it. The array
            # of centroids' numbers is there already, of 16 bits.
            codec = train(facts, vectors.numpy(), lengths, 2**16)
            stage_codec(files, codec)
        chunk = compress(vectors.float(), codec, GAUGED if begun else 1)
        chunk.stage(files)
        files.append("lengths", lengths)
        files.append_strings("ids", ids)
        codes = np.concatenate([self._codes.codes, chunk.codes])
        stage_lists(files, codes, np.concatenate([files.array("lengths"), lengths]), len(codec.centroids))
        if begun:
            return {"distance": chunk.distance}
        before, more = facts["added_vectors"], len(chunk.codes)
        mean = (facts["added_distance"] * before + chunk.distance * more) / max(1, before + more)
        return {"added_vectors": before + more, "added_distance": mean}
