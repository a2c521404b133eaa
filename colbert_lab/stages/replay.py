"""replay: offline runs told to W&B from their local logs, each once, in the order in which they were made."""

from collections import Counter
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from colbert_lab.errors import ConfigError
from colbert_lab.stages.making import create, say
from colbert_lab.tracking.replay import Replayed, logs_below, replay

_SAID = {
    "told": "replayed",
    "done": "replayed before",
    "online": "told online when they ran",
    "running": "still running",
}
# What a run is found by stays what it ran under: one value for all the runs below a directory would mix them up.
_KEPT = ("group", "tags", "notes")


def run(cfg: DictConfig) -> str:
    """Replay the runs at cfg.runs; says of each what came of it.

    Each goes to the project that it ran in, or to the one that the command line names. One that cannot be told stops no
    other; ConfigError at the end, with all of them.
    """
    if cfg.runs is None:
        raise ConfigError("no runs are given to replay\ntry: runs=<a directory of runs, or a list of them>")
    if cfg.tracking.sink is None:
        raise ConfigError("tracking=none tells nobody\ntry: tracking=wandb, or tracking=offline")
    project = _project(cfg)
    places = list(cfg.runs) if isinstance(cfg.runs, ListConfig) else [cfg.runs]
    logs = list(dict.fromkeys(log for place in places for log in logs_below(Path(place))))
    out = Path(cfg.out or Path(cfg.root) / "replayed").expanduser().absolute()
    results, problems = [], []
    for log in logs:
        try:
            results.append(_told(cfg, log, out, project))
        except ConfigError as error:
            problems += error.problems
    counts = Counter(result.state for result in results)
    lines = [f"{counts[state]:,} {said}" for state, said in _SAID.items() if counts[state]]
    if replaced := sum(result.replaced for result in results):
        lines.append(f"{replaced:,} offline records of earlier replays were replaced by these")
    if any(result.state == "told" and not result.online for result in results):
        lines.append(f"to upload them: wandb sync {out}/wandb/offline-run-*")
    if left := sum(result.state == "done" and not result.online for result in results):
        lines.append(f"{left:,} of them into files alone: wandb sync uploads those, and so does tracking=wandb")
    if counts["done"] or counts["online"]:
        lines.append("again=true tells those anew that were told before")
    if problems:
        if lines:
            say("\n".join(lines))
        raise ConfigError(problems, "replay")
    return "\n".join(lines)


def _project(cfg: DictConfig) -> str | None:
    """The project that the command line names; ConfigError for what else of a run's identity it would change."""
    asked = [one.lstrip("+~") for one in cfg.get("overrides") or []]
    given = [one for one in asked if one.partition("=")[0] in {f"tracking.{key}" for key in _KEPT}]
    if given:
        raise ConfigError(
            f"a replayed run keeps the group, tags and notes that it ran under, so {' '.join(given)} would change "
            "nothing\ntry: without; tracking.project=NAME and tracking.sink.entity=NAME say where runs go"
        )
    named = any(one.partition("=")[0] == "tracking.project" for one in asked)
    return cfg.tracking.project if named else None


def _told(cfg: DictConfig, log: Path, out: Path, project: str | None) -> Replayed:
    try:
        # Required, since W&B is the purpose here: a run that it did not take must not count as replayed.
        result = replay(log, lambda: create(cfg.tracking.sink, required=True), out, cfg.again, project)
    except Exception as error:
        raise ConfigError(
            f"{log} could not be replayed: {type(error).__name__}: {error}\n"
            "try: the same command again, it goes on with this run; or tracking=offline, to upload it later"
        ) from error
    say(f"{_SAID[result.state]}: {result.id} {log.parent}")
    return result
