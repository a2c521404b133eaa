"""compare: every kind of system on one collection; what is left out, refused, found again, and taken up."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from colbert_lab.artifact import Artifact
from colbert_lab.data.collection import Collection
from colbert_lab.errors import ConfigError, DataError
from colbert_lab.evaluation.differences import SHOWN_DOCUMENTS
from colbert_lab.run import Run, rank, read_trec, write_trec
from colbert_lab.search.fusion import reciprocal_rank
from colbert_lab.stages.comparison.answers import _Searched, untimed
from colbert_lab.stages.comparison.kinds import CrossEncoder, EndToEnd, SingleVector
from colbert_lab.stages.comparison.made import Made
from colbert_lab.stages.comparison.seen import guards
from colbert_lab.stages.comparison.systems import read_systems
from colbert_lab.stages.init import single_vector_model
from colbert_lab.stages.per_query import NAME
from colbert_lab.stages.ranked_by import model_of
from colbert_lab.tracking.read import read_table

BACKBONE = "colbert_lab.models.backbone.Backbone"
SYSTEMS = ["bm25", "exact", "single", "cross", "late", "residual", "both", "theirs", "again"]


@pytest.fixture(scope="module")
def model(lab) -> Path:
    """A trained late-interaction model."""
    return lab("train").artifact.path


@pytest.fixture(scope="module")
def theirs(tmp_path_factory, lab) -> Path:
    """A run of another tool, five documents of each test query, and one query that nobody judged."""
    path = tmp_path_factory.mktemp("theirs") / "theirs.trec.gz"
    hits = {f"q{q}": rank([f"d{d}-0" for d in range(q - 30, q - 25)], np.arange(5, 0, -1.0)) for q in range(30, 40)}
    write_trec(Run({**hits, "unjudged": hits["q30"]}), path)
    return path


@pytest.fixture(scope="module")
def whole(lab, model, theirs) -> tuple[list[str], Path]:
    """A comparison with every kind of system: its overrides and its place."""
    cross = lab("teacher").artifact.path
    overrides = [
        f"model={model}",
        f"cross_encoder={cross}",
        "~systems.rerank_100",
        f"+systems.single={{kind: single_vector, model: {lab.backbone}}}",
        "+systems.cross={kind: cross_encoder, of: bm25, k: 10}",
        "+systems.late={kind: rerank, of: bm25, k: 20}",
        "+systems.residual={kind: end_to_end, index: residual, options: {bits: 4, cells: 2}}",
        "+systems.both={kind: fusion, of: [bm25, exact]}",
        f"+systems.theirs={{kind: run, run: {theirs}}}",
        "+systems.again={kind: rerank, of: theirs, k: 5}",
        "evaluate.metrics=[mrr_10,ndcg_10,recall_5,recall_20,recall_50]",
    ]
    return overrides, lab("compare", *overrides).artifact.path


def read(path: Path) -> dict:
    return json.loads((path / "comparison.json").read_text())


def run_of(told: dict, name: str) -> Run:
    return read_trec(Path(told["systems"][name]["run"]) / "run.trec.gz")


def test_every_kind_is_judged(whole):
    told = read(whole[1])
    assert set(told["systems"]) == set(SYSTEMS)
    assert told["baseline"] == "exact"
    assert told["queries"] == 10
    assert {name: one["kind"] for name, one in told["systems"].items()} == {
        "bm25": "bm25",
        "exact": "end_to_end",
        "single": "single_vector",
        "cross": "cross_encoder",
        "late": "rerank",
        "residual": "end_to_end",
        "both": "fusion",
        "theirs": "run",
        "again": "rerank",
    }


def test_metrics_beyond_a_rerankers_depth_are_left_out(whole):
    systems = read(whole[1])["systems"]
    assert set(systems["exact"]["means"]) == {"mrr_10", "ndcg_10", "recall_5", "recall_20", "recall_50"}
    assert set(systems["late"]["means"]) == {"mrr_10", "ndcg_10", "recall_5", "recall_20"}
    assert set(systems["cross"]["means"]) == {"mrr_10", "ndcg_10", "recall_5"}
    assert set(systems["again"]["means"]) == {"recall_5"}


def test_a_reranker_holds_the_documents_that_it_was_given(whole):
    told = read(whole[1])
    bm25, late, again = (run_of(told, name) for name in ("bm25", "late", "again"))
    assert all(set(late[query].ids) == set(bm25[query].ids[:20]) for query in bm25)
    # Queries without judgements are not re-ranked.
    assert set(again) == {f"q{q}" for q in range(30, 40)}


def test_reranking_scores_with_the_vectors_of_the_index(whole):
    """The exact index is fp16, and no document is encoded again: the same scores to the bit."""
    told = read(whole[1])
    exact, late = run_of(told, "exact"), run_of(told, "late")
    assert all(score == dict(exact[query])[d] for query in late for d, score in late[query])


def test_fusion_is_of_the_runs_in_the_table(whole):
    told = read(whole[1])
    expected = reciprocal_rank([run_of(told, "bm25"), run_of(told, "exact")], depth=60)
    found = run_of(told, "both")
    assert all(found[query] == expected[query] for query in expected)


def test_costs_are_those_of_the_parts(whole):
    systems = read(whole[1])["systems"]
    cost = {name: one["cost"] for name, one in systems.items()}
    assert cost["theirs"] is None
    assert cost["bm25"]["flops_query"] == cost["bm25"]["flops_analytic"] == 0
    assert cost["bm25"]["parts_ms"]["encode"] is None
    assert cost["late"]["parts_ms"]["interact"] > 0
    assert all(one["timed"] == 3 for name, one in cost.items() if name != "theirs")
    assert all(one["p95_ms"] >= one["p50_ms"] > 0 for one in cost.values() if one)
    # A re-ranker needs both indexes, a fusion of the same two no more.
    both = cost["bm25"]["index_bytes"] + cost["exact"]["index_bytes"]
    assert cost["late"]["index_bytes"] == cost["both"]["index_bytes"] == both
    assert cost["again"]["without_first_stage"]


def test_what_was_read_from_anothers_vectors_took_these_to_encode(whole):
    """To the bit, however long reading took."""
    cost = {name: one["cost"] for name, one in read(whole[1])["systems"].items()}
    assert cost["residual"]["shared_encoding"]
    assert not cost["bm25"]["shared_encoding"]
    twins = list((whole[1].parents[1] / "indexes").glob("*-vectors-*/log/encoded.jsonl"))
    assert twins
    taken = [sum(json.loads(line)["seconds"] for line in twin.read_text().splitlines()) for twin in twins]
    assert cost["residual"]["encode_seconds"] in taken


def test_counted_operations_agree_with_the_formulas(whole):
    cost = {name: one["cost"] for name, one in read(whole[1])["systems"].items() if one["cost"]}
    for name in ("exact", "residual", "late", "single"):
        # What compiled kernels multiply is alike on both sides: left are what torch ran and the encoding's formula.
        counted, formula = (cost[name][key] - cost[name]["flops_scored"] for key in ("flops_query", "flops_analytic"))
        assert counted == pytest.approx(formula, rel=0.02), name
        assert counted > 0
    # 10 pairs of different lengths are padded to the longest, which the formula does not count.
    assert cost["cross"]["flops_analytic"] <= cost["cross"]["flops_query"] < 1.5 * cost["cross"]["flops_analytic"]


def test_operations_grow_with_the_documents_that_are_scored(whole):
    cost = {name: one["cost"] for name, one in read(whole[1])["systems"].items() if one["cost"]}
    assert cost["exact"]["flops_query"] > cost["late"]["flops_query"] > cost["again"]["flops_query"] > 0


def test_everything_is_kept(whole):
    path = whole[1]
    rows = [json.loads(line) for line in (path / "per_query.jsonl").read_text().splitlines()]
    assert len(rows) == len(SYSTEMS) * 10
    told = read(path)
    for name in SYSTEMS:
        own = [row for row in rows if row["system"] == name]
        for metric, mean in told["systems"][name]["means"].items():
            assert np.mean([row[metric] for row in own]) == pytest.approx(mean)
    differences = json.loads((path / "differences.json").read_text())
    assert (differences["a"], differences["b"], differences["metric"]) == ("bm25", "exact", "ndcg_10")
    some = [*differences["gained"], *differences["lost"]]
    assert some
    assert all(len(one["documents"]) <= SHOWN_DOCUMENTS for one in some)
    explained = [one for side in ("gained", "lost") for one in differences[side][:3]]
    for one in explained:
        assert one["explanations"]["b"]
        for told_of in one["explanations"]["b"].values():
            assert sum(told_of["contributions"]) == pytest.approx(told_of["score"], abs=1e-3)
    assert not any(one["explanations"] for side in ("gained", "lost") for one in differences[side][3:])
    for name in ("quality-cost.svg", "quality-bytes.svg"):
        assert "<svg" in (path / name).read_text()


def test_tests_are_against_the_reference(whole):
    told = read(whole[1])
    assert {test["baseline"] for test in told["tests"]} == {"exact"}
    for test in told["tests"]:
        means = [told["systems"][name]["means"][test["metric"]] for name in (test["system"], "exact")]
        assert test["difference"] == pytest.approx(means[0] - means[1])
        assert test["wins"] + test["ties"] + test["losses"] == 10
        assert test["p"] >= test["p_alone"]


def test_the_table_has_a_line_a_system_and_says_what_it_is(whole):
    text = (whole[1] / "table.txt").read_text()
    head, lines = text.splitlines()[2], text.splitlines()[4 : 4 + len(SYSTEMS)]
    assert text.splitlines()[0].endswith(" test, 10 queries, corpus: full")
    columns = " ".join(head.split())
    assert columns == "system MRR@10 nDCG@10 R@5 R@20 R@50 FLOPs p50 ms p95 ms bytes index s"
    assert {line.split()[0] for line in lines} == set(SYSTEMS)
    assert next(line for line in lines if line.startswith("theirs")).split()[-5:] == ["-"] * 5
    assert "worse than exact (randomisation, Holm" in text
    assert "again: without what the given run took to find" in text


def test_training_and_test_are_held_against_each_other(whole):
    """The toy's test queries ask of the training queries' topics: every relevant document is one of training."""
    guards = read(whole[1])["guards"]
    found = next(one["train"] for one in guards["contamination"].values() if "train" in one)
    assert found["train"] == "train"
    assert found["found"]["positives"]["count"] == found["found"]["positives"]["of"] > 0
    assert any("relevant to training queries too" in note for note in guards["notes"])


def test_every_training_of_every_model_is_held_against_the_test(lab, model, tmp_path):
    """Trained on a file with a test query, then on the split: the file counts; so do seeds, cross- and bi-encoders."""
    file = tmp_path / "leak.json"
    file.write_text("".join(json.dumps([f"q{q}", f"d{q - 20}-0", "d19-1"]) + "\n" for q in (30, 31, 32, 33)))
    tuples = ["examples=tuples", "!examples.ranks", f"examples.file={file}", "train.negatives=1"]
    leaked = lab("train", *tuples).artifact
    given = [one for one in lab.arguments("train") if not one.startswith(("text.", "projection", "backbone"))]
    after = lab("train", "!all", *given, f"model={leaked.path}").artifact
    cross = lab("teacher").artifact
    cfg = composed(lab, f"model={model}", f"seeds=[{after.path}]")
    bi = single_vector_model(
        composed(
            lab,
            f"model={model}",
            f"+backbone={{_target_: {BACKBONE}, name: {lab.backbone}}}",
            "+text={query_length: 8, document_length: 20}",
        ),
        "mean",
    )
    made = [
        Made("exact", EndToEnd(), "exact", (), model=Artifact.open(model, "model")),
        Made("single", SingleVector(), "single", (), model=bi),
        Made("cross", CrossEncoder("bm25"), "cross", (), teacher=cross),
    ]
    told = guards(cfg, Collection.open(after.manifest["inputs"]["collection"]["path"]), made)
    found = told["contamination"]
    assert set(found[after.path.name]) == {"train", "leak.json"}
    assert found[after.path.name]["leak.json"]["found"]["queries"] == {
        **found[after.path.name]["leak.json"]["found"]["queries"],
        "count": 4,
        "of": 10,
    }
    assert set(found[Path(model).name]) == set(found[cross.path.name]) == {"train"}
    assert "trained elsewhere" in found[bi.path.name][f"unknown of {bi.path.name}"]["unknown"]
    assert any(note.startswith("leak.json -> test: 4 of 10") for note in told["notes"])
    # A file that is not the one of then is not taken for it.
    file.write_text(file.read_text().replace("d19-1", "d18-1"))
    changed = guards(cfg, Collection.open(after.manifest["inputs"]["collection"]["path"]), made)
    assert any("leak.json, has changed since" in note for note in changed["notes"])


def test_what_pools_and_raw_texts_taught_is_known_too(lab, tmp_path):
    raw = tmp_path / "raw.tsv"
    raw.write_text("Who wrote of a forest?\tanything\telse\n" * 4)
    first = lab("train", "examples=triples", "!examples.ranks", f"examples.file={raw}", "train.negatives=1").artifact
    candidates = lab("mine", f"run={next((lab.root / 'runs').glob('*-train-bm25-*'))}").artifact
    scores = lab("score", f"candidates={candidates.path}", f"teachers={first.path}").artifact
    pools = lab("tuples", f"scores={scores.path}").artifact
    pooled = ["examples=pools", "!examples.ranks", f"examples.pools={pools.path}", "train.negatives=1", "loss=kl"]
    second = lab("train", *pooled).artifact
    collection = Collection.open(second.manifest["inputs"]["collection"]["path"])
    made = [Made(one.path.name, EndToEnd(), "", (), model=one) for one in (first, second)]
    cfg = composed(lab, f"model={first.path}", f"seeds=[{second.path}]")
    found = guards(cfg, collection, made)["contamination"]
    # The toy's documents of a topic are relevant to its training and to its test query.
    assert found[first.path.name]["raw.tsv"]["found"]["query_texts"]["count"] == 1
    (by_pools,) = found[second.path.name].values()
    assert by_pools["train"].startswith("pools ")
    assert by_pools["found"]["positives"]["count"] > 0


def test_every_query_of_a_comparison_is_told_with_what_it_found(whole):
    rows = read_table(whole[1] / "log", NAME)
    assert len(rows) == len(SYSTEMS) * 10
    told = read(whole[1])
    for row in rows:
        assert row["text"]
        assert row["top_1"] == run_of(told, row["system"])[row["query"]].ids[0] if row["system"] != "theirs" else True
        late = row["system"] in ("exact", "late", "residual", "again")
        assert (row["best_tokens"] is not None) == late, row["system"]


def test_a_repeated_comparison_makes_nothing(whole, lab, monkeypatch):
    before = lab.artifacts()
    monkeypatch.setattr("colbert_lab.artifact.build", None)
    assert lab("compare", *whole[0]).artifact.path == whole[1]
    assert lab.artifacts() == before


def test_a_comparison_goes_on_where_it_was_stopped(whole, lab, tmp_path):
    """What is left of a killed one: everything but a measurement, and the comparison itself."""
    copy = lab.elsewhere(tmp_path / "outputs")
    shutil.copytree(lab.root, copy.root)
    shutil.rmtree(copy.root / "comparisons")
    lost = next((copy.root / "measurements").glob("*-test-late-*"))
    shutil.rmtree(lost)
    kept = copy.artifacts()
    made = copy("compare", *whole[0]).artifact
    new = {place for place in copy.artifacts() if place not in kept}
    assert new == {str(lost.relative_to(copy.root)), str(made.path.relative_to(copy.root))}
    ours, before = read(made.path), read(whole[1])
    assert ours["tests"] == before["tests"]
    assert ours["systems"]["late"]["means"] == before["systems"]["late"]["means"]


def test_seeds_are_told_as_mean_and_deviation(whole, lab, model):
    other = lab("train", "seed=1").artifact.path
    overrides = [f"model={model}", f"seeds=[{other}]", "~systems.rerank_100"]
    overrides += ["+systems.both={kind: fusion, of: [bm25, exact]}", "evaluate.metrics=[ndcg_10,recall_50]"]
    path = lab("compare", *overrides, "baseline=bm25").artifact.path
    told = read(path)
    assert {name: one["seeds"] for name, one in told["systems"].items()} == {"bm25": 1, "exact": 2, "both": 2}
    alone = read(whole[1])["systems"]["exact"]["means"]["ndcg_10"]
    rows = [json.loads(line) for line in (path / "per_query.jsonl").read_text().splitlines()]
    seeds = [np.mean([r["ndcg_10"] for r in rows if r["system"] == "exact" and r["seed"] == s]) for s in (0, 1)]
    assert seeds[0] == pytest.approx(alone)
    exact = told["systems"]["exact"]
    assert exact["means"]["ndcg_10"] == pytest.approx(np.mean(seeds))
    assert exact["deviations"]["ndcg_10"] == pytest.approx(abs(seeds[0] - seeds[1]) / 2**0.5)
    assert told["systems"]["bm25"]["deviations"] == {}
    assert "over seeds, mean and standard deviation" in (path / "table.txt").read_text()


def test_a_given_run_is_reranked(lab, model, theirs):
    """systems=rerank reads nothing of the corpus but the candidates: no index is made."""
    small = ["systems=rerank", "systems.rerank_10.k=3", "systems.rerank_100.k=5", "corpus=pool", f"candidates={theirs}"]
    overrides = [f"model={model}", *small, "evaluate.metrics=[recall_3,recall_5]"]
    told = read(path := lab("compare", *overrides).artifact.path)
    assert set(told["systems"]) == {"given", "rerank_10", "rerank_100", "fusion"}
    assert told["baseline"] == "rerank_100"
    assert told["corpus"] == "pool"
    assert told["systems"]["rerank_10"]["cost"]["index_bytes"] is None
    assert told["systems"]["rerank_10"]["cost"]["parts_ms"]["interact"] > 0
    text = (path / "table.txt").read_text()
    assert "corpus: pool" in text.splitlines()[0]
    assert "cross_encoder is left out: there is no cross-encoder (teacher=DIR" in text


def test_mistakes_are_told_together_before_anything_is_made(fresh_lab, theirs):
    overrides = [
        "~systems.exact",
        "+systems.a={kind: fusion, of: [b, bm25]}",
        "+systems.b={kind: rerank, of: a, k: 10}",
        "+systems.c={kind: rerank, of: bm52, k: 10}",
        "+systems.d={kind: end_to_end, index: exact, options: {bits: 2}}",
        "+systems.e={kind: rerank, of: given, k: 10}",
        "+systems.g={kind: rernk, of: bm25}",
        "+systems.h={kind: rerank, off: bm25}",
        f"+systems.i={{kind: run, run: {theirs}x}}",
        "systems.rerank_100.k=0",
        "baseline=bm",
    ]
    with pytest.raises(ConfigError) as caught:
        fresh_lab("compare", *overrides)
    text = str(caught.value)
    for told in (
        "a -> b -> a: these build on one another",
        "systems.c.of=bm52: there is no such system; did you mean 'bm25'?",
        "systems.d.options.bits: neither the index nor its search has it",
        "systems.e re-ranks a given run, and none is given",
        "'rernk' is no kind of system; did you mean 'rerank'?",
        "systems.h: unknown key 'off'; did you mean 'of'?",
        "systems.h.of is missing",
        f"systems.i.run={theirs}x does not exist",
        "systems.rerank_100.k=0 must be at least 1",
        "systems.b: no late-interaction model is given",
        "baseline=bm: there is no such system",
    ):
        assert told in text
    assert not fresh_lab.root.exists()


def composed(lab, *overrides):
    return lab.compose("compare", *overrides)[0]


def test_a_reranker_cannot_ask_for_more_than_there_is(lab, model, theirs):
    given = f"model={model}"
    for overrides, told in (
        (["systems.rerank_100.k=61"], "systems.rerank_100.k=61, but bm25 has 60 results a query"),
        (["systems.rerank_100.of=given", f"candidates={theirs}"], "k=100, but given has 5 results a query"),
        (
            ["systems.rerank_100.k=20", "+systems.twice={kind: rerank, of: rerank_100, k: 30}"],
            "systems.twice.k=30, but rerank_100 has 20 results a query",
        ),
    ):
        with pytest.raises(ConfigError, match=told):
            read_systems(composed(lab, given, *overrides))


def test_systems_come_after_those_that_they_build_on(lab, model):
    overrides = ["systems.rerank_100={kind: rerank, of: exact, k: 10}", f"model={model}"]
    systems, left_out = read_systems(composed(lab, *overrides))
    assert list(systems) == ["bm25", "exact", "rerank_100"]
    assert left_out == {}


def test_what_builds_on_a_missing_cross_encoder_is_left_out_too(lab, model):
    overrides = ["+systems.cross={kind: cross_encoder, of: bm25}", "+systems.mix={kind: fusion, of: [bm25, cross]}"]
    cfg = composed(lab, *overrides, f"model={model}", "systems.rerank_100.k=10")
    systems, left_out = read_systems(cfg)
    assert list(systems) == ["bm25", "rerank_100", "exact"]
    assert set(left_out) == {"cross", "mix"}
    assert left_out["mix"] == "mix is left out: it builds on cross"


def test_what_no_metric_looks_at_is_refused_at_once(lab, model):
    short = ["systems.rerank_100.k=3", "evaluate.metrics=[ndcg_10,recall_5]"]
    with pytest.raises(ConfigError, match=r"systems\.rerank_100 has 3 results a query, and none of evaluate\.metrics"):
        read_systems(composed(lab, f"model={model}", *short))


def test_a_cross_encoder_of_ours_has_its_own_length(lab, model):
    cross = lab("teacher").artifact.path
    asked = "+systems.cross={kind: cross_encoder, of: bm25, k: 10, max_length: 50}"
    given = [f"model={model}", asked, "systems.rerank_100.k=10"]
    with pytest.raises(ConfigError, match=r"systems\.cross\.max_length=50: the cross-encoder at"):
        read_systems(composed(lab, *given, f"cross_encoder={cross}"))
    assert "cross" in read_systems(composed(lab, *given, "cross_encoder=some/name"))[0]


def test_a_run_of_other_queries_is_refused_before_anything_is_made(fresh_lab, model, theirs, tmp_path):
    other = tmp_path / "other.trec"
    write_trec(Run({"elsewhere": rank(["d0-0"], [1.0])}), other)
    with pytest.raises(DataError, match=r"systems\.given: the run at .* has no query that test of"):
        fresh_lab(
            "compare",
            f"model={model}",
            "systems=rerank",
            "systems.rerank_10.k=1",
            f"candidates={other}",
            "~systems.rerank_100",
            "~systems.fusion",
            "evaluate.metrics=[ndcg_1]",
        )
    assert not (fresh_lab.root / "runs").exists()


def test_runs_of_a_comparison_can_be_judged_and_explained(whole, lab):
    systems = read(whole[1])["systems"]
    fused = Path(systems["both"]["run"])
    outcome = lab("evaluate", f"run={fused}", "evaluate.metrics=[ndcg_10]")
    assert outcome.objective == pytest.approx(systems["both"]["means"]["ndcg_10"])
    # Re-ranked from the vectors of an index: by that index's model.
    late = Artifact.open(systems["late"]["run"], "run")
    assert "model" not in late.manifest["inputs"]
    cfg = lab.compose("explain", f"run={late.path}")[0]
    assert model_of(late, cfg) == Artifact.open(whole[0][0].removeprefix("model="), "model")
    assert model_of(Artifact.open(systems["cross"]["run"], "run"), cfg) is None


def test_what_one_vector_ranked_is_not_explained_and_merged_vectors_are_told(lab, model):
    """In the order of the sides: b is the reference, and a is explained where its index has a vector a token."""
    for name, kind, told in (
        ("pooled", "index: single_vector", None),
        ("half", "index: exact, options: {pooling: {factor: 2}}", "pooling.factor=2; "),
    ):
        given = (f"model={model}", "~systems.bm25", "~systems.rerank_100", "baseline=exact", "cost.timed=1")
        made = lab("compare", *given, f"+systems.{name}={{kind: end_to_end, {kind}}}").artifact
        differences = json.loads((made.path / "differences.json").read_text())
        explained = [one["explanations"] for one in (*differences["gained"], *differences["lost"])]
        assert explained
        assert {side for one in explained for side in one} == ({"a", "b"} if told else {"b"})
        notes = {one.get("note") for found in explained for one in found.get("a", {}).values()}
        assert all(told in note for note in notes) if told else not notes
        assert all("note" not in one for found in explained for one in found.get("b", {}).values())
        rows = read_table(made.path / "log", NAME)
        assert any(row["best_tokens"] for row in rows if row["system"] == name) == bool(told)
        assert (f"{name}: the index holds" in (made.path / "table.txt").read_text()) == bool(told)


def test_what_a_cross_encoder_cuts_is_told(whole):
    told = read(whole[1])["truncation"]
    cut = told["systems"]["cross"]
    assert cut["of_pairs"] == 100
    assert 0 <= cut["pairs"] <= 100
    assert any(note.startswith("cross: ") for note in told["notes"]) == (cut["pairs"] > 0)


class Recording:
    """An index that finds as many as it is asked for, the query itself first."""

    def search(self, ids, queries, k, probe=None):
        self.asked = k
        return Run({ids[0]: rank([ids[0], *(f"d{i:03}" for i in range(k - 1))], np.arange(k, 0, -1.0))}, k)


def test_a_first_stage_is_asked_as_deep_as_it_was_for_its_run(lab):
    index = Recording()
    cfg = composed(lab, "search.k=60", "search.drop_self=true")
    hits = _Searched(index, None, None, cfg)("q", "text", untimed)
    assert index.asked == 61
    assert len(hits) == 60
    assert "q" not in hits.ids


def test_one_model_reranks_what_several_seeds_found(lab, model):
    other = lab("train", "seed=1").artifact.path
    overrides = [f"model={model}", f"seeds=[{other}]", "~systems.rerank_100"]
    overrides += [f"+systems.mine={{kind: end_to_end, index: exact, model: {model}}}"]
    overrides += [f"+systems.again={{kind: rerank, of: exact, k: 10, model: {model}}}", "evaluate.metrics=[ndcg_10]"]
    systems = read(lab("compare", *overrides).artifact.path)["systems"]
    assert {name: one["seeds"] for name, one in systems.items()} == {"bm25": 1, "exact": 2, "mine": 1, "again": 2}


def test_passages_are_every_systems_that_can_take_them(lab, model, theirs):
    cross = lab("teacher").artifact.path
    overrides = [f"model={model}", f"cross_encoder={cross}", "~systems.exact", "passages.length=4", "passages.most=2"]
    overrides += ["systems.rerank_100.k=10", "+systems.cross={kind: cross_encoder, of: bm25, k: 10}"]
    overrides += ["+systems.residual={kind: end_to_end, index: residual, options: {bits: 4, cells: 2}}"]
    path = lab("compare", *overrides, "search.drop_self=true", "evaluate.metrics=[ndcg_10]").artifact.path
    told = read(path)
    cost = {name: one["cost"] for name, one in told["systems"].items()}
    assert cost["residual"]["flops_query"] is cost["residual"]["flops_analytic"] is None
    assert cost["rerank_100"]["flops_query"] > 0
    cut = told["truncation"]["systems"]["residual"]
    assert cut["left_out_passages"] >= cut["shortened"] > 0
    assert cut["of_passages"] > 0
    bm25 = Artifact.open(told["systems"]["bm25"]["run"], "run")
    index = Artifact.open(bm25.manifest["inputs"]["index"]["path"], "index")
    assert index.manifest["config"]["passages"]["length"] == 4
    text = (path / "table.txt").read_text()
    assert "cross: reads whole documents" in text
    assert "beyond passages.most and left out" in " ".join(text.split())


def test_a_given_run_is_held_to_the_same_rule_on_a_querys_own_document(lab, model, tmp_path):
    ids = [f"q{q}" for q in range(30, 40)]
    write_trec(Run({q: rank([q, "d1-0", "d2-0"], [3.0, 2.0, 1.0]) for q in ids}), tmp_path / "own.trec")
    overrides = [f"model={model}", "~systems.rerank_100", f"+systems.own={{kind: run, run: {tmp_path / 'own.trec'}}}"]
    told = read(lab("compare", *overrides, "search.drop_self=true", "evaluate.metrics=[ndcg_2]").artifact.path)
    assert all(hits.ids == ("d1-0", "d2-0") for hits in run_of(told, "own").values())


def test_seeds_of_different_numbers_do_not_mix(lab):
    other = "+systems.other={kind: rerank, of: exact, k: 10, model: [a, b, c]}"
    with pytest.raises(ConfigError, match=r"systems\.other is built of 2 and 3 seeds"):
        read_systems(composed(lab, "model=a", "seeds=[b]", "systems.rerank_100.k=10", other))
