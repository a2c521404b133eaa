"""Checkpoints in others' dialects, read by ours and by Sentence Transformers: the same vectors for the same texts."""

import shutil
import string

import published_toys as toys
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import ModernBertConfig, ModernBertModel, PreTrainedTokenizerFast

pytest.importorskip("sentence_transformers", minversion="6.0")

from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

from colbert_lab.models.checkpoint import load_model, save_model
from colbert_lab.models.dialects import dialect_of, load_foreign
from colbert_lab.models.encoding import encode

QUERIES = ["Which planet is known as the Red Planet?", "", "what color is amber urine", "copper, violin! " * 30]
DOCUMENTS = [
    "Mars, known for its reddish appearance, is often referred to as the Red Planet.",
    "",
    "Jupiter (the largest planet in our solar system) has a prominent red spot; U.S. Army!",
    "Saturn, famous for its rings, is sometimes mistaken for the Red Planet. " * 20,
]


def same(directory):
    """Assert that both read the directory as one model; ours is returned."""
    model, peer = load_foreign(directory), MultiVectorEncoder(str(directory), device="cpu")
    for role, texts, theirs in (
        ("query", QUERIES, peer.encode_query(QUERIES, batch_size=3)),
        ("document", DOCUMENTS, peer.encode_document(DOCUMENTS, batch_size=3)),
    ):
        found = encode(model, texts, role, "fp32").embeddings
        assert found.lengths.tolist() == [len(vectors) for vectors in theirs]
        torch.testing.assert_close(found.values, torch.cat(list(theirs)), atol=1e-5, rtol=0)
    return model


def own(backbone, directory, prompts, mask=None, dense=True, similarity=None, **lengths):
    """A MultiVectorEncoder saved by its own method; a prompt of one bracketed word is made a token."""
    transformer = Transformer(str(backbone), **lengths)
    tokens = [word for prompt in prompts.values() for word in prompt.split() if word.startswith("[")]
    transformer.tokenizer.add_tokens(tokens, special_tokens=True)
    parts = [transformer]
    if dense:
        more = {"bias": False, "activation_function": None, "init_weight": toys.weight(16, 32)}
        parts.append(Dense(32, 16, module_input_name="token_embeddings", **more))
    parts += [MultiVectorMask(**(mask or {})), Normalize(module_input_name="token_embeddings")]
    model = MultiVectorEncoder(modules=parts, prompts=prompts, device="cpu", similarity_fn_name=similarity)
    model.save(str(directory))
    return directory


MARKERS = {"query": "[unused0] ", "document": "[unused1] "}
FIXED = {"strategy": "fixed", "length": 24}
PUNCTUATION = {"skiplist_words": list(string.punctuation)}


@pytest.mark.parametrize(
    ("settings", "contract"),
    [
        (
            {"prompts": MARKERS, "mask": PUNCTUATION, "document_length": 100, "query_expansion": FIXED},
            {"query_marker": "[unused0]", "query_prompt": "", "expansion": "fixed", "query_length": 24},
        ),
        (
            {"prompts": MARKERS, "document_length": 60, "query_expansion": FIXED | {"attend": True, "token": "[MASK]"}},
            {"attend_to_expansion": True, "skip_punctuation": "off", "document_length": 60},
        ),
        (
            {
                "prompts": {"query": "search query: ", "document": "passage: "},
                "mask": PUNCTUATION | {"skiplist_tasks": ["query", "document"]},
                "query_length": 40,
                "query_expansion": {"strategy": "min", "length": 20},
                "similarity": "meanmaxsim",
            },
            {
                "query_marker": None,
                "query_prompt": "search query: ",
                "skip_punctuation": "both",
                "document_length": 128,
            },
        ),
        (
            {"prompts": {}, "mask": {"skiplist_words": ["the", ",", "nosuchword"]}, "query_length": 12, "dense": False},
            {"document_marker": None, "expansion": "off", "skip_words": ("the", ","), "query_length": 12},
        ),
    ],
    ids=["markers", "attended", "words before the text", "bare"],
)
def test_what_sentence_transformers_saved_is_read(tiny_backbone, tmp_path, settings, contract):
    saved = own(tiny_backbone, tmp_path / "theirs", **settings)
    assert dialect_of(saved) == "Sentence Transformers"
    model = same(saved)
    found = model.tokenizer.contract
    assert {name: getattr(found, name) for name in contract} == contract


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mask_punctuation": False, "doc_maxlen": 40},
        {"attend_to_mask_tokens": True, "query_maxlen": 12},
        {"similarity": "l2", "query_token_id": "[unused5]"},
        None,
    ],
    ids=["plain", "punctuation kept", "attended", "l2 and another marker", "no metadata"],
)
def test_a_stanford_checkpoint(tiny_backbone, tmp_path, changes):
    metadata = None if changes is None else toys.METADATA | changes
    directory = toys.stanford(tmp_path / "theirs", tiny_backbone, metadata)
    assert dialect_of(directory) == "Stanford"
    assert same(directory).similarity == (metadata or {}).get("similarity", "cosine")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {
            "model_type": "ColBERT",
            "attend_to_expansion_tokens": True,
            "skiplist_words": ["the", "."],
            "query_length": 9,
        },
        {"do_query_expansion": False, "skiplist_words": []},
        {"prompts": {"query": "question about ", "document": ""}, "skiplist_words": ..., "document_length": 50},
        {"query_prefix": "", "document_prefix": ""},
        {"maps": ((toys.weight(24, 32), None, {}), (toys.weight(16, 24, 2), None, {}))},
        {
            "maps": (
                (toys.weight(32, 32), None, {"use_residual": True}),
                (toys.weight(8, 32), toys.weight(8, 32, 5), {"use_residual": True}),
            )
        },
    ],
    ids=["plain", "attended", "no expansion", "prompts", "no markers", "two maps", "residuals"],
)
def test_a_pylate_checkpoint(tiny_backbone, tmp_path, settings):
    directory = toys.pylate(tmp_path / "theirs", tiny_backbone, **settings)
    assert dialect_of(directory) == "PyLate"
    same(directory)


def test_one_directory_that_all_of_them_read(tiny_backbone, tmp_path):
    both = toys.stanford(tmp_path / "theirs", tiny_backbone)
    modules = toys.pylate(tmp_path / "modules", tiny_backbone, model_type="ColBERT")
    for name in ("1_Dense", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
        copy = shutil.copytree if (modules / name).is_dir() else shutil.copy
        copy(modules / name, both / name)
    assert dialect_of(both) == "PyLate"
    model = same(both)
    stanford = toys.stanford(tmp_path / "alone", tiny_backbone)
    assert load_foreign(stanford).tokenizer.contract == model.tokenizer.contract


def byte_level(directory):
    """A tiny ModernBERT over byte-level BPE: ` ,` is one entry and `,` another, and a text's first word has none."""
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    spaced = ["Ġ" + c for c in string.ascii_letters + string.punctuation]
    numbers = {token: i for i, token in enumerate(vocabulary + spaced)}
    tokenizer = Tokenizer(models.BPE(numbers, [("Ġ", token[1:]) for token in spaced]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    # As PyLate saves it: the last batch's truncation and padding are in the file.
    tokenizer.enable_truncation(23)
    tokenizer.enable_padding(length=23, pad_id=4, pad_token="<mask>")
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<mask>", model_max_length=128, **special)
    fast.save_pretrained(directory)
    torch.manual_seed(0)
    config = ModernBertConfig(
        vocab_size=len(numbers),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        cls_token_id=0,
        sep_token_id=2,
    )
    ModernBertModel(config).save_pretrained(directory)
    return directory


def test_byte_level_markers_keep_their_blank_and_only_bare_punctuation_is_skipped(tmp_path):
    backbone = toys.with_markers(tmp_path / "marked", byte_level(tmp_path / "bytes"))
    directory = toys.pylate(tmp_path / "theirs", backbone, query_prefix="[Q] ", document_prefix="[D] ")
    model = same(directory)
    contract = model.tokenizer.contract
    assert (contract.query_marker, contract.document_marker) == ("[Q] ", "[D] ")
    assert contract.skip_words == tuple(string.punctuation)
    # ` ,` is an entry of its own, and not on the list.
    assert len(encode(model, ["a,b"], "document").embeddings.values) == 5
    assert len(encode(model, ["a ,b"], "document").embeddings.values) == 6


def test_a_blank_behind_a_byte_level_marker_is_part_of_the_text(tmp_path):
    prompts = {"query": "[Q] ", "document": "[D] say: "}
    backbone = toys.with_markers(tmp_path / "marked", byte_level(tmp_path / "bytes"), ("[Q]", "[D]"))
    directory = own(backbone, tmp_path / "theirs", prompts, PUNCTUATION, document_length=100, query_expansion=FIXED)
    model = same(directory)
    (tmp_path / "ours").mkdir()
    save_model(model, tmp_path / "ours")
    again = load_model(tmp_path / "ours")
    assert again.tokenizer.contract == model.tokenizer.contract
    for role in ("query", "document"):
        expected, found = (encode(one, DOCUMENTS, role, "fp32").embeddings.values for one in (model, again))
        assert torch.equal(found, expected)
    contract = model.tokenizer.contract
    assert (contract.query_marker, contract.query_prompt) == ("[Q]", " ")
    [first, *_] = model.tokenizer.positions(["ab c"], "query")[0].words()[2:]
    assert (first.text, first.span) == ("ab", (0, 2))
