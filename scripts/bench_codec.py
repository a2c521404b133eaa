"""What compression alone costs: every document decoded and scored, beside exact search over the same vectors.

    python scripts/bench_codec.py INDEX                     the directory of a finished index=exact; prints a table
    python scripts/bench_codec.py INDEX --bits 2 --queries 100 --partitions 8192

The model and the collection that the index was made from encode and judge the queries of --split. A row is a codec:
bytes of a vector (code of 2 bytes, residual, scale, and its share of the centroids and tables; inverted lists are the
index's, not counted), the seconds to encode all vectors, how many of the exact best 10 and 100 are among its own, and
how nDCG@10 differs from exact search's. With --pooling the documents' vectors are pooled first, and the row is compared
with exact search over all of them. Nothing is pruned.
"""

import argparse
import os
import time
from collections.abc import Mapping
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch

from colbert_lab.compression.kmeans import kmeans, partitions
from colbert_lab.compression.pooling import Pooling
from colbert_lab.compression.residual import Codec, train_residuals
from colbert_lab.evaluation.metrics import evaluate
from colbert_lab.ragged import Ragged
from colbert_lab.run import Run, rank
from colbert_lab.scoring.maxsim import maxsim_ragged

# Vectors decoded at once, and vectors a centroid that k-means sees.
_ROWS = 2**16
_SAMPLE = 16


def scores_of(queries: Ragged, documents: Ragged, codec: Codec | None) -> tuple[torch.Tensor, float]:
    """MaxSim [B, N] of queries and documents after a round through the codec, and the seconds that encoding took."""
    ends = documents.offsets
    first, seconds, scores = 0, 0.0, []
    while first < len(documents):
        last = max(first + 1, int(torch.searchsorted(ends, ends[first] + _ROWS, right=True)) - 1)
        values = documents[first:last].values.float()
        if codec is not None:
            start = time.perf_counter()
            encoded = codec.encode(values)
            seconds += time.perf_counter() - start
            values = codec.decode(*encoded)
        scores.append(maxsim_ragged(queries, Ragged(values, documents.lengths[first:last])))
        first = last
    return torch.cat(scores, dim=1), seconds


def overlap(scores: torch.Tensor, exact: torch.Tensor, k: int) -> float:
    """How many of the exact best k are among the best k, as a share; k is at most the number of documents."""
    k = min(k, exact.shape[1])
    pairs = zip(scores.topk(k).indices, exact.topk(k).indices)
    return sum(float(torch.isin(a, b).float().mean()) for a, b in pairs) / len(exact)


def ndcg(ids: list[str], query_ids: list[str], scores: torch.Tensor, qrels: Mapping) -> float:
    """nDCG@10 over the queries that were scored."""
    run = Run({query: rank(ids, row.numpy()).cut(100) for query, row in zip(query_ids, scores)}, depth=100)
    return evaluate(run, {query: qrels[query] for query in query_ids}, ["ndcg_10"]).means["ndcg_10"]


def bytes_of(codec: Codec, vectors: int) -> float:
    """Bytes a vector: code, residual, scale, and its share of what the codec stores."""
    stored = sum(array.numel() * array.element_size() for array in codec.arrays().values())
    return (2 if len(codec.centroids) <= 2**16 else 4) + codec.bytes + codec.scaled + stored / vectors


def table(ids: list[str], documents: Ragged, query_ids: list[str], queries: Ragged, qrels: Mapping, options) -> None:
    """Print the rows of `options.kinds` x `options.bits`, each as soon as it is known."""
    exact, _ = scores_of(queries, documents, None)
    reference = ndcg(ids, query_ids, exact, qrels)
    pooled = Pooling(options.pooling)(documents)
    vectors = len(pooled.values)
    drawn = torch.randperm(vectors, generator=torch.Generator().manual_seed(0))
    count = options.partitions or partitions(vectors, 4)
    sample = pooled.values[drawn[: count * _SAMPLE]].float()
    start = time.perf_counter()
    centroids = kmeans(sample, count).half().float()
    seconds = time.perf_counter() - start
    print(
        f"{len(ids):,} documents, {vectors:,} vectors, {len(query_ids)} queries, {len(centroids):,} centroids of "
        f"{len(sample):,} vectors in {seconds:.1f} s, pooling {options.pooling}, {torch.get_num_threads()} threads"
    )
    print(f"exact nDCG@10 {reference:.4f}")
    print(
        f"{'codec':<9} {'bits':>4} {'bytes':>6} {'encode s':>9} {'@10':>6} {'@100':>6} {'nDCG@10':>8} {'score sd':>9}"
    )
    # The residuals' codes are trained on vectors that k-means has not seen, where there are any.
    unseen = drawn[count * _SAMPLE :][:50_000]
    unseen = pooled.values[unseen].float() if len(unseen) >= 1000 else sample
    for bits in options.bits:
        for kind in options.kinds:
            codec = train_residuals(unseen, centroids, bits, kind)
            scores, seconds = scores_of(queries, pooled, codec)
            error = scores - exact
            spread = float((error - error.mean(1, keepdim=True)).std())
            loss = ndcg(ids, query_ids, scores, qrels) - reference
            shared = f"{overlap(scores, exact, 10):6.3f} {overlap(scores, exact, 100):6.3f}"
            size = bytes_of(codec, vectors)
            print(f"{kind:<9} {bits:>4} {size:6.1f} {seconds:9.1f} {shared} {loss:+8.4f} {spread:9.3f}", flush=True)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path, help="the directory of a finished index=exact")
    parser.add_argument("--split", default="test")
    parser.add_argument("--bits", type=int, nargs="+", default=[1, 2, 4, 8], choices=[1, 2, 4, 8])
    parser.add_argument("--kinds", nargs="+", default=["stanford", "product"], choices=["stanford", "product"])
    parser.add_argument("--partitions", type=int, default=0, help="0: by the formula")
    parser.add_argument("--pooling", type=int, default=1, help="the factor of token pooling")
    parser.add_argument("--queries", type=int, default=0, help="only the first so many; 0: all")
    return parser


def main() -> None:
    from colbert_lab.artifact import Artifact
    from colbert_lab.data.collection import Collection
    from colbert_lab.index.store import Store
    from colbert_lab.models.checkpoint import load_model
    from colbert_lab.models.encoding import encode
    from colbert_lab.stages.making import input_of

    options = arguments().parse_args()
    index = Artifact.open(options.index, "index")
    store = Store.open(index.path)
    collection = Collection(input_of(index, "collection"))
    model = load_model(input_of(index, "model").path)
    qrels = collection.qrels(options.split)
    query_ids = list(qrels)[: options.queries or None]
    queries = encode(model, collection.queries.get(query_ids), "query", "fp32").embeddings
    table(store.ids, store.embeddings, query_ids, queries, qrels, options)


if __name__ == "__main__":
    main()
