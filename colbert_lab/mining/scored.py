"""Scoring many pairs with one teacher.

    scores, facts = score_candidates(pairs, teacher, cache)

A teacher that is a model scores each distinct pair of texts once ever; the rest is read from the cache. Which pairs go
through the model together depends on the whole list and on what was known before, never on where an earlier attempt
was killed: begun again, scoring gives the same bytes.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from colbert_lab.errors import DataError
from colbert_lab.mining.pairs import DistinctPairs, Pairs
from colbert_lab.mining.score_cache import ScoreCache, pair_keys
from colbert_lab.mining.teacher import Teacher, Unscored
from colbert_lab.progress import Progress

# Pairs that an instant teacher is asked for at once, and those of the last one's query.
_ASKED = 2**16
# Parts of what is to be scored -> for each, in their order, its scores and how many of the model's inputs were cut.
Ask = Callable[[Iterable[Pairs]], Iterator[tuple[np.ndarray, int]]]


def score_candidates(
    pairs: Pairs,
    teacher: Teacher,
    cache: ScoreCache | None,
    chunk: int = 4096,
    bar: Progress | None = None,
    ask: Ask | None = None,
) -> tuple[np.ndarray, dict[str, int]]:
    """Score pairs in whatever order they come: float32 [P], and how many distinct ones were scored, and were cached.

    The distinct pairs are put in the order of their lengths, longest first, and cut into chunks; what is not known of
    a chunk is scored and committed to the cache (None: kept nowhere) before the next. "repeated" counts pairs of
    texts that came up again, "cut" what the teacher had to cut. An instant teacher is asked for the list as it is, some
    queries at a time, and the cache is left alone. The texts of a chunk are in memory at once; a pair takes 36 bytes,
    and a score of the cache 20. `ask` asks it instead of this process, in others for example: for `scoring` of each
    chunk, in their order. DataError where a teacher gives anything but a number for every pair.
    """
    if teacher.instant:
        return _as_they_come(pairs, teacher, bar)
    # Read first: what that takes for a while is free again when the pairs are sorted.
    known = None if cache is None else cache.known()
    distinct = DistinctPairs(pairs)
    scores = np.empty(len(distinct), dtype=np.float32)
    facts = {"scored": 0, "cached": 0, "repeated": len(pairs) - len(distinct), "cut": 0}
    _advance(bar, facts["repeated"])
    # Of chunks that are asked for: the numbers of their pairs, and their keys.
    asked: deque[tuple[np.ndarray, np.ndarray | None]] = deque()

    def unknown() -> Iterator[Pairs]:
        for start in range(0, len(distinct), chunk):
            part = distinct[start : start + chunk]
            new, keys = np.arange(len(part)), None
            if cache is not None:
                keys = pair_keys(teacher.key, part.queries, part.documents)
                scores[start : start + chunk], found = known.lookup(keys)
                new = new[~found]
                keys = keys[new]
                facts["cached"] += len(part) - len(new)
                _advance(bar, len(part) - len(new))
            if len(new):
                asked.append((start + new, keys))
                yield part if len(new) == len(part) else part.select(new)

    for given, cut in scoring(teacher, unknown(), bar) if ask is None else ask(unknown()):
        numbers, keys = asked.popleft()
        scores[numbers] = given
        facts["scored"] += len(numbers)
        facts["cut"] += cut
        if ask is not None:
            _advance(bar, len(numbers))
        if cache is not None:
            cache.add(keys, given)
    # Or what is known would be in memory beside the scores of all pairs.
    known = None
    return distinct.of_all(scores), facts


def scoring(teacher: Teacher, parts: Iterable[Pairs], bar: Progress | None = None) -> Iterator[tuple[np.ndarray, int]]:
    """For some pairs after others the teacher's scores float32 [P], and how many of its inputs were cut."""
    return (_asked(teacher, part, bar) for part in parts)


def _as_they_come(pairs: Pairs, teacher: Teacher, bar: Progress | None) -> tuple[np.ndarray, dict[str, int]]:
    """An instant teacher's scores; Unscored, of all pairs, where a file lacks some."""
    scores, cut = np.empty(len(pairs), dtype=np.float32), 0
    lacking: list[Unscored] = []
    for some in pairs.blocks(_ASKED):
        try:
            scores[some], more = _asked(teacher, pairs.select(some), bar)
            cut += more
        except Unscored as error:
            lacking.append(error)
    if lacking:
        raise Unscored(sum(error.missing for error in lacking), len(pairs), lacking[0].first)
    return scores, {"scored": len(pairs), "cached": 0, "repeated": 0, "cut": cut}


def _asked(teacher: Teacher, pairs: Pairs, bar: Progress | None) -> tuple[np.ndarray, int]:
    scores, cut = teacher.score(pairs, bar)
    if scores.shape != (len(pairs),) or not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores)).sum())
        raise DataError(f"the teacher gave {len(scores)} scores, {bad} of them not finite, for {len(pairs)} pairs")
    return scores.astype(np.float32, copy=False), cut


def _advance(bar: Progress | None, count: int) -> None:
    if bar is not None:
        bar.advance(count)
