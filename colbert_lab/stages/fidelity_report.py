"""What the measured settings come to: tables, best first, with the fronts marked, and a plot of each front."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from colbert_lab.artifact import Artifact, Builder
from colbert_lab.data.collection import Collection
from colbert_lab.evaluation.fidelity import pareto
from colbert_lab.evaluation.significance import holm
from colbert_lab.report.pareto import Point, pareto_plot
from colbert_lab.stages.fidelity_grid import Setting
from colbert_lab.stages.making import Outcome, make
from colbert_lab.tracking.tracker import Tracker

Row = dict[str, Any]
# Costs: name -> where a row has it, what it is called in a plot, its mark in the table.
_COSTS = {
    "latency": (lambda row: row["latency"]["search"]["p50"], "ms a query (p50, without encoding it)", "t"),
    "bytes": (lambda row: row["index"]["bytes_per_vector"], "bytes a token vector", "b"),
}


def conclude(cfg: DictConfig, collection: Collection, k: int, measured: Sequence[tuple[Setting, Artifact]]) -> Outcome:
    """The report over measurements of settings, of which the first is the exact twin's."""
    quality = cfg.fidelity.quality
    rows = [_row(setting, artifact) for setting, artifact in measured]
    _correct(rows)
    for name, (cost, _, _) in _COSTS.items():
        for row, on in zip(rows, pareto([r["figures"][quality] for r in rows], [cost(r) for r in rows]), strict=True):
            row["front"][name] = on
    ranked = sorted(rows, key=lambda row: (-row["figures"][quality], row["latency"]["search"]["p50"]))
    chosen = next((row for row in ranked if row is not rows[0]), rows[0])
    best = chosen["figures"]
    head = f"{collection.name} {cfg.split}, {rows[0]['queries']:,} queries, k = {k}"
    text = _text(head, ranked, quality, cfg)

    def work(builder: Builder, tracker: Tracker) -> None:
        told = {"split": cfg.split, "collection": collection.name, "k": k, "quality": quality, "settings": ranked}
        (builder.path / "fidelity.json").write_text(json.dumps(told, indent=1))
        (builder.path / "table.txt").write_text(text)
        for name, (cost, called, _) in _COSTS.items():
            points = [
                Point(r["setting"]["series"], r["setting"]["short"], cost(r), r["figures"][quality], r["front"][name])
                for r in ranked
            ]
            pareto_plot(
                builder.path / f"{quality}-{name}.svg",
                points,
                f"{head}, {_threads(rows[0])}",
                called,
                quality.replace("_", "@") + (" with exact MaxSim" if quality.startswith("overlap") else ""),
                _axes(ranked),
            )
        builder.counts.update(settings=len(rows), queries=rows[0]["queries"])
        tracker.table("fidelity/settings", [_flat(row) for row in ranked], by=quality)
        tracker.summary({f"fidelity/best_{name}": value for name, value in best.items()})
        tracker.summary({"objective": best[quality], **headlines(chosen)})

    inputs = {f"measurement_{i}": artifact for i, (_, artifact) in enumerate(measured)}
    labels = [setting.label for setting, _ in measured]
    name = f"{collection.name.replace('/', '-')}-{cfg.split}-{cfg.name}"
    content = {"quality": quality, "settings": labels, "split": cfg.split}
    report = make(cfg, "fidelity", "fidelity", name, inputs, content, work, cfg.run_dir)
    return Outcome(report, f"{text}\n{report.path}", best[quality], quality, best)


def headlines(measured: Mapping[str, Any]) -> dict[str, float]:
    """What a measured setting's run is compared by in a dashboard: recall is of exact search's top at the largest k."""
    index, times = measured["index"], measured["latency"]["search"]
    deepest = max((name for name in measured["figures"] if name.startswith("overlap_")), key=_cut_off)
    return {
        "index/recall_vs_exact": measured["figures"][deepest],
        "index/bytes_per_token": index["bytes"] / max(1, index["vectors"]),
        "search/p50_ms": times["p50"],
        "search/p95_ms": times["p95"],
    }


def _cut_off(name: str) -> int:
    return int(name.rpartition("_")[2])


def _row(setting: Setting, artifact: Artifact) -> Row:
    row = json.loads((artifact.path / "measurement.json").read_text())
    # The same index may have been measured under another name of the same choice.
    row["setting"] |= {"series": setting.series, "label": setting.label, "short": setting.short}
    return row | {"front": {}}


def _correct(rows: Sequence[Row]) -> None:
    """Beside every test's own p Holm's, over the settings held against the twin; the twin itself has none."""
    rows[0]["tests"] = {}
    for metric in rows[1]["tests"] if len(rows) > 1 else ():
        corrected = holm([row["tests"][metric]["p"] for row in rows[1:]]).tolist()
        for row, p in zip(rows[1:], corrected, strict=True):
            row["tests"][metric]["holm"] = p


def _text(head: str, rows: Sequence[Row], quality: str, cfg: DictConfig) -> str:
    depths = list(cfg.fidelity.depths)
    times = rows[0]["latency"]
    parts = [head, ""]
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("front", lambda r: "".join(mark for name, (_, _, mark) in _COSTS.items() if r["front"][name])),
        *((f"overlap_{d}", _figure(f"overlap_{d}")) for d in depths),
        ("ndcg_10", _figure("ndcg_10")),
        ("diff", lambda r: f"{t['mean_difference']:+.4f}" if (t := r["tests"].get("ndcg_10")) else "-"),
        ("p", lambda r: f"{t['holm']:.4f}" if (t := r["tests"].get("ndcg_10")) else "-"),
        ("mrr_10", _figure("mrr_10")),
    ]
    parts += _table(rows, columns)
    parts += [
        f"best first by {quality}; front: no other has as much for less time (t), for fewer bytes (b)",
        f"diff: of nDCG@10 to exact, p by Holm over the settings ({cfg.fidelity.test})",
        "",
    ]
    costs = [
        ("B/vector", lambda r: f"{r['index']['bytes_per_vector']:,.1f}"),
        ("B/document", lambda r: f"{r['index']['bytes_per_document']:,.0f}"),
        ("build s", lambda r: "-" if r["index"]["build_seconds"] is None else f"{r['index']['build_seconds']:,.1f}"),
        ("p50 ms", lambda r: f"{r['latency']['search']['p50']:,.2f}"),
        ("p95 ms", lambda r: f"{r['latency']['search']['p95']:,.2f}"),
        ("p50 +enc", lambda r: f"{r['latency']['with_encoding']['p50']:,.2f}"),
        ("p95 +enc", lambda r: f"{r['latency']['with_encoding']['p95']:,.2f}"),
    ]
    parts += _table(rows, costs)
    parts += [
        f"ms a query: {times['timed']:,} queries one at a time after {times['warmup']:,} to warm up, "
        f"{_threads(rows[0])}, {times['cpus']} cores; +enc: encoding it included",
        "B/vector: all files, over the model's vectors before any pooling; build s: without encoding",
        "",
    ]
    names = list(dict.fromkeys(name for row in rows for name in row["stages"]))
    losses = [
        *((f"{name}_{d}", _stage(name, str(d))) for name in names for d in depths),
        ("error", lambda r: f"{r['error']['mean']:.4f}"),
        ("max", lambda r: f"{r['error']['max']:.4f}"),
        ("bias", lambda r: f"{r['error']['bias']:+.4f}"),
        ("error %", lambda r: f"{100 * r['error']['relative_mean']:.3f}"),
        ("max %", lambda r: f"{100 * r['error']['relative_max']:.3f}"),
    ]
    parts += _table(rows, losses)
    if names:
        parts.append(f"{', '.join(names)}: share of the exact top that is left after the stage")
    parts.append(f"error: |approximate - exact| score of the documents in the exact top {rows[0]['k']}")
    return "\n".join(parts) + "\n"


def _table(rows: Sequence[Row], columns: Sequence[tuple[str, Callable[[Row], str]]]) -> list[str]:
    cells = [["setting", *(name for name, _ in columns)]]
    cells += [[row["setting"]["label"], *(value(row) for _, value in columns)] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:]))]).rstrip()
        for line in cells
    ]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:], ""]


def _figure(name: str) -> Callable[[Row], str]:
    return lambda row: f"{row['figures'][name]:.4f}"


def _stage(name: str, depth: str) -> Callable[[Row], str]:
    return lambda row: f"{row['stages'][name][depth]:.4f}" if name in row["stages"] else "-"


def _threads(row: Row) -> str:
    count = row["latency"]["threads"]
    return f"{count} thread{'s' if count > 1 else ''}"


def _axes(rows: Sequence[Row]) -> str:
    """What the labels of the dots mean: `residual: cells/candidates`."""
    names = {row["setting"]["name"]: "/".join(row["setting"]["probe"]) for row in rows if row["setting"]["probe"]}
    return "   ".join(f"{name}: {axes}" for name, axes in names.items())


def _flat(row: Row) -> dict[str, Any]:
    """A row for a table in W&B."""
    test = row["tests"].get("ndcg_10", {})
    return {
        "setting": row["setting"]["label"],
        **row["figures"],
        "ndcg_10_difference": test.get("mean_difference"),
        "ndcg_10_p": test.get("holm"),
        **{f"{stage}_{depth}": v for stage, by in row["stages"].items() for depth, v in by.items()},
        "score_error": row["error"]["mean"],
        "bytes_per_vector": row["index"]["bytes_per_vector"],
        "bytes_per_document": row["index"]["bytes_per_document"],
        "build_seconds": row["index"]["build_seconds"],
        **{f"{name}_{q}_ms": row["latency"][name][q] for name in ("search", "with_encoding") for q in ("p50", "p95")},
        **{f"front_{name}": on for name, on in row["front"].items()},
    }
