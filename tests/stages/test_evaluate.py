"""evaluate: judgements in files, in and out; and the table of queries, in which a person looks for what went wrong."""

import gzip
import json

import pytest

from colbert_lab.artifact import Artifact
from colbert_lab.errors import ConfigError, DataError
from colbert_lab.evaluation.qrels import read_qrels
from colbert_lab.run import read_trec
from colbert_lab.stages.per_query import EXPLAINED, NAME
from colbert_lab.tracking.read import read_table, summary


def systems(metrics: Artifact) -> dict:
    return json.loads((metrics.path / "metrics.json").read_text())["systems"]


def trec(file, rows) -> str:
    text = "".join(f"{query} 0 {document} {grade}\n" for query, document, grade in rows)
    (gzip.open if file.suffix == ".gz" else open)(file, "wt").write(text)
    return f"qrels={file}"


def test_judgements_of_a_file_take_the_place_of_the_splits(lab, chain, tmp_path):
    """Two queries, each with the document that the run has at rank 2: MRR@10 is 1/2, whatever the split says."""
    run = read_trec(chain["run"].path / "run.trec.gz")
    some = [(query, run[query].ids[1], 1) for query in ("q30", "q31")]
    given = trec(tmp_path / "mine.txt.gz", [*some, ("q31", "nowhere", 1)])
    options = [f"run={chain['run'].path}", "evaluate.metrics=[mrr_10,recall_10]"]
    made = lab("evaluate", *options, given).artifact
    (found,) = systems(made).values()
    # q31 has another relevant document, which is not in the corpus and stays in recall: (1 + 1/2) / 2.
    assert found["means"] == {"mrr_10": 0.5, "recall_10": 0.75}
    text = (made.path / "table.txt").read_text()
    assert "mine, 2 queries" in text
    assert "1 judged documents are not in the corpus" in text
    assert read_qrels(made.path / "qrels.trec.gz") == {"q30": {some[0][1]: 1}, "q31": {some[1][1]: 1, "nowhere": 1}}
    # Other judgements under the same name are another artifact.
    again = lab("evaluate", *options, trec(tmp_path / "mine.txt.gz", some)).artifact
    assert again.digest != made.digest
    assert next(iter(systems(again).values()))["means"]["recall_10"] == 1


def test_what_a_split_was_judged_by_judges_the_same_anywhere(lab, chain, tmp_path):
    written = chain["metrics"].path / "qrels.trec.gz"
    again = lab("evaluate", f"run={chain['run'].path}", f"qrels={written}").artifact
    assert systems(again) == systems(chain["metrics"])
    # A TREC file and TREC judgements need no collection.
    run = chain["run"].path / "run.trec.gz"
    alone = lab("evaluate", f"run={run}", f"qrels={written}", "evaluate.metrics=[ndcg_10]").artifact
    assert "collection" not in alone.manifest["inputs"]
    (found,), (expected,) = systems(alone).values(), systems(chain["metrics"]).values()
    assert found["means"]["ndcg_10"] == expected["means"]["ndcg_10"]
    assert "text" not in read_table(alone.path / "log", NAME)[0]


def test_of_several_runs_the_last_is_the_headline(lab, chain):
    """What is logged is what is returned; dev's figures are not called as the test split's are."""
    two = [str(chain["run"].path), str(chain["reranked"].path)]
    for first, last in (two, two[::-1]):
        done = lab("evaluate", f"run=[{first},{last}]", "evaluate.metrics=[mrr_10,recall_10]")
        told = json.loads((done.artifact.path / "metrics.json").read_text())
        assert list(told["systems"])[-1] == told["headline"]
        logged, means = summary(done.artifact.path / "log"), told["systems"][told["headline"]]["means"]
        assert done.figures == means
        assert done.objective == means["mrr_10"] == logged["objective"] == logged["eval/toy0_mrr_10"]
    index = f"index_dir={chain['index'].path}"
    dev = lab("evaluate", f"run={lab('search', index, 'split=dev').artifact.path}", "evaluate.metrics=[mrr_10]")
    assert {"eval/toy0_dev_mrr_10", "objective"} <= summary(dev.artifact.path / "log").keys()
    assert "eval/toy0_mrr_10" not in summary(dev.artifact.path / "log")


def test_mistakes_in_judgements_name_file_and_line(lab, chain, tmp_path):
    run = f"run={chain['run'].path}"
    file = tmp_path / "bad.txt"
    for line, told in (("q30 0 d1-0\n", "4 columns"), ("q30 0 d1-0 high\n", "'high' is not an integer")):
        file.write_text(f"q30 0 d0-0 1\n{line}")
        with pytest.raises(DataError, match=rf"bad\.txt:2: .*{told}"):
            lab("evaluate", run, f"qrels={file}")
    with pytest.raises(DataError, match="does not exist"):
        lab("evaluate", run, f"qrels={tmp_path / 'gone.txt'}")
    with pytest.raises(ConfigError, match="split=test would change nothing"):
        lab("evaluate", run, f"qrels={file}", "split=test")
    with pytest.raises(DataError, match="none of the run's 10 queries is judged"):
        lab("evaluate", run, trec(file, [("elsewhere", "d0-0", 1)]))


def test_the_table_of_queries_tells_what_was_asked_found_and_matched(lab, chain):
    rows = read_table(chain["metrics"].path / "log", NAME)
    run = read_trec(chain["run"].path / "run.trec.gz")
    assert len(rows) == 10 < EXPLAINED
    for row in rows:
        assert list(row)[:3] == ["system", "query", "text"]
        assert row["text"].startswith("who wrote of a ")
        assert row["top_1"] == run[row["query"]].ids[0]
        assert len(row["best_tokens"].split(", ")) == 3
        assert " → " in row["best_tokens"]
    per_query = [json.loads(line) for line in (chain["metrics"].path / "per_query.jsonl").read_text().splitlines()]
    assert [{key: row[key] for key in per_query[0]} for row in rows] == per_query
    events = (chain["metrics"].path / "log" / "metrics.jsonl").read_text()
    assert '"by": "ndcg_10"' in events


def test_long_documents_bound_how_many_are_explained(lab, chain, monkeypatch):
    """The worst come first; where not one is affordable the column stays, empty."""
    texts = [row["best_tokens"] for row in read_table(chain["metrics"].path / "log", NAME)]
    for words, told in ((40, lambda n: 0 < n < len(texts)), (0, lambda n: n == 0)):
        monkeypatch.setattr("colbert_lab.stages.per_query.EXPLAINED_WORDS", words)
        options = [f"run={chain['run'].path}", f"name=w{words}", f"seed={words + 1}"]
        rows = read_table(lab("evaluate", *options).artifact.path / "log", NAME)
        assert told(sum(row["best_tokens"] is not None for row in rows))


def test_tokens_are_left_out_of_systems_without_a_model(lab, chain):
    bm25 = next((lab.root / "runs").glob("*-train-bm25-*"))
    alone = lab("evaluate", f"run={bm25}", "split=train", "evaluate.metrics=[ndcg_10]").artifact
    assert "best_tokens" not in read_table(alone.path / "log", NAME)[0]
