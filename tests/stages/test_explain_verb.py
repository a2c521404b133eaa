"""explain on the toy collection: pairs, a run's best, two runs, and what it says of mistakes."""

import json

import pytest
from omegaconf import open_dict

from colbert_lab.artifact import Artifact
from colbert_lab.data.collection import Collection
from colbert_lab.errors import ConfigError, DataError
from colbert_lab.run import read_trec
from colbert_lab.stages.evaluate import _explain as evaluation_of
from colbert_lab.stages.explain import explanations_of, given_id
from colbert_lab.stages.init import single_vector_model
from colbert_lab.stages.per_query import NAME
from colbert_lab.stages.ranked_by import note_of
from colbert_lab.tracking.read import read_table


@pytest.fixture(scope="module")
def data(lab):
    return ("data=beir", f"data.root={lab.toy}")


def told(outcome) -> dict:
    return json.loads((outcome.artifact.path / "explanation.json").read_text())


def test_a_pair_by_ids(lab, chain, data):
    done = lab("explain", f"model={chain['model'].path}", *data, "query=q30", "document=d10-1")
    (one,) = told(done)["pairs"]
    assert (one["query"], one["document"], one["rank"]) == ("q30", "d10-1", None)
    assert sum(one["contributions"]) == pytest.approx(one["score"], abs=1e-5)
    assert len(one["matrix"]) == len(one["query_tokens"]) == 12
    assert set(one["kinds"]) == {"special", "marker", "word", "mask"}
    names = {"explanation.json", "explanation.txt", "heatmap.svg", "heatmap.png", "highlight.html"}
    assert set(done.artifact.manifest["files"]) == names
    assert "query q30 · document d10-1" in done.text
    again = lab("explain", f"model={chain['model'].path}", *data, "query=q30", "document=d10-1")
    assert again.artifact.digest == done.artifact.digest


def test_the_score_is_the_one_in_the_run(lab, chain):
    # In fp32: bf16 rounds otherwise when texts are batched otherwise.
    index = lab("index", f"model={chain['model'].path}", "encode.precision=fp32").artifact
    run = lab("search", f"index_dir={index.path}", "encode.precision=fp32").artifact
    found = read_trec(run.path / "run.trec.gz")
    done = lab("explain", f"run={run.path}", "query=q30", "explain.top=2")
    records = told(done)["pairs"]
    scores = dict(found["q30"])
    assert [one["document"] for one in records[:2]] == list(found["q30"].ids[:2])
    for one in records:
        assert one["score"] == pytest.approx(scores[one["document"]], abs=1e-3)
        assert one["rank"] == found["q30"].ids.index(one["document"]) + 1
    positives = {"d10-0": 3, "d10-1": 2, "d10-2": 1}
    # Beside the best two the best judged positive, d10-0 with grade 3, once.
    assert {one["document"] for one in records} == {*found["q30"].ids[:2], "d10-0"}
    assert all(one["grade"] == positives.get(one["document"]) for one in records)


@pytest.mark.parametrize(("asked", "used"), [("auto", "bf16"), ("fp32", "fp32")])
def test_texts_are_encoded_as_the_run_was(lab, chain, asked, used):
    runs = [
        lab("search", f"index_dir={chain['index'].path}", f"encode.precision={precision}").artifact
        for precision in ("bf16", "fp32")
    ]
    given = "explain.top=1", f"encode.precision={asked}"
    done = lab("explain", f"run={runs[0].path}", "query=q30", *given).artifact
    assert done.manifest["config"]["encode"]["precision"] == used
    # Of two runs each by its own.
    done = lab("explain", f"run=[{runs[0].path},{runs[1].path}]", "query=q30", *given).artifact
    assert [one["precision"] for one in done.manifest["config"]["encode"]] == [used, "fp32"]


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_evaluation_explains_a_run_as_it_was_encoded(lab, chain, monkeypatch, precision):
    run = lab("search", f"index_dir={chain['index'].path}", f"encode.precision={precision}").artifact
    cfg, _, _ = lab.compose("evaluate", f"run={run.path}")
    seen = []
    monkeypatch.setattr("colbert_lab.stages.explain.explanations_of", lambda *given: seen.append(given[2]) or {})
    evaluation_of(cfg, Collection(Artifact.open(run.manifest["inputs"]["collection"]["path"])), run)([])
    assert seen[0].encode.precision == precision


def test_texts_need_no_collection(lab, chain):
    texts = ('query_text="which river?"', 'document_text="A <b>river</b>, it is."')
    done = lab("explain", f"model={chain['model'].path}", *texts)
    (one,) = told(done)["pairs"]
    assert one["query_tokens"][:5] == ["[CLS]", "[unused0]", "which", "river", "?"]
    assert "collection" not in done.artifact.manifest["inputs"]
    assert "<b>river" not in (done.artifact.path / "highlight.html").read_text()


def test_two_runs_side_by_side(lab, chain):
    index = lab("index", f"model={chain['start'].path}").artifact
    other = lab("search", f"index_dir={index.path}").artifact
    done = lab("explain", f"run=[{other.path},{chain['run'].path}]", "explain.n=2")
    differences = json.loads((done.artifact.path / "differences.json").read_text())
    some = [*differences["gained"], *differences["lost"]]
    assert some
    assert all(one["difference"] for one in some)
    for one in some:
        tops = {d["id"] for d in one["documents"] if 1 in (d["rank_a"], d["rank_b"])}
        for side in ("a", "b"):
            assert tops <= one["explanations"][side].keys()
    page = (done.artifact.path / "highlight.html").read_text()
    assert (
        page.count("<section")
        == len(told(done)["pairs"])
        == sum(len(found) for one in some for found in one["explanations"].values())
    )


def test_a_run_without_a_model_has_ranks_alone(lab, chain, capfd):
    index = lab("index", "index=bm25").artifact
    bm25 = lab("search", f"index_dir={index.path}").artifact
    done = lab("explain", f"run=[{bm25.path},{chain['run'].path}]", "query=q30")
    assert {one["system"] for one in told(done)["pairs"]} == {"b"}
    assert "without explanations" in capfd.readouterr().err
    with pytest.raises(ConfigError, match="model="):
        lab("explain", f"run={bm25.path}", "query=q30")
    with pytest.raises(ConfigError, match="neither run"):
        lab("explain", f"run=[{bm25.path},{bm25.path}]", "query=q30")
    # A run of another system can be explained by a model all the same.
    assert told(lab("explain", f"run={bm25.path}", "query=q30", f"model={chain['model'].path}"))["pairs"]


def test_what_one_pooled_vector_a_text_ranked_is_not_explained(lab, chain, capfd):
    index = lab("index", "index=single_vector", f"model={chain['model'].path}").artifact
    run = lab("search", f"index_dir={index.path}").artifact
    with pytest.raises(ConfigError, match=r"one vector a text \(index=single_vector\)\n.*try: model="):
        lab("explain", f"run={run.path}", "query=q30")
    # By a model that is given it can be, whose scores are others than the run's.
    given = lab("explain", f"run={run.path}", "query=q30", f"model={chain['model'].path}")
    assert "one vector a text" in given.text
    side = lab("explain", f"run=[{run.path},{chain['run'].path}]", "query=q30")
    assert {one["system"] for one in told(side)["pairs"]} == {"b"}
    assert "was not ranked by late interaction" in capfd.readouterr().err
    judged = lab("evaluate", f"run={run.path}", "evaluate.metrics=[ndcg_10]").artifact
    assert "best_tokens" not in read_table(judged.path / "log", NAME)[0]


def test_an_index_of_merged_vectors_is_told_beside_what_every_token_chose(lab, chain):
    index = lab("index", "pooling.factor=2", f"model={chain['model'].path}").artifact
    run = lab("search", f"index_dir={index.path}").artifact
    note = f"the index holds {index.manifest['counts']['vectors']:,} vectors, merged by pooling.factor=2"
    done = lab("explain", f"run={run.path}", "query=q30", "explain.top=1")
    assert note in done.text
    assert all(one["note"].startswith(note) for one in told(done)["pairs"])
    assert note in (done.artifact.path / "highlight.html").read_text()
    two = lab("explain", f"run=[{run.path},{chain['run'].path}]", "query=q30")
    assert f"a: {note}" in two.text
    assert [one["system"] for one in told(two)["pairs"] if "note" in one] == ["a"] * (len(told(two)["pairs"]) // 2)
    judged = lab("evaluate", f"run={run.path}", "evaluate.metrics=[ndcg_10]").artifact
    assert note in (judged.path / "table.txt").read_text()
    assert all(row["best_tokens"] for row in read_table(judged.path / "log", NAME))
    # Re-ranked, documents are encoded anew, and nothing is merged.
    again = lab("rerank", f"model={chain['model'].path}", f"candidates={run.path}").artifact
    assert note_of(again) is None
    assert note_of(run).startswith(note)


def test_documents_in_passages_are_explained_by_their_best(lab, chain):
    cut = ("passages.length=6", "passages.overlap=1", "encode.precision=fp32")
    run = lab("rerank", f"model={chain['model'].path}", f"candidates={chain['run'].path}", *cut).artifact
    found = read_trec(run.path / "run.trec.gz")
    cfg, _, _ = lab.compose("explain", f"run={run.path}", "encode.precision=fp32")
    collection = Collection(Artifact.open(run.manifest["inputs"]["collection"]["path"]))
    pairs = [("q30", document) for document in found["q30"].ids[:3]]
    passages = run.manifest["config"]["passages"]
    explained = explanations_of(chain["model"], collection, cfg, pairs, passages)
    for pair in pairs:
        assert explained[pair].score == pytest.approx(dict(found["q30"])[pair[1]], abs=1e-3)
    (one,) = told(lab("explain", f"run={run.path}", "query=q30", f"document={pairs[0][1]}"))["pairs"]
    assert one["score"] == pytest.approx(explained[pairs[0]].score, abs=1e-5)


def test_mistaken_ids_are_told_with_near_ones(lab, chain, data):
    model = f"model={chain['model'].path}"
    with pytest.raises(DataError, match=r"'q3O' is no id in the queries of .*near to it are: 'q3"):
        lab("explain", model, *data, "query=q3O", "document=d1-0")
    with pytest.raises(DataError, match="id of a document\ntry: document=d1-0"):
        lab("explain", model, *data, "query=d1-0", "document=d1-0")
    with pytest.raises(DataError, match=r"'d1_0' is no id in the corpus.*'d1-0'"):
        lab("explain", model, *data, "query=q30", "document=d1_0")
    with pytest.raises(DataError, match="no results for query 'q1'"):
        lab("explain", f"run={chain['run'].path}", "query=q1")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("query=q30", "document=d1-0"), "model="),
        (("model", "document=d1-0"), "which query"),
        (("model", "query=q30"), "data=beir"),
        (("model", "query_text=zinc"), "which document"),
        (("model", "document_text=zinc"), "which query"),
        (("model", "query_text=a", "query=q1", "document_text=b"), "both given"),
        (("run=[a,b,c]",), "3 runs"),
    ],
)
def test_what_is_missing_is_named(lab, chain, overrides, message):
    given = [f"model={chain['model'].path}" if one == "model" else one for one in overrides]
    with pytest.raises(ConfigError, match=message):
        lab("explain", *given)


@pytest.mark.parametrize("typed", ["1e3", "1_000", "007", "true", "d1-0"])
def test_ids_are_what_was_typed(lab, typed):
    cfg, overrides, _ = lab.compose("explain", f"query={typed}")
    with open_dict(cfg):
        cfg.overrides = overrides
    assert given_id(cfg, "query") == typed
    assert given_id(cfg, "document") is None


def test_single_vectors_are_refused(lab, data):
    cfg, _, _ = lab.compose("init")
    with open_dict(cfg):
        cfg.name = "single"
    model = single_vector_model(cfg, "mean")
    with pytest.raises(ConfigError, match="one vector a text"):
        lab("explain", f"model={model.path}", *data, "query=q30", "document=d1-0")
    # Refused before anything is begun.
    assert not list(lab.root.glob("explanations/*.partial"))
