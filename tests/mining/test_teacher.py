"""Teachers: each scores as its model does, a pair is scored once, a killed scoring goes on to the same bytes."""

import zlib
from itertools import groupby
from operator import itemgetter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_lab.data.texts import Texts
from colbert_lab.errors import DataError
from colbert_lab.mining.pairs import Pairs
from colbert_lab.mining.score_cache import ScoreCache
from colbert_lab.mining.scored import score_candidates, scoring
from colbert_lab.mining.teacher import (
    Bm25Teacher,
    CrossEncoderTeacher,
    FileTeacher,
    IndexTeacher,
    MaxSimTeacher,
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
from colbert_lab.search.rerank import gathered
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


@pytest.fixture
def cross(pairs_of):
    """All pairs of some queries and documents."""

    def made(queries=QUERIES, documents=DOCUMENTS):
        return pairs_of([(q, d) for q in queries for d in documents], queries, documents)

    return made


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


def test_a_pair_is_scored_once_and_then_known(tmp_path, cross):
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
def test_killed_and_begun_again_gives_the_same_bytes(tmp_path, fail_at, cross):
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


def test_a_commit_torn_by_the_kill_is_scored_again_in_the_same_batch(tmp_path, cross):
    pairs = cross()
    expected, _ = score_candidates(pairs, Counting(), ScoreCache(tmp_path, "teacher-a"), chunk=6)
    file = ScoreCache(tmp_path, "teacher-a").path
    file.write_bytes(file.read_bytes()[:-30])
    found, facts = score_candidates(pairs, Counting(), ScoreCache(tmp_path, "teacher-a"), chunk=6)
    assert found.tobytes() == expected.tobytes()
    assert facts["scored"] == 2


def test_who_is_asked_with_chunks_ahead_changes_no_byte(tmp_path, cross):
    """With some pairs known before, so that parts are of different sizes, and one is left out."""
    asked, bar = Counting(), Bar()

    def ask(parts):
        return scoring(asked, list(parts))

    caches = [ScoreCache(tmp_path / name, "teacher-a") for name in ("here", "there")]
    for cache in caches:
        score_candidates(cross(documents={"d2": DOCUMENTS["d2"], "d4": DOCUMENTS["d4"]}), Counting(bias=0.5), cache)
    here = Counting()
    expected = score_candidates(cross(), here, caches[0], chunk=3)
    scores, facts = score_candidates(cross(), asked, caches[1], chunk=3, bar=bar, ask=ask)
    assert np.array_equal(scores, expected[0])
    assert facts == expected[1]
    assert asked.asked == here.asked
    assert len({len(part) for part in here.asked}) > 1
    assert caches[0].path.read_bytes() == caches[1].path.read_bytes()
    assert bar.done == len(scores)


def test_the_order_of_the_pairs_changes_no_score(tmp_path, cross):
    pairs = cross()
    expected, _ = score_candidates(pairs, Counting(), ScoreCache(tmp_path / "a", "teacher-a"), chunk=6)
    order = np.random.default_rng(0).permutation(len(pairs))
    found, _ = score_candidates(pairs.select(order), Counting(), ScoreCache(tmp_path / "b", "teacher-a"), chunk=6)
    assert np.array_equal(found, expected[order])


def test_repeated_pairs_of_texts_are_scored_once(pairs_of):
    # d4 is asked for under two ids and q0 twice: of 8 pairs 3 are distinct, (q0, d4), (q0, d0) and (q3, d4).
    documents = DOCUMENTS | {"d9": DOCUMENTS["d4"]}
    ids = [("q0", d) for d in ("d4", "d9", "d4", "d0", "d0")] + [("q3", d) for d in ("d9", "d4", "d9")]
    pairs = pairs_of(ids, QUERIES, documents)
    teacher, bar = Counting(), Bar()
    scores, facts = score_candidates(pairs, teacher, None, bar=bar)
    assert facts == {"scored": 3, "cached": 0, "repeated": 5, "cut": 1}
    assert [len(asked) for asked in teacher.asked] == [3]
    assert len({*scores[[0, 1, 2]].tolist()}) == len({*scores[[3, 4]].tolist()}) == len({*scores[5:].tolist()}) == 1
    assert bar.done == 5, "what the teacher scores it counts itself"


def test_only_what_is_new_is_scored(tmp_path, cross):
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


class ByText:
    """A teacher whose score is a pair's own; it keeps what it was asked."""

    instant, key = False, "by-text"

    def __init__(self):
        self.asked = []

    def score(self, pairs, bar=None):
        self.asked.append(list(zip(pairs.queries, pairs.documents)))
        bar.advance(len(pairs))
        return np.array([own_score(*pair) for pair in self.asked[-1]], dtype=np.float32), 0


def own_score(query, document):
    return zlib.crc32(f"{query}\n{document}".encode()) % 1000


@pytest.fixture(scope="module")
def texts(pairs_of):
    """12 queries and 30 documents, of which half repeat another's text; many lengths are equal."""
    words = ["oak", "ash", "elm", "fir", "yew", "birch", "", "cedar", "larch"]
    queries = {f"q{i}": words[i % 6] for i in range(12)}
    return pairs_of([], queries, {f"d{i}": f"{words[i % 9]} {words[i % 5]}" for i in range(30)}).collection


@given(
    numbers=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 29)), max_size=60),
    before=st.sets(st.tuples(st.integers(0, 11), st.integers(0, 29)), max_size=20),
    chunk=st.integers(1, 20),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=40, deadline=None)
def test_scoring_is_as_pair_by_pair(texts, tmp_path_factory, numbers, before, chunk, seed):
    def of(rows):
        # Some pairs as a query's many documents, some each alone.
        groups = [(f"q{q}", [f"d{d}" for _, d in own]) for q, own in groupby(rows, key=itemgetter(0))]
        return Pairs.of(texts, groups)

    pairs, bars, found = of(numbers), (Bar(), Bar()), []
    naive = [own_score(*pair) for pair in zip(pairs.queries, pairs.documents)]
    wanted = set(zip(pairs.queries, pairs.documents))
    known = set(zip((start := of(sorted(before))).queries, start.documents))
    order = np.random.default_rng(seed).permutation(len(pairs))
    for bar, shown in zip(bars, (pairs, pairs.select(order))):
        cache, teacher = ScoreCache(tmp_path_factory.mktemp("cache"), "by-text"), ByText()
        score_candidates(start, ByText(), cache, bar=Bar())
        scores, facts = score_candidates(shown, teacher, cache, chunk, bar)
        found.append((scores, facts, teacher.asked))
    assert found[0][0].tolist() == naive
    assert found[1][0].tolist() == [naive[i] for i in order]
    assert found[0][1:] == found[1][1:], "the order plays no part"
    counts = {"scored": len(wanted - known), "cached": len(wanted & known), "repeated": len(pairs) - len(wanted)}
    assert found[0][1] == {**counts, "cut": 0}
    assert [bar.done for bar in bars] == [len(pairs)] * 2
    asked = [pair for batch in found[0][2] for pair in batch]
    assert len(asked) == len(set(asked))
    lengths = [len(query) + len(document) for query, document in asked]
    assert lengths == sorted(lengths, reverse=True)


def test_what_goes_together_depends_on_the_texts_alone(pairs_of):
    # As many characters in every document, so that only ties decide.
    documents = {f"d{i}": f"text {i:03}" for i in range(40)}
    renamed = {f"x{39 - i}": documents[f"d{i}"] for i in np.random.default_rng(0).permutation(40)}
    asked = []
    for shown in (documents, renamed):
        score_candidates(pairs_of([("q", d) for d in shown], {"q": "?"}, shown), teacher := Counting(), None, chunk=7)
        asked.append(teacher.asked)
    assert asked[0] == asked[1]
    assert [len(batch) for batch in asked[0]] == [7, 7, 7, 7, 7, 5]


def test_the_texts_of_one_chunk_are_read_at_a_time(cross, tmp_path, monkeypatch):
    pairs, read = cross({f"q{i}": f"{i}" for i in range(10)}, {f"d{i}": f"{i}" for i in range(40)}), []
    original = Texts.__getitem__
    monkeypatch.setattr(Texts, "__getitem__", lambda self, rows: read.append(len(rows)) or original(self, rows))
    for _ in range(2):
        score_candidates(pairs, Counting(), ScoreCache(tmp_path, "teacher-a"), chunk=16)
    assert sum(read) > 400
    assert max(read) <= 16


def test_an_instant_teacher_is_asked_for_some_queries_at_a_time(cross, monkeypatch):
    monkeypatch.setattr("colbert_lab.mining.scored._ASKED", 6)
    pairs, bar, asked = cross(), Bar(), []

    class Instant:
        instant, key = True, "instant"

        def score(self, pairs, bar=None):
            asked.append(list(zip(pairs.query_ids, pairs.document_ids)))
            bar.advance(len(pairs))
            return np.array([own_score(*ids) for ids in asked[-1]], dtype=np.float32), 3

    scores, facts = score_candidates(pairs, Instant(), None, bar=bar)
    # Five documents a query: six pairs end within the second query, which is asked for as a whole.
    assert [[query for query, _ in some] for some in asked] == [["q0"] * 5 + ["q1"] * 5, ["q2"] * 5 + ["q3"] * 5]
    assert scores.tolist() == [own_score(*ids) for ids in zip(pairs.query_ids, pairs.document_ids)]
    assert facts == {"scored": 20, "cached": 0, "repeated": 0, "cut": 6}
    assert bar.done == 20


@pytest.mark.parametrize("instant", [True, False])
@pytest.mark.parametrize("wrong", [np.array([1.0, np.nan]), np.array([1.0]), np.array([[1.0, 2.0]])])
def test_a_teacher_that_gives_no_numbers_is_told(tmp_path, instant, wrong, cross):
    teacher = Counting()
    teacher.instant, teacher.score = instant, lambda pairs, bar=None: (wrong, 0)
    with pytest.raises(DataError, match="the teacher gave"):
        score_candidates(cross({"q0": "a"}, {"d0": "b", "d1": "c"}), teacher, ScoreCache(tmp_path, teacher.key))
    assert not ScoreCache(tmp_path, teacher.key).path.exists()


def test_no_pairs(tmp_path, cross):
    scores, facts = score_candidates(cross({}, {}), Counting(fail_at=0), ScoreCache(tmp_path, "teacher-a"))
    assert scores.shape == (0,)
    assert not any(facts.values())


def test_a_cross_encoder_teaches_its_logits(cross_encoder, tmp_path, cross):
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
def test_a_late_interaction_model_teaches_maxsim(colbert, monkeypatch, similarity, cross):
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
def test_an_index_teaches_what_its_model_does(colbert, monkeypatch, similarity, cross):
    colbert.similarity = similarity
    ids = list(DOCUMENTS)
    held = encode(colbert, [DOCUMENTS[i] for i in ids], "document", "fp32").embeddings
    seen = []
    monkeypatch.setattr(
        "colbert_lab.mining.teacher.encode",
        lambda model, texts, role, *rest: seen.append((role, len(texts))) or encode(model, texts, role, *rest),
    )
    pairs, bar = cross(), Bar()
    documents = gathered(lambda asked: held.select([ids.index(i) for i in asked]), similarity)
    teacher = IndexTeacher(colbert, documents, "digest", "fp32")
    scores, cut = teacher.score(pairs, bar)
    assert seen == [("query", len(QUERIES))]
    np.testing.assert_allclose(scores, MaxSimTeacher(colbert, "digest", "fp32").score(pairs)[0], atol=1e-4)
    assert cut == 1, "one query, though it is in several pairs"
    assert bar.done == 20


def test_maxsim_encodes_each_text_once(colbert, monkeypatch, cross):
    seen = []
    monkeypatch.setattr(
        "colbert_lab.mining.teacher.encode",
        lambda model, texts, *rest: seen.append(texts) or encode(model, texts, *rest),
    )
    MaxSimTeacher(colbert, "digest").score(cross())
    assert [sorted(texts) for texts in seen] == [sorted(QUERIES.values()), sorted(DOCUMENTS.values())]


def test_a_single_vector_model_teaches_its_cosine(tiny_backbone, cross):
    model = SingleVector.from_pretrained(Backbone(str(tiny_backbone)), "mean", 16, 48)
    pairs = cross()
    scores, _ = MaxSimTeacher(model, "digest", "fp32").score(pairs)
    q = encode(model, pairs.queries, "query", "fp32").embeddings.values
    d = encode(model, pairs.documents, "document", "fp32").embeddings.values
    np.testing.assert_allclose(scores, torch.nn.functional.cosine_similarity(q, d).numpy(), atol=1e-5)


def test_bm25_teaches_what_it_searches_with(cross, pairs_of):
    bm25 = Bm25(list(DOCUMENTS), DOCUMENTS.values())
    teacher, pairs = Bm25Teacher(bm25, "digest"), cross()
    scores, facts = score_candidates(pairs, teacher, None)
    run = bm25.search(list(QUERIES), list(QUERIES.values()), 10)
    expected = [dict(run[q]).get(d, 0.0) for q, d in zip(pairs.query_ids, pairs.document_ids)]
    assert scores.tolist() == expected
    assert sum(score > 0 for score in expected) >= 4
    assert facts["scored"] == 20
    with pytest.raises(DataError, match="document 'nowhere' is not in this BM25 index of 5"):
        teacher.score(pairs_of([("q", "nowhere")], {"q": "river"}, {"nowhere": "river"}))


def test_a_file_teaches_by_ids(pairs_of, monkeypatch):
    # Equal texts under two ids keep their own scores.
    queries, documents = dict.fromkeys(("q0", "q1", "q7"), "x"), dict.fromkeys(("d0", "d9"), "y")
    run = Run({"q0": rank(["d0", "d9"], [1.5, -2.0]), "q1": rank(["d0"], [0.25])})
    pairs = pairs_of([("q1", "d0"), ("q0", "d9"), ("q0", "d0"), ("q0", "d9")], queries, documents)
    scores, facts = score_candidates(pairs, FileTeacher(run, "digest"), None)
    assert scores.tolist() == [0.25, -2.0, 1.5, -2.0]
    assert facts == {"scored": 4, "cached": 0, "repeated": 0, "cut": 0}
    missing = pairs_of([("q0", "d0"), ("q1", "d9"), ("q7", "d0")], queries, documents)
    # Asked at once, and a query at a time: all that is missing is counted.
    for block in (100, 1):
        monkeypatch.setattr("colbert_lab.mining.scored._ASKED", block)
        with pytest.raises(DataError, match="no score for 2 of 3 pairs; the first is query 'q1', document 'd9'"):
            score_candidates(missing, FileTeacher(run, "digest"), None)
