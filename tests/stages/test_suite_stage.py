"""A suite through its stage, with a stand-in for the judge of one collection: configurations, failures, the table."""

import json
import shutil

import pytest
from omegaconf import open_dict

from colbert_lab.artifact import Artifact
from colbert_lab.data.source import Unavailable
from colbert_lab.errors import ConfigError, DataError
from colbert_lab.models.checkpoint import load_model
from colbert_lab.stages.collection import open_collection
from colbert_lab.stages.comparison.made import _lengths
from colbert_lab.stages.lengths import original
from colbert_lab.stages.making import make
from colbert_lab.stages.suite import run_suite

NDCG = {"one": {"bm25": 0.25, "colbert": 0.5}, "two": {"bm25": 0.75, "colbert": 1.0}}


class Judge:
    """Judges by the table above; keeps the configurations that it was given."""

    def __init__(self):
        self.seen, self.worked, self.systems = [], 0, ("bm25", "colbert")

    def __call__(self, cfg):
        self.seen.append(cfg)
        collection = open_collection(cfg)

        def work(builder, tracker):
            self.worked += 1
            values = NDCG[collection.name]
            asked = {key: length for key, length in (cfg.get("lengths") or {}).items() if length is not None}
            cut = {"kind": "late_interaction", "query_length": 32, "document_length": 180, **asked}
            late = {"bm25": {"kind": "lexical"}, "colbert": cut}
            told = {
                "collection": collection.name,
                "split": cfg.split,
                "queries": len(collection.qrels(cfg.split)),
                "corpus": "full",
                "baseline": self.systems[-1],
                "systems": {
                    name: {"means": {"ndcg_10": value, "mrr_10": 0.1}, "conditions": late[name]}
                    for name, value in values.items()
                    if name in self.systems
                },
            }
            (builder.path / "comparison.json").write_text(json.dumps(told))

        content = {"systems": self.systems, "split": cfg.split, "drop_self": cfg.search.drop_self, "model": cfg.model}
        return make(cfg, "compare", "comparison", cfg.name, {"collection": collection.artifact}, content, work)


def folder(lab, place):
    """The toy collection with one document more, named after the folder: equal content would be one collection."""
    shutil.copytree(lab.toy, place)
    with (place / "corpus.jsonl").open("a") as corpus:
        corpus.write(json.dumps({"_id": place.name, "text": place.name}) + "\n")


@pytest.fixture
def suite_of(fresh_lab, tmp_path):
    """suite_of("benchmark=...") -> the configuration of a comparison; folders one and two are copies of the toy."""
    for name in NDCG:
        folder(fresh_lab, tmp_path / name)

    def composed(*overrides):
        cfg, given, _ = fresh_lab.compose("compare", "!all", f"root={fresh_lab.root}", "tracking=none", *overrides)
        with open_dict(cfg):
            cfg.name, cfg.overrides = "suite", given
        return cfg

    return composed


def folders(tmp_path, *names):
    return "benchmark.folders=[" + ",".join(str(tmp_path / name) for name in names) + "]"


def test_a_missing_collection_does_not_cost_the_others(lab, suite_of, tmp_path, capsys):
    judge = Judge()
    cfg = suite_of("benchmark=local", folders(tmp_path, "one", "gone", "two"))
    with pytest.raises(DataError, match=r"(?s)1 of 3 collections of local failed.*gone is no folder"):
        run_suite(cfg, judge)
    shown = capsys.readouterr().out
    assert "2 of local" in shown
    assert "not judged: gone" in shown
    assert judge.worked == 2
    # Mended, the same command judges what is missing alone; whole now, the average has its list's name.
    folder(lab, tmp_path / "gone")
    NDCG["gone"] = {"colbert": 0.75}
    try:
        outcome = run_suite(cfg, judge)
    finally:
        del NDCG["gone"]
    assert judge.worked == 3
    record = json.loads((outcome.artifact.path / "suite.json").read_text())
    assert record["systems"]["colbert"] == {"one": 0.5, "gone": 0.75, "two": 1.0}
    assert record["averages"]["colbert"] == {
        "label": "local",
        "value": 0.75,
        "members": ["one", "gone", "two"],
        "missing": [],
    }
    assert (record["averages"]["bm25"]["label"], record["averages"]["bm25"]["value"]) == ("2 of local", 0.5)
    assert (outcome.objective, outcome.objective_name) == (0.75, "local")
    assert outcome.artifact.kind == "suite"
    assert "one: test, 10 queries, ndcg_10, the models' own lengths" in outcome.text


def test_only_some_are_judged_and_a_part_is_called_one(suite_of, tmp_path):
    judge = Judge()
    outcome = run_suite(suite_of("benchmark=local", folders(tmp_path, "one", "two"), "benchmark.only=[two]"), judge)
    assert [cfg.name for cfg in judge.seen] == ["suite-two"]
    assert "1 of local" in outcome.text
    assert "not judged: one" in outcome.text


def test_each_collection_has_its_own_rules(suite_of, tmp_path):
    judge = Judge()
    cfg = suite_of(
        "benchmark=local",
        "benchmark.folders=[]",
        "+benchmark.entries.one={folder: one, drop_self: true, split: dev}",
        "+benchmark.entries.two={folder: two, relevance_level: 2}",
        "benchmark.document_length=300",
        f"benchmark.root={tmp_path}",
        "benchmark.headline=mrr_10",
        "evaluate.metrics=[ndcg_10]",
    )
    outcome = run_suite(cfg, judge)
    rules = [(c.split, c.search.drop_self, c.evaluate.relevance_level) for c in judge.seen]
    assert rules == [("dev", True, 1), ("test", False, 2)]
    assert all(c.evaluate.metrics == ["mrr_10", "ndcg_10"] and c.benchmark is None for c in judge.seen)
    assert cfg.evaluate.metrics == ["ndcg_10"]
    assert "one: dev, 10 queries, mrr_10, queries 32 and documents 300 ids, a query is not among" in outcome.text
    assert json.loads((outcome.artifact.path / "suite.json").read_text())["systems"]["bm25"] == {"one": 0.1, "two": 0.1}


def test_different_headlines_are_not_averaged(suite_of, tmp_path):
    cfg = suite_of(
        "benchmark=local",
        "benchmark.folders=[]",
        "+benchmark.entries.one={folder: one, headline: mrr_10}",
        "+benchmark.entries.two={folder: two}",
        f"benchmark.root={tmp_path}",
    )
    outcome = run_suite(cfg, Judge())
    assert json.loads((outcome.artifact.path / "suite.json").read_text())["averages"] == {}
    assert "one mrr_10" in outcome.text
    assert (outcome.objective, outcome.objective_name) == (0.1, "one")


def test_the_models_are_judged_at_the_suites_lengths(suite_of, tmp_path, chain):
    judge = Judge()
    model = chain["model"]
    given = (f"model={model.path}", "benchmark=local", folders(tmp_path, "one"))
    run_suite(suite_of(*given), judge)
    assert judge.seen[0].model == str(model.path)
    run_suite(suite_of(*given, "benchmark.query_length=20", "benchmark.document_length=30"), judge)
    changed = Artifact.open(judge.seen[1].model, "model")
    assert changed.manifest["counts"] == model.manifest["counts"]
    assert original(changed) == model
    assert original(model) == model
    contract = load_model(changed.path).tokenizer.contract
    assert (contract.query_length, contract.document_length) == (20, 30)
    before = load_model(model.path)
    assert contract.as_dict() == before.tokenizer.contract.as_dict() | {"query_length": 20, "document_length": 30}
    # The weights are the same.
    after = load_model(changed.path)
    assert all((a == b).all() for a, b in zip(before.parameters(), after.parameters(), strict=True))
    # The tiny backbone has 128 positions.
    with pytest.raises(DataError, match="exceeds the 128 positions"):
        run_suite(suite_of(*given, "benchmark.document_length=300"), judge)


def test_the_suites_rules_and_lengths_hold_for_all(suite_of, tmp_path, chain):
    judge = Judge()
    run_suite(
        suite_of(
            f"model={chain['model'].path}",
            f"+systems.own={{kind: rerank, of: bm25, k: 10, model: {chain['start'].path}}}",
            f"+systems.seeds={{kind: rerank, of: bm25, k: 10, model: [{chain['start'].path}, {chain['model'].path}]}}",
            "benchmark=local",
            folders(tmp_path, "one"),
            "benchmark.document_length=30",
            "benchmark.drop_self=true",
            "benchmark.relevance_level=2",
        ),
        judge,
    )
    (seen,) = judge.seen
    assert (seen.search.drop_self, seen.evaluate.relevance_level) == (True, 2)
    for place in (seen.model, seen.systems.own.model, *seen.systems.seeds.model):
        record = json.loads((Artifact.open(place, "model").path / "colbert_lab.json").read_text())
        assert record["contract"]["document_length"] == 30


def test_an_original_that_another_took_the_place_of_is_not_it(suite_of, tmp_path, chain):
    place = shutil.copytree(chain["model"].path, tmp_path / "moving")
    judge = Judge()
    run_suite(
        suite_of(f"model={place}", "benchmark=local", folders(tmp_path, "one"), "benchmark.query_length=9"), judge
    )
    changed = Artifact.open(judge.seen[0].model, "model")
    assert original(changed).path == place
    shutil.rmtree(place)
    shutil.copytree(chain["start"].path, place)
    assert original(changed) == changed


def test_what_a_suite_says_itself_is_refused(suite_of, tmp_path):
    for override in ("split=dev", "search.drop_self=true", "data=beir"):
        more = (f"data.root={tmp_path}",) if override == "data=beir" else ()
        with pytest.raises(ConfigError, match=f"so {override}"):
            run_suite(suite_of("benchmark=local", folders(tmp_path, "one"), override, *more), Judge())


def test_a_collection_that_cannot_be_had_is_answered_with_what_a_suite_takes(suite_of, tmp_path, monkeypatch):
    """data= is refused in a suite, so an error within one must not advise it; what it advises works."""

    def offline(self, *_):
        raise Unavailable(f"cannot read {self.name}", "data=beir data.root=DIR")

    for source in ("ir_datasets.IrDatasets", "huggingface.HuggingFace"):
        monkeypatch.setattr(f"colbert_lab.data.{source}.fingerprint", offline)
    for given, name in (("benchmark=beir", "arguana"), ("benchmark=nano", "nano-scifact")):
        with pytest.raises(DataError) as caught:
            run_suite(suite_of(given, f"benchmark.only=[{name}]"), Judge())
        text = str(caught.value)
        assert "data=beir" not in text
        assert f"try: benchmark.root=DIR benchmark.only=[{name}]" in text
        assert f"DIR/{name} is a BEIR folder with corpus.jsonl, queries.jsonl and qrels/test.tsv" in text
        # The stand-in knows folders by the toy's names alone.
        monkeypatch.setitem(NDCG, name, {"bm25": 0.5, "colbert": 0.5})
        (tmp_path / name).exists() or shutil.copytree(tmp_path / "one", tmp_path / name)
        advised = [f"benchmark.root={tmp_path}", f"benchmark.only=[{name}]"]
        assert run_suite(suite_of(given, *advised), Judge()).figures[f"bm25_{name}"] == 0.5


def test_lengths_are_told_of_those_that_cut_by_them_alone(suite_of, tmp_path):
    judge = Judge()
    judge.systems = ("bm25",)
    given = ("benchmark=local", folders(tmp_path, "one"), "benchmark.query_length=40", "benchmark.document_length=300")
    assert "one: test, 10 queries, ndcg_10\n" in run_suite(suite_of(*given), judge).text
    # A backbone's bi-encoder has no model to be cut as: it is cut as the suite says.
    assert _lengths(judge.seen[0]) == {"query_length": 40, "document_length": 300}
    assert _lengths(suite_of("model=null")) == {"query_length": 32, "document_length": 180}


def test_published_averages_stand_beside_a_suites_own(lab, suite_of, tmp_path, monkeypatch):
    judge = Judge()
    for name in ("scifact", "nfcorpus"):
        folder(lab, tmp_path / name)
        monkeypatch.setitem(NDCG, name, {"bm25": 0.3, "colbert": 0.5})
    given = (f"benchmark.root={tmp_path}", "benchmark.only=[scifact,nfcorpus]")
    outcome = run_suite(suite_of("benchmark=beir", *given), judge)
    record = json.loads((outcome.artifact.path / "suite.json").read_text())
    (card,) = [one for one in record["published"] if one["system"] == "jina-colbert-v1-en" and "card" in one["source"]]
    # 70.1 and 33.8 of 100 in the seed's table; ours are 0.5 on both.
    assert card["value"] == pytest.approx((0.701 + 0.338) / 2)
    assert (card["list"], card["ours"], card["measured"]) == ("2 of BEIR-13", "colbert", 0.5)
    assert card["difference"] == pytest.approx(0.5 - card["value"])
    text = outcome.text
    assert "published elsewhere" in text
    assert "0.5195" in text
    page = (outcome.artifact.path / "report.html").read_text()
    assert "2 of BEIR-13" in page
    assert "Published averages" in page
    assert "0.5195" in page


def test_all_failed(suite_of, tmp_path):
    with pytest.raises(DataError, match="1 of 1 collections of local failed"):
        run_suite(suite_of("benchmark=local", folders(tmp_path, "gone")), Judge())
