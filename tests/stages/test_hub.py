"""`model=` takes a checkpoint as others published it, in a directory or behind an id of the hub, and finds it again."""

import json
import shutil

import published_toys as toys
import pytest
import torch

from colbert_lab.errors import ArtifactError, ConfigError
from colbert_lab.models.checkpoint import load_model
from colbert_lab.models.dialects import load_foreign
from colbert_lab.models.encoding import encode
from colbert_lab.stages import hub
from colbert_lab.stages.hub import model_at


@pytest.fixture
def cfg(fresh_lab):
    return fresh_lab.compose("search", "index_dir=somewhere")[0]


@pytest.fixture
def published(tmp_path, tiny_backbone):
    return toys.stanford(tmp_path / "colbertv9", tiny_backbone)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """put(directory, commit): the hub's cache, switched off as it is in tests, holds org/model at this commit."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    hub._commit.cache_clear()
    place = tmp_path / "cache" / "models--org--model"

    def put(directory, commit):
        shutil.copytree(directory, place / "snapshots" / commit)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / "main").write_text(commit)
        hub._commit.cache_clear()

    yield put
    hub._commit.cache_clear()


def test_a_directory_becomes_a_model_once(cfg, published, capsys):
    made = model_at(cfg, str(published))
    assert "Stanford checkpoint, 16 dimensions, queries of 24" in capsys.readouterr().err
    assert made.manifest["counts"]["dim"] == 16
    model, direct = load_model(made.path), load_foreign(published)
    for role in ("query", "document"):
        found, expected = (encode(one, ["U.S. Army"], role, "fp32").embeddings.values for one in (model, direct))
        assert torch.equal(found, expected)
    assert model.provenance == direct.provenance | {"source": "colbertv9", "files": model.provenance["files"]}
    assert model_at(cfg, str(published)).path == made.path
    # By content: another name is the same model, another length another.
    moved = published.rename(published.with_name("moved"))
    assert model_at(cfg, str(moved)).path == made.path
    (moved / "README.md").write_text("nothing that is read")
    assert model_at(cfg, str(moved)).path == made.path
    toys.edit(moved / "artifact.metadata", doc_maxlen=50)
    assert model_at(cfg, str(moved)).path != made.path


def test_a_verb_takes_a_published_model(fresh_lab, tmp_path, tiny_backbone):
    directory = toys.pylate(tmp_path / "theirs", tiny_backbone)
    found = fresh_lab("describe", "!backbone.name", f"model={directory}").artifact
    model = found.manifest["inputs"]["model"]
    assert load_model(model["path"]).provenance["dialect"] == "PyLate"
    assert fresh_lab("describe", "!backbone.name", f"model={directory}").artifact.path == found.path


def test_an_id_stands_for_a_commit(cfg, cache, published):
    cache(published, "a" * 40)
    first = model_at(cfg, "org/model")
    assert first.manifest["inputs"]["hub"]["digest"] == f"org/model@{'a' * 40}"
    told = load_model(first.path).provenance
    assert (told["source"], told["commit"]) == ("org/model", "a" * 40)
    assert model_at(cfg, "org/model").path == first.path
    toys.edit(published / "artifact.metadata", doc_maxlen=50)
    cache(published, "b" * 40)
    second = model_at(cfg, "org/model")
    assert second.path != first.path
    assert load_model(second.path).tokenizer.contract.document_length == 50


def test_a_checkpoint_of_ours_is_copied(cfg, cache, lab, tmp_path):
    start, ours = lab("init").artifact, tmp_path / "ours"
    shutil.copytree(start.path, ours, ignore=shutil.ignore_patterns("manifest.json", "log"))
    made = model_at(cfg, str(ours))
    assert made.digest == start.digest
    cache(ours, "c" * 40)
    assert model_at(cfg, "org/model").digest == made.digest


def test_what_is_no_model_is_told(cfg, cache, tiny_backbone, tmp_path, published):
    with pytest.raises(ConfigError, match=r"holds no checkpoint of a late-interaction model(.|\n)*experiments/init.py"):
        model_at(cfg, str(tiny_backbone))
    with pytest.raises(ConfigError, match="org/model is no directory here, and the hub does not give it"):
        model_at(cfg, "org/model")
    with pytest.raises(ArtifactError, match="does not exist"):
        model_at(cfg, str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="is no artifact"):
        model_at(cfg, str(tmp_path / "empty"))
    (published / "artifact.metadata").write_text(json.dumps({"interaction": "flipr"}))
    with pytest.raises(ArtifactError, match="interaction is 'flipr'"):
        model_at(cfg, str(published))
