"""Suites as they are configured: what they name exists, and mistakes are told together."""

from pathlib import Path

import pytest
import yaml

from colbert_lab.errors import ConfigError
from colbert_lab.evaluation.averages import LISTS
from colbert_lab.evaluation.suite import Suite

CONF = Path(__file__).resolve().parents[2] / "conf" / "benchmark"
FILES = sorted(file.stem for file in CONF.glob("*.yaml"))


def suite(name: str, **changes) -> Suite:
    content = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    content.pop("_target_")
    return Suite(**{**content, **changes})


def test_all_suites_are_there():
    assert FILES == ["beir", "local", "loco", "msmarco_dev", "nano", "trec_dl"]


@pytest.mark.parametrize("name", ["beir", "nano"])
def test_a_suite_with_an_averages_name_has_the_members_of_its_list(name):
    found = suite(name)
    assert found.members == tuple(entry.name for entry in found.chosen())
    assert sorted(found.members) == sorted(LISTS[found.name])


@pytest.mark.parametrize("name", ["beir", "msmarco_dev", "trec_dl"])
def test_every_set_is_registered_with_judgements_of_its_split(name):
    ir_datasets = pytest.importorskip("ir_datasets")
    from colbert_lab.data.ir_datasets import IrDatasets

    for entry in suite(name).chosen():
        data = {key: value for key, value in entry.data.items() if key != "_target_"}
        source = IrDatasets(**data)
        assert entry.split in source.splits()
        assert ir_datasets.load(source.describe()["splits"][entry.split]).has_qrels()


def test_the_papers_lengths():
    found = {entry.name: entry for entry in suite("beir").chosen()}
    lengths = {name: (entry.query_length, entry.document_length) for name, entry in found.items()}
    assert lengths.pop("arguana") == (300, 300)
    assert lengths.pop("climate-fever") == (64, 300)
    assert set(lengths.values()) == {(32, 300)}
    assert {name for name, entry in found.items() if entry.drop_self} == {"arguana", "quora"}
    (dev,) = suite("msmarco_dev").chosen()
    assert (dev.headline, dev.query_length, dev.document_length, dev.relevance_level) == ("mrr_10", 32, 180, 1)
    assert {entry.relevance_level for entry in suite("trec_dl").chosen()} == {2}
    # One collection for both, indexed once.
    assert len({str(entry.data) for entry in suite("trec_dl").chosen()}) == 1


def test_folders_stand_for_sets_and_are_sets():
    found = suite("beir", root="somewhere", only=["scifact"]).chosen()
    assert [entry.data["root"] for entry in found] == ["somewhere/scifact"]
    found = suite("loco", root="somewhere").chosen()
    assert len(found) == 12
    assert all(entry.data["root"].startswith("somewhere/") for entry in found)
    local = suite("local", folders=["/x/a", "/y/b"], query_length=64)
    assert [
        (entry.name, entry.data["root"], entry.query_length, entry.document_length) for entry in local.chosen()
    ] == [
        ("a", "/x/a", 64, None),
        ("b", "/y/b", 64, None),
    ]


def test_the_layout_of_nanobeir():
    entry = suite("nano", only=["nano-scifact"]).chosen()[0]
    table = {"path": "zeta-alpha-ai/NanoSciFact", "split": "train"}
    assert entry.data["corpus"] == {**table, "name": "corpus"}
    assert entry.data["qrels"] == {"test": {**table, "name": "qrels"}}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"only": ["scifcat"]}, "only=scifcat is none of arguana"),
        ({"only": []}, r"try: benchmark\.only=null"),
        ({"entries": {}}, r"try: benchmark\.folders"),
        ({"entries": {"a": {"idd": "b"}}}, "idd is none of"),
        ({"entries": {"a": {"folder": "b"}}}, "with benchmark.root=DIR"),
        ({"entries": {"a": {"id": "b", "hub": "c"}}}, "by one of id"),
        ({"entries": {"a": {"id": "b"}}, "folders": ["/x/a"]}, "two collections are called a"),
        ({"headline": "ndcg@10"}, "no metric"),
        ({"entries": {"a": {"id": "b", "headline": "quality"}}}, "no metric"),
    ],
)
def test_mistakes_are_told(changes, told):
    with pytest.raises(ConfigError, match=told):
        suite("beir", **changes)
