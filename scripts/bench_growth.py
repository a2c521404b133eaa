"""How `index=residual` grows with the collection: build time, memory, bytes, latency; and what MS MARCO would need.

    python scripts/bench_growth.py VECTORS.pt                   or the directory of an exact index
    python scripts/bench_growth.py VECTORS.pt --sizes 500 2000 --bits 4 --queries 10

A collection of N documents is made by drawing N of the input's documents with replacement, the first 120 vectors of
each, every vector with Gaussian noise of its own (`--noise` is the noise's norm beside the vector's 1), normalised
again; chunk after chunk from a seed, so that no more than a chunk is ever in memory. Each size is built and searched
in a process of its own. Build time leaves the drawing out. Queries are the input's; without any (an index has none)
vectors of its documents take their place.

"own MB" is the most memory of its own that the process held during the build, "resident MB" with the pages of mapped
files, which the system takes back when it needs them; both less what was there when the build began (the libraries and
the input). They are read from Linux' /proc every 10 ms; elsewhere they are nan.

Latency is of one query, the median over queries: of the default probe, and of the fastest of a grid of probes whose
best k share at least `--overlap` with the best k of the same index when all is decoded and scored. Slopes are of the
least-squares line through log(vectors) and log(value); the extrapolation goes on from the largest size along it.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
import torch.nn.functional as F

from colbert_lab.index.residual.kind import ResidualIndexKind
from colbert_lab.index.residual.probe import ResidualProbe
from colbert_lab.ragged import Ragged

MSMARCO = {"documents": 8_841_823, "vectors": 600e6}
CHUNK = 500
CELLS = (0, 1, 2, 4, 8, 16)
CANDIDATES = (1, 2, 4, 8, 16, 32)
KEPT = ("RssAnon", "VmRSS")
MEASURED = {
    "build s": "seconds",
    "bytes": "bytes",
    "own MB": "own",
    "resident MB": "resident",
    "p50 ms": "p50",
    "at overlap ms": "fixed",
}


def documents(source: Ragged, size: int, options: argparse.Namespace) -> Iterator[Ragged]:
    """`size` documents in chunks; equal seeds make equal documents, whatever the size."""
    generator = torch.Generator().manual_seed(options.seed)
    whole = source.lengths.nonzero()[:, 0]
    for first in range(0, size, CHUNK):
        # A whole chunk is drawn even where less of it is left, so that a larger collection begins with a smaller one.
        drawn = whole[torch.randint(len(whole), (CHUNK,), generator=generator)][: size - first]
        parts = [source[int(row)][: options.vectors] for row in drawn]
        values = torch.cat(parts).float()
        noise = torch.randn(values.shape, generator=generator) * (options.noise / values.shape[1] ** 0.5)
        yield Ragged(F.normalize(values + noise, dim=1).half(), torch.tensor([len(part) for part in parts]))


class Memory:
    """The most memory that this process holds within the block, in MB beyond what it held before: `own`, `resident`."""

    def __enter__(self) -> "Memory":
        self.before = self.now()
        self.most = self.before
        self._done = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        self._watch.join()
        self.own, self.resident = (most - before for most, before in zip(self.most, self.before))

    def _look(self) -> None:
        while not self._done.wait(0.01):
            self.most = tuple(map(max, self.most, self.now()))

    @staticmethod
    def now() -> tuple[float, float]:
        """Anonymous and all resident memory of this process in MB."""
        try:
            lines = Path("/proc/self/status").read_text().splitlines()
        except FileNotFoundError:
            return math.nan, math.nan
        told = {
            name: float(rest.split()[0]) / 1024 for name, _, rest in (x.partition(":") for x in lines) if name in KEPT
        }
        return told["RssAnon"], told["VmRSS"]


def build(kind: ResidualIndexKind, directory: Path, size: int, source: Ragged, options) -> dict[str, float]:
    """Build the index; vectors, bytes, seconds in the writer, and the memory that it took, in MB."""
    directory.mkdir()
    seconds, count = 0.0, 0
    with Memory() as memory:
        writer = kind.writer(directory, source.dim, "cosine")
        for first, chunk in zip(range(0, size, CHUNK), documents(source, size, options)):
            start = time.perf_counter()
            writer.append([f"{row:09d}" for row in range(first, first + len(chunk))], chunk)
            seconds += time.perf_counter() - start
            count += len(chunk.values)
        start = time.perf_counter()
        writer.finish()
        seconds += time.perf_counter() - start
    taken = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
    return {"vectors": count, "bytes": taken, "seconds": seconds, "own": memory.own, "resident": memory.resident}


def search(index, queries: list[torch.Tensor], k: int, probe: ResidualProbe | None) -> tuple[float, list[set[str]]]:
    """Milliseconds of a query (the median) and the best k documents of each; one query goes before, uncounted."""
    times, found = [], []
    for query in queries[:1] + queries:
        start = time.perf_counter()
        run = index.search(["q"], Ragged.from_list([query]), k, probe=probe)
        times.append(1000 * (time.perf_counter() - start))
        found.append(set(run["q"].ids))
    return statistics.median(times[1:]), found[1:]


def latency(index, queries: list[torch.Tensor], options: argparse.Namespace) -> dict[str, float | str]:
    """Milliseconds and overlap of the default probe, and of the fastest probe that reaches the overlap asked for."""
    k = options.k
    _, best = search(index, queries, k, ResidualProbe(exact=True))

    def measured(probe: ResidualProbe | None) -> tuple[float, float]:
        milliseconds, found = search(index, queries, k, probe)
        return milliseconds, statistics.mean(len(a & b) / len(b) for a, b in zip(found, best))

    p50, overlap = measured(None)
    grid = [ResidualProbe(cells=cells, candidates=times * k) for cells in CELLS for times in CANDIDATES]
    tried = [(*measured(probe), probe) for probe in grid]
    enough = [one for one in tried if one[1] >= options.overlap] or [max(tried, key=lambda one: one[1])]
    fixed, reached, probe = min(enough, key=lambda one: one[0])
    setting = f"cells {probe.cells}, candidates {probe.candidates}"
    return {"p50": p50, "overlap": overlap, "fixed": fixed, "reached": reached, "setting": setting}


def work(size: int, folder: Path, options: argparse.Namespace) -> None:
    """The process of one size: prints what it measured as a line of JSON."""
    torch.set_num_threads(options.threads)
    source = Ragged(torch.from_numpy(np.load(folder / "values.npy")), torch.from_numpy(np.load(folder / "lengths.npy")))
    queries = list(np.load(folder / "queries.npz").values())
    kind = ResidualIndexKind(bits=options.bits)
    # What is compiled at first use belongs to no size.
    build(kind, folder / f"{size}.small", 50, source, options)
    found = build(kind, folder / str(size), size, source, options)
    index = kind.open(folder / str(size))
    found |= latency(index, [torch.from_numpy(query) for query in queries], options)
    print(json.dumps({"size": size, **found}))


def inputs(path: Path, count: int, seed: int) -> tuple[Ragged, list[torch.Tensor]]:
    """The documents and `count` queries of a .pt file or an exact index."""
    if path.is_dir():
        from colbert_lab.index.store import Store

        store = Store.open(path)
        source = store.embeddings.select(np.flatnonzero(store.rows.live))
        rows = np.random.default_rng(seed).permutation(np.flatnonzero(source.lengths.numpy()))[:count]
        return source, [source[int(row)][:32].float() for row in rows]
    saved = torch.load(path, weights_only=True)
    queries = Ragged(saved["query_values"].float(), saved["query_lengths"])
    rows = np.linspace(0, len(queries) - 1, min(count, len(queries))).astype(int)
    return Ragged(saved["values"], saved["lengths"]), [queries[int(row)] for row in rows]


def report(rows: list[dict], options: argparse.Namespace) -> list[str]:
    """The lines of the table, the slopes and the extrapolation."""
    fixed = f"overlap {options.overlap}"
    lines = [
        f"{'documents':>10} {'vectors':>11} {'build s':>8} {'own MB':>7} {'resident MB':>11} {'MB on disk':>10} "
        f"{'bytes/vector':>12} {'p50 ms':>7} {'overlap':>7} | {fixed}: p50 ms"
    ]
    for row in rows:
        lines.append(
            f"{row['size']:10,} {row['vectors']:11,} {row['seconds']:8.1f} {row['own']:7.0f} {row['resident']:11.0f} "
            f"{row['bytes'] / 1e6:10.1f} {row['bytes'] / row['vectors']:12.1f} {row['p50']:7.2f} {row['overlap']:7.3f} "
            f"| {row['fixed']:7.2f} ({row['reached']:.3f}; {row['setting']})"
        )
    if len(rows) < 2:
        return lines
    size = np.log([row["vectors"] for row in rows])
    values = {name: np.array([max(row[key], 1e-3) for row in rows]) for name, key in MEASURED.items()}
    slopes = {name: float(np.polyfit(size, np.log(measured), 1)[0]) for name, measured in values.items()}
    ratio = MSMARCO["vectors"] / rows[-1]["vectors"]
    far = {name: float(values[name][-1]) * ratio**slope for name, slope in slopes.items()}
    lines += [
        "log-log slopes: " + ", ".join(f"{name} {slope:.2f}" for name, slope in slopes.items()),
        f"MS MARCO ({MSMARCO['documents']:,} documents, {MSMARCO['vectors'] / 1e6:.0f}M vectors, {ratio:.0f} times the "
        f"largest): build {far['build s'] / 3600:.1f} hours in {far['own MB'] / 1e3:.1f} GB of memory of its own "
        f"({far['resident MB'] / 1e3:.1f} GB with mapped pages), "
        f"{far['bytes'] / 1e9:.1f} GB on disk, {far['p50 ms']:.0f} ms ({far['at overlap ms']:.0f} ms at {fixed})",
    ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, help="a .pt file of vectors, or the directory of an exact index")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000], help="documents")
    parser.add_argument("--vectors", type=int, default=120, help="of a document, at most (default: 120)")
    parser.add_argument("--noise", type=float, default=0.3)
    parser.add_argument("--bits", type=int, default=2)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--overlap", type=float, default=0.95)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", nargs=2, metavar=("SIZE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(int(options.worker[0]), Path(options.worker[1]), options)

    source, queries = inputs(options.input, options.queries, options.seed)
    before, rows = os.getloadavg(), []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        np.save(folder / "values.npy", source.values.half().numpy())
        np.save(folder / "lengths.npy", source.lengths.numpy())
        np.savez(folder / "queries.npz", **{f"{i:06d}": query.numpy() for i, query in enumerate(queries)})
        threads = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), str(options.threads))
        for size in sorted(options.sizes):
            command = [sys.executable, __file__, *sys.argv[1:], "--worker", str(size), str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **threads})
            if done.returncode:
                raise SystemExit(f"{size:,} documents: ended by code {done.returncode}\n{done.stderr[-2000:]}")
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{size:,} documents: built in {rows[-1]['seconds']:.1f} s", file=sys.stderr, flush=True)
    print(
        f"residual, {options.bits} bits; k = {options.k}, {len(queries)} queries, noise {options.noise}, "
        f"{options.threads} threads"
    )
    print("\n".join(report(rows, options)))
    print(f"load average before and after: {before[0]:.1f}, {os.getloadavg()[0]:.1f}; with other load, read ratios")


if __name__ == "__main__":
    main()
