"""The parameters of one search; what is left open is resolved from k at every call anew, and never kept."""

from dataclasses import dataclass, fields, replace

import torch

from colbert_lab.errors import ConfigError
from colbert_lab.processes import cores

# Up to so many vectors, approximating every document costs less than choosing which.
SCANNED = 2**22


@dataclass(frozen=True)
class ResidualProbe:
    """How a residual index is searched; None is resolved by `resolved`.

    cells        centroids whose documents are candidates, for each query vector; 0: all documents are
    threshold    of these, only centroids of at least this score (the best one always counts); None: all
    candidates   documents whose residuals are read, the best by their centroids alone; at least k
    margin       residuals are read of document vectors whose centroid scores at most this much less than the
                 document's best for the query vector; 2: of all, for query vectors of unit norm
    exact        every document decoded and scored, whatever the others say
    threads      that one search uses; for at least as many queries, each takes one
    """

    cells: int | None = None
    threshold: float | None = None
    candidates: int | None = None
    margin: float | None = None
    exact: bool = False
    threads: int | None = None

    def __post_init__(self):
        least = {"cells": 0, "candidates": 1, "margin": 0, "threads": 1}
        wrong = [
            f"{name}={getattr(self, name)}, but it must be at least {bound}\ntry: probe.{name}=null"
            for name, bound in least.items()
            if getattr(self, name) is not None and not getattr(self, name) >= bound
        ]
        if wrong:
            raise ConfigError(wrong, "the probe of a residual index")

    def resolved(self, k: int, vectors: int) -> "ResidualProbe":
        """The same with nothing left open, for k results from an index of so many vectors."""
        defaults = {
            "cells": 0 if vectors <= SCANNED else 8 if k <= 100 else 16,
            "candidates": 200 if k <= 10 else max(2 * k, 400),
            "margin": 0.25,
            "threads": max(1, min(torch.get_num_threads(), cores())),
        }
        resolved = replace(self, **{name: value for name, value in defaults.items() if getattr(self, name) is None})
        if self.exact:
            # What is recorded: the searcher looks at `exact` alone, whatever the documents' and queries' vectors.
            return replace(resolved, cells=0, candidates=max(k, vectors), margin=2.0)
        return replace(resolved, candidates=max(resolved.candidates, k))


def checked(probe: object) -> ResidualProbe:
    """The probe of a call, the default one for None; ConfigError for another index's."""
    if probe is None:
        return ResidualProbe()
    if not isinstance(probe, ResidualProbe):
        names = ", ".join(field.name for field in fields(ResidualProbe))
        raise ConfigError(
            f"a residual index takes a ResidualProbe ({names}), {type(probe).__name__} was given\ntry: probe=residual"
        )
    return probe
