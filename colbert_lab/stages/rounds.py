"""rounds: denoised supervision (ColBERTv2, arXiv 2112.01488, section 3.2) from a backbone to a table, in one command.

Round 0 is the pairwise stage. A round indexes with the model before it, searches the training queries, mines, has a
teacher score, makes tuples and distils. Every step is an artifact that is found again by what went into it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, open_dict

from colbert_lab.artifact import Artifact
from colbert_lab.data.collection import Collection, Qrels
from colbert_lab.stages.collection import open_collection
from colbert_lab.stages.evaluate import check_metrics
from colbert_lab.stages.index import index_with
from colbert_lab.stages.init import single_vector_model, start_model
from colbert_lab.stages.lexical import lexical_run, lexical_teacher
from colbert_lab.stages.making import NotMade, Outcome, create, dry_run, say
from colbert_lab.stages.mine import mine_run, queries_to_mine
from colbert_lab.stages.plan import MODEL, PREVIOUS, Rounds, takes
from colbert_lab.stages.rerank import read_run
from colbert_lab.stages.rounds_checks import check_plan
from colbert_lab.stages.rounds_report import System, conclude
from colbert_lab.stages.score import rerank_with, score_candidates_of, unscored
from colbert_lab.stages.search import check_index, search_index
from colbert_lab.stages.sections import named, section
from colbert_lab.stages.splits import checked_splits
from colbert_lab.stages.teacher import teacher
from colbert_lab.stages.train import split_queries, train
from colbert_lab.stages.tuples import make_tuples

SINGLE_VECTOR = "single vector"
_SINGLE_VECTOR_INDEX = {
    "_target_": "colbert_lab.index.single_vector.SingleVectorIndexKind",
    "pooling": "mean",
    "dtype": "fp16",
}


@dataclass(frozen=True)
class Todo:
    """In place of an artifact in a dry run: a step that would have to be made."""

    label: str


def run(cfg: DictConfig) -> Outcome | str:
    """All rounds and what they gave; the objective is the best round's on dev. A text alone with cfg.dry_run."""
    check_index(cfg)
    cfg = checked_splits(cfg, mines=True)
    check_plan(cfg)
    collection = open_collection(cfg)
    check_metrics(cfg.evaluate, min(cfg.search.k, len(collection.corpus)), len(collection.corpus))
    with dry_run(cfg.dry_run):
        work = _Work(cfg, collection)
        models = work.models()
        judged = work.judge(models)
        if cfg.dry_run:
            return work.told()
        return conclude(cfg, collection, work.judgements(), judged, work.made, work.left_out)


class _Work:
    """The steps of one experiment, made or, in a dry run, looked at; `made` has them by label, in their order.

    `left_out` says which lines the tables lack, and why.
    """

    def __init__(self, cfg: DictConfig, collection: Collection):
        self.cfg, self.collection = cfg, collection
        self.plan: Rounds = create(cfg.rounds)
        self.training, self.dev = split_queries(cfg, collection)
        self.mined = queries_to_mine(cfg, collection, self.training, self.dev)
        self.made: dict[str, Artifact | Todo] = {}
        self.left_out: list[str] = []
        self._lines: list[tuple[str, str, str]] = []

    def models(self) -> dict[str, Artifact | Todo]:
        """Every model that a round ends with, from `round 0` on."""
        known = {name: self._step(name, step, {}, 0) for name, step in self.plan.once.items()}
        models = {"round 0": known[self.plan.first]}
        for number in range(1, self.plan.count + 1):
            within = {**known, PREVIOUS: models[f"round {number - 1}"]}
            for name, step in self.plan.each.items():
                within[name] = self._step(f"round {number} {name}", step, within, number)
            models[f"round {number}"] = within[MODEL]
        return models

    def judge(self, models: dict[str, Artifact | Todo]) -> list[System]:
        """Baselines, every round's model, and the teachers as re-rankers of round 0's results, on dev and test."""
        cfg = self.cfg
        starts = [self.made[name] for name, step in self.plan.once.items() if step["stage"] == "init"]
        everything: dict[str, Artifact | Todo] = {}
        if cfg.single_vector is not None:
            everything[SINGLE_VECTOR] = self._do(SINGLE_VECTOR, {}, lambda: single_vector_model(cfg, cfg.single_vector))
        everything |= {"untrained": starts[0]} if starts else {}
        everything |= models
        systems = [System("bm25", self._lexical_runs())] if cfg.lexical else []
        found = {name: self._runs(name, model) for name, model in everything.items()}
        systems += [System(name, runs, name in models) for name, runs in found.items()]
        for name, teachers in self._teachers(models["round 0"]).items():
            if lacking := self._lacking(teachers, found["round 0"]):
                self.left_out.append(f"{name}, re-ranking: left out, {lacking}")
                continue
            runs = self._reranked(name, teachers, found["round 0"])
            systems.append(System(f"{name}, re-ranking", runs, reranks=True))
        return systems

    def told(self) -> str:
        """What is done and what is to do, line by line."""
        width = max(len(label) for label, _, _ in self._lines)
        lines = [f"{label:<{width}}  {state:<5}  {why}" for label, state, why in self._lines]
        left = sum(state == "to do" for _, state, _ in self._lines)
        return "\n".join([*lines, f"{left} of {len(lines)} steps are to do"])

    def _step(self, label: str, step: dict[str, Any], known: dict[str, Any], number: int) -> Artifact | Todo:
        known = {**self.made, **known}
        given = {role: [known[name] for name in names] for role, names in takes(step).items()}
        cfg = named(self.cfg, f"round{number}") if number else self.cfg
        functions: dict[str, Callable[..., Artifact]] = {
            "init": lambda: start_model(cfg, self.collection),
            "train": lambda model: train(cfg, self.collection, model[0]),
            "teacher": lambda: teacher(cfg, self.collection),
            "bm25": lambda: lexical_teacher(cfg, self.collection),
            "lexical": lambda: lexical_run(cfg, self.collection, cfg.splits.train, self.mined, cfg.mine.ranks[1]),
            "index": lambda model: index_with(cfg, model[0], self.collection),
            "search": lambda index: self._searched(cfg, index[0], cfg.splits.train, self.mined, cfg.mine.ranks[1]),
            "mine": lambda run: mine_run(cfg, self.collection, self.training, self.dev, run[0]),
            "score": lambda candidates, teachers: score_candidates_of(cfg, self.collection, candidates[0], teachers),
            "tuples": lambda candidates, scores: make_tuples(cfg, candidates[0], scores[0]),
            "distil": lambda model, tuples: self._distil(cfg, model[0], tuples[0]),
        }
        return self._do(label, given, functions[step["stage"]])

    def _do(self, label: str, given: dict[str, list], function: Callable[..., Artifact]) -> Artifact | Todo:
        missing = [one.label for entries in given.values() for one in entries if isinstance(one, Todo)]
        try:
            if missing:
                raise NotMade(label, f"needs {', '.join(dict.fromkeys(missing))}")
            if not self.cfg.dry_run:
                say(f"[{label}]")
            made: Artifact | Todo = function(**given)
            self._lines.append((label, "done", str(made.path)))
        except NotMade as left:
            made = Todo(label)
            self._lines.append((label, "to do", left.why))
        self.made[label] = made
        return made

    def _runs(self, name: str, model: Artifact | Todo) -> dict[str, Artifact | Todo]:
        """Dev and test runs of a model."""
        cfg = named(self.cfg, name.replace(" ", ""))
        if name == SINGLE_VECTOR:
            # A baseline's one vector a text is searched as it is, whatever another paradigm's index does to its own.
            with open_dict(cfg):
                cfg.index, cfg.pooling, cfg.probe = _SINGLE_VECTOR_INDEX, None, None
        index = self._do(
            f"index of {name}", {"model": [model]}, lambda model: index_with(cfg, model[0], self.collection)
        )
        return {
            split: self._do(
                f"{split} of {name}",
                {"index": [index]},
                lambda index, given=qrels, where=split: self._searched(cfg, index[0], where, sorted(given), None),
            )
            for split, qrels in self.judgements().items()
        }

    def _lexical_runs(self) -> dict[str, Artifact | Todo]:
        cfg = self.cfg
        return {
            split: self._do(
                f"{split} of bm25",
                {},
                lambda where=split, given=qrels: lexical_run(cfg, self.collection, where, list(given), cfg.search.k),
            )
            for split, qrels in self.judgements().items()
        }

    def _teachers(self, first: Artifact | Todo) -> dict[str, list[Artifact | Todo]]:
        """The cross-encoders, each alone, and what round 1 is taught by where that is an ensemble."""
        found = {name: [self.made[name]] for name, step in self.plan.once.items() if step["stage"] == "teacher"}
        made = {name: self.made[label] for name in self.plan.each if (label := f"round 1 {name}") in self.made}
        known = {**self.made, **made, PREVIOUS: first}
        for step in self.plan.each.values():
            names = takes(step)["teachers"] if step["stage"] == "score" else []
            if len(names) > 1 and all(name in known for name in names):
                found["ensemble"] = [known[name] for name in names]
        return found

    def _lacking(self, teachers: list[Artifact | Todo], found: dict[str, Artifact | Todo]) -> str:
        """What of round 0's results a file of scores among the teachers does not know, in words; empty where all is."""
        told = []
        for split, run in found.items():
            if isinstance(run, Todo):
                continue
            best = read_run(str(run.path))[0].cut(self.cfg.rerank.k)
            missing = sum(unscored(one, best) for one in teachers if isinstance(one, Artifact))
            if missing:
                told.append(f"{missing:,} of {sum(map(len, best.values())):,} pairs of {split}")
        return f"the file has no score for {' and '.join(told)}" if told else ""

    def _reranked(
        self, name: str, teachers: list[Artifact | Todo], found: dict[str, Artifact | Todo]
    ) -> dict[str, Artifact | Todo]:
        def rerank(teachers: list[Artifact], run: list[Artifact], split: str) -> Artifact:
            cfg = named(self.cfg, name)
            with open_dict(cfg):
                cfg.split = split
            if len(teachers) == 1:
                # The weights are the ensemble's.
                cfg.score.weights = None
            return rerank_with(cfg, self.collection, teachers, read_run(str(run[0].path))[0], run[0])

        return {
            split: self._do(
                f"{split} of {name}",
                {"teachers": teachers, "run": [run]},
                lambda teachers, run, where=split: rerank(teachers, run, where),
            )
            for split, run in found.items()
        }

    def judgements(self) -> dict[str, Qrels]:
        """Split -> judgements: dev, or what was held out in its place, and test."""
        test = {self.cfg.splits.test: self.collection.qrels(self.cfg.splits.test)}
        return {self.cfg.splits.dev: self.dev, **test} if self.dev else test

    def _searched(self, cfg: DictConfig, index: Artifact, split: str, queries: list[str], k: int | None) -> Artifact:
        return search_index(cfg, index, self.collection, split, some=queries, k=k)

    def _distil(self, cfg: DictConfig, model: Artifact, tuples: Artifact) -> Artifact:
        view = section(cfg, "distil")
        with open_dict(view):
            view.examples.pools = str(tuples.path)
        return train(view, self.collection, model)
