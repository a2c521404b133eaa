"""Truncation: counted by hand, and as the tokeniser itself cuts."""

import pytest
from transformers import AutoTokenizer

from colbert_lab.data.beir import BeirFolder
from colbert_lab.data.source import prepare
from colbert_lab.evaluation.truncation import spread, truncation
from colbert_lab.text.contract import Contract
from colbert_lab.text.tokenizer import ColBERTTokenizer


@pytest.fixture(scope="module")
def words(minilm_dir):
    return AutoTokenizer.from_pretrained(minilm_dir)


def test_what_lengths_cut(tmp_path, toy_folder, words):
    collection = prepare(BeirFolder(str(toy_folder)), tmp_path)
    tokenizer = ColBERTTokenizer(words, Contract(query_length=8, document_length=20))
    found = truncation(collection, tokenizer, "test")
    documents = tokenizer.documents(collection.corpus[:]).cut
    queries = tokenizer.queries(collection.queries.get(list(collection.qrels("test")))).cut
    assert found == {
        "documents": sum(n > 0 for n in documents),
        "documents_of": 60,
        # 20 ids hold 17 of the text.
        "documents_share_lost": pytest.approx(sum(documents) / (sum(documents) + 60 * 17)),
        "document_length": 20,
        "queries": sum(n > 0 for n in queries),
        "queries_of": 10,
        "queries_share_lost": pytest.approx(sum(queries) / (sum(queries) + 10 * 5)),
        "query_length": 8,
    }
    assert found["documents"] == 60
    assert found["queries"] > 0
    assert truncation(collection, tokenizer, "test", sample=7)["documents_of"] == 7


def test_a_sample_is_spread_over_all():
    assert spread(3, 5).tolist() == [0, 1, 2]
    assert spread(10, 4).tolist() == [0, 2, 5, 7]
