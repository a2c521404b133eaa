"""BM25 runs, kept as artifacts: for negatives, and as a baseline."""

import json
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig

from colbert_lab.artifact import Artifact, Builder
from colbert_lab.data.collection import Collection
from colbert_lab.stages.making import make
from colbert_lab.tracking.tracker import Tracker

# As Anserini has them for passages.
K1, B = 0.9, 0.4


def lexical_run(cfg: DictConfig, collection: Collection, split: str, queries: Sequence[str], k: int) -> Artifact:
    """The BM25 run of these queries to depth k; as cfg.search.drop_self says, without what has the query's own id."""
    from colbert_lab.artifact import hash_json

    content = {"split": split, "queries": hash_json(list(queries)), "k": k, "k1": K1, "b": B}
    # A verb that does not search has no such section.
    drop_self = bool(cfg.get("search") and cfg.search.drop_self)
    if drop_self:
        content["drop_self"] = True

    def work(builder: Builder, tracker: Tracker) -> None:
        from colbert_lab.evaluation.self_match import without_self
        from colbert_lab.run import write_trec

        run = bm25_of(collection, content["k1"], content["b"]).search(
            list(queries), collection.queries.get(list(queries)), k + drop_self
        )
        if drop_self:
            run, dropped = without_self(run)
            run = run.cut(k)
            builder.counts["dropped_self"] = dropped
        write_trec(run, builder.path / "run.trec.gz", tag="bm25")
        builder.counts.update(queries=len(run), depth=k, results=sum(map(len, run.values())))
        tracker.summary({"search/queries": len(run)})

    inputs = {"collection": collection.artifact}
    return make(cfg, "bm25", "run", f"{collection.name.replace('/', '-')}-{split}-bm25", inputs, content, work)


def lexical_teacher(cfg: DictConfig, collection: Collection) -> Artifact:
    """BM25 over this collection as a teacher of any pair: its parameters; the index is made when it is used."""
    content = {"k1": K1, "b": B}

    def work(builder: Builder, tracker: Tracker) -> None:
        (builder.path / "bm25.json").write_text(json.dumps({**content, "collection": collection.digest}))

    inputs = {"collection": collection.artifact}
    return make(cfg, "bm25_teacher", "bm25", f"{collection.name.replace('/', '-')}-bm25", inputs, content, work)


def bm25_of(collection: Collection, k1: float, b: float) -> Any:
    """BM25 over all documents of the collection."""
    from colbert_lab.search.bm25 import Bm25

    corpus = collection.corpus
    texts = (text for start in range(0, len(corpus), 4096) for text in corpus[start : start + 4096])
    return Bm25(corpus.all_ids(), texts, k1, b)
