"""Indexes beside those of the public packages: the same vectors, on the same machine, in turns within one run.

    python scripts/bench_indexes.py INDEX                   an exact index (its directory); the model it was made with
                                                            encodes the test queries of its collection
    python scripts/bench_indexes.py VECTORS.pt              or saved vectors, in turns with the packages' indexes:
        --stanford VENV/bin/python                          colbert-ai, "transformers<5", faiss-cpu
        --fast-plaid VENV/bin/python                        fast-plaid, with the torch that it was built for

A .pt or .npz file holds values [T, d], lengths [N], query_values [Q, d], query_lengths [B]; a .pt file may also hold
ids, query_ids and qrels (query id -> document id -> grade). Every index works in a process of its own, at the same
number of threads, on the vectors in fp16 and the queries in fp32; no text is encoded there (Stanford's encoder is
replaced by a look-up). What is compiled at first use is in no number, for nobody: here by a small build, there before
the first search. A package that is absent or breaks costs a row that says so.

Milliseconds are for one query: blocks of queries go round all indexes and settings, the median over the rounds is a
query's time, the median over the queries is shown. `overlap` is with the exact search's best k.
"""

import argparse
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

# How each index is searched; {} is its default for k, and `exact` scores every document from its own vectors.
SETTINGS = {
    "exact": [{}],
    "residual": [{}, {"candidates": 200}, {"candidates": 2000}, {"cells": 4}, {"exact": True}],
    "ivfpq": [{}, {"probes": 32}, {"probes": 32, "hits": 400}],
    "stanford": [{}, {"ncells": 4, "centroid_score_threshold": 0.4, "ndocs": 4096}, {"exact": True}],
    "fast-plaid": [{}, {"n_full_scores": 1024}],
}
# Queries of a turn, and documents that one append takes.
BLOCK = 5
CHUNK = 2000


class Engine(ABC):
    """One index in its own process; nothing above the classes that need colbert_lab or a package imports them."""

    def __init__(self, name: str, bits: int, vectors: Path):
        import torch

        self.name, self.bits, self.place = name, bits, vectors / f"{name}-{bits}"
        self.values = torch.from_numpy(np.load(vectors / "values.npy", mmap_mode="c"))
        self.lengths = np.load(vectors / "lengths.npy").tolist()
        queries = torch.from_numpy(np.load(vectors / "query_values.npy"))
        self.queries = list(queries.split(np.load(vectors / "query_lengths.npy").tolist()))

    def warm(self) -> None:  # noqa: B027 - most need nothing
        """What is needed before a build and is no part of it."""

    @abstractmethod
    def build(self) -> None:
        """The index of all documents in `place`."""

    @abstractmethod
    def open(self) -> None:
        """Get ready to search."""

    @abstractmethod
    def search(self, queries: list[int], k: int, setting: dict) -> list[list[int]]:
        """The best documents (row numbers) of these queries."""


class Ours(Engine):
    """An index of colbert_lab, through its writer and its search."""

    @cached_property
    def kind(self):
        """The kind with its parameters."""
        if self.name == "exact":
            from colbert_lab.index.exact import ExactIndexKind

            return ExactIndexKind()
        if self.name == "ivfpq":
            from colbert_lab.index.ivfpq import IvfPqIndexKind

            return IvfPqIndexKind()
        from colbert_lab.index.residual.kind import ResidualIndexKind

        return ResidualIndexKind(bits=self.bits)

    def _probe(self, setting: dict):
        if not setting:
            return None
        if self.name == "ivfpq":
            from colbert_lab.index.ivfpq import IvfPqProbe

            return IvfPqProbe(**setting)
        from colbert_lab.index.residual.probe import ResidualProbe

        return ResidualProbe(**setting)

    def warm(self) -> None:
        self._build(self.place.with_name(self.place.name + ".small"), 300)

    def build(self) -> None:
        self._build(self.place, len(self.lengths))

    def _build(self, place: Path, documents: int) -> None:
        import torch

        from colbert_lab.ragged import Ragged

        place.mkdir()
        lengths = torch.tensor(self.lengths[:documents])
        embeddings = Ragged(self.values[: int(lengths.sum())], lengths)
        writer = self.kind.writer(place, embeddings.dim, "cosine")
        for first in range(0, len(lengths), CHUNK):
            part = embeddings[first : first + CHUNK]
            writer.append([f"{row:09d}" for row in range(first, first + len(part))], part)
        writer.finish()

    def open(self) -> None:
        self.index = self.kind.open(self.place)

    def search(self, queries: list[int], k: int, setting: dict) -> list[list[int]]:
        from colbert_lab.ragged import Ragged

        vectors = Ragged.from_list([self.queries[i] for i in queries])
        run = self.index.search([str(i) for i in queries], vectors, k, probe=self._probe(setting))
        return [[int(document) for document in hits.ids] for hits in run.values()]


class Stanford(Engine):
    """colbert-ai's CollectionIndexer and IndexScorer on given vectors."""

    def build(self) -> None:
        from colbert.indexing import collection_indexer
        from colbert.infra import ColBERTConfig
        from colbert.infra.launcher import run_process_without_mp

        self.place.mkdir()
        collection_indexer.Checkpoint = lambda *args, **options: None
        collection_indexer.CollectionEncoder.encode_passages = lambda _, rows: self._look_up(rows)
        config = ColBERTConfig(index_path=str(self.place), nbits=self.bits, dim=self.values.shape[1], checkpoint="none")
        run_process_without_mp(collection_indexer.encode, config, list(range(len(self.lengths))), None, None, 0)

    def _look_up(self, rows: list[int]):
        import torch

        # Rows come in ascending order, both for the sample and for the chunks.
        chosen = np.isin(np.arange(len(self.lengths)), rows)
        taken = torch.from_numpy(np.repeat(chosen, self.lengths))
        return self.values[taken].float(), [self.lengths[row] for row in rows]

    def open(self) -> None:
        from colbert.modeling.colbert import ColBERT
        from colbert.search.index_storage import IndexScorer

        # Left by a process that was killed while it compiled, a lock would be waited on for ever.
        for lock in Path(os.environ["TORCH_EXTENSIONS_DIR"]).glob("**/lock"):
            lock.unlink()
        ColBERT.try_load_torch_extensions(False)
        self.scorer, self.searchers = IndexScorer(str(self.place), use_gpu=False), {}

    def search(self, queries: list[int], k: int, setting: dict) -> list[list[int]]:
        searcher = self._searcher(k, setting)
        pids = list(range(len(self.lengths))) if "exact" in setting else None
        return [searcher.dense_search(self.queries[i][None], k, pids=pids)[0] for i in queries]

    def _searcher(self, k: int, setting: dict):
        """A Searcher without a model, one for each k: it keeps the defaults that it resolves for its first."""
        from colbert.infra import ColBERTConfig
        from colbert.searcher import Searcher

        key = (k, tuple(setting))
        if key not in self.searchers:
            given = {name: value for name, value in setting.items() if name != "exact"}
            self.searchers[key] = Searcher.__new__(Searcher)
            longest = max(map(len, self.queries))
            self.searchers[key].config = ColBERTConfig(query_maxlen=longest, dim=self.values.shape[1], **given)
            self.searchers[key].ranker = self.scorer
        return self.searchers[key]


class FastPlaid(Engine):
    """fast-plaid through its Python class."""

    def _index(self):
        from fast_plaid import search

        return search.FastPlaid(index=str(self.place), device="cpu")

    def build(self) -> None:
        self._index().create(documents_embeddings=list(self.values.float().split(self.lengths)), nbits=self.bits)

    def open(self) -> None:
        self.index = self._index()

    def search(self, queries: list[int], k: int, setting: dict) -> list[list[int]]:
        given = [self.queries[i] for i in queries]
        found = self.index.search(given, top_k=k, show_progress=False, **setting)
        return [[int(row) for row, _ in hits] for hits in found]


ENGINES = {"exact": Ours, "residual": Ours, "ivfpq": Ours, "stanford": Stanford, "fast-plaid": FastPlaid}


def work(name: str, bits: int, folder: Path) -> None:
    """The process of one index: a line of JSON in, a line of JSON out; all else that is printed goes to its log."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    engine = ENGINES[name](name, bits, folder)

    def answer(call: dict) -> dict:
        if call["do"] == "build":
            engine.warm()
            start = time.perf_counter()
            engine.build()
            seconds = time.perf_counter() - start
            return {"seconds": seconds, "bytes": sum(f.stat().st_size for f in engine.place.rglob("*") if f.is_file())}
        if call["do"] == "open":
            engine.open()
            return {}
        parts = [call["queries"]] if call["together"] else [[i] for i in call["queries"]]
        seconds, rows = [], []
        for part in parts:
            start = time.perf_counter()
            rows += engine.search(part, call["k"], call["setting"])
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds, "rows": rows}

    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


class Broken(Exception):
    """Why an index cannot be measured."""


class Worker:
    """The other end of `work`."""

    def __init__(self, name: str, bits: int, interpreter: str, folder: Path, threads: int):
        self.build: dict[str, float] = {}
        variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")
        compiled = os.environ.get("TORCH_EXTENSIONS_DIR", str(folder / "extensions"))
        extensions = {"TORCH_EXTENSIONS_DIR": compiled, "MAX_JOBS": str(threads)}
        quiet = {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        environment = {**os.environ, **dict.fromkeys(variables, str(threads)), **extensions, **quiet}
        self._log = (folder / f"{name}-{bits}.log").open("w+")
        command = [interpreter, __file__, "--worker", name, str(bits), str(folder)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment
        )

    def ask(self, limit: float = 600, **call) -> dict:
        """The answer to a call; Broken with the reason in one line."""
        try:
            self._process.stdin.write(json.dumps(call) + "\n")
            self._process.stdin.flush()
            with selectors.DefaultSelector() as ready:
                ready.register(self._process.stdout, selectors.EVENT_READ)
                if not ready.select(limit):
                    self.close()  # its answer, when it came, would be taken for that to the next call
                    raise Broken(f"{call['do']}: no answer within {limit:.0f} s")
            reply = json.loads(self._process.stdout.readline() or "null")
        except OSError:
            reply = None
        if reply is None:
            code = self._process.wait()
            self._log.seek(0)
            last = ([line.strip() for line in self._log if line.strip()] or [""])[-1]
            raise Broken(f"{call['do']}: ended by {signal.Signals(-code).name if code < 0 else f'code {code}'}; {last}")
        if "error" in reply:
            raise Broken(f"{call['do']}: " + " ".join(reply["error"].split()))
        return reply

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


@dataclass
class Row:
    """What was measured of one index at one setting: by k, seconds [rounds] of each query, and hits of all queries."""

    label: str
    setting: dict
    worker: Worker | None = None
    seconds: dict = field(default_factory=dict)
    hits: dict = field(default_factory=dict)
    rates: list = field(default_factory=list)
    broken: str = ""

    def time(self, k: int, queries: list[int]) -> None:
        """One more time of each of these queries."""
        reply = self.worker.ask(do="search", queries=queries, k=k, setting=self.setting, together=False)
        for query, seconds in zip(queries, reply["seconds"], strict=True):
            self.seconds.setdefault(k, {}).setdefault(query, []).append(seconds)

    def together(self, k: int, queries: int) -> None:
        """All queries in one call."""
        call = {"queries": list(range(queries)), "k": k, "setting": self.setting, "together": True}
        reply = self.worker.ask(3600, do="search", **call)
        self.hits[k] = reply["rows"]
        if k == 100:
            self.rates.append(queries / sum(reply["seconds"]))


def measure(rows: list[Row], queries: int, timed: int, rounds: int) -> None:
    """Fill the rows: all indexes in turns; a row that breaks says so and is left alone from then on."""

    def each(step) -> None:
        for row in rows:
            if not row.broken:
                try:
                    step(row)
                except Broken as error:
                    row.broken = str(error)

    for k in (10, 100):
        each(lambda row, k=k: row.together(k, queries))
    for row in rows:
        row.rates = []
    chosen = np.linspace(0, queries - 1, min(timed, queries)).astype(int).tolist()
    for _ in range(rounds):
        for first in range(0, len(chosen), BLOCK):
            for k in (10, 100):
                each(lambda row, k=k, first=first: row.time(k, chosen[first : first + BLOCK]))
        each(lambda row: row.together(100, queries))


def vectors_of(options: argparse.Namespace) -> dict:
    """The input: ids, values, lengths, query_ids, query_values, query_lengths, and qrels or None."""
    import torch

    path = options.input
    if path.is_dir():
        return _of_index(options)
    found = torch.load(path, weights_only=True) if path.suffix == ".pt" else dict(np.load(path))
    names = ("values", "lengths", "query_values", "query_lengths")
    arrays = {name: torch.as_tensor(found[name]) for name in names}
    ids = found.get("ids", [str(row) for row in range(len(arrays["lengths"]))])
    query_ids = found.get("query_ids", [str(row) for row in range(len(arrays["query_lengths"]))])
    return {"ids": ids, "query_ids": query_ids, "qrels": found.get("qrels"), **arrays}


def _of_index(options: argparse.Namespace) -> dict:
    from colbert_lab.artifact import Artifact
    from colbert_lab.data.collection import Collection
    from colbert_lab.index.store import Store
    from colbert_lab.models.checkpoint import load_model
    from colbert_lab.models.encoding import encode
    from colbert_lab.stages.making import input_of

    artifact = Artifact.open(options.input, "index")
    store = Store.open(artifact.path)
    if store.facts["similarity"] != "cosine":
        raise SystemExit(f"{options.input} compares by {store.facts['similarity']}; the packages know cosine alone")
    collection = Collection(input_of(artifact, "collection", options.collection))
    qrels = collection.qrels(options.split)
    model = load_model(input_of(artifact, "model", options.model).path)
    queries = encode(model, collection.queries.get(list(qrels)), "query", "fp32").embeddings
    documents = store.embeddings.select(np.flatnonzero(store.rows.live))
    return {
        "ids": store.rows.ids,
        "values": documents.values,
        "lengths": documents.lengths,
        "query_ids": list(qrels),
        "query_values": queries.values,
        "query_lengths": queries.lengths,
        "qrels": qrels,
    }


def table(rows: list[Row], given: dict) -> list[str]:
    """The lines of the table; what is compared is compared with the first row, exact search."""
    from colbert_lab.evaluation.metrics import evaluate
    from colbert_lab.run import Hits, Run

    def ndcg(row: Row) -> float:
        ids = ([given["ids"][i] for i in found] for found in row.hits[100])
        hits = [Hits(tuple(found), -np.arange(len(found), dtype=float)) for found in ids]
        run = Run(dict(zip(given["query_ids"], hits, strict=True)), depth=100)
        return float(evaluate(run, given["qrels"], ["ndcg_10"]).per_query["ndcg_10"].mean())

    def overlap(row: Row, asked: int, k: int) -> float:
        pairs = zip(row.hits[asked], rows[0].hits[100])
        return float(np.mean([len(set(found[:k]) & set(best[:k])) / len(best[:k]) for found, best in pairs]))

    def middle(row: Row, k: int) -> float:
        return 1000 * float(np.median([np.median(seconds) for seconds in row.seconds[k].values()]))

    judged, tokens = given["qrels"] is not None, len(given["values"])
    lines = [
        f"{'':<46} {'build':>7} {'bytes/':>7} | {'k=10: p50':>9} {'overlap':>7} | {'k=100: p50':>10} {'overlap':>7} "
        f"{'overlap':>7} {'batch':>7} {'nDCG':>6} {'to':>7}",
        f"{'':<46} {'s':>7} {'vector':>7} | {'ms':>9} {'@10':>7} | {'ms':>10} {'@10':>7} "
        f"{'@100':>7} {'QPS':>7} {'@10':>6} {'exact':>7}",
    ]
    for row in rows:
        setting = ", ".join(f"{name} {value}" for name, value in row.setting.items()) or "default"
        line = f"{row.label:<18} {setting.replace('centroid_score_threshold', 't'):<27} "
        if row.broken:
            lines.append(line + row.broken[:140])
            continue
        build = f"{row.worker.build['seconds']:7.1f} {row.worker.build['bytes'] / tokens:7.1f}"
        few = f"{middle(row, 10):9.2f} {overlap(row, 10, 10):7.3f}"
        many = f"{middle(row, 100):10.2f} {overlap(row, 100, 10):7.3f} {overlap(row, 100, 100):7.3f}"
        quality = f"{ndcg(row):6.4f} {ndcg(row) - ndcg(rows[0]):+7.4f}" if judged else f"{'-':>6} {'-':>7}"
        lines.append(f"{line}{build} | {few} | {many} {np.median(row.rates):7.1f} {quality}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, help="the directory of an exact index, or a .pt or .npz file of vectors")
    parser.add_argument("--stanford", metavar="PYTHON", help="the interpreter of an environment with colbert-ai")
    parser.add_argument("--fast-plaid", metavar="PYTHON", help="the interpreter of an environment with fast-plaid")
    parser.add_argument(
        "--only", nargs="+", choices=list(SETTINGS), default=list(SETTINGS), help="exact is always there"
    )
    parser.add_argument("--bits", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--split", default="test", help="of an index's collection (default: test)")
    parser.add_argument("--model", help="where the model of the index lies now, if it was moved")
    parser.add_argument("--collection", help="where the collection of the index lies now, if it was moved")
    parser.add_argument("--documents", type=int, help="only the first so many (default: all)")
    parser.add_argument("--queries", type=int, help="only the first so many (default: all)")
    parser.add_argument("--timed", type=int, default=40, help="queries timed one by one (default: 40)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--build-limit", type=float, default=3600, help="seconds that a build may take")
    parser.add_argument("--work", type=Path, help="an empty or new folder that is kept, with the logs (default: none)")
    options = parser.parse_args()

    given = cut(vectors_of(options), options)
    before = os.getloadavg()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.work or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        dtypes = {"values": np.float16, "query_values": np.float32, "lengths": np.int64, "query_lengths": np.int64}
        for name, dtype in dtypes.items():
            np.save(folder / f"{name}.npy", given[name].numpy().astype(dtype))
        rows, workers = begin(options, folder)
        try:
            measure(rows, len(given["query_ids"]), options.timed, options.rounds)
        finally:
            for worker in workers:
                worker.close()
    documents, tokens, dim = len(given["lengths"]), *given["values"].shape
    print(
        f"{documents:,} documents, {tokens:,} vectors of {dim} dimensions, {len(given['query_ids'])} queries; "
        f"{options.threads} threads, {options.rounds} rounds over {options.timed} timed queries"
    )
    print("\n".join(table(rows, given)))
    print(
        f"load average before and after: {before[0]:.1f}, {os.getloadavg()[0]:.1f}; on a quiet machine the first is 0 "
        f"and the second at most {options.threads}: with more, read ratios"
    )


def cut(given: dict, options: argparse.Namespace) -> dict:
    """The first documents and queries, as many as are asked for."""
    documents, queries = options.documents or len(given["ids"]), options.queries or len(given["query_ids"])
    lengths, query_lengths = given["lengths"][:documents], given["query_lengths"][:queries]
    query_ids, qrels = given["query_ids"][:queries], given["qrels"]
    return {
        "ids": given["ids"][:documents],
        "values": given["values"][: int(lengths.sum())],
        "lengths": lengths,
        "query_ids": query_ids,
        "query_values": given["query_values"][: int(query_lengths.sum())],
        "query_lengths": query_lengths,
        "qrels": None if qrels is None else {query: qrels[query] for query in query_ids},
    }


def begin(options: argparse.Namespace, folder: Path) -> tuple[list[Row], list[Worker]]:
    """Build one after the other and open all; a row for every setting of every index that is there."""
    interpreters = {"stanford": options.stanford, "fast-plaid": options.fast_plaid}
    rows, workers = [], []
    for name in [name for name in SETTINGS if name == "exact" or name in options.only]:
        interpreter = shutil.which(interpreters.get(name, sys.executable) or "")
        if interpreter is None:
            rows.append(Row(name, {}, broken=f"skipped: --{name} names no interpreter"))
            continue
        for bits in options.bits if name in ("residual", "stanford", "fast-plaid") else [0]:
            label, broken = name + (f" {bits} bits" if bits else ""), ""
            print(f"building {label}", file=sys.stderr, flush=True)
            worker = Worker(name, bits, interpreter, folder, options.threads)
            workers.append(worker)
            try:
                worker.build = worker.ask(options.build_limit, do="build")
                worker.ask(1800, do="open")
            except Broken as error:
                broken = str(error)
            rows += [Row(label, setting, worker, broken=broken) for setting in SETTINGS[name][: 1 if broken else None]]
    if rows[0].broken:
        raise SystemExit(f"exact search, with which all is compared: {rows[0].broken}")
    return rows, workers


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
