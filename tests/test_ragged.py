"""Ragged: what goes in comes out, whichever way it is cut, ordered, padded or joined."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_lab.ragged import Ragged

LENGTHS = st.lists(st.integers(0, 4), min_size=1, max_size=6)


def sequences(lengths, dim=3):
    values = torch.arange(1, sum(lengths) * dim + 1, dtype=torch.float32).view(-1, dim)
    return list(values.split(lengths))


def same(ragged, expected):
    return len(ragged) == len(expected) and all(torch.equal(one, other) for one, other in zip(ragged, expected))


@settings(max_examples=80, deadline=None)
@given(LENGTHS, st.data())
def test_round_trips(lengths, data):
    given_ = sequences(lengths)
    ragged = Ragged.from_list(given_)
    assert same(ragged, given_)
    assert ragged.dim == 3
    assert ragged.offsets.tolist() == [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    padded, mask = ragged.pad()
    assert padded.shape == (len(lengths), max(lengths), 3)
    assert mask.sum(1).tolist() == lengths
    assert (padded[~mask] == 0).all()
    assert same(Ragged.from_padded(padded, mask), given_)
    rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=8))
    assert same(ragged.select(rows), [given_[r] for r in rows])
    start, stop = (data.draw(st.none() | st.integers(-8, 8)) for _ in range(2))
    assert same(ragged[start:stop], given_[start:stop])
    row = data.draw(st.integers(-len(lengths), len(lengths) - 1))
    assert torch.equal(ragged[row], given_[row])
    cut = data.draw(st.integers(0, len(lengths)))
    assert same(Ragged.cat([ragged[:cut], ragged[cut:]]), given_)


def test_a_slice_shares_its_values_and_a_selection_does_not():
    ragged = Ragged.from_list(sequences([2, 0, 3]))
    ragged[1:].values[0] = -1
    assert (ragged[2][0] == -1).all()
    ragged.select([2]).values[0] = -2
    assert (ragged[2][0] == -1).all()


def test_other_dtypes():
    ragged = Ragged.from_list(sequences([2, 1])).to(dtype=torch.bfloat16)
    assert ragged.values.dtype == torch.bfloat16
    assert ragged.lengths.tolist() == [2, 1]
    assert ragged.pad()[0].dtype == torch.bfloat16


def test_no_sequences_at_all():
    none = Ragged.from_list(sequences([2, 1])).select([])
    assert len(none) == 0
    assert none.pad()[0].shape == (0, 0, 3)
    assert list(none) == []


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="lengths sum to 3, but there are 2 rows"):
        Ragged(torch.zeros(2, 4), torch.tensor([1, 2]))
    with pytest.raises(ValueError, match=r"values must be \[T, d\]"):
        Ragged(torch.zeros(2), torch.tensor([2]))
    ragged = Ragged.from_list(sequences([2, 1]))
    for row in (2, -3):
        with pytest.raises(IndexError, match=f"{row} of 2"):
            ragged[row]
    with pytest.raises(ValueError, match="step 1"):
        ragged[::2]
