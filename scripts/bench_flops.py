"""What re-ranking costs by early and by late interaction: the ratios of the ColBERT paper, and of models on disk.

    python scripts/bench_flops.py                      the paper's: 180x, 13,900x, 23,000x, by formula
    python scripts/bench_flops.py --model DIR --cross-encoder DIR --folder DIR --k 10 100 1000

Table 1 of the paper (arXiv 2004.12832) has BERT-base read k pairs of 512 ids, and ColBERT encode a query of 32 ids and
score k documents of 180 vectors of 128 dimensions. Of models on disk the same k documents of a BEIR folder, drawn with
seed 0, are re-ranked for a few of its queries by both: operations by formula, without padding; counted while the models
run, with what the scoring kernel multiplies added; and milliseconds, the median, one query at a time. Documents are
encoded before, as a re-ranker has them.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch

from colbert_lab.data.beir import BeirFolder
from colbert_lab.evaluation.flops import (
    counted_flops,
    cross_encoder_flops,
    interaction_flops,
    late_interaction_flops,
    shape_of,
)
from colbert_lab.evaluation.latency import timed
from colbert_lab.models.checkpoint import load_model
from colbert_lab.models.cross_encoder import CrossEncoder, score_pairs
from colbert_lab.models.encoding import encode
from colbert_lab.models.precision import best_device
from colbert_lab.ragged import Ragged
from colbert_lab.run import Run, rank
from colbert_lab.search.rerank import gathered, rerank

PRINTED = {10: "180", 1000: "13,900", 2000: "23,000"}
_BASE = {"layers": 12, "hidden": 768}


def paper(ks: Sequence[int]) -> list[list[str]]:
    """Rows of BERT-base against ColBERT by formula: k, both sides' GFLOPs, the ratio, and the one printed."""
    rows = []
    for k in ks:
        early = cross_encoder_flops(k, 512, **_BASE)
        late = late_interaction_flops(32, k * 180, 128, **_BASE)
        rows.append([f"{k:,}", _giga(early), _giga(late), f"{early / late:,.0f}", PRINTED.get(k, "-")])
    return rows


def measured(model_dir: Path, teacher_dir: Path, folder: Path, ks: Sequence[int], queries: int) -> list[list[str]]:
    """Rows of both models on disk: k, both sides by formula and counted, ratios, both sides' ms, and their ratio."""
    model = load_model(model_dir).to(best_device()).eval()
    if (teacher_dir / "cross_encoder.json").is_file():
        teacher = CrossEncoder.load(teacher_dir)
    else:
        teacher = CrossEncoder.from_pretrained(str(teacher_dir), 180, seed=0)
    teacher = teacher.to(best_device()).eval()
    source, draw = BeirFolder(str(folder)), np.random.default_rng(0)
    texts = [f"{one.title} {one.text}".strip() for one in source.documents()]
    asked = [one.text for one in source.queries()]
    asked = [asked[i] for i in draw.permutation(len(asked))[:queries]]
    pool = [texts[i] for i in draw.permutation(len(texts))[: max(ks)]]
    vectors = encode(model, pool, "document").embeddings

    def embeddings(ids: Sequence[str]) -> Ragged:
        return vectors.select([int(name) for name in ids])

    rows = []
    for k in ks:
        if k > len(pool):
            raise SystemExit(f"k={k:,}, but {folder} has {len(pool):,} documents\ntry: --k {len(pool)}")
        some, ids = pool[:k], [f"{i}" for i in range(k)]
        candidates = Run({"query": rank(ids, np.zeros(k))})

        def early(i: int, some: list[str] = some) -> None:
            score_pairs(teacher, [asked[i]] * len(some), some)

        def late(i: int, candidates: Run = candidates, k: int = k) -> None:
            query = encode(model, [asked[i]], "query").embeddings
            rerank(candidates, query, gathered(embeddings, model.similarity), k)

        formulas, counts = [], []
        for i, text in enumerate(asked):
            lengths = teacher.tokenize([text] * k, some).lengths
            shape = shape_of(teacher.model)
            pairs = sum(cross_encoder_flops(1, length, *shape) for length in lengths)
            query = encode(model, [text], "query").embeddings
            ours = int(vectors.lengths[:k].sum())
            length = model.tokenizer.encode([text], "query").lengths[0]
            shape, projected = shape_of(model.backbone), model.projection is not None
            count = len(query.values)
            by_late = late_interaction_flops(length, ours, model.dim, *shape, query_vectors=count, projected=projected)
            formulas.append((pairs, by_late))
            kernel = interaction_flops(count, ours, model.dim)
            counts.append((counted_flops(lambda i=i: early(i)), counted_flops(lambda i=i: late(i)) + kernel))
        formula, counted = np.mean(formulas, axis=0), np.mean(counts, axis=0)
        ms = [timed(call, len(asked), len(asked), 1).p50_ms for call in (early, late)]
        rows.append(
            [f"{k:,}", *map(_giga, formula), f"{formula[0] / formula[1]:,.1f}"]
            + [*map(_giga, counted), f"{counted[0] / counted[1]:,.1f}"]
            + [f"{one:,.1f}" for one in ms]
            + [f"{ms[0] / ms[1]:,.1f}"]
        )
    return rows


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The rows below their head, aligned to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in (head, *rows))


def _giga(operations: float) -> str:
    return f"{operations / 1e9:,.4g}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a late-interaction model's directory")
    parser.add_argument("--cross-encoder", type=Path, help="a cross-encoder's directory, ours or Hugging Face's")
    parser.add_argument("--folder", type=Path, help="a BEIR folder")
    parser.add_argument("--k", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--queries", type=int, default=5)
    options = parser.parse_args(arguments)
    print("BERT-base and ColBERT by formula, GFLOPs a query")
    print(table(["k", "cross-encoder", "late interaction", "ratio", "printed"], paper([10, 1000, 2000])))
    given = [options.model, options.cross_encoder, options.folder]
    if not any(given):
        return
    if not all(given):
        parser.error("--model, --cross-encoder and --folder are wanted together")
    rows = measured(*given, options.k, options.queries)
    threads = f"{torch.get_num_threads()} threads, {best_device()}"
    print(f"\n{options.cross_encoder.name} and {options.model.name}, {options.queries} queries, {threads}")
    sides = ["cross GFLOPs", "late GFLOPs", "ratio"]
    print(table(["k", *sides, *(f"counted {one}" for one in sides), "cross ms", "late ms", "ratio in ms"], rows))


if __name__ == "__main__":
    main()
