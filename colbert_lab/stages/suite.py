"""A suite judged: the same systems on one collection after the other, and a table of them with named averages.

What is done on a collection is an artifact of its own, found again; one collection's failure does not cost the others.
"""

import traceback
from collections.abc import Callable

from omegaconf import DictConfig, OmegaConf, open_dict

from colbert_lab.artifact import Artifact
from colbert_lab.data.source import Unavailable
from colbert_lab.errors import ConfigError, DataError, LabError
from colbert_lab.evaluation.suite import Entry, Suite
from colbert_lab.stages.comparison.kinds import is_artifact
from colbert_lab.stages.making import Outcome, create, say
from colbert_lab.stages.sections import named
from colbert_lab.stages.suite_report import conclude

# Judges what a configuration names on one collection: a comparison artifact.
Judge = Callable[[DictConfig], Artifact]


def run_suite(cfg: DictConfig, judge_one: Judge) -> Outcome:
    """The comparisons of all of cfg.benchmark's collections, as a table; the objective is the reference's average.

    Prints the table of what could be judged and raises DataError where some could not, with the reason of each.
    """
    suite: Suite = create(cfg.benchmark)
    _refuse_ignored(cfg)
    entries = suite.chosen()
    done: dict[str, Artifact] = {}
    failed: dict[str, str] = {}
    for number, entry in enumerate(entries, 1):
        say(f"[{suite.name}, {number} of {len(entries)}: {entry.name}]")
        try:
            done[entry.name] = judge_one(entry_config(cfg, entry))
        except Unavailable as error:
            failed[entry.name] = f"{error.what}\n{_advice(suite, entry)}"
        except LabError as error:
            failed[entry.name] = str(error)
        except Exception:
            failed[entry.name] = traceback.format_exc()
        if entry.name in failed:
            say(f"{entry.name} failed, the others go on: {failed[entry.name]}")
    made = conclude(cfg, suite, [entry for entry in entries if entry.name in done], done) if done else None
    if failed:
        if made is not None:
            print(made.text)
        reasons = "\n".join(f"{name}: {reason}" for name, reason in failed.items())
        raise DataError(
            f"{len(failed)} of {len(entries)} collections of {suite.name} failed; those that were judged are kept, and "
            f"the same command goes on with the others\n{reasons}"
        )
    return made


def entry_config(cfg: DictConfig, entry: Entry) -> DictConfig:
    """`cfg` for one collection: its data, split, headline metric and rules, and the models at its lengths."""
    view = named(cfg, entry.name)
    with open_dict(view):
        view.benchmark = view.run_dir = None
        view.data = OmegaConf.create(entry.data)
        if view.get("choices"):
            view.choices.pop("data", None)
        view.split = entry.split
        view.search.drop_self = entry.drop_self
        view.evaluate.relevance_level = entry.relevance_level
        # A backbone's bi-encoder is cut so where there is no model to be cut as.
        view.lengths = {"query_length": entry.query_length, "document_length": entry.document_length}
        view.evaluate.metrics = list(dict.fromkeys([entry.headline, *view.evaluate.metrics]))
        if cfg.get("model") is not None:
            view.model = _at_lengths(cfg, cfg.model, entry)
        if cfg.get("seeds") is not None:
            view.seeds = [_at_lengths(cfg, place, entry) for place in cfg.seeds]
        for system in (view.get("systems") or {}).values():
            # A system's own; a backbone's name or a bi-encoder of pooled states is cut as the verb's model is.
            place = system.get("model") if isinstance(system, DictConfig) else None
            if place is None or (system.get("kind") == "single_vector" and not is_artifact(str(place))):
                continue
            several = OmegaConf.is_list(place)
            found = [_at_lengths(cfg, one, entry) for one in (place if several else [place])]
            system.model = found if several else found[0]
    return view


def _advice(suite: Suite, entry: Entry) -> str:
    """How a collection that cannot be had is given to a suite: as a BEIR folder below its root."""
    folder = f"DIR/{entry.name} is a BEIR folder with corpus.jsonl, queries.jsonl and qrels/{entry.split}.tsv"
    names = [one.name for one in suite.chosen()]
    more = f"; without only, DIR holds one for each of {', '.join(names)}" if len(names) > 1 else ""
    return f"try: benchmark.root=DIR benchmark.only=[{entry.name}], where {folder}{more}"


def _at_lengths(cfg: DictConfig, place: str, entry: Entry) -> str:
    if entry.query_length is None and entry.document_length is None:
        return place
    from colbert_lab.stages.hub import model_at
    from colbert_lab.stages.lengths import with_lengths

    return str(with_lengths(cfg, model_at(cfg, place), entry.query_length, entry.document_length).path)


def _refuse_ignored(cfg: DictConfig) -> None:
    """ConfigError where what every collection of a suite says for itself was chosen for the whole of it."""
    settled = ("data", "split", "search.drop_self", "evaluate.relevance_level", "candidates")
    asked = [one.lstrip("+~") for one in cfg.get("overrides") or []]
    ignored = [one for one in asked if any(f"{one.partition('=')[0]}.".startswith(f"{key}.") for key in settled)]
    if ignored:
        raise ConfigError(
            f"a suite's collections say this themselves, so {' '.join(ignored)} would change nothing\n"
            "try: benchmark=null, benchmark.drop_self=true (or split, relevance_level), or "
            "+benchmark.entries.NAME.split=dev",
            "the suite",
        )
