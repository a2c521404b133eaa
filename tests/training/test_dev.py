"""Judging by candidates brings in nothing from outside of them; the best weights are whole whenever a run is killed."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.evaluation.metrics import evaluate
from colbert_lab.models.cross_encoder import score_pairs
from colbert_lab.run import Hits, Run, rank
from colbert_lab.training.dev import DevCandidates, keep_weights, recover


@pytest.fixture
def run(collection):
    """For each dev query 15 documents of the corpus, others for each; the last query has none and is not in it."""
    ids = collection.corpus.all_ids()
    queries = sorted(collection.qrels("dev"))[:-1]
    return Run(
        {q: Hits(tuple(ids[(7 * n + i) % 60] for i in range(15)), -np.arange(15.0)) for n, q in enumerate(queries)}
    )


def test_no_document_from_outside_the_run_is_ranked(collection, run, tiny_cross_encoder):
    qrels = collection.qrels("dev")
    dev = DevCandidates.draw(collection, qrels, run, 100, 12, seed=0)
    assert list(dev.qrels) == sorted(qrels)
    found = dev.rerank(tiny_cross_encoder, "fp32")
    assert found.keys() == run.keys()
    for query, hits in found.items():
        assert set(hits.ids) == set(run[query].ids[:12])
        texts = collection.queries.get([query]) * 12, collection.corpus.get(run[query].ids[:12])
        scores, _ = score_pairs(tiny_cross_encoder, *texts, "fp32")
        # Scored alone, a query's pairs may be padded otherwise than among all.
        assert hits.scores == pytest.approx(rank(run[query].ids[:12], scores).scores, abs=1e-5)
    relevant = {(q, d) for q, judged in qrels.items() for d, grade in judged.items() if grade > 0}
    candidates = {(q, d) for q, hits in run.items() for d in hits.ids[:12]}
    assert dev.unfound == len(relevant - candidates)
    assert 0 < dev.unfound < len(relevant)


def test_what_the_run_did_not_bring_lowers_the_figures(collection, run, tiny_cross_encoder):
    qrels = collection.qrels("dev")
    dev = DevCandidates.draw(collection, qrels, run, 100, 12, seed=0)
    figures = dev.judge(tiny_cross_encoder, "fp32").means
    found = dev.rerank(tiny_cross_encoder, "fp32")
    # A query that is not in the run counts as 0 and is not left out of the mean.
    per_query = evaluate(found, {q: qrels[q] for q in found}, ("ndcg_10",)).means["ndcg_10"]
    assert figures["ndcg_10"] == pytest.approx(per_query * len(run) / len(qrels))
    assert figures.keys() == {"ndcg_10", "mrr_10"}, "50 results of 12 cannot be looked at"
    assert DevCandidates.draw(collection, qrels, run, 5, 50, seed=0).judge(tiny_cross_encoder, "fp32").means.keys() == {
        "ndcg_10",
        "mrr_10",
        "recall_50",
    }


def test_candidates_are_seeded_and_bounded(collection, run):
    qrels = collection.qrels("dev")

    def draw(seed, queries=4, k=10, run=run):
        return DevCandidates.draw(collection, qrels, run, queries, k, seed)

    assert draw(0) == draw(0)
    assert len(draw(0).qrels) == 4
    assert len({tuple(draw(seed).qrels) for seed in range(4)}) > 1
    assert {len(hits) for hits in draw(0).run.values()} == {10}
    with pytest.raises(ConfigError, match="k=9"):
        draw(0, k=9)
    with pytest.raises(DataError, match="none of the 4 dev queries"):
        draw(0, run=Run({"another": run[next(iter(run))]}))


class Killed(BaseException):
    pass


@pytest.fixture
def killed_after(monkeypatch):
    """killed_after(n): n more changes to the file system happen; the next is left half done, and nothing follows."""
    left = [10**9]

    def changing(real, half):
        def change(path, *args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                half(Path(path))
                raise Killed
            return real(path, *args, **kwargs)

        return change

    def half_removed(path):
        for file in list(path.iterdir())[:1]:
            file.unlink()

    remove = changing(shutil.rmtree, half_removed)
    monkeypatch.setattr("shutil.rmtree", lambda path, **kwargs: path.exists() and remove(path, **kwargs))
    for name, half in {"rename": Path.exists, "mkdir": Path.exists, "write_text": Path.touch}.items():
        monkeypatch.setattr(Path, name, changing(getattr(Path, name), half))
    return lambda n: left.__setitem__(0, n)


def exporting(what):
    def export(directory):
        for name in ("weights", "record"):
            directory.joinpath(name).write_text(what)

    return export


def content(directory):
    """What was kept in a directory: every file says it, and there are two."""
    files = [file.read_text() for file in directory.iterdir()]
    assert len(files) == 2
    (what,) = set(files)
    return what


@pytest.mark.parametrize("first", [True, False])
def test_a_kill_at_any_moment_leaves_the_old_weights_or_the_new(tmp_path, killed_after, first):
    outcomes = []
    for moment in range(20):
        killed_after(10**9)
        best = tmp_path / str(moment) / "best"
        best.parent.mkdir()
        if not first:
            keep_weights(exporting("old"), best)
        killed_after(moment)
        try:
            keep_weights(exporting("new"), best)
            whole = True
        except Killed:
            whole = False
        killed_after(10**9)
        # Going on without recovering puts other weights in place as well.
        shutil.copytree(best.parent, best.parent / "copy")
        keep_weights(exporting("newer"), best.parent / "copy" / "best")
        assert [file.name for file in (best.parent / "copy").iterdir()] == ["best"]
        assert content(best.parent / "copy" / "best") == "newer"
        shutil.rmtree(best.parent / "copy")
        # Recovering can be killed as well.
        for again in range(10):
            killed_after(again)
            try:
                recover(best)
                break
            except Killed:
                continue
        killed_after(10**9)
        outcomes.append(content(best) if best.exists() else None)
        assert [file.name for file in best.parent.iterdir()] == (["best"] if best.exists() else [])
        keep_weights(exporting("newer"), best)
        assert content(best) == "newer"
        if whole:
            break
    assert whole, "20 moments were too few"
    before = outcomes.index("new")
    assert outcomes == [None if first else "old"] * before + ["new"] * (len(outcomes) - before)
    # Making the directory, two files, and giving it the name of what is whole; with old weights, moving these away.
    assert before == (4 if first else 5)
