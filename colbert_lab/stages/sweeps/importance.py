"""How much each parameter of a grid mattered: the shares of the variance that are its main effect (ANOVA).

Where every combination is there once the shares are exact: Fisher's sums of squares over their total. Where some are
missing, a parameter's share is what the least-squares fit of all main effects loses without it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from colbert_lab.stages.overrides import shown


def main_effects(params: Sequence[Mapping[str, Any]], values: Sequence[float]) -> tuple[dict[str, float], float]:
    """Parameter -> share of the variance of `values` [N], largest first, and the rest: interactions and noise.

    `params` are N combinations with the same keys. ValueError where the values do not vary at all.
    """
    y = np.asarray(values, dtype=np.float64)
    total = float(((y - y.mean()) ** 2).sum())
    # Equal values differ in their last bits once they were averaged.
    if total <= 1e-20 * max(1.0, float((y**2).sum())):
        raise ValueError("all results are the same")
    columns = {key: _indicators([shown(one[key]) for one in params]) for key in params[0]}
    columns = {key: indicators for key, indicators in columns.items() if indicators.shape[1]}
    full = _left(list(columns.values()), y)
    shares = {
        key: (_left([other for name, other in columns.items() if name != key], y) - full) / total for key in columns
    }
    return dict(sorted(shares.items(), key=lambda entry: -entry[1])), full / total


def is_full_factorial(params: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every combination of the values that occur is there, equally often."""
    found: dict[tuple[str, ...], int] = {}
    for one in params:
        combination = tuple(shown(value) for value in one.values())
        found[combination] = found.get(combination, 0) + 1
    levels = [{shown(one[key]) for one in params} for key in params[0]]
    return len(found) == np.prod([len(level) for level in levels]) and len(set(found.values())) == 1


def _indicators(levels: Sequence[str]) -> np.ndarray:
    """A column of 0 and 1 for every level but the first [N, levels - 1]."""
    names = list(dict.fromkeys(levels))
    return np.array([[float(level == name) for name in names[1:]] for level in levels]).reshape(len(levels), -1)


def _left(columns: Sequence[np.ndarray], y: np.ndarray) -> float:
    """The sum of squares that a least-squares fit with a constant and these columns leaves of y."""
    design = np.concatenate([np.ones((len(y), 1)), *columns], axis=1)
    fitted = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    return float(((y - fitted) ** 2).sum())
