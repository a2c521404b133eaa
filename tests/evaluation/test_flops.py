"""Operations of a query: the ratios that the ColBERT paper printed, and the formulas against what a model computes."""

import pytest
import torch

from colbert_lab.evaluation.flops import (
    counted_flops,
    cross_encoder_flops,
    exact_search_flops,
    interaction_flops,
    late_interaction_flops,
    query_flops,
    residual_search_flops,
    single_vector_flops,
    transformer_flops,
)
from colbert_lab.models.backbone import Backbone
from colbert_lab.models.colbert import ColBERT
from colbert_lab.models.cross_encoder import CrossEncoder, score_pairs
from colbert_lab.models.encoding import encode
from colbert_lab.models.projection import RandomProjection
from colbert_lab.text.contract import Contract
from colbert_lab.text.tokenizer import ColBERTTokenizer

BASE = {"layers": 12, "hidden": 768}
COLBERT = {"query_length": 32, "document_length": 180, "dim": 128, **BASE}


def ratio(k, **cross_encoder):
    return cross_encoder_flops(k, 512, **cross_encoder) / late_interaction_flops(k, **COLBERT)


def test_a_tiny_transformer_by_hand():
    # One layer, L = 2, h = 3, i = 5: projections 4·2·9 = 72, feed-forward 2·2·3·5 = 60, attention 2·4·3 = 24.
    assert transformer_flops(2, 1, 3, 5) == 2 * (72 + 60 + 24)
    # and the projection of 2 ids from 3 to 4 dimensions: 2·3·4 = 24.
    assert query_flops(2, 4, 1, 3, 5) == 2 * (72 + 60 + 24 + 24)
    assert query_flops(2, None, 1, 3, 5) == transformer_flops(2, 1, 3, 5)
    assert cross_encoder_flops(7, 2, 1, 3, 5) == 7 * transformer_flops(2, 1, 3, 5)


@pytest.mark.parametrize(("k", "printed"), [(10, 180), (1000, 13_900), (2000, 23_000)])
def test_bert_base_against_colbert_as_printed(k, printed):
    assert ratio(k, **BASE) == pytest.approx(printed, rel=0.03)


def test_bert_large_against_colbert_as_printed():
    large = {"layers": 24, "hidden": 1024}
    assert ratio(1000, **large) == pytest.approx(48_600, rel=0.03)
    assert cross_encoder_flops(1000, 512, **large) == pytest.approx(340e12, rel=0.03)
    assert cross_encoder_flops(1000, 512, **BASE) == pytest.approx(97e12, rel=0.03)
    assert late_interaction_flops(1000, **COLBERT) == pytest.approx(7e9, rel=0.03)


def test_the_ratio_rises_with_k_and_saturates():
    ratios = [ratio(k, **BASE) for k in (1, 10, 100, 1000, 2000, 10**5, 10**8)]
    assert ratios == sorted(ratios)
    assert ratios[-1] == pytest.approx(65_536, rel=0.01)


def test_searches_end_to_end_add_what_they_multiply():
    encoding = query_flops(32, 128, **BASE)
    assert exact_search_flops(32, 1000, 128, **BASE) == encoding + 2 * 32 * 1000 * 128
    assert residual_search_flops(32, 64, 1000, 128, **BASE) == encoding + 2 * 64 * 32 * 128 + 2 * 32 * 1000 * 128
    assert single_vector_flops(50, 32, **BASE) == transformer_flops(32, **BASE) + 2 * 50 * 768
    # Exact search of k documents is re-ranking them.
    assert exact_search_flops(32, 10 * 180, 128, **BASE) == late_interaction_flops(10, **COLBERT)


def test_counts_what_is_not_a_model():
    a, b = torch.ones(3, 4), torch.ones(4, 5)
    assert counted_flops(lambda: a @ b) == interaction_flops(3, 5, 4) == 120


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_query_of_32_ids_costs_what_the_formula_says(minilm_dir, attention):
    encoder, tokenizer = Backbone(str(minilm_dir), attention=attention).load()
    projection = RandomProjection(128).build(encoder.config.hidden_size, None, 0)
    model = ColBERT(encoder, ColBERTTokenizer(tokenizer, Contract(query_length=32)), projection).eval()
    counted = counted_flops(lambda: encode(model, ["what is late interaction?"], "query", "fp32"))
    config = encoder.config
    expected = query_flops(32, 128, config.num_hidden_layers, config.hidden_size, config.intermediate_size)
    # Attention, which torch does not count on a processor by itself, would be 1.4 % here.
    assert counted == pytest.approx(expected, rel=0.002)


def test_a_pair_of_128_ids_costs_what_the_formula_says(minilm_dir):
    model = CrossEncoder.from_pretrained(str(minilm_dir), 128, seed=0)
    counted = counted_flops(lambda: score_pairs(model, ["what is it?"] * 2, ["interaction " * 200] * 2, "fp32"))
    config = model.model.config
    expected = cross_encoder_flops(2, 128, config.num_hidden_layers, config.hidden_size, config.intermediate_size)
    assert counted == pytest.approx(expected, rel=0.02)
    # The pooler and the head come on top, for one position of each pair.
    assert 0 < counted - expected < 2 * 2 * config.hidden_size * (config.hidden_size + 2)
