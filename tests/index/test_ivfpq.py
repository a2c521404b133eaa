"""index=ivfpq: with everything probed it is exact; k results always; what it was trained on; edits; equal bytes."""

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from colbert_lab.errors import ArtifactError, ConfigError, DataError
from colbert_lab.index import inverted, ivfpq
from colbert_lab.index.exact import ExactIndexKind
from colbert_lab.index.ivfpq import IvfPqIndexKind, IvfPqProbe
from colbert_lab.ragged import Ragged

EVERYTHING = IvfPqProbe(probes=10**6, hits=10**6)
DIM = 8


def vectors(seed, lengths, dim=DIM) -> Ragged:
    values = torch.randn(sum(lengths), dim, generator=torch.Generator().manual_seed(seed))
    return Ragged(normalize(values, dim=1), torch.tensor(lengths, dtype=torch.int64))


def names(count) -> list[str]:
    return [f"d{i}" for i in range(count)]


def build(folder: Path, documents: Ragged, ids=None, kind=None, similarity="cosine", chunk=10**6):
    kind = kind or IvfPqIndexKind(subvectors=4, dtype="fp32")
    folder.mkdir(exist_ok=True)
    writer = kind.writer(folder, documents.dim, similarity)
    for first in range(0, len(documents), chunk):
        writer.append((ids or names(len(documents)))[first : first + chunk], documents[first : first + chunk])
    writer.finish()
    return kind.open(folder)


def exact(folder: Path, documents: Ragged, ids=None, similarity="cosine"):
    return build(folder, documents, ids, ExactIndexKind("fp32"), similarity)


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def same(found, expected) -> None:
    for query in expected:
        assert found[query].ids == expected[query].ids
        assert np.allclose(found[query].scores, expected[query].scores, atol=1e-5)


@pytest.fixture(scope="module")
def many() -> Ragged:
    """300 documents, enough vectors for a product quantiser."""
    return vectors(0, np.random.default_rng(0).integers(0, 5, 300).tolist())


@pytest.mark.parametrize("similarity", ["cosine", "l2"])
def test_everything_probed_is_exact(tmp_path, many, similarity):
    made = build(tmp_path / "a", many, similarity=similarity)
    assert made.stats()["structure"] == "ivfpq"
    assert made.stats()["partitions"] > 1
    queries = vectors(1, [4, 1, 7])
    expected = exact(tmp_path / "b", many, similarity=similarity).search(list("abc"), queries, 300)
    same(made.search(list("abc"), queries, 300, probe=EVERYTHING), expected)


@settings(max_examples=12, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 4), min_size=1, max_size=30),
    queries=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    k=st.integers(1, 40),
    seed=st.integers(0, 99),
    similarity=st.sampled_from(["cosine", "l2"]),
)
def test_small_collections(tmp_path_factory, lengths, queries, k, seed, similarity):
    """Always min(k, N) documents, each with its exact score; with everything probed, the exact ones."""
    documents, asked = vectors(seed, lengths), vectors(seed + 1, queries)
    root = tmp_path_factory.mktemp("small")
    made = build(root / "a", documents, similarity=similarity)
    twin = exact(root / "b", documents, similarity=similarity)
    ids = names(len(queries))
    whole = twin.search(ids, asked, len(documents))
    same(made.search(ids, asked, k, probe=EVERYTHING), whole.cut(k))
    for query, hits in made.search(ids, asked, k, probe=IvfPqProbe(1, 1)).items():
        assert len(set(hits.ids)) == len(hits) == min(k, len(documents))
        scores = dict(whole[query])
        assert np.allclose(hits.scores, [scores[i] for i in hits.ids], atol=1e-5)
    assert made.stats()["structure"] == ("ivfflat" if sum(lengths) else "none")


def test_candidates_change_with_probes_and_grow_with_hits(many, tmp_path):
    made, query = build(tmp_path, many), vectors(5, [3])
    found = {}
    for probes, hits in ((1, 4), (16, 4), (16, 8)):
        (rows,) = made._candidates(query, IvfPqProbe(probes, hits), None)
        found[probes, hits] = set(rows.tolist())
    assert found[1, 4] != found[16, 4] < found[16, 8]
    # 3 query vectors bring so many hits each, of documents that may be the same.
    assert len(found[1, 4]) <= 12
    assert len(found[16, 8]) <= 24


def test_parameters_are_resolved_from_k_at_every_call(many, tmp_path):
    made, query = build(tmp_path, many), vectors(5, [3])
    fresh = ivfpq.IvfPqIndex(tmp_path).search(["q"], query, 200)
    made.search(["q"], query, 10)
    assert dict(made.search(["q"], query, 200)) == dict(fresh)
    assert made.resolved(10) == {"probes": 10, "hits": 5, "threads": None}
    assert made.resolved(1001, IvfPqProbe(probes=99))["hits"] == 501
    assert made.resolved(10, IvfPqProbe(probes=99))["probes"] == made.stats()["partitions"] < 99
    wide = dict(made.search(["q"], query, 10, probe=EVERYTHING))
    assert wide != dict(made.search(["q"], query, 10, probe=IvfPqProbe(1, 1)))
    before = torch.get_num_threads()
    assert dict(made.search(["q"], query, 10, probe=IvfPqProbe(10**6, 10**6, threads=1))) == wide
    assert torch.get_num_threads() == before


def test_only_these_documents(many, tmp_path):
    made, query = build(tmp_path / "a", many), vectors(5, [3])
    twin = exact(tmp_path / "b", many)
    for count in (1, 3, 120):
        some = sorted(names(300)[::2])[:count]
        same(made.search(["q"], query, 300, only=some), twin.search(["q"], query, 300, only=some))
        found = made.search(["q"], query, 2, only=some, probe=IvfPqProbe(1, 1))["q"]
        assert set(found.ids) <= set(some)
        assert len(found) == min(2, count)
    # More than would be candidates anyway, all of them probed: faiss itself leaves the others out.
    wide = IvfPqProbe(probes=10**6, hits=20)
    found = made.search(["q"], query, 5, only=some, probe=wide)["q"]
    assert found.ids[0] == twin.search(["q"], query, 5, only=some)["q"].ids[0]
    with pytest.raises(DataError, match="'x' is the first"):
        made.search(["q"], query, 5, only=["x"])


def test_equal_documents_are_ordered_by_id(tmp_path):
    one = vectors(3, [2])
    ids = ["b", "10", "a b", "9", "é"]
    made = build(tmp_path, Ragged.cat([one] * 5), ids)
    assert list(made.search(["q"], vectors(4, [2]), 3)["q"].ids) == sorted(ids)[:3]


def test_two_builds_are_byte_equal_whatever_the_threads_and_chunks(many, tmp_path):
    build(tmp_path / "a", many)
    with inverted.threads(3):
        build(tmp_path / "b", many, chunk=70)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    build(tmp_path / "c", many, kind=IvfPqIndexKind(subvectors=4, dtype="fp32", seed=1))
    assert content(tmp_path / "a").keys() != content(tmp_path / "c").keys()


def test_it_is_trained_on_a_sample_of_all():
    """Sorted by topic: the first 9,984 of these vectors know nothing of the last of eight corners."""
    corners = torch.eye(DIM).repeat_interleave(1500, 0)
    noise = 0.05 * torch.randn(len(corners), DIM, generator=torch.Generator().manual_seed(0))
    values = normalize(corners + noise, dim=1)
    index, facts = inverted.trained(inverted.Vectors(range(len(values)), values), DIM, "l2", 8, 1, 40, 0)
    assert facts["trained_on"] == 39 * 256 < facts["trained_vectors"] == 12000
    centroids = index.quantizer.reconstruct_n(0, index.nlist)
    assert sorted(np.abs(centroids).argmax(1)) == list(range(8))


@pytest.mark.parametrize(
    ("vectors_", "asked", "expected"), [(1, None, 8), (1000, None, 256), (10**6, None, 8192), (7, 3, 3)]
)
def test_the_formula_of_partitions(vectors_, asked, expected):
    # 8 sqrt(1000) = 253 -> 256; 8 sqrt(10^6) = 8000 -> 8192
    assert inverted.partitions_of(vectors_, asked) == expected


def test_what_is_asked_for_is_clamped_and_told(tmp_path, many):
    made = build(tmp_path, many, kind=IvfPqIndexKind(partitions=2000, subvectors=4))
    stats = made.stats()
    assert stats["asked_partitions"] == 2000
    assert stats["partitions"] == stats["trained_on"] // 39
    assert stats["bytes"] == sum(file.stat().st_size for file in tmp_path.iterdir())


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 999), edits=st.lists(st.sampled_from(["add", "delete", "update"]), min_size=1, max_size=6))
def test_edited_is_rebuilt(tmp_path_factory, seed, edits):
    rng = np.random.default_rng(seed)
    held = {f"d{i}": vectors(seed + i, [i])[0] for i in range(4)}
    root = tmp_path_factory.mktemp("edited")
    made = build(root / "a", Ragged.from_list(list(held.values())), list(held))
    for number, edit in enumerate(edits):
        if edit == "delete" and len(held) > 1:
            gone = str(rng.choice(sorted(held)))
            made.delete([gone])
            del held[gone]
        elif edit == "update":
            changed = str(rng.choice(sorted(held)))
            held[changed] = vectors(seed + 50 + number, [3])[0]
            made.update([changed], Ragged.from_list([held[changed]]))
        else:
            new = next(i for i in ("d0", "d1", f"new{number}") if i not in held)
            held[new] = vectors(seed + 90 + number, [2])[0]
            made.add([new], Ragged.from_list([held[new]]))
    assert sorted(made.ids) == sorted(held)
    queries = vectors(seed + 7, [2, 3])
    rebuilt = exact(root / "b", Ragged.from_list(list(held.values())), list(held))
    same(made.search(["q", "p"], queries, 4, probe=EVERYTHING), rebuilt.search(["q", "p"], queries, 4))
    assert dict(made.search(["q"], queries[:1], 4)) == dict(ivfpq.IvfPqIndex(root / "a").search(["q"], queries[:1], 4))
    made.verify()


def test_a_large_index_keeps_its_centroids_until_it_has_doubled(tmp_path, many):
    made = build(tmp_path, many)
    trained = made.stats()
    assert (trained["added_share"], trained["added_distance"]) == (0, 1)
    far = vectors(9, [2] * 20)
    made.add([f"n{i}" for i in range(20)], far)
    stats = made.stats()
    assert stats["trained_vectors"] == trained["trained_vectors"]
    assert stats["added_vectors"] == 40
    assert stats["added_share"] == 40 / (trained["trained_vectors"] + 40)
    # Random vectors, as those trained on; what was kept beside the lists are mean squares.
    assert stats["added_distance"] == pytest.approx(1, abs=0.2)
    assert made.stats() == stats
    kept = made._store.facts["lists"]
    assert stats["added_distance"] == pytest.approx((kept["added_distance"] / kept["trained_distance"]) ** 0.5)
    made.add([f"m{i}" for i in range(300)], vectors(10, [3] * 300))
    assert made.stats()["trained_vectors"] == made.stats()["vectors"] == trained["vectors"] + 940
    assert "added_vectors" not in made.stats()
    assert (made.stats()["added_share"], made.stats()["added_distance"]) == (0, 1)


def test_stale_centroids_are_told(tmp_path):
    """Trained about one direction, then nearly all of it deleted and others about the opposite one put in its place."""
    noise = torch.randn(1200, DIM, generator=torch.Generator().manual_seed(0))
    made = build(tmp_path, Ragged(normalize(1 + 0.3 * noise[:600], dim=1), torch.full((300,), 2)))
    made.delete(names(290))
    assert "note" not in made.stats()
    made.add([f"n{i}" for i in range(300)], Ragged(normalize(0.3 * noise[600:] - 1, dim=1), torch.full((300,), 2)))
    made.add(["n"], Ragged(torch.full((2, DIM), -(DIM**-0.5)), torch.tensor([2])))
    stats = made.stats()
    # 602 of 600 + 602 came later, and lie about 2 away from centroids that the first were within 0.5 of.
    assert stats["added_share"] == pytest.approx(602 / 1202)
    assert stats["added_distance"] > 2
    assert "602 of 1,202 vectors came after the centroids were trained" in stats["note"]


def test_an_edit_that_cannot_be_changes_nothing(tmp_path, monkeypatch):
    documents = vectors(0, [2] * 3)
    made = build(tmp_path, documents)
    before = content(tmp_path)
    with pytest.raises(DataError, match="update them instead"):
        made.add(["new", "d1"], documents[:2])
    with pytest.raises(DataError, match="'x' is the first"):
        made.update(["d0", "x"], documents[:2])
    made.delete([])
    assert content(tmp_path) == before
    monkeypatch.setattr(inverted, "to_bytes", lambda index: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        made.delete(["d1"])
    assert len(made.search(["q"], vectors(1, [2]), 5)["q"]) == 3
    assert sorted(ivfpq.IvfPqIndex(tmp_path).ids) == ["d0", "d1", "d2"]


def test_a_changed_byte_is_named(tmp_path, many):
    made = build(tmp_path, many)
    (lists,) = tmp_path.glob("faiss-*.npy")
    raw = bytearray(lists.read_bytes())
    raw[-9] ^= 1
    lists.write_bytes(raw)
    with pytest.raises(ArtifactError, match=lists.name):
        made.verify()


def test_what_cannot_be_is_refused(tmp_path, many, monkeypatch):
    with pytest.raises(
        ConfigError, match=r"not divide the 8 dimensions[^\n]*\n\s*try: index.subvectors=<one of 1, 2, 4, 8>"
    ):
        IvfPqIndexKind(subvectors=3).writer(tmp_path / "a", 8, "cosine")
    made = build(tmp_path / "b", vectors(0, [2, 2]))
    with pytest.raises(ConfigError, match="try: probe=ivfpq"):
        made.search(["q"], vectors(1, [2]), 5, probe=object())
    with pytest.raises(ConfigError, match="4 dimensions, the index 8"):
        made.search(["q"], vectors(1, [2], 4), 5)
    assert len(IvfPqIndexKind.problems(0, 0, 1, -1, "fp16")) == 4
    assert IvfPqProbe.problems(probes=0, hits=None, threads=-1) != []
    for kind, wrong in (
        (IvfPqProbe, {"probes": 0}),
        (IvfPqProbe, {"hits": -5}),
        (IvfPqIndexKind, {"subvectors": 0}),
        (IvfPqIndexKind, {"dtype": "fp8"}),
    ):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            kind(**wrong)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match="pip install faiss-cpu"):
        IvfPqIndexKind().writer(tmp_path / "c", 16, "cosine")


def test_stages_tell_what_the_candidates_lose(tmp_path, many):
    made = build(tmp_path, many)
    query = vectors(3, [4])
    few, more = IvfPqProbe(probes=1, hits=2), IvfPqProbe(probes=10**6, hits=40)
    narrow, wide = made.stages(query.values, 5, probe=few), made.stages(query.values, 5, probe=more)
    assert len(narrow["candidates"]) < len(wide["candidates"]) < 300
    assert set(narrow["candidates"]) <= set(wide["candidates"])
    assert wide["found"] == list(made.search(["q"], query, 5, probe=more)["q"].ids)
    assert set(wide["found"]) <= set(wide["candidates"])
    only = wide["candidates"][:3]
    assert set(made.stages(query.values, 2, only, more)["candidates"]) == set(only)


def test_searches_that_overlap_leave_the_threads_as_they_were():
    """The second begins within the first and ends after it; what a third, new thread then has was there before."""
    begun, first_over = threading.Event(), threading.Event()
    numbers = {}

    def second():
        with inverted.threads(1):
            begun.set()
            assert first_over.wait(30)
            numbers["within"] = torch.get_num_threads()
        numbers["second"] = torch.get_num_threads()

    def third():
        numbers["third"] = torch.get_num_threads()

    before, other = torch.get_num_threads(), threading.Thread(target=second)
    torch.set_num_threads(3)
    try:
        with inverted.threads(2):
            with inverted.threads(1):
                other.start()
                assert begun.wait(30)
            numbers["enclosing"] = torch.get_num_threads()
        numbers["first"] = torch.get_num_threads()
        first_over.set()
        other.join()
        last = threading.Thread(target=third)
        last.start()
        last.join()
    finally:
        torch.set_num_threads(before)
    assert numbers == {"enclosing": 2, "first": 3, "within": 1, "second": 3, "third": 3}
