"""The verbs one after another on the toy collection: what each makes, what is done again, and what is refused."""

import json
import re
import shutil

import numpy as np
import pytest
from stages_toy import beir, lines

from colbert_lab.errors import ArtifactError, ConfigError, DataError
from colbert_lab.run import read_trec, write_trec


def run_of(artifact):
    return read_trec(artifact.path / "run.trec.gz", depth=artifact.manifest["counts"]["depth"])


def systems(metrics):
    return json.loads((metrics.path / "metrics.json").read_text())["systems"]


def test_each_verb_makes_its_artifact_of_the_one_before(chain):
    kinds = {name: artifact.kind for name, artifact in chain.items()}
    assert kinds == {
        "start": "model",
        "model": "model",
        "index": "index",
        "run": "run",
        "metrics": "metrics",
        "reranked": "run",
    }
    before = {
        "model": ("start", "start"),
        "index": ("model", "model"),
        "run": ("index", "index"),
        "metrics": ("run_0", "run"),
        "reranked": ("candidates", "run"),
    }
    for name, (role, other) in before.items():
        assert chain[name].manifest["inputs"][role]["digest"] == chain[other].digest
    assert chain["index"].manifest["counts"]["documents"] == 60
    found = run_of(chain["run"])
    assert list(found) == [f"q{number}" for number in range(30, 40)]
    assert {len(hits) for hits in found.values()} == {60}
    assert {len(hits) for hits in run_of(chain["reranked"]).values()} == {20}
    (means,) = (record["means"] for record in systems(chain["metrics"]).values())
    assert means["recall_1000"] == 1.0
    assert 0 < means["ndcg_10"] < 1
    assert len(lines(chain["metrics"].path / "per_query.jsonl")) == 10


def test_reranking_everything_with_the_model_of_the_search_is_the_search(lab, chain):
    run, model = run_of(chain["run"]), chain["model"].path
    again = run_of(lab("rerank", f"model={model}", f"candidates={chain['run'].path}", "rerank.k=60").artifact)
    for query in run:
        scores = dict(again[query])
        assert np.allclose(run[query].scores, [scores[document] for document in run[query].ids], atol=0.02)


def test_what_is_done_is_not_done_again(lab, chain, capsys):
    models = sorted(path.name for path in (lab.root / "models").iterdir())
    model = lab("train", "name=another", "tracking.notes=other", "threads=1").artifact
    index = lab("index", f"model={model.path}").artifact
    assert capsys.readouterr().err.count("done before") == 4
    assert (model, index) == (chain["model"], chain["index"])
    assert sorted(path.name for path in (lab.root / "models").iterdir()) == models


def test_a_change_makes_again_only_what_depends_on_it(fresh_lab):
    known = set()

    def made_by(*overrides) -> list[str]:
        fresh_lab("pipeline", "train.judge_every=3", "optim.lr=1e-2", *overrides)
        now = set(fresh_lab.artifacts())
        fresh = [path.split("/")[0] for path in now - known]
        known.update(now)
        return sorted(fresh)

    assert made_by() == ["collections", *["indexes"] * 2, "metrics", *["models"] * 2, *["runs"] * 4]
    assert made_by("name=other") == []
    assert made_by("evaluate.relevance_level=2") == ["metrics"]
    assert made_by("lexical=false") == ["metrics"]
    assert made_by("search.k=59", "evaluate.metrics=[ndcg_10]") == ["metrics", "runs", "runs", "runs"]
    assert made_by("index.dtype=fp32") == ["indexes", "indexes", "metrics", "runs", "runs"]
    assert made_by("train.negatives=2") == ["indexes", "metrics", "models", "runs"]
    # The same weights may come out best by another sample, but it is another choice.
    assert "models" in made_by("dev.queries=3")


def test_results_of_two_models_together_are_refused(lab, chain):
    with pytest.raises(ArtifactError, match="results of the two together") as caught:
        lab("search", f"index_dir={chain['index'].path}", f"model_at={chain['start'].path}")
    assert chain["start"].digest[:12] in str(caught.value)
    assert chain["model"].digest[:12] in str(caught.value)


def test_inputs_that_were_moved_are_asked_for_and_accepted(fresh_lab):
    model = fresh_lab("init").artifact
    index = f"index_dir={fresh_lab('index', f'model={model.path}').artifact.path}"
    moved = fresh_lab.root / "moved"
    moved.mkdir()
    (collection,) = (fresh_lab.root / "collections").glob("toy*")
    overrides = [index]
    for role, key, path in (("collection", "collection", collection), ("model", "model_at", model.path)):
        shutil.move(path, moved / role)
        with pytest.raises(ArtifactError, match=rf"{re.escape(str(path))} does not exist\ntry: {key}=<where"):
            fresh_lab("search", *overrides)
        if role == "collection":
            overrides.append(f"{key}={moved / role}")
    assert fresh_lab("search", *overrides, f"model_at={moved / 'model'}").artifact.manifest["counts"]["queries"] == 10


def test_a_changed_artifact_is_noticed(lab, chain, tmp_path):
    for name, file in (("run", "run.trec.gz"), ("model", "model.safetensors")):
        shutil.copytree(chain[name].path, tmp_path / name)
        content = bytearray((tmp_path / name / file).read_bytes())
        content[-1] ^= 1
        (tmp_path / name / file).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"run\.trec\.gz was changed"):
        lab("evaluate", f"run={tmp_path / 'run'}")
    with pytest.raises(ArtifactError, match=r"model\.safetensors was changed"):
        lab("index", f"model={tmp_path / 'model'}")


def test_another_kind_of_artifact_or_none_is_refused(lab, chain):
    with pytest.raises(ArtifactError, match=r"holds a model, but an? index"):
        lab("search", f"index_dir={chain['model'].path}")
    with pytest.raises(ConfigError, match="model=<directory"):
        lab("index")
    with pytest.raises(ConfigError) as caught:
        lab("rerank")
    assert len(caught.value.problems) == 2
    with pytest.raises(ArtifactError, match="another configuration"):
        lab("evaluate", f"run={chain['run'].path}", "evaluate.metrics=[map]", f"run_dir={chain['metrics'].path}")


def test_no_metric_looks_deeper_than_the_run(lab, fresh_lab, chain):
    short = lab("search", f"index_dir={chain['index'].path}", "search.k=5").artifact
    with pytest.raises(ConfigError, match="recall_50 looks at 50 results a query, the run holds 5"):
        lab("evaluate", f"run={short.path}")
    again = lab("rerank", f"model={chain['start'].path}", f"candidates={short.path}", "rerank.k=100").artifact
    with pytest.raises(ConfigError, match="recall_50 looks at 50 results a query, the run holds 5"):
        lab("evaluate", f"run={again.path}")
    for mistake in ("search.k=5", "evaluate.metrics=[ndgc_10]", "evaluate.relevance_level=0", "splits.test=tset"):
        with pytest.raises((ConfigError, DataError)):
            fresh_lab("pipeline", mistake)
    assert not (fresh_lab.root / "models").exists()


def test_a_query_that_is_a_document_is_left_out_of_its_results(fresh_lab, tmp_path):
    documents = {f"d{i}": f"the {word} garden" for i, word in enumerate(["old", "new", "red", "small", "open", "far"])}
    toy = beir(tmp_path / "self", documents, documents, {"test": [(f"d{i}", f"d{(i + 1) % 6}", 1) for i in range(6)]})
    lab = fresh_lab.elsewhere(fresh_lab.root)
    lab.toy = toy
    index = lab("index", f"model={lab('init').artifact.path}").artifact
    runs = {
        drop: lab("search", f"index_dir={index.path}", f"search.drop_self={drop}", "search.k=3").artifact
        for drop in ("true", "false")
    }
    kept, dropped = run_of(runs["false"]), run_of(runs["true"])
    assert runs["true"].manifest["counts"]["dropped_self"] == 6
    for query in documents:
        assert query in kept[query].ids
        assert query not in dropped[query].ids
        assert len(dropped[query]) == len(kept[query]) == 3


def test_a_trec_file_is_judged_like_its_artifact(lab, chain, tmp_path):
    file = tmp_path / "mine.trec"
    write_trec(run_of(chain["run"]), file)
    with pytest.raises(ConfigError, match="try: data=beir"):
        lab("evaluate", f"run={file}")
    given = [f"run={file}", "data=beir", f"data.root={lab.toy}"]
    with pytest.raises(ConfigError, match="split=<one of dev, test, train>"):
        lab("evaluate", *given)
    judged = lab("evaluate", *given, "split=test").artifact
    assert systems(judged)["mine"] == next(iter(systems(chain["metrics"]).values()))


def test_several_runs_are_held_against_the_first(lab, chain):
    bm25 = next((lab.root / "runs").glob("*-train-bm25-*"))
    runs = f"run=[{chain['reranked'].path},{chain['run'].path}]"
    told = {}
    for test in ("randomisation", "t"):
        metrics = lab("evaluate", runs, "evaluate.metrics=[ndcg_10,map]", f"evaluate.test={test}").artifact
        told[test] = json.loads((metrics.path / "metrics.json").read_text())["tests"]
        assert [(c["system"], c["baseline"]) for c in told[test]] == [
            (chain["run"].path.name, chain["reranked"].path.name)
        ] * 2
        assert "worse than" in (metrics.path / "table.txt").read_text()
    assert [c["p"] for c in told["randomisation"]] != [c["p"] for c in told["t"]]
    with pytest.raises(DataError, match="none of the run's 20 queries is judged"):
        lab("evaluate", f"run={bm25}", "split=test", "evaluate.metrics=[map]")


def test_run_dir_and_name_say_where_and_how(lab, fresh_lab):
    with pytest.raises(ConfigError, match="try: name=my_model"):
        lab("init", "name='my model'")
    model = fresh_lab("init", "name=my-model").artifact
    assert model.path.name.startswith("my-model-start-")
    placed = fresh_lab("init", f"run_dir={fresh_lab.root / 'here'}", "seed=1").artifact
    assert placed.path == fresh_lab.root / "here"
