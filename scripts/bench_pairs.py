"""What lies between a search of the training queries and distillation, at many pairs: time, and memory a pair.

    python scripts/bench_pairs.py                              1 and 5 million pairs
    python scripts/bench_pairs.py 250000000 --root /scratch    MS MARCO's, where there are 100 GB of disk

A collection is made up of random words, from a seed, with a document for every `--share` pairs, and a run that finds
`--depth` of them for every query; both are written, below a temporary folder, as `data` and `search` write theirs.
Then each step has a process of its own:

    run      reading the run
    mine     reading the run and mining it
    score    scoring the candidates with a teacher that gives the length of a document: what is left but the model
    again    scoring them once more: all are known
    pools    making pools of the candidates and their scores

Beside the seconds stand those of the processor, a core's, which other load on the machine lengthens less.

Memory is a process's highest resident size, less that of a process (`empty`) that has only loaded the code and opened
the collection. It counts the pages of mapped files (candidates, texts), which the system takes back when it needs them;
`own` leaves them out, and is looked up many times a second (0 where there is no /proc). Part of both is the same for
any number of pairs: the last lines tell what a pair takes beyond that, from the smallest size to the largest.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

STEPS = ("empty", "run", "mine", "score", "again", "pools")


def make(folder: Path, pairs: int, options: argparse.Namespace) -> None:
    """The collection, as BEIR's files and prepared, and the run of all its queries."""
    import numpy as np

    from colbert_lab.data.beir import BeirFolder
    from colbert_lab.data.source import prepare
    from colbert_lab.run import Hits, Run, write_trec

    rng = np.random.default_rng(options.seed)
    words = np.array(["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), n)) for n in rng.integers(3, 10, 5000)])
    queries, documents = max(1, pairs // options.depth), max(2 * options.depth, pairs // options.share)

    def texts(count: int, least: int, most: int) -> Iterator[str]:
        for length in rng.integers(least, most, count):
            yield " ".join(words[rng.integers(len(words), size=length)])

    source = folder / "source"
    (source / "qrels").mkdir(parents=True)
    for name, letter, some in (
        ("corpus", "d", texts(documents, 20, 90)),
        ("queries", "q", texts(queries, 3, 10)),
    ):
        with (source / f"{name}.jsonl").open("w") as lines:
            for number, text in enumerate(some):
                lines.write(json.dumps({"_id": f"{letter}{number}", "text": text}) + "\n")
    hits = {}
    ids = [f"d{number}" for number in range(documents)]
    with (source / "qrels" / "train.tsv").open("w") as lines:
        lines.write("query-id\tcorpus-id\tscore\n")
        for number in range(queries):
            found = rng.choice(documents, options.depth, replace=False)
            hits[f"q{number}"] = Hits(tuple(ids[i] for i in found), np.sort(rng.random(options.depth))[::-1])
            lines.write(f"q{number}\td{found[len(found) // 2]}\t1\n")
    collection = prepare(BeirFolder(str(source)), folder)
    write_trec(Run(hits), folder / "run.trec.gz")
    (folder / "collection").write_text(str(collection.artifact.path))


class Lengths:
    """A teacher that costs nothing: the length of a document."""

    key, instant = "lengths", False

    def score(self, pairs, bar=None):
        """See Teacher."""
        import numpy as np

        return np.array([len(document) for document in pairs.documents], dtype=np.float32), 0


class Own(threading.Thread):
    """Looks up the memory of this process that is no file's; `most` is the highest, in bytes."""

    def __init__(self):
        super().__init__(daemon=True)
        self.most = self._now()

    def run(self):
        """See threading.Thread."""
        while True:
            time.sleep(0.02)
            self.most = max(self.most, self._now())

    def _now(self) -> int:
        status = Path("/proc/self/status")
        lines = status.read_text().splitlines() if status.exists() else []
        return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def step(name: str, folder: Path, options: argparse.Namespace) -> None:
    """Do one step, and print its seconds, the processor's, and this process's highest memory, in bytes."""
    import numpy as np

    from colbert_lab.data.collection import Collection
    from colbert_lab.mining.candidates import Mining, mine, read_candidates, write_candidates
    from colbert_lab.mining.pairs import Pairs
    from colbert_lab.mining.pools import Denoising, make_pools, write_pools
    from colbert_lab.mining.score_cache import ScoreCache
    from colbert_lab.mining.scored import score_candidates
    from colbert_lab.run import read_trec

    collection = Collection.open((folder / "collection").read_text())
    candidates, scores = folder / "candidates.arrow", folder / "scores.npy"
    (own := Own()).start()
    start, busy = time.perf_counter(), time.process_time()
    if name in ("run", "mine"):
        run = read_trec(folder / "run.trec.gz")
    if name == "mine":
        write_candidates(candidates, mine(run, collection.qrels("train"), collection, Mining(depth=options.depth)))
    if name in ("score", "again"):
        pairs = Pairs.of(collection, read_candidates(candidates).groups())
        found, facts = score_candidates(pairs, Lengths(), ScoreCache(folder / "cache", Lengths.key))
        assert facts["scored" if name == "score" else "cached"] + facts["repeated"] == len(pairs)
        np.save(scores, found)
    if name == "pools":
        given = np.load(scores, mmap_mode="r")
        write_pools(folder / "pools.arrow", make_pools(read_candidates(candidates), given, Denoising(margin=0.0)))
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"seconds": seconds, "busy": busy, "memory": most, "own": own.most}))


def measured(pairs: int, folder: Path, options: argparse.Namespace) -> dict[str, SimpleNamespace]:
    """Each step's seconds and memory, of a collection that is made first."""
    found = {}
    for name in ("make", *STEPS):
        command = [sys.executable, __file__, *sys.argv[1:], "--worker", name, str(pairs), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        if done.returncode:
            raise SystemExit(f"{pairs:,} pairs, {name}: ended by code {done.returncode}\n{done.stderr[-2000:]}")
        print(f"{pairs:,} pairs: {name}", file=sys.stderr, flush=True)
        if name in STEPS:
            found[name] = SimpleNamespace(**json.loads(done.stdout.splitlines()[-1]))
    return found


def report(table: dict[int, dict[str, SimpleNamespace]]) -> list[str]:
    """The lines of the table, and what a pair takes from the smallest size to the largest."""
    lines = [
        f"{'pairs':>12} {'step':<6} {'seconds':>8} {'cpu s':>8} {'cpu us/pair':>11} {'peak MB':>8} {'bytes/pair':>10} "
        f"{'own MB':>8} {'own bytes/pair':>14}"
    ]
    for pairs, steps in table.items():
        for name, one in steps.items():
            each = [(getattr(one, kind) - getattr(steps["empty"], kind)) / pairs for kind in ("memory", "own")]
            lines.append(
                f"{pairs:12,} {name:<6} {one.seconds:8.1f} {one.busy:8.1f} {1e6 * one.busy / pairs:11.2f} "
                f"{one.memory / 1e6:8.0f} {each[0]:10.1f} {one.own / 1e6:8.0f} {each[1]:14.1f}"
            )
    if len(table) > 1:
        few, many = min(table), max(table)
        lines.append(f"from {few:,} to {many:,} pairs, a pair more:")
        for name in STEPS[1:]:
            small, large = table[few][name], table[many][name]
            busy, each, own = (
                (getattr(large, kind) - getattr(small, kind)) / (many - few) for kind in ("busy", "memory", "own")
            )
            lines.append(f"{'':12} {name:<6} {'':8} {'':8} {1e6 * busy:11.2f} {'':8} {each:10.1f} {'':8} {own:14.1f}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", type=int, nargs="*", default=[1_000_000, 5_000_000], help="pairs")
    parser.add_argument("--depth", type=int, default=500, help="candidates of a query (default: 500)")
    parser.add_argument("--share", type=int, default=28, help="pairs for each document (default: 28, as MS MARCO's)")
    parser.add_argument("--root", type=Path, help="where the temporary folder is made")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", nargs=3, metavar=("STEP", "PAIRS", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        name, pairs, folder = options.worker
        return make(Path(folder), int(pairs), options) if name == "make" else step(name, Path(folder), options)

    before, table = os.getloadavg(), {}
    for pairs in sorted(options.sizes):
        with tempfile.TemporaryDirectory(dir=options.root) as folder:
            table[pairs] = measured(pairs, Path(folder), options)
    print("\n".join(report(table)))
    print(f"load average before and after: {before[0]:.1f}, {os.getloadavg()[0]:.1f}; with other load, read ratios")


if __name__ == "__main__":
    main()
