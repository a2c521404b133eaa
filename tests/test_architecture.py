"""The floors of the house, read from its imports: a room uses the floors below it, a package stays in its home."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "colbert_lab"
FLOORS = (
    ("errors", "ragged", "artifact", "locks", "run", "progress", "processes", "threads"),
    ("scoring", "losses", "compression"),
    ("text", "models", "data"),
    ("index", "search"),
    ("evaluation", "mining"),
    ("training", "tracking", "report"),
    ("stages",),
    ("cli",),
)
# Rooms of one floor that use each other: a model holds its tokenizer, a lexical index its BM25, training a tracker,
# and codewords are found by compiled loops in threads, as scores are.
BESIDE = {("models", "text"), ("index", "search"), ("training", "tracking"), ("artifact", "errors"), ("run", "errors")}
BESIDE |= {("compression", "scoring"), ("artifact", "locks"), ("processes", "errors")}
HOMES = {
    "hydra": ["stages/*"],
    "omegaconf": ["stages/*"],
    "pytorch_lightning": ["training/*"],
    "wandb": ["tracking/wandb.py"],
    "ranx": ["evaluation/metrics.py"],
    "ir_datasets": ["data/ir_datasets.py"],
    "transformers": ["text/*", "models/*"],
    "datasets": ["data/*"],
    "bm25s": ["search/bm25.py"],
    "lightning": [],
    "matplotlib": ["report/*"],
    "optuna": ["stages/*"],
    "pyarrow": ["data/*", "mining/*"],
    "faiss": ["index/*", "compression/*"],
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(file: Path) -> Iterator[str]:
    """Dotted names of everything that a file imports, wherever in it, import_module("...") as well."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (part.value for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant))


def room(name: str) -> str:
    """The room of a module, given by its path in the package or its dotted name."""
    parts = name.removesuffix(".py").replace("/", ".").split(".")
    return parts[1] if parts[0] == "colbert_lab" else parts[0]


def test_every_room_is_on_a_floor():
    rooms = {room(str(file.relative_to(PACKAGE))) for file in MODULES} - {"__init__"}
    assert len(rooms) >= 14
    assert rooms <= {name for floor in FLOORS for name in floor}


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_room_uses_only_what_lies_below(file):
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    here = room(str(file.relative_to(PACKAGE)))
    used = {room(name) for name in imports(file) if name.startswith("colbert_lab.")} - {here, "__version__"}
    wrong = {there for there in used if floor[there] >= floor[here] and (here, there) not in BESIDE}
    assert wrong == set()


@pytest.mark.parametrize("package", HOMES)
def test_a_package_is_imported_only_in_its_home(package):
    users = {
        str(file.relative_to(PACKAGE)) for file in MODULES if package in {name.split(".")[0] for name in imports(file)}
    }
    assert [user for user in users if not any(fnmatch(user, home) for home in HOMES[package])] == []
    assert users or package in ("lightning", "faiss")


def test_a_file_fits_in_the_head():
    lengths = {str(file.relative_to(PACKAGE)): len(file.read_text().splitlines()) for file in MODULES}
    assert {name: length for name, length in lengths.items() if length > 350} == {}


def test_the_mathematics_does_not_load_the_frameworks():
    heavy = ("transformers", "pytorch_lightning", "hydra", "wandb", "datasets")
    code = f"import colbert_lab.scoring.maxsim, colbert_lab.losses, sys; print({heavy} & sys.modules.keys())"
    code = code.replace(f"{heavy}", f"set({heavy})")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=True)
    assert done.stdout.strip() == "set()"
