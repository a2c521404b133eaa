"""Teachers: each scores as its model does, a pair is scored once, a killed scoring goes on to the same bytes."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.mining.score_cache import ScoreCache
from colbert_lab.mining.teacher import (
    Bm25Teacher,
    CrossEncoderTeacher,
    FileTeacher,
    IndexTeacher,
    MaxSimTeacher,
    Pairs,
    combine,
    score_candidates,
)
from colbert_lab.models.backbone import Backbone
from colbert_lab.models.colbert import ColBERT
from colbert_lab.models.cross_encoder import CrossEncoder, score_pairs
from colbert_lab.models.encoding import encode
from colbert_lab.models.projection import RandomProjection
from colbert_lab.models.single_vector import SingleVector
from colbert_lab.run import Run, rank
from colbert_lab.scoring.reference import maxsim_loop
from colbert_lab.search.bm25 import Bm25
from colbert_lab.text.contract import Contract
from colbert_lab.text.tokenizer import ColBERTTokenizer

QUERIES = {"q0": "what is a river", "q1": "", "q2": "violin " * 40, "q3": "stone bridge, copper"}
DOCUMENTS = {
    "d0": "The river flows past the stone bridge.",
    "d1": "",
    "d2": "island " * 60,
    "d3": "A violin in the market; copper and silver!",
    "d4": "winter",
}


def cross(queries=QUERIES, documents=DOCUMENTS):
    """All pairs of some queries and documents."""
    ids = [(q, d) for q in queries for d in documents]
    return Pairs([q for q, _ in ids], [d for _, d in ids], [queries[q] for q, _ in ids], [documents[d] for _, d in ids])


class Counting:
    """A teacher that tells what it was asked, and whose scores depend on what is scored together."""

    instant = False

    def __init__(self, key="teacher-a", fail_at=None, bias=0.0):
        self.key, self.fail_at, self.bias = key, fail_at, bias
        self.asked = []

    def score(self, pairs, bar=None):
        if len(self.asked) == self.fail_at:
            raise KeyboardInterrupt
        self.asked.append(list(zip(pairs.queries, pairs.documents)))
        together = sum(len(d) for d in pairs.documents) / 1000
        own = [len(q) + 3 * len(d) for q, d in zip(pairs.queries, pairs.documents)]
        return np.array(own, dtype=np.float32) + np.float32(together + self.bias), 1


class Bar:
    done = 0

    def advance(self, n=1, **extra):
        self.done += n


@pytest.fixture
def cross_encoder(tiny_backbone):
    model = CrossEncoder.from_pretrained(str(tiny_backbone), 32, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter *= 5  # or all pairs would have much the same score
    return model


@pytest.fixture
def colbert(tiny_backbone):
    encoder, tokenizer = Backbone(str(tiny_backbone)).load()
    text = Contract(query_length=16, document_length=48, expansion="off")
    projection = RandomProjection(16).build(32, None, 0)
    return ColBERT(encoder, ColBERTTokenizer(tokenizer, text), projection).eval()


def test_a_pair_is_scored_once_and_then_known(tmp_path):
    teacher, pairs = Counting(), cross()
    first, facts = score_candidates(pairs, teacher, ScoreCache(tmp_path, teacher.key), chunk=6)
    assert facts == {"scored": 20, "cached": 0, "repeated": 0, "cut": 4}
    assert [len(asked) for asked in teacher.asked] == [6, 6, 6, 2]
    lengths = [len(q) + len(d) for asked in teacher.asked for q, d in asked]
    assert lengths == sorted(lengths, reverse=True)
    again, facts = score_candidates(pairs, teacher, ScoreCache(tmp_path, teacher.key), chunk=6)
    assert facts == {"scored": 0, "cached": 20, "repeated": 0, "cut": 0}
    assert len(teacher.asked) == 4
    assert again.tobytes() == first.tobytes()
    assert first.dtype == np.float32


@pytest.mark.parametrize("fail_at", [0, 1, 3])
def test_killed_and_begun_again_gives_the_same_bytes(tmp_path, fail_at):
    pairs = cross()
    expected, _ = score_candidates(pairs, Counting(), ScoreCache(tmp_path / "whole", "teacher-a"), chunk=6)
    killed = Counting(fail_at=fail_at)
    with pytest.raises(KeyboardInterrupt):
        score_candidates(pairs, killed, ScoreCache(tmp_path / "killed", "teacher-a"), chunk=6)
    resumed = Counting()
    found, facts = score_candidates(pairs, resumed, ScoreCache(tmp_path / "killed", "teacher-a"), chunk=6)
    assert found.tobytes() == expected.tobytes()
    assert (facts["cached"], len(resumed.asked)) == (6 * fail_at, 4 - fail_at)
    whole, killed = ScoreCache(tmp_path / "whole", "teacher-a"), ScoreCache(tmp_path / "killed", "teacher-a")
    assert killed.path.read_bytes() == whole.path.read_bytes()


def test_a_commit_torn_by_the_kill_is_scored_again_in_the_same_batch(tmp_path):
    pairs = cross()
    expected, _ = score_candidates(pairs, Counting(), ScoreCache(tmp_path, "teacher-a"), chunk=6)
    file = ScoreCache(tmp_path, "teacher-a").path
    file.write_bytes(file.read_bytes()[:-30])
    found, facts = score_candidates(pairs, Counting(), ScoreCache(tmp_path, "teacher-a"), chunk=6)
    assert found.tobytes() == expected.tobytes()
    assert facts["scored"] == 2


def test_the_order_of_the_pairs_changes_no_score(tmp_path):
    pairs = cross()
    expected, _ = score_candidates(pairs, Counting(), ScoreCache(tmp_path / "a", "teacher-a"), chunk=6)
    order = np.random.default_rng(0).permutation(len(pairs))
    found, _ = score_candidates(pairs.select(order), Counting(), ScoreCache(tmp_path / "b", "teacher-a"), chunk=6)
    assert np.array_equal(found, expected[order])


def test_repeated_pairs_of_texts_are_scored_once(tmp_path):
    # d4 is asked for under two ids and q0 twice: of 8 pairs 3 are distinct, (q0, d4), (q0, d0) and (q3, d4).
    documents = DOCUMENTS | {"d9": DOCUMENTS["d4"]}
    ids = [("q0", d) for d in ("d4", "d9", "d4", "d0", "d0")] + [("q3", d) for d in ("d9", "d4", "d9")]
    pairs = Pairs(*zip(*ids), [QUERIES[q] for q, _ in ids], [documents[d] for _, d in ids])
    teacher, bar = Counting(), Bar()
    scores, facts = score_candidates(pairs, teacher, None, bar=bar)
    assert facts == {"scored": 3, "cached": 0, "repeated": 5, "cut": 1}
    assert [len(asked) for asked in teacher.asked] == [3]
    assert len({*scores[[0, 1, 2]].tolist()}) == len({*scores[[3, 4]].tolist()}) == len({*scores[5:].tolist()}) == 1
    assert bar.done == 5, "what the teacher scores it counts itself"


def test_only_what_is_new_is_scored(tmp_path):
    cache = ScoreCache(tmp_path, "teacher-a")
    score_candidates(cross(), Counting(), cache)
    changed = cross(documents=DOCUMENTS | {"d0": "The river dried up."})
    teacher = Counting(bias=100)
    scores, facts = score_candidates(changed, teacher, cache)
    assert facts["scored"] == 4
    assert {document for asked in teacher.asked for _, document in asked} == {"The river dried up."}
    assert (scores[::5] > 100).all(), "every fifth pair is of d0"
    other = Counting(key="teacher-b")
    assert score_candidates(cross(), other, ScoreCache(tmp_path, "teacher-b"))[1]["cached"] == 0


@pytest.mark.parametrize("instant", [True, False])
@pytest.mark.parametrize("given", [np.array([1.0, np.nan]), np.array([1.0]), np.array([[1.0, 2.0]])])
def test_a_teacher_that_gives_no_numbers_is_told(tmp_path, instant, given):
    teacher = Counting()
    teacher.instant, teacher.score = instant, lambda pairs, bar=None: (given, 0)
    with pytest.raises(DataError, match="the teacher gave"):
        score_candidates(cross({"q0": "a"}, {"d0": "b", "d1": "c"}), teacher, ScoreCache(tmp_path, teacher.key))
    assert not ScoreCache(tmp_path, teacher.key).path.exists()


def test_no_pairs(tmp_path):
    scores, facts = score_candidates(cross({}, {}), Counting(fail_at=0), ScoreCache(tmp_path, "teacher-a"))
    assert scores.shape == (0,)
    assert not any(facts.values())


def test_columns_of_pairs_must_match():
    with pytest.raises(DataError, match=r"\[1, 1, 1, 2\]"):
        Pairs(["q"], ["d"], ["a"], ["b", "c"])


def test_a_cross_encoder_teaches_its_logits(cross_encoder, tmp_path):
    teacher, pairs, bar = CrossEncoderTeacher(cross_encoder, "digest", "fp32"), cross(), Bar()
    scores, facts = score_candidates(pairs, teacher, ScoreCache(tmp_path, teacher.key), chunk=7, bar=bar)
    np.testing.assert_allclose(scores, score_pairs(cross_encoder, pairs.queries, pairs.documents, "fp32")[0], atol=1e-5)
    # Over 32 ids: every pair of the query of 40 words (5) or the document of 60 (4), less the one that is both.
    assert facts == {"scored": 20, "cached": 0, "repeated": 0, "cut": 8}
    assert bar.done == 20
    keys = {teacher.key, CrossEncoderTeacher(cross_encoder, "other", "fp32").key}
    keys.add(CrossEncoderTeacher(cross_encoder, "digest", "bf16").key)
    cross_encoder.max_length = 31
    keys.add(CrossEncoderTeacher(cross_encoder, "digest", "fp32").key)
    assert len(keys) == 4


@pytest.mark.parametrize("similarity", ["cosine", "l2"])
def test_a_late_interaction_model_teaches_maxsim(colbert, monkeypatch, similarity):
    monkeypatch.setattr("colbert_lab.mining.teacher._PAIR_ELEMENTS", 4000)
    colbert.similarity = similarity
    teacher, pairs, bar = MaxSimTeacher(colbert, "digest", "fp32"), cross(), Bar()
    scores, cut = teacher.score(pairs, bar)
    for row, (query, document) in enumerate(zip(pairs.queries, pairs.documents)):
        q = encode(colbert, [query], "query", "fp32").embeddings.values
        d = encode(colbert, [document], "document", "fp32").embeddings.values
        assert scores[row] == pytest.approx(maxsim_loop(q, d, similarity), abs=1e-4)
    assert cut == 2, "one query and one document, though each is in several pairs"
    assert bar.done == 20


@pytest.mark.parametrize("similarity", ["cosine", "l2"])
def test_an_index_teaches_what_its_model_does(colbert, monkeypatch, similarity):
    colbert.similarity = similarity
    ids = list(DOCUMENTS)
    held = encode(colbert, [DOCUMENTS[i] for i in ids], "document", "fp32").embeddings
    seen = []
    monkeypatch.setattr(
        "colbert_lab.mining.teacher.encode",
        lambda model, texts, role, *rest: seen.append((role, len(texts))) or encode(model, texts, role, *rest),
    )
    pairs, bar = cross(), Bar()
    teacher = IndexTeacher(colbert, lambda asked: held.select([ids.index(i) for i in asked]), "digest", "fp32")
    scores, cut = teacher.score(pairs, bar)
    assert seen == [("query", len(QUERIES))]
    np.testing.assert_allclose(scores, MaxSimTeacher(colbert, "digest", "fp32").score(pairs)[0], atol=1e-4)
    assert cut == 1, "one query, though it is in several pairs"
    assert bar.done == 20


def test_maxsim_encodes_each_text_once(colbert, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "colbert_lab.mining.teacher.encode",
        lambda model, texts, *rest: seen.append(texts) or encode(model, texts, *rest),
    )
    MaxSimTeacher(colbert, "digest").score(cross())
    assert [sorted(texts) for texts in seen] == [sorted(QUERIES.values()), sorted(DOCUMENTS.values())]


def test_a_single_vector_model_teaches_its_cosine(tiny_backbone):
    model = SingleVector.from_pretrained(Backbone(str(tiny_backbone)), "mean", 16, 48)
    pairs = cross()
    scores, _ = MaxSimTeacher(model, "digest", "fp32").score(pairs)
    q = encode(model, pairs.queries, "query", "fp32").embeddings.values
    d = encode(model, pairs.documents, "document", "fp32").embeddings.values
    np.testing.assert_allclose(scores, torch.nn.functional.cosine_similarity(q, d).numpy(), atol=1e-5)


def test_bm25_teaches_what_it_searches_with():
    bm25 = Bm25(list(DOCUMENTS), DOCUMENTS.values())
    teacher, pairs = Bm25Teacher(bm25, "digest"), cross()
    scores, facts = score_candidates(pairs, teacher, None)
    run = bm25.search(list(QUERIES), list(QUERIES.values()), 10)
    expected = [dict(run[q]).get(d, 0.0) for q, d in zip(pairs.query_ids, pairs.document_ids)]
    assert scores.tolist() == expected
    assert sum(score > 0 for score in expected) >= 4
    assert facts["scored"] == 20
    with pytest.raises(DataError, match="document 'nowhere' is not in this BM25 index of 5"):
        teacher.score(Pairs(["q"], ["nowhere"], ["river"], ["river"]))


def test_a_file_teaches_by_ids():
    # Equal texts under two ids keep their own scores.
    run = Run({"q0": rank(["d0", "d9"], [1.5, -2.0]), "q1": rank(["d0"], [0.25])})
    pairs = Pairs(["q1", "q0", "q0", "q0"], ["d0", "d9", "d0", "d9"], ["x"] * 4, ["y"] * 4)
    scores, facts = score_candidates(pairs, FileTeacher(run, "digest"), None)
    assert scores.tolist() == [0.25, -2.0, 1.5, -2.0]
    assert facts == {"scored": 4, "cached": 0, "repeated": 0, "cut": 0}
    missing = Pairs(["q0", "q1", "q7"], ["d0", "d9", "d0"], ["x"] * 3, ["y"] * 3)
    with pytest.raises(DataError, match="no score for 2 of 3 pairs; the first is query 'q1', document 'd9'"):
        score_candidates(missing, FileTeacher(run, "digest"), None)


def test_an_ensemble_by_hand():
    first, second = np.float32([1, 3, 5, 7, 7]), np.float32([4, 2, 0, 5, 9])
    offsets = [0, 3, 3, 5]
    # Query 0: (0, .5, 1) and (1, .5, 0); query 1 has none; query 2: equal scores are 0, and (0, 1). Weights 3 and 1.
    expected = [0.25, 0.5, 0.75, 0, 0.25]
    assert combine([first, second], offsets, "min_max", [3, 1]).tolist() == expected
    # Query 0: mean 3, deviation sqrt(8/3): (-a, 0, a) and (a, 0, -a) with a = sqrt(3/2); query 2: 0 and (-1, 1).
    a = 1.5**0.5
    expected = [-a / 2, 0, a / 2, -0.25, 0.25]
    assert combine([first, second], offsets, "z_score", [3, 1]) == pytest.approx(expected, abs=1e-6)
    assert combine([first, second], offsets).tolist() == [2.5, 2.5, 2.5, 6, 8]
    # In doubles 0.1 + 0.1 + 0.1 is not 3 * 0.1, so the deviation of these is not 0.
    assert combine([np.full(3, 0.1)], [0, 3], "z_score").tolist() == [0, 0, 0]
    assert combine([first], offsets, "none", [0.3]).tobytes() == first.tobytes()


@given(
    lengths=st.lists(st.integers(0, 5), max_size=6),
    normalise=st.sampled_from(["none", "z_score", "min_max"]),
    weights=st.lists(st.floats(0.1, 10), min_size=1, max_size=3),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=80, deadline=None)
def test_an_ensemble_is_as_query_by_query(lengths, normalise, weights, seed):
    offsets = np.cumsum([0, *lengths])
    rng = np.random.default_rng(seed)
    # Of few values, so that equal scores come up; 0.1 has no exact mean.
    scores = [rng.integers(0, 3, offsets[-1]).astype(np.float32) * np.float32(0.1) for _ in weights]
    expected = []
    for start, end in pairwise(offsets.tolist()):
        total = np.zeros(end - start)
        for part, weight in zip(scores, weights):
            own = part[start:end].astype(np.float64)
            if normalise != "none" and len(own):
                if own.min() == own.max():
                    own = np.zeros(len(own))
                elif normalise == "z_score":
                    own = (own - own.mean()) / own.std()
                else:
                    own = (own - own.min()) / (own.max() - own.min())
            total += weight * own
        expected += (total / sum(weights)).tolist()
    assert combine(scores, offsets, normalise, weights) == pytest.approx(expected, abs=1e-6)


def test_an_ensemble_that_cannot_be():
    one = np.float32([1, 2])
    with pytest.raises(ConfigError, match=r"2 problems(.|\n)*normalise is 'rank'(.|\n)*for each of 1 teachers"):
        combine([one], [0, 2], "rank", [1, 1])
    for weights in ([0.0], [-1.0], [float("nan")], [float("inf")]):
        with pytest.raises(ConfigError, match="weights"):
            combine([one], [0, 2], "none", weights)
    for offsets in ([0, 1], [0, 3], [1, 2], [0, 2, 1, 2], []):
        with pytest.raises(DataError, match="pairs"):
            combine([one], offsets)
    with pytest.raises(DataError, match="not a finite number"):
        combine([one, np.float32([1, np.inf])], [0, 2])
    with pytest.raises(ConfigError, match="0 teachers"):
        combine([], [0, 0])
