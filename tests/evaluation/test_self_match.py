"""A query that is a document of the collection does not count as its own result."""

from colbert_lab.evaluation.metrics import evaluate
from colbert_lab.evaluation.self_match import without_self
from colbert_lab.run import Run, rank


def test_planted_self_match_changes_nothing():
    k, qrels = 3, {"q": {"a": 2, "b": 1}, "r": {"c": 1}}
    scores = {"q": {"x": 4.0, "a": 3.0, "b": 2.0, "y": 1.0}, "r": {"b": 4.0, "a": 3.0, "c": 2.0, "y": 1.0}}
    clean = Run({query: rank(list(s), list(s.values())) for query, s in scores.items()}).cut(k)
    scores["q"]["q"] = 9.0
    planted = Run({query: rank(list(s), list(s.values())) for query, s in scores.items()}).cut(k + 1)
    kept, dropped = without_self(planted)
    assert dropped == 1
    assert kept.depth == k
    assert kept == clean
    names = ["ndcg_3", "recall_3"]
    assert evaluate(kept.cut(k), qrels, names).means == evaluate(clean, qrels, names).means


def test_without_self_matches_the_run_is_as_it_was():
    run = Run({"q": rank(["a", "b"], [2, 1])}, 10)
    kept, dropped = without_self(run)
    assert (kept, kept.depth, dropped) == (run, 10, 0)
