"""Every command that the README shows is run, on a toy collection with a tiny backbone, in the README's order."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from colbert_lab import cli
from colbert_lab.stages.launch import launch

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TRAINED = [
    "projection.dim=16",
    "train.max_steps=2",
    "train.batch_queries=4",
    "train.judge_every=2",
    "train.document_length=null",
]
TAUGHT = [
    "teacher.max_length=40",
    "teacher_train.max_steps=2",
    "teacher_train.batch_queries=4",
    "teacher_train.negatives=2",
    "teacher_train.judge_every=2",
]
DISTILLED = [
    "distil_train.max_steps=2",
    "distil_train.batch_queries=4",
    "distil_train.negatives=3",
    "distil_train.judge_every=2",
    "distil_train.document_length=null",
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line]


def smaller(verb: str, tiny: Path, words: list[str]) -> list[str]:
    """Overrides that make a README command a matter of seconds."""
    extra = []
    given = any(word.startswith("model=") for word in words)
    if verb in ("pipeline", "train", "init", "rounds") and not given:
        extra += [f"backbone.name={tiny}", "text.document_length=24", "text.query_length=16"]
    if verb in ("pipeline", "train", "rounds"):
        extra += TRAINED[given:]
    if verb == "teacher":
        extra += [f"teacher.backbone={tiny}", *TAUGHT]
    if verb == "rounds":
        extra += DISTILLED
    if verb == "mine":
        extra += ["mine.ranks=[1,60]"]
    untracked = ("table", "verify", "report", "runs", "show", "replay")
    return extra if verb in untracked else [*extra, "tracking=none"]


def test_the_readme_shows_what_it_must():
    assert len(commands()) >= 13
    verbs = {Path(word).stem for line in commands() for word in shlex.split(line) if word.startswith("experiments/")}
    assert verbs == {path.stem for path in (ROOT / "experiments").glob("*.py")}
    assert len(README.splitlines()) < 330


def test_every_command_runs(tmp_path, monkeypatch, capsys, toy_folder, tiny_backbone, jobs_here):
    monkeypatch.chdir(tmp_path)
    query = (toy_folder / "qrels" / "test.tsv").read_text().split("\n")[1].split("\t")[0]
    for line in commands():
        sweeps = list(Path("outputs/sweeps").glob("*"))
        given = {"$DIR": str(toy_folder), "$SWEEP": str(sweeps[0] if sweeps else ""), "$QUERY": query}
        for name, value in given.items():
            line = line.replace(name, value)
        words = shlex.split(line)
        if words[0].startswith("scripts/"):
            assert (ROOT / words[0]).stat().st_mode & 0o111, f"{words[0]} cannot be run"
            continue
        if words[0] == "colbert-lab":
            extra = smaller(words[1], tiny_backbone, words) if words[1:] and not words[1].startswith("-") else []
            monkeypatch.setattr(sys, "argv", ["colbert-lab", *words[1:], *extra])
            cli.main()
        elif words[1].startswith("scripts/"):
            told = subprocess.run(
                [sys.executable, ROOT / words[1], *words[2:]], capture_output=True, text=True, check=True
            )
            print(told.stdout)
        else:
            assert words[0] == "python"
            verb = Path(words[1]).stem
            monkeypatch.setattr(sys, "argv", [words[1]])
            launch(verb, [*words[2:], *smaller(verb, tiny_backbone, words)])
        assert capsys.readouterr().out.strip(), f"{line} printed nothing"
    for made in ("my/model", "my/index", "my/run", "my/start", "my/reranked", "my/teacher", "my/tuples"):
        assert (Path(made) / "manifest.json").exists()
    for block in blocks("python"):
        exec(compile(block, "README", "exec"), {})
        assert capsys.readouterr().out.startswith("tensor(")


@pytest.mark.parametrize(
    "group",
    [
        "data",
        "experiment",
        "examples",
        "backbone",
        "text",
        "projection",
        "loss",
        "index",
        "probe",
        "rounds",
        "teacher",
        "sampler",
        "systems",
        "benchmark",
        "sweep",
    ],
)
def test_the_choices_it_lists_are_those_there_are(group):
    listed = next(line for line in README.splitlines() if line.startswith(f"| `{group}`"))
    there = {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}
    named = set(re.findall(r"`([a-z0-9_]+)`", listed)) - {group}
    assert there <= named
