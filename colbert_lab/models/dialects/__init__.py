"""Checkpoints that others published: each dialect's files are read into the one ColBERT of ours.

    stanford.py   Stanford's HF_ColBERT: linear.weight beside the backbone's weights, artifact.metadata
    pylate.py     PyLate's and Sentence Transformers' MultiVectorEncoder: modules.json, 1_Dense, ...

What a model of ours cannot be (an activation between projections, a bias, code of the repository's) is refused by
file, key and value; what a file leaves open is read as its dialect's own code does, and told among what was assumed.
Nothing is unpickled but tensors, and no code of a checkpoint's is imported.
"""

from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Literal

from colbert_lab.errors import ArtifactError, ConfigError
from colbert_lab.models.colbert import ColBERT
from colbert_lab.models.dialects import pylate, stanford
from colbert_lab.models.dialects.files import CONFIG, Record, has_tensor

Dialect = Literal["Stanford", "PyLate", "Sentence Transformers"]
# What reading means; raised when the same files come to be read as another model.
READING = 1
_MODULE = "[0-9]*_*/"
# What reading takes of a checkpoint, beside tensors that are pickled.
FILES = (
    CONFIG,
    stanford.METADATA,
    pylate.MODULES,
    pylate.SETTINGS,
    "sentence_*_config.json",
    "adapter_config.json",
    "colbert_lab.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "model*.safetensors",
    "model.safetensors.index.json",
    "projection.safetensors",
    *(f"{_MODULE}{name}" for name in ("*.json", "*.txt", "*.model", "model*.safetensors")),
)
PICKLED = ("pytorch_model*.bin", "pytorch_model.bin.index.json")


def load_foreign(directory: str | Path) -> ColBERT:
    """The model that a Stanford, PyLate or Sentence Transformers checkpoint is: fp32, on the CPU, in eval mode.

    Its provenance names the dialect and what was assumed. ArtifactError where the directory is of none of them, where
    its files contradict each other or cannot be read, or where the model is one that a ColBERT of ours cannot be.
    """
    directory = Path(directory)
    dialect = dialect_of(directory)
    if dialect is None:
        raise ArtifactError(
            f"{directory} is no checkpoint of a late-interaction model: no {stanford.METADATA}, no HF_ColBERT in "
            f"{CONFIG}, no {pylate.MODULES} of PyLate's or of a MultiVectorEncoder's"
        )
    try:
        model = stanford.load(directory) if dialect == "Stanford" else pylate.load(directory, dialect == "PyLate")
    except ConfigError as error:
        # What such an error says to try are keys of a configuration, and here there is none.
        problems = "; ".join(problem.partition("\n")[0] for problem in error.problems)
        raise ArtifactError(f"{directory}, a checkpoint of {dialect}'s, cannot be used: {problems}") from error
    model.provenance = {"dialect": dialect, **model.provenance}
    return model.eval()


def dialect_of(directory: str | Path) -> Dialect | None:
    """Whose checkpoint a directory is; None where it is of no dialect known here.

    modules.json comes first, as in PyLate and Sentence Transformers, unless it is too short to hold a projection.
    """
    directory = Path(directory)
    if not (directory / CONFIG).is_file() and not (directory / pylate.MODULES).is_file():
        return None
    kinds = pylate.kinds(directory)
    inline = "HF_ColBERT" in (Record.read(directory / CONFIG).values.get("architectures") or [])
    described = (directory / stanford.METADATA).is_file()
    if len(kinds) < 2 and (inline or (described and has_tensor(directory, stanford.MAP))):
        return "Stanford"
    return pylate.dialect_of(directory) if kinds else None


def told(model: ColBERT) -> str:
    """What was read, in a line; and in another what was assumed, where something was."""
    contract = model.tokenizer.contract
    markers = [contract.query_marker, contract.document_marker]
    prompts = [repr(p) for p in (contract.query_prompt, contract.document_prompt) if p]
    length = contract.expansion_length if contract.expansion == "min" else contract.query_length
    attended = "attended" if contract.attend_to_expansion else "not attended"
    sides = {"off": "", "document": "in documents", "both": "in queries and documents"}[contract.skip_punctuation]
    parts = [
        f"{model.provenance.get('dialect')} checkpoint",
        f"{model.dim} dimensions",
        f"queries of {contract.query_length} and documents of {contract.document_length} ids",
        f"markers {' and '.join(map(repr, markers))}" if any(markers) else "no markers",
        f"prompts {' and '.join(prompts)}" if prompts else "",
        "no expansion" if contract.expansion == "off" else f"expansion {contract.expansion} to {length}, {attended}",
        f"{len(model.tokenizer.skip_ids)} ids skipped {sides}".strip(),
        model.similarity,
    ]
    assumed = "; ".join(model.provenance.get("assumed", []))
    return ", ".join(part for part in parts if part) + (f"\nassumed: {assumed}" if assumed else "")


def needed(files: Iterable[str]) -> list[str]:
    """Those of a checkpoint's files (paths in it) that reading takes, sorted; pickles only where nothing else is."""
    files = sorted(file for file in files if len(PurePosixPath(file).parts) <= 2)
    chosen = {file for file in files if _is_like(file, FILES)}
    whole = {PurePosixPath(file).parent for file in chosen if file.endswith(".safetensors")}
    pickles = {f for f in files if _is_like(PurePosixPath(f).name, PICKLED) and PurePosixPath(f).parent not in whole}
    return sorted(chosen | {file for file in pickles if "/" not in file or _is_like(file, (_MODULE + "*",))})


def _is_like(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
