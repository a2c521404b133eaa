"""Making and changing a residual index: the same bytes however it was cut, killed or shared out; old or new."""

import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from colbert_lab.errors import ArtifactError, DataError
from colbert_lab.index.files import Files
from colbert_lab.index.residual import build
from colbert_lab.index.residual.build import sample_vectors
from colbert_lab.index.residual.codes import stored_codec
from colbert_lab.index.residual.kind import ResidualIndexKind
from colbert_lab.index.residual.probe import ResidualProbe
from colbert_lab.ragged import Ragged

KIND = ResidualIndexKind(bits=2, iterations=2, partitions=16)
CHUNK = 50


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(build, "CHUNK", CHUNK)


def documents(seed=0, count=60, dim=16):
    lengths = torch.randint(0, 9, (count,), generator=torch.Generator().manual_seed(seed))
    values = torch.randn(int(lengths.sum()), dim, generator=torch.Generator().manual_seed(seed + 1))
    return Ragged(normalize(values, dim=-1), lengths)


def names(count=60, prefix="d"):
    return [f"{prefix} {row}\tü" for row in range(count)]


def write(folder, chunk=25, kind=KIND, stop=None):
    """Append from where the writer is and finish; `stop` appends leave it unfinished."""
    writer, whole = kind.writer(folder, 16, "cosine"), documents()
    for appended, first in enumerate(range(writer.documents, 60, chunk)):
        if appended == stop:
            return
        writer.append(names()[first : first + chunk], whole[first : first + chunk])
    writer.finish()


def files(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.endswith(".tmp")}


def results(index, k=200, **probe):
    queries = documents(7, 5)
    return index.search([f"q{i}" for i in range(5)], queries, k, probe=ResidualProbe(exact=True, **probe))


@pytest.fixture
def whole(tmp_path):
    write(tmp_path / "whole")
    return files(tmp_path / "whole")


def test_how_it_was_appended_leaves_no_trace(tmp_path, whole):
    for chunk in (7, 60):
        write(tmp_path / str(chunk), chunk)
        assert files(tmp_path / str(chunk)) == whole
    # The spool is gone.
    assert not any(name.startswith("values") for name in whole)


@pytest.mark.parametrize("options", [{"seed": 1}, {"bits": 4}, {"codec": "stanford"}, {"iterations": 3}])
def test_each_parameter_changes_the_index(tmp_path, whole, options):
    kind = ResidualIndexKind(**{"bits": 2, "iterations": 2, "partitions": 16, **options})
    write(tmp_path / "x", kind=kind)
    assert files(tmp_path / "x")["packed.npy"] != whole["packed.npy"]


def test_partitions(tmp_path):
    def centroids(**options):
        folder = tmp_path / str(options)
        write(folder, kind=ResidualIndexKind(iterations=1, **options))
        return ResidualIndexKind().open(folder).stats()["centroids"]

    vectors = len(documents().values)
    assert vectors == 257
    # 16·sqrt(257) = 256.5, and 2^8 is not above it; then at most a centroid for each 4 vectors of the sample.
    assert centroids(points_per_centroid=1) == 256
    assert centroids() == vectors // 4
    assert centroids(partitions=10) == 10
    assert centroids(points_per_centroid=2, sample_per_centroid=2, partitions=50) == 50
    assert centroids(points_per_centroid=9) == vectors // 9


def test_two_processes_make_what_one_makes(tmp_path, whole):
    two = ResidualIndexKind(bits=2, iterations=2, partitions=16, processes=2)
    write(tmp_path / "two", kind=two)
    assert files(tmp_path / "two") == whole
    # Begun by one and gone on with by two.
    write(tmp_path / "begun", stop=2)
    write(tmp_path / "begun", kind=two)
    assert files(tmp_path / "begun") == whole


@pytest.mark.parametrize(("most", "count"), [(10**9, 100), (37, 100), (50, 40_000)])
def test_the_sample_is_of_all_documents(most, count):
    lengths = np.random.default_rng(0).integers(0, 5, count).astype(np.int32)
    drawn = sample_vectors(lengths, most, 3)
    total = int(lengths.sum())
    assert len(np.unique(drawn)) == len(drawn) == min(most, total)
    assert (np.diff(drawn) > 0).all()
    assert drawn[0] >= 0
    assert drawn[-1] < total
    # From all over: an ordered collection's head is no sample of it.
    assert abs(drawn.mean() / total - 0.5) < 0.15
    assert drawn.tolist() == sample_vectors(lengths, most, 3).tolist()
    if len(drawn) < total:
        assert drawn.tolist() != sample_vectors(lengths, most, 4).tolist()


def test_a_topic_at_the_end_has_its_centroids(tmp_path):
    # 300 vectors about one direction, then 100 about the opposite one.
    head, tail = torch.randn(300, 16) * 0.2 + 1, torch.randn(100, 16) * 0.2 - 1
    values = normalize(torch.cat([head, tail]), dim=1)
    kind = ResidualIndexKind(partitions=8, sample_per_centroid=4)
    writer = kind.writer(tmp_path, 16, "cosine")
    writer.append(names(40), Ragged(values, torch.full((40,), 10)))
    writer.finish()
    centroids = stored_codec(Files.open(tmp_path)).centroids
    assert 1 <= int((centroids.sum(1) < 0).sum()) <= 4


# Edits


def test_add_delete_update_are_a_rebuild_with_the_same_codec(tmp_path):
    write(tmp_path / "x")
    index, more = KIND.open(tmp_path / "x"), documents(3, 20)
    before = results(index)
    index.add(names(20, "new"), more)
    index.delete(names()[5:15])
    index.update([*names()[20:22], "new 3\tü"], documents(4, 3))
    index.delete([names()[20]])
    index.add([names()[5]], documents(5, 1))
    assert len(index) == 60 + 20 - 10 - 1 + 1
    # What they are now, each encoded by the codec on its own.
    now = dict(zip(names(), documents()))
    now |= dict(zip(names(20, "new"), more))
    for i in names()[5:15]:
        del now[i]
    now |= dict(zip([*names()[20:22], "new 3\tü"], documents(4, 3)))
    del now[names()[20]]
    now[names()[5]] = documents(5, 1)[0]
    assert sorted(index.ids) == sorted(now)
    codec = stored_codec(Files.open(tmp_path / "x"))
    decoded = {i: codec.decode(*codec.encode(v.half().float())) for i, v in now.items()}
    kept = index.embeddings(list(now))
    for vectors, expected in zip(kept, decoded.values(), strict=True):
        torch.testing.assert_close(vectors, expected)
    assert results(index) == results(KIND.open(tmp_path / "x")) != before
    for hits in results(index).values():
        assert sorted(hits.ids) == sorted(now)
    # By the lists as well: every document that has a vector stands in them.
    found = index.stages(documents(7, 5)[1], 1, probe=ResidualProbe(cells=16, threshold=-9.0))
    assert set(found["candidates"]) == {i for i, vectors in now.items() if len(vectors)}
    index.verify()


def test_edits_that_cannot_be(tmp_path):
    write(tmp_path / "x")
    index, before = KIND.open(tmp_path / "x"), files(tmp_path / "x")
    with pytest.raises(DataError, match="already"):
        index.add([names()[3]], documents(3, 1))
    with pytest.raises(DataError, match="'nobody'"):
        index.delete(["nobody"])
    with pytest.raises(DataError, match="'nobody'"):
        index.update(["nobody"], documents(3, 1))
    with pytest.raises(ValueError, match="2 ids for 1 documents"):
        index.add(["a", "b"], documents(3, 1))
    with pytest.raises(ValueError, match="8 dimensions, the index 16"):
        index.add(["a"], documents(3, 1, 8))
    assert files(tmp_path / "x") == before
    assert len(index) == len(KIND.open(tmp_path / "x")) == 60


def test_staleness_is_told(tmp_path):
    write(tmp_path / "x")
    index = KIND.open(tmp_path / "x")
    stats = index.stats()
    assert (stats["added_share"], stats["added_distance"]) == (0, 1)
    assert "note" not in stats
    index.add(names(3, "like"), documents()[:3])
    assert index.stats()["added_distance"] == pytest.approx(1, abs=0.2)
    assert "note" not in index.stats()
    share_before = index.stats()["added_share"]
    # Of a kind that the centroids have not seen: all along one axis and its opposite.
    axis = torch.zeros(40, 16)
    axis[:, 3] = torch.tensor([1.0, -1.0]).repeat(20)
    index.add(names(8, "unlike"), Ragged(axis, torch.full((8,), 5)))
    stats = index.stats()
    vectors = len(documents().values)
    assert stats["added_share"] == pytest.approx((share_before * (vectors + 9) + 40) / (vectors + 49), abs=0.05)
    assert stats["added_distance"] > 1.0
    assert stats["deleted_documents"] == 0


@pytest.mark.parametrize(
    ("added", "distance", "stale"),
    # 257 vectors were trained on: few far ones, many near ones, many far ones.
    [(100, 2.0, False), (10_000, 1.1, False), (10_000, 1.2, True)],
)
def test_it_is_stale_where_many_vectors_are_far_and_only_there(tmp_path, monkeypatch, added, distance, stale):
    write(tmp_path / "x")
    index = KIND.open(tmp_path / "x")
    facts = index._files.facts
    monkeypatch.setitem(facts, "added_vectors", added)
    monkeypatch.setitem(facts, "added_distance", distance * facts["distance"])
    assert index.stats()["added_distance"] == pytest.approx(distance)
    assert ("note" in index.stats()) == stale


@pytest.mark.parametrize("codec", ["product", "stanford"])
def test_an_index_of_no_vectors_is_trained_by_the_first_that_come(tmp_path, codec):
    kind = ResidualIndexKind(bits=2, iterations=2, partitions=16, codec=codec)
    write(tmp_path / "built", kind=kind)
    built = kind.open(tmp_path / "built")
    kind.writer(tmp_path / "x", 16, "cosine").finish()
    index = kind.open(tmp_path / "x")
    index.add(["empty"], Ragged(torch.empty(0, 16), torch.zeros(1, dtype=torch.int64)))
    assert index.stats()["centroids"] == 1
    index.add(names(), documents())
    index.delete(["empty"])
    assert results(index) == results(built)
    ours, theirs = index.stats(), built.stats()
    assert ours["centroids"] == theirs["centroids"] == 16
    assert (ours["added_share"], ours["added_distance"]) == (0, 1)
    for one in (built, index):
        one.add(names(3, "like"), documents(3, 3))
    assert index.stats()["added_distance"] == pytest.approx(built.stats()["added_distance"], rel=0.05)
    assert results(index) == results(built)


def test_it_is_stale_where_only_what_came_later_lies_off_the_centroids(tmp_path):
    """Built of one vector, many times: it is its centroid, so that no distance is a multiple of its own."""
    same, count = torch.eye(16)[:1].expand(40, 16), torch.full((10,), 4)
    writer = KIND.writer(tmp_path / "x", 16, "cosine")
    writer.append(names(10), Ragged(same, count))
    writer.finish()
    index = KIND.open(tmp_path / "x")
    index.add(names(10, "same"), Ragged(same, count))
    assert index.stats()["added_distance"] == 1
    index.add(names(60, "other"), documents())
    stats = index.stats()
    assert stats["added_distance"] is None
    assert "vectors came after the centroids were trained and lie off them, on which the others lie" in stats["note"]


# Kills


# Children of a process that has run nothing: a fork of this one could not run OpenMP's threads again.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([__name__])


def die_at(moment, action, *args):
    """`action` in a process that kills itself when the `moment`-th file is brought to the disk or removed."""
    count = 0

    def counted(function):
        def call(*args, **options):
            nonlocal count
            count += 1
            if count == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **options)

        return call

    build.CHUNK = CHUNK
    torch.set_num_threads(1)
    os.fsync, os.replace, Path.unlink = counted(os.fsync), counted(os.replace), counted(Path.unlink)
    action(*args)


def killed(moment, action, *args):
    """Whether it was killed, or was done before."""
    dying = FORKS.Process(target=die_at, args=(moment, action, *args))
    dying.start()
    dying.join(120)
    assert dying.exitcode in (0, -signal.SIGKILL)
    return dying.exitcode != 0


# What a build brings to the disk: 3 files and a head an append, the codec, 6 chunks, the lists, all headers, the head.
@pytest.mark.parametrize("moment", sorted(np.random.default_rng(0).permutation(70)[:9].tolist()))
def test_a_killed_build_goes_on(tmp_path, whole, moment):
    folder = tmp_path / "x"
    if killed(moment + 1, write, folder) and not (folder / "head.json").exists():
        assert moment < 5
    elif not Files.edit(folder).finished:
        with pytest.raises(ArtifactError):
            KIND.open(folder)
    write(folder)
    assert files(folder) == whole


def change(folder, edit):
    index = KIND.open(folder)
    if edit == "first":
        index.add(names(), documents())
    elif edit == "add":
        index.add(names(20, "new"), documents(3, 20))
    elif edit == "delete":
        index.delete(names()[:7])
    else:
        index.update(names()[:7], documents(3, 7))


@pytest.mark.parametrize("edit", ["first", "add", "delete", "update"])
def test_a_killed_edit_is_done_or_not_begun(tmp_path, edit):
    if edit == "first":
        KIND.writer(tmp_path / "x", 16, "cosine").finish()
    else:
        write(tmp_path / "x")
    states = {"before": results(KIND.open(tmp_path / "x"))}
    shutil.copytree(tmp_path / "x", tmp_path / "y")
    change(tmp_path / "y", edit)
    states["after"] = results(KIND.open(tmp_path / "y"))
    assert states["before"] != states["after"]
    seen = []
    for moment in (1, 8, 15, 1000):
        folder = tmp_path / str(moment)
        shutil.copytree(tmp_path / "x", folder)
        was_killed = killed(moment, change, folder, edit)
        index = KIND.open(folder)
        index.verify()
        seen.append(next(name for name, expected in states.items() if results(index) == expected))
        assert seen[-1] == "after" or was_killed
        if seen[-1] == "before":
            change(folder, edit)
            assert results(KIND.open(folder)) == states["after"]
            KIND.open(folder).verify()
    assert seen[0] == "before"
    assert seen[-1] == "after"
    assert not was_killed


def test_a_flipped_byte_is_named(tmp_path, whole):
    for name in whole:
        content = bytearray(whole[name])
        content[len(content) * 2 // 3] ^= 16
        (tmp_path / "whole" / name).write_bytes(content)
        with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
            KIND.open(tmp_path / "whole").verify()
        (tmp_path / "whole" / name).write_bytes(whole[name])
    KIND.open(tmp_path / "whole").verify()


def test_nothing_is_appended_to_what_is_being_finished(tmp_path, whole):
    writer = KIND.writer(tmp_path / "whole", 16, "cosine")
    assert writer.documents == 60
    with pytest.raises(ValueError, match="add"):
        writer.append(["x"], documents(1, 1))
    writer.finish()
    assert files(tmp_path / "whole") == whole
    with pytest.raises(ArtifactError, match="was begun with"):
        ResidualIndexKind(bits=4).writer(tmp_path / "whole", 16, "cosine")
