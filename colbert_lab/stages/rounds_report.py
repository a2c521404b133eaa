"""What the rounds gave: a table a split, each round against the one before, what was mined, and a plot."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from colbert_lab.artifact import Artifact, Builder
from colbert_lab.data.collection import Collection, Qrels
from colbert_lab.evaluation.comparison import Compared, chain
from colbert_lab.evaluation.metrics import Evaluation
from colbert_lab.stages.comparison.table import head
from colbert_lab.stages.evaluate import evaluated, judge
from colbert_lab.stages.making import Outcome, make
from colbert_lab.stages.report import report_of, report_path
from colbert_lab.stages.rerank import read_run
from colbert_lab.stages.rounds_checks import headline
from colbert_lab.tracking.names import leaf
from colbert_lab.tracking.read import seconds, state, summary
from colbert_lab.tracking.tracker import Tracker

# What is told of a round's making, in the order of the making: artifact's kind -> its counts.
_TOLD = {
    "candidates": ("queries", "positives", "positives_not_found", "pairs"),
    "tuples": ("queries", "positives", "relabelled"),
}


@dataclass(frozen=True)
class System:
    """One line of the tables: its name, its runs by split, whether it is a round's model, or re-ranks another's run."""

    name: str
    runs: Mapping[str, Artifact]
    is_round: bool = False
    reranks: bool = False


def conclude(
    cfg: DictConfig,
    collection: Collection,
    judgements: Mapping[str, Qrels],
    systems: list[System],
    made: Mapping[str, Artifact],
    left_out: Sequence[str] = (),
) -> Outcome:
    """Judge all systems on every split of `judgements`; the best round is chosen by dev, or is the last without one.

    The best is every split's headline, so that of the splits test comes last. `left_out` says which systems are not
    among them, and why.
    """
    metric = headline(cfg)
    evaluations: dict[str, dict[str, Evaluation]] = {}
    metrics: dict[str, Artifact] = {}
    rounds = [system.name for system in systems if system.is_round]
    shallow = [system.name for system in systems if system.reranks]
    best, dev = rounds[-1], None
    for split, qrels in judgements.items():
        runs = {system.name: read_run(str(system.runs[split].path)) for system in systems}
        found = evaluations[split] = evaluated(cfg, collection, qrels, runs, shallow)
        # Without dev judgements both names may be one: what judges chooses nothing.
        if split != cfg.splits.test:
            dev, reached = found, {name: found[name].means[metric] for name in rounds}
            best = max(reached, key=reached.get)
        metrics[split] = judge(cfg, collection, split, qrels, runs, found, best, baseline=rounds[0])
    steps = {
        split: chain({name: found[name] for name in rounds}, cfg.evaluate.test, cfg.seed)
        for split, found in evaluations.items()
    }
    text = _text(metrics, steps, made, left_out, best, bool(dev), cfg)
    inputs = {f"metrics_{split}": one for split, one in metrics.items()}
    inputs |= {label.replace(" ", "_"): one for label, one in made.items()}

    def work(builder: Builder, tracker: Tracker) -> None:
        from colbert_lab.report.plots import by_round

        told = {
            "best": best,
            "chosen_by": "dev" if dev else "the last",
            "metric": metric,
            "left_out": list(left_out),
            "means": {s: {name: e.means for name, e in found.items()} for s, found in evaluations.items()},
            "steps": {split: [_step(one) for one in found] for split, found in steps.items()},
            "made": {label: one.manifest["counts"] for label, one in made.items() if one.kind in _TOLD},
        }
        (builder.path / "rounds.json").write_text(json.dumps(told, indent=1))
        (builder.path / "table.txt").write_text(text)
        for split, found in evaluations.items():
            # What re-ranks few documents has no value in a metric that looks deeper.
            means = {name: e.means[metric] for name, e in found.items() if metric in e.means}
            by_round(builder.path / f"{metric}-{split}.svg", means, rounds, f"{collection.name} {split}", head(metric))
        tracker.summary({"objective": (dev or evaluations[cfg.splits.test])[best].means[metric], "round/best": best})
        for number, name in enumerate(rounds):
            for split, found in evaluations.items():
                tracker.log({f"round/{leaf(split)}_{m}": v for m, v in found[name].means.items()}, number, "round")

    name = f"{collection.name.replace('/', '-')}-{cfg.name}"
    content = {"rounds": cfg.rounds, "seed": cfg.seed, **({"left_out": list(left_out)} if left_out else {})}
    report = make(cfg, "rounds", "rounds", name, inputs, content, work, cfg.run_dir)
    test = evaluations[cfg.splits.test][best].means
    figures = {f"{cfg.splits.test}_{name}": value for name, value in test.items()}
    objective = dev[best].means[metric] if dev else None
    title = f"Rounds on {collection.name}: {cfg.name}"
    page = report_of([report.path], report_path(Path(cfg.root), report.path.name), title)
    told = f"{text}\n{_costs(made)}\n{report.path}\nreport: {page}"
    return Outcome(report, told, objective, f"dev_{metric}", figures)


def _text(
    metrics: Mapping[str, Artifact],
    steps: Mapping[str, list[Compared]],
    made: Mapping[str, Artifact],
    left_out: Sequence[str],
    best: str,
    chosen: bool,
    cfg: DictConfig,
) -> str:
    parts = [(one.path / "table.txt").read_text() for one in metrics.values()]
    if left_out:
        parts.append("\n".join(left_out) + "\n")
    parts.append("each round against the one before (" + cfg.evaluate.test + ", p by Holm over the rounds)\n")
    for split, found in steps.items():
        parts += [
            f"  {split:<6} {one.system} against {one.baseline}: {one.metric} {one.test.mean_difference:+.4f}, "
            f"p = {one.p:.4f}, {one.test.wins} won, {one.test.ties} tied, {one.test.losses} lost"
            for one in found
            if one.metric in (headline(cfg), "ndcg_10", "mrr_10", "recall_100")
        ]
    if not any(steps.values()):
        parts.append("  there is only one")
    parts.append("\nwhat was mined\n")
    for label, one in made.items():
        if one.kind in _TOLD:
            counts = one.manifest["counts"]
            least, median, most = counts["negatives_per_query"]
            shown = [f"{counts[name]:,} {name.replace('_', ' ')}" for name in _TOLD[one.kind]]
            shown.append(f"negatives {least} to {most}, median {median}")
            shown += [
                f"{lost['total']:,} dropped as {reason.replace('_', ' ')}"
                for reason, lost in counts["dropped"].items()
                if lost["total"]
            ]
            if counts.get("contaminated_test_queries"):
                shown.append(f"{counts['contaminated_test_queries']:,} of the queries are test queries too")
            parts.append(f"  {label}: {', '.join(shown)}")
    kept = [label for label, one in made.items() if one.manifest["counts"].get("dev", {}).get("step") == 0]
    if kept:
        parts.append(
            "\nno weights were better on the sample of dev than those it began with, which it keeps: " + ", ".join(kept)
        )
    parts.append(
        f"\nbest by dev {head(headline(cfg))}: {best}" if chosen else f"\nno dev split: the last, {best}, is the result"
    )
    return "\n".join(parts) + "\n"


def _costs(made: Mapping[str, Artifact]) -> str:
    """Seconds of the steps, over all their starts, and pairs scored anew, by the last start, to which what those before
    it scored is known; no part of the result: no two runs agree.
    """
    # What serves several steps was made once.
    labels: dict[Path, list[str]] = {}
    for label, one in made.items():
        labels.setdefault(one.path, []).append(label)
    taken = {path: seconds(path / "log") for path in labels}
    lines = [f"what it cost: {sum(taken.values()):,.0f} s; of it"]
    for path, (label, *others) in labels.items():
        known, pairs = summary(path / "log"), ""
        if "score/scored" in known:
            starts = len(state(path / "log")["segments"])
            last, it = (f" by the last of {starts} starts", " it") if starts > 1 else ("", "")
            pairs = f", {known['score/scored']:,} pairs scored{last}, {known['score/cached']:,} known before{it}"
        if taken[path] >= 1 or pairs:
            also = f" (and {', '.join(others)})" if others else ""
            lines.append(f"  {label}{also}: {taken[path]:,.0f} s{pairs}")
    return "\n".join(lines)


def _step(one: Compared) -> dict[str, Any]:
    facts = {"system": one.system, "baseline": one.baseline, "metric": one.metric, "p": one.p, "p_alone": one.test.p}
    return facts | {"difference": one.test.mean_difference, "low": one.test.low, "high": one.test.high}
