"""Artifacts: whole or not there, verified when opened, made by one process at a time, gone on with after a kill."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from colbert_lab import artifact, locks
from colbert_lab.artifact import MANIFEST, Artifact, build, finished, key_of, partial_path, waiting, write_atomic
from colbert_lab.errors import ArtifactError


def make(path, content="text", key="k" * 64, kind="thing", log="", **more):
    with build(path, kind, key, **more) as work:
        (work.path / "deep").mkdir(exist_ok=True)
        (work.path / "deep" / "file.txt").write_text(content)
        if log:
            (work.log / "curve.jsonl").write_text(log)
        work.counts["files"] = 1
    return Artifact.open(path)


def run(script, *arguments):
    names = "import os, signal, sys\nfrom pathlib import Path\nfrom colbert_lab.artifact import *\n"
    given = [sys.executable, "-c", names + textwrap.dedent(script), *map(str, arguments)]
    return subprocess.Popen(given, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_what_was_made_is_what_is_opened(tmp_path):
    made = make(tmp_path / "a", inputs={"model": "m"}, config={"x": [1, None]})
    assert made.kind == "thing"
    assert made.path == tmp_path / "a"
    assert made.manifest["counts"] == {"files": 1}
    assert made.manifest["inputs"] == {"model": "m"}
    assert made.manifest["config"] == {"x": [1, None]}
    assert list(made.manifest["files"]) == ["deep/file.txt"]
    assert {p.name for p in tmp_path.iterdir()} == {"a"}
    assert {p.name for p in made.path.iterdir()} == {"deep", MANIFEST}
    assert Artifact.open(str(made.path), kind=("other", "thing"), full=True) == made


def test_the_digest_is_of_kind_and_content_alone(tmp_path):
    one = make(tmp_path / "one", log="fast").digest
    assert make(tmp_path / "two", key="o" * 64, log="slow", config={"x": 1}).digest == one
    assert make(tmp_path / "three", content="other").digest != one
    assert make(tmp_path / "four", kind="matter").digest != one
    (tmp_path / "one" / "log" / "curve.jsonl").write_text("more, later")
    assert Artifact.open(tmp_path / "one", full=True).digest == one


def test_a_body_that_fails_leaves_a_partial_that_is_taken_up(tmp_path):
    path = tmp_path / "a"
    with pytest.raises(RuntimeError), build(path, "thing", "key") as work:  # noqa: PT012
        (work.path / "half").write_text("done")
        raise RuntimeError
    assert not path.exists()
    assert not finished(path, "key")
    for place in (path, partial_path(path)):
        with pytest.raises(ArtifactError, match="is unfinished"):
            Artifact.open(place)
    with pytest.raises(ArtifactError, match="begun from other inputs"), build(path, "thing", "other"):
        pytest.fail("the partial of another key was taken up")
    with build(path, "thing", "key") as work:
        assert (work.path / "half").read_text() == "done"
    assert list(Artifact.open(path).manifest["files"]) == ["half"]
    assert finished(path, "key")


def test_sigkill_at_any_moment(tmp_path):
    """Killed in the body, inside write_atomic, at the manifest, at the rename and right after it."""
    whole = make(tmp_path / "whole").digest
    for moment in ("body", "fsync", "manifest", "rename", "after"):
        path = tmp_path / moment
        ended = run(
            """
            path, moment = Path(sys.argv[1]), sys.argv[2]
            def die(*args):
                os.kill(os.getpid(), signal.SIGKILL)
            with build(path, "thing", "k" * 64) as work:
                (work.path / "deep").mkdir()
                (work.path / "deep" / "file.txt").write_text("te")
                if moment == "body":
                    die()
                if moment == "fsync":
                    os.fsync = die
                    write_atomic(work.path / "journal", b"1")
                replace, unlink = os.replace, Path.unlink
                def replacing(old, new):
                    if moment == "manifest" and Path(new).name == "manifest.json":
                        die()
                    if moment == "rename" and Path(new) == path:
                        die()
                    replace(old, new)
                    if moment == "after" and Path(new) == path:
                        die()
                os.replace = replacing
        """,
            path,
            moment,
        )
        assert ended.wait(600) == -signal.SIGKILL
        if moment == "after":
            found = Artifact.open(path, full=True)
            assert list(found.manifest["files"]) == ["deep/file.txt"]
            continue
        assert not path.exists(), moment
        with pytest.raises(ArtifactError, match="unfinished"):
            Artifact.open(path)
        with pytest.raises(ArtifactError, match="begun from other inputs"), build(path, "thing", "other"):
            pytest.fail("the partial of another key was taken up")
        assert make(path).digest == whole, f"something is left of the kill at the {moment}"


def stopped_before_its_rename(path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stopping_at(path))
        with pytest.raises(KeyboardInterrupt):
            make(path)
    assert (partial_path(path) / MANIFEST).exists()


def stopping_at(path, replace=os.replace):
    def replacing(old, new):
        if new == path:
            raise KeyboardInterrupt
        replace(old, new)

    return replacing


@pytest.mark.parametrize("wait", [False, True])
def test_what_was_whole_before_its_rename_is_put_in_its_place(tmp_path, monkeypatch, wait):
    path = tmp_path / "a"
    stopped_before_its_rename(path, monkeypatch)
    with waiting() if wait else contextlib.nullcontext():
        assert finished(path, "k" * 64)
    assert Artifact.open(path, full=True).manifest["counts"] == {"files": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert not (path / "key").exists()


def test_what_is_not_whole_though_it_has_a_manifest_is_made_again(tmp_path, monkeypatch):
    path = tmp_path / "a"
    stopped_before_its_rename(path, monkeypatch)
    (partial_path(path) / "deep" / "file.txt").write_text("tex!")
    assert not finished(path, "k" * 64)
    assert make(path).digest == make(tmp_path / "other").digest


def test_what_another_made_while_the_lock_was_waited_for_is_not_made_again(tmp_path, monkeypatch):
    path, real = tmp_path / "a", locks.taken

    def late(place):
        monkeypatch.setattr(locks, "taken", real)
        make(path)
        return real(place)

    monkeypatch.setattr(locks, "taken", late)
    with pytest.raises(ArtifactError, match="choose another run_dir"), build(path, "thing", "key"):
        pytest.fail("it is made again, for hours")
    assert not partial_path(path).exists()
    Artifact.open(path, full=True)


def test_two_makers_at_once(tmp_path):
    path = tmp_path / "a"
    other = run(
        """
        with build(Path(sys.argv[1]), "thing", "key") as work:
            print("begun", flush=True)
            sys.stdin.read()
    """,
        path,
    )
    assert other.stdout.readline() == "begun\n"
    with pytest.raises(ArtifactError, match="another process is making"), build(path, "thing", "key"):
        pytest.fail("both of them make it")
    other.communicate()
    assert other.returncode == 0
    assert finished(path, "key")


def test_a_job_of_a_sweep_waits_for_what_another_makes(tmp_path):
    """Six at once: one makes it, the others find it; the maker that is killed leaves it to one of those who wait."""
    code = """
        with waiting():
            made = not finished(Path(sys.argv[1]), "key")
            if made:
                with build(Path(sys.argv[1]), "thing", "key") as work:
                    print("making", flush=True)
                    sys.stdin.readline()
                    (work.path / "file").write_text("whole")
            print("made" if made else "found", flush=True)
    """
    first = run(code, tmp_path / "a")
    assert first.stdout.readline() == "making\n"
    others = [run(code, tmp_path / "a") for _ in range(4)]
    first.kill()
    first.wait()
    # All are let go before one is waited for: whichever makes it now, the others wait for that one.
    for other in others:
        other.stdin.write("\n")
        other.stdin.flush()
    told = sorted(other.communicate()[0] for other in others)
    assert told == ["found\n"] * 3 + ["making\nmade\n"]
    assert finished(tmp_path / "a", "key")
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_finished_tells_keys_apart(tmp_path):
    path = tmp_path / "a"
    assert not finished(path, "key")
    make(path, key="key")
    assert finished(path, "key")
    with pytest.raises(ArtifactError, match="already holds a thing made from other inputs"):
        finished(path, "other")


@pytest.mark.parametrize("standing", ["artifact", "foreign", "file"])
def test_what_stands_there_is_never_overwritten(tmp_path, standing):
    path = tmp_path / "a"
    if standing == "artifact":
        make(path)
    elif standing == "foreign":
        path.mkdir()
        (path / "thesis.tex").write_text("years of work")
    else:
        path.write_text("years of work")
    ran = []
    with pytest.raises(ArtifactError, match="choose another run_dir"), build(path, "thing", "key"):
        ran.append("the body, for hours")
    assert ran == []
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    if standing == "artifact":
        Artifact.open(path, full=True)


def test_an_empty_directory_is_taken(tmp_path):
    (tmp_path / "a").mkdir()
    assert make(tmp_path / "a").manifest["counts"] == {"files": 1}


def test_changed_and_missing_files_are_noticed(tmp_path):
    path = make(tmp_path / "a").path
    file = path / "deep" / "file.txt"
    for content, said in (("text, longer", "has 12 bytes"), ("tex!", "was changed after it was written")):
        file.write_text(content)
        with pytest.raises(ArtifactError, match=said):
            Artifact.open(path)
    file.write_text("text")
    Artifact.open(path)
    file.unlink()
    with pytest.raises(ArtifactError, match=r"lacks deep/file\.txt"):
        Artifact.open(path)


def test_large_files_are_hashed_when_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(artifact, "HASHED_ON_OPEN", 3)
    path = make(tmp_path / "a").path
    (path / "deep" / "file.txt").write_text("tex!")
    Artifact.open(path)
    with pytest.raises(ArtifactError, match="was changed"):
        Artifact.open(path, full=True)
    (path / "deep" / "file.txt").write_text("longer")
    with pytest.raises(ArtifactError, match="6 bytes"):
        Artifact.open(path)


def test_what_is_no_artifact_of_the_kind_is_refused(tmp_path):
    path = make(tmp_path / "a").path
    with pytest.raises(ArtifactError, match="holds a thing, but a index or model is needed"):
        Artifact.open(path, kind=("index", "model"))
    with pytest.raises(ArtifactError, match="does not exist"):
        Artifact.open(tmp_path / "b")
    with pytest.raises(ArtifactError, match="is no artifact"):
        Artifact.open(tmp_path)
    whole = json.loads((path / MANIFEST).read_text())
    for content, said in (
        (json.dumps({**whole, "schema": 0}), "schema 0, this version reads 1"),
        ("{", "cannot be read as a manifest"),
        ("[]", "cannot be read as a manifest"),
        ("{}", "cannot be read as a manifest"),
    ):
        (path / MANIFEST).write_text(content)
        with pytest.raises(ArtifactError, match=said):
            Artifact.open(path)


def test_keys_depend_on_all_that_goes_in():
    key = key_of("index", {"a": 1, "b": 2}, {"model": "m"})
    assert key == key_of("index", {"b": 2, "a": 1}, {"model": "m"})
    others = [
        key_of("search", {"a": 1, "b": 2}, {"model": "m"}),
        key_of("index", {"a": 1, "b": 3}, {"model": "m"}),
        key_of("index", {"a": 1, "b": 2}, {"model": "n"}),
    ]
    assert len({key, *others}) == 4


def test_atomic_writes_show_the_old_content_or_the_new(tmp_path, monkeypatch):
    file = tmp_path / "file"
    write_atomic(file, b"old")
    seen = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (seen.append(file.read_bytes()), fsync(handle)))
    write_atomic(file, b"new")
    assert seen == [b"old"]
    assert file.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
