"""Sentence Transformers' MultiVectorEncoder and our encoder over the same weights: the same vectors, scores, judgement.

Its evaluator takes its own model with the weights of ours, and takes ours where it is given the two methods it calls.
"""

import string
from types import SimpleNamespace

import pytest
import torch
from transformers import AddedToken

pytest.importorskip("sentence_transformers", minversion="6.0")

from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.evaluation import MultiVectorInformationRetrievalEvaluator
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

from colbert_lab.data.beir import BeirFolder
from colbert_lab.evaluation.metrics import evaluate
from colbert_lab.index.exact import ExactIndexKind
from colbert_lab.models.backbone import Backbone
from colbert_lab.models.checkpoint import load_model, save_model
from colbert_lab.models.colbert import ColBERT
from colbert_lab.models.encoding import encode
from colbert_lab.models.projection import RandomProjection
from colbert_lab.scoring.maxsim import maxsim, maxsim_ragged
from colbert_lab.text.contract import Contract
from colbert_lab.text.tokenizer import ColBERTTokenizer

QUERIES = ["Which planet is known as the Red Planet?", "", "what color is amber urine", "copper violin " * 30]
DOCUMENTS = [
    "Venus is often called Earth's twin because of its similar size and proximity.",
    "Mars, known for its reddish appearance, is often referred to as the Red Planet.",
    "",
    "Jupiter (the largest planet in our solar system) has a prominent red spot; U.S. Army!",
    "Saturn, famous for its rings, is sometimes mistaken for the Red Planet. " * 20,
]


def ours(directory, contract: Contract, dim: int) -> ColBERT:
    encoder, tokenizer = Backbone(str(directory)).load()
    projection = RandomProjection(dim).build(encoder.config.hidden_size, None, 0)
    return ColBERT(encoder, ColBERTTokenizer(tokenizer, contract), projection).eval()


def theirs(directory, contract: Contract, weight: torch.Tensor) -> MultiVectorEncoder:
    expansion = None
    if contract.expansion != "off":
        length = contract.query_length if contract.expansion == "fixed" else contract.expansion_length
        expansion = {
            "strategy": contract.expansion,
            "length": length,
            "token": "[MASK]",
            "attend": contract.attend_to_expansion,
        }
    transformer = Transformer(
        str(directory),
        query_length=contract.query_length,
        document_length=contract.document_length,
        query_expansion=expansion,
    )
    markers = [contract.query_marker, contract.document_marker]
    special = [AddedToken(marker, normalized=False, special=True) for marker in markers]
    transformer.tokenizer.add_special_tokens({"extra_special_tokens": special})
    dense = Dense(
        weight.shape[1],
        weight.shape[0],
        bias=False,
        activation_function=None,
        init_weight=weight.detach().clone(),
        module_input_name="token_embeddings",
    )
    tasks = {"off": [], "document": ["document"], "both": ["query", "document"]}[contract.skip_punctuation]
    mask = MultiVectorMask(list(string.punctuation), skiplist_tasks=tasks)
    normalize = Normalize(module_input_name="token_embeddings")
    prompts = {"query": f"{markers[0]} ", "document": f"{markers[1]} "}
    return MultiVectorEncoder(modules=[transformer, dense, mask, normalize], prompts=prompts, device="cpu")


def compare(directory, contract: Contract, dim: int) -> None:
    model = ours(directory, contract, dim)
    peer = theirs(directory, contract, model.projection.weight)
    queries = encode(model, QUERIES, "query", "fp32").embeddings
    documents = encode(model, DOCUMENTS, "document", "fp32").embeddings
    peer_queries = peer.encode_query(QUERIES, batch_size=3)
    peer_documents = peer.encode_document(DOCUMENTS, batch_size=3)
    for found, expected in ((queries, peer_queries), (documents, peer_documents)):
        assert found.lengths.tolist() == [len(vectors) for vectors in expected]
        torch.testing.assert_close(found.values, torch.cat(list(expected)), atol=1e-5, rtol=0)
    scores = peer.similarity(peer_queries, peer_documents)
    (query_vectors, query_mask), (document_vectors, document_mask) = queries.pad(), documents.pad()
    padded = maxsim(query_vectors, document_vectors, query_mask, document_mask)
    torch.testing.assert_close(padded, scores, atol=1e-4, rtol=0)
    torch.testing.assert_close(maxsim_ragged(queries, documents), scores, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"attend_to_expansion": True},
        {"expansion": "off"},
        {"expansion": "min", "expansion_length": 12},
        {"expansion": "off", "skip_punctuation": "off"},
        {"skip_punctuation": "both"},
    ],
    ids=lambda settings: "-".join(f"{key}={value}" for key, value in settings.items()) or "papers",
)
def test_same_vectors_and_scores(tiny_backbone, settings):
    compare(tiny_backbone, Contract(**{"query_length": 24, "document_length": 100, **settings}), 16)


def test_same_vectors_and_scores_with_minilm(minilm_dir):
    compare(minilm_dir, Contract(), 128)


def as_theirs(model: ColBERT) -> SimpleNamespace:
    """A model of ours with all that their evaluator asks of one."""

    def vectors(role: str):
        return lambda texts, **_: list(encode(model, texts, role, "fp32").embeddings)

    return SimpleNamespace(
        encode_query=vectors("query"),
        encode_document=vectors("document"),
        similarity_fn_name="maxsim",
        prompts={},
        model_card_data=SimpleNamespace(set_evaluation_metrics=lambda *_: None),
    )


@pytest.mark.parametrize("adapted", [False, True], ids=["their model", "our model"])
def test_their_evaluator_finds_what_exact_search_does(minilm_dir, toy_folder, tmp_path, adapted):
    """A checkpoint of ours on the toy collection; relevant is one document a query, as their gains are binary."""
    contract = Contract(query_length=16, document_length=40)
    (tmp_path / "model").mkdir()
    save_model(ours(minilm_dir, contract, 16), tmp_path / "model")
    model = load_model(tmp_path / "model")
    folder = BeirFolder(str(toy_folder))
    corpus = {one.id: f"{one.title} {one.text}" for one in folder.documents()}
    qrels: dict[str, dict[str, int]] = {}
    for judged in folder.qrels("test"):
        if judged.grade == 3:
            qrels.setdefault(judged.query, {})[judged.document] = 1
    texts = {one.id: one.text for one in folder.queries()}
    queries = {query: texts[query] for query in qrels}

    judge = MultiVectorInformationRetrievalEvaluator(
        queries, corpus, {query: set(judged) for query, judged in qrels.items()}, map_at_k=[60], write_csv=False
    )
    told = judge(as_theirs(model) if adapted else theirs(minilm_dir, contract, model.projection.weight))

    writer = ExactIndexKind().writer(tmp_path / "index", model.dim, model.similarity)
    writer.append(list(corpus), encode(model, list(corpus.values()), "document", "fp32").embeddings)
    writer.finish()
    vectors = encode(model, list(queries.values()), "query", "fp32").embeddings
    run = ExactIndexKind().open(tmp_path / "index").search(list(queries), vectors, len(corpus))
    found = evaluate(run, qrels, ["ndcg_10", "mrr_10", "recall_5", "map_60"]).means
    assert 0.1 < found["mrr_10"] < 0.9
    for name, theirs_name in (
        ("ndcg_10", "ndcg@10"),
        ("mrr_10", "mrr@10"),
        ("recall_5", "recall@5"),
        ("map_60", "map@60"),
    ):
        assert told[f"maxsim_{theirs_name}"] == pytest.approx(found[name], abs=1e-6)
