"""describe: a collection's statistics, what a model's lengths cut of it, and what its splits share."""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from omegaconf import DictConfig

from colbert_lab.artifact import Artifact, Builder
from colbert_lab.data.collection import Collection
from colbert_lab.errors import ConfigError
from colbert_lab.stages.collection import open_collection
from colbert_lab.stages.hub import model_at
from colbert_lab.stages.making import Outcome, create, make, plain
from colbert_lab.stages.splits import settled
from colbert_lab.tracking.tracker import Tracker

_SETTLED = ("backbone", "text")


def run(cfg: DictConfig) -> Outcome:
    """Describe the collection of cfg.data; statistics.json has everything, the text what a person should see."""
    problems = [
        f"describe.{name}={cfg.describe[name]} must be at least {least}\ntry: describe.{name}={good}"
        for name, least, good in (("near_limit", 0, 30000), ("sample", 1, 100000))
        if cfg.describe[name] < least
    ]
    asked = [o for o in cfg.get("overrides") or [] if o.lstrip("+~").partition("=")[0].partition(".")[0] in _SETTLED]
    if cfg.model is not None and asked:
        problems.append(f"model={cfg.model} is given, so {' '.join(asked)} would change nothing\ntry: leave one out")
    if problems:
        raise ConfigError(problems, "describe")
    collection = open_collection(cfg)
    described = describe(cfg, collection)
    return Outcome(described, (described.path / "statistics.txt").read_text())


def describe(cfg: DictConfig, collection: Collection) -> Artifact:
    """The artifact with statistics.json and statistics.txt."""
    cfg = settled(cfg, collection.splits)
    model = None if cfg.model is None else model_at(cfg, cfg.model)
    content = {
        "splits": cfg.splits,
        "describe": cfg.describe,
        "contract": {"backbone": cfg.backbone, "text": cfg.text} if model is None else None,
    }

    def work(builder: Builder, tracker: Tracker) -> None:
        from colbert_lab.data.contamination import contamination
        from colbert_lab.data.statistics import statistics, title_only

        found = statistics(collection, cfg.describe.near_limit)
        found["documents"]["title_only"] = title_only(create(cfg.data))
        found["lengths"] = _lengths(cfg, model, collection)
        named = list(dict.fromkeys(split for split in plain(cfg.splits).values() if split in collection.splits))
        shared = [contamination(collection, earlier, later) for earlier, later in combinations(named, 2)]
        found["contamination"] = [one.to_json() for one in shared]
        (builder.path / "statistics.json").write_text(json.dumps(found, indent=1, ensure_ascii=False))
        text = "\n".join(_told(found) + [line for one in shared for line in one.notes()]) + "\n"
        (builder.path / "statistics.txt").write_text(text)
        builder.counts.update(documents=found["documents"]["count"], queries=found["queries"]["count"])
        tracker.summary(
            {
                "describe/documents": found["documents"]["count"],
                "describe/documents_share_lost": found["lengths"]["documents"]["share_lost"],
                "describe/queries_share_lost": found["lengths"]["queries"]["share_lost"],
            }
        )

    inputs = {"collection": collection.artifact, **({} if model is None else {"model": model})}
    return make(cfg, "describe", "description", collection.name.replace("/", "-"), inputs, content, work, cfg.run_dir)


def _lengths(cfg: DictConfig, model: Artifact | None, collection: Collection) -> dict[str, Any]:
    """Lengths in the tokeniser's ids, and what the contract cuts of all documents and all queries."""
    from colbert_lab.data.statistics import lengths_statistics
    from colbert_lab.evaluation.truncation import content_ids, cut, spread
    from colbert_lab.models.backbone import max_positions
    from colbert_lab.models.checkpoint import load_model
    from colbert_lab.text.tokenizer import ColBERTTokenizer

    if model is None:
        text = create(cfg.text)
        backbone, words = create(cfg.backbone).load((text.query_marker, text.document_marker))
        tokenizer, name = ColBERTTokenizer(words, text), cfg.backbone.name
    else:
        encoder = load_model(model.path)
        backbone, tokenizer, name = encoder.backbone, encoder.tokenizer, model.path.name
    rows = spread(len(collection.corpus), cfg.describe.sample)
    found = {"tokeniser": name, "positions": max_positions(backbone)}
    for what, role, texts, some in (
        ("documents", "document", collection.corpus, rows),
        ("queries", "query", collection.queries, range(len(collection.queries))),
    ):
        ids = content_ids(tokenizer, texts, some)
        found[what] = {**lengths_statistics(ids), **cut(ids, tokenizer, role)}
    return found


def _told(found: Mapping[str, Any]) -> list[str]:
    """What a person should see, in lines."""
    from colbert_lab.data.statistics import histogram

    lengths = found["lengths"]
    titles = {"prepend": "put before the texts", "drop": "left out"}[found["title"]]
    lines = [f"{found['collection']}: {found['titles']:,} titles, {titles}"]
    for what in ("documents", "queries"):
        texts, ids = found[what], lengths[what]
        lines += ["", f"{what}: {texts['count']:,}, {_ends(texts['first_and_last'])}"]
        lines += [f"  {line}" for line in _oddities(texts)]
        role = {"documents": "document", "queries": "query"}[what]
        lines += [
            f"  words: mean {texts['words']['mean']:,.1f}, median {texts['words']['median']:,.0f}, "
            f"95% up to {texts['words']['p95']:,.0f}, longest {texts['words']['max']:,}",
            f"  ids of {lengths['tokeniser']}: mean {ids['mean']:,.1f}, median {ids['median']:,.0f}, "
            f"95% up to {ids['p95']:,.0f}, longest {ids['max']:,}",
            *(f"  {line}" for line in histogram(ids["bins"])),
            f"  {role}_length={ids['length']} cuts {ids['cut']:,} of {ids['of']:,} "
            f"({ids['cut'] / max(1, ids['of']):.1%}); {ids['share_lost']:.1%} of all ids are lost",
        ]
    if lengths["positions"] is not None:
        lines.append(f"  the backbone reads at most {lengths['positions']:,} ids")
    for split, one in found["splits"].items():
        grades = ", ".join(f"{n:,} of grade {grade}" for grade, n in one["grades"].items())
        lines += [
            "",
            f"{split}: {one['queries']:,} queries, {_ends(one['first_and_last'])}; {one['judgements']:,} judgements "
            f"({grades or 'none'}), {one['positives_per_query']:.1f} positives a query",
        ]
        for key, told in (
            ("without_positive", "queries have no relevant document"),
            ("unknown_documents", "judgements name documents that are not in the corpus"),
            ("positives_all_unknown", "queries have none of their relevant documents in the corpus"),
        ):
            lines += _counted(one[key], told, "  ")
    return [*lines, ""]


def _oddities(texts: Mapping[str, Any]) -> list[str]:
    lines = [
        *_counted(texts["empty"], "are empty"),
        *_counted(texts.get("title_only", {"count": 0}), "have a title and no text"),
        *_counted(texts["duplicates"], "have the text of another"),
    ]
    if texts["near_duplicates"] is None:
        return [*lines, "too many for near duplicates to be looked for (describe.near_limit)"]
    return [*lines, *_counted(texts["near_duplicates"], "more nearly have the text of one before them")]


def _counted(found: Mapping[str, Any], told: str, indent: str = "") -> list[str]:
    if not found["count"]:
        return []
    shown = ["=".join(map(repr, one)) if isinstance(one, list) else repr(one) for one in found["shown"]]
    more = ", ..." if found["count"] > len(shown) else ""
    return [f"{indent}{found['count']:,} {told}: {', '.join(shown)}{more}"]


def _ends(ids: Sequence[str]) -> str:
    return " to ".join(map(repr, ids)) or "none"
