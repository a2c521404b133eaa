"""Artifacts: directories that a stage makes whole or not at all, and that are verified when read.

    with build(path, kind="index", key=key, inputs=..., config=...) as work:    # work: path + ".partial"
        ...write files under work.path...; work.counts["documents"] = 5183
    artifact = Artifact.open(path, kind="index")

While it is being made an artifact lies in `<path>.partial`, where an interrupted stage finds what it had done. When
everything is there, `manifest.json` is written last and the directory renamed into place. What lies under `log/` is a
record of the making (curves, timings): kept, but no part of the content that the digest names.
"""

import contextlib
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from colbert_lab import locks
from colbert_lab.errors import ArtifactError
from colbert_lab.locks import being_made

SCHEMA = 1
MANIFEST = "manifest.json"
LOG = "log"
# Whether to wait for what another process makes; and the locks that `finished` has taken for the `build` to come.
_waits: ContextVar[bool] = ContextVar("waits", default=False)
_held: dict[Path, IO[str]] = {}
# Files up to this size are read and hashed when an artifact is opened; of larger ones the size is compared.
HASHED_ON_OPEN = 64 * 2**20


@dataclass(frozen=True)
class Artifact:
    """A whole artifact: its directory and its manifest."""

    path: Path
    manifest: dict[str, Any]

    @property
    def kind(self) -> str:
        """What it is: collection, model, index, run, metrics, ..."""
        return self.manifest["kind"]

    @property
    def digest(self) -> str:
        """SHA-256 over the kind and all content files: equal digests mean equal content."""
        return self.manifest["digest"]

    @classmethod
    def open(cls, path: str | Path, kind: str | tuple[str, ...] | None = None, full: bool = False) -> "Artifact":
        """Read and verify the artifact at `path`.

        `kind` is what it must be; `full` hashes large files too. Raises ArtifactError where the directory is missing,
        unfinished, of another kind or schema, or where a file differs from the manifest.
        """
        path = Path(path).expanduser().absolute()
        manifest = read_manifest(path)
        kinds = (kind,) if isinstance(kind, str) else kind
        if kinds and manifest["kind"] not in kinds:
            raise ArtifactError(f"{path} holds a {manifest['kind']}, but a {' or '.join(kinds)} is needed here")
        for name, recorded in manifest["files"].items():
            file = path / name
            if not file.is_file():
                raise ArtifactError(f"{path} lacks {name}, which its manifest lists; delete the directory and rerun")
            size = file.stat().st_size
            if size != recorded["bytes"]:
                raise ArtifactError(f"{file} has {size} bytes, the manifest says {recorded['bytes']}; it was changed")
            if (full or size <= HASHED_ON_OPEN) and hash_file(file) != recorded["sha256"]:
                raise ArtifactError(f"{file} was changed after it was written (its SHA-256 differs from the manifest)")
        return cls(path, manifest)


@dataclass
class Builder:
    """An artifact in the making: write files under `path`, fill `counts`; see `build`."""

    path: Path
    counts: dict[str, Any] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        """The directory for records of the making, not part of the content."""
        path = self.path / LOG
        path.mkdir(exist_ok=True)
        return path


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the artifact at `path`; ArtifactError where there is none or it is of another schema."""
    file = path / MANIFEST
    if not file.is_file():
        partial = partial_path(path)
        if path.name.endswith(".partial") or (not path.exists() and partial.exists()):
            raise ArtifactError(f"{path} is unfinished; run the command that makes it again, it goes on where it was")
        what = "is no artifact (it has no manifest.json)" if path.exists() else "does not exist"
        raise ArtifactError(f"{path} {what}")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        schema = manifest["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{file} cannot be read as a manifest: {error}") from error
    if schema != SCHEMA:
        raise ArtifactError(f"{path} was written with schema {schema}, this version reads {SCHEMA}; make it again")
    return manifest


def finished(path: Path, key: str) -> bool:
    """Whether `path` holds a finished artifact made from exactly what `key` names.

    One that was stopped when it was whole, but not yet in its place, is put there. Raises ArtifactError where a
    finished artifact with another key stands there: it is never overwritten. Within `waiting`, what another process is
    making is waited for; where there is nothing then, the making is this process's.
    """
    path = Path(path).expanduser().absolute()
    found = (path / MANIFEST).is_file() or (_made_by_another(path) if _waits.get() else _put_if_whole(path))
    if not found:
        return False
    manifest = read_manifest(path)
    if manifest["key"] != key:
        raise ArtifactError(
            f"{path} already holds a {manifest['kind']} made from other inputs or another configuration "
            f"(key {manifest['key'][:12]}, asked for {key[:12]}); choose another run_dir or remove it"
        )
    return True


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """Within this, an artifact that another process is making is waited for: the jobs of a sweep share their inputs."""
    token = _waits.set(True)
    try:
        yield
    finally:
        _waits.reset(token)


def key_of(stage: str, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """The key of what a stage would make: a hash of its name, its content configuration and its inputs' digests."""
    return hash_json({"schema": SCHEMA, "stage": stage, "config": config, "inputs": inputs})


@contextlib.contextmanager
def build(
    path: Path, kind: str, key: str, inputs: Mapping[str, Any] | None = None, config: Mapping[str, Any] | None = None
) -> Iterator[Builder]:
    """Make the artifact at `path`: yields a Builder on `<path>.partial`, then writes the manifest and renames.

    An interrupted making with the same key is taken up again: the Builder's directory holds what it had written.
    Where the body raises, the partial directory stays. Raises ArtifactError where another process is making it, where
    an unfinished making with another key lies there, or where `path` itself is anything but an empty directory.
    """
    path = Path(path).expanduser().absolute()
    _refuse_taken(path)
    partial = partial_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path):
        _refuse_taken(path)  # another process may have made it just now
        partial.mkdir(exist_ok=True)
        key_file = partial / "key"
        if key_file.exists() and (held := key_file.read_text()) != key:
            raise ArtifactError(
                f"{partial} was begun from other inputs or another configuration (key {held[:12]}, asked for "
                f"{key[:12]}); choose another run_dir or remove it"
            )
        write_atomic(key_file, key.encode())
        # Of a making that was stopped between its manifest and its rename: what has one never changes.
        (partial / MANIFEST).unlink(missing_ok=True)
        for left in partial.rglob(".*.tmp"):
            left.unlink()  # a process that was killed inside write_atomic could not
        builder = Builder(partial)
        yield builder
        _finish(builder, path, kind, key, dict(inputs or {}), dict(config or {}))


def partial_path(path: Path) -> Path:
    """Where the artifact at `path` lies while it is being made."""
    return path.with_name(path.name + ".partial")


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a process killed meanwhile, sees the old content or the new, whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, path)


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def hash_json(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form (sorted keys, no blanks)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@cache
def versions() -> dict[str, str]:
    """Versions of what a result depends on: Python, this package with its commit where known, the libraries."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in (
        "colbert-lab",
        "torch",
        "pytorch-lightning",
        "transformers",
        "tokenizers",
        "datasets",
        "numpy",
        "ranx",
        "ir-datasets",
        "bm25s",
        "wandb",
    ):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    root = Path(__file__).resolve().parent.parent
    if (root / ".git").exists():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            git = ["git", "-C", str(root)]
            commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
            changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, timeout=10)
            found["commit"] = commit.stdout.strip() + ("+changes" if changes.stdout.strip() else "")
    return found


def _finish(builder: Builder, path: Path, kind: str, key: str, inputs: dict, config: dict) -> None:
    files = {}
    for file in sorted(p for p in builder.path.rglob("*") if p.is_file()):
        name = file.relative_to(builder.path).as_posix()
        if name in ("key", MANIFEST) or name.startswith(LOG + "/"):
            continue
        files[name] = {"bytes": file.stat().st_size, "sha256": hash_file(file)}
        _fsync(file)
    manifest = {
        "schema": SCHEMA,
        "kind": kind,
        "key": key,
        "digest": hash_json({"kind": kind, "files": {name: f["sha256"] for name, f in files.items()}}),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "inputs": inputs,
        "config": config,
        "counts": builder.counts,
        "versions": versions(),
        "files": files,
    }
    write_atomic(builder.path / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False).encode())
    _put(builder.path, path)


def _put(partial: Path, path: Path) -> None:
    # Takes the place of an empty directory, and of nothing else.
    os.replace(partial, path)
    # Last: what lies in a partial directory without its key could be taken up by a making of something else.
    (path / "key").unlink(missing_ok=True)
    _fsync(path.parent)


def _put_if_whole(path: Path) -> bool:
    """Put an artifact in its place that was stopped before its rename; whether there is one that is whole."""
    if not (partial_path(path) / MANIFEST).is_file() or being_made(path):
        return False
    with _lock(path):
        return _put_whole(path)


def _put_whole(path: Path) -> bool:
    """The same for who holds its lock."""
    partial = partial_path(path)
    if not (partial / MANIFEST).is_file() or _taken(path):
        return False
    try:
        Artifact.open(partial, full=True)
    except ArtifactError:
        return False  # it is made again
    _put(partial, path)
    return True


def _taken(path: Path) -> bool:
    return path.exists() and not (path.is_dir() and not any(path.iterdir()))


def _refuse_taken(path: Path) -> None:
    if _taken(path):
        raise ArtifactError(f"{path} exists and is no empty directory; choose another run_dir or remove it")


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the making of `path` against other processes; the system releases it when this one ends, however."""
    try:
        handle = _held.pop(path, None) or locks.taken(path)
    except BlockingIOError as error:
        raise ArtifactError(f"another process is making {path}; wait for it, or stop it") from error
    with handle:
        yield
        locks.file_of(path).unlink(missing_ok=True)


def _made_by_another(path: Path) -> bool:
    """Wait until no other process makes `path`, and whether one has; where not, keep its lock for `build`."""
    if path not in _held:
        _held[path] = locks.waited_for(path)
    if not (path / MANIFEST).is_file() and not _put_whole(path):
        return False
    locks.file_of(path).unlink(missing_ok=True)
    _held.pop(path).close()
    return True


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
