"""Hugging Face tables on disk: files and save_to_disk directories, columns by name, judgements of several splits."""

import datasets
import pytest

from colbert_lab.data.huggingface import HuggingFace
from colbert_lab.data.source import Unavailable, prepare
from colbert_lab.errors import DataError


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """Documents as JSON lines, queries as a saved data set, judgements as parquet."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.Dataset.from_dict({"docid": [7, 8], "body": ["one", "two"], "title": ["T", ""]}).to_json(
        tmp_path / "corpus.jsonl"
    )
    datasets.Dataset.from_dict({"_id": ["q"], "text": ["?"]}).save_to_disk(tmp_path / "queries")
    judged = datasets.Dataset.from_dict({"query-id": ["q", "q"], "corpus-id": [7, 8], "score": [1.0, 0.0]})
    judged.to_parquet(tmp_path / "qrels.parquet")
    parquet = {"path": "parquet", "data_files": str(tmp_path / "qrels.parquet")}
    return {
        "corpus": {"path": "json", "data_files": [str(tmp_path / "corpus.jsonl")], "id": "docid", "text": "body"},
        "queries": {"path": str(tmp_path / "queries"), "split": None},
        "qrels": {"train": parquet, "test": {**parquet, "split": "train[:1]"}},
    }


def test_tables_become_a_collection(tables, tmp_path):
    made = prepare(HuggingFace("mine", **tables), tmp_path)
    assert made.corpus.get(["7", "8"]) == ["T one", "two"]
    assert made.qrels("train") == {"q": {"7": 1, "8": 0}}
    assert made.qrels("test") == {"q": {"7": 1}}
    assert HuggingFace("mine", **tables).fingerprint() == HuggingFace("mine", **tables).fingerprint()
    other = {**tables, "qrels": {"train": tables["qrels"]["train"]}}
    assert HuggingFace("mine", **other).fingerprint() != HuggingFace("mine", **tables).fingerprint()


def test_wrong_columns_and_places_are_explained(tables, tmp_path):
    del tables["corpus"]["id"]
    with pytest.raises(DataError, match=r"no column '_id'; it has 'docid', 'body', 'title'"):
        prepare(HuggingFace("mine", **tables), tmp_path)
    with pytest.raises(DataError, match=r"data.queries: unknown: idd; a table has path"):
        HuggingFace("mine", tables["corpus"], {"path": "json", "idd": "x"}, {})
    with pytest.raises(Unavailable, match=r"data.corpus: .*cannot be loaded.*HF_HUB_OFFLINE not set, and kept below"):
        list(HuggingFace("m", {"path": str(tmp_path / "nowhere")}, tables["queries"], {}).documents())
