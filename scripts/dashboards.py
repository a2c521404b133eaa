"""The project's W&B workspace as code: what it shows is decided here, and can be read without an account.

    python scripts/dashboards.py --dry-run                                   print it, checked by wandb-workspaces
    python scripts/dashboards.py --entity TEAM --project colbert_lab         save it there

Needs `pip install colbert-lab[dashboards]`. Every metric that is named here is one that the stages log.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from colbert_lab.tracking.names import leaf

STEP, ROUND = "trainer/step", "round"
# Terms of the losses that ship; a term that no run has shows nothing.
PARTS = tuple(f"train/loss_{term}" for term in ("hinge", "softmax", "in_batch", "nway", "kl", "margin_mse"))
# What a sweep usually changes, as W&B names a nested configuration; a key that no run has makes an empty column. What
# was chosen from a group is a node there, not a value: its name stands under `choices`.
SWEPT = (
    "choices.loss",
    "optim.lr",
    "train.batch_queries",
    "train.negatives",
    "train.max_steps",
    "text.document_length",
    "seed",
)


@dataclass(frozen=True)
class Panel:
    """One panel: a `line` over the axis x, a `scatter` of two summaries, a `bar` of summaries, `parallel` coordinates
    or the `importance` of parameters for the first metric, a `table` that is logged under that name, or a `text`.

    `keys` of `parallel` are those of the configuration. `seeds` shows runs of one name as their mean,
    with a band from the least to the greatest.
    """

    kind: Literal["line", "scatter", "bar", "parallel", "importance", "table", "text"]
    title: str
    metrics: tuple[str, ...] = ()
    x: str = STEP
    keys: tuple[str, ...] = ()
    seeds: bool = False
    log_x: bool = False
    log_y: bool = False
    text: str = ""


@dataclass(frozen=True)
class Section:
    """Panels under one heading."""

    name: str
    panels: tuple[Panel, ...]
    is_open: bool = False


def panels(datasets: Sequence[str] = ()) -> list[Section]:
    """The whole workspace as plain descriptions; `datasets` are the names of collections."""
    quality = [f"eval/{leaf(dataset)}_ndcg_10" for dataset in datasets]
    by_dataset = [Panel("bar", f"{name} by run", (name,), seeds=True) for name in (*quality, "eval/mean_ndcg_10")]
    dev = [f"val/{leaf(dataset)}_ndcg_10" for dataset in datasets]
    pareto = [
        Panel("scatter", f"{name} against {x}", (name,), x=x, log_x=True)
        for name in quality or ["objective"]
        for x in ("index/bytes_per_token", "search/search_ms")
    ]
    return [
        Section("Overview", (Panel("bar", "objective by run", ("objective",), seeds=True), *by_dataset), True),
        Section(
            "Training",
            (
                Panel("line", "loss", ("train/loss",), seeds=True),
                Panel("line", "loss by part", PARTS),
                Panel("line", "margin of positives over negatives", ("train/score_margin",), seeds=True),
                Panel("line", "learning rate", ("train/lr",)),
                Panel("line", "gradient norm before clipping", ("train/grad_norm",), log_y=True),
                Panel("line", "entropy of the teacher, as a share", ("train/target_entropy",)),
                Panel("line", "agreement with the teacher", ("train/teacher_agreement",)),
                Panel("line", "tokens a second", ("train/tokens_per_s",)),
                Panel("line", "share of padding", ("train/padding_share",)),
                Panel("line", "scores of positives", ("train/positive_scores",)),
                Panel("line", "scores of negatives", ("train/negative_scores",)),
            ),
        ),
        Section(
            "Validation",
            (
                Panel("line", "dev nDCG@10", ("val/ndcg_10",), seeds=True),
                *(Panel("line", f"{name} by step", (name,), seeds=True) for name in dev),
                Panel("line", "dev MRR@10", ("val/mrr_10",), seeds=True),
                Panel("line", "dev recall", ("val/recall_50", "val/recall_100")),
                Panel("line", "seconds a judgement takes", ("val/seconds",)),
            ),
        ),
        Section(
            "Rounds",
            (
                Panel("line", "dev nDCG@10 by round", ("round/dev_ndcg_10",), x=ROUND, seeds=True),
                Panel("line", "test nDCG@10 by round", ("round/test_ndcg_10",), x=ROUND, seeds=True),
                Panel("bar", "candidates kept", ("mine/kept",)),
                Panel("bar", "negatives dropped as false", ("tuples/dropped_false_negative",)),
                Panel("bar", "pairs that the teacher scored a second", ("score/pairs_per_s",)),
            ),
        ),
        Section(
            "Index",
            (
                *pareto,
                *(
                    Panel("scatter", f"share of exact search's top against {x}", ("index/recall_vs_exact",), x=x)
                    for x in ("index/bytes_per_token", "search/p50_ms")
                ),
                Panel("bar", "bytes a token", ("index/bytes_per_token",)),
                Panel("bar", "seconds to build", ("index/build_s",)),
            ),
        ),
        Section(
            "Search",
            (
                Panel("bar", "milliseconds to search, a query", ("search/search_ms",)),
                Panel("bar", "milliseconds to encode, a query", ("search/encode_ms",)),
                Panel("bar", "milliseconds a query, one at a time", ("search/p50_ms", "search/p95_ms")),
                Panel("bar", "queries a second", ("search/qps",)),
                Panel("bar", "results", ("search/candidates",)),
            ),
        ),
        Section(
            "Sweep",
            (
                Panel("parallel", "what was changed, and what it gave", ("objective",), keys=SWEPT),
                Panel("importance", "what mattered", ("objective",)),
                Panel("bar", "seconds", ("seconds",)),
            ),
        ),
        Section(
            "Failures",
            (
                Panel("table", "queries, the worst first", ("eval/per_query",)),
                Panel("text", "failed runs", text="Failed runs: filter the table of runs by `State = failed`. "
                      "Their alert has the error; so has `state.json` in the local log."),
            ),
        ),
    ]  # fmt: skip


def named_metrics(sections: Sequence[Section]) -> set[str]:
    """Every metric, axis and table that the sections name."""
    shown = {name for section in sections for panel in section.panels for name in panel.metrics}
    axes = {panel.x for section in sections for panel in section.panels if panel.kind in ("line", "scatter")}
    return shown | axes


def workspace(sections: Sequence[Section], entity: str, project: str, name: str) -> Any:
    """The wandb-workspaces object, unsaved; what it refuses is raised as its ValidationError."""
    import wandb_workspaces.workspaces as ws

    made = [
        ws.Section(
            name=section.name,
            is_open=section.is_open,
            panels=[_made(panel) for panel in section.panels],
            layout_settings=ws.SectionLayoutSettings(columns=3, rows=2),
        )
        for section in sections
    ]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=made,
        runset_settings=ws.RunsetSettings(groupby=[ws.Metric("Group"), ws.Metric("JobType")]),
        settings=ws.WorkspaceSettings(x_axis=STEP, max_runs=30),
    )


def spec(made: Any) -> dict[str, Any]:
    """The specification that saving would send, through wandb-workspaces' own models."""
    return made._to_model().model_dump(by_alias=True, exclude_none=True, mode="json")["spec"]


def outline(sections: Sequence[Section], entity: str, project: str, name: str) -> str:
    """The workspace in words."""
    lines = [f"workspace {name!r} of {entity}/{project}, runs grouped by group and job type"]
    for section in sections:
        lines += ["", f"{section.name}{'' if section.is_open else '  (closed)'}"]
        for panel in section.panels:
            where = f" over {panel.x}" if panel.kind in ("line", "scatter") else ""
            keys = f" of {', '.join(panel.keys)}" if panel.keys else ""
            seeds = "; seeds as one" if panel.seeds else ""
            lines.append(
                f"  {panel.kind:<10} {panel.title}: {', '.join(panel.metrics) or panel.text}{where}{keys}{seeds}"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entity", default="", help="account or team; needed to save")
    parser.add_argument("--project", default="colbert_lab")
    parser.add_argument("--name", default="colbert_lab", help="of the view")
    parser.add_argument("--datasets", default="", help="names of collections: scifact,nfcorpus")
    parser.add_argument("--dry-run", action="store_true", help="print it and save nothing; no network, no account")
    parser.add_argument("--spec", action="store_true", help="with --dry-run: the specification too, as JSON")
    given = parser.parse_args(arguments)
    try:
        import wandb_workspaces  # noqa: F401
    except ImportError:
        print("wandb-workspaces is not installed\ntry: pip install colbert-lab[dashboards]", file=sys.stderr)
        return 1
    if not (given.entity or given.dry_run):
        print("whose workspace?\ntry: --entity TEAM, or --dry-run", file=sys.stderr)
        return 1
    sections = panels([name for name in given.datasets.split(",") if name])
    made = workspace(sections, given.entity or "ENTITY", given.project, given.name)
    told = spec(made)
    if given.dry_run:
        print(outline(sections, made.entity, made.project, made.name))
        if given.spec:
            print(json.dumps(told, indent=1))
        print(f"\nwandb-workspaces takes it: {len(json.dumps(told)):,} bytes of specification; nothing was saved")
        return 0
    made.save()
    print(made.url)
    return 0


def _made(panel: Panel) -> Any:
    import wandb_workspaces.reports.v2 as wr

    seeds = (
        {"groupby": wr.Config("name"), "groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"} if panel.seeds else {}
    )
    if panel.kind == "line":
        logs = {"log_x": panel.log_x or None, "log_y": panel.log_y or None}
        return wr.LinePlot(title=panel.title, x=panel.x, y=list(panel.metrics), **logs, **seeds)
    if panel.kind == "bar":
        return wr.BarPlot(title=panel.title, metrics=list(panel.metrics), **seeds)
    if panel.kind == "scatter":
        return wr.ScatterPlot(
            title=panel.title,
            x=wr.SummaryMetric(panel.x),
            y=wr.SummaryMetric(panel.metrics[0]),
            log_x=panel.log_x or None,
        )
    if panel.kind == "parallel":
        column = wr.ParallelCoordinatesPlotColumn
        keys = [column(wr.Config(key), log=key.endswith("lr") or None) for key in panel.keys]
        return wr.ParallelCoordinatesPlot(
            title=panel.title, columns=[*keys, *(column(wr.SummaryMetric(name)) for name in panel.metrics)]
        )
    if panel.kind == "importance":
        return wr.ParameterImportancePlot(with_respect_to=panel.metrics[0])
    if panel.kind == "table":
        return wr.WeavePanelSummaryTable(table_name=panel.metrics[0])
    return wr.MarkdownPanel(markdown=f"**{panel.title}** {panel.text}")


if __name__ == "__main__":
    sys.exit(main())
