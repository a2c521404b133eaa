"""The files of an index: killed at whatever moment, the directory holds what was committed, and every byte counts."""

import errno
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from colbert_lab.errors import ArtifactError, DataError
from colbert_lab.index import files as module
from colbert_lab.index import npy
from colbert_lab.index.files import Files

FACTS = {"dim": 3}
ROWS = np.arange(30, dtype=np.float32).reshape(10, 3)
STRINGS = ["007", "a b", "tab\there", "új\u2028sor\x85", "line\nbreak\r", '"quoted"', "", " \u00a0", "é", "z"]


def make(folder, chunk=4):
    """Ten rows and strings in chunks, one array replaced at the end; goes on from wherever it was left."""
    made = Files.edit(folder, FACTS)
    while made.rows("values") < 10:
        first = made.rows("values")
        made.append("values", ROWS[first : first + chunk])
        made.append_strings("ids", STRINGS[first : first + chunk])
        made.commit()
    if not made.finished:
        made.replace("lists", np.arange(5, dtype=np.uint16))
        made.commit(finished=True, lists=5)
    return made


def change(folder):
    """One edit that appends and replaces; done once however often it is called."""
    edited = Files.edit(folder)
    if edited.rows("values") == 10:
        edited.append("values", ROWS[:2])
        edited.append_strings("ids", ["new", "newer"])
        edited.replace("lists", np.arange(7, dtype=np.uint16))
        edited.commit(lists=7)


def content(folder):
    opened = Files.open(folder)
    opened.verify()
    return opened.array("values").tolist(), opened.strings("ids"), opened.array("lists").tolist(), opened.facts["lists"]


def raw(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def die_at(count):
    """Kill this process at the count-th moment at which something reaches the disk."""
    seen = []

    def counting(whole):
        def call(*args, **options):
            seen.append(whole)
            if len(seen) == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return whole(*args, **options)

        return call

    os.fsync, os.replace, Path.unlink = counting(os.fsync), counting(os.replace), counting(Path.unlink)


def killed(work, folder, count):
    """Whether `work` was killed at that moment; False where it had ended before."""

    def body():
        die_at(count)
        work(folder)

    child = multiprocessing.get_context("fork").Process(target=body)
    child.start()
    child.join(60)
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode != 0


def test_what_is_read_is_what_was_written(tmp_path):
    make(tmp_path)
    assert content(tmp_path) == (ROWS.tolist(), STRINGS, [0, 1, 2, 3, 4], 5)
    assert np.array_equal(np.load(tmp_path / "values.npy"), ROWS)
    opened = Files.open(tmp_path)
    assert opened.bytes() == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert "values" in opened
    assert "other" not in opened


def test_chunks_leave_no_trace(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 16)
    for chunk in (1, 3, 10):
        make(tmp_path / str(chunk), chunk)
    assert raw(tmp_path / "1") == raw(tmp_path / "3") == raw(tmp_path / "10")


def test_sigkill_at_every_moment_of_a_making(tmp_path):
    make(tmp_path / "whole")
    count = 1
    while killed(make, tmp_path / str(count), count):
        make(tmp_path / str(count))
        assert raw(tmp_path / str(count)) == raw(tmp_path / "whole"), count
        count += 1
    assert count > 12


def test_sigkill_at_every_moment_of_an_edit(tmp_path):
    make(tmp_path / "before")
    before = content(tmp_path / "before")
    make(tmp_path / "after")
    change(tmp_path / "after")
    after = content(tmp_path / "after")
    assert after == ([*ROWS.tolist(), *ROWS[:2].tolist()], [*STRINGS, "new", "newer"], list(range(7)), 7)
    count, states = 1, []
    while True:
        folder = tmp_path / str(count)
        make(folder)
        if not killed(change, folder, count):
            break
        states.append(content(folder))
        assert states[-1] in (before, after)
        change(folder)
        assert raw(folder) == raw(tmp_path / "after"), count
        count += 1
    assert before in states
    assert after in states


@pytest.mark.parametrize("block", [8, 2**24])
def test_every_flipped_byte_is_found_and_named(tmp_path, monkeypatch, block):
    monkeypatch.setattr(module, "_BLOCK", block)
    make(tmp_path)
    for name, whole in raw(tmp_path).items():
        for position in range(0, len(whole), 1 if block > 8 else 7):
            (tmp_path / name).write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
            with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
                Files.open(tmp_path).verify()
        (tmp_path / name).write_bytes(whole)
    Files.open(tmp_path).verify()


def test_a_missing_or_cut_file_is_found_at_open(tmp_path):
    make(tmp_path)
    for name, whole in raw(tmp_path).items():
        (tmp_path / name).write_bytes(whole[:-1])
        with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
            Files.open(tmp_path)
        (tmp_path / name).unlink()
        with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
            Files.open(tmp_path)
        (tmp_path / name).write_bytes(whole)


def test_blocks_that_were_full_are_not_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 60)  # five rows
    make(tmp_path)
    with (tmp_path / "values.npy").open("r+b") as handle:
        handle.seek(130)
        handle.write(b"\xff")
    change(tmp_path)
    with pytest.raises(ArtifactError, match=r"values\.npy was changed .*block 0"):
        Files.open(tmp_path).verify()


@pytest.mark.parametrize("moment", [1, 2, 3, 4])
def test_a_full_disk_leaves_what_was_committed(tmp_path, monkeypatch, moment):
    make(tmp_path)
    before = content(tmp_path)
    seen = []

    def full(handle, whole=os.fsync):
        seen.append(handle)
        if len(seen) == moment:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError, match=r"the disk is full: .*(npy|jsonl|json) could not be written"):
        change(tmp_path)
    monkeypatch.undo()
    assert content(tmp_path) == before
    change(tmp_path)
    assert content(tmp_path)[3] == 7


def test_a_disk_that_fills_up_in_an_append(tmp_path):
    """A real file system's limit: RLIMIT_FSIZE cuts a write short as a full disk does, here with EFBIG."""
    import resource

    make(tmp_path)
    before = content(tmp_path)

    def body():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
        edited = Files.edit(tmp_path)
        try:
            edited.append("values", ROWS)
        except OSError:
            edited.append("values", ROWS[:1])  # what was half written does not stand before it
            os._exit(0 if (tmp_path / "values.npy").stat().st_size == 128 + 11 * 12 else 1)
        os._exit(2)

    child = multiprocessing.get_context("fork").Process(target=body)
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert content(tmp_path) == before


def test_what_cannot_be(tmp_path):
    with pytest.raises(ArtifactError, match="holds no finished index"):
        Files.open(tmp_path)
    with pytest.raises(ArtifactError, match="holds no index"):
        Files.edit(tmp_path)
    begun = Files.edit(tmp_path, FACTS)
    begun.append("values", ROWS)
    begun.commit()
    with pytest.raises(ArtifactError, match="unfinished"):
        Files.open(tmp_path)
    with pytest.raises(ArtifactError, match="is being edited by another"):
        Files.edit(tmp_path)
    with pytest.raises(ValueError, match=r"values is <f4 \[n, 3\], not <f8 \[n, 3\]"):
        begun.append("values", ROWS.astype(np.float64))
    begun.commit(finished=True)
    with pytest.raises(ArtifactError, match=r"was begun with \{'dim': 3\}, now \{'dim': 4\}"):
        Files.edit(tmp_path, {"dim": 4})
    for closed in (Files.open(tmp_path), begun):
        with pytest.raises(ValueError, match="is not being edited"):
            closed.append("values", ROWS)
        with pytest.raises(ValueError, match="is not being edited"):
            closed.commit()
    (tmp_path / "manifest.json").touch()
    with pytest.raises(ArtifactError, match="never changes"):
        Files.edit(tmp_path)


def test_an_array_that_grew_can_be_taken_away(tmp_path):
    make(tmp_path)
    with Files.edit(tmp_path) as edited:
        edited.replace("values", None)
        edited.commit()
    assert "values" not in Files.open(tmp_path)
    assert not (tmp_path / "values.npy").exists()
    with Files.edit(tmp_path) as edited:
        edited.append("values", ROWS[:1])
        edited.commit()
    assert Files.open(tmp_path).array("values").tolist() == [[0.0, 1.0, 2.0]]


def test_what_another_changed_meanwhile_is_not_edited(tmp_path):
    make(tmp_path)
    seen = Files.open(tmp_path)
    change(tmp_path)
    with pytest.raises(ArtifactError, match="was changed by another since it was opened"):
        Files.edit(tmp_path, seen=seen)
    with Files.edit(tmp_path, seen=Files.open(tmp_path)) as edited:
        assert edited.rows("values") == 12


@pytest.mark.parametrize("name", ["mine.npy", "corpus.jsonl"])
def test_a_directory_with_files_of_others_is_not_begun_in(tmp_path, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(ArtifactError, match=f"holds {name}.*directory of its own"):
        Files.edit(tmp_path, FACTS)
    assert raw(tmp_path) == {name: b"precious"}


def test_of_an_append_that_failed_nothing_is_committed_later(tmp_path):
    """Rows without their id, with the next document's behind them, would belong to no document."""
    made = Files.edit(tmp_path, FACTS)
    made.append("values", ROWS[:3])
    with pytest.raises(DataError, match=r"'bad\\ud800' cannot be written in UTF-8"):
        made.append_strings("ids", ["fine", "bad\ud800"])
    made.append("values", ROWS[4:5])
    made.append_strings("ids", ["good"])
    made.commit(finished=True)
    opened = Files.open(tmp_path)
    assert opened.array("values").tolist() == ROWS[4:5].tolist()
    assert opened.strings("ids") == ["good"]
    opened.verify()


def test_headers_that_killed_edits_left_are_mended(tmp_path):
    make(tmp_path)
    before = content(tmp_path)
    with (tmp_path / "values.npy").open("r+b") as handle:
        # Two edits were killed after the header had been written, the second one shorter than the first.
        handle.write(npy.header(20, {"dtype": "<f4", "columns": 3}))
        handle.seek(0, os.SEEK_END)
        handle.write(ROWS[:3].tobytes())
    Files.edit(tmp_path)
    assert content(tmp_path) == before


def test_what_is_committed_already_is_not_written_again(tmp_path):
    """Others may have it mapped: a file cut to nothing under a map kills the process that reads it."""
    make(tmp_path)
    (file,) = tmp_path.glob("lists-*.npy")
    written = file.stat().st_mtime_ns
    with Files.edit(tmp_path) as edited:
        edited.replace("lists", np.arange(5, dtype=np.uint16))
        edited.commit()
    assert file.stat().st_mtime_ns == written
