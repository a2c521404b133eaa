"""A model by where it lies: a directory of an artifact, or a Hugging Face id whose repository holds a checkpoint."""

import shutil
from pathlib import Path

from omegaconf import DictConfig

from colbert_lab.artifact import Artifact, Builder
from colbert_lab.errors import ArtifactError, ConfigError
from colbert_lab.stages.making import make
from colbert_lab.tracking.tracker import Tracker


def model_at(cfg: DictConfig, place: str) -> Artifact:
    """The model artifact at a directory; or the checkpoint of ours behind a Hugging Face id, fetched once and kept.

    ConfigError where it is neither, where the hub cannot be reached, or where the repository has no checkpoint of ours.
    """
    if Path(place).expanduser().exists() or place.count("/") != 1 or place.startswith((".", "~", "/")):
        return Artifact.open(place, "model")

    def work(builder: Builder, tracker: Tracker) -> None:
        from colbert_lab.models.checkpoint import load_model

        source = _fetched(place)
        for file in sorted(source.rglob("*")):
            if file.is_file() and not (hidden := file.relative_to(source)).parts[0].startswith("."):
                (builder.path / hidden).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, builder.path / hidden)
        try:
            model = load_model(builder.path)
        except ArtifactError as error:
            raise ConfigError(
                f"{place} holds no checkpoint of a late-interaction model of ours (colbert_lab.json): {error}\n"
                f"try: experiments/init.py backbone=local backbone.name={place}, which starts a model of it"
            ) from error
        builder.counts.update(dim=model.dim, parameters=sum(p.numel() for p in model.parameters()))
        tracker.summary({"dim": model.dim})

    return make(cfg, "fetch", "model", place.replace("/", "-"), {}, {"hub": place}, work)


def _fetched(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        told = str(error).strip().splitlines()
        raise ConfigError(
            f"{name} is no directory here, and the hub does not give it: {told[0] if told else type(error).__name__}\n"
            "try: model=<directory of a model>"
        ) from error
