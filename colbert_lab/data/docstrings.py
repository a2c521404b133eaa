"""Docstrings of installed packages, found by parsing their files; nothing is imported or run."""

import ast
import contextlib
import gc
import importlib.util
import inspect
import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from colbert_lab.errors import DataError

_SKIPPED = ("test", "_vendor", "vendor", "extern", "third_party", "example", "benchmark", ".")
_QUOTES = b'"""'


@dataclass(frozen=True)
class Docstring:
    """The docstring of one function, class, method or module, cleaned of its indentation."""

    file: str
    name: str
    text: str


def package_folder(package: str) -> Path:
    """Where a package is installed, without importing it; DataError where it is not."""
    with contextlib.suppress(ValueError):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            return Path(next(iter(spec.submodule_search_locations)))
    raise DataError(f"the package {package!r} is not installed; name others: data.packages=[numpy,scipy]")


def source_files(package: str, megabytes: float) -> dict[str, Path]:
    """ "<package>/<path>" -> file, sorted, of the .py files with docstrings, tests and vendored code left out.

    Where these are larger than `megabytes` together, as many as fit are chosen by a hash of the name.
    """
    folder = package_folder(package)
    found = []
    for directory, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(_SKIPPED))
        for file in sorted(files):
            if file.endswith(".py") and not file.startswith(("test", "conftest")):
                path = Path(directory) / file
                content = path.read_bytes()
                # Two docstrings at least, or parsing it is not worth the time.
                if content.count(_QUOTES) >= 4:
                    found.append((f"{package}/{path.relative_to(folder).as_posix()}", path, len(content)))
    chosen, room = {}, megabytes * 2**20
    for name, path, size in sorted(found, key=lambda entry: blake2b(entry[0].encode(), digest_size=8).digest()):
        if size <= room:
            chosen[name] = path
            room -= size
    return dict(sorted(chosen.items()))


def docstrings(name: str, path: Path) -> list[Docstring]:
    """The docstrings of a file: its own, and those of public functions, classes and methods, in order."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        # Files for other versions of Python, templates: not ours to read.
        return []
    found = [Docstring(name, "", text)] if (text := ast.get_docstring(tree)) else []
    seen = set()
    for qualified, node in _definitions(tree, ""):
        text = ast.get_docstring(node, clean=False)
        if text and qualified not in seen:
            seen.add(qualified)
            found.append(Docstring(name, qualified, inspect.cleandoc(text)))
    return found


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Parsing allocates millions of nodes that the collector would walk again and again: half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _definitions(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, ast.AST]]:
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not child.name.startswith("_"):
            yield prefix + child.name, child
            if isinstance(child, ast.ClassDef):
                yield from _definitions(child, f"{prefix}{child.name}.")
