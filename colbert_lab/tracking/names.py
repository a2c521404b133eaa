"""Metric names: sections joined by '/', then a leaf that every dashboard can sort and filter by."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

_LEAF = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")
_SECTION = re.compile(r"[_a-zA-Z0-9][-_.a-zA-Z0-9]*")
# Keys of a line in metrics.jsonl that no metric may take.
RESERVED = frozenset({"time", "axis", "step", "event"})


def check_names(names: Iterable[str]) -> None:
    """Raise ValueError for the first name that is no metric name: `val/ndcg_10` is one, `ndcg@10` is not."""
    for name in names:
        *sections, last = name.split("/")
        if not _LEAF.fullmatch(last):
            raise ValueError(
                f"metric name {name!r}: {last!r} may have letters, digits and _ only, and not begin with a digit; "
                f"try {'/'.join([*sections, leaf(last) if last else 'value'])!r}"
            )
        if not all(_SECTION.fullmatch(section) for section in sections):
            raise ValueError(f"metric name {name!r}: its sections must be words joined by single slashes")
        if name in RESERVED:
            raise ValueError(f"metric name {name!r} is taken by the log itself; put it into a section: 'train/{name}'")


def leaf(text: str) -> str:
    """What somebody called a collection, a split or a system, as a metric's leaf or the beginning of one.

    `cqadupstack/english` -> `cqadupstack_english`, `2wikimqa` -> `_2wikimqa`; a leaf stays as it is. Accents are
    dropped and other alphabets become _: so that two such names stay two, six digits of the text's SHA-256 follow.
    Names that differ in punctuation alone (`a-b`, `a.b`) come to one leaf; `leaves` tells those of one run apart, and
    runs of collections so called are told apart by their tags, which have the names as they are.
    """
    text = unicodedata.normalize("NFC", text)
    plain = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    found = "".join(c if c.isascii() and c.isalnum() else "_" for c in plain) or "_"
    found = f"_{found}" if found[0].isdigit() else found
    lost = any(not c.isascii() and (c.isalnum() or unicodedata.combining(c)) for c in text)
    return f"{found}_{_digest(text)}" if lost else found


def leaves(names: Iterable[str]) -> dict[str, str]:
    """Name -> its leaf, no two alike: of those that share one, all but the name that is that leaf get a digest too."""
    found = {name: leaf(name) for name in names}
    shared = Counter(found.values())
    return {name: one if shared[one] == 1 or name == one else f"{one}_{_digest(name)}" for name, one in found.items()}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]
