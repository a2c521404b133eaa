"""convert: what goes to Stanford and back is searched alike, and what does not belong together is refused."""

import json
import shutil

import pytest
from stages_toy import beir

from colbert_lab.artifact import Artifact
from colbert_lab.errors import ArtifactError, ConfigError, DataError
from colbert_lab.run import read_trec

STANFORD = ("index=residual", "index.codec=stanford", "index.bits=2", "index.partitions=16")


@pytest.fixture(scope="module")
def model(lab) -> Artifact:
    return lab("init").artifact


@pytest.fixture(scope="module")
def native(lab, model) -> Artifact:
    return lab("index", f"model={model.path}", *STANFORD).artifact


def convert(lab, source, *overrides):
    return lab("convert", "!all", f"root={lab.root}", "tracking=none", f"source={source}", *overrides)


def reading(lab, model):
    return f"model={model.path}", "data=beir", f"data.root={lab.toy}"


@pytest.fixture(scope="module")
def written(lab, native) -> Artifact:
    return convert(lab, native.path).artifact


def run_of(lab, index):
    found = lab("search", f"index_dir={index.path}").artifact
    return read_trec(found.path / "run.trec.gz", depth=60)


def test_an_index_goes_to_stanford_and_back(lab, model, native, written):
    assert written.kind == "stanford_index"
    assert {"metadata.json", "plan.json", "centroids.pt", "ivf.pid.pt", "0.codes.pt", "ids.json"} <= {
        path.name for path in written.path.iterdir()
    }
    back = convert(lab, written.path, *reading(lab, model)).artifact
    assert back.kind == "index"
    assert back.manifest["inputs"]["source"]["digest"] == written.digest
    assert run_of(lab, back) == run_of(lab, native)
    again = convert(lab, back.path).artifact
    assert again.digest == written.digest


def test_it_is_said_what_a_reencoding_costs(lab, native, fresh_lab):
    outcome = convert(fresh_lab, native.path, "convert.bits=1")
    counts = outcome.artifact.manifest["counts"]
    assert counts["bits"] == 1
    assert 0.5 < counts["mean_cosine"] < 0.999
    assert f"mean cosine to the vectors before {counts['mean_cosine']:.4f}" in outcome.text
    with pytest.raises(ConfigError, match="reencode=true"):
        convert(fresh_lab, native.path, "convert.bits=1", "convert.reencode=false")


def test_a_directory_from_elsewhere_gets_the_collections_ids(fresh_lab, model, written, native, tmp_path):
    """Without our manifest and side file, as Stanford's indexer leaves one."""
    there = tmp_path / "there"
    shutil.copytree(written.path, there)
    for name in ("manifest.json", "ids.json", "metadata.json"):
        (there / name).unlink()
    outcome = convert(fresh_lab, there, *reading(fresh_lab, model))
    assert "was not finished there" in outcome.text
    assert run_of(fresh_lab, outcome.artifact) == run_of(fresh_lab, native)
    with pytest.raises(DataError, match="none of the ids there, '0' for example"):
        convert(fresh_lab, there, *reading(fresh_lab, model), "convert.ids=numbers")
    small = beir(tmp_path / "small", {"a": "river"}, {"q": "river"}, {"test": [("q", "a", 1)]})
    with pytest.raises(DataError, match=r"60 passages and no ids of its own, .* has 1 documents"):
        convert(fresh_lab, there, f"model={model.path}", "data=beir", f"data.root={small}")


def test_documents_that_ragatouille_split_are_found_as_documents(fresh_lab, model, written, native, tmp_path):
    """Passages 2i and 2i + 1 as those of one document: its score is the better of theirs, also on the way back."""
    there, ids = tmp_path / "there", json.loads((written.path / "ids.json").read_text())
    shutil.copytree(written.path, there)
    for name in ("manifest.json", "ids.json"):
        (there / name).unlink()
    documents = {passage: ids[number // 2 * 2] for number, passage in enumerate(ids)}
    (there / "pid_docid_map.json").write_text(json.dumps(dict(enumerate(documents.values()))))
    outcome = convert(fresh_lab, there, *reading(fresh_lab, model))
    assert "30 documents in 60 passages" in outcome.text
    assert "30 documents are several passages" in outcome.text
    found = run_of(fresh_lab, outcome.artifact)
    for query, hits in run_of(fresh_lab, native).items():
        best = {}
        for passage, score in hits:
            best.setdefault(documents[passage], score)
        assert dict(found[query]) == best
    back = convert(fresh_lab, convert(fresh_lab, outcome.artifact.path).artifact.path, *reading(fresh_lab, model))
    assert run_of(fresh_lab, back.artifact) == found
    (tmp_path / "add").write_text(ids[1] + "\n")
    given = f"add={tmp_path / 'add'}", "data=beir", f"data.root={fresh_lab.toy}"
    more = fresh_lab("update", f"index_dir={outcome.artifact.path}", *given)
    assert "1 added" in more.text
    assert all(ids[1] in hits.ids for hits in run_of(fresh_lab, more.artifact).values())


def test_what_would_mean_nothing_is_refused(lab, model, native, written, tmp_path):
    with pytest.raises(ConfigError, match="source=<"):
        lab("convert", "!all", f"root={lab.root}", "tracking=none")
    with pytest.raises(ConfigError, match="model=<"):
        convert(lab, written.path)
    with pytest.raises(ArtifactError, match="results of the two together would mean nothing"):
        convert(lab, written.path, *reading(lab, lab("init", "seed=1").artifact))
    with pytest.raises(ArtifactError, match="holds a model, but a index or stanford_index"):
        convert(lab, model.path)
    with pytest.raises(ArtifactError, match="neither metadata"):
        convert(lab, tmp_path, *reading(lab, model))
    with pytest.raises(ConfigError, match=r"convert\.bits=4 would change nothing"):
        convert(lab, written.path, *reading(lab, model), "convert.bits=4")
    with pytest.raises(ConfigError, match=r"data=beir data\.root=\S+ would change nothing"):
        convert(lab, native.path, "data=beir", f"data.root={lab.toy}")
    with pytest.raises(ConfigError, match=r"index\.codec=stanford"):
        convert(lab, lab("index", f"model={model.path}").artifact.path)
    with pytest.raises(ConfigError, match=r"index\.codec=stanford"):
        convert(lab, lab("index", "index=bm25").artifact.path)
    wrong = tmp_path / "wrong"
    shutil.copytree(written.path, wrong, ignore=shutil.ignore_patterns("manifest.json"))
    wider = tmp_path / "wider"
    shutil.copytree(model.path, wider)
    manifest = json.loads((wider / "manifest.json").read_text())
    manifest["counts"]["dim"] = 24
    (wider / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="vectors of 16 dimensions, the model's have 24"):
        convert(lab, wrong, f"model={wider}", "data=beir", f"data.root={lab.toy}")
