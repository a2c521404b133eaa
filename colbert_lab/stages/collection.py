"""The collection that a configuration names, as a local artifact."""

from pathlib import Path

from omegaconf import DictConfig

from colbert_lab.data.collection import Collection
from colbert_lab.stages.making import create, say


def open_collection(cfg: DictConfig) -> Collection:
    """Read, check and keep what `cfg.data` names, or open what was kept; tells what was found."""
    from colbert_lab.data.source import prepare, report

    collection = prepare(create(cfg.data), Path(cfg.root))
    for line in report(collection):
        say(line)
    return collection
