"""verify: every byte of an artifact against what was written; what opening leaves out, because it takes a while."""

from omegaconf import DictConfig

from colbert_lab.artifact import Artifact
from colbert_lab.errors import ConfigError
from colbert_lab.stages.index import open_index


def run(cfg: DictConfig) -> str:
    """Read the artifact at cfg.artifact; ArtifactError names the file that is not as it was written."""
    if cfg.artifact is None:
        raise ConfigError("nothing is given to verify\ntry: artifact=<directory of an artifact>")
    artifact = Artifact.open(cfg.artifact, full=True)
    if artifact.kind == "index":
        open_index(artifact).verify()
    files = artifact.manifest["files"]
    size = sum(recorded["bytes"] for recorded in files.values())
    return f"{artifact.kind} {artifact.path}: {len(files)} files, {size:,} bytes, all as they were written"
