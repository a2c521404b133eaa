"""train and pipeline: what they train on, choose by and record; equal seeds give equal weights, every key counts."""

import json
import shutil

import pytest
import yaml
from stages_toy import beir, leaves, lines

from colbert_lab.errors import ConfigError, DataError
from colbert_lab.models.cross_encoder import CrossEncoder
from colbert_lab.run import read_trec, write_trec
from colbert_lab.stages.launch import conf_dir
from colbert_lab.stages.making import create
from colbert_lab.stages.splits import checked_splits, settled
from colbert_lab.tracking.read import summary

EXPERIMENTS = sorted(file.stem for file in (conf_dir() / "experiment").glob("*.yaml"))

# The small settings of a teacher that is trained, taken out where none is.
STEPS = ("max_steps", "batch_queries", "negatives", "precision", "log_every", "judge_every", "checkpoint_every")
TAUGHT = [f"!teacher_train.{step}" for step in STEPS]
TAUGHT += [
    f"!{key}" for key in ("teacher.max_length", "teacher.dev_candidates", "teacher.backbone", "teacher_optim.lr")
]

# Without a dev sample the last weights are the result, so that whatever changes training changes them.
LAST = ("dev.queries=0", "train.max_steps=2")
JUDGED = ("dev.queries=10",)
IN_BATCH = ("loss.terms.in_batch.weight=1",)
PCA = ("projection=pca", "projection.dim=16", "projection.documents=20", "projection.queries=10")
LEAST = ("text.expansion=min", "text.expansion_length=12")
# Key -> a change, and what it needs to have an effect.
KNOBS = {
    "seed": ("seed=1",),
    "similarity": ("similarity=l2",),
    "splits.train": ("splits.train=test",),
    "splits.dev": ("splits.dev=test", *JUDGED),
    "data.title": ("data.title=drop",),
    "backbone.layers": ("backbone.layers=1",),
    "text.query_marker": ("text.query_marker=null",),
    "text.document_marker": ("text.document_marker=null",),
    "text.query_length": ("text.query_length=8",),
    "text.document_length": ("text.document_length=12",),
    "text.expansion": ("text.expansion='off'",),
    "text.expansion_length": ("text.expansion_length=11", *LEAST),
    "text.attend_to_expansion": ("text.attend_to_expansion=true",),
    "text.skip_punctuation": ("text.skip_punctuation='off'",),
    "projection.dim": ("projection.dim=8",),
    "projection.documents": ("projection.documents=10", *PCA),
    "projection.queries": ("projection.queries=0", *PCA),
    "examples.negatives": ("examples.negatives=random",),
    "examples.ranks": ("examples.ranks=[10,60]",),
    "examples.positive_depth": ("examples.positive_depth=1",),
    "examples.min_grade": ("examples.min_grade=3",),
    "loss.terms.hinge.margin": ("loss.terms.hinge.margin=0.2", "loss=hinge"),
    "loss.terms.softmax.weight": ("loss.terms.softmax.weight=0.5", *IN_BATCH),
    "loss.terms.in_batch.weight": IN_BATCH,
    "loss.terms.in_batch.temperature": ("loss.terms.in_batch.temperature=2", *IN_BATCH),
    "loss.terms.in_batch.own_negatives": ("loss.terms.in_batch.own_negatives=keep", *IN_BATCH),
    "loss.terms.nway.temperature": ("loss.terms.nway.temperature=2", "loss=nway"),
    "optim.lr": ("optim.lr=2e-3",),
    "optim.betas": ("optim.betas=[0.5,0.5]",),
    "optim.eps": ("optim.eps=1e-2",),
    "optim.weight_decay": ("optim.weight_decay=1.0",),
    "schedule": ("schedule=constant",),
    "schedule.warmup": ("schedule.warmup=2",),
    "train.max_steps": ("train.max_steps=1",),
    "train.batch_queries": ("train.batch_queries=5",),
    "train.accumulate": ("train.accumulate=2",),
    "train.negatives": ("train.negatives=2",),
    "train.document_length": ("train.document_length=12",),
    "train.attention_dropout": ("train.attention_dropout=0.5",),
    "train.interpolate": ("train.interpolate=0.5",),
    "train.clip": ("train.clip=0.01", "optim.eps=1e-2"),
    "train.precision": ("train.precision=bf16",),
    "train.judge_every": ("train.judge_every=1", "train.max_steps=3", *JUDGED),
    "dev.queries": ("dev.queries=5", *JUDGED),
    "dev.documents": ("dev.documents=32", *JUDGED),
    "dev.holdout": ("dev.holdout=5", "dev.holdout=10", "splits.dev=none", "examples.negatives=random", *JUDGED),
    "encode.precision": ("encode.precision=bf16", *PCA),
}
# Keys that must not change the result, by what they say.
NEUTRAL = {
    "where and under what name": {"name", "root", "run_dir", "data.root", "data.name", "threads", "devices"},
    "tracking": {f"tracking.{key}" for key in ("project", "group", "tags", "notes", "sink")},
    "another start": {"model", "backbone.name", "backbone.revision", "backbone.trust_remote_code"},
    "what to do about an error": {"data.unknown_documents", "backbone.add_markers"},
    "how the same is computed": {"backbone.attention", "optim.fused", "train.checkpoint_every"},
    "how often the same is told": {"train.log_every"},
}


def own_of(experiment: str) -> dict:
    """What the file of an experiment itself says."""
    return yaml.safe_load((conf_dir() / "experiment" / f"{experiment}.yaml").read_text())


def splits_of(cfg) -> tuple[str, ...]:
    """The splits that the data of a configuration has."""
    return create(cfg.data).splits()


def facts(lab, *overrides):
    """What a run left behind besides its configuration: weights, counts, curves without the clock."""
    artifact = lab("train", *LAST, *overrides).artifact
    log = [
        {key: value for key, value in line.items() if not key.endswith(("time", "seconds", "_per_s"))}
        for line in lines(artifact.path / "log" / "metrics.jsonl")
    ]
    return artifact.digest, artifact.manifest["counts"], log


@pytest.mark.parametrize("key", KNOBS)
def test_every_key_changes_something(lab, key):
    change, *context = KNOBS[key]
    assert facts(lab, *context, change) != facts(lab, *context)


def test_every_key_of_the_configuration_is_tried(lab):
    neutral = set().union(*NEUTRAL.values())
    keys = {key for key in leaves(lab.compose("train")[0]) if not key.endswith(("_target_", "_partial_"))}
    assert keys - KNOBS.keys() - neutral == set()
    choices = ("loss=hinge", "loss=nway", "projection=pca")
    others = {key for choice in choices for key in leaves(lab.compose("train", choice)[0])}
    assert (KNOBS.keys() | neutral) - {"schedule", "data.root", "tracking.sink"} - keys - others == set()


def test_the_same_seed_gives_the_same_weights_whatever_ran_before(lab, fresh_lab):
    assert facts(fresh_lab, "seed=0", "name=x", "train.checkpoint_every=2", "backbone.attention=sdpa") == facts(lab)


@pytest.fixture
def without_dev(lab, tmp_path):
    """A lab on the toy collection without its dev split."""
    other = lab.elsewhere(tmp_path / "outputs")
    other.toy = tmp_path / "toy"
    shutil.copytree(lab.toy, other.toy)
    (other.toy / "qrels" / "dev.tsv").unlink()
    return other


def test_without_a_dev_split_training_queries_are_held_out(without_dev, capsys):
    model = without_dev("train", "dev.holdout=5").artifact
    assert "no split 'dev': 5 training queries are held out" in capsys.readouterr().err
    assert model.manifest["counts"]["examples"] == 15
    assert model.manifest["counts"]["dev"]["step"] in (0, 2, 3)
    (bm25,) = (without_dev.root / "runs").glob("*-train-bm25-*")
    assert len(read_trec(bm25 / "run.trec.gz")) == 15
    last = without_dev("train", "dev.queries=0").artifact
    assert last.manifest["counts"] == {"dev": {}, "examples": 20}


def test_a_split_that_is_not_there_is_told_with_those_that_are(lab, without_dev):
    with pytest.raises(DataError, match="only dev, test, train"):
        lab("train", "splits.train=trian")
    with pytest.raises(DataError, match=r"neither a split 'dev' nor 'trian'"):
        without_dev("train", "splits.train=trian")


def test_negatives_come_from_where_they_are_asked_from(lab, chain, tmp_path):
    run = lab("search", f"index_dir={chain['index'].path}", "split=train").artifact
    file = tmp_path / "mine.trec"
    write_trec(read_trec(run.path / "run.trec.gz"), file)
    ways = {"bm25": [], "random": [], "none": ["train.negatives=0", "loss=in_batch"], str(run.path): [], str(file): []}
    found = {way: lab("train", *LAST, f"examples.negatives={way}", *more).artifact for way, more in ways.items()}
    told = {way: json.loads((a.path / "log" / "examples.json").read_text()) for way, a in found.items()}
    assert [description["negatives"] for description in told.values()] == list(ways)
    inputs = {way: artifact.manifest["inputs"].get("negatives", {}) for way, artifact in found.items()}
    assert inputs[str(run.path)]["digest"] == run.digest
    assert inputs["bm25"]["kind"] == "run"
    assert inputs["random"] == inputs["none"] == inputs[str(file)] == {}
    # The same run as an artifact and as a file: the same examples.
    assert found[str(run.path)].digest == found[str(file)].digest
    assert len({artifact.digest for artifact in found.values()}) == 4
    with pytest.raises(ConfigError, match=r"try: train\.negatives=0"):
        lab("train", "examples.negatives=none")


def test_a_raw_triples_file_is_trained_on(lab, tmp_path):
    file = tmp_path / "triples.tsv"
    file.write_text("".join(f"what about {i}?\tall about {i}\tnothing of {i}\n" for i in range(12)))
    model = lab("train", "examples=triples", "!examples.ranks", f"examples.file={file}").artifact
    assert model.manifest["counts"]["examples"] == 12


def test_the_pipeline_sets_models_and_bm25_side_by_side(lab):
    outcome = lab("pipeline", "evaluate.metrics=[ndcg_10,map]")
    results = json.loads((outcome.artifact.path / "metrics.json").read_text())
    assert list(results["systems"]) == ["untrained", "bm25", "trained"]
    assert {test["baseline"] for test in results["tests"]} == {"untrained"}
    trained = results["systems"]["trained"]["means"]
    assert outcome.figures == {f"test_{metric}": value for metric, value in trained.items()}
    model = lab("train").artifact
    assert outcome.objective == model.manifest["counts"]["dev"]["ndcg_10"]
    assert results["systems"]["bm25"]["means"]["ndcg_10"] == 1.0
    lexical = lab("pipeline", "evaluate.metrics=[ndcg_10,map]", "lexical=false").artifact
    assert list(json.loads((lexical.path / "metrics.json").read_text())["systems"]) == ["untrained", "trained"]


def test_bm25_does_not_find_the_query_itself_where_no_system_may(lab, tmp_path):
    texts = {f"d{i}": f"word{i} word{i + 1} word{i + 2}" for i in range(12)}
    folder = beir(tmp_path / "self", texts, texts, {"test": [(f"d{i}", f"d{i + 1}", 1) for i in range(11)]})
    given = ("pipeline", "train.max_steps=0", f"data.root={folder}", "evaluate.metrics=[ndcg_10,mrr_1]", "search.k=12")
    mrr = {}
    for drop in ("false", "true"):
        made = lab(*given, f"search.drop_self={drop}").artifact
        mrr[drop] = json.loads((made.path / "metrics.json").read_text())["systems"]["bm25"]["means"]["mrr_1"]
    # With itself on top no query has its relevant document first; without, its neighbours tie and the lower id wins.
    assert mrr["false"] == 0
    assert mrr["true"] > 0


def test_the_best_is_not_chosen_by_what_it_is_judged_by(fresh_lab):
    with pytest.raises(ConfigError, match="both 'test'"):
        fresh_lab("pipeline", "splits.dev=test")
    assert fresh_lab.artifacts() == {}


def test_without_steps_the_start_is_the_result(lab, chain):
    outcome = lab("pipeline", "train.max_steps=0")
    assert outcome.objective is None
    found = json.loads((outcome.artifact.path / "metrics.json").read_text())["systems"]
    assert list(found) == ["untrained", "bm25"]
    # BM25 finds every query's documents here: its figures are not the start's.
    logged = summary(outcome.artifact.path / "log")["objective"]
    assert logged == found["untrained"]["means"]["ndcg_10"] < found["bm25"]["means"]["ndcg_10"]
    assert outcome.artifact.path in (lab.root / "metrics").iterdir()
    for dev in (0, 10):
        model = lab("train", "train.max_steps=0", f"dev.queries={dev}").artifact
        assert model.manifest["files"]["model.safetensors"] == chain["start"].manifest["files"]["model.safetensors"]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_splits_of_every_experiment_are_those_of_its_data(lab, experiment):
    """Asked of the sources themselves, which know their splits without a file of theirs."""
    for verb in ("rounds",) if "rounds" in own_of(experiment) else ("pipeline", "rounds"):
        cfg = lab.compose(verb, "!all", f"experiment={experiment}")[0]
        names = checked_splits(cfg, mines=verb == "rounds").splits
        assert names.test in splits_of(cfg)
        if experiment == "colbertv2":
            assert (names.test, names.dev in splits_of(cfg)) == ("dev", False)


def test_the_papers_recipe_takes_a_beir_folder(without_dev):
    """All steps are to do, which is told after the collection was read and every split was found in it."""
    cfg = without_dev.compose("rounds", "experiment=colbertv2", *TAUGHT, "dev.holdout=5")[0]
    assert checked_splits(cfg, mines=True).splits.test == "test"
    assert settled(cfg, ("train", "dev")).splits.test == "dev"
    told = without_dev("rounds", "experiment=colbertv2", *TAUGHT, "!projection", "dev.holdout=5", "dry_run=true")
    assert "test of round 2" in told
    assert "held_out of round 2" in told


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_runs(lab, tmp_path, tiny_backbone, experiment):
    own = own_of(experiment)
    verb = "rounds" if "rounds" in own else "pipeline"
    cfg, _, choices = lab.compose(verb, "!all", f"experiment={experiment}")
    overrides = [f"experiment={experiment}", "train.max_steps=2", "train.batch_queries=2", "text.document_length=100"]
    overrides += ["!projection", *(f"~data.{key}" for key in own.get("data", {}))]
    if choices["examples"] == "triples":
        (tmp_path / "triples.tsv").write_text("one\tfirst\tsecond\n" * 4)
        overrides += [f"examples.file={tmp_path / 'triples.tsv'}", "!examples.ranks"]
    if "dim" not in cfg.projection:
        overrides.append("!projection.dim")
    if not cfg.dev.queries:
        overrides.append("!dev.queries")
    if verb == "rounds":
        overrides += ["rounds.count=1", "dev.holdout=5"]
    if choices.get("rounds") == "hybrid":
        overrides += TAUGHT
    if choices.get("teacher") == "checkpoint":
        CrossEncoder.from_pretrained(str(tiny_backbone), 40, 0).save(tmp_path)
        overrides += [f"teacher.name={tmp_path}", *TAUGHT, "teacher.max_length=40"]
    made = lab(verb, *overrides).artifact.path
    if verb == "rounds":
        assert "round 1" in json.loads((made / "rounds.json").read_text())["means"]["test"]
    else:
        assert "trained" in json.loads((made / "metrics.json").read_text())["systems"]
