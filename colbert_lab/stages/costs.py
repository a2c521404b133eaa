"""What a run cost to make, read from the local logs of what it was made of: beside its quality, a point of a Pareto."""

from pathlib import Path

from colbert_lab.artifact import LOG, Artifact
from colbert_lab.tracking.read import summary

_INDEX = ("index/bytes_per_token", "index/bytes", "index/build_s")
_SEARCH = ("search/search_ms", "search/encode_ms", "search/qps")


def costs_of(run: Artifact | str) -> dict[str, float]:
    """The costs of a run artifact and of its index, as they were measured; what has no log has no costs."""
    if not isinstance(run, Artifact):
        return {}
    index = run.manifest["inputs"].get("index", {}).get("path")
    return {**_some(run.path, _SEARCH), **({} if index is None else _some(Path(index), _INDEX))}


def _some(artifact: Path, names: tuple[str, ...]) -> dict[str, float]:
    known = summary(artifact / LOG)
    return {name: known[name] for name in names if name in known}
