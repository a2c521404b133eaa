"""What explain writes: explanation.json and .txt, a heat map a pair, highlight.html; differences.json for two runs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from textwrap import shorten
from typing import Any

from omegaconf import DictConfig

from colbert_lab.artifact import Artifact, Builder
from colbert_lab.data.collection import Collection
from colbert_lab.evaluation.differences import (
    Difference,
    Differences,
    difference_lines,
    difference_of,
    differences,
    differences_text,
)
from colbert_lab.evaluation.explain import Explanation
from colbert_lab.evaluation.metrics import evaluate
from colbert_lab.run import Run
from colbert_lab.stages.making import Outcome, make, plain
from colbert_lab.stages.ranked_by import encoded_as
from colbert_lab.stages.search import query_encoding
from colbert_lab.tracking.tracker import Tracker

_TEXT = "explanation.txt"


@dataclass(frozen=True)
class Pair:
    """A query and a document by id, the document's rank in a run and its grade, None where there is none."""

    query: str
    document: str
    rank: int | None = None
    grade: int | None = None

    def facts(self) -> dict[str, str]:
        """Rank and grade in words."""
        return _facts(self.rank, self.grade)


def explain_pairs(
    cfg: DictConfig,
    model: Artifact,
    collection: Collection | None,
    run: Artifact | str | None,
    pairs: Sequence[Pair],
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    passages: dict[str, Any] | None,
    note: str | None = None,
) -> Outcome:
    """The artifact that explains these pairs by one model; `queries` and `documents` are their texts by id.

    `note` stands beside the explanations.
    """
    inputs = {"model": model, **({} if run is None else {"run": run})}
    if collection is not None:
        inputs["collection"] = collection.artifact
    content = {
        "pairs": [[pair.query, pair.document, pair.rank, pair.grade] for pair in pairs],
        "given": {side: cfg[f"{side}_text"] for side in ("query", "document")},
        "explain": {"columns": cfg.explain.columns},
        "encode": query_encoding(cfg),
        "passages": passages,
        "note": note,
    }

    def work(builder: Builder, tracker: Tracker) -> None:
        from colbert_lab.report.heatmap import heatmap
        from colbert_lab.report.highlight import Shown, pair, terminal
        from colbert_lab.report.highlight_page import page
        from colbert_lab.stages.explain import explain_texts

        asked = [(one.query, one.document) for one in pairs]
        found = explain_texts(model, cfg, dict(queries), dict(documents), asked, passages)
        parts, texts, records = [], [], []
        for number, one in enumerate(pairs, 1):
            x = found[one.query, one.document]
            heading = f"query {one.query} · document {one.document}"
            stem = "heatmap" if len(pairs) == 1 else f"heatmap-{number}"
            for suffix in (".svg", ".png"):
                heatmap(builder.path / f"{stem}{suffix}", x, heading, cfg.explain.columns)
            parts.append(pair(Shown(heading, x, one.facts(), builder.path / f"{stem}.svg"), f"p{number}"))
            told = ", ".join(f"{name} {value}" for name, value in one.facts().items())
            texts.append(terminal(x, f"{heading} ({told})" if told else heading))
            records.append(_record(one, x, f"{stem}.svg", note))
        title = f"Why documents scored as they did: query {pairs[0].query}"
        body = f"<p>{escape(queries[pairs[0].query])}</p>\n{_soft(note)}" + "\n".join(parts)
        (builder.path / "highlight.html").write_text(page(title, body), encoding="utf-8")
        _write(builder, "\n".join([*texts, *([] if note is None else [f"{note}\n"])]), {"pairs": records})
        builder.counts["pairs"] = len(pairs)
        tracker.summary({"explain/pairs": len(pairs)})

    prefix = "text" if collection is None else collection.name.replace("/", "-")
    made = make(cfg, "explain", "explanation", f"{prefix}-{cfg.name}", inputs, content, work, cfg.run_dir)
    return _outcome(made)


def explain_runs(
    cfg: DictConfig,
    collection: Collection,
    split: str,
    runs: Sequence[tuple[Run, Artifact | str]],
    names: Sequence[str],
    models: Sequence[Artifact | None],
    passages: Sequence[dict[str, Any] | None],
    notes: Sequence[str | None],
    query: str | None,
) -> Outcome:
    """The artifact that sets two runs side by side: the queries that gained and lost most, or one query.

    `notes` stand beside each run's explanations.
    """
    options = plain(cfg.explain)
    inputs: dict[str, Artifact | str] = {"collection": collection.artifact}
    for side, (_, given), model in zip("ab", runs, models):
        inputs[f"run_{side}"] = given
        if model is not None:
            inputs[f"model_{side}"] = model
    content = {"split": split, "query": query, "names": list(names), "explain": options}
    views = [encoded_as(cfg, given) for _, given in runs]
    content |= {"encode": [query_encoding(view) for view in views], "passages": list(passages), "notes": list(notes)}

    def work(builder: Builder, tracker: Tracker) -> None:
        from colbert_lab.stages.explain import explanations_of

        found = _differences(collection, split, [run for run, _ in runs], names, options, query)
        wanted = {one.query: _worth_explaining(one, collection) for one in (*found.gained, *found.lost)}
        pairs = [(one, document) for one, documents in wanted.items() for document in documents]
        explained = [
            {} if model is None else explanations_of(model, collection, view, pairs, cut)
            for model, view, cut in zip(models, views, passages)
        ]
        records = _side_by_side(builder, found, wanted, explained, notes, collection, options["columns"])
        text = differences_text(found) if query is None else "\n".join(_one(found)) + "\n"
        text += "".join(f"{side}: {note}\n" for side, note in zip("ab", notes) if note)
        _write(builder, text, {"a": found.a, "b": found.b, "pairs": records})
        (builder.path / "differences.json").write_text(json.dumps(found.to_json(), indent=1), encoding="utf-8")
        builder.counts.update(pairs=len(records), **found.counts)
        tracker.summary({"explain/pairs": len(records)})

    name = f"{collection.name.replace('/', '-')}-{split}-{cfg.name}"
    return _outcome(make(cfg, "explain", "explanation", name, inputs, content, work, cfg.run_dir))


def _differences(
    collection: Collection,
    split: str,
    runs: Sequence[Run],
    names: Sequence[str],
    options: dict[str, Any],
    query: str | None,
) -> Differences:
    qrels = collection.qrels(split)
    metric, level = options["metric"], options["relevance_level"]
    evaluations = [evaluate(run, qrels, [metric], level, len(collection.corpus)) for run in runs]

    def document_text(document: str) -> str | None:
        return collection.corpus.get([document])[0] if document in collection.corpus else None

    def query_text(one: str) -> str:
        return collection.queries.get([one])[0]

    given = (*runs, *evaluations, metric, qrels, query_text, document_text)
    found = differences(*given, n=options["n"], names=tuple(names))
    if query is None:
        return found
    one = difference_of(query, *given)
    return Differences(found.a, found.b, metric, (one,), (), found.counts)


def _worth_explaining(one: Difference, collection: Collection) -> list[str]:
    """Both runs' best and the best judged positive of a query, each once."""
    tops = [d.id for d in one.documents if d.rank_a == 1] + [d.id for d in one.documents if d.rank_b == 1]
    positives = [d for d in one.documents if (d.grade or 0) > 0]
    best = min(positives, key=lambda d: -d.grade, default=None)
    chosen = dict.fromkeys(tops + ([] if best is None else [best.id]))
    return [document for document in chosen if document in collection.corpus]


def _side_by_side(
    builder: Builder,
    found: Differences,
    wanted: Mapping[str, Sequence[str]],
    explained: Sequence[Mapping[tuple[str, str], Explanation]],
    notes: Sequence[str | None],
    collection: Collection,
    columns: int,
) -> list[dict[str, Any]]:
    """Write heat maps and the page, fill the differences' explanations; returns a record a pair and system."""
    from colbert_lab.report.heatmap import heatmap
    from colbert_lab.report.highlight import Shown, pair, side_by_side
    from colbert_lab.report.highlight_page import page

    parts, records = [f"<p>{escape(differences_head(found))}</p>"], []
    parts += [_soft(f"{side}: {note}") for side, note in zip("ab", notes) if note]
    for title, some in (("gained", found.gained), ("lost", found.lost)):
        for one in some:
            head = f"Query {one.query}: {found.metric} {one.a:.4f} → {one.b:.4f} ({one.difference:+.4f}, {title})"
            parts.append(f"<h2>{escape(head)}</h2>\n<p>{escape(one.text)}</p>\n{_ranks(one)}")
            placed = {document.id: document for document in one.documents}
            for document in wanted[one.query]:
                sides: list[list[str]] = []
                for side, explanations, note in zip("ab", explained, notes):
                    rank = placed[document].rank_a if side == "a" else placed[document].rank_b
                    known = Pair(one.query, document, rank, placed[document].grade)
                    x = explanations.get((one.query, document))
                    if x is None:
                        facts = ", ".join(f"{name} {value}" for name, value in known.facts().items())
                        sides.append([f"<p class=soft>no late-interaction model; {escape(facts)}</p>"])
                        continue
                    number = len(records) + 1
                    file = builder.path / f"heatmap-{number}.svg"
                    heatmap(file, x, f"{side}: query {one.query} · document {document}", columns)
                    one.explanations.setdefault(side, {})[document] = noted(x, note)
                    records.append({"system": side, **_record(known, x, file.name, note)})
                    shown = Shown(f"document {document}", x, known.facts(), file)
                    sides.append([pair(shown, f"p{number}")])
                parts.append(side_by_side(*sides, (f"a: {found.a}", f"b: {found.b}")))
    title = f"{collection.name}: what set two runs apart"
    (builder.path / "highlight.html").write_text(page(title, "\n".join(parts)), encoding="utf-8")
    return records


def differences_head(found: Differences) -> str:
    """What the page is of, in a sentence."""
    shown = f"the {len(found.gained)} that gained and the {len(found.lost)} that lost most are shown"
    counts = found.counts
    told = f"{counts['gained']:,} queries gained, {counts['lost']:,} lost, {counts['same']:,} stayed the same"
    return (
        f"{found.metric} from {found.a} (a) to {found.b} (b): {told}; {shown}, each with both runs' best documents and "
        "the best judged one. Shades compare the words of one text."
    )


def _ranks(one: Difference) -> str:
    rows = "".join(
        f"<tr><td>{escape(d.id)}<td class=num>{d.rank_a or '–'}<td class=num>{d.rank_b or '–'}"
        f"<td class=num>{'–' if d.grade is None else d.grade}<td>{escape(_begin(d.text))}</tr>"
        for d in one.documents
    )
    return (
        "<div class=scroll><table><thead><tr><th scope=col>document<th scope=col class=num>rank a"
        "<th scope=col class=num>rank b<th scope=col class=num>grade<th scope=col>text</tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _begin(text: str | None) -> str:
    return "(not in the corpus)" if text is None else shorten(text, 160, placeholder=" …")


def _one(found: Differences) -> list[str]:
    """The text of a page of one query."""
    return [f"{found.metric} from a to b", f"  a  {found.a}", f"  b  {found.b}", *difference_lines(found.gained[0])]


def noted(x: Explanation, note: str | None) -> dict[str, Any]:
    """An explanation's JSON values, with what is to be said beside it."""
    return x.to_json() if note is None else {"note": note, **x.to_json()}


def _record(one: Pair, x: Explanation, picture: str, note: str | None) -> dict[str, Any]:
    known = {"query": one.query, "document": one.document, "rank": one.rank, "grade": one.grade, "heatmap": picture}
    return known | noted(x, note)


def _soft(note: str | None) -> str:
    return "" if note is None else f"<p class=soft>{escape(note)}</p>\n"


def _facts(rank: int | None, grade: int | None) -> dict[str, str]:
    found = {"rank": rank, "grade": grade}
    return {name: str(value) for name, value in found.items() if value is not None}


def _write(builder: Builder, text: str, record: dict[str, Any]) -> None:
    (builder.path / _TEXT).write_text(text, encoding="utf-8")
    (builder.path / "explanation.json").write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")


def _outcome(made: Artifact) -> Outcome:
    text = (Path(made.path) / _TEXT).read_text(encoding="utf-8")
    return Outcome(made, f"{text}\n{made.path / 'highlight.html'}")
