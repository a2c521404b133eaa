"""Contamination: near pairs as brute force finds them, and what a planted leak is told as."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_lab.data.contamination import (
    contamination,
    nearest,
    pairs_of_examples,
    pairs_of_split,
    shared_with,
)
from colbert_lab.data.text_triples import TextTriples
from colbert_lab.data.tuples import Tuples

texts = st.lists(st.text("abcd ", max_size=14), max_size=12)


def brute(test, train, similarity, size):
    """Every pair; n-grams as tuples of words, a text shorter than n as one of them."""

    def grams(text):
        words = text.split()
        return {tuple(words[i : i + size]) for i in range(max(len(words) - size + 1, 1))} if words else set()

    found = {}
    for i, mine in test.items():
        for j, other in train.items():
            a, b = grams(mine), grams(other)
            value = len(a & b) / len(a | b) if a and b else 0.0
            if value >= similarity and (i not in found or value > found[i][1]):
                found[i] = (j, value)
    return found


@settings(max_examples=150, deadline=None)
@given(texts, texts, st.sampled_from([0.3, 0.5, 0.6, 2 / 3, 0.7, 0.8, 0.9, 1.0]), st.integers(1, 3))
def test_all_near_pairs_and_no_others_are_found(test, train, similarity, size):
    test = {f"t{i}": text for i, text in enumerate(test)}
    train = {f"r{i}": text for i, text in enumerate(train)}
    assert nearest(test, train, similarity, size) == brute(test, train, similarity, size)


def planted(make, **more):
    body = " ".join(f"word{i}" for i in range(40))
    documents = {"a": body, "b": f"{body} more", "c": "something else", "d": "Something, else!", "e": "a third thing"}
    queries = {
        "r1": "what is the speed of light",
        "r2": "who wrote hamlet",
        "r3": "only here",
        "t1": "What is the speed of LIGHT?",
        "t2": "what is the speed of the light now",
        "t3": "an honest question",
        "t4": "...",
    }
    train = [("r1", "a", 1), ("r2", "c", 1), ("r3", "e", 0), ("both", "e", 1)]
    test = [("t1", "a", 2), ("t2", "b", 1), ("t3", "d", 1), ("t4", "gone", 1), ("t1", "e", 0), ("both", "e", 1)]
    return make(documents, {**queries, "both": "in both"}, {"train": train, "test": test}, **more)


def test_a_planted_leak_is_told(make):
    found = contamination(planted(make), "train", "test")
    counts = {kind: (shared.count, shared.of, shared.shown) for kind, shared in found.found.items()}
    # Five test queries have a positive; of their four positives in the corpus, a and e are training positives.
    assert counts["queries"] == (1, 5, [["both", "both"]])
    assert counts["query_texts"] == (1, 5, [["t1", "r1"]])
    # Words of t2 and r1: 6 shared of 7 (the second "the" is no other word): 6/7 >= 0.8.
    assert counts["near_queries"] == (1, 5, [["t2", "r1"]])
    assert counts["positives"] == (2, 4, [["a", "a"], ["e", "e"]])
    assert counts["positive_texts"] == (1, 4, [["d", "c"]])
    # 38 3-grams of a are among the 39 of b.
    assert counts["near_positives"] == (1, 4, [["b", "a"]])
    assert counts["pairs"] == (2, 4, [["t1 / a", "r1 / a"], ["both / e", "both / e"]])
    assert not found.clean
    assert found.to_json()["found"]["positives"]["share"] == 0.5
    assert len(found.notes()) == 7
    assert found.notes()[1].startswith("train -> test: 1 of 5 (20.0%) test queries have the text of a training query")


def test_nothing_shared_is_said_in_a_line(make):
    collection = make(
        {"a": "one text", "b": "another"},
        {"q": "a question", "r": "its answer"},
        {"train": [("q", "a", 1)], "test": [("r", "b", 1)]},
    )
    found = contamination(collection, "train", "test")
    assert found.clean
    assert found.notes() == ["train -> test: no query and no relevant document is shared"]


def test_ids_of_another_collection_mean_nothing(make):
    ours = planted(make)
    theirs = make({"a": "other"}, {"t1": "other words"}, {"train": [("t1", "a", 1)]})
    found = shared_with(ours, "test", pairs_of_split(theirs, "train", "theirs train"))
    assert found.train == "theirs train"
    assert not any(shared.count for shared in found.found.values())


def test_examples_are_held_against_a_test_by_what_they_teach(make, tmp_path):
    """A file may hold a test's own pairs, whatever the training split says; negatives teach no answer."""
    collection = make(
        {"a": "the answer to one", "b": "the answer to two", "c": "no answer at all"},
        {"q": "what is one", "r": "what is two"},
        {"train": [("r", "b", 1)], "test": [("q", "a", 1), ("r", "c", 1)]},
    )
    file = tmp_path / "tuples.json"
    file.write_text(json.dumps(["q", "a", "c"]) + "\n" + json.dumps(["q", "a", "b"]) + "\n")
    pairs = pairs_of_examples(Tuples(collection, str(file)), "tuples.json", collection.digest, 100)
    assert (pairs.queries, pairs.documents, pairs.positives) == (
        {"q": "what is one"},
        {"a": "the answer to one"},
        {"q": ["a"]},
    )
    found = {kind: one.count for kind, one in shared_with(collection, "test", pairs).found.items()}
    assert (found["queries"], found["positives"], found["pairs"]) == (1, 1, 1)
    raw = tmp_path / "triples.tsv"
    raw.write_text("What is ONE?\tthe answer to one\tno\n" * 3 + "what is three\tthree\tno\n")
    pairs = pairs_of_examples(TextTriples(str(raw)), "triples.tsv", None, 100)
    assert pairs.positives == {"1": ["1"], "4": ["4"]}
    found = {kind: one.count for kind, one in shared_with(collection, "test", pairs).found.items()}
    assert (found["queries"], found["query_texts"], found["positive_texts"], found["pairs"]) == (0, 1, 1, 1)
    assert list(pairs_of_examples(TextTriples(str(raw)), "triples.tsv", None, 2).queries) == ["1", "4"]
