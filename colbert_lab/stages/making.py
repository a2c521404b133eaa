"""Making artifacts: found again by what went into them, tracked while they are made, taken up where they were left."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from colbert_lab.artifact import LOG, MANIFEST, Artifact, Builder, build, finished, key_of, partial_path, read_manifest
from colbert_lab.errors import LabError
from colbert_lab.stages.identity import identity_of, is_swept, is_told
from colbert_lab.tracking.sigterm import exit_on_sigterm
from colbert_lab.tracking.tracker import RunIdentity, Tracker

# Where artifacts of a kind lie under the root.
_FOLDERS = {
    "index": "indexes",
    "stanford_index": "stanford_indexes",
    **{kind: kind for kind in ("metrics", "candidates", "scores", "tuples", "rounds", "bm25", "fidelity")},
}
_dry: ContextVar[bool] = ContextVar("dry", default=False)


class NotMade(Exception):
    """Raised in a dry run where an artifact would have to be made; says which stage's, and why."""

    def __init__(self, stage: str, why: str):
        super().__init__(why)
        self.stage, self.why = stage, why


@dataclass(frozen=True)
class Outcome:
    """What a verb came to: its artifact, the text that a user reads, and the objective of a sweep where it has one."""

    artifact: Artifact
    text: str
    objective: float | None = None
    objective_name: str | None = None
    figures: dict[str, float] | None = None


def make(
    cfg: DictConfig,
    stage: str,
    kind: str,
    name: str,
    inputs: Mapping[str, Artifact | str],
    content: Mapping[str, Any],
    work: Callable[[Builder, Tracker], None],
    path: str | Path | None = None,
) -> Artifact:
    """The artifact of `kind` that `stage` makes of `inputs` under the configuration `content`.

    The key is a hash of all three (an input counts by its digest, a string by itself). One that is finished is opened
    and returned; else `work` makes it, or goes on making it, told to a Tracker of its own. It lies at `path`, or under
    the root as `<name>-<key>`. The rest of `cfg` (names, tracking, places) does not count.
    """
    digests = {role: given.digest if isinstance(given, Artifact) else given for role, given in inputs.items()}
    key = key_of(stage, plain(content), digests)
    place = Path(path).expanduser().absolute() if path else _place(Path(cfg.root), kind, name, key)
    if finished(place, key):
        if not _dry.get():
            say(f"{stage}: done before, {place}")
            if is_swept():
                _tell_agent(cfg, identity_of(cfg, stage, name, inputs), place)
        return Artifact.open(place, kind)
    if _dry.get():
        raise NotMade(stage, _why(place, plain(content), digests))
    if partial_path(place).exists():
        say(f"{stage}: going on in {partial_path(place)}")
    else:
        say(f"{stage}: {place}")
    lineage = {role: {"digest": digests[role], **_source(given)} for role, given in inputs.items()}
    with (
        build(place, kind, key, lineage, plain(content)) as builder,
        _tracked(cfg, identity_of(cfg, stage, name, inputs), builder.log) as tracker,
    ):
        for role, given in inputs.items():
            if isinstance(given, Artifact):
                tracker.artifact(role, given.kind, given.path, given.manifest["key"], used=True)
        tracker.derived({"inputs": lineage, "artifact": {"path": str(place), "key": key}})
        work(builder, tracker)
        tracker.derived({"counts": builder.counts})
        tracker.summary({"seconds": tracker.seconds()})
        tracker.artifact(stage, kind, place, key)
    return Artifact.open(place, kind)


def input_of(artifact: Artifact, role: str, override: str | None = None) -> Artifact:
    """The artifact that `artifact` was made from as `role`, verified to be the very one.

    `override` is another place to look for it, where it was moved. Raises ArtifactError where it is gone or differs.
    """
    from colbert_lab.errors import ArtifactError

    recorded = artifact.manifest["inputs"][role]
    place = override or recorded["path"]
    try:
        found = Artifact.open(place)
    except ArtifactError as error:
        raise ArtifactError(
            f"{artifact.path} was made with the {role} at {recorded['path']}, which cannot be used: {error}\n"
            f"try: {'model_at' if role == 'model' else role}=<where it lies now>"
        ) from error
    if found.digest != recorded["digest"]:
        raise ArtifactError(
            f"{artifact.path} was made with a {role} of digest {recorded['digest'][:12]}, but the one at {place} has "
            f"{found.digest[:12]}: results of the two together would mean nothing"
        )
    return found


def plain(value: Any) -> Any:
    """A configuration as plain JSON values, interpolations resolved."""
    if OmegaConf.is_config(value):
        return OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def recorded(node: Any) -> Any:
    """Plain values of a configuration without what leaves no trace in the result, for keys and what is kept of it.

    That is what a node's class names in `unrecorded`, at any depth: how often is logged, how many processes share the
    work. With other values for these, what was made is found again, and what was interrupted goes on.
    """
    if not isinstance(node, Mapping):
        return node
    unrecorded = getattr(get_object(node["_target_"]), "unrecorded", ()) if "_target_" in node else ()
    return {key: recorded(child) for key, child in node.items() if key not in unrecorded}


def create(node: DictConfig, **runtime: Any) -> Any:
    """The object that a configuration node calls for; an error of ours comes out as itself, not wrapped by Hydra."""
    from hydra.errors import InstantiationException

    try:
        return instantiate(node, _convert_="all", **runtime)
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, LabError):
                raise cause from None
            cause = cause.__cause__
        raise


def flat_counts(counts: Mapping[str, Any]) -> dict[str, int]:
    """The plain numbers among counts, and of what was dropped the total by reason, as dropped_<reason>."""
    dropped = {f"dropped_{reason}": lost["total"] for reason, lost in counts.get("dropped", {}).items()}
    return {name: value for name, value in counts.items() if isinstance(value, int)} | dropped


def say(text: str) -> None:
    """A line to the user, on the error stream, where progress goes too."""
    print(text, file=sys.stderr, flush=True)


@cache
def say_once(text: str) -> None:
    """`say`, the first time that this process says it: several steps of one verb would tell the same of their data."""
    say(text)


@contextmanager
def dry_run(dry: bool = True) -> Iterator[None]:
    """Within this, `make` opens what is finished and raises NotMade for everything else."""
    token = _dry.set(dry)
    try:
        yield
    finally:
        _dry.reset(token)


@contextmanager
def _tracked(cfg: DictConfig, identity: RunIdentity, log: Path) -> Iterator[Tracker]:
    """A Tracker, within which SIGTERM is an ordinary exit."""
    told = cfg.tracking.sink is not None and is_told(cfg, identity.job_type)
    sink = create(cfg.tracking.sink) if told else None
    overrides = list(cfg.get("overrides") or [])
    with exit_on_sigterm(), Tracker.start(log, identity, plain(cfg), overrides, sink) as tracker:
        yield tracker


def _tell_agent(cfg: DictConfig, identity: RunIdentity, place: Path) -> None:
    """Under a W&B agent, tell its run what the finished artifact at `place` came to, from the local log.

    The server waits for an objective, and would learn nothing from a run that found its work done before.
    """
    if cfg.tracking.sink is None or not is_told(cfg, identity.job_type):
        return
    from colbert_lab.tracking.replay import retell

    out = Path(cfg.root).expanduser().absolute() / "replayed"
    sink = create(cfg.tracking.sink)
    try:
        retell(place / LOG, sink, out, identity)
    except Exception as error:
        if sink.required:
            raise
        say(f"{place / LOG} could not be told to the sweep's run: {type(error).__name__}: {error}")


def _place(root: Path, kind: str, name: str, key: str) -> Path:
    """Where the artifact with this key is, finished or not, under whatever name; else where it shall be."""
    folder = root.expanduser().absolute() / _FOLDERS.get(kind, kind + "s")
    for found in sorted(folder.glob(f"*-{key[:10]}")):
        if (found / MANIFEST).exists():
            return found
    for found in sorted(folder.glob(f"*-{key[:10]}.partial")):
        return found.with_name(found.name.removesuffix(".partial"))
    return folder / f"{name}-{key[:10]}"


def _why(place: Path, content: Mapping[str, Any], digests: Mapping[str, str]) -> str:
    """Why the artifact that would be made at `place` is not there: begun, never made, or made of something else."""
    if partial_path(place).exists():
        return f"begun, goes on in {partial_path(place)}"
    nearest: tuple[int, str] | None = None
    for file in sorted(place.parent.glob(f"*/{MANIFEST}")):
        manifest = read_manifest(file.parent)
        config, inputs = manifest["config"], manifest["inputs"]
        # The same keys and roles: an artifact of the same stage.
        if config.keys() != content.keys() or inputs.keys() != digests.keys():
            continue
        changes = [f"another {role}" for role, digest in digests.items() if inputs[role]["digest"] != digest]
        old, new = _leaves(config), _leaves(content)
        changes += [
            f"{key} {old.get(key, 'absent')} -> {new.get(key, 'absent')}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key, "absent") != new.get(key, "absent")
        ]
        if nearest is None or len(changes) < nearest[0]:
            nearest = len(changes), f"{file.parent.name} differs: {', '.join(changes[:4])}"
    return "never made" if nearest is None else nearest[1]


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {path: value}
    return {k: v for key, child in value.items() for k, v in _leaves(child, f"{path}.{key}".lstrip(".")).items()}


def _source(given: Artifact | str) -> dict[str, str]:
    return {"path": str(given.path), "kind": given.kind} if isinstance(given, Artifact) else {}
