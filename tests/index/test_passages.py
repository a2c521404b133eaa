"""Passages: how texts are cut, and that an index of passages finds documents by their best one, whatever is asked."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.index.by_document import PassageIndex, PassageIndexKind, Pieces, best_passages, passage_ids
from colbert_lab.index.exact import ExactIndexKind
from colbert_lab.index.ivfpq import IvfPqIndexKind
from colbert_lab.index.lexical import Bm25IndexKind
from colbert_lab.index.passages import Passages
from colbert_lab.index.residual.kind import ResidualIndexKind
from colbert_lab.index.single_vector import SingleVectorIndexKind
from colbert_lab.ragged import Ragged
from colbert_lab.run import Run, rank
from colbert_lab.scoring.reference import maxsim_loop
from colbert_lab.search.rerank import rerank_passages
from colbert_lab.text.contract import Contract
from colbert_lab.text.tokenizer import ColBERTTokenizer

# Ids that a careless separator would confuse: "a" with passage 1 must not be "a#1" with passage 0.
NAMES = ["a", "a#1", "a#1#0", "#", "b 2", "b\t2", "ü", "0", "01", "#0"]


@pytest.fixture(scope="module")
def tokenizer(minilm_dir):
    from transformers import AutoTokenizer

    return ColBERTTokenizer(AutoTokenizer.from_pretrained(minilm_dir), Contract(document_length=10))


def words(count: int) -> str:
    return " ".join(f"w{i}" for i in range(count))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"length": 4}, ["w0 w1 w2 w3", "w4 w5 w6 w7", "w8 w9"]),
        ({"length": 4, "overlap": 1}, ["w0 w1 w2 w3", "w3 w4 w5 w6", "w6 w7 w8 w9"]),
        ({"length": 4, "overlap": 3, "most": 2}, ["w0 w1 w2 w3", "w1 w2 w3 w4"]),
        ({"length": 10}, [words(10)]),
        ({}, [words(10)]),
    ],
)
def test_words(given, expected):
    assert Passages(**given).split([words(10)]).texts == expected


def test_what_fits_is_left_as_it_is_and_the_rest_is_counted():
    texts = ["", " \n", "  two   words ", "one\ntwo three  four five"]
    split = Passages(length=2, most=2).split(texts)
    assert split.texts == ["", " \n", "  two   words ", "one\ntwo", "three  four"]
    assert (split.counts, split.left_out, split.shortened) == ([1, 1, 1, 2], 1, 1)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(st.sampled_from("ab x.,é日本 \n\u00a0unbelievably"), max_size=90), max_size=4), st.integers(0, 3)
)
def test_the_model_reads_every_passage_whole_and_no_id_is_lost(tokenizer, texts, overlap):
    split = Passages("model", overlap).split(texts, tokenizer)
    assert split.left_out == 0
    assert sum(split.counts) == len(split.texts)
    bare = Passages("model").split(texts, tokenizer)
    tokens = tokenizer.documents(bare.texts)
    assert sum(tokens.cut) == 0
    assert sum(tokenizer.documents(split.texts).cut) == 0
    first = 0
    for text, count in zip(texts, bare.counts):
        pieces = bare.texts[first : first + count]
        assert "".join("".join(pieces).split()) == "".join(text.split())
        first += count


def test_a_word_longer_than_a_passage_is_broken(tokenizer):
    # 10 ids leave room for 7 beside [CLS], marker and [SEP]; every Chinese character is an id.
    split = Passages("model").split(["短 " + "日" * 16 + " end"], tokenizer)
    assert split.texts == ["短", "日" * 7, "日" * 7, "日日 end"]


def test_the_estimate_is_near(tokenizer):
    texts = ["plain words of some ordinary length " * n for n in (0, 1, 10, 100)]
    for passages in (Passages(7), Passages("model"), Passages(7, 3), Passages(7, most=2), Passages()):
        counts = np.array(passages.split(texts, tokenizer).counts)
        told = passages.estimate(np.array([len(text) for text in texts]), tokenizer)
        assert (told >= 1).all()
        assert (told <= 3 * counts + 1).all()
        assert (counts <= 3 * told + 1).all()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"length": 0}, "length=0"),
        ({"length": 5, "overlap": 5}, "overlap=5"),
        ({"length": 5, "overlap": -1}, "overlap=-1"),
        ({"length": 5, "most": 0}, "most=0"),
    ],
)
def test_what_cannot_be_is_refused(given, told):
    with pytest.raises(ConfigError, match=told):
        Passages(**given)


def test_an_overlap_leaves_room_for_something_new(tokenizer):
    special = len(tokenizer.prefix) + len(tokenizer.document_marker) + len(tokenizer.suffix)
    room = tokenizer.contract.document_length - special
    with pytest.raises(ConfigError, match=f"passages.overlap={room} words, and a passage has room for {room} ids"):
        Passages("model", room).split(["a text"], tokenizer)


def test_filling_a_model_needs_one():
    with pytest.raises(ConfigError, match=r"try: passages\.length=180"):
        Passages("model").split(["a text"])


def drawn(seed: int, counts: list[int], coarse: bool) -> tuple[Ragged, Ragged]:
    """Passages (1 to 3 unit vectors each) and three queries; coarse vectors are few, so that many scores are equal."""
    random = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 4, (sum(counts),), generator=random)
    values = torch.randn(int(lengths.sum()), 8, generator=random)
    if coarse:
        values = torch.eye(8)[torch.randint(0, 3, (len(values),), generator=random)]
    queries = (
        torch.eye(8)[torch.randint(0, 3, (6,), generator=random)] if coarse else torch.randn(6, 8, generator=random)
    )
    normal = torch.nn.functional.normalize
    return Ragged(normal(values, dim=1), lengths), Ragged(normal(queries, dim=1), torch.tensor([1, 2, 3]))


def built(kind, directory, names, counts, passages) -> PassageIndex:
    writer = PassageIndexKind(kind).writer(directory, 8, "cosine")
    writer.append(names, Pieces(passages, counts))
    writer.finish()
    return PassageIndexKind(kind).open(directory)


def brute(names, counts, passages, query, k, only=None):
    """The slow way: all passages by the triple loop, the best of each document, ties by id."""
    scores, first = {}, 0
    for name, count in zip(names, counts):
        scores[name] = max(float(maxsim_loop(query, passages[first + i])) for i in range(count))
        first += count
    wanted = [name for name in names if only is None or name in only]
    return rank(wanted, [scores[name] for name in wanted]).cut(k)


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=len(NAMES)),
    k=st.integers(1, 12),
    seed=st.integers(0, 1000),
    coarse=st.booleans(),
    subset=st.none() | st.sets(st.integers(0, len(NAMES) - 1), min_size=1),
)
def test_the_exact_index_finds_what_brute_force_finds(tmp_path_factory, counts, k, seed, coarse, subset):
    names = NAMES[: len(counts)]
    passages, queries = drawn(seed, counts, coarse)
    index = built(ExactIndexKind("fp32"), tmp_path_factory.mktemp("index"), names, counts, passages)
    only = None if subset is None else sorted({names[i % len(names)] for i in subset})
    found = index.search(["x", "y", "z"], queries, k, only)
    assert (index.ids, len(index), found.depth) == (names, len(names), k)
    for row, query in enumerate(["x", "y", "z"]):
        expected = brute(names, counts, passages, queries[row], k, only)
        assert len(found[query]) == min(k, len(only or names))
        np.testing.assert_allclose(found[query].scores, expected.scores, atol=1e-5)
        if coarse:  # sums of whole numbers: equal scores are equal, so that ids must decide
            assert found[query].ids == expected.ids


@pytest.mark.parametrize(
    "kind",
    [
        ExactIndexKind(),
        IvfPqIndexKind(partitions=2, subvectors=4),
        ResidualIndexKind(),
        SingleVectorIndexKind(),
    ],
    ids=lambda kind: type(kind).__name__,
)
def test_every_kind_finds_min_k_n_documents_and_changes_by_document(tmp_path, kind):
    names, counts = [f"d{i}" for i in range(40)], [1 + i % 7 for i in range(40)]
    passages, queries = drawn(3, counts, coarse=False)
    index = built(kind, tmp_path / "index", names, counts, passages)
    for k in (1, 7, 40, 100):
        found = index.search(["x", "y", "z"], queries, k)
        assert all(len(set(hits.ids)) == len(hits) == min(k, 40) for hits in found.values())
    only = ["d3", "d6", "d20"]
    assert set(index.search(["x", "y", "z"], queries, 10, only)["x"].ids) == set(only)
    stats = index.stats()
    assert (stats["documents"], stats["passages"]) == (40, sum(counts))
    index.delete(["d6", "d39"])
    index.update(["d3"], Pieces(passages[:5], [5]))
    index.add(["new#0"], Pieces(passages[:2], [2]))
    assert (len(index), index.stats()["passages"]) == (39, sum(counts) - 7 - 5 - 4 + 5 + 2)
    assert set(index.ids) == {*names, "new#0"} - {"d6", "d39"}
    index.verify()
    again = PassageIndexKind(kind).open(tmp_path / "index").search(["x", "y", "z"], queries, 100)
    assert again == index.search(["x", "y", "z"], queries, 100)
    for call in (lambda: index.delete(["d6"]), lambda: index.search(["x"], queries[:1], 1, ["d6"])):
        with pytest.raises(DataError, match="'d6' is the first"):
            call()
    with pytest.raises(DataError, match="in the index already"):
        index.add(["d0"], Pieces(passages[:1], [1]))
    with pytest.raises(ConfigError, match="at least one document"):
        index.search(["x"], queries[:1], 0)


def test_bm25_scores_a_document_by_its_best_passage(tmp_path):
    kind = PassageIndexKind(Bm25IndexKind(stopwords=None, stemmer=None))
    writer = kind.writer(tmp_path)
    writer.append(["a", "b"], Pieces(["red fish", "blue fish", "grey stone"], [2, 1]))
    writer.append(["c"], Pieces(["blue blue"], [1]))
    assert writer.documents == 3
    writer.finish()
    index = kind.open(tmp_path)
    alone = Bm25IndexKind(stopwords=None, stemmer=None).open(tmp_path).search(["q", "r"], ["blue fish", "tree"], 10)
    found = index.search(["q", "r"], ["blue fish", "tree"], 10)
    assert found["q"] == rank(["a", "c"], [dict(alone["q"])["a#1"], dict(alone["q"])["c#0"]])
    assert len(found["r"]) == 0


def test_a_document_without_a_passage_is_refused():
    with pytest.raises(ValueError, match="at least one passage"):
        passage_ids(["a"], [0])


def test_a_writer_that_is_taken_up_counts_documents(tmp_path):
    passages, _ = drawn(0, [3, 1, 2], coarse=False)
    kind = PassageIndexKind(ExactIndexKind())
    kind.writer(tmp_path, 8, "cosine").append(["a", "a#1"], Pieces(passages[:4], [3, 1]))
    writer = kind.writer(tmp_path, 8, "cosine")
    assert writer.documents == 2
    writer.append(["b"], Pieces(passages[4:], [2]))
    writer.finish()
    assert kind.writer(tmp_path, 8, "cosine").documents == 3


def test_best_passages():
    hits = rank(["b#0", "a#1#0", "a#1#1", "b#1"], [1.0, 3.0, 0.5, 3.0])
    assert best_passages(hits) == rank(["a#1", "b"], [3.0, 3.0])


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(1, 4), min_size=2, max_size=6), k=st.integers(1, 7), seed=st.integers(0, 99))
def test_re_ranking_scores_a_document_by_its_best_passage(counts, k, seed):
    names = NAMES[: len(counts)]
    passages, queries = drawn(seed, counts, coarse=False)
    run = Run({q: rank(names[i % 2 :], np.arange(len(names) - i % 2)) for i, q in enumerate("xyz")})
    ends = np.cumsum([0, *counts])
    chunks = [
        (names[i : i + 2], counts[i : i + 2], passages[ends[i] : ends[min(i + 2, len(names))]])
        for i in range(0, len(names), 2)
    ]
    found = rerank_passages(run, queries, chunks, k)
    assert found.depth == min(k, run.depth)
    for row, query in enumerate("xyz"):
        expected = brute(names, counts, passages, queries[row], 99, only=run[query].ids[:k])
        assert found[query].ids == expected.ids
        np.testing.assert_allclose(found[query].scores, expected.scores, atol=1e-5)
    with pytest.raises(DataError, match="no passages of document"):
        rerank_passages(run, queries, chunks[:0], k)
