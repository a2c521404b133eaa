"""Whether two systems differ by more than chance over the same queries: a paired test, and Holm's correction.

A system can be several training runs of one recipe that differ in their seed. Its values per query are then averaged
over them, and what one seed would score more than another on all queries alike is a second source of chance: over the
queries alone, recipes that are the same are told apart as often as their seeds differ.

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
# Averages over seeds of equal values differ in their last bits.
_TIE = 1e-12
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


@dataclass(frozen=True)
class Estimate:
    """A system's mean over queries (and seeds) with its 95 % interval [low, high].

    deviation: the standard deviation of its seeds' means (n - 1), None where it has only one.
    """

    mean: float
    low: float
    high: float
    deviation: float | None
    seeds: int


def paired(
    a: np.ndarray, b: np.ndarray, test: Test = "randomisation", seed: int = 0, resamples: int = 100_000
) -> PairedTest:
    """Test values a, [B] or of several seeds [S, B], against b of the same B queries, in the same order.

    `randomisation` flips the signs of the differences at random (Fisher's test; recommended by Smucker, Allan &
    Carterette, CIKM 2007), or in all ways where these are no more than `resamples`; its interval is made of the
    bootstrap's percentiles. `t` is Student's paired test with its interval; it needs two queries.

    The null with one seed on either side: each query could as well have had the two systems' values exchanged. It
    speaks of these two models. With several: over queries and seeds, the two recipes have the same mean. The
    distribution over queries, of the values averaged over seeds, is then widened by draws of the error of the seeds'
    mean, Student's t of S - 1 degrees for each side (Behrens and Fisher's way to add two unknown variances; it rejects
    rather too rarely than too often, Robinson 1976). Its size is the variance between the seeds' means beyond what
    their values scatter query by query; a side of one seed is taken as it is. The number of seeds need not be the same.

    wins, ties and losses are of the averages. Raises DataError for values that do not pair or are not finite,
    ConfigError for an unknown test or no resamples.
    """
    if test not in get_args(Test):
        raise ConfigError(f"test is {test!r}, it can be {' or '.join(get_args(Test))}", "the comparison")
    _check_resamples(resamples)
    a, b = _by_seed(a), _by_seed(b)
    difference = _differences(a, b)
    fewer = min(resamples, _BOOTSTRAP)
    # One draw for each resample of the test, and of the interval; 0 where no side has seeds that differ.
    noise, spread = (
        sum(_seed_noise(side, np.random.default_rng([seed, stream, i]), n) for i, side in enumerate((a, b)))
        for stream, n in ((2, resamples), (3, fewer))
    )
    if test == "t":
        p, low, high = _student(difference, noise, np.random.default_rng([seed, 4]))
    else:
        p = _randomisation(difference, np.random.default_rng([seed, 0]), resamples, noise)
        low, high = _bootstrap(difference, np.random.default_rng([seed, 1]), fewer, spread)
    return PairedTest(
        p=p,
        mean_difference=float(difference.mean()),
        low=low,
        high=high,
        wins=int((difference > _TIE).sum()),
        ties=int((np.abs(difference) <= _TIE).sum()),
        losses=int((difference < -_TIE).sum()),
        test=test,
    )


def estimate(values: np.ndarray, seed: int = 0, resamples: int = _BOOTSTRAP) -> Estimate:
    """The mean of values, [B] or of several seeds [S, B], with the interval of the bootstrap over queries.

    Several seeds widen it as they do in `paired`: it is where the mean of the recipe lies, over queries and seeds.
    DataError for no or not finite values, ConfigError for no resamples.
    """
    _check_resamples(resamples)
    by_seed = _by_seed(values)
    average = _differences(by_seed, np.zeros_like(by_seed))
    noise = _seed_noise(by_seed, np.random.default_rng([seed, 3]), resamples)
    low, high = _bootstrap(average, np.random.default_rng([seed, 1]), resamples, noise)
    seeds = len(by_seed)
    deviation = float(by_seed.mean(axis=1).std(ddof=1)) if seeds > 1 else None
    return Estimate(float(average.mean()), low, high, deviation, seeds)


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


def _check_resamples(resamples: int) -> None:
    if resamples < 1:
        raise ConfigError(f"resamples is {resamples}, it must be at least 1", "the comparison")


def _by_seed(values: np.ndarray) -> np.ndarray:
    """Values as [S, B]."""
    values = np.asarray(values, dtype=np.float64)
    return values[None] if values.ndim == 1 else values


def _differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[B]: a minus b, each averaged over its seeds."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or 0 in a.shape + b.shape:
        raise DataError(
            "a paired test needs two lists of values for the same queries, or one list a seed, "
            f"got {a.shape} and {b.shape} (seeds, queries)"
        )
    difference = a.mean(axis=0) - b.mean(axis=0)
    if not np.isfinite(difference).all():
        raise DataError(f"the values of query number {int((~np.isfinite(difference)).argmax())} are not finite")
    return difference


def _seed_noise(values: np.ndarray, rng: np.random.Generator, draws: int) -> np.ndarray | float:
    """Draws of how far the mean of these seeds [S, B] lies from that of all seeds; 0 where nothing says it does.

    The means of seeds vary also because their values scatter query by query; that much is in the differences between
    queries already, and is taken off (the components of variance of a crossed design).
    """
    seeds, queries = values.shape
    if seeds == 1:
        return 0.0
    means = values.mean(axis=1)
    scatter = values - means[:, None] - values.mean(axis=0) + means.mean()
    within = (scatter**2).sum() / ((seeds - 1) * (queries - 1)) / queries if queries > 1 else 0.0
    beyond = float(means.var(ddof=1) - within)
    # Means of equal values differ in their last bits.
    if beyond <= 1e-24 * float((means**2).mean()):
        return 0.0
    return (beyond / seeds) ** 0.5 * rng.standard_t(seeds - 1, draws)


def _student(difference: np.ndarray, noise: np.ndarray | float, rng: np.random.Generator) -> tuple[float, float, float]:
    n = len(difference)
    if n < 2:
        raise DataError("the t test needs at least two queries")
    mean, error = float(difference.mean()), float(difference.std(ddof=1)) / n**0.5
    if isinstance(noise, np.ndarray):
        chance = np.abs(error * rng.standard_t(n - 1, len(noise)) + noise)
        reach = float(np.quantile(chance, 0.95))
        return (int((chance >= abs(mean)).sum()) + 1) / (len(noise) + 1), mean - reach, mean + reach
    if error == 0:
        return (1.0 if mean == 0 else 0.0), mean, mean
    reach = float(stats.t.ppf(0.975, n - 1)) * error
    return float(2 * stats.t.sf(abs(mean) / error, n - 1)), mean - reach, mean + reach


def _randomisation(
    difference: np.ndarray, rng: np.random.Generator, resamples: int, noise: np.ndarray | float
) -> float:
    """`noise` is added to the mean of each resample; with it no enumeration is exact, and all are random."""
    noise = noise * len(difference)
    difference = difference[difference != 0]  # flipping a zero changes nothing
    n = len(difference)
    observed = abs(float(difference.sum()))
    # Sums of the same numbers in another order differ in their last bits; they must count as equal.
    bound = observed - 1e-12 * float(np.abs(difference).sum())
    total = float(difference.sum())
    exhaustive = n < 63 and 2**n <= resamples and not isinstance(noise, np.ndarray)
    rounds = 2**n if exhaustive else resamples
    extreme = 0
    step = max(1, _CHUNK // max(n, 1))
    for start in range(0, rounds, step):
        count = min(step, rounds - start)
        flips = _all_flips(start, count, n) if exhaustive else _random_flips(rng, count, n)
        shifted = noise[start : start + count] if isinstance(noise, np.ndarray) else noise
        # What is flipped was in the sum and is now taken from it.
        extreme += int((np.abs(total - 2 * (flips @ difference) + shifted) >= bound).sum())
    # The observed signs are one of all flips; of random ones they are counted in addition (Phipson & Smyth 2010).
    return extreme / rounds if exhaustive else (extreme + 1) / (rounds + 1)


def _all_flips(start: int, count: int, n: int) -> np.ndarray:
    """Flips number `start` and following, as rows of 0 and 1 [count, n]: the binary digits of the number."""
    return (np.arange(start, start + count)[:, None] >> np.arange(n) & 1).astype(np.float64)


def _random_flips(rng: np.random.Generator, count: int, n: int) -> np.ndarray:
    """Random rows of 0 and 1 [count, n], eight from a byte."""
    packed = rng.integers(0, 256, size=(count, (n + 7) // 8), dtype=np.uint8)
    return np.unpackbits(packed, axis=1, count=n).astype(np.float64)


def _bootstrap(
    values: np.ndarray, rng: np.random.Generator, resamples: int, noise: np.ndarray | float
) -> tuple[float, float]:
    n = len(values)
    step = max(1, _CHUNK // n)
    means = [
        values[rng.integers(0, n, size=(min(step, resamples - start), n))].mean(axis=1)
        for start in range(0, resamples, step)
    ]
    low, high = np.quantile(np.concatenate(means) + noise, [0.025, 0.975])
    return float(low), float(high)
