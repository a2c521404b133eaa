"""explain: why documents scored as they did by a late-interaction model; what set two runs apart, side by side."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from colbert_lab.artifact import Artifact
from colbert_lab.data.collection import Collection
from colbert_lab.data.texts import Texts
from colbert_lab.errors import ConfigError, DataError
from colbert_lab.evaluation.explain import Explanation, explain
from colbert_lab.run import Run
from colbert_lab.stages.collection import open_collection
from colbert_lab.stages.explain_report import Pair, explain_pairs, explain_runs
from colbert_lab.stages.hub import model_at
from colbert_lab.stages.making import Outcome, create, input_of, say
from colbert_lab.stages.ranked_by import cut_by, encoded_as, is_late_interaction, model_of, note_of
from colbert_lab.stages.rerank import read_run

# Beyond so many ids none that is near to a mistaken one is looked for.
_NEAR_AMONG = 200_000


def explanations_of(
    model: Artifact,
    collection: Collection,
    cfg: DictConfig,
    pairs: Sequence[tuple[str, str]],
    passages: dict[str, Any] | None = None,
) -> dict[tuple[str, str], Explanation]:
    """(query id, document id) -> Explanation by the late-interaction model in an artifact.

    Only the texts of these pairs are encoded, each once, as cfg.encode (precision, batch_tokens) says. `passages` is
    the section by which documents are cut: a document is then explained by its best passage, the first of equal ones.
    ConfigError for a single-vector model, DataError for an id that is unknown.
    """
    ids = ({pair[side]: None for pair in pairs} for side in (0, 1))
    texts = [dict(zip(some, of.get(list(some)))) for some, of in zip(ids, (collection.queries, collection.corpus))]
    return explain_texts(model, cfg, *texts, pairs, passages)


def explain_texts(
    model: Artifact,
    cfg: DictConfig,
    queries: dict[str, str],
    documents: dict[str, str],
    pairs: Sequence[tuple[str, str]],
    passages: dict[str, Any] | None = None,
) -> dict[tuple[str, str], Explanation]:
    """The same for texts by id that need not be in a collection."""
    from colbert_lab.models.encoding import encode
    from colbert_lab.stages.reading import load_encoder

    if not pairs:
        return {}
    _check(model)
    encoder = load_encoder(model)

    def sides(texts: Sequence[str], role: str) -> list[tuple]:
        vectors = encode(encoder, texts, role, cfg.encode.precision, cfg.encode.batch_tokens).embeddings
        return list(zip(vectors, encoder.tokenizer.positions(texts, role), strict=True))

    asked = dict(zip(queries, sides(list(queries.values()), "query")))
    bodies, counts = list(documents.values()), [1] * len(documents)
    if passages is not None:
        split = create(OmegaConf.create(passages)).split(bodies, encoder.tokenizer)
        bodies, counts = split.texts, split.counts
    pieces = iter(sides(bodies, "document"))
    given = {document: [next(pieces) for _ in range(count)] for document, count in zip(documents, counts)}
    found = {}
    for query, document in pairs:
        vectors, positions = asked[query]
        alternatives = (explain(vectors, d, positions, p, encoder.similarity) for d, p in given[document])
        found[query, document] = max(alternatives, key=lambda one: one.score)
    return found


def _check(model: Artifact) -> None:
    """ConfigError for a single-vector model."""
    if not is_late_interaction(model):
        raise ConfigError(
            f"{model.path} has one vector a text, so there is nothing that one token chose of another\n"
            "try: model=<directory of a late-interaction model>"
        )


def run(cfg: DictConfig) -> Outcome:
    """Explain the pair, the best of a run for one query, or what set two runs apart."""
    places = list(cfg.run) if isinstance(cfg.run, ListConfig) else [] if cfg.run is None else [cfg.run]
    if len(places) > 2:
        raise ConfigError(f"{len(places)} runs are given; one is explained, or two side by side\ntry: run=[A,B]")
    runs = [read_run(place) for place in places]
    collection = _collection(cfg, [artifact for _, artifact in runs])
    if len(runs) == 2:
        return _two(cfg, collection, runs, places)
    model = _model(cfg, runs)
    _check(model)
    pairs, queries, documents = _pairs(cfg, collection, runs[0][0] if runs else None, _split(cfg, runs))
    artifact = runs[0][1] if runs else None
    view, passages, note = encoded_as(cfg, artifact), cut_by(artifact), note_of(artifact)
    return explain_pairs(view, model, collection, artifact, pairs, queries, documents, passages, note)


def _two(
    cfg: DictConfig, collection: Collection | None, runs: list[tuple[Run, Artifact | str]], places: list[str]
) -> Outcome:
    """Both runs' systems; one that no late interaction ranked (BM25, ...) has ranks and no explanations."""
    split = _split(cfg, runs)
    if collection is None or split is None:
        raise ConfigError("two runs are compared by judgements\ntry: data=beir data.root=DIR split=test")
    unwanted = [key for key in ("model", "document", "query_text", "document_text") if cfg[key] is not None]
    if unwanted:
        raise ConfigError([f"{key} says nothing of two runs\ntry: {key}=null" for key in unwanted], "explain")
    query = given_id(cfg, "query")
    if query is not None:
        _known(collection.queries, query, "query", collection.corpus)
    models = []
    for (_, artifact), place in zip(runs, places):
        model = model_of(artifact, cfg) if isinstance(artifact, Artifact) else None
        if model is None:
            say(f"{place} was not ranked by late interaction: its ranks are shown, without explanations")
        models.append(model)
    if models == [None, None]:
        raise ConfigError("neither run was ranked by late interaction, so there is nothing to explain")
    cuts = [cut_by(artifact) for _, artifact in runs]
    notes = [None if model is None else note_of(artifact) for (_, artifact), model in zip(runs, models)]
    names = [Path(place).name.removesuffix(".gz").removesuffix(".trec") for place in places]
    return explain_runs(cfg, collection, split, runs, names, models, cuts, notes, query)


def _pairs(
    cfg: DictConfig, collection: Collection | None, found: Run | None, split: str | None
) -> tuple[list[Pair], dict[str, str], dict[str, str]]:
    """The pairs to explain, and their queries' and documents' texts by id."""
    query, queries = _side(cfg, "query", None if collection is None else collection.queries, collection)
    if query is None:
        raise ConfigError("which query?\ntry: query=<id>, or query_text='...'")
    document, documents = _side(cfg, "document", None if collection is None else collection.corpus, collection)
    judged = {}
    if collection is not None and split is not None:
        judged = collection.qrels(split).get(query, {})
    ids = found[query].ids if found is not None and query in found else ()
    ranks = {one: rank for rank, one in enumerate(ids, 1)}
    if document is not None:
        return [Pair(query, document, ranks.get(document), judged.get(document))], queries, documents
    if found is None:
        raise ConfigError("which document?\ntry: document=<id>, document_text='...', or run=<a run that found some>")
    if query not in found:
        raise DataError(f"the run has no results for query {query!r}{_near(query, list(found))}")
    chosen = list(ids[: cfg.explain.top])
    positives = sorted(
        (one for one, grade in judged.items() if grade > 0 and one in collection.corpus),
        key=lambda one: (-judged[one], ranks.get(one, len(ids) + 1), one),
    )
    if not positives:
        say(f"query {query!r} has no judged relevant document in {split or 'a split: none is given'}")
    chosen += [one for one in positives[:1] if one not in chosen]
    pairs = [Pair(query, one, ranks.get(one), judged.get(one)) for one in chosen]
    return pairs, queries, dict(zip(chosen, collection.corpus.get(chosen)))


def _side(
    cfg: DictConfig, side: str, texts: Texts | None, collection: Collection | None
) -> tuple[str | None, dict[str, str]]:
    """The id and the text of the query or the document that cfg names, None and nothing where it names none.

    A text that is given gets the id "the given text".
    """
    named, text = given_id(cfg, side), cfg[f"{side}_text"]
    if named is not None and text is not None:
        raise ConfigError(f"{side} and {side}_text are both given\ntry: {side}=null")
    if text is not None:
        return "the given text", {"the given text": text}
    if named is None:
        return None, {}
    if texts is None:
        raise ConfigError(f"{side}={named} is an id of which collection?\ntry: data=beir data.root=DIR")
    _known(texts, named, side, collection.corpus if side == "query" else collection.queries)
    return named, {named: texts.get([named])[0]}


def given_id(cfg: DictConfig, key: str) -> str | None:
    """The id at `key` as it was typed: `query=1e3` and `query=007` are ids, whatever they mean elsewhere."""
    if cfg[key] is None or isinstance(cfg[key], str):
        return cfg[key]
    typed = [one.partition("=")[2] for one in cfg.get("overrides") or () if one.lstrip("+").startswith(f"{key}=")]
    return typed[-1].strip() if typed else str(cfg[key])


def _known(texts: Texts, id: str, side: str, others: Texts) -> None:
    """DataError, with near ids, for an id that is not among the texts."""
    if id in texts:
        return
    if id in others:
        other = "document" if side == "query" else "query"
        raise DataError(f"{id!r} is no id in {texts.name}; it is the id of a {other}\ntry: {other}={id}")
    there = texts.all_ids() if len(texts) <= _NEAR_AMONG else []
    raise DataError(f"{id!r} is no id in {texts.name}{_near(id, there)}")


def _near(id: str, ids: Sequence[str]) -> str:
    near = difflib.get_close_matches(id, ids, 3, 0.5)
    if near:
        return f"; near to it are: {', '.join(map(repr, near))}"
    return f"; there are {', '.join(map(repr, ids[:3]))}, ..." if ids else ""


def _collection(cfg: DictConfig, given: list[Artifact | str]) -> Collection | None:
    """cfg's where it names data, else that of the first run; DataError where two runs are of different ones."""
    recorded = [one.manifest["inputs"]["collection"]["digest"] for one in given if isinstance(one, Artifact)]
    if len(set(recorded)) > 1:
        raise DataError("the runs were made on different collections: what sets them apart is not the systems alone")
    if cfg.get("data") is not None:
        collection = open_collection(cfg)
        if recorded and recorded[0] != collection.digest:
            raise DataError(
                f"the run was made on another collection than {collection.name} as data names it\ntry: data=null"
            )
        return collection
    artifact = next((one for one in given if isinstance(one, Artifact)), None)
    return None if artifact is None else Collection(input_of(artifact, "collection", cfg.collection))


def _split(cfg: DictConfig, runs: list[tuple[Run, Artifact | str]]) -> str | None:
    """cfg's split, else the one that a run was searched with."""
    recorded = [one.manifest["config"].get("split") for _, one in runs if isinstance(one, Artifact)]
    return cfg.split or next((split for split in recorded if split), None)


def _model(cfg: DictConfig, runs: list[tuple[Run, Artifact | str]]) -> Artifact:
    """The model at cfg.model, else the one whose token vectors ranked the run."""
    if cfg.model is not None:
        return model_at(cfg, cfg.model)
    model = model_of(runs[0][1], cfg) if runs and isinstance(runs[0][1], Artifact) else None
    if model is None:
        which = "no model is given"
        if runs:
            which = (
                "the run was not ranked by the token vectors of a model that is an artifact here, but by words, a "
                "cross-encoder or one vector a text (index=single_vector)"
            )
        raise ConfigError(f"{which}\ntry: model=<directory of a late-interaction model>")
    return model
