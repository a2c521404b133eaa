"""Stanford's directories: what a hand-made one decodes to, what is refused, and what is written byte for byte."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_lab.compression.residual import train_codec, unpack
from colbert_lab.errors import ArtifactError, ConfigError, DataError
from colbert_lab.index import stanford_write
from colbert_lab.index.exact import ExactIndexKind
from colbert_lab.index.residual.index import ResidualIndex
from colbert_lab.index.residual.kind import ResidualIndexKind
from colbert_lab.index.residual.probe import ResidualProbe
from colbert_lab.index.stanford import Chunk, StanfordDirectory
from colbert_lab.index.stanford_exchange import export_stanford, import_stanford
from colbert_lab.index.stanford_write import write_stanford
from colbert_lab.ragged import Ragged


def as_json(directory, name, value):
    (directory / name).write_text(json.dumps(value))


@pytest.fixture
def golden(tmp_path):
    """Four dimensions of two bits, centroids e1 and e2; three passages in two chunks, as Stanford writes them.

    Byte 39 is the buckets 0 1 2 3, byte 216 is 3 2 1 0. With weights -1/2 -1/4 1/4 1/2 a passage's vectors are, before
    they are normalised:

        passage 0   e1 + (-1/2 -1/4  1/4  1/2) = ( 1/2 -1/4  1/4  1/2), norm² 5/8
                    e2 + ( 1/2  1/4 -1/4 -1/2) = ( 1/2  5/4 -1/4 -1/2), norm² 17/8
        passage 1   e1 + ( 1/2  1/4 -1/4 -1/2) = ( 3/2  1/4 -1/4 -1/2), norm² 21/8
        passage 2   e2 + ( 1/2  1/4 -1/4 -1/2) = ( 1/2  5/4 -1/4 -1/2), norm² 17/8
    """
    directory = tmp_path / "golden"
    directory.mkdir()
    config = {"dim": 4, "nbits": 2, "doc_maxlen": 180, "similarity": "cosine"}
    plan = {"config": config, "num_chunks": 2, "num_partitions": 2}
    as_json(directory, "plan.json", {**plan, "num_embeddings_est": 4.5, "avg_doclen_est": 1.5})
    as_json(directory, "metadata.json", {**plan, "num_embeddings": 4, "avg_doclen": 4 / 3})
    torch.save(torch.eye(4)[:2].half(), directory / "centroids.pt")
    torch.save(torch.tensor(0.375), directory / "avg_residual.pt")
    torch.save((torch.tensor([-0.4, 0.0, 0.4]), torch.tensor([-0.5, -0.25, 0.25, 0.5])), directory / "buckets.pt")
    torch.save((torch.tensor([0, 1, 0, 2, 0], dtype=torch.int32), torch.tensor([2, 2])), directory / "ivf.pid.pt")
    chunks = [([0, 1, 0], [39, 216, 216], [2, 1], 0, 0), ([1], [216], [1], 2, 3)]
    for number, (codes, packed, lengths, passage, vector) in enumerate(chunks):
        torch.save(torch.tensor(codes, dtype=torch.int32), directory / f"{number}.codes.pt")
        torch.save(torch.tensor(packed, dtype=torch.uint8)[:, None], directory / f"{number}.residuals.pt")
        as_json(directory, f"doclens.{number}.json", lengths)
        facts = {"passage_offset": passage, "num_passages": len(lengths), "num_embeddings": len(codes)}
        as_json(directory, f"{number}.metadata.json", {**facts, "embedding_offset": vector})
    return directory


VECTORS = [
    [0.5 / 0.625**0.5, -0.25 / 0.625**0.5, 0.25 / 0.625**0.5, 0.5 / 0.625**0.5],
    [0.5 / 2.125**0.5, 1.25 / 2.125**0.5, -0.25 / 2.125**0.5, -0.5 / 2.125**0.5],
    [1.5 / 2.625**0.5, 0.25 / 2.625**0.5, -0.25 / 2.625**0.5, -0.5 / 2.625**0.5],
    [0.5 / 2.125**0.5, 1.25 / 2.125**0.5, -0.25 / 2.125**0.5, -0.5 / 2.125**0.5],
]


def decoded(directory):
    opened = StanfordDirectory(directory)
    chunks = [(torch.from_numpy(c.codes), torch.from_numpy(c.packed)) for c in opened.chunks()]
    return torch.cat([opened.codec.decode(*chunk) for chunk in chunks])


def test_golden_bytes_decode_to_vectors_worked_out_by_hand(golden):
    assert torch.allclose(decoded(golden), torch.tensor(VECTORS), atol=1e-6)
    opened = StanfordDirectory(golden)
    assert opened.lengths.tolist() == [2, 1, 1]
    assert opened.average_residual == 0.375
    assert (opened.unfinished, opened.codec.bits, opened.ids) == (False, 2, None)
    # The zero behind the lists is none of theirs.
    assert [part.tolist() for part in opened.lists] == [[0, 1, 0, 2], [2, 2]]


def test_files_saved_from_a_gpu_are_read(golden, monkeypatch):
    tensor = torch.load(golden / "centroids.pt")
    with monkeypatch.context() as patched:
        patched.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        torch.save(tensor, golden / "centroids.pt")
    assert torch.allclose(decoded(golden), torch.tensor(VECTORS), atol=1e-6)


def test_lists_of_vectors_are_converted(golden):
    (golden / "ivf.pid.pt").unlink()
    # Vectors 0 and 2 of the first centroid, 1 and 3 of the second; passage 0 has two vectors.
    torch.save((torch.tensor([2, 0, 1, 3]), torch.tensor([2, 2])), golden / "ivf.pt")
    assert [part.tolist() for part in StanfordDirectory(golden).lists] == [[0, 1, 0, 2], [2, 2]]


def test_what_was_removed_there_is_in_no_list(golden):
    torch.save((torch.tensor([0, 0, 2], dtype=torch.int32), torch.tensor([1, 2])), golden / "ivf.pid.pt")
    assert StanfordDirectory(golden).removed.tolist() == [1]


def test_an_unfinished_directory_is_read_by_its_plan(golden):
    (golden / "metadata.json").unlink()
    (golden / "ivf.pid.pt").unlink()
    opened = StanfordDirectory(golden)
    assert opened.unfinished
    assert opened.lists is None
    assert torch.allclose(decoded(golden), torch.tensor(VECTORS), atol=1e-6)
    (golden / "doclens.1.json").unlink()
    with pytest.raises(ArtifactError, match=r"lacks doclens\.1\.json; it is unfinished"):
        StanfordDirectory(golden)


def test_ids_are_those_of_the_side_file(golden):
    as_json(golden, "pid_docid_map.json", {"0": "a b", "1": "ü", "2": "a b"})
    opened = StanfordDirectory(golden)
    assert opened.ids == ["a b#0", "ü#0", "a b#1"]
    assert (opened.split_documents, opened.of_passages) == (1, True)
    as_json(golden, "pid_docid_map.json", {"0": "a", "1": "ü", "2": "c"})
    opened = StanfordDirectory(golden)
    assert (opened.ids, opened.split_documents, opened.of_passages) == (["a", "ü", "c"], 0, False)
    as_json(golden, "ids.json", ["x", "007", "z"])
    assert StanfordDirectory(golden).ids == ["x", "007", "z"]
    for wrong, told in ((["x"], "1 ids"), (["x", "y", "x"], "several passages"), (["x", 1, "y"], "1 is not")):
        as_json(golden, "ids.json", wrong)
        with pytest.raises(DataError, match=told):
            _ = StanfordDirectory(golden).ids


def save(name, value):
    return lambda d: torch.save(value, d / name)


def edit(name, **values):
    return lambda d: as_json(d, name, json.loads((d / name).read_text()) | values)


int32 = torch.int32
BROKEN = {
    "no file": (lambda d: (d / "1.codes.pt").unlink(), r"lacks 1\.codes\.pt"),
    "cut": (lambda d: (d / "0.codes.pt").write_bytes((d / "0.codes.pt").read_bytes()[:200]), r"0\.codes\.pt: cannot"),
    "vectors": (save("1.codes.pt", torch.zeros(2, dtype=int32)), r"1\.codes\.pt: is torch\.int32 \[2\].*1 codes"),
    "centroid": (save("1.codes.pt", torch.tensor([2], dtype=int32)), r"codes 2 to 2, there are 2 centroids"),
    "negative": (save("1.codes.pt", torch.tensor([-1], dtype=int32)), r"codes -1 to -1"),
    "float codes": (save("1.codes.pt", torch.zeros(1)), r"torch\.float32"),
    "width": (save("1.residuals.pt", torch.zeros(1, 2, dtype=torch.uint8)), r"\[1, 2\], \[1, 1\] bytes"),
    "dtype": (save("1.residuals.pt", torch.zeros(1, 1)), r"1\.residuals\.pt: is torch\.float32"),
    "offset": (edit("1.metadata.json", passage_offset=3), r"passage_offset is 3, by doclens it is 2"),
    "vector offset": (edit("1.metadata.json", embedding_offset=2), r"embedding_offset is 2, by doclens it is 3"),
    "passages": (edit("0.metadata.json", num_passages=3), r"num_passages is 3, by doclens it is 2"),
    "total": (edit("metadata.json", num_embeddings=5), r"says 5 vectors, .* sum to 4"),
    "bits": (edit("metadata.json", config={"dim": 4, "nbits": 4}), r"3 cutoffs and 4 weights, nbits is 4"),
    "odd bits": (edit("metadata.json", config={"dim": 4, "nbits": 3}), r"nbits is 3"),
    "dim": (edit("metadata.json", config={"dim": 8, "nbits": 2}), r"dim 4, the metadata says 8"),
    "partitions": (edit("metadata.json", num_partitions=4), r"num_partitions 2, the metadata says 4"),
    "chunks": (edit("metadata.json", num_chunks="two"), r"num_chunks must be a whole number"),
    "json": (lambda d: (d / "doclens.0.json").write_text("[2, 1"), r"doclens\.0\.json: cannot be read"),
    "length": (lambda d: as_json(d, "doclens.0.json", [4, -1]), r"0 or more"),
    "lists": (
        save("ivf.pid.pt", (torch.zeros(1, dtype=int32), torch.tensor([1, 1]))),
        r"lists of 2 entries in all, but 1",
    ),
    "list count": (save("ivf.pid.pt", (torch.zeros(1, dtype=int32), torch.tensor([1]))), r"1 lists for 2 centroids"),
    "passage": (save("ivf.pid.pt", (torch.tensor([0, 3]), torch.tensor([1, 1]))), r"names passage 3, there are 3"),
    "not two": (save("buckets.pt", torch.zeros(3)), r"buckets\.pt: must hold two tensors"),
    "nothing": (shutil.rmtree, r"neither metadata\.json nor plan\.json"),
}


def read_all(directory):
    opened = StanfordDirectory(directory)
    return list(opened.chunks()), opened.lists


@pytest.mark.parametrize("how", BROKEN)
def test_what_does_not_fit_together_is_named(golden, how):
    break_it, told = BROKEN[how]
    break_it(golden)
    with pytest.raises(ArtifactError, match=told):
        read_all(golden)


class Shell:
    """A pickle of this runs a command where it is opened without care."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (open, (str(self.file), "w"))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_that_would_run_code_is_not_opened(golden, tmp_path, how):
    with (golden / "centroids.pt").open("wb") as file:
        (torch.save if how == "torch" else pickle.dump)(Shell(tmp_path / "ran"), file)
    with pytest.raises(ArtifactError, match=r"centroids\.pt: is a pickle of more than tensors"):
        StanfordDirectory(golden)
    assert not (tmp_path / "ran").exists()


def compressed(kind="stanford", bits=2, dim=64, documents=9):
    """A codec, lengths (one of them 0) and what is in the rows, for documents of random vectors."""
    generator = torch.Generator().manual_seed(bits)
    lengths = np.array([(5 * n + 3) % 7 for n in range(documents)], dtype=np.int32)
    vectors = F.normalize(torch.randn(int(lengths.sum()), dim, generator=generator), dim=1)
    codec = train_codec(vectors, 8, bits, kind)
    arrays = [None if part is None else part.numpy() for part in codec.encode(vectors)]
    starts = lengths.cumsum() - lengths

    def read(rows):
        at = np.concatenate([np.arange(starts[r], starts[r] + lengths[r]) for r in rows] or [[]]).astype(np.int64)
        return *(None if array is None else array[at] for array in arrays), lengths[rows]

    return codec, lengths, read


def write(directory, codec, lengths, read, rows=None, **options):
    rows = np.arange(len(lengths)) if rows is None else rows
    ids = [f"d {row}" for row in rows]
    return write_stanford(directory, codec, ids, rows, lengths[rows], read, **options)


def files(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_what_is_written_is_read_back_bit_for_bit(tmp_path, monkeypatch, bits):
    monkeypatch.setattr(stanford_write, "CHUNK", 4)
    codec, lengths, read = compressed(bits=bits)
    counts = write(tmp_path / "one", codec, lengths, read)
    assert counts == {"documents": 9, "vectors": lengths.sum(), "bits": bits, "chunks": 3, "empty_centroids": 0}
    opened = StanfordDirectory(tmp_path / "one")
    chunks = list(opened.chunks())
    codes, packed, _, _ = read(np.arange(9))
    assert [len(chunk.lengths) for chunk in chunks] == [4, 4, 1]
    assert np.array_equal(np.concatenate([chunk.codes for chunk in chunks]), codes)
    assert np.array_equal(np.concatenate([chunk.packed for chunk in chunks]), packed)
    assert next(opened.chunks(4)).lengths.tolist() == lengths[4:8].tolist()
    assert opened.ids == [f"d {row}" for row in range(9)]
    assert opened.removed.tolist() == []
    for name in ("centroids", "cutoffs", "weights"):
        assert torch.equal(getattr(opened.codec, name), getattr(codec, name))
    write(tmp_path / "two", codec, lengths, read)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_the_files_are_typed_as_stanfords_own(tmp_path):
    codec, lengths, read = compressed()
    write(tmp_path, codec, lengths, read, config={"similarity": "l2"})
    load = {path.name: torch.load(path, weights_only=True) for path in tmp_path.glob("*.pt")}
    assert {name: value.dtype for name, value in load.items() if isinstance(value, torch.Tensor)} == {
        "centroids.pt": torch.float16,
        "avg_residual.pt": torch.float32,
        "0.codes.pt": torch.int32,
        "0.residuals.pt": torch.uint8,
    }
    assert [part.dtype for part in load["buckets.pt"]] == [torch.float32, torch.float32]
    assert [part.dtype for part in load["ivf.pid.pt"]] == [torch.int32, torch.int64]
    assert load["0.residuals.pt"].shape == (lengths.sum(), 64 * 2 // 8)
    residuals = codec.weights[unpack(load["0.residuals.pt"], 2)]
    assert load["avg_residual.pt"].item() == pytest.approx(residuals.abs().mean().item(), rel=1e-5)
    metadata = json.loads((tmp_path / "metadata.json").read_text())
    assert metadata.pop("avg_doclen") == pytest.approx(lengths.mean())
    assert metadata == {
        "config": {"similarity": "l2", "dim": 64, "nbits": 2},
        "num_chunks": 1,
        "num_partitions": 8,
        "num_embeddings": lengths.sum(),
    }


@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_lists_are_ascending_and_unique_and_those_of_the_codes(data):
    partitions = data.draw(st.integers(1, 5))
    lengths = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=9))
    codes = data.draw(st.lists(st.integers(0, partitions - 1), min_size=sum(lengths), max_size=sum(lengths)))
    size = data.draw(st.integers(1, 9))
    lists, expected = stanford_write._Lists(partitions), [set() for _ in range(partitions)]
    starts = np.cumsum([0, *lengths])
    for first in range(0, len(lengths), size):
        last = min(first + size, len(lengths))
        chunk = np.array(codes[starts[first] : starts[last]], dtype=np.int32)
        lists.add(Chunk(chunk, np.empty(0), np.array(lengths[first:last])), first)
    for passage in range(len(lengths)):
        for code in codes[starts[passage] : starts[passage + 1]]:
            expected[code].add(passage)
    flat, counts = lists.whole()
    assert counts.tolist() == [len(part) for part in expected]
    assert flat.tolist() == [passage for part in expected for passage in sorted(part)]


def test_rows_that_are_left_out_leave_no_gap(tmp_path):
    codec, lengths, read = compressed()
    rows = np.array([0, 2, 3, 8])
    write(tmp_path, codec, lengths, read, rows)
    opened = StanfordDirectory(tmp_path)
    assert opened.ids == ["d 0", "d 2", "d 3", "d 8"]
    assert opened.lengths.tolist() == lengths[rows].tolist()
    assert opened.lists[0].max() == 3
    assert np.array_equal(next(opened.chunks()).packed, read(rows)[1])


@pytest.mark.parametrize(("kind", "bits", "to"), [("product", 2, None), ("stanford", 8, 2)])
def test_another_codec_is_encoded_anew_and_the_loss_told(tmp_path, monkeypatch, kind, bits, to):
    codec, lengths, read = compressed(kind, bits, documents=60)
    with pytest.raises(ConfigError, match="reencode=true"):
        write(tmp_path / "no", codec, lengths, read, bits=to, reencode=False)
    assert not (tmp_path / "no").exists()
    counts = write(tmp_path / "one", codec, lengths, read, bits=to)
    opened = StanfordDirectory(tmp_path / "one")
    assert opened.codec.bits == (to or bits)
    codes, packed, scales, _ = (None if part is None else torch.as_tensor(part) for part in read(np.arange(60)))
    before = codec.decode(codes, packed, scales)
    after = torch.cat([opened.codec.decode(*map(torch.from_numpy, (c.codes, c.packed))) for c in opened.chunks()])
    cosine = F.cosine_similarity(before, after).mean().item()
    assert counts["mean_cosine"] == pytest.approx(cosine, abs=1e-5)
    assert 0.8 < cosine < 0.9999
    # However many vectors are decoded together, the same is written.
    monkeypatch.setattr(stanford_write, "_DECODED", 7)
    assert write(tmp_path / "two", codec, lengths, read, bits=to)["mean_cosine"] == pytest.approx(cosine, abs=1e-5)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_what_stanford_could_not_open_is_not_written(tmp_path):
    codec, lengths, read = compressed(bits=4, dim=16)
    with pytest.raises(ConfigError, match=r"8·bits, not 16 at 4 bits\n.*try: bits=1 or 2"):
        write(tmp_path, codec, lengths, read)
    with pytest.raises(DataError, match="without any vector"):
        write(tmp_path, codec, lengths, read, np.array([], dtype=np.int64), bits=2)


def unit_documents(count, dim=32, seed=0, name="document"):
    """Ids with blanks and documents of 0 to 6 unit vectors."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 7, (count,), generator=generator)
    lengths[0] = 3
    vectors = F.normalize(torch.randn(int(lengths.sum()), dim, generator=generator), dim=1)
    return [f"{name} {number}" for number in range(count)], Ragged(vectors, lengths)


def built(directory, codec="stanford", bits=2, count=40):
    kind = ResidualIndexKind(bits=bits, codec=codec, partitions=8)
    writer = kind.writer(directory, 32, "cosine")
    writer.append(*unit_documents(count))
    writer.finish()
    return kind.open(directory)


def found(index, dim=32, k=10, **probe):
    _, queries = unit_documents(6, dim, seed=9)
    return dict(index.search(list("abcdef"), queries, k, probe=ResidualProbe(**probe)))


def imported(source, directory, **options):
    counts = import_stanford(StanfordDirectory(source), directory, **options)
    return counts, ResidualIndex(directory)


def test_the_golden_directory_is_searched_with_scores_worked_out_by_hand(golden, tmp_path):
    counts, index = imported(golden, tmp_path / "index", ids=["zero", "one", "two"])
    assert counts == {"removed": 0, "split_documents": 0, "unfinished": False}
    index.verify()
    queries = Ragged(torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]]), torch.tensor([1, 1]))
    run = index.search(["x", "y"], queries, 5, probe=ResidualProbe(exact=True))
    # The first coordinate of VECTORS, the best of a passage: 0.63, 0.93, 0.34; the second: 0.86, 0.15, 0.86.
    assert run["x"].ids == ("one", "zero", "two")
    assert run["x"].scores == pytest.approx([1.5 / 2.625**0.5, 0.5 / 0.625**0.5, 0.5 / 2.125**0.5], abs=1e-6)
    assert run["y"].ids == ("two", "zero", "one")
    assert run["y"].scores == pytest.approx([1.25 / 2.125**0.5] * 2 + [0.25 / 2.625**0.5], abs=1e-6)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_an_index_comes_back_as_it_went_and_goes_again_as_it_came(tmp_path, monkeypatch, bits):
    monkeypatch.setattr(stanford_write, "CHUNK", 15)
    native = built(tmp_path / "native", bits=bits)
    native.delete(["document 4", "document 20"])
    ids, vectors = unit_documents(2, seed=3, name="new")
    native.add(ids, vectors)
    native.update(["document 7"], vectors[:1])
    counts = export_stanford(tmp_path / "native", tmp_path / "one")
    assert (counts["documents"], counts["deleted_rows"], counts["chunks"]) == (40, 3, 3)
    _, back = imported(tmp_path / "one", tmp_path / "back")
    assert back.ids == native.ids
    assert found(back) == found(native)
    assert found(back, exact=True, k=40) == found(native, exact=True, k=40)
    assert found(back, k=2, cells=2) == found(native, k=2, cells=2)
    assert export_stanford(tmp_path / "back", tmp_path / "two") == counts | {"deleted_rows": 0}
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_an_index_read_from_stanford_can_be_changed(tmp_path):
    native = built(tmp_path / "native")
    export_stanford(tmp_path / "native", tmp_path / "there")
    _, index = imported(tmp_path / "there", tmp_path / "index")
    assert index.stats()["added_distance"] == 1.0
    ids, vectors = unit_documents(3, seed=5, name="new")
    index.add(ids, vectors)
    native.add(ids, vectors)
    assert found(index, exact=True, k=43) == found(native, exact=True, k=43)
    # How far vectors were from their centroids is known of the decoded ones only.
    assert index.stats()["added_distance"] == pytest.approx(native.stats()["added_distance"], rel=0.1)


def test_settings_of_another_maker_survive(golden, tmp_path):
    edit("metadata.json", config={"nbits": 1, "dim": 8, "doc_maxlen": 77, "checkpoint": "elsewhere"})(golden)
    edit("metadata.json", RAGatouille={"index_config": {}})(golden)
    torch.save(F.pad(torch.eye(4)[:2], (0, 4)).half(), golden / "centroids.pt")
    torch.save((torch.tensor([0.0]), torch.tensor([-0.25, 0.25])), golden / "buckets.pt")
    imported(golden, tmp_path / "index")
    export_stanford(tmp_path / "index", tmp_path / "there")
    config = json.loads((tmp_path / "there" / "metadata.json").read_text())["config"]
    assert config == {"nbits": 1, "dim": 8, "doc_maxlen": 77, "checkpoint": "elsewhere"}
    assert torch.load(tmp_path / "there" / "avg_residual.pt").item() == 0.375
    assert StanfordDirectory(tmp_path / "there").ids == ["0", "1", "2"]


def test_what_was_removed_or_unfinished_there_is_said(golden, tmp_path):
    torch.save((torch.tensor([0, 0, 2], dtype=torch.int32), torch.tensor([1, 2])), golden / "ivf.pid.pt")
    as_json(golden, "pid_docid_map.json", {"0": "a", "1": "b", "2": "a"})
    (golden / "metadata.json").unlink()
    counts, index = imported(golden, tmp_path / "index")
    assert counts == {"removed": 1, "split_documents": 1, "unfinished": True}
    assert index.ids == ["a#0", "a#1"]
    assert index.search(["q"], Ragged(torch.eye(4)[:1], torch.tensor([1])), 3)["q"].ids == ("a#0", "a#1")


def test_passages_whose_vectors_were_cut_out_there_are_no_documents_here(golden, tmp_path):
    """As IndexUpdater.remove(persist_to_disk=True) leaves passage 1, and RAGatouille its map."""
    torch.save((torch.tensor([0, 0, 2], dtype=torch.int32), torch.tensor([1, 2])), golden / "ivf.pid.pt")
    torch.save(torch.tensor([0, 1], dtype=torch.int32), golden / "0.codes.pt")
    torch.save(torch.tensor([[39], [216]], dtype=torch.uint8), golden / "0.residuals.pt")
    as_json(golden, "doclens.0.json", [2, 0])
    edit("0.metadata.json", num_embeddings=2)(golden)
    edit("1.metadata.json", embedding_offset=2)(golden)
    edit("metadata.json", num_embeddings=3)(golden)
    as_json(golden, "pid_docid_map.json", {"0": "a", "2": "c"})
    counts, index = imported(golden, tmp_path / "index")
    assert counts == {"removed": 1, "split_documents": 0, "unfinished": False}
    assert index.ids == ["a", "c"]
    as_json(golden, "pid_docid_map.json", {"0": "a"})
    with pytest.raises(ArtifactError, match=r"pid_docid_map\.json: lacks 1 passages, 2 is the first"):
        _ = StanfordDirectory(golden).ids
    # An export of ours may hold documents without vectors.
    as_json(golden, "ids.json", ["a", "empty", "c"])
    assert imported(golden, tmp_path / "ours")[1].ids == ["a", "empty", "c"]


def test_an_interrupted_import_goes_on_where_it_was(golden, tmp_path):
    imported(golden, tmp_path / "whole")
    real = torch.load(golden / "1.codes.pt")
    (golden / "1.codes.pt").unlink()
    with pytest.raises(ArtifactError, match=r"lacks 1\.codes\.pt"):
        imported(golden, tmp_path / "index")
    torch.save(real, golden / "1.codes.pt")
    # The first chunk is not read again.
    (golden / "0.codes.pt").unlink()
    imported(golden, tmp_path / "index")
    assert files(tmp_path / "index") == files(tmp_path / "whole")


def test_an_index_of_another_codec_goes_with_its_loss_and_an_exact_one_not(tmp_path):
    index = built(tmp_path / "product", codec="product", bits=4)
    counts = export_stanford(tmp_path / "product", tmp_path / "there")
    assert 0.9 < counts["mean_cosine"] < 1
    _, back = imported(tmp_path / "there", tmp_path / "back")
    before, after = found(index, exact=True, k=40), found(back, exact=True, k=40)
    overlap = [len(set(before[q].ids[:10]) & set(after[q].ids[:10])) for q in before]
    assert np.mean(overlap) >= 7
    with pytest.raises(ConfigError, match="reencode=true"):
        export_stanford(tmp_path / "product", tmp_path / "no", reencode=False)
    writer = ExactIndexKind().writer(tmp_path / "exact", 32, "cosine")
    writer.append(*unit_documents(2))
    writer.finish()
    with pytest.raises(ConfigError, match=r"index\.codec=stanford"):
        export_stanford(tmp_path / "exact", tmp_path / "no")
