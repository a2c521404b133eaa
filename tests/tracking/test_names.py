"""Metric names out of what people call their collections: always sortable, and two names stay two."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colbert_lab.tracking.names import check_names, leaf, leaves


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("scifact", "scifact"),
        ("2wikimqa", "_2wikimqa"),
        ("cqadupstack/english", "cqadupstack_english"),
        ("dl19-passage v1.0", "dl19_passage_v1_0"),
        ("ndcg@10", "ndcg_10"),
        ("", "_"),
        # Six digits of SHA-256 of what was written, composed: the accent alone tells it from "ete".
        ("\u00e9t\u00e9", f"ete_{hashlib.sha256('été'.encode()).hexdigest()[:6]}"),
        ("e\u0301te\u0301", f"ete_{hashlib.sha256('été'.encode()).hexdigest()[:6]}"),
    ],
)
def test_a_name_as_a_leaf(text, found):
    assert leaf(text) == found


@given(st.text(max_size=20))
def test_every_name_becomes_a_leaf_and_a_leaf_stays(text):
    check_names([f"eval/{leaf(text)}_ndcg_10", f"val/{leaf(text)}"])
    assert leaf(leaf(text)) == leaf(text)


@given(st.lists(st.text(alphabet="a1-._é文", max_size=4), unique=True, max_size=12))
def test_names_of_one_run_never_share_a_leaf(names):
    found = leaves(names)
    assert list(found) == names
    assert len(set(found.values())) == len(names)
    check_names(found.values())


def test_a_leaf_is_not_renamed_for_what_resembles_it():
    found = leaves(["a-b", "a_b", "a.b", "c-d"])
    assert (found["a_b"], found["c-d"]) == ("a_b", "c_d")
    assert leaves(["a.b", "a-b"])["a-b"] == found["a-b"], "in whatever company and order"
    # Letters of another alphabet are lost, so that nothing but the digest tells these apart.
    assert leaf("数据") != leaf("文本")
