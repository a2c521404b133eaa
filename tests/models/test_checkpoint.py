import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from colbert_lab.errors import ArtifactError
from colbert_lab.models.checkpoint import CONTRACT_FILE, PROJECTION_FILE, load_model, save_model
from colbert_lab.models.colbert import ColBERT
from colbert_lab.models.encoding import encode

MARKERS = {"query_marker": "[Q]", "document_marker": "[D]"}


def edit(file, change):
    """Rewrite a JSON file by a function of its content."""
    record = json.loads(file.read_text(encoding="utf-8"))
    change(record)
    file.write_text(json.dumps(record), encoding="utf-8")


@pytest.fixture
def saved(make, tmp_path):
    save_model(make(), tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("dim", "backbone", "contract"),
    [
        (16, {}, {}),
        (None, {}, {}),
        (16, {"add_markers": True}, MARKERS),
        (8, {"layers": 1, "attention": "eager"}, {"expansion": "min", "expansion_length": 8, "query_length": 24}),
        (16, {}, {"attend_to_expansion": True, "skip_punctuation": "both", "document_length": 20}),
        (16, {}, {"query_marker": None, "document_marker": None, "expansion": "off", "skip_punctuation": "off"}),
    ],
)
def test_a_loaded_model_gives_the_same_vectors_bit_for_bit(make, texts, tmp_path, dim, backbone, contract):
    model = make(dim, backbone=backbone, **contract)
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert again.tokenizer.contract == model.tokenizer.contract
    assert again.backbone.config._attn_implementation == model.backbone.config._attn_implementation
    assert not again.training
    for role in ("query", "document"):
        expected, found = encode(model, texts, role, "fp32"), encode(again, texts, role, "fp32")
        assert torch.equal(found.embeddings.values, expected.embeddings.values)
        assert torch.equal(found.embeddings.lengths, expected.embeddings.lengths)
        assert (found.cut_tokens, found.tokens) == (expected.cut_tokens, expected.tokens)


def test_trained_weights_are_the_ones_saved(make, tmp_path):
    model = make().train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    save_model(model, tmp_path)
    again = dict(load_model(tmp_path).named_parameters())
    assert again.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(again[name], parameter) for name, parameter in model.named_parameters())


def test_saving_again_writes_the_same_bytes(saved, tmp_path):
    (tmp_path / "again").mkdir()
    save_model(load_model(saved), tmp_path / "again")
    for file in ("model.safetensors", PROJECTION_FILE, CONTRACT_FILE, "tokenizer.json", "config.json"):
        assert (tmp_path / "again" / file).read_bytes() == (saved / file).read_bytes(), file


def test_the_directory_is_one_of_hugging_face(saved):
    assert AutoModel.from_pretrained(saved).config.hidden_size == 32
    assert AutoTokenizer.from_pretrained(saved)("river", add_special_tokens=False)["input_ids"] == [2314]
    assert load_file(saved / PROJECTION_FILE)["linear.weight"].shape == (16, 32)


def test_similarity_and_provenance_come_back(make, tmp_path):
    model = make()
    provenance = {"backbone": "tiny", "note": "é"}
    save_model(ColBERT(model.backbone, model.tokenizer, model.projection, "l2", provenance), tmp_path)
    again = load_model(tmp_path)
    assert (again.similarity, again.provenance) == ("l2", provenance)


def test_a_projection_left_over_from_another_model_is_not_used(make, saved):
    save_model(make(None), saved)
    assert load_model(saved).dim == 32


def swap_words(directory):
    def change(record):
        words = record["model"]["vocab"]
        words["the"], words["of"] = words["of"], words["the"]
        words["fox"], words["dog"] = words["dog"], words["fox"]

    edit(directory / "tokenizer.json", change)


def move_punctuation(directory):
    def change(record):
        words = record["model"]["vocab"]
        words[","], words["river"] = words["river"], words[","]

    edit(directory / "tokenizer.json", change)


def move_marker(directory):
    def change(record):
        words = record["model"]["vocab"]
        words["[unused0]"], words["[unused7]"] = words["[unused7]"], words["[unused0]"]

    edit(directory / "tokenizer.json", change)


def keep_case(directory):
    edit(directory / "tokenizer.json", lambda record: record["normalizer"].update(lowercase=False))
    edit(directory / "tokenizer_config.json", lambda record: record.update(do_lower_case=False))


@pytest.mark.parametrize("change", [swap_words, move_punctuation, move_marker, keep_case])
def test_a_changed_tokenizer_is_noticed(saved, change):
    change(saved)
    with pytest.raises(ArtifactError, match="tokenizer files were changed"):
        load_model(saved)


def test_a_directory_without_a_contract_is_no_checkpoint(tiny_backbone):
    with pytest.raises(ArtifactError, match=f"no checkpoint(.|\n)*{CONTRACT_FILE}"):
        load_model(tiny_backbone)


def test_another_format_and_a_broken_record_are_told(saved):
    edit(saved / CONTRACT_FILE, lambda record: record.update(format=2))
    with pytest.raises(ArtifactError, match="is of format 2, this version reads 1"):
        load_model(saved)
    (saved / CONTRACT_FILE).write_text('{"format": 1', encoding="utf-8")
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_model(saved)
