"""Examples from judgements: the window of ranks, what may never be a negative, small corpora, repeatable draws."""

import numpy as np
import pytest

from colbert_lab.data.qrels_examples import QrelsExamples
from colbert_lab.data.texts import hash_text
from colbert_lab.errors import DataError
from colbert_lab.run import Hits, Run


def rng(seed=0):
    return np.random.default_rng(seed)


def run_of(query, *ids):
    return Run({query: Hits(ids, np.arange(len(ids), 0, -1.0))})


@pytest.fixture
def twenty(make):
    """d0..d19, of which d0 and d1 are relevant (grades 2, 1), d2 judged not relevant, d3 the text of d0, d4 empty."""
    documents = {f"d{i}": f"text {i}" for i in range(20)} | {"d3": "text 0", "d4": ""}
    qrels = [("q", "d0", 2), ("q", "d1", 1), ("q", "d2", 0), ("q", "gone", 1)]
    return make(documents, {"q": "?"}, {"train": qrels})


@pytest.fixture
def everything():
    return run_of("q", *(f"d{i}" for i in range(20)))


def drawn(examples, negatives, draws=60):
    generator = rng()
    return {id for _ in range(draws) for id in examples.sample(0, generator, negatives).document_ids[1:]}


def test_ranks_are_inclusive_and_counted_over_the_whole_list(twenty, everything):
    qrels = twenty.qrels("train")
    # Ranks 5..8 are d4 (empty), d5, d6, d7: rank 1 is d0 although it is relevant.
    assert drawn(QrelsExamples(twenty, qrels, everything, ranks=(5, 8)), 1) == {"d5", "d6", "d7"}
    assert drawn(QrelsExamples(twenty, qrels, everything, ranks=(6, 6)), 1) == {"d5"}
    assert drawn(QrelsExamples(twenty, qrels, everything, ranks=(1, 4)), 1) == {"d2"}


@pytest.mark.parametrize("negatives", ["bm25", "random"])
def test_never_relevant_never_its_copy_never_empty(twenty, everything, negatives):
    examples = QrelsExamples(twenty, twenty.qrels("train"), everything, negatives=negatives, ranks=(1, 20))
    assert drawn(examples, 7) == {"d2", *(f"d{i}" for i in range(5, 20))}
    example = examples.sample(0, rng(), 16)
    assert len(set(example.document_ids)) == 17
    assert example.document_ids[0] in ("d0", "d1")
    assert example.documents == tuple(twenty.corpus.get(example.document_ids))
    assert example.known_positives == {"d0", "d1", "gone"}
    assert example.known_texts == {hash_text("text 0"), hash_text("text 1")}


def test_grades_below_min_grade_are_neither_positive_nor_negative(twenty):
    examples = QrelsExamples(twenty, twenty.qrels("train"), negatives="random", min_grade=2)
    assert {examples.sample(0, rng(i), 16).document_ids[0] for i in range(20)} == {"d0"}
    assert "d1" not in drawn(examples, 16, draws=5)


def test_positives_can_be_those_that_the_run_has_near_its_top(twenty):
    qrels = twenty.qrels("train")
    found = run_of("q", "d5", "d1", "d6", "d0")
    first = {depth: QrelsExamples(twenty, qrels, found, ranks=(1, 4), positive_depth=depth) for depth in (2, 3, 4)}
    drawn_first = {
        depth: {examples.sample(0, rng(i), 1).document_ids[0] for i in range(20)} for depth, examples in first.items()
    }
    assert drawn_first == {2: {"d1"}, 3: {"d1"}, 4: {"d0", "d1"}}
    assert "d0" not in drawn(first[2], 2), "a positive that is not drawn is no negative either"
    assert first[2].describe()["left_out"]["positives_not_found"] == 1
    assert len({examples.fingerprint for examples in first.values()}) == 3
    with pytest.raises(DataError, match="'no_positive_found': 1"):
        QrelsExamples(twenty, qrels, found, ranks=(1, 4), positive_depth=1)
    with pytest.raises(DataError, match="positive_depth=3 is a rank"):
        QrelsExamples(twenty, qrels, negatives="random", positive_depth=3)


def test_a_sample_depends_on_index_and_generator_alone(twenty, everything):
    first, second = (QrelsExamples(twenty, twenty.qrels("train"), everything, ranks=(1, 20)) for _ in range(2))
    assert first.fingerprint == second.fingerprint
    second.sample(0, rng(5), 3)
    assert first.sample(0, rng(1), 4) == second.sample(0, rng(1), 4)
    assert len({first.sample(0, rng(i), 4).document_ids for i in range(8)}) > 1
    other = QrelsExamples(twenty, twenty.qrels("train"), everything, ranks=(2, 20))
    assert other.fingerprint != first.fingerprint


def test_a_window_too_small_is_topped_up_and_counted(twenty, everything):
    examples = QrelsExamples(twenty, twenty.qrels("train"), everything, ranks=(18, 100))
    assert examples.shortfall(3) == 0
    assert examples.shortfall(4) == 1
    assert {"d17", "d18", "d19"} < set(examples.sample(0, rng(), 5).document_ids)
    assert examples.describe()["window"] == [3, 3, 3]
    assert QrelsExamples(twenty, twenty.qrels("train"), Run({})).describe()["not_in_run"] == 1


def test_a_large_corpus_is_sampled_without_listing_it(make):
    made = make({f"d{i}": f"text {i % 2500}" for i in range(5000)}, {"q": "?"}, {"train": [("q", "d3", 1)]})
    examples = QrelsExamples(made, made.qrels("train"), negatives="random")
    generator = rng()
    for _ in range(30):
        ids = examples.sample(0, generator, 200).document_ids[1:]
        assert len(set(ids)) == 200
        assert not {"d3", "d2503"} & set(ids)
    assert len(examples.sample(0, rng(), 4998).documents) == 4999


@pytest.mark.parametrize("count", [1, 2, 7])
def test_small_corpora_give_what_they_have_or_say_so(make, count):
    made = make({f"d{i}": f"text {i}" for i in range(count)}, {"q": "?"}, {"train": [("q", "d0", 1)]})
    examples = QrelsExamples(made, made.qrels("train"), run_of("q", *made.corpus.all_ids()))
    assert len(examples.sample(0, rng(), count - 1).documents) == count
    with pytest.raises(DataError, match=f"{count} negatives are wanted, but only {count - 1} documents"):
        examples.sample(0, rng(), count)


def test_queries_that_cannot_be_learned_from_are_counted(make):
    qrels = [("q1", "d1", 0), ("q2", "empty", 1), ("q3", "gone", 1), ("q4", "d1", 1), ("q5", "d1", 1)]
    queries = {"q1": "a", "q2": "b", "q3": "c", "q4": "", "q5": "e"}
    made = make({"d1": "text", "empty": ""}, queries, {"train": qrels})
    examples = QrelsExamples(made, made.qrels("train"), negatives="none")
    assert len(examples) == 1
    assert examples.limit == 0
    assert examples.sample(0, rng(), 0).documents == ("text",)
    left = examples.describe()["left_out"]
    assert left == {"without_positive": 3, "empty_query": 1, "empty_positives": 1, "unknown_positives": 1}
    with pytest.raises(DataError, match="negatives=none"):
        examples.sample(0, rng(), 1)
    with pytest.raises(DataError, match="no query of memory has a relevant document"):
        QrelsExamples(made, {"q1": {"d1": 0}}, negatives="none")


def test_wrong_arguments(twenty, everything):
    qrels = twenty.qrels("train")
    for ranks in ((0, 5), (6, 5)):
        with pytest.raises(DataError, match="counted from 1, both included"):
            QrelsExamples(twenty, qrels, everything, ranks=ranks)
    with pytest.raises(DataError, match="negatives=bm25 are drawn from a run, and there is none"):
        QrelsExamples(twenty, qrels)
    with pytest.raises(DataError, match="'elsewhere' is no id in the corpus"):
        QrelsExamples(twenty, qrels, run_of("q", "elsewhere"), ranks=(1, 1))
    with pytest.raises(DataError, match="min_grade=0"):
        QrelsExamples(twenty, qrels, negatives="random", min_grade=0)
