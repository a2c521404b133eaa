"""Averages by the name of their list; the figures are those of a published table that mixed two of them."""

import pytest

from colbert_lab.evaluation.averages import BEIR_13, LISTS, average

# nDCG@10 by set, in the order of BEIR_13, then LoCo: the published columns of ColBERTv2, jina-colbert-v1-en and
# jina-embeddings-v2-base-en.
COLUMNS = {
    "ColBERTv2": [46.5, 18.1, 45.2, 78.8, 35.4, 67.5, 33.7, 56.1, 85.5, 15.4, 68.9, 72.6, 26.0, 74.3],
    "jina-colbert": [49.4, 19.6, 41.3, 79.5, 36.8, 65.9, 33.8, 54.9, 82.3, 16.9, 70.1, 75.0, 27.0, 83.7],
    "jina-embeddings": [44.0, 23.5, 35.1, 72.3, 41.6, 61.4, 32.5, 60.4, 88.2, 19.9, 66.7, 65.9, 26.2, 85.4],
}


@pytest.mark.parametrize(
    ("column", "beir", "loco"),
    [("ColBERTv2", 49.977, 51.714), ("jina-colbert", 50.192, 52.586), ("jina-embeddings", 49.054, 51.650)],
)
def test_the_lists_give_the_published_averages(column, beir, loco):
    values = dict(zip((*BEIR_13, "loco"), COLUMNS[column], strict=True))
    found = average("BEIR-13", values)
    assert (round(found.value, 3), found.label, found.missing) == (beir, "BEIR-13", ())
    found = average("BEIR-13 + LoCo", values)
    assert (round(found.value, 3), found.label) == (loco, "BEIR-13 + LoCo")


def test_a_part_of_a_list_is_called_a_part():
    found = average("BEIR-13", {"scifact": 0.5, "nq": 0.25, "msmarco": 1.0})
    assert (found.value, found.label, found.members) == (0.375, "2 of BEIR-13", ("nq", "scifact"))
    assert len(found.missing) == 11
    assert average("BEIR-13", {"msmarco": 1.0}) is None


def test_a_list_of_ones_own():
    found = average("mine", {"a": 1.0, "b": 0.0}, ["a", "b"])
    assert (found.value, found.label) == (0.5, "mine")


def test_the_lists_are_as_long_as_their_names_say():
    assert {name: len(members) for name, members in LISTS.items()} == {
        "BEIR-13": 13,
        "BEIR-13 + LoCo": 14,
        "Nano-13": 13,
    }


def test_a_list_with_more_in_it_is_called_so():
    whole = dict.fromkeys(BEIR_13, 0.5)
    found = average("BEIR-13", {**whole, "mine": 1.0}, [*BEIR_13, "mine"])
    assert (found.label, found.missing) == ("BEIR-13 + mine", ())
    assert found.value == pytest.approx(7.5 / 14)
    # A suite that has only some of the list cannot be that list by its own name.
    assert average("BEIR-13", whole, ["nq", "scifact"]).label == "2 of BEIR-13"
