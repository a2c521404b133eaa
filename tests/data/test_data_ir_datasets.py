"""ir_datasets: a BEIR zip in a home of our own, splits found by themselves, and errors that say what to do."""

import json
import zipfile

import ir_datasets
import pytest

from colbert_lab.data.ir_datasets import IrDatasets
from colbert_lab.data.source import Unavailable, prepare
from colbert_lab.errors import DataError


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A fresh IR_DATASETS_HOME that the registered sets look into, with beir/scifact in it."""
    home = tmp_path / "home"
    monkeypatch.setenv("IR_DATASETS_HOME", str(home))
    monkeypatch.setenv("IR_DATASETS_TMP", str(tmp_path / "tmp"))
    monkeypatch.setattr(ir_datasets, "registry", ir_datasets.util.Registry())
    for module in ("beir", "msmarco_passage"):
        getattr(ir_datasets.datasets, module)._init()
    (home / "beir/scifact").mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(home / "beir/scifact/source.zip", "w") as archive:
        documents = [{"_id": "7", "title": "T", "text": "one"}, {"_id": "07", "title": "", "text": "two"}]
        queries = [{"_id": "1", "text": "a"}, {"_id": "2", "text": "b"}]
        archive.writestr("scifact/corpus.jsonl", "".join(json.dumps(d) + "\n" for d in documents))
        archive.writestr("scifact/queries.jsonl", "".join(json.dumps(q) + "\n" for q in queries))
        archive.writestr("scifact/qrels/train.tsv", "query-id\tcorpus-id\tscore\n1\t7\t1\n")
        archive.writestr("scifact/qrels/test.tsv", "query-id\tcorpus-id\tscore\n2\t07\t1\n")
    return home


def test_splits_are_found_and_read(home, tmp_path):
    source = IrDatasets("beir/scifact")
    assert source.splits() == ("train", "test")
    made = prepare(source, tmp_path)
    assert made.corpus.get(["7", "07"]) == ["T one", "two"]
    assert made.queries.all_ids() == ["1", "2"]
    assert made.qrels("test") == {"2": {"07": 1}}
    assert prepare(IrDatasets("beir/scifact"), tmp_path).digest == made.digest


def test_an_id_with_judgements_is_one_split(home):
    assert IrDatasets("beir/scifact/test").splits() == ("test",)
    assert IrDatasets("msmarco-passage/dev/small").splits() == ("dev",)
    assert IrDatasets("beir/scifact", splits={"mine": "beir/scifact/train"}).splits() == ("mine",)


def test_an_unknown_id_is_answered_with_close_ones(home):
    with pytest.raises(DataError, match=r"no set 'beir/scifct'; did you mean beir/scifact"):
        IrDatasets("beir/scifct")
    with pytest.raises(DataError, match=r"data.splits=\{test: beir/\.\.\.\}; there are: beir/arguana"):
        IrDatasets("beir")
    with pytest.raises(DataError, match="'beir/scifact' has no qrels"):
        list(IrDatasets("beir/scifact", splits={"test": "beir/scifact"}).qrels("test"))


def test_files_that_are_not_there_are_explained(home, tmp_path, monkeypatch):
    def offline(*_, **__):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("requests.get", offline)
    monkeypatch.setattr("requests.Session.send", offline)
    with pytest.raises(Unavailable, match=r"'beir/nfcorpus'.*neither usable in .*home/beir nor downloadable") as caught:
        prepare(IrDatasets("beir/nfcorpus"), tmp_path)
    assert "try: data=beir data.root=DIR" in str(caught.value)
    # Which file, and where; what a suite would refuse is said apart from it.
    assert f"nfcorpus.zip as {home / 'beir'}" in caught.value.what
    assert "data=beir" not in caught.value.what


def test_a_users_file_is_not_deleted(home):
    file = home / "msmarco-passage/collection.tsv"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("0\tfirst\n1\tsecond\n")
    with pytest.raises(DataError, match=r"would DELETE .*collection.tsv.*printf v2 > "):
        list(IrDatasets("msmarco-passage/dev/small").documents())
    assert file.exists()
    (file.parent / "irds_version.txt").write_text("v2")
    assert [d.text for d in IrDatasets("msmarco-passage/dev/small").documents()] == ["first", "second"]
