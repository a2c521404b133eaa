import string

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from colbert_lab.errors import ConfigError
from colbert_lab.text.contract import Contract
from colbert_lab.text.tokenizer import ColBERTTokenizer

PLAIN = {"query_marker": None, "document_marker": None}
COLOR = [101, 1, 2054, 3609, 2003, 8994, 17996, 102]


@pytest.fixture(scope="module")
def bert(minilm_dir):
    return AutoTokenizer.from_pretrained(minilm_dir)


def byte_level() -> PreTrainedTokenizerFast:
    """Byte-level BPE between <s> and </s>, as RoBERTa's; ` ,` is one entry and `,` another."""
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    spaced = ["Ġ" + c for c in ["a", "b", *string.punctuation]]
    merges = [("Ġ", token[1:]) for token in spaced]
    numbers = {token: i for i, token in enumerate(vocabulary + spaced)}
    tokenizer = Tokenizer(models.BPE(numbers, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


def sentence_piece() -> PreTrainedTokenizerFast:
    """Unigram pieces with a blank before every text, as XLM-RoBERTa's: bare `,` never comes first."""
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("<mask>", 0.0)]
    pieces += [("▁a", -1.0), ("▁b", -1.0), ("▁", -2.0), (",", -3.0), ("▁,", -3.0), (";", -3.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", mask_token="<mask>"
    )


def words(vocabulary: dict[str, int], **special: str) -> PreTrainedTokenizerFast:
    """Whole words, no special tokens around a text."""
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", **special)


def kept(tokenizer: ColBERTTokenizer, text: str, role: str = "document") -> list[str]:
    """The tokens of a text whose vectors are scored."""
    tokens = tokenizer.encode([text], role)
    scored = tokenizer.batch(tokens, role).scored[0]
    return tokenizer.tokenizer.convert_ids_to_tokens(torch.tensor(tokens.ids[0])[scored].tolist())


def test_golden_query(bert):
    tokenizer = ColBERTTokenizer(bert, Contract())
    tokens = tokenizer.queries(["what color is amber urine"])
    assert tokens.ids == [COLOR + [103] * 24]
    batch = tokenizer.batch(tokens, "query")
    assert batch.attention.tolist() == [[True] * 8 + [False] * 24]
    assert batch.scored.all()


@pytest.mark.parametrize(
    ("text", "ids", "skipped"),
    [
        ("Hello, world!", [101, 2, 7592, 1010, 2088, 999, 102], [3, 5]),
        ("U.S. Army", [101, 2, 1057, 1012, 1055, 1012, 2390, 102], [3, 5]),
        (
            "ColBERT is an efficient and effective passage retrieval model.",
            [101, 2, 23928, 2003, 2019, 8114, 1998, 4621, 6019, 26384, 2944, 1012, 102],
            [11],
        ),
        (
            "late interaction (MaxSim) over BERT: 32 vectors.",
            [101, 2, 2397, 8290, 1006, 4098, 5332, 2213, 1007, 2058, 14324, 1024, 3590, 19019, 1012, 102],
            [4, 8, 11, 14],
        ),
    ],
)
def test_golden_documents(bert, text, ids, skipped):
    tokenizer = ColBERTTokenizer(bert, Contract())
    tokens = tokenizer.documents([text])
    assert tokens.ids == [ids]
    batch = tokenizer.batch(tokens, "document")
    assert batch.attention.all()
    assert (~batch.scored[0]).nonzero()[:, 0].tolist() == skipped


def test_golden_skip_list(bert):
    expected = {*range(999, 1014), *range(1024, 1037), *range(1063, 1067)}
    assert len(expected) == 32
    assert ColBERTTokenizer(bert, Contract()).skip_ids == expected


@pytest.mark.parametrize("role", ["query", "document"])
def test_truncation_keeps_the_special_tokens_and_counts_what_it_cuts(bert, role):
    tokenizer = ColBERTTokenizer(bert, Contract(query_length=8, document_length=8, expansion="off"))
    tokens = tokenizer.encode(["river " * 5, "river " * 6, "river " * 300], role)
    assert tokens.lengths == [8, 8, 8]
    assert tokens.cut == [0, 1, 295]
    assert all(ids[-1] == 102 and ids[2:-1] == [2314] * 5 for ids in tokens.ids)


def test_limits_in_the_tokenizer_files_do_not_cut(bert):
    """MiniLM's tokenizer.json asks for 128 ids and for padding to them; the contract alone decides."""
    tokenizer = ColBERTTokenizer(bert, Contract(document_length=400))
    assert tokenizer.documents(["river " * 300, "river"]).lengths == [303, 4]


@pytest.mark.parametrize(
    ("expansion", "lengths"), [("off", [8, 3, 16]), ("fixed", [16, 16, 16]), ("min", [10, 10, 16])]
)
@pytest.mark.parametrize("attend", [False, True])
def test_expansion(bert, expansion, lengths, attend):
    contract = Contract(query_length=16, expansion=expansion, expansion_length=10, attend_to_expansion=attend)
    tokenizer = ColBERTTokenizer(bert, contract)
    tokens = tokenizer.queries(["what color is amber urine", "", "river " * 40])
    assert tokens.lengths == lengths
    assert tokens.ids[0] == COLOR + [103] * (lengths[0] - 8)
    assert tokens.attended == (lengths if attend else [8, 3, 16])
    batch = tokenizer.batch(tokens, "query")
    assert batch.scored.sum(1).tolist() == lengths
    assert batch.attention.sum(1).tolist() == tokens.attended


def test_documents_are_not_expanded(bert):
    tokens = ColBERTTokenizer(bert, Contract(attend_to_expansion=True)).documents(["what color is amber urine"])
    assert tokens.ids == [[101, 2, *COLOR[2:]]]


@pytest.mark.parametrize("name", ["query_marker", "document_marker"])
def test_missing_marker_is_refused_naming_the_fix(bert, name):
    with pytest.raises(ConfigError, match=r"\[Q\](.|\n)*backbone.add_markers=true") as caught:
        ColBERTTokenizer(bert, Contract(**{name: "[Q]"}))
    assert f"text.{name}=null" in str(caught.value)


def test_markers_are_their_own_ids_and_never_unknown(bert):
    """As text "[unused0]" would fall into pieces."""
    assert len(bert("[unused0]", add_special_tokens=False)["input_ids"]) > 1
    tokenizer = ColBERTTokenizer(bert, Contract())
    query, document = tokenizer.queries(["a"]).ids[0], tokenizer.documents(["a"]).ids[0]
    assert [query[1], document[1]] == bert.convert_tokens_to_ids(["[unused0]", "[unused1]"])
    assert bert.unk_token_id not in (query[1], document[1])


def test_no_marker_leaves_its_place_to_text(bert):
    tokens = ColBERTTokenizer(bert, Contract(**PLAIN, document_length=6)).documents(["river " * 9])
    assert tokens.ids == [[101, 2314, 2314, 2314, 2314, 102]]
    assert tokens.cut == [5]


def test_empty_texts_and_no_texts(bert):
    tokenizer = ColBERTTokenizer(bert, Contract())
    assert tokenizer.documents(["", "  "]).ids == [[101, 2, 102]] * 2
    assert tokenizer.queries([""]).ids == [[101, 1, 102] + [103] * 29]
    assert len(tokenizer.documents([])) == 0


@pytest.mark.parametrize(("skip", "query", "document"), [("off", 3, 3), ("document", 3, 2), ("both", 2, 2)])
def test_skip_punctuation(bert, skip, query, document):
    """Content vectors that are left of "hello , world"."""
    tokenizer = ColBERTTokenizer(bert, Contract(skip_punctuation=skip, expansion="off"))
    for role, expected in (("query", query), ("document", document)):
        batch = tokenizer.batch(tokenizer.encode(["hello , world"], role), role)
        assert int(batch.scored.sum()) == 3 + expected
        assert batch.attention.all()


def test_batch_pads_to_its_longest_and_pads_count_for_nothing(bert):
    tokenizer = ColBERTTokenizer(bert, Contract())
    batch = tokenizer.batch(tokenizer.documents(["river", "river, stone"]), "document")
    assert batch.ids.tolist() == [[101, 2, 2314, 102, 0, 0], [101, 2, 2314, 1010, 2962, 102]]
    assert batch.attention.tolist() == [[True] * 4 + [False] * 2, [True] * 6]
    assert batch.scored.tolist() == [[True] * 4 + [False] * 2, [True] * 3 + [False] + [True] * 2]


def test_select_keeps_each_texts_counts(bert):
    tokens = ColBERTTokenizer(bert, Contract(query_length=8)).queries(["river", "river " * 9, ""])
    picked = tokens.select([2, 1])
    assert (picked.ids, picked.attended, picked.cut) == ([tokens.ids[2], tokens.ids[1]], [3, 8], [0, 4])


def test_byte_level_special_ids_are_read_off_and_both_commas_skipped():
    tokenizer = ColBERTTokenizer(byte_level(), Contract(**PLAIN))
    assert (tokenizer.prefix, tokenizer.suffix, tokenizer.mask_id, tokenizer.pad_id) == ([0], [2], 4, 1)
    assert len(tokenizer.skip_ids) == 64
    assert kept(tokenizer, "a , b") == kept(tokenizer, "a, b") == ["<s>", "a", "Ġb", "</s>"]


def test_sentence_piece_loses_the_comma_after_a_word_too():
    tokenizer = ColBERTTokenizer(sentence_piece(), Contract(**PLAIN))
    assert (tokenizer.prefix, tokenizer.suffix) == ([], [])
    assert kept(tokenizer, "a , b") == kept(tokenizer, "a, b") == ["▁a", "▁b"]
    assert kept(tokenizer, "a; b") == ["▁a", "▁b"]


@pytest.mark.parametrize(
    "tokenizer",
    [byte_level(), sentence_piece(), words({"<unk>": 0, "a": 1, ",": 2, "<mask>": 3}, mask_token="<mask>")],
    ids=["byte-level", "sentence-piece", "words"],
)
def test_skip_list_never_holds_the_unknown_id(tokenizer):
    ours = ColBERTTokenizer(tokenizer, Contract(**PLAIN))
    assert ours.skip_ids
    assert tokenizer.unk_token_id not in ours.skip_ids


def test_unknown_words_are_scored_where_punctuation_is_unknown():
    tokenizer = ColBERTTokenizer(words({"<unk>": 0, "a": 1, "<mask>": 2}, mask_token="<mask>"), Contract(**PLAIN))
    assert kept(tokenizer, "a zebra") == ["a", "<unk>"]


def test_no_special_tokens_leaves_only_the_text():
    tokenizer = ColBERTTokenizer(words({"<unk>": 0, "a": 1, ",": 2}), Contract(**PLAIN, expansion="off"))
    tokens = tokenizer.documents(["a , a", ""])
    assert tokens.ids == [[1, 2, 1], []]
    assert tokenizer.batch(tokens, "document").scored.tolist() == [[True, False, True], [False] * 3]
    empty = tokenizer.batch(tokenizer.documents(["", ""]), "document")
    assert empty.ids.shape == (2, 1)
    assert not empty.scored.any()


def test_no_mask_token_means_no_expansion():
    with pytest.raises(ConfigError, match=r"text\.expansion=off"):
        ColBERTTokenizer(words({"<unk>": 0, "a": 1}), Contract(**PLAIN))


def test_vocabulary_with_holes():
    tokenizer = words({"<unk>": 0, "a": 70, ",": 90, "<mask>": 2}, mask_token="<mask>")
    assert kept(ColBERTTokenizer(tokenizer, Contract(**PLAIN)), "a , a") == ["a", "a"]


def test_contract_problems():
    assert Contract.problems() == []
    assert Contract.problems(query_length=32, expansion="min", expansion_length=32, document_length=4) == []
    (short,) = Contract.problems(document_length=3)
    assert "document_length=3" in short
    (beyond,) = Contract.problems(query_length=16, expansion="min", expansion_length=24)
    assert "expansion_length=24" in beyond
    assert "query_length=16" in beyond
    assert Contract.problems(query_length=16, expansion="fixed", expansion_length=24) == []
