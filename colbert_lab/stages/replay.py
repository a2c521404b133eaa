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


def run(cfg: DictConfig) -> str:
    """Replay the runs at cfg.runs; says of each what came of it.

    One that cannot be told stops no other; ConfigError at the end, with all of them.
    """
    if cfg.runs is None:
        raise ConfigError("no runs are given to replay\ntry: runs=<a directory of runs, or a list of them>")
    if cfg.tracking.sink is None:
        raise ConfigError("tracking=none tells nobody\ntry: tracking=wandb, or tracking=offline")
    places = list(cfg.runs) if isinstance(cfg.runs, ListConfig) else [cfg.runs]
    logs = list(dict.fromkeys(log for place in places for log in logs_below(Path(place))))
    out = Path(cfg.out or Path(cfg.root) / "replayed").expanduser().absolute()
    results, problems = [], []
    for log in logs:
        try:
            results.append(_told(cfg, log, out))
        except ConfigError as error:
            problems += error.problems
    counts = Counter(result.state for result in results)
    lines = [f"{counts[state]:,} {said}" for state, said in _SAID.items() if counts[state]]
    if any(result.state == "told" and not result.online for result in results):
        lines.append(f"to upload them: wandb sync {out}/wandb/offline-run-*")
    if counts["done"] or counts["online"]:
        lines.append("again=true tells those anew that W&B has")
    if problems:
        if lines:
            say("\n".join(lines))
        raise ConfigError(problems, "replay")
    return "\n".join(lines)


def _told(cfg: DictConfig, log: Path, out: Path) -> Replayed:
    try:
        # Required, since W&B is the purpose here: a run that it did not take must not count as replayed.
        result = replay(log, lambda: create(cfg.tracking.sink, required=True), out, cfg.again)
    except Exception as error:
        raise ConfigError(
            f"{log} could not be replayed: {type(error).__name__}: {error}\n"
            "try: the same command again, it goes on with this run; or tracking=offline, to upload it later"
        ) from error
    say(f"{_SAID[result.state]}: {result.id} {log.parent}")
    return result
