"""Ragged: the one container of token embeddings, N sequences of different lengths laid end to end.

Padding exists only inside a kernel; everything that is stored, sliced or passed on is a Ragged.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ragged:
    """Values [T, d] of N sequences end to end, and their lengths [N] (int64, sum T; a length may be 0)."""

    values: Tensor
    lengths: Tensor

    def __post_init__(self):
        if self.values.dim() != 2 or self.lengths.dim() != 1:
            raise ValueError(f"values must be [T, d] and lengths [N], got {self.values.shape} and {self.lengths.shape}")
        if int(self.lengths.sum()) != self.values.shape[0]:
            raise ValueError(f"lengths sum to {int(self.lengths.sum())}, but there are {self.values.shape[0]} rows")

    @classmethod
    def from_list(cls, sequences: Sequence[Tensor]) -> "Ragged":
        """N tensors [n_i, d], at least one of them, as one Ragged."""
        lengths = torch.tensor([len(s) for s in sequences], dtype=torch.int64)
        return cls(torch.cat(list(sequences)), lengths)

    @classmethod
    def from_padded(cls, padded: Tensor, mask: Tensor) -> "Ragged":
        """Keep the rows of padded [N, n, d] where mask [N, n] is True."""
        return cls(padded[mask], mask.sum(1).to(torch.int64).cpu())

    @classmethod
    def cat(cls, parts: Sequence["Ragged"]) -> "Ragged":
        """The sequences of all parts, in order."""
        return cls(torch.cat([p.values for p in parts]), torch.cat([p.lengths for p in parts]))

    @property
    def dim(self) -> int:
        """d, the dimension of one vector."""
        return self.values.shape[1]

    @property
    def offsets(self) -> Tensor:
        """[N + 1] int64: sequence i is values[offsets[i]:offsets[i + 1]]."""
        return torch.cat([self.lengths.new_zeros(1), self.lengths.cumsum(0)])

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.values.split(self.lengths.tolist()))

    def __getitem__(self, rows: int | slice) -> "Tensor | Ragged":
        """One sequence [n_i, d] for an int (a view); a contiguous slice of sequences as a Ragged (views)."""
        offsets = self.offsets
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step != 1:
                raise ValueError("a Ragged is sliced with step 1; use select() for other orders")
            stop = max(start, stop)
            return Ragged(self.values[int(offsets[start]) : int(offsets[stop])], self.lengths[start:stop])
        if not -len(self) <= rows < len(self):
            raise IndexError(f"sequence {rows} of {len(self)}")
        rows %= len(self)
        return self.values[int(offsets[rows]) : int(offsets[rows + 1])]

    def select(self, rows: Sequence[int] | Tensor) -> "Ragged":
        """The sequences with these numbers, in this order; a number may repeat."""
        rows = torch.as_tensor(rows, dtype=torch.int64)
        lengths = self.lengths[rows]
        starts = self.offsets[rows]
        within = torch.arange(int(lengths.sum())) - (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
        return Ragged(self.values[starts.repeat_interleave(lengths) + within], lengths)

    def pad(self) -> tuple[Tensor, Tensor]:
        """[N, n, d] with zeros after each sequence, and the mask [N, n], True where a vector is; n is the longest."""
        longest = int(self.lengths.max()) if len(self) else 0
        mask = torch.arange(longest)[None, :] < self.lengths[:, None]
        mask = mask.to(self.values.device)
        padded = self.values.new_zeros(len(self), longest, self.dim)
        padded[mask] = self.values
        return padded, mask

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Ragged":
        """The same sequences with values on another device or in another dtype; lengths stay on the CPU."""
        return Ragged(self.values.to(device=device, dtype=dtype), self.lengths)
