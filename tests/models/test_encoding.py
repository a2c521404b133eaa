import pytest
import torch
import torch.nn.functional as F

from colbert_lab.models.encoding import backbone_vectors, encode
from colbert_lab.models.precision import resolve_precision


@pytest.mark.parametrize("role", ["query", "document"])
@pytest.mark.parametrize("expansion", ["fixed", "off"])
def test_mixed_lengths_are_as_one_by_one(make, texts, role, expansion):
    model = make(expansion=expansion)
    together = encode(model, texts, role, "fp32").embeddings
    for text, vectors in zip(texts, together, strict=True):
        alone = encode(model, [text], role, "fp32").embeddings.values
        torch.testing.assert_close(vectors, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("batch_tokens", [1, 50, 97, 10**6])
def test_batch_tokens_changes_nothing(make, texts, batch_tokens):
    model = make()
    expected = encode(model, texts, "document", "fp32").embeddings
    found = encode(model, texts, "document", "fp32", batch_tokens=batch_tokens).embeddings
    assert torch.equal(found.lengths, expected.lengths)
    torch.testing.assert_close(found.values, expected.values, atol=1e-5, rtol=0)


def test_batch_tokens_bounds_a_batch(make, texts):
    model = make()
    sizes = []
    model.register_forward_pre_hook(lambda _, args: sizes.append(tuple(args[0].ids.shape)))
    encode(model, texts * 3, "document", "fp32", batch_tokens=60)
    assert sum(rows for rows, _ in sizes) == 3 * len(texts)
    assert max(rows * length for rows, length in sizes) <= 60
    assert any(rows > 1 for rows, _ in sizes)


def test_order_is_the_order_of_the_texts(make, texts):
    model = make()
    by_text = dict(zip(texts, encode(model, texts, "document", "fp32").embeddings))
    shuffled = [texts[i] for i in torch.randperm(len(texts), generator=torch.Generator().manual_seed(1))] + texts[:2]
    assert shuffled[: len(texts)] != texts
    for text, vectors in zip(shuffled, encode(model, shuffled, "document", "fp32", batch_tokens=50).embeddings):
        torch.testing.assert_close(vectors, by_text[text], atol=1e-5, rtol=0)


def test_counts(make):
    model = make(document_length=8)
    # [CLS] [D] .. [SEP]: 4, 8 and 8 ids, of 4, 8 and 13 asked for; "!" goes through the model but is not kept.
    encoded = encode(model, ["river", "river river river river !", "river " * 10], "document", "fp32")
    assert (encoded.cut_texts, encoded.cut_tokens) == (1, 5)
    assert (encoded.tokens, encoded.padded) == (20, 24)
    assert encoded.embeddings.lengths.tolist() == [4, 7, 8]
    assert encode(model, ["river", "river " * 5], "document", "fp32", batch_tokens=8).padded == 12


def test_skip_punctuation_drops_exactly_the_punctuation(make):
    text = ["Hello, world!"]
    everything = encode(make(skip_punctuation="off"), text, "document", "fp32").embeddings.values
    kept = encode(make(), text, "document", "fp32").embeddings.values
    assert torch.equal(kept, everything[[0, 1, 2, 4, 6]])


def test_no_texts(make):
    encoded = encode(make(), [], "document")
    assert (len(encoded.embeddings), encoded.embeddings.dim, encoded.tokens, encoded.padded) == (0, 16, 0, 0)


def test_values_come_in_the_dtype_asked_for(make, texts):
    full = encode(make(), texts, "document", "fp32").embeddings.values
    half = encode(make(), texts, "document", "fp32", dtype=torch.float16).embeddings.values
    assert torch.equal(half, full.half())


def test_encoding_is_free_of_dropout_and_leaves_the_mode(make, texts):
    model = make()
    expected = encode(model, texts, "document", "fp32").embeddings.values
    model.train()
    assert torch.equal(encode(model, texts, "document", "fp32").embeddings.values, expected)
    assert model.training
    assert model.backbone.training


def test_bf16_is_close_to_fp32(make, texts):
    model = make()
    full = encode(model, texts, "document", "fp32").embeddings.values
    rounded = encode(model, texts, "document", "bf16").embeddings.values
    assert not torch.equal(rounded, full)
    assert F.cosine_similarity(rounded, full).min() > 0.99
    torch.testing.assert_close(rounded.norm(dim=1), torch.ones(len(rounded)), atol=1e-5, rtol=0)


def test_precision_is_taken_as_given_and_auto_by_the_hardware(monkeypatch):
    cpu = torch.device("cpu")
    assert [resolve_precision(p, cpu) for p in ("fp32", "bf16")] == ["fp32", "bf16"]
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert resolve_precision("auto", cpu) == "fp32"
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert resolve_precision("auto", cpu) == "bf16"


def test_backbone_vectors_are_the_unprojected_ones(make, texts):
    expected = encode(make(None), texts, "document", "fp32").embeddings.values
    found = torch.cat(list(backbone_vectors(make(), texts, "document", "fp32", batch_tokens=60)))
    assert found.shape == expected.shape
    # The parts come longest text first: the same vectors in another order.
    torch.testing.assert_close(found.T @ found, expected.T @ expected, atol=1e-4, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("role", ["query", "document"])
def test_cuda_bf16_is_close_to_the_cpu_in_fp32(make, texts, role):
    model = make()
    expected = encode(model, texts, role, "fp32").embeddings
    model.to("cuda")
    exact = encode(model, texts, role, "fp32").embeddings
    rounded = encode(model, texts, role, "bf16").embeddings
    assert exact.values.device == rounded.values.device == torch.device("cpu")
    assert torch.equal(exact.lengths, expected.lengths)
    assert torch.equal(rounded.lengths, expected.lengths)
    torch.testing.assert_close(exact.values, expected.values, atol=1e-3, rtol=0)
    assert F.cosine_similarity(rounded.values, expected.values).min() > 0.99
