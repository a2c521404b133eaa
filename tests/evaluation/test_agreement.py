"""Our metrics beside those of ir-measures and trec_eval: runs with ties, gaps and grades, and the public runs."""

from pathlib import Path

import ir_measures
import numpy as np
import pytest
import pytrec_eval
from ir_measures import AP, RR, P, R, Success, nDCG

from colbert_lab.evaluation.metrics import evaluate
from colbert_lab.evaluation.qrels import read_qrels
from colbert_lab.run import Run, rank, read_trec

COLLECTIONS = Path(__file__).parents[2].parent / "shared" / "collections"
MEASURES = {
    "ndcg_10": lambda level: nDCG @ 10,
    "mrr_10": lambda level: RR(rel=level) @ 10,
    "recall_100": lambda level: R(rel=level) @ 100,
    "map": lambda level: AP(rel=level),
    "precision_10": lambda level: P(rel=level) @ 10,
    "success_5": lambda level: Success(rel=level) @ 5,
}
# The same for trec_eval; mrr_10 is not among its measures, and is checked by ir-measures.
TREC_EVAL = {
    "ndcg_10": ("ndcg_cut.10", "ndcg_cut_10"),
    "ndcg_100": ("ndcg_cut.100", "ndcg_cut_100"),
    "mrr_100": ("recip_rank", "recip_rank"),
    "recall_10": ("recall.10", "recall_10"),
    "recall_100": ("recall.100", "recall_100"),
    "precision_10": ("P.10", "P_10"),
    "success_5": ("success.5", "success_5"),
    "map": ("map", "map"),
}


def judgements(rng, grades):
    """25 queries of 40 documents: some negative grades; the first query has an irrelevant document only."""
    judged = {
        f"q{i}": {f"d{d}": int(grade) for d, grade in zip(rng.permutation(200)[:40], rng.integers(-1, grades + 1, 40))}
        for i in range(25)
    }
    return {"q0": {"d1": 0}} | {query: of | {"d0": grades} for query, of in judged.items() if query != "q0"}


def run_with_ties(rng):
    """Scores of few values; every fifth query has no results, others a few or more than there are cut-offs."""
    found = {}
    for i in range(25):
        if i % 5 != 4:
            ids = [f"d{d}" for d in rng.permutation(200)[: rng.integers(1, 150)]]
            found[f"q{i}"] = rank(ids, rng.integers(-4, 4, len(ids)).astype(float), "trec_eval")
    return Run(found, 1000)


@pytest.mark.parametrize(("grades", "level"), [(1, 1), (3, 1), (3, 2)])
def test_ir_measures_agrees(grades, level):
    for seed in range(3):
        rng = np.random.default_rng([grades, level, seed])
        qrels, run = judgements(rng, grades), run_with_ties(rng)
        found = evaluate(run, qrels, list(MEASURES), level)
        assert found.counts["without_results"] == 5
        assert found.counts["without_positives"] == 1
        # Judged without a positive: we leave the query out, ir-measures would count it 0.
        judged = {query: qrels[query] for query in found.queries}
        # Tools that are given scores break ties their own way; given our order, all must agree.
        ours = {query: {d: -float(i) for i, d in enumerate(hits.ids)} for query, hits in run.items()}
        measures = {of(level): name for name, of in MEASURES.items()}
        for told in (ours, {query: dict(hits) for query, hits in run.items()}):
            values = {(m.query_id, measures[m.measure]): m.value for m in ir_measures.iter_calc(measures, judged, told)}
            for name in MEASURES:
                if told is not ours and name == "mrr_10":
                    continue
                expected = [values.get((query, name), 0.0) for query in found.queries]
                np.testing.assert_allclose(found.per_query[name], expected, atol=1e-6, err_msg=name)
        means = ir_measures.calc_aggregate(measures, judged, ours)
        for measure, name in measures.items():
            assert found.means[name] == pytest.approx(means[measure], abs=1e-6)


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("collection", ["msmarco-dl19", "msmarco-v2-dl21"])
def test_every_public_run_scores_what_trec_eval_says(collection, level):
    root = COLLECTIONS / collection
    if not root.is_dir():
        pytest.skip(f"needs the collection {root}")
    runs = sorted(root.glob("runs/*.trec.gz"))
    assert len(runs) >= 3
    for file in root.glob("qrels/*.tsv"):
        qrels = read_qrels(file)
        judge = pytrec_eval.RelevanceEvaluator(
            {query: dict(judged) for query, judged in qrels.items()},
            {theirs for theirs, _ in TREC_EVAL.values()},
            relevance_level=level,
        )
        for path in runs:
            run = read_trec(path, "trec_eval")
            found = evaluate(run, qrels, list(TREC_EVAL), level)
            scores = judge.evaluate({query: dict(hits) for query, hits in run.items()})
            assert len(found.queries) > 40
            for name, (_, key) in TREC_EVAL.items():
                expected = [scores[query][key] for query in found.queries]
                np.testing.assert_allclose(found.per_query[name], expected, atol=1e-6, err_msg=f"{path.name} {name}")


def test_no_run_is_left_out():
    if not COLLECTIONS.is_dir():
        pytest.skip(f"needs the collections in {COLLECTIONS}")
    having = {runs.parent.name for runs in COLLECTIONS.glob("*/runs")}
    assert having == {"msmarco-dl19", "msmarco-v2-dl21"}
