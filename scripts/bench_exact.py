"""Exact search and re-ranking beside what one would write in torch, in turns, in one process.

    python scripts/bench_exact.py INDEX                              queries drawn from the documents' own vectors
    python scripts/bench_exact.py INDEX --query-vectors 21
    python scripts/bench_exact.py INDEX --model MODEL --folder DIR   queries of a BEIR folder, encoded by a model

INDEX is a directory of kind exact. What torch is given: the documents sorted by length, in buckets padded by
repetition, converted to fp32 and in memory before the clock starts; for a query one product and one maximum a bucket,
and the best k. Ours: the index as it is, from query vectors to a ranking with ids. "fp32 kernel" scores all documents
exactly; "index" rules most out first. The time in which the index makes its codes, at its first search, stands apart.
Re-ranking scores 1,000 documents: one product of all their vectors, gathered in memory before the clock starts, with a
scatter or segment maximum (fp32), against the packed kernel on the same gathered documents (the store's dtype), and the
index, which scores them by id where they lie. The first round of each is not counted.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from colbert_lab.data.beir import BeirFolder
from colbert_lab.index.exact import ExactIndexKind
from colbert_lab.models.checkpoint import load_model
from colbert_lab.models.encoding import encode
from colbert_lab.ragged import Ragged
from colbert_lab.scoring.kernels import PackedDocuments

# Vectors of a bucket, which torch multiplies at once: of 2**13 to 2**17, the fastest on the machines tried.
_BUCKET_VECTORS = 2**15


class TorchBuckets:
    """Documents in buckets of equal length (the last few per cent by repetition), and their product and maximum."""

    def __init__(self, documents: Ragged):
        order = documents.lengths.argsort(stable=True)
        order = order[int((documents.lengths == 0).sum()) :]
        lengths, starts = documents.lengths[order], documents.offsets[order]
        self.order, self.buckets, first = order, [], 0
        while first < len(order):
            longest = 1 + int(lengths[first] * 1.03)
            last = int(torch.searchsorted(lengths, longest, right=True))
            last = max(first + 1, min(last, first + _BUCKET_VECTORS // longest))
            within = torch.minimum(torch.arange(int(lengths[last - 1])), lengths[first:last, None] - 1)
            self.buckets.append(documents.values[starts[first:last, None] + within].float())
            first = last

    def scores(self, query: torch.Tensor) -> torch.Tensor:
        """One query [m, d] against all non-empty documents, shortest first."""
        parts = []
        for bucket in self.buckets:
            count, n, d = bucket.shape
            parts.append((bucket.view(-1, d) @ query.T).view(count, n, -1).amax(1).sum(1))
        return torch.cat(parts)

    def best(self, query: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores and numbers of the k best."""
        scores, places = self.scores(query).topk(min(k, len(self.order)))
        return scores, self.order[places]


def scatter_max(values: torch.Tensor, document: torch.Tensor, count: int, query: torch.Tensor) -> torch.Tensor:
    """Scores of `count` documents, one product and one scatter; `document` [T] is the document of each vector."""
    products = values @ query.T
    best = products.new_full((count, len(query)), -torch.inf)
    return best.scatter_reduce_(0, document[:, None].expand_as(products), products, "amax").sum(1)


def segment_max(values: torch.Tensor, lengths: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """The same with a maximum over segments."""
    return torch.segment_reduce(values @ query.T, "max", lengths=lengths, axis=0).sum(1)


def in_turns(systems: dict[str, Callable[[int], object]], rounds: int, clock) -> dict[str, np.ndarray]:
    """Seconds [rounds] of every system; a round gives each the same query, the first is thrown away."""
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for number in range(rounds + 1):
        for name, run in systems.items():
            start = clock()
            run(number)
            seconds[name].append(clock() - start)
    return {name: np.array(times[1:]) for name, times in seconds.items()}


def table(title: str, seconds: dict[str, np.ndarray]) -> None:
    """Median, best and 95th percentile in ms, and how many times as fast as the first."""
    print(f"\n{title}\n{'':<24}{'p50 ms':>9}{'best ms':>9}{'p95 ms':>9}{'ratio p50':>11}{'ratio best':>12}")
    base = next(iter(seconds.values()))
    for name, times in seconds.items():
        middle, best, slow = statistics.median(times), times.min(), np.quantile(times, 0.95)
        ratios = f"{statistics.median(base / times):11.2f}{base.min() / best:12.2f}"
        print(f"{name:<24}{middle * 1e3:9.2f}{best * 1e3:9.2f}{slow * 1e3:9.2f}{ratios}")


def drawn_queries(documents: Ragged, count: int, vectors: int) -> Ragged:
    """Queries of that many vectors, each query's drawn from one document's own, with noise; the seed is 0."""
    generator = torch.Generator().manual_seed(0)
    full = (documents.lengths > 0).nonzero()[:, 0]
    chosen = full[torch.randint(len(full), (count,), generator=generator)].repeat_interleave(vectors)
    within = (torch.rand(len(chosen), generator=generator) * documents.lengths[chosen]).long()
    values = documents.values[documents.offsets[chosen] + within].float()
    noise = torch.randn(values.shape, generator=generator) / values.shape[1] ** 0.5
    values = torch.nn.functional.normalize(values + 0.5 * noise, dim=1)
    return Ragged(values, torch.full((count,), vectors))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path, help="a directory of an exact index, similarity cosine")
    parser.add_argument("--queries", type=int, default=300, help="how many at most, for the batch")
    parser.add_argument("--query-vectors", type=int, default=32, help="of a query drawn from the documents")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--folder", type=Path, help="a BEIR folder whose queries the model encodes")
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true", help="one thread, seconds of this process's CPU time")
    options = parser.parse_args()

    threads, clock = (1, time.process_time) if options.cpu_time else (options.threads, time.perf_counter)
    torch.set_num_threads(threads)
    index = ExactIndexKind().open(options.index)
    documents = index.embeddings(index.ids)
    if options.model:
        texts = [record.text for record, _ in zip(BeirFolder(str(options.folder)).queries(), range(options.queries))]
        queries = encode(load_model(options.model), texts, "query", "fp32").embeddings
    else:
        queries = drawn_queries(documents, options.queries, options.query_vectors)
    ids = [str(number) for number in range(len(queries))]
    buckets, packed = TorchBuckets(documents), PackedDocuments(documents)
    k, rounds = options.k, options.rounds

    def query(number: int) -> Ragged:
        return queries[number % len(queries) : number % len(queries) + 1]

    packed.scores(query(0))
    start = clock()
    index.search(ids[:1], query(0), k)
    first = clock() - start
    per_query = queries.lengths.double().mean()
    kind = "CPU time, 1 thread" if options.cpu_time else f"{threads} threads"
    print(
        f"{len(documents):,} documents, {len(documents.values):,} vectors of {documents.dim}, {documents.values.dtype};"
    )
    print(
        f"{len(queries)} queries of {per_query:.1f} vectors; k = {k}; {kind}; first search (makes codes) {first:.2f} s"
    )

    systems = {
        "torch length-bucketed": lambda n: buckets.best(query(n).values, k),
        "fp32 kernel": lambda n: packed.scores(query(n)),
        "index": lambda n: index.search(["q"], query(n), k),
    }
    table("one query", in_turns(systems, rounds, clock))

    worst, order = 0.0, 0
    for number in range(min(rounds, len(queries))):
        hits = index.search(["q"], query(number), k)["q"]
        scores, numbers = buckets.best(query(number).values, k)
        worst = max(worst, float(np.abs(hits.scores / scores.double().numpy() - 1).max()))
        order += [index.ids[i] for i in numbers.tolist()] != list(hits.ids)
    print(f"largest relative difference of a score {worst:.1e}; rankings in another order {order}")

    batch = {
        "torch length-bucketed": lambda n: [buckets.best(one, k) for one in queries],
        "index, one by one": lambda n: [index.search(["q"], query(i), k) for i in range(len(queries))],
        "index, batch": lambda n: index.search(ids, queries, k),
    }
    seconds = in_turns(batch, 2, clock)
    table(f"{len(queries)} queries", seconds)
    print("queries/s: " + ", ".join(f"{name} {len(queries) / times.min():.1f}" for name, times in seconds.items()))

    drawn = torch.randperm(len(documents), generator=torch.Generator().manual_seed(0))[:1000]
    some, names = documents.select(drawn), [index.ids[row] for row in drawn.tolist()]
    values = some.values.float()
    document = torch.arange(len(some)).repeat_interleave(some.lengths)
    gathered = {
        "torch packed scatter": lambda n: scatter_max(values, document, len(some), query(n).values),
        "torch segment max": lambda n: segment_max(values, some.lengths, query(n).values),
        "packed kernel": lambda n: PackedDocuments(some).scores(query(n)),
        "index, by id": lambda n: index.scores(query(n), names),
    }
    apart = np.abs(gathered["index, by id"](0) / gathered["torch packed scatter"](0).numpy() - 1).max()
    table(f"re-ranking {len(some):,} documents, {len(values):,} vectors", in_turns(gathered, rounds, clock))
    print(f"largest relative difference of a score {apart:.1e}")


if __name__ == "__main__":
    main()
