"""Runs made of runs: several fused into one, and a given one without queries among their own results."""

from collections.abc import Sequence

from omegaconf import DictConfig

from colbert_lab.artifact import Artifact, Builder
from colbert_lab.data.collection import Collection
from colbert_lab.run import Run, write_trec
from colbert_lab.stages.making import make
from colbert_lab.tracking.tracker import Tracker


def fused_run(
    cfg: DictConfig, collection: Collection, parts: Sequence[tuple[Run, Artifact | str]], rrf_k: int
) -> Artifact:
    """The runs by reciprocal rank, each given with what stands for it as an input."""
    from colbert_lab.search.fusion import reciprocal_rank

    def work(builder: Builder, tracker: Tracker) -> None:
        fused = reciprocal_rank([run for run, _ in parts], rrf_k)
        write_trec(fused, builder.path / "run.trec.gz")
        builder.counts.update(queries=len(fused), depth=fused.depth, results=sum(map(len, fused.values())))
        tracker.summary({"search/queries": len(fused)})

    inputs = {"collection": collection.artifact}
    inputs |= {f"run_{i}": given for i, (_, given) in enumerate(parts)}
    return make(cfg, "fuse", "run", _title(cfg, collection), inputs, {"split": cfg.split, "rrf_k": rrf_k}, work)


def run_without_self(cfg: DictConfig, collection: Collection, found: Run, given: Artifact | str) -> Artifact:
    """The run `found` without documents that have their query's id; `given` stands for it as an input."""
    from colbert_lab.evaluation.self_match import without_self

    def work(builder: Builder, tracker: Tracker) -> None:
        kept, dropped = without_self(found)
        write_trec(kept, builder.path / "run.trec.gz")
        results = sum(map(len, kept.values()))
        builder.counts.update(queries=len(kept), depth=kept.depth, results=results, dropped_self=dropped)
        tracker.summary({"search/queries": len(kept)})

    inputs = {"collection": collection.artifact, "run": given}
    return make(cfg, "drop_self", "run", _title(cfg, collection), inputs, {"split": cfg.split}, work)


def _title(cfg: DictConfig, collection: Collection) -> str:
    return f"{collection.name.replace('/', '-')}-{cfg.split}-{cfg.name}"
