"""How well centroids still suit an index that was changed: what came after they were trained, and how far off it lies.

Added vectors are filed under, and compressed against, centroids that never saw them. Of the same kind as those trained
on they lie as far from them, and lose as much; of another kind they lie farther, and a search finds them less surely.
"""

from typing import Any

# Centroids are stale where vectors added since lie so many times as far from them, and are so great a share.
_DISTANCE, _SHARE = 1.15, 0.5


def staleness(trained: int, added: int, distance: float, added_distance: float) -> dict[str, Any]:
    """Facts for an index of `trained` vectors that its centroids come from or were there for, and `added` later ones.

    Given are their distances from the centroids. `added_share` is the later ones' share of all, `added_distance` their
    distance as a multiple of the others' (1 where none was added, None where the others have none and they have some);
    `note` says in words where both are high.
    """
    share, ratio = added / max(1, trained + added), 1.0
    if added and distance > 0:
        ratio = added_distance / distance
    elif added and added_distance > 0:
        ratio = None
    found: dict[str, Any] = {"added_share": share, "added_distance": ratio}
    if (ratio is None or ratio > _DISTANCE) and share > _SHARE:
        far = "lie off them, on which the others lie" if ratio is None else f"lie {ratio:.2f} times as far from them"
        found["note"] = (
            f"{added:,} of {trained + added:,} vectors came after the centroids were trained and {far}; "
            "build the index again to search it as well as before"
        )
    return found
