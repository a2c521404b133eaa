"""Published checkpoints read: what one dialect says in several ways, and what is refused by file, key and value.

That the vectors are those of the dialects' own code is held in tests/peers.
"""

import json
import pickle
import shutil

import published_toys as toys
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from colbert_lab.errors import ArtifactError, ConfigError
from colbert_lab.models.dialects import dialect_of, load_foreign, needed, told
from colbert_lab.models.encoding import encode
from colbert_lab.text.contract import Contract
from colbert_lab.text.tokenizer import ColBERTTokenizer

TEXTS = ["Hello, world!", "what color is amber urine"]


def vectors(model):
    return torch.cat([encode(model, TEXTS, role, "fp32").embeddings.values for role in ("query", "document")])


@pytest.fixture
def stanford(tmp_path, tiny_backbone):
    return toys.stanford(tmp_path / "stanford", tiny_backbone)


@pytest.fixture
def pylate(tmp_path, tiny_backbone):
    return toys.pylate(tmp_path / "pylate", tiny_backbone)


def test_a_stanford_contract_and_its_golden_ids(stanford):
    model = load_foreign(stanford)
    assert model.tokenizer.contract == Contract(query_length=24, document_length=100)
    assert model.tokenizer.queries(["what color is amber urine"]).ids == [
        [101, 1, 2054, 3609, 2003, 8994, 17996, 102] + [103] * 16
    ]
    assert len(model.tokenizer.skip_ids) == 32
    assert torch.equal(model.projection.weight, toys.weight(16, 32))
    assert model.provenance == {"dialect": "Stanford", "assumed": []}
    assert not model.training


def test_a_wrapper_and_pickled_tensors_are_the_same_model(tmp_path, tiny_backbone, stanford):
    wrapped = toys.stanford(tmp_path / "wrapped", tiny_backbone, {"config": toys.METADATA}, pickled=True)
    model = load_foreign(wrapped)
    assert model.tokenizer.contract == Contract(query_length=24, document_length=100)
    assert torch.equal(vectors(model), vectors(load_foreign(stanford)))


def test_what_is_absent_is_read_as_stanford_does_and_told(tmp_path, tiny_backbone):
    old = {key: toys.METADATA[key] for key in ("query_maxlen", "mask_punctuation", "attend_to_mask_tokens")}
    model = load_foreign(toys.stanford(tmp_path / "old", tiny_backbone, old | {"dim": 128}))
    # 220 is Stanford's default, and this backbone has 128 positions.
    assert model.tokenizer.contract == Contract(query_length=24, document_length=128)
    line, assumed = told(model).split("\n")
    assert line == (
        "Stanford checkpoint, 16 dimensions, queries of 24 and documents of 128 ids, markers '[unused0]' and "
        "'[unused1]', expansion fixed to 24, not attended, 32 ids skipped in documents, cosine"
    )
    for part in ("dim=16, the rows of linear.weight; artifact.metadata says 128", "doc_maxlen=128", "'[unused0]'"):
        assert part in assumed
    bare = load_foreign(toys.stanford(tmp_path / "bare", tiny_backbone, None))
    assert "artifact.metadata is absent" in told(bare)


def test_several_maps_are_their_product(tmp_path, tiny_backbone):
    first, second, past = toys.weight(24, 32), toys.weight(8, 24, 2), toys.weight(8, 24, 5)
    maps = ((first, None, {}), (second, past, {"use_residual": True}))
    model = load_foreign(toys.pylate(tmp_path / "two", tiny_backbone, maps))
    torch.testing.assert_close(model.projection.weight.data, (second + past) @ first, atol=1e-6, rtol=0)


def test_prefixes_with_and_without_their_blank(tmp_path, tiny_backbone):
    backbone = toys.with_markers(tmp_path / "marked", tiny_backbone)
    said = {"query_prefix": "[Q] ", "document_prefix": "[unused1] "}
    model = load_foreign(toys.pylate(tmp_path / "pylate", backbone, **said))
    contract = model.tokenizer.contract
    assert (contract.query_marker, contract.document_marker) == ("[Q] ", "[unused1]")
    assert (model.tokenizer.query_marker, model.tokenizer.document_marker) == ([30522], [2])


def test_a_prompt_whose_end_belongs_to_the_text_is_refused(tiny_backbone):
    with pytest.raises(ConfigError, match="query_prompt='un' and the text after it share a token"):
        ColBERTTokenizer(AutoTokenizer.from_pretrained(tiny_backbone), Contract(query_prompt="un"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query_token_id": "[nowhere]"}, r"artifact.metadata: query_token_id is '\[nowhere\]', which the vocabulary"),
        ({"interaction": "flipr"}, "interaction is 'flipr'; only 'colbert'"),
        ({"similarity": "dot"}, "similarity is 'dot'; only 'cosine' and 'l2'"),
        ({"query_maxlen": "32"}, "query_maxlen is '32'; a whole number was expected"),
        ({"mask_punctuation": 1}, "mask_punctuation is 1; true or false was expected"),
        ({"doc_maxlen": 512}, "document_length=512 exceeds the 128 positions"),
        ({"query_maxlen": 2}, "query_length=2 leaves no room"),
    ],
)
def test_stanford_metadata_that_cannot_be_followed(tmp_path, tiny_backbone, changes, message):
    directory = toys.stanford(tmp_path / "stanford", tiny_backbone, toys.METADATA | changes)
    with pytest.raises(ArtifactError, match=message):
        load_foreign(directory)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"activation_function": "torch.nn.modules.activation.Tanh"}, "activation_function is '.*Tanh'; .* linear"),
        ({"activation_function": "os.system"}, "activation_function is 'os.system'"),
        ({"bias": True}, "1_Dense/config.json: bias is True; a projection of ours has none"),
        ({"out_features": 128}, r"out_features is 128; its linear.weight is \[24, 32\]"),
        ({"use_residual": True}, r"use_residual is True; there is no residual.weight of \[24, 32\]"),
        ({"module_input_name": "sentence_embedding"}, "only token_embeddings"),
    ],
)
def test_dense_layers_that_are_no_linear_map(tmp_path, tiny_backbone, config, message):
    maps = ((toys.weight(24, 32), None, config), (toys.weight(8, 24), None, {}))
    with pytest.raises(ArtifactError, match=message):
        load_foreign(toys.pylate(tmp_path / "pylate", tiny_backbone, maps))


@pytest.mark.parametrize(
    ("maps", "settings", "message"),
    [
        (((toys.weight(8, 24), None, {}),), {}, "in_features is 24, and 32 come in"),
        ((), {}, "lists no Dense; PyLate would add"),
        (((),), {"embedding_size": 128}, "embedding_size is 128; the last Dense gives 16"),
        (((),), {"query_prefix": "[Q] "}, r"query_prefix is '\[Q\] ', which the vocabulary"),
        (((),), {"document_prefix": ...}, r"document_prefix is '\[D\] ', which"),
        (((),), {"query_expansion": {"strategy": "none"}}, "query_expansion is .*fixed or min"),
        (((),), {"query_expansion": {"strategy": "fixed", "length": 9, "token": "[SEP]"}}, "only the mask token"),
    ],
)
def test_pylate_settings_that_cannot_be_followed(tmp_path, tiny_backbone, maps, settings, message):
    with pytest.raises(ArtifactError, match=message):
        load_foreign(toys.pylate(tmp_path / "pylate", tiny_backbone, maps, **settings))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("sentence_transformers.models.Pooling", "type of module 2 is 'sentence_transformers.models.Pooling'"),
        ("builtins.Dense", "type of module 2 is 'builtins.Dense'"),
        ("sentence_transformers.models.Transformer", "type runs Transformer, Dense, Transformer"),
    ],
)
def test_modules_that_are_not_read(pylate, kind, message):
    modules = json.loads((pylate / "modules.json").read_text())
    toys.write_json(pylate / "modules.json", [*modules, {"idx": 2, "path": "2_More", "type": kind}])
    with pytest.raises(ArtifactError, match=message):
        load_foreign(pylate)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query_maxlen": 32}, "artifact.metadata: query_maxlen is 32; by modules.json .* it is 24"),
        ({"doc_token_id": "[unused7]"}, r"doc_token_id is '\[unused7\]'; .* it is '\[unused1\]'"),
        ({"mask_punctuation": False}, "mask_punctuation is False; .* it is True"),
        ({"attend_to_mask_tokens": True}, "attend_to_mask_tokens is True"),
        ({"dim": 128}, "dim is 128; .* it is 16"),
    ],
)
def test_metadata_that_contradict_each_other(pylate, changes, message):
    toys.write_json(pylate / "artifact.metadata", toys.METADATA)
    load_foreign(pylate)
    toys.edit(pylate / "artifact.metadata", **changes)
    with pytest.raises(ArtifactError, match=message):
        load_foreign(pylate)


def test_lower_case_that_the_tokenizer_does_not_make(pylate):
    toys.edit(pylate / "sentence_bert_config.json", do_lower_case=True)
    load_foreign(pylate)
    tokenizer = json.loads((pylate / "tokenizer.json").read_text())
    toys.edit(pylate / "tokenizer.json", normalizer=tokenizer["normalizer"] | {"lowercase": False})
    toys.edit(pylate / "tokenizer_config.json", do_lower_case=False)
    with pytest.raises(ArtifactError, match="do_lower_case is True; its tokenizer tells letter case apart"):
        load_foreign(pylate)


def test_two_projections_that_differ(pylate, stanford):
    shutil.copy(stanford / "model.safetensors", pylate / "model.safetensors")
    load_foreign(pylate)
    held = load_file(pylate / "model.safetensors")
    held["linear.weight"][3, 5] += 1e-6
    save_file(held, pylate / "model.safetensors", {"format": "pt"})
    with pytest.raises(ArtifactError, match=r"linear.weight beside the backbone differs"):
        load_foreign(pylate)


def test_weights_that_are_cut_short_or_missing(stanford):
    file = stanford / "model.safetensors"
    held = load_file(file)
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ArtifactError, match=r"model.safetensors cannot be read, it may have been cut short"):
        load_foreign(stanford)
    del held["bert.encoder.layer.1.output.dense.weight"]
    save_file(held, file, {"format": "pt"})
    with pytest.raises(ArtifactError, match=r"lacks 1 weights of a BertModel, encoder.layer.1.output.dense.weight"):
        load_foreign(stanford)
    # As in a repository whose model is code of its own: the weights bear other names.
    toys.edit(stanford / "config.json", auto_map={"AutoModel": "modeling_bert.JinaBertModel"})
    with pytest.raises(ArtifactError, match=r"auto_map is .*JinaBertModel.*never run"):
        load_foreign(stanford)
    file.unlink()
    with pytest.raises(ArtifactError, match=r"has no weights: neither model.safetensors nor pytorch_model.bin"):
        load_foreign(stanford)


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('run')",))


def test_a_pickle_of_more_than_tensors_is_not_run(stanford):
    (stanford / "model.safetensors").unlink()
    (stanford / "pytorch_model.bin").write_bytes(pickle.dumps({"linear.weight": Evil()}, protocol=2))
    with pytest.raises(ArtifactError, match=r"pytorch_model.bin cannot be read as tensors alone"):
        load_foreign(stanford)


def test_other_directories_are_of_no_dialect(tiny_backbone, tmp_path, pylate):
    assert dialect_of(tmp_path) is None
    assert dialect_of(tiny_backbone) is None
    with pytest.raises(ArtifactError, match="no checkpoint of a late-interaction model"):
        load_foreign(tiny_backbone)
    toys.write_json(pylate / "config_sentence_transformers.json", {"model_type": "SentenceTransformer"})
    modules = json.loads((pylate / "modules.json").read_text())
    modules[1]["type"] = "sentence_transformers.models.Dense"
    toys.write_json(pylate / "modules.json", modules)
    assert dialect_of(pylate) is None


def test_pickles_are_taken_only_where_nothing_else_is():
    files = [
        "pytorch_model.bin",
        "model.safetensors",
        "1_Dense/pytorch_model.bin",
        "1_Dense/config.json",
        "config.json",
    ]
    more = [
        "onnx/model.onnx",
        "README.md",
        "modeling_bert.py",
        "tf_model.h5",
        "a/b/model.safetensors",
        "tokenizer.json",
    ]
    taken = ["1_Dense/config.json", "1_Dense/pytorch_model.bin", "config.json", "model.safetensors", "tokenizer.json"]
    assert needed([*files, *more]) == taken
