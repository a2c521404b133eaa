"""What the tables of a comparison do not say of themselves: what was left out, cut, timed, and not counted."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from colbert_lab.evaluation.metrics import Evaluation
from colbert_lab.stages.comparison.kinds import Bm25, CrossEncoder, EndToEnd, Fusion
from colbert_lab.stages.comparison.made import Made
from colbert_lab.stages.index import passages_of


def notes_of(
    cfg: DictConfig,
    told: Mapping[str, Any],
    made: Sequence[Made],
    evaluations: Mapping[str, Sequence[Evaluation]],
    left_out: Sequence[str],
) -> list[str]:
    """The sentences below the tables of `told` (comparison.json)."""
    costs = {name: one["cost"] for name, one in told["systems"].items() if one["cost"]}
    counts = evaluations[told["baseline"]][0].counts
    level = told["relevance_level"]
    notes = [f"binary metrics count grades of {level} and more as relevant; nDCG has linear gains"]
    if told["corpus"] == "pool":
        notes.append("corpus: pool: these are not all documents, so figures are higher than of the whole collection")
    if counts["without_positives"]:
        notes.append(f"{counts['without_positives']:,} judged queries without a relevant document are left out")
    for name, seeds in evaluations.items():
        if seeds[0].counts["without_results"]:
            notes.append(f"{name}: {seeds[0].counts['without_results']:,} queries found nothing and count 0")
    if costs:
        one = next(iter(costs.values()))
        notes.append(
            f"times: queries one at a time on {one['device']}, {one['threads']} threads, k = {one['k']:,}, first "
            "stages too, of whose results a re-ranker takes its own k; FLOPs: counted while torch ran, products "
            "of compiled kernels added by what they scored"
        )
    if fusions := [one.name for one in made if isinstance(one.system, Fusion)]:
        notes.append(f"{', '.join(fusions)}: the parts are timed one after the other, and share nothing")
    if pq := [one.name for one in made if isinstance(one.system, EndToEnd) and one.system.index == "ivfpq"]:
        notes.append(
            f"{', '.join(pq)}: FLOPs are without faiss's tables of distances, and without what a search that found too "
            "few documents is widened by"
        )
    if passages_of(cfg) is not None:
        notes += _of_passages(cfg, made, costs)
    if any(one["shared_encoding"] for one in costs.values()):
        notes.append("index s: systems whose indexes were built from one encoding have all of its seconds each")
    if without := [name for name, one in costs.items() if one["without_first_stage"]]:
        notes.append(f"{', '.join(without)}: without what the given run took to find")
    if slow := [one["timed"] for one in costs.values() if one["timed"] < one["wanted"]]:
        notes.append(f"a slow system is timed on fewer queries ({min(slow):,}), for {cfg.cost.seconds:g} s")
    if costs and all(one["joules_query"] is None for one in costs.values()):
        notes.append(f"energy is not known: {next(iter(costs.values()))['energy']['reason']}")
    return [*notes, *told["truncation"]["notes"], *told["guards"]["notes"], *left_out]


def _of_passages(cfg: DictConfig, made: Sequence[Made], costs: Mapping[str, Any]) -> list[str]:
    """Which systems read whole documents though passages were asked for, and whose operations are not known."""
    notes = []
    if whole := [one.name for one in made if isinstance(one.system, CrossEncoder)]:
        notes.append(f"{', '.join(whole)}: reads whole documents, as far as the pair's length goes, and no passages")
    if cfg.passages.length == "model" and (words := [one.name for one in made if isinstance(one.system, Bm25)]):
        notes.append(f"{', '.join(words)}: reads whole documents, since passages.length=model is a model's own")
    if unknown := [name for name, one in costs.items() if one["flops_query"] is None]:
        notes.append(f"{', '.join(unknown)}: FLOPs are not known of passages behind a pruning index")
    return notes
