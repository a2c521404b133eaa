"""WandbSink: a run told to Weights & Biases, online or into its directory; the one file that imports wandb."""

import logging
import math
import os
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from colbert_lab.tracking.tracker import RunIdentity

_logger = logging.getLogger(__name__)

# Sections whose best value, rather than the last, is the one to show beside a run.
_BEST = {"val": "max"}
# A table of more rows than their sum is shown by its worst and by a sample of the others; the log has all of them.
WORST, SAMPLED = 500, 500
# What the rows of a table may be about, each value of which has its part of those that are shown.
_SHARED = "system"


class WandbSink:
    """Tells a run to W&B.

    `mode` is online or offline (WANDB_MODE=offline or disabled in the environment is obeyed as well); online without an
    API key becomes offline, with a warning: there is never a prompt. `entity` is the account or team. `required`
    stops a run that cannot be tracked. `init_timeout` and `finish_timeout` are seconds to wait for the network.
    """

    def __init__(
        self,
        mode: Literal["online", "offline"] = "offline",
        entity: str | None = None,
        required: bool = False,
        init_timeout: float = 20.0,
        finish_timeout: float = 300.0,
    ):
        self.mode = mode
        self.entity = entity
        self.required = required
        self.init_timeout = init_timeout
        self.finish_timeout = finish_timeout
        self.online = False
        self._run: Any = None
        self._axes: dict[str, str] = {}
        self._defined: set[str] = set()

    @property
    def wants_online(self) -> bool:
        """Whether what it will be told is to leave this machine: by `mode`, unless the environment holds it back."""
        return self.mode == "online" and os.environ.get("WANDB_MODE", "") not in ("offline", "dryrun", "disabled")

    def open(self, log_dir: Path, identity: RunIdentity, config: dict[str, Any]) -> None:
        """Begin the run, or take up the one with this id (replace it where it is `anew`); files in `log_dir`/wandb."""
        import wandb

        # A sweep's agent has chosen project and id already.
        swept = "WANDB_SWEEP_ID" in os.environ
        # Without it `login` says who is logged in, and artifacts that references are not checksummed.
        wandb.setup(wandb.Settings(silent=True))
        mode = self._mode(wandb)
        self.online = mode == "online"
        self._axes, self._defined = {}, set()
        self._run = wandb.init(
            mode=mode,
            project=None if swept else identity.project,
            entity=None if swept else self.entity,
            id=None if swept else identity.id,
            resume=None if swept or identity.anew else "allow",
            group=identity.group,
            job_type=identity.job_type,
            name=identity.name,
            tags=[tag[:64] for tag in identity.tags],
            notes=identity.notes,
            dir=str(log_dir),
            config=config,
            # By default wandb would hand back the run of an earlier job in this process.
            reinit="finish_previous",
            settings=self._settings(wandb),
        )
        for section in ("train", "val"):
            self._define(f"{section}/*", "trainer/step")
        if self.online:
            _logger.info("W&B run: %s", self._run.url)

    def log(self, values: Mapping[str, float], step: int, axis: str) -> None:
        """Metrics at one step; the step is a metric too, since wandb drops a line whose own step does not grow."""
        for name in values:
            if best := _BEST.get(name.partition("/")[0]):
                # Not for the whole section: of a table in it W&B would take the best file name.
                self._define(name, axis, best)
            else:
                self._place(name, axis)
        self._run.log({**values, axis: step})

    def histogram(self, name: str, counts: Sequence[int], edges: Sequence[float], step: int, axis: str) -> None:
        """A distribution at one step."""
        import wandb

        self._place(name, axis)
        self._run.log({name: wandb.Histogram(np_histogram=(list(counts), list(edges))), axis: step})

    def summary(self, values: Mapping[str, Any]) -> None:
        """Headline values."""
        self._run.summary.update(dict(values))

    def derived(self, values: Mapping[str, Any]) -> None:
        """Facts beside the configuration, as derived.*."""
        held = dict(self._run.config.get("derived", {}))
        self._run.config.update({"derived": held | dict(values)}, allow_val_change=True)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]], by: str | None) -> None:
        """The table, or of a long one the worst rows and a sample of the others, of every system as many."""
        import wandb

        columns = list(dict.fromkeys(column for row in rows for column in row))
        data = [[_cell(row.get(column)) for column in columns] for row in worst_and_sample(rows, by)]
        self._run.log({name: wandb.Table(columns=columns, data=data, allow_mixed_types=True)})

    def artifact(self, role: str, kind: str, path: Path, key: str, used: bool) -> None:
        """The artifact by reference, as made or used: nothing of it is read, copied or uploaded.

        Offline W&B knows no inputs: they stand in the configuration, and a replay tells them.
        """
        import wandb

        if used and not self.online:
            return
        path = Path(path).absolute()
        name = path.name if key[:10] in path.name else f"{path.name}-{key[:10]}"
        made = wandb.Artifact(
            re.sub(r"[^-_.a-zA-Z0-9]", "-", name)[-128:],
            type=kind,
            metadata={"key": key, "path": str(path), "role": role},
        )
        # Not file://, which wants a file to be there: an artifact is in its place only after its run has ended. The
        # same reference from the run that makes it and from those that use it is one version, which links them.
        made.add_reference(f"artifact://{path}?key={key}", name="artifact", checksum=False)
        if used:
            self._run.use_artifact(made)
        else:
            self._run.log_artifact(made)

    def alert(self, title: str, text: str) -> None:
        """A message to whoever watches the project; offline there is nobody."""
        if self.online:
            self._run.alert(title=f"{self._run.name}: {title}", text=text, level="ERROR")

    def close(self, exit_code: int) -> None:
        """End the run, waiting `finish_timeout` seconds at most for uploads; without an open run, nothing."""
        run, self._run = self._run, None
        if run is not None:
            run.finish(exit_code=exit_code)

    def _mode(self, wandb: Any) -> str:
        if os.environ.get("WANDB_MODE") == "disabled":
            if self.required:
                raise RuntimeError("WANDB_MODE=disabled tells nobody")
            return "disabled"
        if not self.wants_online:
            return "offline"
        if _has_key(wandb):
            return "online"
        problem = "W&B has no API key (wandb login, or WANDB_API_KEY)"
        if self.required:
            raise RuntimeError(problem)
        _logger.warning("%s: this run is written offline; `wandb sync` uploads it later", problem)
        return "offline"

    def _settings(self, wandb: Any) -> Any:
        wanted = {
            "silent": True,
            "console": "off",
            "save_code": False,
            "disable_git": True,
            "x_disable_stats": True,
            # The local log has packages, machine and commit.
            "x_disable_meta": True,
            "x_save_requirements": False,
            "init_timeout": self.init_timeout,
            "finish_timeout": self.finish_timeout,
            # Else a run whose end did not arrive would count as told.
            "finish_timeout_raises": True,
        }
        # Settings come and go between versions of wandb; none of these is worth failing for.
        return wandb.Settings(**{key: value for key, value in wanted.items() if key in wandb.Settings.model_fields})

    def _place(self, name: str, axis: str) -> None:
        """Say which axis a metric belongs to, by its section where that has one axis."""
        section, slash, _ = name.partition("/")
        pattern = f"{section}/*" if slash else name
        # A section belongs to the axis it was first seen on; a metric that differs is defined by itself.
        self._define(pattern if self._axes.get(pattern, axis) == axis else name, axis)

    def _define(self, pattern: str, axis: str, summary: str | None = None) -> None:
        if axis not in self._defined:
            self._run.define_metric(axis)
            self._defined.add(axis)
        if pattern not in self._defined:
            self._run.define_metric(pattern, step_metric=axis, summary=summary)
            self._defined.add(pattern)
            self._axes[pattern] = axis


def worst_and_sample(
    rows: Sequence[Mapping[str, Any]], by: str | None, worst: int = WORST, sampled: int = SAMPLED, seed: int = 0
) -> list[Mapping[str, Any]]:
    """All rows, or of more than `worst` + `sampled` the lowest in `by` and a seeded sample of the others.

    `by` defaults to the first column that holds numbers alone; without one the rows are sampled only. NaN is worst.
    Where rows have a `system`, each has an equal part of both, and what one has no rows for goes to those with more:
    else the zeros of the first would be all that is seen. The worst come first, each system's worst in turn among
    equals; the sample follows in the order of the rows.
    """
    if len(rows) <= worst + sampled:
        return list(rows)
    by = by or next((column for column in rows[0] if all(_is_number(row.get(column)) for row in rows)), None)
    draw = random.Random(seed)
    if by is None:
        worst, sampled = 0, worst + sampled
    groups: dict[Any, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(row.get(_SHARED), []).append(i)
    lowest: list[tuple[float, int, int]] = []
    others: list[int] = []
    for members, part in zip(groups.values(), _shares([len(one) for one in groups.values()], worst + sampled)):
        order = sorted(members, key=lambda i: _badness(rows[i].get(by)))
        low = part * worst // (worst + sampled)
        lowest += [(_badness(rows[i].get(by)), place, i) for place, i in enumerate(order[:low])]
        others += draw.sample(order[low:], part - low)
    chosen = [i for _, _, i in sorted(lowest)] + sorted(others)
    return [rows[i] for i in chosen]


def _shares(sizes: Sequence[int], total: int) -> list[int]:
    """`total` shared among groups of these sizes: equally, none above its size, the rest to those that have more."""
    parts = [0] * len(sizes)
    order = sorted(range(len(sizes)), key=lambda i: sizes[i])
    for left, i in zip(range(len(sizes), 0, -1), order):
        parts[i] = min(sizes[i], total // left)
        total -= parts[i]
    return parts


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _badness(value: Any) -> float:
    return float(value) if _is_number(value) and not math.isnan(value) else -math.inf


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _has_key(wandb: Any) -> bool:
    try:
        return bool(wandb.login(prompt=False, verify=False))
    except TypeError:
        # Before 0.2x `login` always asks at a terminal; there the key itself can be asked for.
        return bool(wandb.api.api_key)
