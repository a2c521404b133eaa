"""Tracker: what stages and callbacks tell about a run; it writes the local log and passes everything to a sink.

    with Tracker.start(log_dir, RunIdentity("colbert_lab", name="hinge-s0"), config, overrides, sink) as tracker:
        tracker.log({"train/loss": 0.7}, step=12)

A sink that fails never stops the run: it is left out from then on, with one warning, unless it is required.
"""

import logging
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

from colbert_lab.errors import ConfigError, LabError
from colbert_lab.tracking.histogram import binned
from colbert_lab.tracking.log import RunLog, State, plain
from colbert_lab.tracking.names import check_names
from colbert_lab.tracking.read import seconds

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunIdentity:
    """How a run is found again among others: `group` is the study, `job_type` the stage, `id` W&B's own name for it.

    `anew`: a run with this id that is there already is replaced; else it is taken up.
    """

    project: str = "colbert_lab"
    group: str | None = None
    job_type: str | None = None
    name: str | None = None
    tags: tuple[str, ...] = ()
    notes: str | None = None
    id: str | None = None
    anew: bool = False


class Sink(Protocol):
    """Where a run is told besides the local log; may raise whatever it likes, the Tracker deals with it.

    `required` says that the run shall stop rather than go on without it; `online`, once open, that what it is told
    leaves this machine.
    """

    required: bool
    online: bool

    @property
    def wants_online(self) -> bool:
        """Whether what it will be told is to leave this machine, known before it is open."""

    def open(self, log_dir: Path, identity: RunIdentity, config: dict[str, Any]) -> None:
        """Begin the run, or take up the one with this id."""

    def log(self, values: Mapping[str, float], step: int, axis: str) -> None:
        """Metrics at one step of an axis."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Headline values."""

    def derived(self, values: Mapping[str, Any]) -> None:
        """Facts that belong beside the configuration."""

    def table(self, name: str, rows: Sequence[Mapping[str, Any]], by: str | None) -> None:
        """A table; a sink may show a part of it, the worst rows by the column `by`."""

    def histogram(self, name: str, counts: Sequence[int], edges: Sequence[float], step: int, axis: str) -> None:
        """A distribution at one step of an axis."""

    def artifact(self, role: str, kind: str, path: Path, key: str, used: bool) -> None:
        """An artifact that was made, or used, by reference."""

    def alert(self, title: str, text: str) -> None:
        """Call a person: the run has failed."""

    def close(self, exit_code: int) -> None:
        """End the run; may be called without, or after a failed, `open`."""


class Tracker:
    """One run's voice; make it with `start`, or with `silent` on the ranks that do not speak."""

    def __init__(self, log: RunLog | None, sink: Sink | None = None):
        self._log = log
        self._sink = sink
        self._ended = False

    @classmethod
    def start(
        cls,
        log_dir: Path,
        identity: RunIdentity,
        config: Mapping[str, Any],
        overrides: Sequence[str],
        sink: Sink | None = None,
    ) -> Self:
        """Begin the log in `log_dir`, or take up the one that lies there under the same id, and open the sink.

        `config` is a plain, resolved dictionary (TypeError otherwise). ConfigError where a required sink cannot begin.
        The directory must not be renamed before `finish`.
        """
        log = RunLog(log_dir)
        if identity.id is not None:
            log.call(identity.id)
        known = {name: value for name, value in asdict(identity).items() if name not in ("id", "anew")}
        surroundings = log.begin(config, overrides, known)
        tracker = cls(log, sink)
        told = plain(config)
        told["derived"] = told.get("derived", {}) | log.derived({}) | surroundings
        try:
            tracker._tell("open", log.directory, replace(identity, id=log.id), told)
        except BaseException as error:
            tracker.__exit__(type(error), error, None)
            if isinstance(error, LabError):
                raise ConfigError(str(error), where="tracking") from error
            raise
        return tracker

    @classmethod
    def silent(cls) -> Self:
        """A tracker that writes nothing, for all ranks but the first; it checks names all the same."""
        return cls(None)

    def log(self, values: Mapping[str, float], step: int, axis: str = "trainer/step") -> None:
        """Metrics at `step` of `axis`. ValueError for a bad name, TypeError for a value that is no number."""
        if self._log is None:
            check_names([axis, *values])
            return
        self._tell("log", self._log.metrics(values, step, axis), int(step), axis)

    def summary(self, values: Mapping[str, Any]) -> None:
        """Set headline values (numbers or text); the others stay. ValueError for a bad name."""
        if self._log is None:
            check_names(values)
            return
        self._tell("summary", self._log.summary(values))

    def derived(self, values: Mapping[str, Any]) -> None:
        """Set facts that the configuration does not say: parameters, tokens, device, world size."""
        if self._log is not None:
            self._log.derived(values)
            self._tell("derived", plain(values))

    def table(self, name: str, rows: Sequence[Mapping[str, Any]], by: str | None = None) -> None:
        """A table: whole in the local log; a sink shows the rows lowest in column `by` if it cannot show all."""
        if self._log is None:
            check_names([name])
            return
        self._log.log_table(name, rows, by)
        self._tell("table", name, rows, by)

    def histogram(
        self,
        name: str,
        values: Sequence[float],
        step: int,
        axis: str = "trainer/step",
        edges: Sequence[float] | None = None,
    ) -> None:
        """How `values` are distributed at `step`: how many lie between each two of `edges`.

        By default 32 bins of equal width from the least to the greatest value. Of no values nothing is told.
        """
        if self._log is None:
            check_names([axis, name])
            return
        counts, edges = binned(values, edges)
        if not edges:
            return
        self._log.histogram(name, counts, edges, step, axis)
        self._tell("histogram", name, counts, edges, int(step), axis)

    def artifact(self, role: str, kind: str, path: Path, key: str, used: bool = False) -> None:
        """Note an artifact that this run made or used, by its key and place; its files are never uploaded."""
        if self._log is not None:
            self._log.artifact(role, kind, Path(path), key, used)
            self._tell("artifact", role, kind, Path(path), key, used)

    def seconds(self) -> float:
        """Seconds that the run has taken so far, over all its starts; 0 for a silent one."""
        return 0.0 if self._log is None else seconds(self._log.directory, running=True)

    def resumed(self, step: int, axis: str = "trainer/step") -> None:
        """The run goes on from `step`: what was logged beyond it is superseded; -1 where it begins anew."""
        if self._log is not None:
            self._log.resumed(step, axis)

    def finish(self, state: State = "finished", exit_code: int = 0, error: str | None = None) -> None:
        """End the run; later calls do nothing. LabError where a required sink fails as a run finishes."""
        if self._ended or self._log is None:
            return
        self._ended = True
        if state == "failed":
            title, text = "run failed", (error or "").strip()[-2000:]
            self._log.event("alert", title=title, text=text)
            self._tell("alert", title, text, raising=False)
        # The local log first: closing a sink may take long, and the process may be killed meanwhile.
        self._log.end(state, exit_code, error)
        self._tell("close", exit_code, final=True, raising=state == "finished")
        if self._sink is not None and self._sink.online:
            self._log.told_online()
        self._sink = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self.finish()
        elif isinstance(error, SystemExit | KeyboardInterrupt):
            self.finish("preempted", _exit_code(error), f"{kind.__name__}: {error}")
        else:
            text = str(error) if isinstance(error, LabError) else "".join(traceback.format_exception(error))
            self.finish("failed", 1, text)

    def _tell(self, method: str, *arguments: Any, final: bool = False, raising: bool = True) -> None:
        sink = self._sink
        if sink is None:
            return
        try:
            getattr(sink, method)(*arguments)
        except Exception as error:
            self._leave(sink, method, error, final)
            if raising and sink.required:
                raise LabError(
                    f"{type(sink).__name__}.{method} failed: {type(error).__name__}: {error}\n"
                    "try: tracking.sink.required=false to go on with the local log alone"
                ) from error

    def _leave(self, sink: Sink, method: str, error: Exception, final: bool) -> None:
        """Go on without the sink, and say so once, on the terminal and, while it is open, in the local log."""
        self._sink = None
        what = f"{type(sink).__name__}.{method} failed ({type(error).__name__}: {error})"
        _logger.warning("%s: this run is tracked in %s alone from here on", what, self._log.directory)
        if final:
            return
        self._log.event("warning", text=what)
        try:
            sink.close(1)
        except Exception as second:
            _logger.debug("%s.close failed as well: %r", type(sink).__name__, second)


def _exit_code(error: BaseException) -> int:
    """What the interrupted process counts as: an exit asked for without a code is a preemption (SIGTERM's 143)."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    if error.code in (None, 0):
        return 143
    return error.code if isinstance(error.code, int) else 1
