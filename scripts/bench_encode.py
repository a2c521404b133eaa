"""Encoding throughput: `colbert_lab.models.encoding.encode` beside a plain length-sorted PyTorch loop, in turns.

    python scripts/bench_encode.py DIR                 a BEIR folder; prints a table
    python scripts/bench_encode.py DIR --documents 512 --rounds 5

Both run the same model at the same precision over the same documents. The loop tokenises and pads batches of 32 of the
length-sorted documents, and keeps the vectors that are scored; ours bounds a batch by its ids and hands back a Ragged
in the documents' order. The first round of each is not counted.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch
import torch.nn.functional as F

from colbert_lab.data.beir import BeirFolder
from colbert_lab.models.backbone import EMBEDDED, Backbone
from colbert_lab.models.colbert import ColBERT
from colbert_lab.models.encoding import encode
from colbert_lab.models.precision import autocast, best_device, resolve_precision
from colbert_lab.text.contract import Contract
from colbert_lab.text.tokenizer import ColBERTTokenizer


@torch.inference_mode()
def plain_loop(model: ColBERT, texts: list[str], precision: str) -> list[torch.Tensor]:
    """What one would write without a framework: sort by length, batches of 32, pad, run, normalise, drop."""
    tokenizer = model.tokenizer.tokenizer
    skip = torch.tensor(sorted(model.tokenizer.skip_ids), device=model.device)
    vectors = []
    order = np.argsort([-len(text) for text in texts])
    with autocast(precision, model.device):
        for start in range(0, len(order), 32):
            batch = tokenizer(
                [texts[i] for i in order[start : start + 32]],
                truncation=True,
                max_length=model.tokenizer.contract.document_length,
                padding=True,
                return_tensors="pt",
            ).to(model.device)
            states = model.backbone(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
            embeddings = F.normalize(states.float(), dim=-1)
            keep = batch["attention_mask"].bool() & ~torch.isin(batch["input_ids"], skip)
            vectors += [row[mask].cpu() for row, mask in zip(embeddings, keep)]
    return vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a BEIR folder")
    parser.add_argument("--documents", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    options = parser.parse_args()

    records = list(BeirFolder(str(options.folder)).documents())
    chosen = np.random.default_rng(0).permutation(len(records))[: options.documents]
    texts = [f"{records[i].title} {records[i].text}".strip() for i in chosen]
    backbone, tokenizer = Backbone(EMBEDDED).load()
    contract = Contract(query_marker=None, document_marker=None, expansion="off")
    model = ColBERT(backbone, ColBERTTokenizer(tokenizer, contract), None).to(best_device()).eval()
    systems = {
        "plain loop": lambda: plain_loop(model, texts, options.precision),
        "colbert_lab": lambda: encode(model, texts, "document", options.precision),
    }
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(options.rounds + 1):
        for name, run in systems.items():
            start = time.perf_counter()
            run()
            if model.device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    encoded = encode(model, texts, "document", options.precision)
    ratios = [a / b for a, b in zip(seconds["plain loop"][1:], seconds["colbert_lab"][1:])]
    precision = resolve_precision(options.precision, model.device)
    threads = torch.get_num_threads()
    print(f"{len(texts)} documents, {encoded.tokens:,} ids; {precision}, {model.device}, {threads} threads")
    print(f"{'':<12} {'median s':>9} {'best s':>8} {'documents/s':>12} {'tokens/s':>10}")
    for name, times in seconds.items():
        middle = statistics.median(times[1:])
        rates = f"{len(texts) / middle:12.1f} {encoded.tokens / middle:10,.0f}"
        print(f"{name:<12} {middle:9.2f} {min(times[1:]):8.2f} {rates}")
    print(f"speed of colbert_lab over the plain loop, round by round: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


if __name__ == "__main__":
    main()
