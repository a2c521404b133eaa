"""Whether two systems differ by more than chance over the same queries: a paired test, and Holm's correction.

Seeded and repeatable bit for bit, which the tests of ranx are not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy import stats

from colbert_lab.errors import ConfigError, DataError

Test = Literal["randomisation", "t"]
# The interval needs fewer resamples than a small p: its ends then vary by a few percent of its width.
_BOOTSTRAP = 10_000
# Elements held at once, whatever the number of queries and resamples.
_CHUNK = 2**21


@dataclass(frozen=True)
class PairedTest:
    """A against B: two-sided p, the mean of a - b with its 95 % interval [low, high], queries won, tied and lost."""

    p: float
    mean_difference: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int
    test: Test


def paired(
    a: np.ndarray, b: np.ndarray, test: Test = "randomisation", seed: int = 0, resamples: int = 100_000
) -> PairedTest:
    """Test values a [B] against b [B] of the same B queries, in the same order.

    `randomisation` flips the signs of the differences at random (Fisher's test; recommended by Smucker, Allan &
    Carterette, CIKM 2007), or in all ways where these are no more than `resamples`; its interval is made of the
    bootstrap's percentiles. `t` is Student's paired test with its interval; it needs two queries and no seed.

    Raises DataError for values that do not pair or are not finite, ConfigError for an unknown test or no resamples.
    """
    if test not in get_args(Test):
        raise ConfigError(f"test is {test!r}, it can be {' or '.join(get_args(Test))}", "the comparison")
    if resamples < 1:
        raise ConfigError(f"resamples is {resamples}, it must be at least 1", "the comparison")
    difference = _differences(a, b)
    if test == "t":
        p, low, high = _student(difference)
    else:
        p = _randomisation(difference, np.random.default_rng([seed, 0]), resamples)
        low, high = _bootstrap(difference, np.random.default_rng([seed, 1]), min(resamples, _BOOTSTRAP))
    return PairedTest(
        p=p,
        mean_difference=float(difference.mean()),
        low=low,
        high=high,
        wins=int((difference > 0).sum()),
        ties=int((difference == 0).sum()),
        losses=int((difference < 0).sum()),
        test=test,
    )


def holm(p_values: Sequence[float]) -> np.ndarray:
    """P-values corrected for being several, in the order given (Holm 1979: the family's error stays below the level).

    DataError for a value outside [0, 1].
    """
    values = np.asarray(p_values, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise DataError(f"p-values lie between 0 and 1: {values.tolist()}")
    order = np.argsort(values, kind="stable")
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)), 1.0)
    return corrected


def _differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) == 0:
        raise DataError(f"a paired test needs two lists of values for the same queries, got {a.shape} and {b.shape}")
    difference = a - b
    if not np.isfinite(difference).all():
        raise DataError(f"the values of query number {int((~np.isfinite(difference)).argmax())} are not finite")
    return difference


def _student(difference: np.ndarray) -> tuple[float, float, float]:
    n = len(difference)
    if n < 2:
        raise DataError("the t test needs at least two queries")
    mean, error = float(difference.mean()), float(difference.std(ddof=1)) / n**0.5
    if error == 0:
        return (1.0 if mean == 0 else 0.0), mean, mean
    reach = float(stats.t.ppf(0.975, n - 1)) * error
    return float(2 * stats.t.sf(abs(mean) / error, n - 1)), mean - reach, mean + reach


def _randomisation(difference: np.ndarray, rng: np.random.Generator, resamples: int) -> float:
    difference = difference[difference != 0]  # flipping a zero changes nothing
    n = len(difference)
    observed = abs(float(difference.sum()))
    # Sums of the same numbers in another order differ in their last bits; they must count as equal.
    bound = observed - 1e-12 * float(np.abs(difference).sum())
    total = float(difference.sum())
    exhaustive = n < 63 and 2**n <= resamples
    rounds = 2**n if exhaustive else resamples
    extreme = 0
    step = max(1, _CHUNK // max(n, 1))
    for start in range(0, rounds, step):
        count = min(step, rounds - start)
        flips = _all_flips(start, count, n) if exhaustive else _random_flips(rng, count, n)
        # What is flipped was in the sum and is now taken from it.
        extreme += int((np.abs(total - 2 * (flips @ difference)) >= bound).sum())
    # The observed signs are one of all flips; of random ones they are counted in addition (Phipson & Smyth 2010).
    return extreme / rounds if exhaustive else (extreme + 1) / (rounds + 1)


def _all_flips(start: int, count: int, n: int) -> np.ndarray:
    """Flips number `start` and following, as rows of 0 and 1 [count, n]: the binary digits of the number."""
    return (np.arange(start, start + count)[:, None] >> np.arange(n) & 1).astype(np.float64)


def _random_flips(rng: np.random.Generator, count: int, n: int) -> np.ndarray:
    """Random rows of 0 and 1 [count, n], eight from a byte."""
    packed = rng.integers(0, 256, size=(count, (n + 7) // 8), dtype=np.uint8)
    return np.unpackbits(packed, axis=1, count=n).astype(np.float64)


def _bootstrap(difference: np.ndarray, rng: np.random.Generator, resamples: int) -> tuple[float, float]:
    n = len(difference)
    step = max(1, _CHUNK // n)
    means = [
        difference[rng.integers(0, n, size=(min(step, resamples - start), n))].mean(axis=1)
        for start in range(0, resamples, step)
    ]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)
