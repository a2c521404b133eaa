"""Single vectors: sentence-transformers' recipe by hand, one vector a text, checkpoints of both kinds."""

import json

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from colbert_lab.errors import ConfigError
from colbert_lab.models.backbone import Backbone
from colbert_lab.models.checkpoint import CONTRACT_FILE, load_model, save_model
from colbert_lab.models.colbert import ColBERT
from colbert_lab.models.encoding import encode
from colbert_lab.models.single_vector import SingleVector
from colbert_lab.scoring.maxsim import maxsim_ragged
from colbert_lab.text.contract import Contract
from colbert_lab.text.tokenizer import ColBERTTokenizer


@pytest.fixture
def model(tiny_backbone):
    return SingleVector.from_pretrained(Backbone(str(tiny_backbone)), "mean", 16, 48)


@pytest.fixture(scope="module")
def minilm(minilm_dir):
    return AutoTokenizer.from_pretrained(minilm_dir), AutoModel.from_pretrained(minilm_dir).eval()


def recipe(tokenizer, encoder, texts, length, pooling):
    """What the model's card tells its user to compute, which is what sentence-transformers does."""
    encoded = tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt")
    with torch.no_grad():
        states = encoder(**encoded).last_hidden_state
    mask = encoded["attention_mask"][:, :, None].float()
    pooled = (states * mask).sum(1) / mask.sum(1) if pooling == "mean" else states[:, 0]
    return torch.nn.functional.normalize(pooled, dim=1)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_are_those_of_sentence_transformers(minilm_dir, minilm, texts, pooling):
    model = SingleVector.from_pretrained(Backbone(str(minilm_dir)), pooling, 32, 180)
    for role, length, cut in (("query", 32, 1), ("document", 180, 0)):
        encoded = encode(model, texts, role, "fp32", batch_tokens=100)
        assert encoded.embeddings.lengths.tolist() == [1] * len(texts)
        assert encoded.cut_texts == cut
        expected = recipe(*minilm, texts, length, pooling)
        torch.testing.assert_close(encoded.embeddings.values, expected, atol=1e-5, rtol=0)


def test_maxsim_of_single_vectors_is_their_cosine(model, texts):
    queries, documents = (encode(model, texts, role, "fp32").embeddings for role in ("query", "document"))
    expected = torch.nn.functional.cosine_similarity(queries.values[:, None], documents.values[None], dim=2)
    torch.testing.assert_close(maxsim_ragged(queries, documents, model.similarity), expected)
    assert (model.similarity, model.dim, queries.dim) == ("cosine", 32, 32)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_loaded_model_gives_the_same_vectors_bit_for_bit(tiny_backbone, texts, tmp_path, pooling):
    model = SingleVector.from_pretrained(Backbone(str(tiny_backbone), attention="eager"), pooling, 16, 48)
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert isinstance(again, SingleVector)
    # Weights mapped from a file lie at odd addresses, and now and then give other last bits.
    assert {parameter.data_ptr() % 64 for parameter in again.parameters()} == {0}
    assert (again.pooling, again.training, again.provenance) == (pooling, False, model.provenance)
    assert again.tokenizer.contract == model.tokenizer.contract
    for role in ("query", "document"):
        expected, found = encode(model, texts, role, "fp32"), encode(again, texts, role, "fp32")
        assert torch.equal(found.embeddings.values, expected.embeddings.values)


def test_a_colbert_saved_before_there_were_two_kinds_is_read(make, texts, tmp_path):
    model = make()
    save_model(model, tmp_path)
    record = json.loads((tmp_path / CONTRACT_FILE).read_text())
    del record["model"]
    (tmp_path / CONTRACT_FILE).write_text(json.dumps(record))
    again = load_model(tmp_path)
    assert isinstance(again, ColBERT)
    expected = encode(model, texts, "document", "fp32").embeddings.values
    assert torch.equal(encode(again, texts, "document", "fp32").embeddings.values, expected)


def test_a_text_without_any_id_has_a_zero_vector(model):
    model.tokenizer.prefix, model.tokenizer.suffix = [], []
    values = encode(model, ["river", ""], "document", "fp32").embeddings.values
    assert values.norm(dim=1).tolist() == pytest.approx([1, 0])


def test_what_one_vector_cannot_have_is_refused(tiny_backbone):
    encoder, tokenizer = Backbone(str(tiny_backbone)).load()
    with pytest.raises(ConfigError, match=r"3 problems(.|\n)*pooling is 'max'(.|\n)*expansion=off(.|\n)*skip_punct"):
        SingleVector(encoder, ColBERTTokenizer(tokenizer, Contract()), "max")
    with pytest.raises(ConfigError, match="document_length=129 exceeds the 128 positions"):
        SingleVector.from_pretrained(Backbone(str(tiny_backbone)), "mean", 16, 129)


def test_it_can_be_trained(model, texts):
    batch = model.tokenizer.batch(model.tokenizer.documents(texts), "document")
    model.train()(batch)[:, 0, 0].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
