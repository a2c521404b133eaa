"""BM25 runs, kept as artifacts: for negatives, and as a baseline."""

from collections.abc import Sequence

from omegaconf import DictConfig

from colbert_lab.artifact import Artifact, Builder
from colbert_lab.data.collection import Collection
from colbert_lab.stages.making import make
from colbert_lab.tracking.tracker import Tracker


def lexical_run(cfg: DictConfig, collection: Collection, split: str, queries: Sequence[str], k: int) -> Artifact:
    """The BM25 run of these queries to depth k."""
    from colbert_lab.artifact import hash_json

    content = {"split": split, "queries": hash_json(list(queries)), "k": k, "k1": 0.9, "b": 0.4}

    def work(builder: Builder, tracker: Tracker) -> None:
        from colbert_lab.run import write_trec
        from colbert_lab.search.bm25 import Bm25

        corpus = collection.corpus
        bm25 = Bm25(
            corpus.all_ids(),
            (text for start in range(0, len(corpus), 4096) for text in corpus[start : start + 4096]),
            content["k1"],
            content["b"],
        )
        run = bm25.search(list(queries), collection.queries.get(list(queries)), k)
        write_trec(run, builder.path / "run.trec.gz", tag="bm25")
        builder.counts.update(queries=len(run), depth=k, results=sum(map(len, run.values())))
        tracker.summary({"search/queries": len(run)})

    inputs = {"collection": collection.artifact}
    return make(cfg, "bm25", "run", f"{collection.name.replace('/', '-')}-{split}-bm25", inputs, content, work)
