"""Operations of a query: the ratios that the ColBERT paper printed, and the formulas against what a model computes."""

import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ModernBertConfig,
    ModernBertModel,
)

from colbert_lab.evaluation.flops import (
    counted_flops,
    cross_encoder_flops,
    interaction_flops,
    late_interaction_flops,
    query_flops,
    shape_of,
    single_vector_flops,
    transformer_flops,
)
from colbert_lab.models.backbone import Backbone
from colbert_lab.models.checkpoint import save_model
from colbert_lab.models.colbert import ColBERT
from colbert_lab.models.cross_encoder import CrossEncoder, score_pairs
from colbert_lab.models.encoding import encode
from colbert_lab.models.projection import RandomProjection
from colbert_lab.text.contract import Contract
from colbert_lab.text.tokenizer import ColBERTTokenizer

BASE = {"layers": 12, "hidden": 768}
COLBERT = {"query_length": 32, "dim": 128, **BASE}


def ratio(k, **cross_encoder):
    return cross_encoder_flops(k, 512, **cross_encoder) / late_interaction_flops(document_vectors=k * 180, **COLBERT)


def test_a_tiny_transformer_by_hand():
    # One layer, L = 2, h = 3, i = 5: projections 4·2·9 = 72, feed-forward 2·2·3·5 = 60, attention 2·4·3 = 24.
    assert transformer_flops(2, 1, 3, 5) == 2 * (72 + 60 + 24)
    # and the projection of 2 ids from 3 to 4 dimensions: 2·3·4 = 24.
    assert query_flops(2, 4, 1, 3, 5) == 2 * (72 + 60 + 24 + 24)
    assert query_flops(2, None, 1, 3, 5) == transformer_flops(2, 1, 3, 5)
    assert cross_encoder_flops(7, 2, 1, 3, 5) == 7 * transformer_flops(2, 1, 3, 5)
    # Gated, the feed-forward goes in twice: 3·2·3·5 = 90.
    assert transformer_flops(2, 1, 3, 5, 3) == 2 * (72 + 90 + 24)
    assert query_flops(2, 4, 1, 3, 5, 3) == 2 * (72 + 90 + 24 + 24)
    assert cross_encoder_flops(7, 2, 1, 3, 5, 3) == 7 * transformer_flops(2, 1, 3, 5, 3)


@pytest.mark.parametrize(("k", "printed"), [(10, 180), (1000, 13_900), (2000, 23_000)])
def test_bert_base_against_colbert_as_printed(k, printed):
    assert ratio(k, **BASE) == pytest.approx(printed, rel=0.03)


def test_bert_large_against_colbert_as_printed():
    large = {"layers": 24, "hidden": 1024}
    assert ratio(1000, **large) == pytest.approx(48_600, rel=0.03)
    assert cross_encoder_flops(1000, 512, **large) == pytest.approx(340e12, rel=0.03)
    assert cross_encoder_flops(1000, 512, **BASE) == pytest.approx(97e12, rel=0.03)
    assert late_interaction_flops(document_vectors=180_000, **COLBERT) == pytest.approx(7e9, rel=0.03)


def test_the_ratio_rises_with_k_and_saturates():
    ratios = [ratio(k, **BASE) for k in (1, 10, 100, 1000, 2000, 10**5, 10**8)]
    assert ratios == sorted(ratios)
    assert ratios[-1] == pytest.approx(65_536, rel=0.01)


def test_late_interaction_and_single_vectors_by_hand():
    # A query of 2 ids through one layer with h = 3, i = 5 is 2·(72 + 60 + 24) = 312, see above.
    # Projected to 4: 2·2·3·4 = 48 more; 2 vectors with 10 of 4 dimensions: 2·2·10·4 = 160.
    assert late_interaction_flops(2, 10, 4, 1, 3, 5) == 312 + 48 + 160
    # One of the two takes part: 2·1·10·4 = 80. Kept at h = 3, without a projection: 2·2·10·3 = 120.
    assert late_interaction_flops(2, 10, 4, 1, 3, 5, query_vectors=1) == 312 + 48 + 80
    assert late_interaction_flops(2, 10, 3, 1, 3, 5, projected=False) == 312 + 120
    # One vector of 3 dimensions with 50: 2·50·3 = 300.
    assert single_vector_flops(50, 2, 1, 3, 5) == 312 + 300
    # Gated, 2·30 more for the query.
    assert single_vector_flops(50, 2, 1, 3, 5, 3) == 312 + 60 + 300
    assert late_interaction_flops(2, 10, 4, 1, 3, 5, 3) == 312 + 60 + 48 + 160


def test_counts_what_is_not_a_model():
    a, b = torch.ones(3, 4), torch.ones(4, 5)
    assert counted_flops(lambda: a @ b) == interaction_flops(3, 5, 4) == 120


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_query_of_32_ids_costs_what_the_formula_says(minilm_dir, attention):
    encoder, tokenizer = Backbone(str(minilm_dir), attention=attention).load()
    projection = RandomProjection(128).build(encoder.config.hidden_size, None, 0)
    model = ColBERT(encoder, ColBERTTokenizer(tokenizer, Contract(query_length=32)), projection).eval()
    counted = counted_flops(lambda: encode(model, ["what is late interaction?"], "query", "fp32"))
    assert shape_of(encoder) == (6, 384, 1536, 2)
    expected = query_flops(32, 128, *shape_of(encoder))
    # Attention, which torch does not count on a processor by itself, would be 1.4 % here.
    assert counted == pytest.approx(expected, rel=0.002)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("inner", [48, 64, 16])
def test_a_gated_feed_forward_goes_in_twice_and_a_window_is_masked(attention, inner):
    """ModernBERT's shape, h : i = 2 : 3, where its maps into the attention and the feed-forward are equally large, and
    others; two of its three layers see 8 positions to either side of 40."""
    config = ModernBertConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=inner,
        num_hidden_layers=3,
        num_attention_heads=4,
        local_attention=16,
        attn_implementation=attention,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "cls_token_id", "eos_token_id", "sep_token_id"), 0),
    )
    assert config.layer_types.count("sliding_attention") == 2
    model = ModernBertModel(config).eval()
    assert shape_of(model) == (3, 32, inner, 3)
    with torch.inference_mode():
        counted = counted_flops(lambda: model(input_ids=torch.ones(1, 40, dtype=torch.long)))
    assert counted == pytest.approx(transformer_flops(40, *shape_of(model)), rel=0.002)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32), BertModel),
        (DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=64), DistilBertModel),
        (
            AlbertConfig(
                embedding_size=16, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64
            ),
            AlbertModel,
        ),
    ],
    ids=["bert", "distilbert", "albert"],
)
def test_a_plain_feed_forward_has_two_products(config, kind):
    """BERT's with as many inner dimensions as outer ones; ALBERT's one layer, which stands for all."""
    assert shape_of(kind(config))[3] == 2


def test_a_pair_of_128_ids_costs_what_the_formula_says(minilm_dir):
    model = CrossEncoder.from_pretrained(str(minilm_dir), 128, seed=0)
    counted = counted_flops(lambda: score_pairs(model, ["what is it?"] * 2, ["interaction " * 200] * 2, "fp32"))
    config = model.model.config
    expected = cross_encoder_flops(2, 128, *shape_of(model.model))
    assert counted == pytest.approx(expected, rel=0.02)
    # The pooler and the head come on top, for one position of each pair.
    assert 0 < counted - expected < 2 * 2 * config.hidden_size * (config.hidden_size + 2)


def test_the_benchmark_prints_the_papers_ratios_and_those_of_two_models(tiny_backbone, toy_folder, tmp_path, capsys):
    script = Path(__file__).resolve().parents[2] / "scripts" / "bench_flops.py"
    spec = importlib.util.spec_from_file_location("bench_flops", script)
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    encoder, tokenizer = Backbone(str(tiny_backbone)).load()
    contract = Contract(query_length=12, document_length=24)
    for folder in ("late", "early"):
        (tmp_path / folder).mkdir()
    save_model(
        ColBERT(encoder, ColBERTTokenizer(tokenizer, contract), RandomProjection(16).build(32, None, 0)),
        tmp_path / "late",
    )
    CrossEncoder.from_pretrained(str(tiny_backbone), 40, seed=0).save(tmp_path / "early")
    given = ["--model", str(tmp_path / "late"), "--cross-encoder", str(tmp_path / "early"), "--folder", str(toy_folder)]
    bench.main([*given, "--k", "2", "20", "--queries", "2"])
    paper, _, models = capsys.readouterr().out.partition("\n\n")
    rows = [line.split() for line in paper.splitlines()[2:]]
    assert [row[0] for row in rows] == ["10", "1,000", "2,000"]
    for _, _, _, ratio, printed in rows:
        assert float(ratio.replace(",", "")) == pytest.approx(float(printed.replace(",", "")), rel=0.03)
    for row in (line.split() for line in models.splitlines()[2:]):
        _, early, late, formula, *counted, cross_ms, late_ms, in_ms = (float(cell.replace(",", "")) for cell in row)
        # The pairs' padding and the heads of one position each come on top of what the formula says.
        assert counted[1] == pytest.approx(late, rel=0.02)
        assert early <= counted[0] < 1.4 * early
        assert formula == pytest.approx(early / late, abs=0.06)
        assert in_ms == pytest.approx(cross_ms / late_ms, rel=0.1)
    with pytest.raises(SystemExit, match="k=61, but"):
        bench.main([*given, "--k", "61", "--queries", "1"])
