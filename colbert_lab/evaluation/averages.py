"""Averages that carry the name of their list: 49.98 over BEIR-13 and 51.71 over BEIR-13 + LoCo are different questions.

A mean over only some members of a list is not that list's average, and is called what it is: "9 of BEIR-13".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# The thirteen sets of BEIR that can be had without a licence, less MS MARCO and CQADupStack; NanoBEIR's thirteen have
# MS MARCO in the place of TREC-COVID.
BEIR_13 = (
    *("arguana", "climate-fever", "dbpedia-entity", "fever", "fiqa", "hotpotqa", "nfcorpus", "nq", "quora", "scidocs"),
    *("scifact", "trec-covid", "webis-touche2020"),
)
LISTS: dict[str, tuple[str, ...]] = {
    "BEIR-13": BEIR_13,
    "BEIR-13 + LoCo": (*BEIR_13, "loco"),
    "Nano-13": tuple(
        sorted(f"nano-{name}" for name in ("msmarco", *(name for name in BEIR_13 if name != "trec-covid")))
    ),
}


@dataclass(frozen=True)
class Average:
    """The mean over `members` of the list `name`, which lacks `missing` of its own and has `beyond` that are not."""

    name: str
    value: float
    members: tuple[str, ...]
    missing: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The list's name where it is whole, else how many of it these are; and what else is in the mean."""
        own = len(self.members) - len(self.beyond)
        label = f"{own} of {self.name}" if self.missing else self.name
        return " + ".join((label, *self.beyond))


def average(name: str, values: Mapping[str, float], members: Sequence[str] | None = None) -> Average | None:
    """The mean of the values of `members`, by default those of LISTS; None where not one has a value.

    A name of LISTS is that list's, whatever `members` are: what these lack of it is missing, what they have besides is
    beyond it.
    """
    wanted = tuple(LISTS[name] if members is None else members)
    listed = LISTS.get(name, wanted)
    there = tuple(member for member in wanted if member in values)
    if not there:
        return None
    missing = tuple(member for member in listed if member not in there)
    beyond = tuple(member for member in there if member not in listed)
    return Average(name, sum(values[member] for member in there) / len(there), there, missing, beyond)
