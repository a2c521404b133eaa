"""What a name of something pre-trained stands for: of a directory its files, for it can be trained anew in place."""

from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from colbert_lab.artifact import MANIFEST, hash_file, hash_json
from colbert_lab.data.fingerprint import remembered, stamp


def files_of(cfg: DictConfig, role: str, name: str) -> dict[str, str]:
    """{role: hash of the directory's files}, to be among what an artifact is made of; {} where `name` is none.

    A hub id stands for what it is under its revision, the embedded encoder for the file whose SHA-256 is checked.
    Subdirectories are not looked into: nothing is loaded from there. Hashes are remembered below cfg.root.
    """
    path = Path(name).expanduser()
    if not path.is_dir():
        return {}
    memo = Path(cfg.root).expanduser().absolute() / "fingerprints.json"
    # A manifest has the time in it; all that it lists is hashed here.
    files = [f for f in sorted(path.iterdir()) if f.is_file() and f.name != MANIFEST and not f.name.startswith(".")]
    return {role: hash_json({f.name: remembered(stamp(f), memo, partial(hash_file, f)) for f in files})}
