"""The record of chunks: whole lines alone count, a kill leaves the old or the new; and disks that take no more."""

import errno
import shutil
from pathlib import Path

import numpy as np
import pytest
from killed_at import killed_at

from colbert_lab.errors import ArtifactError
from colbert_lab.index import disk
from colbert_lab.mining import score_cache
from colbert_lab.stages import runs
from colbert_lab.stages.chunk_log import keep, note, noted

LINES = [{"documents": 2, "seconds": 0.1}, {"documents": 5, "tokens": 7}]


def test_a_line_cut_short_counts_for_nothing(tmp_path):
    record = tmp_path / "record.jsonl"
    assert noted(record) == []
    for line in LINES:
        note(record, line)
    whole = record.read_bytes()
    for size in range(len(whole)):
        record.write_bytes(whole[:size])
        assert noted(record) == LINES[: whole[:size].count(b"\n")]
    record.write_bytes(whole)
    keep(record, noted(record))
    assert record.read_bytes() == whole


def test_a_killed_rewrite_leaves_the_old_or_the_new(tmp_path):
    record = tmp_path / "record.jsonl"
    seen = []
    while not seen or seen[-1] != LINES[:1]:
        keep(record, LINES)
        was_killed = killed_at(len(seen), lambda: keep(record, LINES[:1]))
        seen.append(noted(record))
        assert seen[-1] in (LINES, LINES[:1])
    assert seen[0] == LINES
    assert not was_killed


def test_a_full_disk_is_told(tmp_path):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full")
    with pytest.raises(ArtifactError, match="the disk is full: /dev/full"):
        note(full, LINES[0])


@pytest.mark.parametrize("verb", ["index", "update"])
def test_a_verb_whose_record_meets_a_full_disk_says_so_and_goes_on(lab, chain, fresh_lab, tmp_path, monkeypatch, verb):
    (tmp_path / "ids").write_text("d0-0\nd1-1\n")
    given = {
        "index": (f"model={chain['model'].path}",),
        "update": (f"index_dir={chain['index'].path}", f"delete={tmp_path / 'ids'}"),
    }[verb]
    expected = lab(verb, *given).artifact.digest
    real = disk.write

    def full(handle, content):
        if Path(handle.name).name in ("encoded.jsonl", "steps.jsonl"):
            real(handle, content[:5])
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle, content)

    monkeypatch.setattr(disk, "write", full)
    with pytest.raises(ArtifactError, match=r"the disk is full: .*(encoded|steps)\.jsonl could not be written"):
        fresh_lab(verb, *given)
    monkeypatch.undo()
    assert fresh_lab(verb, *given).artifact.digest == expected


def test_an_update_whose_copy_meets_a_full_disk_says_so(chain, fresh_lab, tmp_path, monkeypatch):
    (tmp_path / "ids").write_text("d0-0\n")

    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device", str(source))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(ArtifactError, match=r"the disk is full: \S+\.partial/\S+ could not be written"):
        fresh_lab("update", f"index_dir={chain['index'].path}", f"delete={tmp_path / 'ids'}")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full: a file below .* could not be written"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "a/b"), "the disk is full: a/b could not be written"),
        (OSError(errno.EROFS, "Read-only file system", "a/b"), "a/b lies on a disk that can only be read\ntry: root="),
        (OSError(errno.EACCES, "Permission denied", "a", None, "b"), "b cannot be used: permission denied\ntry: "),
    ],
)
def test_whatever_verb_meets_such_a_disk_tells_it(lab, monkeypatch, error, told):
    def run(cfg):
        raise error

    monkeypatch.setattr(runs, "run", run)
    with pytest.raises(ArtifactError, match=told):
        lab("runs", "!all", f"root={lab.root}")


def test_another_error_of_the_system_is_none_of_a_disk():
    with pytest.raises(IsADirectoryError), disk.telling():
        Path("/").read_bytes()


def test_a_cache_of_scores_that_meets_a_full_disk_says_so(tmp_path, monkeypatch):
    def full(handle, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(score_cache, "_write", full)
    cache = score_cache.ScoreCache(tmp_path, "0" * 64)
    with pytest.raises(ArtifactError, match=r"the disk is full: .* could not be written"):
        cache.add(np.zeros(1, score_cache.KEY), np.ones(1, np.float32))
