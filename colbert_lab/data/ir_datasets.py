"""Anything in the ir_datasets catalogue as a source, by its id: beir/scifact, msmarco-passage, vaswani, ...

The files are those in IR_DATASETS_HOME, downloaded there by ir_datasets where they are missing and free to fetch.
"""

import contextlib
import difflib
import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from colbert_lab.artifact import hash_json
from colbert_lab.data.fingerprint import remembered, stamp
from colbert_lab.data.source import Judgement, Record, Title, Unavailable, UnknownDocuments
from colbert_lab.errors import DataError

_USUAL = ("train", "dev", "validation", "test")
# Files that an error names, at most.
_TOLD = 5


class IrDatasets:
    """The documents of `id`, with the queries and judgements of the sets in `splits` (name -> id).

    Where `splits` is None: `id` itself if it has judgements, called after the part of the id that says so ("dev" for
    .../dev/small), else "test"; or, if it has none, <id>/train, /dev, /validation and /test as far as they are
    registered.
    """

    def __init__(
        self,
        id: str,
        splits: Mapping[str, str] | None = None,
        title: Title = "prepend",
        unknown_documents: UnknownDocuments = "count",
    ):
        self.id = id.strip("/")
        self.name = self.id
        self.title = title
        self.unknown_documents = unknown_documents
        self._ids = dict(splits) if splits else self._find_splits()

    def fingerprint(self, memo: Path | None = None) -> str:
        """A hash over all ids, texts and judgements, remembered as long as the files in IR_DATASETS_HOME stay."""

        def compute() -> str:
            digest = hashlib.sha256()
            for part in (self.documents(), self.queries(), *(self.qrels(split) for split in self._ids)):
                for entry in part:
                    fields = [value for name, value in vars(entry).items() if name != "where"]
                    digest.update(json.dumps(fields).encode())
                digest.update(b"\0")
            return digest.hexdigest()

        before = self._state()
        content = remembered(before, memo, compute) if before else compute()
        # Reading may have unpacked files, and it is the state afterwards that the next command finds.
        if after := self._state():
            remembered(after, memo, lambda: content)
        return hash_json({"source": "ir_datasets", "content": content, "splits": list(self._ids)})

    def documents(self) -> Iterator[Record]:
        """The documents: fields `title` and `text` where the type has them, else what `default_text()` gives."""
        for number, entry in read(self.id, "docs"):
            title, text = getattr(entry, "title", ""), getattr(entry, "text", None)
            if not (isinstance(text, str) and isinstance(title, str)):
                title, text = "", _default_text(entry)
            yield Record(str(entry.doc_id), title, text, f"{self.id} documents:{number}")

    def queries(self) -> Iterator[Record]:
        """The queries of all splits, each once."""
        seen: dict[str, str] = {}
        for id in self._ids.values():
            for number, entry in read(id, "queries"):
                key, text, where = str(entry.query_id), _default_text(entry), f"{id} queries:{number}"
                # Within one set a repeated id is left for prepare to refuse.
                if seen.get(key, id) != id:
                    continue
                seen[key] = id
                yield Record(key, "", text, where)

    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(self._ids)

    def qrels(self, split: str) -> Iterator[Judgement]:
        """The judgements of a split."""
        id = self._ids[split]
        for number, entry in read(id, "qrels"):
            yield Judgement(str(entry.query_id), str(entry.doc_id), entry.relevance, f"{id} qrels:{number}")

    def describe(self) -> dict[str, Any]:
        """The ids that were read, and the version of ir_datasets."""
        import ir_datasets

        return {"source": "ir_datasets", "id": self.id, "splits": self._ids, "ir_datasets": ir_datasets.__version__}

    def _find_splits(self) -> dict[str, str]:
        if _load(self.id).has_qrels():
            usual = [part for part in self.id.split("/") if part in _USUAL]
            return {usual[-1] if usual else "test": self.id}
        found = {}
        for split in _USUAL:
            with contextlib.suppress(DataError):
                if _load(f"{self.id}/{split}").has_qrels():
                    found[split] = f"{self.id}/{split}"
        if not found:
            raise DataError(
                f"ir_datasets has judgements neither for {self.id} nor for {self.id}/{{{','.join(_USUAL)}}}; "
                f"name the sets: data.splits={{test: {self.id}/...}}; there are: {', '.join(_below(self.id)) or 'none'}"
            )
        return found

    def _state(self) -> str | None:
        """What identifies the files that these sets are read from; None where there are none."""
        folders = sorted({id.split("/")[0] for id in (self.id, *self._ids.values())})
        files = [file for name in folders for file in sorted((_home() / name).rglob("*")) if file.is_file()]
        return hash_json([self.id, self._ids, [stamp(file) for file in files]]) if files else None


def read(id: str, what: str) -> Iterator[tuple[int, Any]]:
    """(number from 1, entry) of the "docs", "queries", "qrels" or "docpairs" of a registered set.

    DataError for an id that is unknown and a set that has none of these, Unavailable for one whose files cannot be had.
    """
    dataset = _load(id)
    if not getattr(dataset, f"has_{what}")():
        raise DataError(f"the ir_datasets set {id!r} has no {what}; name one that has")
    _refuse_deletion(dataset)
    entries = None
    number = 0
    while True:
        try:
            if entries is None:
                entries = iter(getattr(dataset, f"{what}_iter")())
            entry = next(entries)
        except StopIteration:
            return
        except (OSError, EOFError, RuntimeError, ValueError, LookupError, AssertionError, zipfile.BadZipFile) as error:
            # requests' errors are OSErrors; ir_datasets raises the others for files that are not what it expects.
            raise Unavailable(
                f"cannot read the {what} of the ir_datasets set {id!r} (after {number}): its files are "
                f"neither usable in {_home() / id.split('/')[0]} nor downloadable "
                f"({type(error).__name__}: {str(error)[:200]}). "
                f"Put them there, or set IR_DATASETS_HOME to where they are: {_wanted(id)}",
                "data=beir data.root=DIR, with a folder of corpus.jsonl, queries.jsonl and qrels/*.tsv"
                + (" such as the archive holds" if id.startswith("beir/") else ""),
            ) from error
        number += 1
        yield number, entry


def _wanted(id: str) -> str:
    """Which files ir_datasets reads a set from, where each comes from and where it goes."""
    from ir_datasets.util import DownloadConfig

    top, _, rest = id.partition("/")
    folder = _home() / top
    try:
        known = DownloadConfig.context(top, folder).contents()
    except (OSError, LookupError, ValueError):
        known = {}
    own = [name for name in known if name.split("/")[0] == rest.split("/")[0]]
    # Sets of one corpus share it: it lies beside the parts that are named after a split.
    corpus = [name for name in known if name.startswith(("collection", "docs", "main"))]
    shared = corpus if own and "/" in own[0] else [] if own else corpus or list(known)
    parts = []
    for name in [*shared, *own][:_TOLD]:
        url, path = known[name].get("url"), known[name].get("cache_path")
        if url is not None:
            parts.append(f"{url} as {folder / path}" if path else url)
    files = "; ".join(parts) or "https://ir-datasets.com says which files"
    if top == "msmarco-passage":
        files += f" (unpacked, {folder / 'collection.tsv'} will do, once {folder / 'irds_version.txt'} says v2)"
    return files


def _home() -> Path:
    import ir_datasets

    return ir_datasets.util.home_path()


def _load(id: str) -> Any:
    """The registered set; DataError with similar ids for one that is unknown."""
    import ir_datasets

    try:
        return ir_datasets.load(id)
    except KeyError as error:
        close = difflib.get_close_matches(id, list(ir_datasets.registry), n=5, cutoff=0.6)
        more = f"; did you mean {' or '.join(close)}?" if close else "; https://ir-datasets.com lists them"
        raise DataError(f"ir_datasets knows no set {id!r}{more}") from error


def _below(id: str) -> list[str]:
    import ir_datasets

    return sorted(name for name in ir_datasets.registry if name.startswith(f"{id}/"))[:20]


def _default_text(entry: Any) -> str:
    if hasattr(entry, "default_text"):
        return entry.default_text()
    return entry.text


def _refuse_deletion(dataset: Any) -> None:
    """ir_datasets deletes files of an older layout when it is first used; not those that a user put there himself."""
    from ir_datasets.util import Migrator

    for part in getattr(dataset, "_constituents", []):
        if not isinstance(part, Migrator):
            if hasattr(part, "_constituents"):
                _refuse_deletion(part)
            continue
        version = Path(part._version_file)
        # Indexes (.pklz4) are made again from what they index; anything else would be lost.
        lost = [file for file in map(Path, part._affected_files) if file.exists() and file.suffix != ".pklz4"]
        if lost and (not version.exists() or version.read_text().strip() != part._version):
            raise DataError(
                f"ir_datasets would DELETE {', '.join(map(str, lost))}, because {version} does not say "
                f"{part._version!r}. If the files are right, run: printf {part._version} > {version}"
            )
