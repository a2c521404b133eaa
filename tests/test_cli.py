"""colbert-lab, the command: its usage, and the configuration inside the wheel."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from colbert_lab import __version__, cli
from colbert_lab.stages.launch import VERBS

REPOSITORY = Path(__file__).resolve().parent.parent


def call(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["colbert-lab", *arguments])
    cli.main()


def test_usage_names_every_verb(monkeypatch, capsys):
    for arguments in ([], ["--help"], ["-h"]):
        call(monkeypatch, *arguments)
        shown = capsys.readouterr().out
        assert shown.startswith("colbert-lab VERB")
        assert all(f"  {verb} " in shown for verb in VERBS)
    call(monkeypatch, "--version")
    assert capsys.readouterr().out.strip() == __version__


def test_an_unknown_verb_is_named_beside_the_known_ones(monkeypatch):
    with pytest.raises(SystemExit) as caught:
        call(monkeypatch, "trian", "seed=1")
    assert "no verb 'trian'" in caught.value.code
    assert "  train " in caught.value.code


def test_a_verb_gets_the_arguments_after_it(monkeypatch, capsys):
    with pytest.raises(SystemExit) as caught:
        call(monkeypatch, "index", "encode.precison=fp32")
    assert caught.value.code == 1
    assert "encode.precision=fp32" in capsys.readouterr().err


@pytest.mark.parametrize(("ranks", "told"), [("2", "of WORLD_SIZE=2"), ("1", "encode.precision=fp32"), ("", "fp32")])
def test_one_of_several_processes_is_refused_before_anything_else(monkeypatch, capsys, ranks, told):
    monkeypatch.setenv("WORLD_SIZE", ranks)
    with pytest.raises(SystemExit) as caught:
        call(monkeypatch, "index", "encode.precison=fp32")
    assert caught.value.code == 1
    assert told in capsys.readouterr().err


def test_every_verb_has_its_main():
    mains = {file.stem: file.read_text() for file in (REPOSITORY / "experiments").glob("*.py")}
    assert mains.keys() == VERBS.keys()
    assert [verb for verb, text in mains.items() if f'launch("{verb}")' not in text] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of a copy of the tree."""
    copy = tmp_path_factory.mktemp("tree") / "colbert"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("colbert_lab", "conf"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(REPOSITORY / name, copy)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=copy, check=True, capture_output=True
    )
    return next((copy / "dist").glob("*.whl"))


def test_the_wheel_holds_code_and_configuration(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"colbert_lab/_conf/{file.relative_to(REPOSITORY / 'conf')}" for file in REPOSITORY.glob("conf/**/*.yaml")
    }
    assert len(expected) > 30
    assert expected <= inside
    code = {
        str(file.relative_to(REPOSITORY))
        for kind in ("py", "yaml", "css", "js")
        for file in REPOSITORY.glob(f"colbert_lab/**/*.{kind}")
    }
    assert {Path(name).suffix for name in code} == {".py", ".yaml", ".css", ".js"}
    assert code <= inside
    assert {name.split("/")[0] for name in inside} == {"colbert_lab", f"colbert_lab-{__version__}.dist-info"}


def test_the_unpacked_wheel_finds_its_configuration(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import colbert_lab, sys; from colbert_lab.stages.launch import conf_dir, launch; print(conf_dir());"
        "launch('train', ['loss=hing'])"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == str(tmp_path / "site" / "colbert_lab" / "_conf")
    assert done.returncode == 1
    assert "did you mean 'hinge'?" in done.stderr
