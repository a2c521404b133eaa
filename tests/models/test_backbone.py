import shutil
import time

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from colbert_lab.errors import ConfigError
from colbert_lab.models import backbone as module
from colbert_lab.models.backbone import EMBEDDED, Backbone, hidden_states, max_positions, resolve, set_attention_dropout
from colbert_lab.models.checkpoint import load_model, save_model
from colbert_lab.models.encoding import encode

SIZE = {
    "vocab_size": 30522,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 66,
    "pad_token_id": 0,
}
CONFIGS = {
    "bert": BertConfig(**SIZE),
    "roberta": RobertaConfig(**{**SIZE, "pad_token_id": 1}),
    "distilbert": DistilBertConfig(
        vocab_size=30522, dim=16, n_layers=3, n_heads=2, hidden_dim=32, max_position_embeddings=66
    ),
    "electra": ElectraConfig(**SIZE, embedding_size=8),
    # A window of 4 to each side: most padding of a short text lies where no real token can be seen.
    "modernbert": ModernBertConfig(
        **SIZE,
        local_attention=8,
        global_attn_every_n_layers=3,
        bos_token_id=101,
        eos_token_id=102,
        cls_token_id=101,
        sep_token_id=102,
    ),
    "mpnet": MPNetConfig(**{**SIZE, "pad_token_id": 1}),
    "albert": AlbertConfig(**SIZE, embedding_size=8),
}
ATTENTION = {"mpnet": "eager"}


@pytest.fixture(scope="module")
def directories(tmp_path_factory, minilm_dir):
    """A random encoder of every architecture over BERT's vocabulary, by name."""
    root = tmp_path_factory.mktemp("architectures")
    for number, (name, config) in enumerate(CONFIGS.items()):
        torch.manual_seed(number)
        AutoModel.from_config(config).save_pretrained(root / name)
        for file in ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            shutil.copy(minilm_dir / file, root / name / file)
    return root


@pytest.mark.parametrize("name", CONFIGS)
def test_any_architecture_encodes_saves_and_comes_back(make, directories, texts, name, tmp_path):
    model = make(8, directories / name, {"attention": ATTENTION.get(name, "sdpa")})
    assert not any("pooler" in key for key, _ in model.backbone.named_parameters())
    encoded = {role: encode(model, texts, role, "fp32").embeddings for role in ("query", "document")}
    for role, embeddings in encoded.items():
        for text, vectors in zip(texts, embeddings):
            alone = encode(model, [text], role, "fp32").embeddings.values
            torch.testing.assert_close(vectors, alone, atol=1e-5, rtol=0)
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    for role, embeddings in encoded.items():
        assert torch.equal(encode(again, texts, role, "fp32").embeddings.values, embeddings.values)


@pytest.mark.parametrize(("name", "limit"), [("bert", 66), ("roberta", 64), ("mpnet", 64), ("distilbert", 66)])
def test_every_position_that_is_told_can_be_used(make, directories, name, limit):
    model = make(8, directories / name, {"attention": ATTENTION.get(name, "sdpa")}, document_length=limit)
    assert max_positions(model.backbone) == limit
    assert len(encode(model, ["river " * 99], "document", "fp32").embeddings.values) == limit
    with pytest.raises(ConfigError, match=f"{limit + 1} exceeds the {limit} positions"):
        make(8, directories / name, {"attention": ATTENTION.get(name, "sdpa")}, document_length=limit + 1)


@pytest.mark.parametrize("name", ["bert", "distilbert", "modernbert"])
def test_one_layer_is_the_lowest_and_survives_saving(make, directories, texts, name, tmp_path):
    model = make(8, directories / name, {"layers": 1})
    ids = torch.tensor([[101, 2, 2314, 102]])
    whole = make(8, directories / name).backbone
    states = whole(input_ids=ids, output_hidden_states=True).hidden_states[1]
    if name != "modernbert":  # which norms the last layer's states, whichever that is
        torch.testing.assert_close(model.backbone(input_ids=ids).last_hidden_state, states)
    assert sum(p.numel() for p in model.backbone.parameters()) < sum(p.numel() for p in whole.parameters())
    save_model(model, tmp_path)
    expected = encode(model, texts, "document", "fp32").embeddings.values
    assert torch.equal(encode(load_model(tmp_path), texts, "document", "fp32").embeddings.values, expected)


@pytest.mark.parametrize("layers", [0, 4, -1])
def test_layers_that_there_are_not(directories, layers):
    with pytest.raises(ConfigError, match=f"layers={layers} must be between 1 and 3"):
        Backbone(str(directories / "bert"), layers=layers).load()


def test_layers_of_an_encoder_that_shares_one(directories):
    with pytest.raises(ConfigError, match=r"AlbertModel(.|\n)*backbone.layers=null"):
        Backbone(str(directories / "albert"), layers=2).load()


def test_attention_that_the_encoder_has_not_names_one_that_it_has(directories):
    with pytest.raises(ConfigError, match=r"MPNetModel(.|\n)*try: backbone.attention=eager"):
        Backbone(str(directories / "mpnet")).load()


def test_dropout_is_off_and_weights_are_fp32_even_where_they_were_saved_in_half(directories, tmp_path):
    shutil.copytree(directories / "bert", tmp_path / "half")
    AutoModel.from_pretrained(directories / "bert").half().save_pretrained(tmp_path / "half")
    model, _ = Backbone(str(tmp_path / "half")).load()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not model.training


@pytest.mark.parametrize("name", CONFIGS)
def test_attention_dropout_is_that_and_nothing_else(directories, name):
    model, _ = Backbone(str(directories / name), attention=ATTENTION.get(name, "sdpa")).load()
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    ids = torch.arange(5, 21)[None]

    def passes():
        torch.manual_seed(0)
        return [hidden_states(model, ids, torch.ones_like(ids)) for _ in range(2)]

    model.train()
    set_attention_dropout(model, 0.0)
    assert torch.equal(*passes())
    set_attention_dropout(model, 0.5)
    assert not torch.equal(*passes())
    assert sum(m.p == 0.5 for m in model.modules() if isinstance(m, torch.nn.Dropout)) <= model.config.num_hidden_layers
    with pytest.raises(ConfigError, match="no attention dropout"):
        set_attention_dropout(torch.nn.Linear(2, 2), 0.0)


@pytest.mark.parametrize("name", ["no-such-model", "nobody/no-such-model", "/no/such/directory"])
def test_unknown_backbone_is_refused_at_once(name):
    started = time.perf_counter()
    with pytest.raises(ConfigError, match=f"{name}(.|\n)*HF_HUB_OFFLINE(.|\n)*backbone=minilm"):
        Backbone(name).load()
    assert time.perf_counter() - started < 20


def test_embedded_backbone_is_checked_by_its_hash(monkeypatch):
    assert (module.Path(resolve(EMBEDDED)) / "model.safetensors").is_file()
    monkeypatch.setattr(module, "_EMBEDDED_SHA256", "0" * 64)
    with pytest.raises(ConfigError, match="is not the published file"):
        Backbone(EMBEDDED).load()


def test_a_directory_is_found_below_home(monkeypatch, directories):
    monkeypatch.setenv("HOME", str(directories))
    assert resolve("~/bert") == str(directories / "bert")


def test_markers_are_left_out_unless_asked_for(make):
    with pytest.raises(ConfigError, match=r"backbone\.add_markers=true"):
        make(query_marker="[Q]", document_marker="[D]")


def test_added_markers_are_new_ids_with_seeded_embeddings(make, tiny_backbone):
    markers = {"query_marker": "[Q]", "document_marker": "[D]"}
    model = make(backbone={"add_markers": True}, **markers)
    assert (model.tokenizer.query_marker, model.tokenizer.document_marker) == ([30522], [30523])
    assert model.tokenizer.documents(["river"]).ids == [[101, 30523, 2314, 102]]
    rows = model.backbone.get_input_embeddings().weight
    old = make().backbone.get_input_embeddings().weight
    assert torch.equal(rows[:30522], old)
    assert rows[30522:].std().item() == pytest.approx(old.std().item(), rel=0.5)
    assert not torch.equal(rows[30522], rows[30523])
    backbone = Backbone(str(tiny_backbone), add_markers=True)
    same, other = (backbone.load(("[Q]", "[D]"), seed)[0].get_input_embeddings().weight for seed in (0, 1))
    assert torch.equal(same, rows)
    assert not torch.equal(other, rows)


def test_markers_that_are_there_are_not_added(make):
    assert make(backbone={"add_markers": True}).backbone.get_input_embeddings().num_embeddings == 30522


def test_roberta_with_its_own_tokenizer_and_added_markers(make, tmp_path):
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġ,"]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary)}, [("Ġ", ",")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    special = {"bos": "<s>", "eos": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{name}_token": token for name, token in special.items()}
    ).save_pretrained(tmp_path / "roberta")
    size = len(vocabulary)
    # More rows than the tokenizer has entries, as checkpoints padded to a multiple of 64 have.
    config = RobertaConfig(**{**SIZE, "vocab_size": size + 11, "pad_token_id": 1})
    RobertaModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "roberta")

    markers = {"query_marker": "[Q]", "document_marker": "[D]"}
    model = make(8, tmp_path / "roberta", {"add_markers": True}, **markers)
    (ids,) = model.tokenizer.documents(["a , b, c"]).ids
    assert ids[:2] == [0, size + 1]
    assert ids[-1] == 2
    assert model.tokenizer.queries(["a"]).ids[0][:2] == [0, size]
    documents = ["a , b, c", "", "b" * 90]
    embeddings = encode(model, documents, "document", "fp32").embeddings
    assert embeddings.lengths.tolist()[:2] == [len(ids) - 2, 3]
    (tmp_path / "saved").mkdir()
    save_model(model, tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    assert torch.equal(encode(again, documents, "document", "fp32").embeddings.values, embeddings.values)
