"""describe, on the toy collection: what it tells, and what it refuses."""

import json

import pytest
from stages_toy import beir

from colbert_lab.errors import ConfigError


def test_it_tells_of_the_toy_collection(lab):
    made = lab("describe", "text.document_length=12")
    found = json.loads((made.artifact.path / "statistics.json").read_text())
    assert (found["documents"]["count"], found["queries"]["count"]) == (60, 40)
    assert found["documents"]["title_only"]["count"] == 0
    # 17 words, each an id, and the full stop; 12 ids hold 9 of them.
    assert found["lengths"]["documents"]["cut"] == 60
    assert found["lengths"]["documents"]["share_lost"] == pytest.approx(0.5, abs=0.01)
    pairs = [(one["train"], one["test"]) for one in found["contamination"]]
    assert pairs == [("train", "dev"), ("train", "test"), ("dev", "test")]
    assert "document_length=12 cuts 60 of 60 (100.0%); 50.0% of all ids are lost" in made.text
    assert "test: 10 queries, 'q30' to 'q39'; 30 judgements (10 of grade 1, 10 of grade 2, 10 of grade 3)" in made.text
    # Every positive of the test's topics is one of the training queries' too, which ask for it in other words.
    assert "train -> test: 30 of 30 (100.0%) relevant documents" in made.text
    again = lab("describe", "text.document_length=12")
    assert (again.artifact, again.text) == (made.artifact, made.text)


def test_a_models_own_lengths_are_asked_about(lab, chain):
    model = f"model={chain['model'].path}"
    made = lab("describe", "!backbone.name", model)
    assert "document_length=24 cuts 0 of 60" in made.text
    with pytest.raises(ConfigError, match="would change nothing"):
        lab("describe", "!backbone.name", model, "text.document_length=12")
    with pytest.raises(ConfigError, match=r"sample=0 must be at least 1"):
        lab("describe", "describe.sample=0")


def test_what_is_odd_is_told_with_ids(lab, tmp_path):
    folder = beir(
        tmp_path / "odd",
        {"d 1": "the same text", "d2": "the same text", "d3": "", "d4": "the other text of them all"},
        {"q1": "what?", "q2": "nothing"},
        {"test": [("q1", "gone", 1), ("q1", "d2", 1), ("q2", "d4", 0)]},
    )
    told = lab("describe", f"data.root={folder}").text
    for line in (
        "1 are empty: 'd3'",
        "1 have the text of another: 'd 1'='d2'",
        "1 queries have no relevant document: 'q2'",
        "1 judgements name documents that are not in the corpus: 'gone'",
    ):
        assert line in told
    told = lab("describe", f"data.root={folder}", "describe.near_limit=3").text
    assert "too many for near duplicates" in told
