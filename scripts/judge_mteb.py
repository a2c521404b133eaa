"""A checkpoint judged by mteb: its tasks and scores, our vectors and exact search behind mteb's own search interface.

    pip install "mteb>=2.26"
    python scripts/judge_mteb.py --model DIR --task SciFact NFCorpus

Downloads what the tasks need (mteb's affair) and prints a row a task. `Searched` is all that mteb asks of a model that
searches for itself, and can be given to `mteb.evaluate` anywhere; mteb is imported only where it is used.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from colbert_lab.index.exact import ExactIndexKind
from colbert_lab.models.checkpoint import load_model
from colbert_lab.models.colbert import ColBERT
from colbert_lab.models.encoding import encode
from colbert_lab.models.precision import best_device
from colbert_lab.progress import progress

_CHUNK = 1024


class Searched:
    """A ColBERT with exact search, as mteb's SearchProtocol: `mteb_model_meta`, `index`, `search`.

    Each task's index is written below `directory`, which must hold none yet.
    """

    def __init__(self, model: ColBERT, directory: Path, name: str):
        from mteb.models.model_meta import ModelMeta

        self.model, self.directory = model, directory
        self.mteb_model_meta = ModelMeta.create_empty({"name": name, "revision": "local", "framework": ["PyTorch"]})
        self._opened: Any = None

    def index(self, corpus: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, **_: Any) -> None:
        """Encode a corpus of rows with `id`, `text` and perhaps `title`, chunk by chunk."""
        where = self.directory / f"{task_metadata.name}-{hf_subset}-{hf_split}"
        writer = ExactIndexKind().writer(where, self.model.dim, self.model.similarity)
        with progress(task_metadata.name, len(corpus), "documents") as bar:
            for start in range(0, len(corpus), _CHUNK):
                rows = corpus.select(range(start, min(start + _CHUNK, len(corpus))))
                texts = [f"{row.get('title') or ''} {row['text']}".strip() for row in rows]
                writer.append(list(rows["id"]), encode(self.model, texts, "document", bar=bar).embeddings)
        writer.finish()
        self._opened = ExactIndexKind().open(where)

    def search(
        self, queries: Any, *, top_k: int, top_ranked: Mapping[str, Sequence[str]] | None = None, **_: Any
    ) -> dict[str, dict[str, float]]:
        """The best top_k documents of each query; of `top_ranked[query]` alone in a task that re-ranks."""
        vectors = encode(self.model, list(queries["text"]), "query").embeddings
        ids = list(queries["id"])
        if top_ranked is None:
            found = self._opened.search(ids, vectors, top_k)
            return {query: dict(found[query]) for query in ids}
        answers = {}
        for row, query in enumerate(ids):
            hits = self._opened.search([query], vectors.select([row]), top_k, only=list(top_ranked[query]))
            answers[query] = dict(hits[query])
        return answers


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a checkpoint's directory")
    parser.add_argument("--task", nargs="+", required=True, help="names of mteb's retrieval or re-ranking tasks")
    given = parser.parse_args(argv)
    try:
        import mteb
    except ImportError:
        print('mteb is not installed: pip install "mteb>=2.26"', file=sys.stderr)
        return 2
    model = load_model(given.model).to(best_device()).eval()
    with tempfile.TemporaryDirectory() as folder:
        searched = Searched(model, Path(folder), f"colbert-lab/{given.model.resolve().name}")
        judged = mteb.evaluate(searched, mteb.get_tasks(tasks=given.task), cache=None, co2_tracker=False)
    for result in judged.task_results:
        for split, rows in result.scores.items():
            for row in rows:
                print(f"{result.task_name:24} {split:8} {row['hf_subset']:10} {row['main_score']:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
