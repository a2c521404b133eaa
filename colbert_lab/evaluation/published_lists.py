"""What others have published of a list of collections: their means over the very members that ours are over.

49.98 / 50.19 / 49.05      BEIR-13, of ColBERTv2, jina-colbert-v1-en, jina-embeddings-v2-base-en
51.7 / 52.6 / 51.6         with LoCo
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from colbert_lab.evaluation.published import Conditions, Published, published


def over_list(name: str, members: Sequence[tuple[str, str]], metric: str, whole: bool = True) -> list[Published]:
    """One figure for every published row that has each of `members`, (collection, split) pairs: the mean over them.

    `whole` says that these are all of the list `name`; then its means that were published as such are there too. What
    the figures of a row have in common is the protocol, their notes are joined.
    """
    rows: dict[tuple[str, str], list[Published]] = {}
    for collection, split in members:
        for figure in published(collection, split):
            if figure.metric == metric:
                rows.setdefault((figure.table, figure.row), []).append(figure)
    wanted = len(set(members))
    found = [
        _mean(name, some)
        for some in rows.values()
        if len(some) == wanted and len({figure.collection for figure in some}) == wanted
    ]
    return [*found, *(figure for figure in published(name) if whole and figure.metric == metric)]


def common(protocols: Sequence[Conditions]) -> Conditions:
    """What several conditions have in common; the number of queries, which is each collection's own, is left out."""
    values: dict[str, Any] = {}
    for field in fields(Conditions):
        some = {getattr(one, field.name) for one in protocols}
        values[field.name] = some.pop() if len(some) == 1 and field.name != "queries" else None
    return Conditions(**values)


def _mean(name: str, figures: Sequence[Published]) -> Published:
    first = figures[0]
    value = sum(figure.value for figure in figures) / len(figures)
    protocol = common([figure.protocol for figure in figures])
    notes = [f"{figure.collection}: {figure.protocol.note}" for figure in figures if figure.protocol.note]
    if notes and protocol.note is None:
        protocol = Conditions(
            **{f.name: getattr(protocol, f.name) for f in fields(protocol)} | {"note": "; ".join(notes)}
        )
    return Published(first.system, name, None, first.metric, value, first.source, protocol, first.table, first.row)
