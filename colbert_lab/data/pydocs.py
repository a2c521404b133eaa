"""The collection that needs no download: docstrings of installed packages. Query: the summary; document: the rest.

Every document has one query, so it is known-item search with one relevant document a query. The splits go by file:
a query of test is about a module that no query of train is about. What the packages say depends on their versions,
so the collection does too; the manifest lists them.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

from colbert_lab.artifact import hash_file, hash_json
from colbert_lab.data.docstrings import Docstring, docstrings, source_files, without_garbage_collection
from colbert_lab.data.near_duplicates import first_of_kind
from colbert_lab.data.source import Judgement, Record, Title, UnknownDocuments
from colbert_lab.errors import DataError

# Raised when the same files would give other documents.
ALGORITHM = 1
# What the base dependencies of this package install, and what is written in whole sentences.
PACKAGES = (
    "datasets",
    "huggingface_hub",
    "matplotlib",
    "networkx",
    "numpy",
    "pandas",
    "pytorch_lightning",
    "scipy",
    "sympy",
    "torchmetrics",
)
_SHARES = (("test", 0.15), ("dev", 0.10))
_SUMMARY_WORDS = range(4, 41)
_REST_WORDS = 20
_PROSE_WORDS = 30
_WORD = re.compile(r"[A-Za-z]{2,}")
_CODE = re.compile(r"^\s*(>>>|\.\.\. |\.\. )")
_MARKUP = re.compile(
    r">>>|::|\.\. |^\s*[:@]\w+|^(Parameters|Returns|Args|Arguments|Attributes|Examples?|Notes?)\b|={3}|-{3}|`{3}"
)
_DEPRECATED = re.compile(r"\bdeprecated\b|\balias (of|for)\b|\bsee also\b", re.IGNORECASE)


@dataclass(frozen=True)
class _Pair:
    id: str
    file: str
    summary: str
    rest: str


class PyDocs:
    """Up to `documents` docstrings, chosen by a hash of their names, of the `packages` (None: PACKAGES).

    `megabytes` bounds how much of one package is parsed.
    """

    name = "pydocs"
    title: Title = "drop"
    unknown_documents: UnknownDocuments = "error"

    def __init__(self, packages: Sequence[str] | None = None, documents: int = 4000, megabytes: float = 4.0):
        self.packages = tuple(sorted(set(packages or PACKAGES)))
        self.limit = documents
        self.megabytes = megabytes
        if documents < 1 or megabytes <= 0:
            raise DataError(f"documents={documents} and megabytes={megabytes} must be positive")
        self._counts: dict[str, int] = {}

    def fingerprint(self, memo: Path | None = None) -> str:
        """A hash over the arguments, the packages' versions and the content of the files that are parsed."""
        files = {name: hash_file(path) for name, path in self._files.items()}
        return hash_json(
            {"source": "pydocs", "algorithm": ALGORITHM, "documents": self.limit, "files": files, **self._versions()}
        )

    def documents(self) -> Iterator[Record]:
        """What follows the summary; ids are "<package>/<file>::<qualified name>"."""
        return (Record(pair.id, "", pair.rest, pair.id) for pair in self._pairs)

    def queries(self) -> Iterator[Record]:
        """The summaries, in one line each; ids are "q:" + the document's."""
        return (Record(f"q:{pair.id}", "", pair.summary, pair.id) for pair in self._pairs)

    def splits(self) -> tuple[str, ...]:
        """train, dev and test: whole files, with about 75, 10 and 15 % of the documents."""
        return ("train", "dev", "test")

    def qrels(self, split: str) -> Iterator[Judgement]:
        """Grade 1 for the docstring that a summary was taken from."""
        return (Judgement(f"q:{p.id}", p.id, 1, p.id) for p in self._pairs if self._split_of[p.file] == split)

    def describe(self) -> dict[str, Any]:
        """The packages with their versions, and how many docstrings were left after each step."""
        pairs = self._pairs
        of_package = Counter(pair.file.split("/")[0] for pair in pairs)
        words = sorted(len(pair.rest.split()) for pair in pairs)
        return {
            "source": "pydocs",
            "algorithm": ALGORITHM,
            "packages": self._versions(),
            "megabytes": self.megabytes,
            "files": len(self._files),
            "steps": self._counts,
            "documents_of": dict(sorted(of_package.items())),
            "median_words": words[len(words) // 2],
        }

    def _versions(self) -> dict[str, str]:
        distributions = packages_distributions()
        found = {}
        for package in self.packages:
            try:
                found[package] = version(distributions.get(package, [package])[0])
            except PackageNotFoundError:
                found[package] = "unknown"
        return found

    @cached_property
    def _files(self) -> dict[str, Path]:
        return {name: path for package in self.packages for name, path in source_files(package, self.megabytes).items()}

    @cached_property
    def _pairs(self) -> list[_Pair]:
        with without_garbage_collection():
            found = [entry for name, path in self._files.items() for entry in docstrings(name, path)]
        self._count("docstrings", found)
        pairs = self._count("with a summary and a rest", [pair for entry in found if (pair := _split(entry))])
        often = Counter(pair.summary.lower() for pair in pairs)
        pairs = self._count("summary at most three times", [p for p in pairs if often[p.summary.lower()] <= 3])
        fresh = first_of_kind([pair.rest for pair in pairs], words=5, similarity=0.5)
        pairs = self._count("rest unlike any other", [pair for pair, new in zip(pairs, fresh) if new])
        fresh = first_of_kind([pair.summary for pair in pairs], words=2, similarity=0.6)
        pairs = self._count("summary unlike any other", [pair for pair, new in zip(pairs, fresh) if new])
        chosen = sorted(pairs, key=lambda pair: _hash(pair.id))[: self.limit]
        if not chosen:
            raise DataError(f"no docstrings that make a collection in {', '.join(self.packages)}")
        return self._count("chosen", sorted(chosen, key=lambda pair: pair.id))

    @cached_property
    def _split_of(self) -> dict[str, str]:
        """File -> split: files in the order of a hash, by documents, so that a few large files decide nothing."""
        size, before, splits = Counter(pair.file for pair in self._pairs), 0, {}
        for file in sorted(size, key=_hash):
            place, end = before / len(self._pairs), 0.0
            splits[file] = "train"
            for split, share in _SHARES:
                if end <= place < end + share:
                    splits[file] = split
                end += share
            before += size[file]
        return splits

    def _count(self, step: str, entries: list) -> list:
        self._counts[step] = len(entries)
        return entries


def _split(entry: Docstring) -> _Pair | None:
    """Summary and rest of a docstring, or None where they are not fit to be a query and a document."""
    head, _, rest = entry.text.partition("\n\n")
    summary, rest = " ".join(head.split()), rest.strip("\n")
    if len(summary.split()) not in _SUMMARY_WORDS or _MARKUP.search(summary) or _DEPRECATED.search(summary):
        return None
    if len(_WORD.findall(summary)) < _SUMMARY_WORDS.start or len(rest.split()) < _REST_WORDS:
        return None
    prose = [line for line in rest.split("\n") if not _CODE.match(line)]
    if len(_WORD.findall(" ".join(prose))) < _PROSE_WORDS:
        return None
    return _Pair(f"{entry.file}::{entry.name}" if entry.name else entry.file, entry.file, summary, rest)


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(f"pydocs {text}".encode(), digest_size=8).digest(), "big")
