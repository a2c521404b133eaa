"""Metrics: values by hand, agreement with trec_eval, published figures, and what is counted or refused."""

import math
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.evaluation.metrics import evaluate, parse_metrics
from colbert_lab.evaluation.qrels import read_qrels
from colbert_lab.run import Hits, Run, rank, read_trec

COLLECTIONS = Path(__file__).parents[2].parent / "shared" / "collections"
# Our names, and what trec_eval calls the same.
THEIRS = {
    "ndcg_10": ("ndcg_cut.10", "ndcg_cut_10"),
    "recall_20": ("recall.20", "recall_20"),
    "precision_5": ("P.5", "P_5"),
    "success_5": ("success.5", "success_5"),
    "map": ("map", "map"),
    "map_15": ("map_cut.15", "map_cut_15"),
}


def ranking(*ids, depth=1000):
    return Run({"q": Hits(ids, -np.arange(len(ids), dtype=float))}, depth)


def random_judgements(rng, queries=30, documents=60, grades=(-2, 3)):
    return {
        f"q{i}": {f"d{d}": int(rng.integers(grades[0], grades[1] + 1)) for d in rng.permutation(documents)[:25]}
        for i in range(queries)
    }


def random_run(rng, queries=30, documents=60):
    """Scores with many ties; some queries are missing, some have few results, some are not judged."""
    found = {}
    for i in range(0, queries + 3):
        if i % 7 == 3:
            continue
        ids = [f"d{d}" for d in rng.permutation(documents)[: rng.integers(0, documents)]]
        found[f"q{i}"] = rank(ids, rng.integers(-3, 3, len(ids)).astype(float), "trec_eval")
    return Run(found, documents)


def by_trec_eval(run, qrels, names, level=1):
    judge = pytrec_eval.RelevanceEvaluator(
        {q: dict(j) for q, j in qrels.items()}, {THEIRS[name][0] for name in names}, relevance_level=level
    )
    scores = judge.evaluate({query: dict(hits) for query, hits in run.items()})
    return lambda query, name: scores.get(query, {}).get(THEIRS[name][1], 0.0)


def reciprocal_rank(run, qrels, query, k, level):
    for position, document in enumerate(run[query].ids[:k] if query in run else (), 1):
        if qrels[query].get(document, 0) >= level:
            return 1 / position
    return 0.0


def test_perfect_and_empty():
    names = ["ndcg_10", "mrr_10", "recall_100", "success_5", "map", "precision_2"]
    qrels = {"q": {"a": 3, "b": 1, "c": 0}}
    assert evaluate(ranking("a", "b", "c"), qrels, names).means == dict.fromkeys(names, 1.0)
    for empty in (Run({}), ranking(), Run({"q": Hits((), np.empty(0))})):
        assert evaluate(empty, qrels, names).means == dict.fromkeys(names, 0.0)


def test_one_relevant_at_rank_3():
    found = evaluate(ranking("x", "y", "a", "z"), {"q": {"a": 1}}, ["mrr_10", "mrr_2", "ndcg_10", "map", "success_2"])
    assert found.means == pytest.approx({"mrr_10": 1 / 3, "mrr_2": 0, "ndcg_10": 0.5, "map": 1 / 3, "success_2": 0})


def test_graded_ndcg_by_hand():
    qrels = {"q": {"a": 3, "b": 2, "c": 1, "d": -1, "e": 0}}
    gained = 1 / math.log2(2) + 3 / math.log2(4) + 2 / math.log2(6)
    ideal = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
    found = evaluate(ranking("c", "d", "a", "e", "b"), qrels, ["ndcg_10", "ndcg_2"]).means
    assert found["ndcg_10"] == pytest.approx(gained / ideal, abs=1e-12)
    assert found["ndcg_2"] == pytest.approx(1 / (3 + 2 / math.log2(3)), abs=1e-12)


def test_relevance_level_moves_the_binary_metrics_only():
    qrels = {"q": {"a": 1, "b": 2}, "r": {"a": 1}}
    run = Run({q: Hits(("a", "b"), np.array([2.0, 1.0])) for q in "qr"}, 10)
    one, two = (evaluate(run, qrels, ["mrr_10", "recall_10", "ndcg_10"], level) for level in (1, 2))
    assert one.per_query["mrr_10"].tolist() == [1, 1]
    assert two.per_query["mrr_10"].tolist() == [0.5, 0]
    assert two.per_query["recall_10"].tolist() == [1, 0]
    assert two.per_query["ndcg_10"].tolist() == one.per_query["ndcg_10"].tolist()
    assert (one.counts["below_level"], two.counts["below_level"]) == (0, 1)


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("grades", [(0, 1), (-2, 3)])
def test_agrees_with_trec_eval(level, grades):
    names = list(THEIRS)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        qrels, run = random_judgements(rng, grades=grades), random_run(rng)
        if grades == (0, 1) and level == 2:
            qrels["q0"]["d0"] = 2
        found = evaluate(run, qrels, [*names, "mrr_10"], level)
        theirs = by_trec_eval(run, qrels, names, level)
        for name in names:
            expected = [theirs(query, name) for query in found.queries]
            np.testing.assert_allclose(found.per_query[name], expected, atol=1e-9)
        expected = [reciprocal_rank(run, qrels, query, 10, level) for query in found.queries]
        np.testing.assert_allclose(found.per_query["mrr_10"], expected, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 600), st.integers(1, 8))
def test_properties(seed, queries, k):
    rng = np.random.default_rng(seed)
    qrels = random_judgements(rng, queries, documents=8)
    qrels["always"] = {"d0": 1}
    run = random_run(rng, queries, documents=8)
    names = [f"{family}_{k}" for family in ("ndcg", "mrr", "recall", "success", "precision", "map")]
    found = evaluate(run, qrels, names)
    for values in found.per_query.values():
        assert len(values) == len(found.queries)
        assert ((values >= 0) & (values <= 1)).all()
    success = found.per_query[f"success_{k}"]
    assert (found.per_query[f"mrr_{k}"] <= success).all()
    assert ((found.per_query[f"ndcg_{k}"] > 0) == (success > 0)).all()
    # Adding what is not relevant behind the cut-off, and judging in another order, changes nothing.
    more = Run({q: Hits((*h.ids, "new"), np.zeros(len(h) + 1)) for q, h in run.items() if len(h) >= k}, run.depth)
    more = Run({**run, **more}, run.depth)
    again = evaluate(more, {q: dict(reversed(j.items())) for q, j in qrels.items()}, names)
    for name in names:
        np.testing.assert_array_equal(again.per_query[name], found.per_query[name])


@pytest.mark.parametrize(
    ("collection", "split", "run", "ndcg", "ties_matter"),
    [
        ("msmarco-dl19", "test_full", "bm25", 0.5058, False),
        ("msmarco-dl19", "test_full", "bm25_rm3", 0.5216, False),
        ("msmarco-dl19", "test_full", "d_bert_kd_tasb", 0.7210, False),
        ("msmarco-dl19", "test_full", "open_ai_ada2", 0.7035, False),
        ("msmarco-dl19", "test_full", "splade_p_p_ensemble_distil", 0.7308, False),
        ("msmarco-dl19", "test_full", "rep_llama", 0.7439, True),
        ("msmarco-v2-dl21", "train_full", "bm25", 0.4458, False),
        ("msmarco-v2-dl21", "train_full", "bm25_rm3", 0.4455, False),
        ("msmarco-v2-dl21", "train_full", "splade_p_p_ensemble_distil", 0.6839, True),
    ],
)
def test_public_runs_score_their_published_figures(collection, split, run, ndcg, ties_matter):
    root = COLLECTIONS / collection
    if not root.is_dir():
        pytest.skip(f"needs the collection {root}")
    qrels = read_qrels(root / "qrels" / f"{split}.tsv")
    path = root / "runs" / f"{run}.top100.trec.gz"
    published = [
        round(evaluate(read_trec(path, ties), qrels, ["ndcg_10"]).means["ndcg_10"], 4) == ndcg
        for ties in ("file", "id", "trec_eval")
    ]
    assert published[0]
    assert all(published) is not ties_matter


def test_counts_and_denominator():
    qrels = {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1}, "none": {"x": 0}, "bad": {"x": -1}, "nothing": {}}
    hits = Hits(("x",), np.array([1.0]))
    run = Run({"a": hits, "b": Hits((), np.empty(0)), "none": hits, "other": hits}, 10)
    found = evaluate(run, qrels, ["mrr_10"])
    assert found.queries == ("a", "b", "c")
    assert found.means == {"mrr_10": 1 / 3}
    assert found.counts == {
        "judged": 3,
        "without_positives": 3,
        "below_level": 0,
        "without_results": 2,
        "unjudged_in_run": 1,
    }
    assert found.rows()[0] == {"query": "a", "mrr_10": 1.0}


def test_many_queries_equal_each_alone():
    rng = np.random.default_rng(1)
    qrels, run = random_judgements(rng, 700), random_run(rng, 700)
    together = evaluate(run, qrels, ["ndcg_10", "map"])
    for i in range(0, len(together.queries), 97):
        query = together.queries[i]
        alone = evaluate(Run({q: run[q] for q in [query] if q in run}, 60), {query: qrels[query]}, ["ndcg_10", "map"])
        for name, values in alone.per_query.items():
            assert values[0] == pytest.approx(together.per_query[name][i], abs=1e-15)


def test_refuses_a_cut_off_beyond_the_depth():
    qrels = {"q": {"a": 1}}
    with pytest.raises(ConfigError, match=r"recall_100 looks at 100 .* holds 20: search with k=100"):
        evaluate(ranking("a", depth=20), qrels, ["ndcg_10", "recall_100"])
    assert evaluate(ranking("a", depth=20), qrels, ["recall_100"], collection_size=20).means == {"recall_100": 1.0}
    with pytest.raises(ConfigError, match="looks at 30"):
        evaluate(ranking("a", depth=20), qrels, ["recall_100"], collection_size=30)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ndcg@10", "ndcg_10"),
        ("NDCG", "ndcg_10"),
        ("recal_100", "recall_100"),
        ("hit_rate@5", "success_5"),
        ("P_5", "precision_5"),
        ("mrr_0", "mrr_10"),
        ("maps", "mean map"),
        ("bleu", "any cut-off"),
        ("", "any cut-off"),
    ],
)
def test_unknown_metrics_come_with_a_suggestion(name, said):
    with pytest.raises(ConfigError, match=said):
        parse_metrics(["mrr_10", name])


def test_all_problems_are_told_together():
    with pytest.raises(ConfigError, match="2 problems"):
        parse_metrics(["foo", "recall"])
    with pytest.raises(ConfigError, match="list of names"):
        parse_metrics("mrr_10")
    with pytest.raises(ConfigError, match="no metric is asked for"):
        parse_metrics([])
    with pytest.raises(ConfigError, match="2 problems"):
        evaluate(ranking("a", depth=5), {"q": {"a": 1}}, ["mrr_10"], relevance_level=0)
    assert [m.k for m in parse_metrics(["map", "map_1000", "map"])] == [None, 1000]


@pytest.mark.parametrize(
    ("run", "qrels", "said"),
    [
        (ranking("a"), {"q": {"a": 0.5}}, "grade 0.5 is no integer"),
        (ranking("a", "a"), {"q": {"a": 1}}, "appears twice"),
        (ranking("a"), {"q": {"a": 0}}, "none of the 1 queries in the judgements has a positive"),
        (ranking("a"), {}, "none of the 0 queries"),
        (ranking("a"), {"7": {"a": 1}}, "'q' for example, the judgements have '7'"),
    ],
)
def test_refuses_unusable_data(run, qrels, said):
    with pytest.raises(DataError, match=said):
        evaluate(run, qrels, ["mrr_10"])
