"""A model by where it lies: a directory, or a Hugging Face id; a checkpoint of ours, or one in another's dialect."""

import shutil
from collections.abc import Iterable, Mapping
from functools import cache, partial
from pathlib import Path

from omegaconf import DictConfig

from colbert_lab.artifact import MANIFEST, Artifact, Builder, hash_file, hash_json, partial_path
from colbert_lab.data.fingerprint import remembered, stamp
from colbert_lab.errors import ArtifactError, ConfigError
from colbert_lab.stages.making import make, say
from colbert_lab.tracking.tracker import Tracker


def model_at(cfg: DictConfig, place: str, kinds: str | tuple[str, ...] = "model") -> Artifact:
    """The model artifact at a directory; or one made, once, of the checkpoint in a directory or behind a hub's id.

    Checkpoints are ours, Stanford's, PyLate's or Sentence Transformers' (colbert_lab.models.dialects). What is made of
    one is found again by its content: a directory's files, or an id at the commit that it stands for today. `kinds` is
    what an artifact there may be. ConfigError where there is no checkpoint, or where the hub cannot be reached;
    ArtifactError where its model is one that ours cannot be.
    """
    path = Path(place).expanduser()
    if _is_foreign(path):
        return _read_directory(cfg, path.absolute(), place)
    if path.exists() or partial_path(path).exists() or place.count("/") != 1 or place.startswith((".", "~", "/")):
        return Artifact.open(place, kinds)
    commit = _commit(place)

    def work(builder: Builder, tracker: Tracker) -> None:
        _save(_downloaded(place, commit), builder, tracker, place, {"source": place, "commit": commit})

    return make(cfg, "fetch", "model", place.replace("/", "-"), {"hub": f"{place}@{commit}"}, _content(), work)


def _read_directory(cfg: DictConfig, path: Path, place: str) -> Artifact:
    from colbert_lab.models.dialects import needed

    _check_is_checkpoint(path, place)
    memo = Path(cfg.root).expanduser().absolute() / "fingerprints.json"
    files = needed(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    digests = {name: remembered(stamp(path / name), memo, partial(hash_file, path / name)) for name in files}
    digest = hash_json(digests)

    def work(builder: Builder, tracker: Tracker) -> None:
        _save(path, builder, tracker, place, {"source": path.name, "files": digest})

    return make(cfg, "read", "model", path.name, {"checkpoint": digest}, _content(), work)


def _content() -> dict[str, int]:
    from colbert_lab.models.dialects import READING

    return {"reading": READING}


def _is_foreign(path: Path) -> bool:
    """Whether a directory is none of our artifacts, finished or not, but has the files of a model."""
    ours = (path / MANIFEST).is_file() or path.name.endswith(".partial")
    return not ours and any((path / name).is_file() for name in ("config.json", "modules.json"))


def _check_is_checkpoint(path: Path, place: str) -> None:
    """ConfigError where a directory holds no late-interaction model of any dialect, and what would make one of it."""
    from colbert_lab.models.checkpoint import CONTRACT_FILE
    from colbert_lab.models.dialects import dialect_of

    if not (path / CONTRACT_FILE).is_file() and dialect_of(path) is None:
        raise ConfigError(
            f"{place} holds no checkpoint of a late-interaction model: neither one of ours (colbert_lab.json) nor "
            f"Stanford's, PyLate's or Sentence Transformers'\n"
            f"try: experiments/init.py backbone=local backbone.name={place}, which starts a model of it"
        )


def _save(source: Path, builder: Builder, tracker: Tracker, place: str, origin: Mapping[str, str]) -> None:
    """Write the checkpoint in `source` as one of ours: a copy where it is, else read from its dialect."""
    from colbert_lab.models.checkpoint import CONTRACT_FILE, load_model, save_model
    from colbert_lab.models.dialects import load_foreign, needed, told

    _check_is_checkpoint(source, place)
    if (source / CONTRACT_FILE).is_file():
        for name in needed(file.relative_to(source).as_posix() for file in source.rglob("*") if file.is_file()):
            (builder.path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, builder.path / name)
        try:
            model = load_model(builder.path)
        except ArtifactError as error:
            raise ConfigError(f"{place} holds no checkpoint of ours that can be read: {error}") from error
    else:
        model = load_foreign(source)
        say(f"{place}: {told(model)}")
        model.provenance |= origin
        save_model(model, builder.path)
    builder.counts.update(dim=model.dim, parameters=sum(p.numel() for p in model.parameters()))
    tracker.summary({"dim": model.dim})


@cache
def _commit(name: str) -> str:
    """The commit that a hub id stands for, the same throughout a process; without the hub, the one in its cache."""
    return _download(name, None, ("config.json",)).name


def _downloaded(name: str, commit: str) -> Path:
    """A directory with the files of a commit that reading takes; pickled tensors only where there are no others."""
    from colbert_lab.models.dialects import FILES, PICKLED

    folder = _download(name, commit, FILES)
    places = [place for place in (folder, *sorted(folder.glob("[0-9]*_*"))) if (place / "config.json").is_file()]
    bare = [place.relative_to(folder) for place in places if not any(place.glob("*.safetensors"))]
    patterns = [(place / pattern).as_posix() for place in bare for pattern in PICKLED]
    return _download(name, commit, patterns) if patterns else folder


def _download(name: str, commit: str | None, patterns: Iterable[str]) -> Path:
    """The hub's files of these patterns, in its cache; without the hub, what is there of them."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=commit, allow_patterns=list(patterns)))
    # Its client raises what its HTTP library does, and that changes between versions.
    except Exception as error:
        told = str(error).strip().splitlines()
        raise ConfigError(
            f"{name} is no directory here, and the hub does not give it: {told[0] if told else type(error).__name__}\n"
            "try: model=<directory of a model>"
        ) from error
