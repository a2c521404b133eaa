"""Proof that rounds can be killed: an experiment, killed again and again, ends with the bytes of an undisturbed one.

    python scripts/prove_rounds.py [--kills 10] [--seed 0] [--folder DIR]

Runs one small rounds experiment on docstrings undisturbed; then another one that is killed (SIGKILL) at random moments
and started again by the same command; compares every artifact; calls it once more, which must do nothing; changes one
key of the teacher, which must make anew what follows from it and nothing else. Prints a table; ends with code 1 where
anything differs.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from colbert_lab.artifact import Artifact

REPOSITORY = Path(__file__).resolve().parent.parent
SMALL = (
    *(
        "experiment=colbertv2_small",
        "rounds=ensemble",
        "name=proof",
        "tracking=none",
        "data.documents=300",
        "backbone.layers=1",
    ),
    *("text.document_length=32", "rounds.count=2", "single_vector=mean", "rerank.k=10", "search.k=50"),
    *("train.max_steps=12", "train.document_length=null", "train.checkpoint_every=2", "train.judge_every=6"),
    *("teacher.max_length=48", "teacher_train.max_steps=8", "teacher_train.checkpoint_every=2"),
    *("teacher_train.judge_every=4", "teacher.dev_candidates=10"),
    *("distil_train.max_steps=8", "distil_train.document_length=null", "distil_train.checkpoint_every=2"),
    *("distil_train.judge_every=4", "mine.depth=8", "dev.queries=20", "dev.documents=60", "encode.chunk=64"),
    *("evaluate.metrics=[ndcg_10,mrr_10]",),
)
# What another teacher must make anew: each kind of these, these very ones, and nothing of any other kind.
KINDS = {"cross_encoders", "scores", "tuples", "models", "indexes", "runs", "candidates", "metrics", "rounds"}
ANEW = (
    *("scores/pydocs-proof-round1-", "scores/pydocs-proof-round2-", "tuples/proof-round1-", "tuples/proof-round2-"),
    *("models/proof-round1-", "models/proof-round2-", "cross_encoders/proof-teacher-", "rounds/pydocs-proof-"),
)
# How artifacts are called that do not depend on the teacher.
EARLIER = (
    *("collections/", "models/proof-s0-", "models/proof-start-", "models/proof-mean-", "indexes/pydocs-proof-round1-"),
    *("runs/pydocs-train-proof-round1-", "candidates/pydocs-proof-round1-", "indexes/pydocs-proof-untrained-"),
)


def start(root: Path, log, *more: str) -> subprocess.Popen:
    """The experiment under `root`, in a process group of its own."""
    command = [sys.executable, str(REPOSITORY / "experiments" / "rounds.py"), *SMALL, f"root={root}", *more]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def finish(root: Path, log: Path, *more: str) -> tuple[float, str]:
    """Run to the end: seconds, and what was printed; ends this script where it fails."""
    began = time.perf_counter()
    with log.open("w") as handle:
        code = start(root, handle, *more).wait()
    told = log.read_text()
    if code:
        sys.exit(f"the experiment failed:\n{told[-3000:]}")
    return time.perf_counter() - began, told


def artifacts(root: Path) -> dict[str, str]:
    """Place under the root -> digest."""
    return {str(m.parent.relative_to(root)): Artifact.open(m.parent).digest for m in root.glob("*/*/manifest.json")}


def kill_until_done(root: Path, log: Path, kills: int, seconds: float, moments: random.Random) -> tuple[int, int]:
    """Start, kill at a random moment of the work, start again, `kills` times; then let it end: kills, resumptions.

    A moment is counted from the first change under the root, so that it falls into the work and not the imports; all of
    them together are, on average, three quarters of what an undisturbed run takes, so that they end before it does.
    """
    done = 0
    with log.open("w") as handle:
        while done < kills:
            process = start(root, handle)
            before = _state(root)
            while _state(root) == before and process.poll() is None:
                time.sleep(0.02)
            wait = time.perf_counter() + moments.uniform(0, 1.5 * seconds / kills)
            while time.perf_counter() < wait and process.poll() is None:
                time.sleep(0.01)
            if process.poll() is not None:
                break  # it came to its end before this moment
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            done += 1
        if start(root, handle).wait():
            sys.exit(f"the experiment failed:\n{log.read_text()[-3000:]}")
    return done, log.read_text().count("going on in")


def wrongly_made(new: list[str]) -> list[str]:
    """What is wrong with the artifacts (places under the root) that another teacher had made anew, in words."""
    kinds = {place.partition("/")[0] for place in new}
    wrong = [f"no {kind} anew" for kind in sorted(KINDS - kinds)]
    wrong += [f"no {name}* anew" for name in ANEW if not any(place.startswith(name) for place in new)]
    return wrong + [
        f"{place} anew" for place in new if place.startswith(EARLIER) or place.partition("/")[0] not in KINDS
    ]


def main() -> None:
    """Run the proof and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None, help="where to work; by default a temporary folder")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="prove-rounds-"))
    folder.mkdir(parents=True, exist_ok=True)
    whole, killed = folder / "whole", folder / "killed"
    took, _ = finish(whole, folder / "whole.log")
    expected = artifacts(whole)
    made = [path.stat().st_mtime for path in whole.glob("*/*/manifest.json")]
    kills, resumed = kill_until_done(
        killed, folder / "killed.log", options.kills, max(made) - min(made), random.Random(options.seed)
    )
    found = artifacts(killed)
    differing = sorted(place for place in expected.keys() | found.keys() if expected.get(place) != found.get(place))
    left = [str(path) for path in killed.glob("*/*.partial")]
    again, told = finish(killed, folder / "again.log")
    worked = artifacts(killed) != found or any("going on" in line for line in told.splitlines())
    finish(killed, folder / "changed.log", "teacher_optim.lr=4e-5")
    new = sorted(artifacts(killed).keys() - found.keys())
    amiss = wrongly_made(new)
    rows = {
        "undisturbed, seconds": f"{took:.0f}",
        "killed, times": f"{kills}",
        "taken up in the middle, times": f"{resumed}",
        "artifacts": f"{len(expected)}",
        "of these different after the kills": f"{len(differing)} {' '.join(differing)}",
        "left half-made": f"{len(left)} {' '.join(left)}",
        "a second call, seconds": f"{again:.0f}, {'made something' if worked else 'made nothing'}",
        "made anew with another teacher_optim.lr": f"{len(new)}; {', '.join(amiss) or 'just what follows from it'}",
    }
    width = max(map(len, rows))
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows.items()))
    wrong = bool(differing or left or worked or amiss or kills < options.kills)
    if options.folder is None and not wrong:
        shutil.rmtree(folder)
    sys.exit(1 if wrong else 0)


def _state(root: Path) -> list[tuple[str, float]]:
    found = []
    for path in root.rglob("*") if root.exists() else ():
        try:
            found.append((str(path), path.stat().st_mtime))
        except FileNotFoundError:
            continue  # renamed meanwhile
    return sorted(found)


if __name__ == "__main__":
    main()
