"""Differences of two runs: which queries, in which order, with which documents."""

import json

import pytest

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.evaluation.differences import SHOWN_DOCUMENTS, difference_of, differences, differences_text
from colbert_lab.evaluation.metrics import evaluate
from colbert_lab.run import Run, rank

QRELS = {
    "q1": {"r": 1, "z": 0},
    "q2": {"r": 2, "gone": 1},
    "q3": {"r": 1},
    "q4": {"r": 1},
    "q5": {"r": 1},
    "q0": {"r": 1},
}


def run(**results: str) -> Run:
    """Query -> its documents, one letter each, best first."""
    return Run({query: rank(list(ids), [float(-i) for i in range(len(ids))]) for query, ids in results.items()}, 10)


A = run(q0="xr", q1="xyr", q2="r", q3="xr", q4="r", q5="xr")
B = run(q0="rx", q1="rxy", q2="xyzr", q3="rx", q4="r")


def text(document: str) -> str | None:
    return None if document == "gone" else f"text of {document} " + "long " * 100


def given(a=A, b=B, metrics=("mrr_10",)):
    return a, b, evaluate(a, QRELS, metrics), evaluate(b, QRELS, metrics), "mrr_10", QRELS, lambda q: f"ask {q}", text


def test_the_order_is_by_difference_and_then_by_id():
    found = differences(*given(), names=("old", "new"))
    # mrr: q1 1/3 -> 1; q0 and q3 1/2 -> 1, by id; q4 stays at 1
    assert [(one.query, round(one.difference, 4)) for one in found.gained] == [
        ("q1", 0.6667),
        ("q0", 0.5),
        ("q3", 0.5),
    ]
    # q2 1 -> 1/4; q5 1/2 -> no results
    assert [(one.query, one.difference) for one in found.lost] == [("q2", -0.75), ("q5", -0.5)]
    assert found.counts == {"gained": 3, "lost": 2, "same": 1}
    short = differences(*given(), n=1)
    assert [one.query for one in (*short.gained, *short.lost)] == ["q1", "q2"]
    assert short.counts == found.counts


def test_documents_have_ranks_grades_and_the_first_300_characters():
    lost = differences(*given()).lost[0]
    placed = {d.id: (d.grade, d.rank_a, d.rank_b) for d in lost.documents}
    tops = {"x": (None, None, 1), "y": (None, None, 2), "z": (None, None, 3)}
    assert placed == {"r": (2, 1, 4), "gone": (1, None, None), **tops}
    texts = {d.id: d.text for d in lost.documents}
    assert texts["gone"] is None
    assert len(texts["r"]) == 300
    assert lost.text == "ask q2"


def test_many_positives_leave_room_for_tops_and_are_counted():
    qrels = {"q": {f"p{i:02}": 1 for i in range(20)}}
    a = Run({"q": rank(["w", *qrels["q"]], [-float(i) for i in range(21)])}, 30)
    b = Run({"q": rank([*qrels["q"], "v"], [-float(i) for i in range(21)])}, 30)
    evaluations = [evaluate(one, qrels, ["mrr_10"]) for one in (a, b)]
    found = differences(a, b, *evaluations, "mrr_10", qrels, str, str)
    shown = [d.id for d in found.gained[0].documents]
    assert len(shown) == SHOWN_DOCUMENTS
    assert ("w" in shown, "v" in shown) == (True, False)  # v is at rank 21
    assert found.gained[0].positives == 20
    assert "11 more of 20 relevant documents are not shown" in differences_text(found)


def test_json_and_text():
    found = differences(*given(), names=("old", "new"))
    found.gained[0].explanations.setdefault("a", {})["r"] = {"score": 1.0}
    told = json.loads(json.dumps(found.to_json()))
    assert told["gained"][0].keys() >= {"query", "text", "a", "b", "difference", "documents", "explanations"}
    assert told["gained"][0]["explanations"] == {"a": {"r": {"score": 1.0}}}
    assert told["lost"][0]["documents"][0].keys() == {"id", "title_or_text", "grade", "rank_a", "rank_b"}
    shown = differences_text(found)
    assert "3 queries gained, 2 lost, 1 the same" in shown
    assert "-0.7500  1.0000 -> 0.2500  q2  ask q2" in shown
    assert "(not in the corpus)" in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_one_query_whichever_way_it_went():
    assert difference_of("q4", *given()).difference == 0.0
    with pytest.raises(DataError, match="no judged relevant document"):
        difference_of("q9", *given())


def test_what_cannot_be_compared_is_refused():
    a, b, first, second, _, *rest = given()
    with pytest.raises(ConfigError, match="did you mean mrr_10"):
        differences(a, b, first, second, "mrr_1", *rest)
    other = evaluate(b, {"q1": {"r": 1}}, ["mrr_10"])
    with pytest.raises(DataError, match="6 and 1"):
        differences(a, b, first, other, "mrr_10", *rest)
