"""An ensemble of teachers: scales, weights, and what cannot be one."""

from itertools import pairwise
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.mining import ensemble
from colbert_lab.mining.ensemble import combine


def test_an_ensemble_by_hand():
    first, second = np.float32([1, 3, 5, 7, 7]), np.float32([4, 2, 0, 5, 9])
    offsets = [0, 3, 3, 5]
    # Query 0: (0, .5, 1) and (1, .5, 0); query 1 has none; query 2: equal scores are 0, and (0, 1). Weights 3 and 1.
    expected = [0.25, 0.5, 0.75, 0, 0.25]
    assert combine([first, second], offsets, "min_max", [3, 1]).tolist() == expected
    # Query 0: mean 3, deviation sqrt(8/3): (-a, 0, a) and (a, 0, -a) with a = sqrt(3/2); query 2: 0 and (-1, 1).
    a = 1.5**0.5
    expected = [-a / 2, 0, a / 2, -0.25, 0.25]
    assert combine([first, second], offsets, "z_score", [3, 1]) == pytest.approx(expected, abs=1e-6)
    assert combine([first, second], offsets).tolist() == [2.5, 2.5, 2.5, 6, 8]
    # In doubles 0.1 + 0.1 + 0.1 is not 3 * 0.1, so the deviation of these is not 0.
    assert combine([np.full(3, 0.1)], [0, 3], "z_score").tolist() == [0, 0, 0]
    assert combine([first], offsets, "none", [0.3]).tobytes() == first.tobytes()


@given(
    lengths=st.lists(st.integers(0, 5), max_size=6),
    normalise=st.sampled_from(["none", "z_score", "min_max"]),
    weights=st.lists(st.floats(0.1, 10), min_size=1, max_size=3),
    seed=st.integers(0, 2**32 - 1),
    block=st.sampled_from([1, 4, 2**20]),
)
@settings(max_examples=80, deadline=None)
def test_an_ensemble_is_as_query_by_query(lengths, normalise, weights, seed, block):
    offsets = np.cumsum([0, *lengths])
    rng = np.random.default_rng(seed)
    # Of few values, so that equal scores come up; 0.1 has no exact mean.
    scores = [rng.integers(0, 3, offsets[-1]).astype(np.float32) * np.float32(0.1) for _ in weights]
    expected = []
    for start, end in pairwise(offsets.tolist()):
        total = np.zeros(end - start)
        for part, weight in zip(scores, weights):
            own = part[start:end].astype(np.float64)
            if normalise != "none" and len(own):
                if own.min() == own.max():
                    own = np.zeros(len(own))
                elif normalise == "z_score":
                    own = (own - own.mean()) / own.std()
                else:
                    own = (own - own.min()) / (own.max() - own.min())
            total += weight * own
        expected += (total / sum(weights)).tolist()
    with patch.object(ensemble, "_BLOCK", block):
        assert combine(scores, offsets, normalise, weights) == pytest.approx(expected, abs=1e-6)


def test_an_ensemble_that_cannot_be():
    one = np.float32([1, 2])
    with pytest.raises(ConfigError, match=r"2 problems(.|\n)*normalise is 'rank'(.|\n)*for each of 1 teachers"):
        combine([one], [0, 2], "rank", [1, 1])
    for weights in ([0.0], [-1.0], [float("nan")], [float("inf")]):
        with pytest.raises(ConfigError, match="weights"):
            combine([one], [0, 2], "none", weights)
    for offsets in ([0, 1], [0, 3], [1, 2], [0, 2, 1, 2], []):
        with pytest.raises(DataError, match="pairs"):
            combine([one], offsets)
    with pytest.raises(DataError, match="not a finite number"):
        combine([one, np.float32([1, np.inf])], [0, 2])
    with pytest.raises(ConfigError, match="0 teachers"):
        combine([], [0, 0])
