"""teacher: a cross-encoder as an artifact: trained here on the collection's judgements, or a given checkpoint."""

from collections.abc import Collection as AnyCollection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from colbert_lab.artifact import Artifact, Builder, hash_file, hash_json
from colbert_lab.data.collection import Collection, Qrels
from colbert_lab.errors import ConfigError
from colbert_lab.run import read_trec, write_trec
from colbert_lab.stages.collection import open_collection
from colbert_lab.stages.fitting import decisive, fitted
from colbert_lab.stages.lexical import lexical_run
from colbert_lab.stages.making import Outcome, create, make, say
from colbert_lab.stages.pretrained import files_of
from colbert_lab.stages.sections import section
from colbert_lab.stages.train import split_queries, training_examples
from colbert_lab.tracking.tracker import Tracker

# What only training a teacher reads.
_TRAINING = ("teacher_train", "teacher_loss", "teacher_optim", "teacher_schedule")


@dataclass(frozen=True)
class TrainedTeacher:
    """A cross-encoder fine-tuned on the collection's training judgements: the start and the length of a pair.

    backbone: a Hugging Face id, a directory, or "embedded/all-MiniLM-L6-v2". max_length: ids of query and document
    together. dev_candidates: how many of BM25's candidates of a dev query it is judged on, as a re-ranker.
    """

    backbone: str
    revision: str | None = None
    max_length: int = 180
    dev_candidates: int = 30
    trust_remote_code: bool = False

    @staticmethod
    def problems(**values) -> list[str]:
        """What is wrong with these values, in words; empty when nothing is."""
        few = values.get("dev_candidates", 30) < 10
        return ["dev_candidates must be at least 10: it is judged by nDCG@10"] if few else []


@dataclass(frozen=True)
class GivenTeacher:
    """A cross-encoder that is there: a Hugging Face id or a directory of a sequence classifier with one output."""

    name: str
    revision: str | None = None
    max_length: int = 180
    trust_remote_code: bool = False


@dataclass(frozen=True)
class ScoreFile:
    """Scores made elsewhere: a TREC file with a line for every pair that will be asked for."""

    file: str


def run(cfg: DictConfig) -> Outcome:
    """Make the teacher; the objective is its best dev nDCG@10 as a re-ranker."""
    made = teacher(cfg, open_collection(cfg), cfg.run_dir)
    best = made.manifest["counts"].get("dev", {}).get("ndcg_10")
    text = "" if best is None else f", re-ranks dev with nDCG@10 {best:.4f}"
    return Outcome(made, f"teacher{text}: {made.path}", best, "dev_ndcg_10")


def check_teacher(cfg: DictConfig) -> None:
    """Raise the ConfigError that making the teacher would raise, before what comes ahead of it is made."""
    from colbert_lab.training.cross_encoder import check_loss

    if cfg.teacher._target_.endswith(TrainedTeacher.__name__):
        check_loss(create(cfg.teacher_loss))
    elif asked := _asked(cfg, _TRAINING):
        raise ConfigError(f"this teacher is not trained here, so {' '.join(asked)} would change nothing")


def refuse_teacher(cfg: DictConfig) -> None:
    """ConfigError where something of a teacher is asked for; for an experiment that has none."""
    if asked := _asked(cfg, ("teacher", *_TRAINING)):
        raise ConfigError(
            f"no step of this experiment (rounds) makes a cross-encoder, so {' '.join(asked)} would change nothing\n"
            "try: rounds=ensemble, which adds one to the other teachers, or rounds=denoised, which has it alone"
        )


def teacher(cfg: DictConfig, collection: Collection, path: str | None = None) -> Artifact:
    """The artifact of cfg.teacher: of kind cross_encoder, or a run of scores."""
    chosen = create(cfg.teacher)
    if isinstance(chosen, TrainedTeacher):
        return _trained(cfg, chosen, collection, path)
    check_teacher(cfg)
    if isinstance(chosen, ScoreFile):
        return _scores(cfg, Path(chosen.file).expanduser(), path)
    content = {"teacher": cfg.teacher, "seed": cfg.seed}

    def work(builder: Builder, tracker: Tracker) -> None:
        from colbert_lab.models.cross_encoder import CrossEncoder

        model = CrossEncoder.from_pretrained(
            chosen.name, chosen.max_length, cfg.seed, chosen.revision, trust_remote_code=chosen.trust_remote_code
        )
        if model.fresh_head:
            raise ConfigError(f"{chosen.name} has no head that scores pairs\ntry: teacher=trained teacher.backbone=...")
        model.save(builder.path)

    inputs = files_of(cfg, "checkpoint", chosen.name)
    return make(cfg, "teacher", "cross_encoder", f"{cfg.name}-teacher", inputs, content, work, path)


def _asked(cfg: DictConfig, sections: AnyCollection[str]) -> list[str]:
    """The overrides of these sections: `teacher=...`, `teacher_train.max_steps=...`, `loss@teacher_loss=...`."""
    keys = {override: override.lstrip("+~").partition("=")[0] for override in cfg.get("overrides") or []}
    return [override for override, key in keys.items() if key.rpartition("@")[2].partition(".")[0] in sections]


def _scores(cfg: DictConfig, file: Path, path: str | None) -> Artifact:
    scores = read_trec(file, ties="file")

    def work(builder: Builder, tracker: Tracker) -> None:
        write_trec(scores, builder.path / "run.trec.gz")
        builder.counts.update(queries=len(scores), depth=scores.depth, results=sum(map(len, scores.values())))

    return make(cfg, "teacher", "run", f"{cfg.name}-scores", {"file": hash_file(file)}, {}, work, path)


def _trained(cfg: DictConfig, chosen: TrainedTeacher, collection: Collection, path: str | None) -> Artifact:
    cfg = section(cfg, "teacher")
    if cfg.train.document_length is not None:
        raise ConfigError(
            "teacher_train.document_length is not read: a cross-encoder's pairs are cut at teacher.max_length ids\n"
            f"try: teacher.max_length={cfg.train.document_length}"
        )
    training, dev = split_queries(cfg, collection)
    examples, inputs = training_examples(cfg, collection, training)
    inputs |= {"collection": collection.artifact, "examples": examples.fingerprint, "dev": hash_json(dev)}
    inputs |= files_of(cfg, "backbone", chosen.backbone)
    if dev:
        inputs["dev_run"] = lexical_run(cfg, collection, cfg.splits.dev, sorted(dev), chosen.dev_candidates)

    def work(builder: Builder, tracker: Tracker) -> None:
        given = (cfg, chosen, collection, examples, dev, inputs.get("dev_run"))
        fitted(builder, tracker, cfg.devices, examples, _fit, *given)

    content = decisive(cfg, "teacher")
    return make(cfg, "teacher", "cross_encoder", f"{cfg.name}-teacher", inputs, content, work, path)


def _fit(
    cfg: DictConfig,
    chosen: TrainedTeacher,
    collection: Collection,
    examples: Any,
    dev: Qrels,
    found: Artifact | None,
    folder: Path,
    tracker: Tracker,
) -> dict[str, float]:
    from colbert_lab.models.backbone import set_attention_dropout
    from colbert_lab.models.cross_encoder import CrossEncoder
    from colbert_lab.training.batches import BatchStream, PairCollate
    from colbert_lab.training.cross_encoder import CrossEncoderModule
    from colbert_lab.training.dev import DevCandidates
    from colbert_lab.training.fit import fit

    plan = create(cfg.train)
    model = CrossEncoder.from_pretrained(
        chosen.backbone, chosen.max_length, cfg.seed, chosen.revision, trust_remote_code=chosen.trust_remote_code
    )
    if plan.attention_dropout is not None:
        set_attention_dropout(model.model, plan.attention_dropout)
    stream = BatchStream(examples, PairCollate(model), plan.batch_queries, plan.negatives, cfg.seed)
    factor = create(cfg.schedule).factor(plan.max_steps)
    module = CrossEncoderModule(model, create(cfg.loss), create(cfg.optim), factor, cfg.seed)
    sample = None
    if found is not None:
        run = read_trec(found.path / "run.trec.gz")
        sample = DevCandidates.draw(collection, dev, run, cfg.dev.queries, chosen.dev_candidates, cfg.seed)
        judged = sum(grade > 0 for grades in sample.qrels.values() for grade in grades.values())
        missed = f"BM25 did not bring {sample.unfound} of {judged} relevant documents"
        say(f"judged on {len(sample.qrels)} dev queries: {missed}")
    return fit(module, stream, sample, plan, folder, tracker)
