"""The store: byte-equal however often its making was killed, readable by numpy alone, every id as it was."""

import json
import multiprocessing
import os
import signal
import tracemalloc

import numpy as np
import pytest
import torch

from colbert_lab.errors import ArtifactError, DataError
from colbert_lab.index.store import Store, StoreWriter
from colbert_lab.ragged import Ragged

LENGTHS = [3, 0, 1, 5, 2, 4, 0, 2]
IDS = ["007", "7", "a b", "tab\there", "új\u2028sor", "line\nbreak\r", '"quoted"', " \u00a0"]
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def documents(dim=3):
    values = torch.randn(sum(LENGTHS), dim, generator=torch.Generator().manual_seed(0))
    return Ragged(values, torch.tensor(LENGTHS))


def write(folder, chunk=3, dtype="fp16", stop=None):
    """Append from where the writer is; `stop` appends leave it unfinished."""
    folder.mkdir(exist_ok=True)
    writer = StoreWriter(folder, 3, dtype, "cosine")
    for appended, first in enumerate(range(writer.documents, len(LENGTHS), chunk)):
        if appended == stop:
            return writer
        writer.append(IDS[first : first + chunk], documents()[first : first + chunk])
    if stop is None:
        writer.finish()
    return writer


def files(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def whole(tmp_path):
    write(tmp_path / "whole")
    return files(tmp_path / "whole")


@pytest.mark.parametrize("dtype", DTYPES)
def test_round_trip(tmp_path, dtype):
    write(tmp_path / "s", dtype=dtype)
    opened = Store.open(tmp_path / "s")
    assert opened.ids == IDS
    assert opened.embeddings.lengths.tolist() == LENGTHS
    assert torch.equal(opened.embeddings.values, documents().values.to(DTYPES[dtype]))
    assert opened.facts == {"dim": 3, "dtype": dtype, "similarity": "cosine", "documents": 8, "vectors": 17}
    assert set(files(tmp_path / "s")) == {"values.npy", "lengths.npy", "ids.jsonl", "head.json"}


@pytest.mark.parametrize(("dtype", "size"), [("fp32", 4), ("fp16", 2), ("bf16", 2)])
def test_numpy_reads_the_values(tmp_path, dtype, size):
    write(tmp_path / "s", dtype=dtype)
    raw = (tmp_path / "s" / "values.npy").read_bytes()
    assert len(raw) == 128 + 17 * 3 * size
    assert raw[:8] == b"\x93NUMPY\x01\x00"
    mapped = np.load(tmp_path / "s" / "values.npy", mmap_mode="r")
    assert mapped.shape == (17, 3)
    assert mapped.dtype == {"fp32": "<f4", "fp16": "<f2", "bf16": "<i2"}[dtype]
    expected = documents().values.to(DTYPES[dtype])
    assert raw[128:] == (expected.view(torch.int16) if dtype == "bf16" else expected).numpy().tobytes()


def test_golden_bytes(tmp_path):
    writer = StoreWriter(tmp_path, 2, "fp16", "l2")
    writer.append(["é"], Ragged.from_list([torch.tensor([[1.0, -2.0], [0.5, 0.0]])]))
    writer.finish()
    header = b"{'descr': '<f2', 'fortran_order': False, 'shape': (2, 2), }"
    raw = (tmp_path / "values.npy").read_bytes()
    assert raw == b"\x93NUMPY\x01\x00\x76\x00" + header.ljust(117) + b"\n" + bytes.fromhex("003c00c000380000")
    assert (tmp_path / "ids.jsonl").read_bytes() == '"é"\n'.encode()
    assert np.load(tmp_path / "lengths.npy").tolist() == [2]
    assert json.loads((tmp_path / "head.json").read_text())["facts"]["similarity"] == "l2"


@pytest.mark.parametrize("appends", [0, 1, 2])
def test_what_was_not_committed_is_cut_off(tmp_path, whole, appends):
    folder = tmp_path / "s"
    write(folder, stop=appends)
    for name in ("values.npy", "lengths.npy", "ids.jsonl"):
        with (folder / name).open("ab") as handle:
            # As much as a whole chunk, and half a number.
            handle.write(b"\x7f" * 301)
    write(folder)
    assert files(folder) == whole


def test_how_it_was_cut_into_chunks_leaves_no_trace(tmp_path, whole):
    for chunk in (1, 2, 8):
        write(tmp_path / str(chunk), chunk)
        assert files(tmp_path / str(chunk)) == whole


def test_an_append_is_on_the_disk_when_it_returns(tmp_path, whole):
    folder = tmp_path / "s"

    def two_appends():
        held = write(folder, stop=2)
        os.kill(os.getpid(), signal.SIGKILL if held.documents == 6 else signal.SIGTERM)

    dying = multiprocessing.get_context("fork").Process(target=two_appends)
    dying.start()
    dying.join(60)
    assert dying.exitcode == -signal.SIGKILL
    assert StoreWriter(folder, 3, "fp16", "cosine").documents == 6
    write(folder)
    assert files(folder) == whole


def test_a_finished_store_is_not_begun_anew(tmp_path, whole):
    folder = tmp_path / "s"
    write(folder)
    writer = StoreWriter(folder, 3, "fp16", "cosine")
    assert writer.documents == 8
    with pytest.raises(ValueError, match="is finished"):
        writer.append(["new"], documents()[:1])
    writer.finish()
    assert files(folder) == whole


def test_a_file_shorter_than_its_journal_is_refused(tmp_path):
    write(tmp_path / "s", stop=2)
    with (tmp_path / "s" / "values.npy").open("r+b") as handle:
        handle.truncate(150)
    with pytest.raises(ArtifactError, match=r"values\.npy is shorter"):
        StoreWriter(tmp_path / "s", 3, "fp16", "cosine")


@pytest.mark.parametrize("other", [(4, "fp16", "cosine"), (3, "bf16", "cosine"), (3, "fp16", "l2")])
@pytest.mark.parametrize("stop", [1, None])
def test_it_goes_on_as_it_was_begun_or_not_at_all(tmp_path, other, stop):
    write(tmp_path / "s", stop=stop)
    with pytest.raises(ArtifactError, match="was begun with"):
        StoreWriter(tmp_path / "s", *other)


@pytest.mark.parametrize("chunk", [1, 8])
def test_an_id_that_comes_twice_is_refused(tmp_path, chunk):
    writer = StoreWriter(tmp_path, 3, "fp16", "cosine")
    ids = ["a", "b", "007", "c", "7", "007", "d", "e"]
    for first in range(0, 8, chunk):
        writer.append(ids[first : first + chunk], documents()[first : first + chunk])
    with pytest.raises(DataError, match="'007' was indexed twice"):
        writer.finish()
    with pytest.raises(ArtifactError, match="unfinished index"):
        Store.open(tmp_path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e6])
def test_vectors_that_are_no_numbers_are_refused(tmp_path, bad):
    writer = StoreWriter(tmp_path, 3, "fp16", "cosine")
    broken = documents()
    broken.values[3, 1] = bad
    with pytest.raises(DataError, match="the embedding of document 'a b' is not finite in fp16"):
        writer.append(IDS, broken)
    assert writer.documents == 0
    writer.append(IDS, documents())
    writer.finish()
    assert len(Store.open(tmp_path).ids) == 8


def test_what_does_not_fit_is_refused(tmp_path):
    writer = StoreWriter(tmp_path, 3, "fp16", "cosine")
    with pytest.raises(ValueError, match="2 ids for 8 documents"):
        writer.append(["a", "b"], documents())
    with pytest.raises(ValueError, match="4 dimensions, the store 3"):
        writer.append(IDS, documents(4))


def test_opening_reads_no_values(tmp_path):
    writer = StoreWriter(tmp_path, 64, "fp16", "cosine")
    writer.append([f"d{i}" for i in range(100)], Ragged(torch.ones(4000, 64), torch.full((100,), 40)))
    writer.finish()
    tracemalloc.start()
    opened = Store.open(tmp_path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < opened.embeddings.values.numel() * 2 / 4
