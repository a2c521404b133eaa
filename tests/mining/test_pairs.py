"""Pairs by row: the same ids and texts as were given, and every pair of texts once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_lab.errors import DataError
from colbert_lab.mining.pairs import DistinctPairs, Pairs

QUERIES = {"q0": "river", "q1": "a stone bridge", "q2": "river", "q3": ""}
DOCUMENTS = {"d0": "x", "d1": "the river", "d2": "x", "d3": "", "d4": "the bridge of stone"}


@pytest.fixture(scope="module")
def collection(pairs_of):
    return pairs_of([], QUERIES, DOCUMENTS).collection


GROUPS = st.lists(st.tuples(st.sampled_from(list(QUERIES)), st.lists(st.sampled_from(list(DOCUMENTS)), max_size=6)))


@given(groups=GROUPS, block=st.sampled_from([1, 2, 5, 1000]))
@settings(max_examples=50, deadline=None)
def test_they_are_the_ids_and_texts_that_were_given(collection, groups, block):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("colbert_lab.mining.pairs._BLOCK", block)
        pairs = Pairs.of(collection, groups)
    ids = [(query, document) for query, documents in groups for document in documents]
    assert list(zip(pairs.query_ids, pairs.document_ids)) == ids
    assert list(zip(pairs.queries, pairs.documents)) == [(QUERIES[q], DOCUMENTS[d]) for q, d in ids]
    assert pairs.query_rows.dtype == pairs.document_rows.dtype == np.int32
    some = [i for i in range(len(ids)) if i % 3]
    assert pairs.select(some).document_ids == [ids[i][1] for i in some]
    parts = [range(len(ids))[part] for part in pairs.blocks(block)]
    assert [number for part in parts for number in part] == list(range(len(ids)))
    for part in parts[:-1]:
        assert len(part) >= block
        assert ids[part.stop][0] != ids[part.stop - 1][0], "a query's pairs stay together"
        assert part.stop - part.start == block or ids[part.stop - 1][0] == ids[part.stop - 2][0], "and no more"


@given(groups=GROUPS, block=st.sampled_from([1, 2, 5, 1000]))
@settings(max_examples=50, deadline=None)
def test_every_pair_of_texts_once_longest_first(collection, groups, block):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("colbert_lab.mining.pairs._BLOCK", block)
        pairs = Pairs.of(collection, groups)
        distinct = DistinctPairs(pairs)
        numbered = distinct.of_all(np.arange(len(distinct)))
    there = distinct[:]
    texts = list(zip(there.queries, there.documents))
    assert len(texts) == len(distinct) == len(set(texts))
    assert [texts[number] for number in numbered] == list(zip(pairs.queries, pairs.documents))
    lengths = [len(query) + len(document) for query, document in texts]
    assert lengths == sorted(lengths, reverse=True)
    half = distinct[1:3]
    assert list(zip(half.queries, half.documents)) == texts[1:3]


def test_lengths_that_two_bytes_do_not_hold(pairs_of):
    documents = {"a": "x" * 5, "b": "y" * 70_000, "c": "z" * 65_541}
    distinct = DistinctPairs(pairs_of([("q", d) for d in "abc"], {"q": "?"}, documents))
    assert distinct[:].document_ids == ["b", "c", "a"]


def test_unknown_ids_and_rows_that_do_not_match_are_told(collection):
    with pytest.raises(DataError, match="'nowhere' is no id in the corpus"):
        Pairs.of(collection, [("q0", ["d0"]), ("q1", ["d1", "nowhere", "d2", "neither"])])
    with pytest.raises(DataError, match="'nobody' is no id in the queries"):
        Pairs.of(collection, [("nobody", ["d0"])])
    with pytest.raises(DataError, match="there are 2 queries and 1 documents"):
        Pairs(collection, np.zeros(2, dtype=np.int32), np.zeros(1, dtype=np.int32))
