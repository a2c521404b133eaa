import pytest
import torch
from transformers import RobertaConfig, RobertaModel

from colbert_lab.errors import ConfigError
from colbert_lab.models.colbert import ColBERT
from colbert_lab.models.encoding import encode
from colbert_lab.scoring.maxsim import maxsim


@pytest.mark.parametrize("dim", [16, None])
def test_every_vector_is_of_unit_length(make, texts, dim):
    model = make(dim)
    assert model.dim == (dim or 32)
    for role in ("query", "document"):
        values = encode(model, texts, role, "fp32").embeddings.values
        assert values.shape[1] == model.dim
        torch.testing.assert_close(values.norm(dim=1), torch.ones(len(values)))


def test_forward_is_backbone_then_projection_then_norm(make):
    model = make()
    batch = model.tokenizer.batch(model.tokenizer.documents(["river stone", "a"]), "document")
    with torch.no_grad():
        states = model.backbone(input_ids=batch.ids, attention_mask=batch.attention.long()).last_hidden_state
        expected = states @ model.projection.weight.T
        expected = expected / expected.square().sum(-1, keepdim=True).sqrt()
        torch.testing.assert_close(model(batch), expected)


def test_projection_has_no_bias(make):
    assert make().projection.bias is None


def test_query_and_document_of_the_same_text_differ(make):
    same = {"expansion": "off", "skip_punctuation": "off"}
    marked = make(**same)
    query = encode(marked, ["river stone"], "query", "fp32").embeddings.values
    document = encode(marked, ["river stone"], "document", "fp32").embeddings.values
    assert (query - document).abs().amax(1).min() > 1e-4
    plain = make(**same, query_marker=None, document_marker=None)
    query = encode(plain, ["river stone"], "query", "fp32").embeddings.values
    assert torch.equal(query, encode(plain, ["river stone"], "document", "fp32").embeddings.values)


def test_expansion_vectors_are_contextual(make):
    """Of two queries, and of two places in one query; constants would mean that expansion is dead."""
    first, second = encode(make(), ["river stone", "copper violin"], "query", "fp32").embeddings
    assert (first[5:] - second[5:]).abs().amax(1).min() > 1e-4
    assert (first[5] - first[6]).abs().max() > 1e-4


def test_unattended_expansion_leaves_the_words_alone(make):
    words = encode(make(expansion="off"), ["river stone"], "query", "fp32").embeddings.values
    unattended = encode(make(), ["river stone"], "query", "fp32").embeddings.values
    attended = encode(make(attend_to_expansion=True), ["river stone"], "query", "fp32").embeddings.values
    torch.testing.assert_close(unattended[: len(words)], words, atol=1e-5, rtol=0)
    assert (attended[: len(words)] - words).abs().max() > 1e-4


@pytest.mark.parametrize("expansion", ["off", "fixed", "min"])
def test_batch_mates_do_not_change_a_score(make, expansion):
    model = make(expansion=expansion, expansion_length=8)
    documents, mask = encode(model, ["river stone, copper", "violin"], "document", "fp32").embeddings.pad()
    alone, _ = encode(model, ["river stone"], "query", "fp32").embeddings.pad()
    both, kept = encode(model, ["river stone", "copper " * 20], "query", "fp32").embeddings.pad()
    expected = maxsim(alone, documents, document_mask=mask)[0]
    torch.testing.assert_close(maxsim(both, documents, kept, mask)[0], expected, atol=1e-4, rtol=0)


def test_zero_vectors_stay_zero_and_give_no_nan(make):
    model = make()
    torch.nn.init.zeros_(model.projection.weight)
    batch = model.tokenizer.batch(model.tokenizer.documents(["river"]), "document")
    vectors = model(batch)
    assert torch.equal(vectors, torch.zeros(1, 4, 16))
    vectors.sum().backward()
    assert model.projection.weight.grad.isfinite().all()


def test_lengths_beyond_the_positions_are_refused_naming_both(make):
    make(document_length=128)
    with pytest.raises(ConfigError, match=r"document_length=129 exceeds the 128 positions(.|\n)*document_length=128"):
        make(document_length=129)
    with pytest.raises(ConfigError) as caught:
        make(query_length=200, document_length=300)
    assert "query_length=200" in str(caught.value)
    assert "document_length=300" in str(caught.value)


def test_roberta_spends_positions_on_its_padding_index(make, tiny_backbone):
    """130 rows serve 128 ids: the 129th would be an index error, on a GPU one that kills the process."""
    config = RobertaConfig(
        vocab_size=30522,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=130,
        pad_token_id=1,
    )
    tokenizer = make(document_length=128).tokenizer
    encoder = RobertaModel(config, add_pooling_layer=False).eval()
    model = ColBERT(encoder, tokenizer, None)
    assert len(encode(model, ["river " * 200], "document", "fp32").embeddings.values) == 128
    config.max_position_embeddings = 129
    with pytest.raises(ConfigError, match="document_length=128 exceeds the 127 positions"):
        ColBERT(RobertaModel(config, add_pooling_layer=False), tokenizer, None)


@pytest.mark.parametrize(
    ("contract", "refused"),
    [({}, True), ({"attend_to_expansion": True}, False), ({"expansion": "off"}, False), ({"expansion": "min"}, True)],
)
def test_flash_attention_with_unattended_expansion_is_refused(make, contract, refused):
    model = make(**{"expansion_length": 16, **contract})
    model.backbone.config._attn_implementation = "flash_attention_2"
    if not refused:
        ColBERT(model.backbone, model.tokenizer, model.projection)
        return
    with pytest.raises(ConfigError, match=r"backbone\.attention=sdpa, text\.attend_to_expansion=true"):
        ColBERT(model.backbone, model.tokenizer, model.projection)


def test_gradients_reach_projection_and_embeddings(make):
    model = make().train()
    tokenizer = model.tokenizer
    queries = tokenizer.batch(tokenizer.queries(["river stone"]), "query")
    documents = tokenizer.batch(tokenizer.documents(["river, stone", "copper"]), "document")
    maxsim(model(queries), model(documents), queries.scored, documents.scored)[0, 0].backward()
    assert model.projection.weight.grad.abs().sum() > 0
    rows = model.backbone.get_input_embeddings().weight.grad.abs().sum(1)
    assert rows[2314] > 0
    assert rows[5000] == 0


@pytest.mark.gpu
def test_training_step_on_cuda_bf16_is_that_of_the_cpu(make):
    def step(device: str):
        model = make().to(device)
        tokenizer = model.tokenizer
        queries = tokenizer.batch(tokenizer.queries(["river stone", "copper violin"]), "query").to(device)
        documents = tokenizer.documents(["the river, a stone", "violin of copper", "winter " * 30])
        documents = tokenizer.batch(documents, "document").to(device)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            scores = maxsim(model(queries), model(documents), queries.scored, documents.scored)
        loss = torch.nn.functional.cross_entropy(scores, torch.arange(2, device=device))
        loss.backward()
        return scores.detach().cpu(), loss.item(), model.projection.weight.grad.cpu()

    scores, loss, gradient = step("cuda")
    expected_scores, expected_loss, expected_gradient = step("cpu")
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, expected_scores, atol=0.05, rtol=0)
    assert loss == pytest.approx(expected_loss, abs=0.03)
    assert torch.cosine_similarity(gradient.flatten(), expected_gradient.flatten(), dim=0) > 0.95
