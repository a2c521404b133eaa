"""Batches: decided by seed and number alone, fresh in every epoch, and honest about what is no negative."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from colbert_lab.data.examples import Example
from colbert_lab.data.qrels_examples import QrelsExamples
from colbert_lab.data.texts import hash_text
from colbert_lab.errors import ConfigError, DataError
from colbert_lab.training.batches import BatchStream, Collate, Identity, PairCollate, TrainingData, excluded


@pytest.fixture
def stream(examples, tiny_model):
    def made(queries=4, negatives=2, seed=0, document_length=None, of=examples):
        return BatchStream(of, Collate(tiny_model.tokenizer, document_length), queries, negatives, seed)

    return made


class Numbered:
    """Examples that say who they are: query i, its positive p<i>, and negatives that `rng` numbers."""

    fingerprint, limit = "numbered", None

    def __init__(self, count):
        self._count = count

    def __len__(self):
        return self._count

    def sample(self, index, rng, negatives):
        documents = (f"p{index}", *(f"n{rng.integers(10**6)}" for _ in range(negatives)))
        return Example(f"query {index}", documents, f"q{index}", documents, None, frozenset({f"p{index}"}))


def equal(one, other):
    return (
        torch.equal(one.queries.ids, other.queries.ids)
        and torch.equal(one.documents.ids, other.documents.ids)
        and torch.equal(one.excluded, other.excluded)
    )


def raw(of, queries, negatives):
    """A stream of the examples themselves."""
    return BatchStream(of, lambda index, examples: examples, queries, negatives, seed=0)


def test_a_batch_is_a_function_of_seed_and_number(stream):
    forward = stream()
    # 20 examples in batches of 4: number 7 is in the second epoch.
    batches = [forward[t] for t in range(12)]
    np.random.default_rng(5).random(3)
    torch.manual_seed(99)
    again = stream()
    for t in (7, 2, 11, 0):
        assert equal(again[t], batches[t])
        assert again[t].index == t
    assert not any(equal(stream(seed=1)[t], batches[t]) for t in range(3))


def test_an_epoch_has_every_example_once_and_the_next_another_order():
    of = raw(Numbered(10), queries=3, negatives=2)
    assert of.batches_per_epoch == 3
    batches = [of[number] for number in range(6)]
    first, second = ([example.query for batch in half for example in batch] for half in (batches[:3], batches[3:]))
    assert len(set(first)) == len(set(second)) == 9, "the last, partial batch is dropped"
    assert first != second


def test_negatives_are_drawn_anew_in_every_epoch():
    of = raw(Numbered(5), queries=5, negatives=2)
    one, two = ({e.query: e.documents for e in of[number]} for number in range(2))
    assert one.keys() == two.keys()
    for query in one:
        assert one[query][0] == two[query][0], "the positive comes first"
        assert not set(one[query][1:]) & set(two[query][1:])


def test_too_few_examples_are_refused(stream):
    assert stream(queries=5, of=Numbered(5)).batches_per_epoch == 1
    with pytest.raises(DataError, match=r"1 training examples, but a batch needs 2\ntry: train.batch_queries=1"):
        stream(queries=2, of=Numbered(1))


def test_layout_and_padding(stream, tiny_model):
    batch = stream()[0]
    assert (batch.width, batch.size, batch.targets) == (3, 4, None)
    assert len(batch.queries.ids) == 4
    assert len(batch.documents.ids) == 12
    real = int(batch.documents.attention.sum()) + batch.queries.ids.numel()
    assert batch.tokens == real, "queries are filled with mask tokens, which are no padding"
    assert batch.padding_share == pytest.approx(1 - real / (batch.queries.ids.numel() + batch.documents.ids.numel()))


def test_the_positive_is_in_column_0(collection, examples, tiny_model):
    qrels = collection.qrels("train")
    for index in range(len(examples)):
        example = examples.sample(index, np.random.default_rng(index), 3)
        assert qrels[example.query_id][example.document_ids[0]] > 0
        assert not set(example.document_ids[1:]) & set(qrels[example.query_id])


def example(query, documents, ids=None, known=(), scores=None, known_texts=()):
    ids = ids if ids is None else tuple(ids)
    texts = frozenset(map(hash_text, known_texts))
    return Example(query, tuple(documents), None, ids, scores, frozenset(known), texts)


def test_what_is_excluded(tiny_model):
    batch = Collate(tiny_model.tokenizer)(
        0,
        [
            example("a", ["one", "two", "three"], ["1", "2", "3"], {"1", "5", "3"}),
            example("b", ["four", "five", "one"], ["4", "5", "6"], {"4", "9"}),
        ],
    )
    # Of query a: its own third is known to be relevant, "five" too, and "one" has its positive's text.
    assert batch.excluded.int().tolist() == [[0, 0, 1, 0, 1, 1], [0, 0, 0, 0, 0, 0]]


def test_a_copy_of_a_known_positive_that_was_not_drawn_is_no_negative(tiny_model):
    """Query a knows p1 ("one", drawn) and p2 ("two"); "two" is what query b learns from, under the id copy."""
    a = example("a", ["one", "no"], ["p1", "n"], {"p1", "p2"}, known_texts=["one", "two"])
    b = example("b", ["two", "three"], ["copy", "m"], {"copy"}, known_texts=["two"])
    excluded = Collate(tiny_model.tokenizer)(0, [a, b]).excluded
    assert excluded.int().tolist() == [[0, 0, 1, 0], [0, 0, 0, 0]]


def test_what_is_excluded_without_ids(tiny_model):
    batch = Collate(tiny_model.tokenizer)(0, [example("a", ["one", "two"]), example("b", ["two", "one"])])
    assert batch.excluded.int().tolist() == [[0, 0, 0, 1], [0, 1, 0, 0]]


@given(data=st.data(), width=st.integers(1, 3), count=st.integers(1, 4))
def test_what_is_excluded_is_what_comparing_all_with_all_excludes(data, width, count):
    few = st.integers(0, 5)
    owners = [
        Identity(
            data.draw(st.none() | st.tuples(*[few.map(str)] * width)),
            data.draw(st.tuples(*[few] * width)),
            frozenset(data.draw(st.sets(few.map(str)))),
            frozenset(data.draw(st.sets(few))),
        )
        for _ in range(count)
    ]
    first = data.draw(st.integers(0, count - 1))
    expected = [
        [
            (
                (owner.ids is not None and owner.ids[column] in query.known)
                or owner.texts[column] in {query.texts[0], *query.known_texts}
            )
            and (number, column) != (row, 0)
            for number, owner in enumerate(owners)
            for column in range(width)
        ]
        for row, query in enumerate(owners)
    ]
    assert excluded(owners[first:], owners, first).tolist() == expected[first:]


@pytest.mark.parametrize("collate", ["for ColBERT", "of pairs"])
def test_targets_are_in_the_order_of_the_documents(tiny_model, tiny_cross_encoder, collate):
    collate = Collate(tiny_model.tokenizer) if collate == "for ColBERT" else PairCollate(tiny_cross_encoder)
    scored = [example("a", ["one", "two"], scores=(0.25, 3.0)), example("b", ["four", "five"], scores=(-1.0, 7.5))]
    targets = collate(0, scored).targets
    assert targets.dtype == torch.float32
    assert targets.tolist() == [[0.25, 3.0], [-1.0, 7.5]]
    for scores in (None, (1.0,)):
        with pytest.raises(DataError, match=r"query 'c': 2 documents, but (no|1) scores"):
            collate(0, [*scored, example("c", ["six", "seven"], scores=scores)])


def test_pairs_are_each_query_with_its_own_documents(tiny_cross_encoder):
    pairs = [example("river", ["one", "two"]), example("stone", ["four", "a bridge"])]
    batch = PairCollate(tiny_cross_encoder)(3, pairs)
    texts = tiny_cross_encoder.tokenizer.batch_decode(batch.pairs.ids)
    assert texts == [
        "[CLS] river [SEP] one [SEP] [PAD]",
        "[CLS] river [SEP] two [SEP] [PAD]",
        "[CLS] stone [SEP] four [SEP] [PAD]",
        "[CLS] stone [SEP] a bridge [SEP]",
    ]
    assert (batch.index, batch.width, batch.size, batch.tokens) == (3, 2, 2, 5 + 5 + 5 + 6)
    assert batch.padding_share == pytest.approx(3 / 24)


def test_widths_must_be_equal(tiny_model):
    with pytest.raises(DataError, match=r"\[1, 2\]"):
        Collate(tiny_model.tokenizer)(0, [example("a", ["one"]), example("b", ["two", "one"])])


def test_documents_are_cut_to_the_training_length(stream, tiny_model):
    whole, cut = stream()[0], stream(document_length=6)[0]
    assert cut.documents.ids.shape[1] == 6
    assert whole.documents.ids.shape[1] > 6
    assert torch.equal(cut.documents.ids[:, :5], whole.documents.ids[:, :5])
    assert (cut.documents.ids[:, 5] == tiny_model.tokenizer.suffix[0]).all()
    assert torch.equal(cut.queries.ids, whole.queries.ids)
    assert cut.tokens < whole.tokens
    for length in (3, 33):
        with pytest.raises(ConfigError, match="between 4 and the model's 32"):
            stream(document_length=length)


def test_the_loader_starts_where_training_was(stream):
    data = TrainingData(stream(), 7)
    assert [batch.index for batch in data.train_dataloader()] == list(range(7))
    resumed = TrainingData(stream(), 7)
    resumed.load_state_dict({**data.state_dict(), "batches_done": 5})
    loader = resumed.train_dataloader()
    assert [batch.index for batch in loader] == [5, 6]
    assert len(loader) == 7, "Lightning goes on counting from 5"


def test_all_examples_of_the_toy_collection_are_found(collection):
    assert len(QrelsExamples(collection, collection.qrels("train"), negatives="random")) == 20
