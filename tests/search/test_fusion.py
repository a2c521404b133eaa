"""Reciprocal rank fusion: by hand, against ranx, and what ranx leaves open."""

import json
import subprocess
import sys

import numpy as np
import pytest

from colbert_lab.errors import ConfigError
from colbert_lab.run import Run, rank
from colbert_lab.search.fusion import reciprocal_rank


def run(**hits: list[str]) -> Run:
    """Queries with documents, best first."""
    return Run({query: rank(ids, np.arange(len(ids), 0, -1.0)) for query, ids in hits.items()}, 3)


def test_scores_are_sums_of_reciprocal_ranks():
    fused = reciprocal_rank([run(q=["a", "b", "c"]), run(q=["c", "a"])], k=1)
    # a: 1/(1+1) + 1/(1+2) = 5/6; c: 1/(1+3) + 1/(1+1) = 3/4; b: 1/(1+2) = 1/3
    assert fused["q"].ids == ("a", "c", "b")
    assert fused["q"].scores == pytest.approx([5 / 6, 3 / 4, 1 / 3])


def test_equal_scores_are_ordered_by_id_and_queries_of_one_run_alone_are_kept():
    fused = reciprocal_rank([run(q=["b", "x"], only=["z"]), run(q=["a", "x"])], depth=2)
    # x: 2/62 beats the two firsts, 1/61 each, of which a comes before b.
    assert fused["q"].ids == ("x", "a")
    assert fused["only"].ids == ("z",)
    assert fused.depth == 2
    assert list(fused) == ["q", "only"]


RANX = """
import json, os, sys
os.environ["NUMBA_DISABLE_JIT"] = "1"  # its loops as they are written: compiled they take a minute
from ranx import Run
from ranx.fusion.rrf import rrf
runs = [Run(run) for run in json.load(sys.stdin)]
print(json.dumps({query: dict(found) for query, found in rrf(runs, 60).run.items()}))
"""


def test_it_is_what_ranx_computes():
    rng = np.random.default_rng(0)
    runs = []
    for _ in range(3):
        documents = {f"q{q}": rng.choice(40, 15, replace=False).tolist() for q in range(5)}
        runs.append(run(**{query: [f"d{d}" for d in ids] for query, ids in documents.items()}))
    given = json.dumps([{query: dict(hits) for query, hits in one.items()} for one in runs])
    done = subprocess.run([sys.executable, "-c", RANX], input=given, capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout)
    for query, hits in reciprocal_rank(runs, 60, depth=45).items():
        assert dict(hits) == pytest.approx(theirs[query])


def test_what_cannot_be_fused_is_told():
    with pytest.raises(ConfigError, match="0 runs"):
        reciprocal_rank([])
    with pytest.raises(ConfigError, match="k = -1"):
        reciprocal_rank([run(q=["a"])], k=-1)
