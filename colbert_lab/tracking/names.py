"""Metric names: sections joined by '/', then a leaf that every dashboard can sort and filter by."""

import re
from collections.abc import Iterable

_LEAF = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")
_SECTION = re.compile(r"[_a-zA-Z0-9][-_.a-zA-Z0-9]*")
# Keys of a line in metrics.jsonl that no metric may take.
RESERVED = frozenset({"time", "axis", "step", "event"})


def check_names(names: Iterable[str]) -> None:
    """Raise ValueError for the first name that is no metric name: `val/ndcg_10` is one, `ndcg@10` is not."""
    for name in names:
        *sections, leaf = name.split("/")
        if not _LEAF.fullmatch(leaf):
            raise ValueError(
                f"metric name {name!r}: {leaf!r} may have letters, digits and _ only, and not begin with a digit; "
                f"try {'/'.join([*sections, re.sub(r'[^_a-zA-Z0-9]', '_', leaf) or 'value'])!r}"
            )
        if not all(_SECTION.fullmatch(section) for section in sections):
            raise ValueError(f"metric name {name!r}: its sections must be words joined by single slashes")
        if name in RESERVED:
            raise ValueError(f"metric name {name!r} is taken by the log itself; put it into a section: 'train/{name}'")
