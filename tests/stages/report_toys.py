"""Artifacts and logs written by hand, as the stages leave them: what a report is made of, without any model."""

import json
import math
import random
from pathlib import Path
from typing import Any

import yaml

START = 1_790_000_000.0


def write_run(
    root: Path,
    kind: str,
    name: str,
    number: int = 0,
    config: dict | None = None,
    summary: dict | None = None,
    lines: list[dict] | None = None,
    files: dict[str, Any] | None = None,
    inputs: dict[str, Path] | None = None,
    state: str = "finished",
    error: str | None = None,
    counts: dict | None = None,
    command: list[str] | None = None,
    notes: str | None = None,
) -> Path:
    """An artifact, or with a state other than finished a partial one, and its log."""
    folder = {"index": "indexes", "metrics": "metrics", "rounds": "rounds", "fidelity": "fidelity"}.get(
        kind, kind + "s"
    )
    key = f"{number:010x}" + "0" * 54
    place = root / folder / (f"{name}-{key[:10]}" + ("" if state == "finished" else ".partial"))
    log = place / "log"
    log.mkdir(parents=True)
    for file, content in (files or {}).items():
        text = content if isinstance(content, str) else json.dumps(content)
        (place / file).write_text(text, encoding="utf-8")
    if state == "finished":
        given = {role: {"path": str(path), "digest": "d", "kind": "model"} for role, path in (inputs or {}).items()}
        manifest = {"schema": 1, "kind": kind, "key": key, "digest": f"{number:064x}", "inputs": given, "files": {}}
        manifest |= {"config": {}, "counts": counts or {}, "versions": {"python": "3.11.7"}}
        manifest["command"] = command or ["experiments/train.py", "loss=hinge", f"seed={number}"]
        (place / "manifest.json").write_text(json.dumps(manifest))
    started = START + 60 * number
    segment = {"state": state, "started": started, "ended": started + 42.5, "pid": 1, "exit_code": 0, "error": error}
    told = {"state": state, "exit_code": 0, "error": error, "started": started, "ended": started + 42.5}
    (log / "state.json").write_text(json.dumps(told | {"segments": [segment]}))
    full = {"tracking": {"notes": notes}, "name": name, "overrides": [], **(config or {})}
    (log / "config.yaml").write_text(yaml.safe_dump(full, allow_unicode=True))
    surroundings = {
        "code": {"python": "3.11.7", "torch": "2.13.0", "commit": "abc123"},
        "machine": {"cpu": "toy", "cores": 2},
    }
    (log / "environment.json").write_text(json.dumps(surroundings))
    (log / "summary.json").write_text(json.dumps(summary or {}))
    (log / "metrics.jsonl").write_text("".join(json.dumps({"time": started, **line}) + "\n" for line in lines or []))
    return place


def training(steps: int, lr: float, best: float, seed: int, every: int = 10) -> list[dict]:
    """The lines of a training: a noisy falling loss of two parts, validation now and then, scores at both ends."""
    draw = random.Random(seed)
    lines: list[dict] = []
    for step in range(every, steps + 1, every):
        share = step / steps
        loss = 0.3 + 1.2 * math.exp(-3 * share) + draw.gauss(0, 0.05)
        kl = 0.6 * loss
        values = {"train/loss": loss, "train/loss_kl": kl, "train/loss_in_batch": loss - kl}
        values |= {"train/lr": lr * min(10 * share, 1 - share), "train/grad_norm": 5 + draw.random()}
        values |= {"train/score_margin": 2 * share + draw.gauss(0, 0.1)}
        lines.append({"axis": "trainer/step", "step": step, **values})
        if step % (5 * every) == 0:
            ndcg = best * (1 - 0.4 * math.exp(-4 * share)) + draw.gauss(0, 0.003)
            lines.append({"axis": "trainer/step", "step": step, "val/ndcg_10": ndcg, "val/mrr_10": 0.9 * ndcg})
    for step in (every, steps):
        for side, mean in (("positive", 14 + 6 * step / steps), ("negative", 13.0)):
            counts = [round(400 * math.exp(-((x - mean) ** 2) / 8)) for x in range(5, 27)]
            told = {"name": f"train/{side}_scores", "counts": counts, "edges": list(range(5, 28))}
            lines.append({"event": "histogram", "axis": "trainer/step", "step": step, **told})
    return lines


def write_sweep(
    root: Path, losses: int = 2, rates: int = 3, seeds: int = 2, steps: int = 200, failing: int = 1
) -> Path:
    """A sweep over losses, learning rates and seeds, the last `failing` jobs failed."""
    sweep = root / "sweeps" / "train-0123456789"
    sweep.mkdir(parents=True)
    jobs = []
    names = ["hinge", "softmax", "kl", "margin_mse", "nway"]
    grid = [(names[i], 10 ** (-5 + j / 2), seed) for i in range(losses) for j in range(rates) for seed in range(seeds)]
    for number, (loss, lr, seed) in enumerate(grid):
        params = {"loss": loss, "optim.lr": float(f"{lr:.2g}"), "seed": seed}
        job = {
            "number": number,
            "params": params,
            "overrides": [f"{k}={v}" for k, v in params.items()],
            "seconds": 42.5,
        }
        if number >= len(grid) - failing:
            jobs.append(
                job | {"state": "failed", "error": "TrainingError: the loss became nan at step 3", "objective": None}
            )
            continue
        best = 0.68 + 0.03 * (loss != "hinge") - 0.02 * abs(math.log10(lr) + 4) + random.Random(number).gauss(0, 0.004)
        config = {"loss": {"_target_": f"colbert_lab.losses.{loss}"}, "optim": {"lr": lr, "eps": 1e-8}, "seed": seed}
        place = write_run(
            root,
            "model",
            f"toy-{loss}-s{seed}",
            number,
            config,
            {"objective": best, "val/best_step": steps},
            training(steps, lr, best, number),
        )
        told = {"state": "finished", "objective": best, "objective_name": "dev_ndcg_10", "artifact": str(place)}
        jobs.append(job | told | {"figures": {"dev_ndcg_10": best, "dev_mrr_10": best * 0.93}})
    (sweep / "jobs.jsonl").write_text("".join(json.dumps(job) + "\n" for job in jobs))
    test = {"difference": 0.0312, "p": 0.004, "p_alone": 0.002}
    rows = [
        {"params": {"loss": name}, "mean": 0.7 - 0.03 * i, "deviation": 0.004, "n": 6, "seeds": [0, 1], "figures": {}}
        | {"test": None if i else test, "baseline": bool(i)}
        for i, name in enumerate(("softmax", "hinge"))
    ]
    summary = {"importance": {"optim.lr": 0.61, "loss": 0.34}, "importance_method": "main effects", "rows": rows}
    summary |= {"baseline_is_default": True, "tested": "paired over 100 queries", "counts": {"asked": len(grid)}}
    summary |= {"command": "python experiments/train.py loss=softmax", "failed": []}
    (sweep / "sweep.json").write_text(json.dumps(summary))
    return sweep


SYSTEMS = ("bm25", "single vector", "cross-encoder", "colbert")


def write_comparison(root: Path, text: str = "does smoking help the heart", name: str = "toy-test-kinds") -> Path:
    """A comparison of four kinds, with costs, tests, a published value, guards, and differences with explanations."""
    means = {"bm25": 0.61, "single vector": 0.58, "cross-encoder": 0.70, "colbert": 0.69}
    systems = {
        system: {
            "kind": system,
            "label": system,
            "means": {"ndcg_10": mean, "mrr_10": mean - 0.03},
            "deviations": {"ndcg_10": 0.004} if system == "colbert" else {},
            "seeds": 3 if system == "colbert" else 1,
            "counts": {"without_results": 2 if system == "bm25" else 0},
            "cost": {
                "flops_query": None if system == "bm25" else 2e9 * (i + 1) ** 3,
                "p50_ms": 0.4 * 12.0**i,
                "p95_ms": 0.9 * 12.0**i,
                "index_bytes": 2e6 * (i + 1),
                "index_seconds": 3.0,
                "joules_query": None,
            },
        }
        for i, (system, mean) in enumerate(means.items())
    }
    test = {"baseline": "bm25", "p_alone": 0.001, "wins": 30, "ties": 50, "losses": 20, "low": 0.01, "high": 0.12}
    tests = [
        {"system": s, "metric": m, "p": 0.002 if s != "single vector" else 0.3, "difference": means[s] - 0.61, **test}
        for s in SYSTEMS[1:]
        for m in ("ndcg_10", "mrr_10")
    ]
    draw = random.Random(7)
    rows = [
        {"system": s, "query": f"q{i}", "ndcg_10": round(min(1, max(0, means[s] + d)), 1), "mrr_10": 0.5}
        for i in range(100)
        for d in [draw.gauss(0, 0.2)]
        for s in SYSTEMS
        for d in [d + draw.gauss(0, 0.05)]
    ]
    query = [*text.split()[:5], "[MASK]", "[MASK]"]
    document = [f"word{i}" for i in range(40)]

    def explanation(shift: int) -> dict:
        best = [(5 * i + shift) % 40 for i in range(len(query))]
        matrix = [
            [round(0.9 if j == best[i] else 0.5 * abs(math.sin(i + j)), 4) for j in range(40)]
            for i in range(len(query))
        ]
        told = {"query_tokens": query, "document_tokens": document, "matrix": matrix, "best": best}
        shares = {"words": 0.7, "mask": 0.3, "marker": 0.0, "special": 0.0}
        return told | {"contributions": [0.9] * len(query), "score": 0.9 * len(query), "shares": shares}

    found = [
        {"id": "d1", "title_or_text": f"{text}: a trial", "grade": 1, "rank_a": 14, "rank_b": 1},
        {"id": "d2", "title_or_text": "another thing", "grade": None, "rank_a": 1, "rank_b": None},
    ]
    one = {"query": "q1", "text": text, "a": 0.0, "b": 1.0, "difference": 1.0, "documents": found}
    one["explanations"] = {"a": {"d1": explanation(1)}, "b": {"d1": explanation(4)}}
    lost = one | {"query": "q2", "a": 1.0, "b": 0.5, "difference": -0.5, "explanations": {}}
    differences = {"a": "bm25", "b": "colbert", "metric": "ndcg_10", "gained": [one], "lost": [lost]}
    told = {
        "collection": "toy",
        "split": "test",
        "corpus": "full",
        "queries": 100,
        "baseline": "bm25",
        "test": "randomisation",
        "relevance_level": 1,
        "systems": systems,
        "tests": tests,
        "published": [
            {
                "system": "colbert",
                "metric": "ndcg_10",
                "value": 0.671,
                "source": "a paper, table 2",
                "collection": "toy",
                "measured": 0.69,
                "difference": 0.019,
                "protocol": ["a pool in place of the corpus"],
            }
        ],
        "guards": {"contamination": {"exact": 1, "near": 3}},
        "truncation": {"queries": 0, "documents": 12},
    }
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    files = {"comparison.json": told, "differences.json": differences, "per_query.jsonl": lines}
    return write_run(
        root, "comparison", name, 700, files=files, summary={"objective": 0.69}, notes="Which kind is best?"
    )


def write_fidelity(root: Path) -> Path:
    """Five settings of two index kinds beside exact."""
    rows = []
    for i, (kind, overlap, ms, size) in enumerate(
        [("exact", 1.0, 48.0, 512.0), ("residual", 0.97, 12.0, 36.0), ("residual", 0.91, 5.0, 36.0)]
        + [("ivfpq", 0.93, 9.0, 18.0), ("ivfpq", 0.8, 3.5, 18.0)]
    ):
        rows.append(
            {
                "setting": {"name": kind, "series": kind, "label": f"{kind} {i}", "short": f"{i}/{4 * i}"},
                "queries": 75,
                "figures": {"overlap_100": overlap, "ndcg_10": 0.55 - 0.1 * (1 - overlap)},
                "tests": {"ndcg_10": {"p": 0.04, "holm": 0.2, "mean_difference": overlap - 1}} if i else {},
                "error": {"mean": 1 - overlap},
                "index": {"bytes_per_vector": size, "build_seconds": None if i == 0 else 3.2},
                "latency": {"search": {"p50": ms, "p95": 2 * ms}, "threads": 2},
                "front": {"latency": i != 2, "bytes": i in (0, 1, 3)},
            }
        )
    told = {"split": "test", "collection": "toy", "k": 100, "quality": "overlap_100", "settings": rows}
    return write_run(root, "fidelity", "toy-test", 800, files={"fidelity.json": told})


def write_rounds(root: Path) -> Path:
    """Two rounds beside BM25 on one split, their metrics artifact and the model of the first among its inputs."""
    means = {"bm25": 0.6, "round 0": 0.65, "round 1": 0.71}
    systems = {
        name: {"means": {"ndcg_10": v, "mrr_10": v - 0.02}, "counts": {"judged": 50}} for name, v in means.items()
    }
    step = {"system": "round 1", "baseline": "round 0", "metric": "ndcg_10", "p": 0.01, "p_alone": 0.01}
    step |= {"difference": 0.06, "low": 0.02, "high": 0.1}
    told = {
        "split": "test",
        "collection": "toy",
        "systems": systems,
        "tests": [{**step, "wins": 9, "ties": 1, "losses": 2}],
    }
    metrics = write_run(root, "metrics", "toy-test-rounds", 900, files={"metrics.json": told})
    model = write_run(root, "model", "toy-s0", 901, summary={"objective": 0.65}, lines=training(200, 3e-5, 0.65, 1))
    mined = {
        "queries": 40,
        "positives": 41,
        "pairs": 300,
        "negatives_per_query": [3, 5, 5],
        "dropped": {"x": {"total": 4}},
    }
    made = {"round 1 mined": mined}
    told = {"best": "round 1", "chosen_by": "dev", "means": {"test": {n: s["means"] for n, s in systems.items()}}}
    told |= {"steps": {"test": [step]}, "made": made}
    inputs = {"metrics_test": metrics, "pairwise": model}
    return write_run(root, "rounds", "toy-rounds", 902, files={"rounds.json": told}, inputs=inputs)


def write_suite(root: Path) -> Path:
    """A suite of one collection of two, which the comparison judged, with averages, and published ones beside them."""
    comparison = write_comparison(root)
    told = json.loads((comparison / "comparison.json").read_text())
    means = {name: one["means"]["ndcg_10"] for name, one in told["systems"].items()}
    entry = {"name": "toy", "split": told["split"], "headline": "ndcg_10", "collection": told["collection"]}
    entry |= {"queries": told["queries"], "path": str(comparison), "conditions": "toy: test, queries 32 ids"}
    mean = {"list": "1 of BEIR-13", "system": "ColBERTv2", "source": "a paper, table 2", "metric": "ndcg_10"}
    mean |= {
        "value": 0.4998,
        "ours": "colbert",
        "measured": 0.69,
        "difference": 0.1902,
        "protocol": ["candidates: all"],
    }
    row = {"system": "ColBERTv2", "source": "a paper, table 2", "values": {"toy": 0.671, "1 of BEIR-13": 0.4998}}
    record = {
        "suite": "BEIR-13",
        "headlines": ["ndcg_10"],
        "entries": [entry],
        "missing": ["nq"],
        "systems": {name: {"toy": value} for name, value in means.items()},
        "averages": {
            name: {"label": "1 of BEIR-13", "value": value, "members": ["toy"], "missing": ["nq"]}
            for name, value in means.items()
        },
        "published": [mean],
        "figures": [row],
    }
    return write_run(root, "suite", "beir-13", 950, files={"suite.json": record}, inputs={"toy": comparison})
