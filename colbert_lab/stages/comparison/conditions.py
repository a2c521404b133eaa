"""Under which conditions the figures of a comparison came about: protocols, and what was cut."""

import json
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig

from colbert_lab.artifact import Artifact
from colbert_lab.evaluation.published import Conditions
from colbert_lab.stages.comparison.kinds import Bm25, CrossEncoder, EndToEnd, Fusion, Rerank, SingleVector
from colbert_lab.stages.comparison.made import Made

_KINDS = {
    Bm25: "lexical",
    SingleVector: "single_vector",
    CrossEncoder: "cross_encoder",
    Rerank: "late_interaction",
    EndToEnd: "late_interaction",
    Fusion: "fusion",
}


def conditions(cfg: DictConfig, one: Made, queries: int) -> Conditions:
    """How a system's figures came about, to be held against a published one's."""
    record = {} if one.model is None else record_of(one.model)
    contract = record.get("contract", {})
    provenance = record.get("provenance", {})
    # A model that others published is known by its own name, one that was trained here by what it began with.
    model = provenance["source"] if "commit" in provenance else provenance.get("backbone")
    if isinstance(one.system, CrossEncoder):
        model = json.loads((one.teacher.path / "cross_encoder.json").read_text())["provenance"].get("backbone")
    if isinstance(one.system, Bm25):
        model = "BM25"
    reranks = isinstance(one.system, Rerank | CrossEncoder)
    return Conditions(
        kind=_KINDS.get(type(one.system)),
        model=model,
        corpus=cfg.corpus,
        candidates=f"{one.sources[0].label} top {one.system.k}" if reranks else "all",
        query_length=contract.get("query_length"),
        document_length=contract.get("document_length"),
        index=one.system.index if isinstance(one.system, EndToEnd) else None,
        queries=queries,
    )


def record_of(model: Artifact) -> dict[str, Any]:
    """What a checkpoint says of itself, without loading its weights."""
    return json.loads((model.path / "colbert_lab.json").read_text())


def truncation(made: Sequence[Made]) -> dict[str, Any]:
    """How many queries, documents, passages or pairs each model cut, by system; and as sentences, each model's once."""
    systems: dict[str, dict[str, int]] = {}
    notes: dict[tuple, str] = {}
    for one in made:
        run = one.runs[0].given
        counts = run.manifest["counts"] if isinstance(run, Artifact) else {}
        if "cut_pairs" in counts:
            length = json.loads((one.teacher.path / "cross_encoder.json").read_text())["max_length"]
            systems[one.name] = {"pairs": counts["cut_pairs"], "of_pairs": counts["results"]}
            if counts["cut_pairs"]:
                told = f"{one.name}: {counts['cut_pairs']:,} of {counts['results']:,} pairs were cut at {length:,} ids"
                notes.setdefault((one.name,), told)
            continue
        index = {} if one.index is None else one.index.manifest["counts"]
        counted = {**counts, **index}
        if "cut_documents" not in counted or "cut_queries" not in counts:
            continue
        limits = record_of(one.model)["contract"]
        queries = {"queries": counts["cut_queries"]}
        if "passages" in counted:
            cut, of, what = counted["cut_passages"], counted["passages"], "passages"
            left_out = {"left_out_passages": counted["left_out_passages"], "shortened": counted["cut_documents"]}
            systems[one.name] = {**queries, "passages": cut, "of_passages": of, **left_out}
        else:
            cut, of, what, left_out = counted["cut_documents"], counted["documents"], "documents", {}
            systems[one.name] = {**queries, "documents": cut, "of_documents": of}
        told = (
            f"{one.name}: {cut:,} of {of:,} {what} were cut at {limits['document_length']:,} ids, "
            f"{counts['cut_queries']:,} of {counts['queries']:,} queries at {limits['query_length']:,}"
        )
        if any(left_out.values()):
            told += (
                f"; {left_out['left_out_passages']:,} passages of {left_out['shortened']:,} documents are beyond "
                "passages.most and left out"
            )
        if cut or counts["cut_queries"] or any(left_out.values()):
            notes.setdefault((one.model.digest, cut, *left_out.values(), counts["cut_queries"]), told)
    return {"systems": systems, "notes": list(notes.values())}
