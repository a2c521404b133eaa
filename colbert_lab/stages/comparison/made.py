"""Making what is compared: each system's index and runs through the stages that make them for any other verb."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from colbert_lab.artifact import Artifact
from colbert_lab.data.collection import Collection
from colbert_lab.errors import ConfigError
from colbert_lab.run import Run
from colbert_lab.stages.comparison.kinds import (
    Bm25,
    CrossEncoder,
    EndToEnd,
    Fusion,
    GivenRun,
    Rerank,
    SingleVector,
    System,
    is_artifact,
    models,
    setting_of,
    sources,
)
from colbert_lab.stages.comparison.runs import fused_run, run_without_self
from colbert_lab.stages.fidelity_grid import Setting, probe_of, with_index
from colbert_lab.stages.hub import model_at
from colbert_lab.stages.index import index_with, passages_of
from colbert_lab.stages.init import single_vector_model
from colbert_lab.stages.launch import conf_dir
from colbert_lab.stages.making import say
from colbert_lab.stages.rerank import read_run, rerank_run
from colbert_lab.stages.score import rerank_with
from colbert_lab.stages.search import search_index
from colbert_lab.stages.sections import named
from colbert_lab.stages.teacher import teacher

EMBEDDED = "embedded/all-MiniLM-L6-v2"
_PAIR_LENGTH = 180
# What the embedded backbone reads, as most do.
_POSITIONS = 512


@dataclass(frozen=True)
class Found:
    """A run: where it lies, what stands for it as an input, and its results of judged queries, read when asked for."""

    place: str
    given: Artifact | str
    judged: frozenset[str]

    @cached_property
    def run(self) -> Run:
        """The results of the judged queries."""
        run = read_run(self.place)[0]
        return Run({query: hits for query, hits in run.items() if query in self.judged}, run.depth)


@dataclass(frozen=True)
class Made:
    """A system that can answer: its runs (one a seed), and of the first seed what its queries go through.

    index: what it searches. vectors: the exact index that this was built from, instead of encoding anew. store: what
    holds the vectors that it re-ranks with (None: they were encoded for the run alone). sources: what it builds on.
    """

    name: str
    system: System
    label: str
    runs: tuple[Found, ...]
    sources: tuple["Made", ...] = ()
    index: Artifact | None = None
    vectors: Artifact | None = None
    store: Artifact | None = None
    model: Artifact | None = None
    teacher: Artifact | None = None
    probe: Any = None


class Making:
    """The systems of one comparison, made one after the other in their order."""

    def __init__(self, cfg: DictConfig, collection: Collection, systems: Mapping[str, System]):
        self.cfg, self.collection, self.systems = cfg, collection, systems
        self.queries = list(collection.qrels(cfg.split))
        self._made: dict[str, Made] = {}

    def made(self, name: str) -> Made:
        """The system of this name; those that it builds on must have been made."""
        system = self.systems[name]
        say(f"[{name}]")
        functions = {
            Bm25: self._bm25,
            SingleVector: self._single_vector,
            CrossEncoder: self._cross_encoder,
            Rerank: self._rerank,
            EndToEnd: self._end_to_end,
            Fusion: self._fusion,
            GivenRun: self._given,
        }
        below = tuple(self._made[source] for source in sources(system))
        self._made[name] = functions[type(system)](name, system, below)
        return self._made[name]

    def _bm25(self, name: str, system: Bm25, below: tuple[Made, ...]) -> Made:
        view = self._view(name, index=_file("bm25"), pooling=None)
        if (view.get("passages") or {}).get("length") == "model":
            # What one model reads is nothing to words; the notes say so.
            with open_dict(view):
                view.passages = None
        index = index_with(view, None, self.collection)
        return Made(name, system, "BM25", (self._searched(view, index),), index=index)

    def _single_vector(self, name: str, system: SingleVector, below: tuple[Made, ...]) -> Made:
        view = self._view(name, pooling=None)
        model = self._bi_encoder(view, name, system)
        with open_dict(view):
            view.index = _file("single_vector")
            view.model_at = str(model.path)
        index = index_with(view, model, self.collection)
        label = f"single vector ({_record(model)['pooling']})"
        return Made(name, system, label, (self._searched(view, index),), index=index, model=model)

    def _bi_encoder(self, view: DictConfig, name: str, system: SingleVector) -> Artifact:
        """The model at a directory of an artifact, or made of a backbone, cut where the late-interaction model cuts."""
        place = EMBEDDED if system.model is None else system.model
        if is_artifact(place):
            model = Artifact.open(place, "model")
            if "pooling" not in _record(model):
                raise ConfigError(
                    f"systems.{name}.model={place} has a vector a token; kind single_vector takes a bi-encoder\n"
                    f"try: systems.{name}={{kind: end_to_end, index: single_vector}}, which pools its vectors"
                )
            return model
        backbone = _file("local", "backbone") | {"name": place}
        with open_dict(view):
            view.backbone = backbone
            view.text = _lengths(self.cfg)
        return single_vector_model(view, system.pooling)

    def _cross_encoder(self, name: str, system: CrossEncoder, below: tuple[Made, ...]) -> Made:
        place = system.teacher or self.cfg.cross_encoder
        if is_artifact(place):
            model = Artifact.open(place, "cross_encoder")
        else:
            node = _file("checkpoint", "teacher") | {"name": place, "max_length": system.max_length or _PAIR_LENGTH}
            model = teacher(self._view(name, teacher=node, overrides=[]), self.collection)
        view = self._view(name, rerank={"k": system.k})
        runs = tuple(
            self._run(rerank_with(view, self.collection, [model], found.run, found.given)) for found in below[0].runs
        )
        return Made(name, system, f"cross-encoder, {below[0].label} top {system.k}", runs, below, teacher=model)

    def _rerank(self, name: str, system: Rerank, below: tuple[Made, ...]) -> Made:
        view = self._view(name, rerank={"k": system.k})
        places, runs, first = models(self.cfg, system), [], None
        for i in range(max(len(places), len(below[0].runs))):
            model, found = model_at(self.cfg, _pick(places, i)), _pick(below[0].runs, i)
            with open_dict(view):
                view.model_at = str(model.path)
            store, vectors = self._store(places, i)
            if store is None:
                made = rerank_run(view, model, self.collection, found.run, found.given)
            else:
                made = rerank_with(view, self.collection, [store], found.run, found.given)
            runs.append(self._run(made))
            first = first or (model, store, vectors)
        model, store, vectors = first
        label = f"late interaction, {below[0].label} top {system.k}"
        return Made(name, system, label, tuple(runs), below, vectors=vectors, store=store, model=model)

    def _end_to_end(self, name: str, system: EndToEnd, below: tuple[Made, ...]) -> Made:
        setting, runs, first = setting_of(name, system), [], None
        for i, place in enumerate(models(self.cfg, system)):
            model = model_at(self.cfg, place)
            index, vectors = self._index(models(self.cfg, system), i, setting)
            view = with_index(self.cfg, setting, name)
            probe = probe_of(setting)
            with open_dict(view):
                node = None if probe is None else {"_target_": _target(probe), **asdict(probe)}
                view.probe = node
                # Where an index that is there already was made of the model is not where it need lie now.
                view.model_at = str(model.path)
            runs.append(self._searched(view, index))
            first = first or (model, index, vectors)
        model, index, vectors = first
        label = f"late interaction, {setting.label}"
        return Made(
            name, system, label, tuple(runs), index=index, vectors=vectors, model=model, probe=probe_of(setting)
        )

    def _fusion(self, name: str, system: Fusion, below: tuple[Made, ...]) -> Made:
        count = max(len(one.runs) for one in below)
        parts = [[(one.run, one.given) for one in (_pick(one.runs, i) for one in below)] for i in range(count)]
        view = self._view(name)
        runs = tuple(self._run(fused_run(view, self.collection, some, system.rrf_k)) for some in parts)
        return Made(name, system, f"fusion of {' and '.join(one.label for one in below)}", runs, below)

    def _given(self, name: str, system: GivenRun, below: tuple[Made, ...]) -> Made:
        found, given = read_run(system.run)
        label = system.run.rstrip("/").rpartition("/")[2].removesuffix(".gz").removesuffix(".trec")
        if self.cfg.search.drop_self:
            run = self._run(run_without_self(self._view(name), self.collection, found, given))
        else:
            run = Found(system.run, given, frozenset(self.queries))
        return Made(name, system, label, (run,))

    def _index(self, places: list[str], i: int, setting: Setting) -> tuple[Artifact, Artifact | None]:
        """The index of the i-th model, and the exact index of the very vectors where it was built of that."""
        model = model_at(self.cfg, places[i])
        view = partial(with_index, self.cfg)
        wanted = self._settings(places)
        several = len({str((one.index, one.sections)) for one in wanted}) > 1
        vectors = None
        if several and self.cfg.share_vectors and passages_of(self.cfg) is None:
            twin = Setting("exact", _file("exact") | {"dtype": "fp32"}, {"pooling.factor": 1}, {}, {})
            vectors = index_with(view(twin, "vectors"), model, self.collection)
        return index_with(view(setting, setting.name), model, self.collection, vectors=vectors), vectors

    def _settings(self, places: list[str]) -> list[Setting]:
        """The settings of all indexes of these models in the comparison."""
        return [
            setting_of(name, system)
            for name, system in self.systems.items()
            if isinstance(system, EndToEnd) and models(self.cfg, system) == places
        ]

    def _store(self, places: list[str], i: int) -> tuple[Artifact | None, Artifact | None]:
        """The exact index of the i-th model, and what it was built from, where the comparison has one.

        Whole documents' unpooled vectors alone will do: re-ranking is the same with it as with vectors encoded anew.
        """
        exact = [one for one in self._settings(places) if one.name == "exact" and not one.sections]
        if not exact or passages_of(self.cfg) is not None or self.cfg.pooling.factor != 1:
            return None, None
        return self._index(places, min(i, len(places) - 1), exact[0])

    def _searched(self, view: DictConfig, index: Artifact) -> Found:
        return self._run(search_index(view, index, self.collection, self.cfg.split))

    def _run(self, artifact: Artifact) -> Found:
        return Found(str(artifact.path), artifact, frozenset(self.queries))

    def _view(self, name: str, **sections: Any) -> DictConfig:
        view = named(self.cfg, name)
        with open_dict(view):
            view.probe = None
            for key, value in sections.items():
                view[key] = value
        return view


def _pick(some: Any, i: int) -> Any:
    """The i-th, or the only one."""
    return some[i] if len(some) > 1 else some[0]


def _file(name: str, group: str = "index") -> dict[str, Any]:
    return dict(OmegaConf.to_container(OmegaConf.load(conf_dir() / group / f"{name}.yaml")))


def _target(probe: Any) -> str:
    return f"{type(probe).__module__}.{type(probe).__qualname__}"


def _lengths(cfg: DictConfig) -> dict[str, int]:
    """The lengths in ids of the late-interaction model's texts, at most _POSITIONS; without such a model a suite's own
    for the collection (lengths), or the usual ones.
    """
    usual = {"query_length": 32, "document_length": _PAIR_LENGTH}
    if cfg.model is None:
        lengths = {key: (cfg.get("lengths") or {}).get(key) or length for key, length in usual.items()}
    else:
        lengths = _record(model_at(cfg, cfg.model))["contract"]
    return {key: min(lengths[key], _POSITIONS) for key in usual}


def _record(model: Artifact) -> dict[str, Any]:
    """What a checkpoint says of itself, without loading its weights."""
    return json.loads((model.path / "colbert_lab.json").read_text())
