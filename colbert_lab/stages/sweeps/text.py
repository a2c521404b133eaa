"""A sweep's summary as text for a terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colbert_lab.stages.overrides import shown


def text_of(summary: Mapping[str, Any]) -> str:
    """The table, best first, then what mattered, the best run and its command, and what failed."""
    parts = [_head(summary), _table(summary)]
    if summary["pruned"]:
        stopped = [
            f"  {_label(one['params'])}: {one['objective']:.4f} at step {one['step']}" for one in summary["pruned"]
        ]
        parts.append("\n".join(["stopped early", *stopped]))
    parts.append(_importance(summary))
    if summary["best"]:
        parts.append(f"best: {summary['best']['artifact']}\nagain: {summary['command']}")
    parts += [_failure(summary, one) for one in summary["failed"]]
    return "\n\n".join(parts) + "\n"


def _head(summary: Mapping[str, Any]) -> str:
    counts = summary["counts"]
    states = [f"{counts[state]} {state}" for state in ("finished", "failed", "pruned") if counts[state]]
    missing = counts["asked"] - sum(counts[state] for state in ("finished", "failed", "pruned"))
    states += [f"{missing} still to do"] if missing > 0 else []
    what = "trials" if summary["kind"] == "bayes" else "jobs"
    head = f"{counts['asked']} {what} in {summary['folder']}: {', '.join(states)}"
    if left_out := len(summary["left_out"]):
        head += f"\n{left_out} that ended under another configuration left out: the sweep's command runs them again"
    return head + (f"\nall with {' '.join(summary['fixed'])}" if summary["fixed"] else "")


def _table(summary: Mapping[str, Any]) -> str:
    rows = summary["rows"]
    if not rows:
        return "no job finished"
    seeds, tested = any(row["n"] > 1 for row in rows), any(row["test"] for row in rows)
    figures = list(dict.fromkeys(name for row in rows for name in row["figures"] if name != summary["objective"]))
    head = ["", summary["objective"], *(["sd", "seeds"] if seeds else []), *(["difference", "p"] if tested else [])]
    lines = [[*head, *figures]]
    name = "default" if summary["baseline_is_default"] else "first"
    for row in rows:
        label = _label(row["params"]) + (f"  ({name})" if row["baseline"] and len(rows) > 1 else "")
        line = [label, _number(row["mean"])]
        line += [_number(row["deviation"]), str(row["n"])] if seeds else []
        test = row["test"]
        line += ([f"{test['difference']:+.4f}", _p(test["p"])] if test else ["", ""]) if tested else []
        lines.append([*line, *(_number(row["figures"].get(figure)) for figure in figures)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    shown_lines = [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:]))]).rstrip()
        for line in lines
    ]
    shown_lines.insert(1, "-" * max(map(len, shown_lines)))
    if len(rows) > 1:
        against = f"against the {name}: " if tested else ""
        shown_lines.append(against + summary["tested"])
    return "\n".join(shown_lines)


def _importance(summary: Mapping[str, Any]) -> str:
    lines = [f"importance: {summary['importance_method']}"]
    rest = summary["importance_rest"]
    shares = {**summary["importance"], **({} if rest is None else {"the rest": rest})}
    width = max(map(len, shares), default=0)
    lines += [f"  {name:<{width}}  {share:6.1%}" for name, share in shares.items()]
    return "\n".join(lines)


def _failure(summary: Mapping[str, Any], job: Mapping[str, Any]) -> str:
    log = Path(summary["folder"]) / "jobs" / f"{job['number']:03d}.log"
    where = f" (told in {log})" if log.is_file() else ""
    return f"failed: {_label(job['params'])}{where}\n  " + job["error"].rstrip().replace("\n", "\n  ")


def _label(params: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={shown(value)}" for key, value in params.items()) or "(as configured)"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"
