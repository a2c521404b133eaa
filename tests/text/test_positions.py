"""Positions: strings and kinds aligned with the vectors that are kept, and words out of pieces."""

import pytest
import torch
from test_tokenizer import byte_level
from transformers import AutoTokenizer

from colbert_lab.text.contract import Contract
from colbert_lab.text.positions import Positions, joined
from colbert_lab.text.tokenizer import ColBERTTokenizer

TEXTS = ["", "zinc", "Does Zinc (3.5 mg) shorten thrombocytopenia?", "un-related, 'café' " * 40, "[MASK] ,,, !"]


@pytest.fixture(scope="module")
def bert(minilm_dir):
    return AutoTokenizer.from_pretrained(minilm_dir)


@pytest.mark.parametrize("role", ["query", "document"])
@pytest.mark.parametrize(
    "contract",
    [
        Contract(query_length=12, document_length=20),
        Contract(expansion="off", skip_punctuation="both", query_marker=None, document_marker=None),
        Contract(expansion="min", expansion_length=10, query_length=16, skip_punctuation="off"),
        Contract(attend_to_expansion=True, query_length=12, document_length=20),
    ],
)
def test_positions_are_those_whose_vectors_are_kept(bert, role, contract):
    tokenizer = ColBERTTokenizer(bert, contract)
    tokens = tokenizer.encode(TEXTS, role)
    batch = tokenizer.batch(tokens, role)
    for row, found in enumerate(tokenizer.positions(TEXTS, role)):
        kept = batch.ids[row][batch.scored[row]]
        assert list(found.tokens) == bert.convert_ids_to_tokens(kept)
        assert found.cut == tokens.cut[row]
        expected = int((~batch.attention[row] & batch.scored[row]).sum())
        if role == "query" and not contract.attend_to_expansion:
            assert found.kinds.count("mask") == expected


def test_encoding_gives_as_many_vectors(tiny_backbone):
    from colbert_lab.models.backbone import load_encoder
    from colbert_lab.models.colbert import ColBERT
    from colbert_lab.models.encoding import encode

    torch.manual_seed(0)
    tokenizer = ColBERTTokenizer(AutoTokenizer.from_pretrained(tiny_backbone), Contract(document_length=24))
    model = ColBERT(load_encoder(str(tiny_backbone)), tokenizer, None)
    for role in ("query", "document"):
        lengths = encode(model, TEXTS, role, "fp32").embeddings.lengths.tolist()
        assert lengths == [len(found) for found in tokenizer.positions(TEXTS, role)]


def test_kinds_and_places_of_a_query(bert):
    found = ColBERTTokenizer(bert, Contract(query_length=10)).positions(["Zinc helps?"], "query")[0]
    assert found.tokens == ("[CLS]", "[unused0]", "zinc", "helps", "?", "[SEP]", *["[MASK]"] * 4)
    assert found.kinds == ("special", "marker", "word", "word", "word", "special", *["mask"] * 4)
    assert found.spans == (None, None, (0, 4), (5, 10), (10, 11), None, None, None, None, None)
    assert [word.text for word in found.words()][2:5] == ["Zinc", "helps", "?"]


def test_a_mask_in_the_text_is_a_word(bert):
    found = ColBERTTokenizer(bert, Contract(query_length=6)).positions(["[MASK]"], "query")[0]
    assert found.kinds == ("special", "marker", "word", "special", "mask", "mask")


def test_words_of_a_cut_document_are_its_own_text(bert):
    text = "Thrombocytopenia, at 3.5 mg"
    found = ColBERTTokenizer(bert, Contract(document_length=11)).positions([text], "document")[0]
    words = [word for word in found.words() if word.kind == "word"]
    # th ##rom ##bo ##cy ##top ##enia , at | 3 . 5 mg: 8 of 12 ids fit beside [CLS], [D] and [SEP]; `,` is not kept.
    assert [word.text for word in words] == ["Thrombocytopenia", "at"]
    assert [text[slice(*word.span)] for word in words] == ["Thrombocytopenia", "at"]
    assert found.cut == 4
    assert sorted(at for word in found.words() for at in word.positions) == list(range(len(found)))


def test_what_is_dropped_ends_a_word():
    tokenizer = ColBERTTokenizer(byte_level(), Contract(None, None, expansion="off"))
    found = tokenizer.positions(["ab.ba a"], "document")[0]
    assert [word.text for word in found.words()] == ["<s>", "ab", "ba", "a", "</s>"]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["play", "##ing", "##s", "ball"], ["playings", "ball"]),
        (["Ġplay", "ing", "Ġball", "?", "s"], ["playing", "ball", "?", "s"]),
        (["▁play", "ing", "▁", "ball"], ["playing", "▁", "ball"]),
        (["plain", "words"], ["plain", "words"]),
        (["##head", "##less"], ["headless"]),
    ],
)
def test_words_of_each_style(tokens, expected):
    assert [word.text for word in Positions.of(tokens).words()] == expected


def test_only_words_are_joined():
    assert joined(["[MASK]", "##s", "[SEP]"], ["mask", "word", "special"]) == (False, False, False)


def test_uneven_columns_are_refused():
    with pytest.raises(ValueError, match="equally many"):
        Positions(("a", "b"), ("word",), (False,), (None,))
