"""Cross-encoders: transformers' own logits, pairs cut where they should be, seeded heads, what is saved comes back."""

import copy
import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification

from colbert_lab.errors import ArtifactError, ConfigError, DataError
from colbert_lab.models.backbone import EMBEDDED
from colbert_lab.models.cross_encoder import RECORD_FILE, CrossEncoder, score_pairs

QUERIES = ["what is a river", "", "stone bridge", "violin " * 40, "market", "what is a river"]
DOCUMENTS = ["A river is water that flows.", "copper", "", "one document", "island forest " * 30, "planet!"]
# Their ids with three special tokens, by hand: 4 + 7 + 3, 0 + 1 + 3, 2 + 0 + 3, 40 + 2 + 3, 1 + 60 + 3, 4 + 2 + 3.
LENGTHS = [14, 4, 5, 45, 64, 9]


@pytest.fixture(scope="session")
def loaded(tiny_backbone):
    return lively(CrossEncoder.from_pretrained(str(tiny_backbone), 32, seed=0))


@pytest.fixture
def model(loaded):
    """A model of 32 ids a pair over the tiny backbone, with a fresh head; each test has its own."""
    return copy.deepcopy(loaded)


def lively(model):
    """Weights large enough that every pair gets a score of its own: at random ones all are much alike."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter *= 5
    return model


@pytest.fixture(scope="session")
def classifier(tiny_backbone, tmp_path_factory):
    """A directory with a one-label classifier, written by transformers alone."""
    directory = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(1)
    lively(BertForSequenceClassification.from_pretrained(tiny_backbone, num_labels=1)).save_pretrained(directory)
    AutoTokenizer.from_pretrained(tiny_backbone).save_pretrained(directory)
    return directory


def test_a_classifier_of_transformers_gives_its_own_logits(classifier):
    model = CrossEncoder.from_pretrained(str(classifier), 128, seed=0)
    assert not model.fresh_head
    theirs = AutoModelForSequenceClassification.from_pretrained(classifier).eval()
    encoded = AutoTokenizer.from_pretrained(classifier)(QUERIES, DOCUMENTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = theirs(**encoded).logits[:, 0].numpy()
    scores, cut = score_pairs(model, QUERIES, DOCUMENTS, "fp32")
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert cut == 0
    assert np.diff(np.sort(expected)).min() > 1e-3, "scores that do not differ would show nothing"
    assert scores.dtype == np.float32


def test_pairs_are_the_tokenizers_own(model):
    tokens = model.tokenize(QUERIES, DOCUMENTS)
    assert tokens.cut == [max(0, length - 32) for length in LENGTHS]
    assert tokens.lengths == [min(32, length) for length in LENGTHS]

    def words(row):
        return " ".join(model.tokenizer.convert_ids_to_tokens(tokens.ids[row]))

    assert words(0) == "[CLS] what is a river [SEP] a river is water that flows . [SEP]"
    assert tokens.types[0] == [0] * 6 + [1] * 8
    assert words(1) == "[CLS] [SEP] copper [SEP]"
    assert words(4).startswith("[CLS] market [SEP] island forest island"), "the document is cut, not the query"
    # "longest_first": 40 and 2 ids have to share 29, so the query gives up all 13 of them.
    assert words(3) == "[CLS] " + "violin " * 27 + "[SEP] one document [SEP]"


@pytest.mark.parametrize("words", range(24, 34))
def test_a_query_that_leaves_no_room_is_cut_and_counted(model, words):
    tokens = model.tokenize(["violin " * words], ["one document"])
    assert tokens.lengths == [min(32, words + 5)]
    assert tokens.cut == [max(0, words + 5 - 32)]
    assert score_pairs(model, ["violin " * words], ["one document"])[1] == int(words > 27)


def test_cutting_one_pair_leaves_the_others_as_they_are(model):
    together = model.tokenize(QUERIES, DOCUMENTS)
    for row, (query, document) in enumerate(zip(QUERIES, DOCUMENTS)):
        assert model.tokenize([query], [document]).ids == [together.ids[row]]


@pytest.mark.parametrize("batch_tokens", [1, 64, 10**6])
def test_scores_are_in_the_order_of_the_pairs(model, batch_tokens):
    sizes = []
    model.register_forward_pre_hook(lambda _, args: sizes.append(tuple(args[0].ids.shape)))
    scores, cut = score_pairs(model, QUERIES, DOCUMENTS, "fp32", batch_tokens)
    alone = [score_pairs(model, [q], [d], "fp32")[0][0] for q, d in zip(QUERIES, DOCUMENTS)]
    np.testing.assert_allclose(scores, alone, atol=1e-5)
    assert cut == 2
    assert all(rows == 1 or rows * length <= batch_tokens for rows, length in sizes)


def test_scoring_is_free_of_dropout_and_leaves_the_mode(model):
    expected, _ = score_pairs(model, QUERIES, DOCUMENTS, "fp32")
    model.train()
    assert np.array_equal(score_pairs(model, QUERIES, DOCUMENTS, "fp32")[0], expected)
    assert model.training
    assert model.model.training


def test_no_pairs_and_no_pair(model):
    scores, cut = score_pairs(model, [], [])
    assert (scores.shape, scores.dtype, cut) == ((0,), np.float32, 0)
    with pytest.raises(DataError, match="2 queries and 1 documents"):
        score_pairs(model, ["a", "b"], ["c"])


def test_a_fresh_head_is_the_seeds_and_nobody_elses(tiny_backbone):
    heads = []
    for seed, caller in ((0, 1), (0, 2), (5, 1)):
        torch.manual_seed(caller)
        before = torch.get_rng_state()
        model = CrossEncoder.from_pretrained(str(tiny_backbone), 32, seed)
        assert torch.equal(torch.get_rng_state(), before)
        assert model.fresh_head
        heads.append(model.model.classifier.weight.detach())
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_the_embedded_backbone_gets_a_head(minilm_dir):
    model = CrossEncoder.from_pretrained(EMBEDDED, 180, seed=0)
    assert model.fresh_head
    assert np.isfinite(score_pairs(model, ["river"], ["stone"], "fp32")[0]).all()


def test_a_head_of_another_size_is_refused(tiny_backbone, tmp_path):
    BertForSequenceClassification.from_pretrained(tiny_backbone, num_labels=3).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_backbone).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"no classifier with one output: its classifier.bias has shape \[3\]"):
        CrossEncoder.from_pretrained(str(tmp_path), 32, seed=0)


@pytest.mark.parametrize("length", [4, 129])
def test_a_length_that_cannot_be_is_told(tiny_backbone, length):
    with pytest.raises(ConfigError, match=f"max_length={length} must be at least 5 and at most 128"):
        CrossEncoder.from_pretrained(str(tiny_backbone), length, seed=0)


def test_what_cannot_be_loaded_is_explained():
    with pytest.raises(ConfigError, match=r"cross-encoder 'nobody/nothing' cannot be loaded.*switched off"):
        CrossEncoder.from_pretrained("nobody/nothing", 32, seed=0)


def test_a_saved_model_gives_the_same_scores_bit_for_bit(model, tmp_path):
    expected, cut = score_pairs(model, QUERIES, DOCUMENTS, "fp32")
    assert cut, "the tokenizer's last call cut, which must not be saved with it"
    for directory in (tmp_path / "first", tmp_path / "second"):
        directory.mkdir()
        model.save(directory)
        model = CrossEncoder.load(directory)
        assert (model.fresh_head, model.training, model.max_length) == (False, False, 32)
        assert np.array_equal(score_pairs(model, QUERIES, DOCUMENTS, "fp32")[0], expected)
        # Weights mapped from a file lie at odd addresses, and now and then give other last bits.
        assert {parameter.data_ptr() % 64 for parameter in model.parameters()} == {0}
    for file in ("model.safetensors", "config.json", "tokenizer.json", RECORD_FILE):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes(), file
    assert json.loads((tmp_path / "first" / "tokenizer.json").read_text())["truncation"] is None
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "first").config.num_labels == 1


def test_directories_that_are_no_cross_encoder(model, classifier, tmp_path):
    with pytest.raises(ArtifactError, match=f"no cross-encoder: it has no {RECORD_FILE}"):
        CrossEncoder.load(classifier)
    model.save(tmp_path)
    (tmp_path / RECORD_FILE).write_text('{"format": 2}')
    with pytest.raises(ArtifactError, match="is of format 2, this version reads 1"):
        CrossEncoder.load(tmp_path)


def test_it_can_be_trained(model):
    tokens = model.tokenize(QUERIES, DOCUMENTS)
    model.train()(model.batch(tokens)).sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
