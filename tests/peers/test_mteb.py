"""mteb judges a checkpoint of ours through its own search interface, and reports our numbers."""

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("mteb", minversion="2.26")

import datasets
import mteb
from mteb.mocks.mock_tasks import MockRetrievalTask

from colbert_lab.data.beir import BeirFolder
from colbert_lab.evaluation.metrics import evaluate
from colbert_lab.index.exact import ExactIndexKind
from colbert_lab.models.backbone import Backbone
from colbert_lab.models.colbert import ColBERT
from colbert_lab.models.encoding import encode
from colbert_lab.models.projection import RandomProjection
from colbert_lab.text.contract import Contract
from colbert_lab.text.tokenizer import ColBERTTokenizer

SCRIPT = Path(__file__).parents[2] / "scripts" / "judge_mteb.py"


@pytest.fixture
def searched_class():
    spec = importlib.util.spec_from_file_location("judge_mteb", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["judge_mteb"] = module
    spec.loader.exec_module(module)
    return module.Searched


@pytest.mark.parametrize("reranks", [False, True])
def test_mteb_reports_our_numbers(searched_class, minilm_dir, toy_folder, tmp_path, reranks):
    folder = BeirFolder(str(toy_folder))
    corpus = [{"id": one.id, "title": one.title, "text": one.text} for one in folder.documents()]
    qrels: dict[str, dict[str, int]] = {}
    for judged in folder.qrels("test"):
        qrels.setdefault(judged.query, {})[judged.document] = judged.grade
    texts = {one.id: one.text for one in folder.queries() if one.id in qrels}
    candidates = {query: [row["id"] for row in corpus[::2]] for query in qrels} if reranks else None

    class Toy(MockRetrievalTask):
        metadata = MockRetrievalTask.metadata.model_copy(
            update={"name": "Toy", "eval_splits": ["test"], "main_score": "ndcg_at_10"}
        )

        def load_data(self, **_):
            queries = [{"id": query, "text": text} for query, text in texts.items()]
            self.dataset = {
                "default": {
                    "test": {
                        "corpus": datasets.Dataset.from_list(corpus),
                        "queries": datasets.Dataset.from_list(queries),
                        "relevant_docs": qrels,
                        "top_ranked": candidates,
                    }
                }
            }
            self.data_loaded = True

    encoder, tokenizer = Backbone(str(minilm_dir)).load()
    projection = RandomProjection(128).build(encoder.config.hidden_size, None, 0)
    model = ColBERT(encoder, ColBERTTokenizer(tokenizer, Contract()), projection).eval()
    searched = searched_class(model, tmp_path, "colbert-lab/toy")
    told = mteb.evaluate(searched, Toy(), cache=None, show_progress_bar=False, co2_tracker=False)
    theirs = told.task_results[0].scores["test"][0]

    index = ExactIndexKind().open(tmp_path / "Toy-default-test")
    vectors = encode(model, list(texts.values()), "query").embeddings
    run = index.search(list(texts), vectors, 20, only=None if candidates is None else candidates[next(iter(texts))])
    ours = evaluate(run, qrels, ["ndcg_10", "recall_20"]).means
    assert 0 < ours["ndcg_10"] < 1
    assert theirs["ndcg_at_10"] == pytest.approx(ours["ndcg_10"], abs=1e-5)
    assert theirs["recall_at_20"] == pytest.approx(ours["recall_20"], abs=1e-5)
