"""Every index through the verbs: made, searched, probed, pooled, updated and verified; and what is refused, when."""

import json
import os
import shutil
from pathlib import Path

import pytest

from colbert_lab.artifact import Artifact
from colbert_lab.data.collection import Collection
from colbert_lab.errors import ArtifactError, ConfigError, DataError
from colbert_lab.index import staleness
from colbert_lab.models import precision as resolving
from colbert_lab.run import read_trec
from colbert_lab.stages import show
from colbert_lab.stages import update as updating
from colbert_lab.stages.index import described, index_with, open_index
from colbert_lab.stages.making import input_of
from colbert_lab.tracking.read import summary

# What an index needs to differ where a key is changed; key -> the change.
KNOBS = {
    "ivfpq": {
        "partitions": "index.partitions=2",
        "subvectors": "index.subvectors=4",
        "sample": "index.sample=39",
        "seed": "index.seed=1",
        "dtype": "index.dtype=fp32",
    },
    "single_vector": {"pooling": "index.pooling=first", "dtype": "index.dtype=fp32"},
    "bm25": {
        "k1": "index.k1=2",
        "b": "index.b=0.1",
        "stopwords": "index.stopwords=null",
        "stemmer": "index.stemmer=null",
    },
}
POOLED = {
    "factor": "pooling.factor=3",
    "protected": "pooling.protected=4",
    "renormalise": "pooling.renormalise=false",
    "distances": "pooling.distances=rows",
    "count": "pooling.count=all",
}


def run_of(artifact):
    return dict(read_trec(artifact.path / "run.trec.gz"))


@pytest.fixture(scope="module")
def made(lab, chain):
    """made("ivfpq", ...) -> the index artifact."""

    def make(index, *overrides):
        model = () if index == "bm25" else (f"model={chain['model'].path}",)
        return lab("index", f"index={index}", *model, *overrides).artifact

    return make


@pytest.fixture(scope="module")
def searched(lab):
    def search(index, *overrides):
        return lab("search", f"index_dir={index.path}", *overrides).artifact

    return search


@pytest.mark.parametrize("index", KNOBS)
def test_every_key_of_an_index_changes_it(lab, made, index):
    keys = set(lab.compose("index", f"index={index}")[0].index) - {"_target_"}
    assert keys == KNOBS[index].keys()
    small = ("index.sample=40",) if index == "ivfpq" else ()
    digests = [made(index, *small).digest, *(made(index, *small, change).digest for change in KNOBS[index].values())]
    assert len(set(digests)) == len(digests)


def test_every_key_of_the_pooling_changes_the_vectors(lab, made):
    assert set(lab.compose("index")[0].pooling) - {"_target_"} == POOLED.keys()
    plain, half = made("exact"), made("exact", "pooling.factor=2")
    counts = half.manifest["counts"]
    assert (
        counts["encoded_vectors"] == plain.manifest["counts"]["vectors"] == plain.manifest["counts"]["encoded_vectors"]
    )
    assert counts["vectors"] < 0.6 * counts["encoded_vectors"]
    digests = {made("exact", "pooling.factor=2", change).digest for change in POOLED.values()}
    assert len(digests | {plain.digest, half.digest}) == len(POOLED) + 2
    # Off is off, whatever the other keys say.
    assert made("exact", "pooling.protected=0") == plain


@pytest.mark.parametrize("index", ["residual", "ivfpq"])
def test_vectors_that_are_there_need_no_encoding_and_change_nothing(lab, made, fresh_lab, chain, monkeypatch, index):
    overrides = (f"model={chain['model'].path}", "encode.precision=fp32", f"index={index}")
    encoded = lab("index", *overrides).artifact
    pooled = lab("index", *overrides, "pooling.factor=2").artifact
    cfg, *_ = fresh_lab.compose("index", *overrides)
    exact = made("exact", "encode.precision=fp32", "index.dtype=fp32")
    others = made("exact", "encode.precision=fp32"), made("exact", "encode.precision=fp32", "pooling.factor=2")
    monkeypatch.setattr("colbert_lab.models.encoding.encode", lambda *given, **more: pytest.fail("encoded"))
    model, collection = chain["model"], Collection(input_of(encoded, "collection"))
    read = index_with(cfg, model, collection, vectors=exact)
    assert (read.digest, read.manifest["counts"]) == (encoded.digest, encoded.manifest["counts"])
    cfg.pooling.factor = 2
    assert index_with(cfg, model, collection, vectors=exact).digest == pooled.digest
    # Half of the bits, or fewer vectors, would not be the same.
    for other in others:
        cfg.index.seed += 1
        with pytest.raises(pytest.fail.Exception, match="encoded"):
            index_with(cfg, model, collection, vectors=other)


def test_an_ivfpq_index_with_everything_probed_is_exact(made, searched):
    index = made("ivfpq")
    assert index.manifest["counts"]["structure"] == "ivfpq"
    run = searched(index, "probe=ivfpq", "probe.probes=999", "probe.hits=100000")
    assert run.manifest["counts"]["probe"] == {
        "probes": index.manifest["counts"]["partitions"],
        "hits": 100000,
        "threads": None,
    }
    exact = run_of(searched(made("exact")))
    assert {query: hits.ids for query, hits in run_of(run).items()} == {q: hits.ids for q, hits in exact.items()}


def test_every_key_of_a_probe_counts(made, searched):
    index = made("ivfpq")
    auto = searched(index, "search.k=4")
    assert auto.manifest["counts"]["probe"]["hits"] == 2
    assert auto.manifest["config"]["probe"] is None
    probed = [
        searched(index, "search.k=4", "probe=ivfpq", change)
        for change in ("probe.probes=1", "probe.hits=1", "probe.threads=1")
    ]
    assert len({run.manifest["key"] for run in (auto, *probed)}) == 4
    assert run_of(probed[2]) == run_of(auto)
    assert probed[0].manifest["counts"]["probe"]["probes"] == 1
    with pytest.raises(ConfigError, match="try: probe=auto"):
        searched(made("single_vector"), "probe=ivfpq")
    with pytest.raises(ConfigError, match="probes=0 must be at least 1"):
        searched(index, "probe=ivfpq", "probe.probes=0")


def test_bm25_needs_no_model_and_is_the_bm25_of_the_pipeline(lab, made, searched):
    index = made("bm25")
    assert "model" not in index.manifest["inputs"]
    run = searched(index)
    assert "cut_queries" not in run.manifest["counts"]
    assert lab("evaluate", f"run={run.path}").figures["ndcg_10"] > 0.5
    lab("train")  # whose negatives are BM25's
    bm25 = next((lab.root / "runs").glob("*-train-bm25-*"))
    assert run_of(searched(index, "split=train", "search.k=20")) == run_of(Artifact.open(bm25))


def test_an_index_of_texts_refuses_models_and_their_pooling(lab, made, fresh_lab, chain):
    with pytest.raises(ConfigError, match="without model="):
        lab("index", "index=bm25", f"model={chain['model'].path}")
    with pytest.raises(ConfigError, match=r"try: pooling\.factor=1"):
        made("bm25", "pooling.factor=2")
    for verb in ("pipeline", "rounds"):
        with pytest.raises(ConfigError, match="takes texts"):
            fresh_lab(verb, "index=bm25")
        with pytest.raises(ConfigError, match="try: probe=auto"):
            fresh_lab(verb, "index=single_vector", "probe=ivfpq")
    # Before anything was made.
    assert not fresh_lab.root.exists()


def test_only_some_documents_are_searched(made, searched, tmp_path):
    file = tmp_path / "ids.txt"
    file.write_text("d3-0\nd4-1\r\nd5-2\n")
    for index in ("exact", "ivfpq", "single_vector", "bm25"):
        run = searched(made(index), f"search.only={file}")
        assert run.manifest["counts"]["only"] == 3
        found = {document for hits in run_of(run).values() for document in hits.ids}
        assert found <= {"d3-0", "d4-1", "d5-2"}
        assert found
    again = searched(made("exact"), f"search.only={shutil.copy(file, tmp_path / 'copy.txt')}")
    assert again == searched(made("exact"), f"search.only={file}")
    for text, message in (("d3-0\n\nd4-1\n", "2: .* the line is empty"), ("d3-0\nd3-0\n", "stands in line 1 already")):
        file.write_text(text)
        with pytest.raises(DataError, match=message):
            searched(made("exact"), f"search.only={file}")


@pytest.fixture
def edited(lab, tmp_path):
    """A collection that differs: three documents changed, two new ones; and files of ids."""
    toy = tmp_path / "toy"
    shutil.copytree(lab.toy, toy)
    rows = [json.loads(line) for line in (toy / "corpus.jsonl").read_text().splitlines()]
    for row in rows[:3]:
        row["text"] = "Something else stands here, about a lighthouse."
    rows += [{"_id": f"new {i}", "title": "river", "text": f"A river, number {i}."} for i in range(2)]
    (toy / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "delete").write_text("d10-0\nd11-1\n")
    (tmp_path / "add").write_text("\n".join(["new 1", "new 0", *(row["_id"] for row in rows[:3])]))
    return lab, toy, [f"add={tmp_path / 'add'}", f"delete={tmp_path / 'delete'}", "data=beir", f"data.root={toy}"]


@pytest.mark.parametrize("index", ["exact", "ivfpq", "single_vector", "bm25"])
def test_an_updated_index_finds_what_one_made_anew_finds(edited, made, chain, index):
    lab, toy, options = edited
    old = made(index)
    new = lab("update", f"index_dir={old.path}", *options, "encode.chunk=2").artifact
    counts = new.manifest["counts"]
    assert [counts[name] for name in ("deleted", "updated", "added")] == [2, 3, 2]
    assert counts["documents"] == 60
    assert Artifact.open(old.path, full=True).digest == old.digest
    model = () if index == "bm25" else (f"model={chain['model'].path}",)
    fresh = lab("index", f"index={index}", *model, "data=beir", f"data.root={toy}").artifact
    rebuilt = open_index(fresh)
    rebuilt_ids = set(rebuilt.ids) - {"d10-0", "d11-1"}
    assert set(open_index(new).ids) == rebuilt_ids
    keep = toy.parent / "keep"
    keep.write_text("\n".join(sorted(rebuilt_ids)))
    wide = ("probe=ivfpq", "probe.probes=999", "probe.hits=100000") if index == "ivfpq" else ()
    found = run_of(lab("search", f"index_dir={new.path}", *wide).artifact)
    expected = run_of(lab("search", f"index_dir={fresh.path}", f"search.only={keep}", *wide).artifact)
    if index == "bm25":
        # Two documents fewer make other words rare: the order of these is another collection's.
        assert {q: set(hits.ids) for q, hits in found.items()} == {q: set(hits.ids) for q, hits in expected.items()}
    else:
        assert {q: hits.ids for q, hits in found.items()} == {q: hits.ids for q, hits in expected.items()}
    assert "all as they were written" in lab("verify", "!all", f"artifact={new.path}")


def test_an_updated_residual_index_tells_how_stale_its_centroids_are(edited, made, monkeypatch):
    """In the verb's text, in the run's summary and where the run is shown; in words where they are stale."""
    lab, _, options = edited
    old = made("residual")
    assert "centroids were trained" not in described(old)
    assert (summary(old.path / "log")["index/added_share"], summary(old.path / "log")["index/added_distance"]) == (0, 1)
    outcome = lab("update", f"index_dir={old.path}", *options)
    new, counts = outcome.artifact, outcome.artifact.manifest["counts"]
    # The five documents that were encoded for it, beside all that the old one holds, deleted or not.
    vectors = counts["encoded_vectors"]
    assert counts["added_share"] == pytest.approx(vectors / (vectors + old.manifest["counts"]["vectors"]))
    told = f"{counts['added_share']:.0%} of the vectors came after the centroids were trained and lie "
    assert told + f"{counts['added_distance']:.2f} times as far off" in outcome.text
    figures = summary(new.path / "log")
    assert figures["index/added_share"] == counts["added_share"]
    assert figures["index/added_distance"] == counts["added_distance"] != 1
    assert "note" not in counts
    monkeypatch.setattr(staleness, "_SHARE", 0.01)
    monkeypatch.setattr(staleness, "_DISTANCE", 0.0)
    stale = lab("update", f"index_dir={old.path}", *options, "encode.batch_tokens=4096")
    note = stale.artifact.manifest["counts"]["note"]
    assert note.endswith("build the index again to search it as well as before")
    assert note in stale.text
    shown = show.told(stale.artifact.path, 60)
    assert note in " ".join(shown[shown.index("note\n") :].split())
    assert "note\n" not in show.told(new.path, 60)


@pytest.fixture
def auto(monkeypatch):
    """auto("bf16"): what encode.precision=auto comes to from now on, as on another machine."""

    def means(precision):
        monkeypatch.setattr(resolving, "resolve_precision", lambda asked, _: precision if asked == "auto" else asked)

    return means


def test_another_precision_is_another_artifact_whatever_auto_comes_to(made, searched, auto):
    auto("bf16")
    half = made("exact")
    assert half == made("exact", "encode.precision=bf16")
    run = searched(made("exact", "encode.precision=fp32"))
    auto("fp32")
    whole = made("exact")
    assert whole == made("exact", "encode.precision=fp32")
    assert (half.manifest["config"]["encode"]["precision"], half.digest) != ("fp32", whole.digest)
    again = searched(whole)
    assert again.manifest["key"] != run.manifest["key"]
    assert again.manifest["config"]["encode"]["precision"] == "fp32"


def test_an_update_encodes_as_its_index_was_encoded(edited, made, auto, tmp_path, capsys):
    lab, _, options = edited
    auto("bf16")
    half = made("exact").path
    auto("fp32")
    for index, precision in ((half, "bf16"), (made("exact").path, "fp32")):
        new = lab("update", f"index_dir={index}", *options).artifact
        assert new.manifest["config"]["encode"]["precision"] == precision
    with pytest.raises(ConfigError, match=r"encode\.precision=fp32, but .* encoded with bf16"):
        lab("update", f"index_dir={half}", *options, "encode.precision=fp32")
    # An index of an earlier version says "auto" and nothing more: what is asked for is believed.
    old = shutil.copytree(half, tmp_path / "old")
    manifest = json.loads((old / "manifest.json").read_text())
    manifest["config"]["encode"]["precision"] = "auto"
    (old / "manifest.json").write_text(json.dumps(manifest))
    told = "does not say in which precision"
    capsys.readouterr()
    new = lab("update", f"index_dir={old}", *options, "encode.precision=bf16").artifact
    assert new.digest == lab("update", f"index_dir={half}", *options).artifact.digest
    assert told not in capsys.readouterr().err
    new = lab("update", f"index_dir={old}", *options).artifact
    assert new.manifest["config"]["encode"]["precision"] == "fp32"
    assert told in capsys.readouterr().err


def test_an_index_that_was_stopped_before_its_rename_needs_no_making(made, fresh_lab, chain, monkeypatch):
    expected, real = made("exact").digest, os.replace

    def stopping(old, new):
        if Path(new).parent.name == "indexes":
            raise KeyboardInterrupt
        real(old, new)

    given = f"model={chain['model'].path}", "index=exact"
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stopping)
        with pytest.raises(KeyboardInterrupt):
            fresh_lab("index", *given)
    monkeypatch.setattr("colbert_lab.models.encoding.encode", lambda *given, **more: pytest.fail("encoded"))
    assert fresh_lab("index", *given).artifact.digest == expected


@pytest.mark.parametrize("moment", [0, 1, 2, 3])
def test_an_update_that_was_killed_goes_on(edited, fresh_lab, made, monkeypatch, moment):
    """Before one of its four steps, and right after a step's commit: the same bytes as undisturbed."""
    lab, _, options = edited
    arguments = [f"index_dir={made('exact').path}", *options, "encode.chunk=2"]
    expected = lab("update", *arguments).artifact.digest
    for after in (False, True):
        other = fresh_lab.elsewhere(fresh_lab.root / str(after))
        left = [moment]
        real = updating.hash_file

        def dying(path, left=left, real=real):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return real(path)

        class Dying:
            def __init__(self, index, left=left):
                self.index, self.left = index, left

            def __getattr__(self, name):
                def step(*arguments):
                    getattr(self.index, name)(*arguments)
                    if not self.left[0]:
                        raise KeyboardInterrupt
                    self.left[0] -= 1

                return step

        with monkeypatch.context() as patch:
            if after:
                edit = updating._edit
                patch.setattr(updating, "_edit", lambda opened, *rest, edit=edit: edit(Dying(opened), *rest))
            else:
                patch.setattr(updating, "hash_file", dying)
            with pytest.raises(KeyboardInterrupt):
                other("update", *arguments)
        assert other("update", *arguments).artifact.digest == expected


def test_what_cannot_be_updated_is_refused(edited, made, tmp_path):
    lab, _, options = edited
    index = f"index_dir={made('exact', 'encode.precision=fp32').path}"
    for given, message in (
        ((), "nothing is to be changed"),
        ((options[0],), "try: data=beir"),
        ((options[0], f"delete={tmp_path / 'add'}", *options[2:]), "2 documents are not in the index, 'new 1'"),
        ((f"add={tmp_path / 'delete'}", *options[1:]), "2 documents are to be added as well, 'd10-0'"),
    ):
        with pytest.raises((ConfigError, DataError), match=message):
            lab("update", index, *given)
    with pytest.raises(ConfigError, match=r"encode\.precision=bf16, but .* encoded with fp32"):
        lab("update", index, *options, "encode.precision=bf16")
    (tmp_path / "add").write_text("x y\n")
    with pytest.raises(DataError, match=r"1 documents are not in toy, 'x y' is the first"):
        lab("update", index, *options)
    with pytest.raises(ConfigError, match="index=<directory"):
        lab("update")


def test_verify_names_the_file(lab, made, tmp_path):
    with pytest.raises(ConfigError, match="artifact=<directory"):
        lab("verify", "!all")
    copy = shutil.copytree(made("ivfpq").path, tmp_path / "copy")
    raw = bytearray((copy / "values.npy").read_bytes())
    raw[-1] ^= 1
    (copy / "values.npy").write_bytes(raw)
    with pytest.raises(ArtifactError, match=r"values\.npy was changed"):
        lab("verify", "!all", f"artifact={copy}")


def test_the_pipeline_and_rounds_run_with_any_index(fresh_lab):
    fresh_lab("pipeline", "train.max_steps=0", "index=ivfpq", "probe=ivfpq", "lexical=false")
    (index,) = (fresh_lab.root / "indexes").iterdir()
    assert Artifact.open(index).manifest["config"]["index"]["_target_"].endswith("IvfPqIndexKind")
    fresh_lab("rounds", "index=ivfpq", "probe=ivfpq", "pooling.factor=2", "rounds.count=0", "teacher_train.max_steps=1")
    kinds = [Artifact.open(path).manifest["config"] for path in (fresh_lab.root / "indexes").iterdir()]
    alone = [config for config in kinds if config["index"]["_target_"].endswith("SingleVectorIndexKind")]
    # The baseline's single vectors are neither pooled nor probed.
    assert [config["pooling"] for config in alone] == [None]
