"""Rounds on the toy collection: what they make, what they make again, what a dry run says, and the verbs one by one."""

import importlib.util
import json
import shutil
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from colbert_lab.artifact import Artifact
from colbert_lab.data.collection import Collection, holdout
from colbert_lab.errors import ConfigError, DataError
from colbert_lab.index.exact import ExactIndex, ExactIndexKind
from colbert_lab.index.ivfpq import IvfPqIndex, IvfPqIndexKind
from colbert_lab.index.residual.index import ResidualIndex
from colbert_lab.index.residual.kind import ResidualIndexKind
from colbert_lab.index.single_vector import SingleVectorIndex, SingleVectorIndexKind
from colbert_lab.mining.candidates import read_candidates
from colbert_lab.mining.pools import read_pools
from colbert_lab.models.cross_encoder import CrossEncoder
from colbert_lab.run import read_trec
from colbert_lab.stages.launch import _meant, conf_dir
from colbert_lab.stages.making import say_once
from colbert_lab.stages.plan import Rounds
from colbert_lab.stages.pretrained import files_of
from colbert_lab.stages.rounds_report import _costs
from colbert_lab.tracking.read import summary
from colbert_lab.tracking.tracker import RunIdentity, Tracker

TEACHER = ("teacher.max_length", "teacher.dev_candidates", "teacher_optim.lr", "teacher.backbone")

TWO = ("rounds.count=2", "name=two")


@pytest.fixture(scope="module")
def outcome(lab):
    return lab("rounds", *TWO)


def states(text: str) -> dict[str, str]:
    """Step -> done or to do, of a dry run."""
    lines = [line for line in text.splitlines() if "  done " in line or "  to do" in line]
    return {line.split("  ")[0]: "done" if "  done " in line else "to do" for line in lines}


def dry(lab, capsys, *overrides) -> str:
    capsys.readouterr()
    assert isinstance(lab("rounds", *overrides, "dry_run=true"), str)
    return capsys.readouterr().out


def test_every_system_is_judged_on_dev_and_test(outcome):
    told = json.loads((outcome.artifact.path / "rounds.json").read_text())
    systems = ["bm25", "single vector", "untrained", "round 0", "round 1", "round 2", "teacher, re-ranking"]
    assert list(told["means"]) == ["dev", "test"]
    assert all(list(found) == systems for found in told["means"].values())
    dev = told["means"]["dev"]
    assert dev[told["best"]]["ndcg_10"] == max(dev[f"round {i}"]["ndcg_10"] for i in range(3)) == outcome.objective
    steps = [(step["baseline"], step["system"]) for step in told["steps"]["test"] if step["metric"] == "ndcg_10"]
    assert steps == [("round 0", "round 1"), ("round 1", "round 2")]
    # Each round has changed the model: its own tuples were trained on.
    assert len({dev[f"round {i}"]["ndcg_10"] for i in range(3)}) == 3
    for split in ("dev", "test"):
        assert "round 2" in (outcome.artifact.path / f"ndcg_10-{split}.svg").read_text()


def test_the_headline_of_every_split_is_the_best_rounds_and_not_the_teachers(outcome):
    told = json.loads((outcome.artifact.path / "rounds.json").read_text())
    for split, called in (("dev", "toy0_dev"), ("test", "toy0")):
        made = Path(outcome.artifact.manifest["inputs"][f"metrics_{split}"]["path"])
        logged, best = summary(made / "log"), told["means"][split][told["best"]]
        assert json.loads((made / "metrics.json").read_text())["headline"] == told["best"]
        assert {name: value for name, value in logged.items() if name.startswith("eval/")} == {
            f"eval/{called}_{metric}": value for metric, value in best.items()
        }
        assert logged["objective"] == best["ndcg_10"] != told["means"][split]["teacher, re-ranking"]["ndcg_10"]
        # A re-ranker has no index of its own.
        assert logged["index/bytes"] > 0


def test_what_was_scored_before_a_kill_is_not_told_as_another_steps(tmp_path):
    for killed in (True, False):
        with suppress(KeyboardInterrupt), Tracker.start(tmp_path / "log", RunIdentity(), {}, []) as tracker:
            if killed:
                raise KeyboardInterrupt
            tracker.summary({"score/scored": 20, "score/cached": 1200})
    told = _costs({"scores": SimpleNamespace(path=tmp_path)})
    assert told.endswith(", 20 pairs scored by the last of 2 starts, 1,200 known before it")


def test_a_step_that_serves_several_is_paid_once(tmp_path):
    with Tracker.start(tmp_path / "log", RunIdentity(), {}, []) as tracker:
        tracker.summary({"score/scored": 1, "score/cached": 0})
    one = SimpleNamespace(path=tmp_path)
    told = _costs({"round 1 index": one, "index of round 0": one})
    assert told.count(" s, 1 pairs") == 1
    assert "round 1 index (and index of round 0): " in told


def test_no_metric_of_the_teacher_looks_deeper_than_what_it_reranked(outcome):
    told = json.loads((outcome.artifact.path / "rounds.json").read_text())
    assert set(told["means"]["test"]["teacher, re-ranking"]) == {"ndcg_10", "mrr_10", "success_5"}


def test_round_two_mines_with_the_model_of_round_one(outcome):
    inputs = outcome.artifact.manifest["inputs"]
    index = Artifact.open(inputs["round_2_index"]["path"])
    assert index.manifest["inputs"]["model"]["digest"] == inputs["round_1_model"]["digest"]
    mined = Artifact.open(inputs["round_2_mined"]["path"])
    run = Artifact.open(mined.manifest["inputs"]["run"]["path"])
    assert run.manifest["inputs"]["index"]["digest"] == index.digest


def test_a_second_call_does_nothing_and_says_the_same(lab, outcome, capsys):
    before = lab.artifacts()
    again = lab("rounds", *TWO)
    assert again.artifact.digest == outcome.artifact.digest
    assert again.text == outcome.text
    assert lab.artifacts() == before
    made = [line for line in capsys.readouterr().err.splitlines() if ": /" in line or "going on" in line]
    assert made == []


def test_a_dry_run_says_what_a_changed_key_makes_again_and_does_nothing(lab, outcome, capsys):
    before = lab.artifacts()
    assert "to do" not in states(dry(lab, capsys, *TWO)).values()
    watched = [
        f"{one}train.{key}=2" for one in ("", "teacher_", "distil_") for key in ("log_every", "checkpoint_every")
    ]
    watched.append("distil_loss.terms.kl.entropy_band=[0.2,0.8]")
    assert "to do" not in states(dry(lab, capsys, *TWO, *watched)).values()
    text = dry(lab, capsys, *TWO, "teacher_optim.lr=2e-3")
    found = states(text)
    assert "optim.lr 0.001 -> 0.002" in text
    first = ("teacher", "round 1 scores", "round 1 tuples", "round 1 model", "round 2 index", "round 2 mined")
    assert all(found[step] == "to do" for step in first)
    earlier = (
        "start",
        "pairwise",
        "round 1 index",
        "round 1 found",
        "round 1 mined",
        "test of untrained",
        "test of bm25",
    )
    assert all(found[step] == "done" for step in earlier)
    assert lab.artifacts() == before


def test_a_dry_run_of_nothing_says_so(fresh_lab, capsys):
    found = states(dry(fresh_lab, capsys, *TWO))
    assert set(found.values()) == {"to do"}
    assert {place.split("/")[0] for place in fresh_lab.artifacts()} == {"collections"}


def test_the_verbs_one_by_one_make_what_the_rounds_make(lab, outcome):
    inputs = outcome.artifact.manifest["inputs"]
    teacher = lab("teacher").artifact
    assert teacher.digest == inputs["teacher"]["digest"]
    mined = lab("mine", f"run={inputs['round_1_found']['path']}", "mine.ranks=[1,30]").artifact
    assert mined.digest == inputs["round_1_mined"]["digest"]
    scores = lab("score", f"candidates={mined.path}", f"teachers={teacher.path}").artifact
    assert scores.digest == inputs["round_1_scores"]["digest"]
    tuples = lab("tuples", f"scores={scores.path}").artifact
    assert tuples.digest == inputs["round_1_tuples"]["digest"]
    start = inputs["start"]["path"]
    distil = ["examples=pools", f"examples.pools={tuples.path}", "loss=kl", "train.negatives=3", f"model={start}"]
    taken = ["!projection", "!projection.dim", "!text.query_length", "!text.document_length", "!backbone.name"]
    model = lab("train", *distil, *taken, "!examples.ranks").artifact
    assert model.digest == inputs["round_1_model"]["digest"]


def test_exported_tuples_train_another_model(lab, outcome, tmp_path, capsys):
    scores = outcome.artifact.manifest["inputs"]["round_1_scores"]["path"]
    for name, form in (("tuples.jsonl", "stanford"), ("tuples.parquet", "pylate")):
        file = tmp_path / name
        lab("tuples", f"scores={scores}", f"export.file={file}", f"export.format={form}", "export.ways=4")
        assert "20 tuples of 4 documents, epoch 0" in capsys.readouterr().out
        assert file.stat().st_size
    assert {file.name for file in tmp_path.iterdir()} == {
        *("tuples.jsonl", "tuples.parquet", "tuples-queries.parquet", "tuples-documents.parquet")
    }
    imported = lab("tuples", f"pylate.file={tmp_path / 'tuples.parquet'}", "data=beir", f"data.root={lab.toy}").artifact
    assert imported.manifest["counts"]["negatives_per_query"] == [3, 3, 3]
    first = json.loads((tmp_path / "tuples.jsonl").read_text().splitlines()[0])
    assert len(first) == 5
    given = ("examples=tuples", f"examples.file={tmp_path / 'tuples.jsonl'}", "loss=kl", "train.negatives=3")
    assert lab("train", *given, "!examples.ranks").artifact.manifest["counts"]["examples"] == 20
    given = ("examples=pools", f"examples.pools={imported.path}", "loss=margin_mse", "train.negatives=3")
    assert lab("train", *given, "!examples.ranks").artifact.manifest["counts"]["examples"] == 20
    with pytest.raises(ConfigError, match="made of scores, or of a table"):
        lab("tuples")


def test_a_single_vector_baseline_is_not_trained(lab, outcome):
    single = outcome.artifact.manifest["inputs"]["single_vector"]["path"]
    taken = ["!projection", "!projection.dim", "!text.query_length", "!text.document_length", "!backbone.name"]
    with pytest.raises(ConfigError, match="single-vector model"):
        lab("train", f"model={single}", *taken)


def test_distilling_without_scores_is_refused(lab):
    with pytest.raises(ConfigError, match="teacher"):
        lab("train", "loss=kl")


def test_a_teacher_can_be_a_file_of_scores_or_an_ensemble(lab, outcome, tmp_path):
    inputs = outcome.artifact.manifest["inputs"]
    candidates, teacher = inputs["round_1_mined"]["path"], inputs["teacher"]["path"]
    alone = lab("score", f"candidates={candidates}", f"teachers={teacher}").artifact
    both = lab("score", f"candidates={candidates}", f"teachers=[{teacher},{inputs['pairwise']['path']}]").artifact
    assert both.manifest["counts"]["teachers"] == 2
    assert both.digest != alone.digest
    file = tmp_path / "scores.trec"
    file.write_text("q0 Q0 d0-0 1 2.5 t\n")
    given = lab("teacher", "teacher=scores", f"teacher.file={file}", *NO_TRAINING).artifact
    assert read_trec(given.path / "run.trec.gz")["q0"].ids == ("d0-0",)
    with pytest.raises(DataError, match=r"no score for \d+ of 220 pairs"):
        lab("score", f"candidates={candidates}", f"teachers={given.path}")


STEPS = ("max_steps", "batch_queries", "negatives", "precision", "log_every", "judge_every", "checkpoint_every")
NO_TRAINING = [*(f"!{key}" for key in TEACHER), *(f"!teacher_train.{key}" for key in STEPS)]


def test_a_given_teacher_has_a_head_and_reads_no_key_of_the_training(lab, tiny_backbone):
    given = ("teacher=checkpoint", f"teacher.name={tiny_backbone}", "teacher.max_length=40")
    with pytest.raises(ConfigError, match="no head that scores pairs"):
        lab("teacher", *given, *NO_TRAINING)
    with pytest.raises(ConfigError, match="would change nothing"):
        lab("teacher", *given, *NO_TRAINING, "teacher_train.max_steps=2")
    with pytest.raises(ConfigError, match="would change nothing"):
        lab("teacher", *given, *NO_TRAINING, "loss@teacher_loss=hinge")


def test_a_teacher_that_cannot_be_trained_is_told_before_anything_is_made(fresh_lab):
    with pytest.raises(ConfigError, match=r"try: teacher_loss.terms.in_batch.weight=0"):
        fresh_lab("rounds", "teacher_loss.terms.in_batch.weight=1")
    assert fresh_lab.artifacts() == {}


@pytest.mark.parametrize("asked", ["teacher=checkpoint", "teacher_train.max_steps=2", "loss@teacher_loss=hinge"])
def test_a_teacher_that_no_step_makes_is_refused(fresh_lab, asked):
    with pytest.raises(ConfigError, match=f"{asked} would change nothing\n.*try: rounds=ensemble"):
        fresh_lab("rounds", "rounds=hybrid", *NO_TRAINING, asked)
    assert fresh_lab.artifacts() == {}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (["rounds=ensemble", "score.weights=[1,2]"], r"each.scores \(teacher, index, bm25\).*\n.*\[1.0,1.0,1.0\], or "),
        (["score.weights=[0]"], r"each.scores \(teacher\), none below 0 and not all 0\n.*try: score.weights=\[1.0\]"),
        (
            ["rounds=hybrid", *NO_TRAINING, "index=single_vector"],
            r"keeps no documents' vectors .*\n.*try: index=exact, or .* rounds.each.scores.teachers=\[previous,bm25\]",
        ),
    ],
)
def test_teachers_that_cannot_score_are_told_before_anything_is_made(fresh_lab, changed, told):
    with pytest.raises(ConfigError, match=told):
        fresh_lab("rounds", *changed)
    assert fresh_lab.artifacts() == {}


def test_an_index_keeps_vectors_where_its_kind_does_not_say_otherwise():
    classes = {
        ExactIndexKind: ExactIndex,
        IvfPqIndexKind: IvfPqIndex,
        ResidualIndexKind: ResidualIndex,
        SingleVectorIndexKind: SingleVectorIndex,
    }
    for kind, index in classes.items():
        assert getattr(kind, "keeps_vectors", True) == hasattr(index, "embeddings")


def test_a_weighted_ensemble_teaches_and_the_teacher_alone_re_ranks_without_weights(lab):
    quick = ("rounds.count=1", "lexical=false", "single_vector=null", "rounds=ensemble", "score.normalise=z_score")
    made = lab("rounds", *quick, "score.weights=[2,1,1]", "name=weighted").artifact
    means = json.loads((made.path / "rounds.json").read_text())["means"]["test"]
    assert {"teacher, re-ranking", "ensemble, re-ranking"} <= means.keys()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (["rerank.k=5", "evaluate.metrics=[mrr_10]"], r"rerank.k=5 .*\(mrr_10\) looks at so few\n.*try: rerank.k=10"),
        (["evaluate.metrics=[map]"], r"try: evaluate.metrics=\[map,ndcg_10\]"),
        (["splits.dev=test"], r"both 'test': the best would be chosen by what it is judged by\n.*try: splits.dev="),
        (["splits.test=tset"], r"has no split 'tset', only dev, test, train\n.*try: splits.test="),
        (["splits.train=trian"], r"has no split 'trian', only dev, test, train\n.*try: splits.train="),
    ],
)
def test_what_the_tables_cannot_show_is_told_before_anything_is_made(fresh_lab, changed, told):
    with pytest.raises(ConfigError, match=told):
        fresh_lab("rounds", *changed)
    assert fresh_lab.artifacts() == {}


def test_other_metrics_and_a_shallow_teacher_have_their_tables(lab, outcome):
    made = lab("rounds", *TWO, "rerank.k=5", "evaluate.metrics=[mrr_10,success_5]")
    told = json.loads((made.artifact.path / "rounds.json").read_text())
    dev = told["means"]["dev"]
    assert (told["metric"], made.objective_name) == ("mrr_10", "dev_mrr_10")
    assert dev[told["best"]]["mrr_10"] == max(dev[f"round {i}"]["mrr_10"] for i in range(3)) == made.objective
    assert set(dev["teacher, re-ranking"]) == {"success_5"}
    assert f"best by dev MRR@10: {told['best']}" in made.text
    (line,) = [one for one in made.text.split("\ntoy")[0].splitlines() if one.startswith("teacher, re-ranking")][:1]
    assert line.split()[2] == "-"
    assert "teacher" not in (made.artifact.path / "mrr_10-test.svg").read_text()


def test_rounds_without_baselines_from_the_model_before(lab, outcome):
    chained = ("rounds.count=1", "rounds.each.model.model=previous", "lexical=false", "single_vector=null")
    made = lab("rounds", *chained, "name=chained").artifact
    inputs = made.manifest["inputs"]
    model = Artifact.open(inputs["round_1_model"]["path"])
    assert model.manifest["inputs"]["start"]["digest"] == inputs["pairwise"]["digest"]
    assert not any("bm25" in role or "single" in role for role in inputs)


def test_training_on_the_test_queries_is_told(lab, outcome, capsys):
    run = outcome.artifact.manifest["inputs"]["round_1_found"]["path"]
    mined = lab("mine", f"run={run}", "splits.test=train", "mine.ranks=[1,30]").artifact
    assert mined.manifest["counts"]["contaminated_test_queries"] == 20
    assert "20 training queries are test queries too" in capsys.readouterr().err


@pytest.fixture
def unlabelled(lab, tmp_path):
    """A lab on the toy collection without judgements for q15 to q29 (train's last, and all of dev); q15 asks as q30."""
    other = lab.elsewhere(tmp_path / "outputs")
    other.toy = tmp_path / "toy"
    shutil.copytree(lab.toy, other.toy)
    (other.toy / "qrels" / "dev.tsv").unlink()
    train = other.toy / "qrels" / "train.tsv"
    left = [
        line for line in train.read_text().splitlines() if line.split("\t")[0] not in {f"q{i}" for i in range(15, 20)}
    ]
    train.write_text("\n".join(left) + "\n")
    queries = [json.loads(line) for line in (other.toy / "queries.jsonl").read_text().splitlines()]
    queries[15]["text"] = queries[30]["text"]
    (other.toy / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    return other


def held_out(artifact: Artifact) -> set[str]:
    """What dev.holdout=5 takes out of train of the collection that an artifact was made of."""
    collection = Collection.open(artifact.manifest["inputs"]["collection"]["path"])
    return set(holdout(collection.qrels("train"), 5, 0)[1])


NAMES = {f"q{i}" for i in range(40)}
TEST = {f"q{i}" for i in range(30, 40)}


def test_queries_without_judgements_are_mined_but_none_that_judges(unlabelled, tmp_path, capsys):
    run = tmp_path / "all.trec"
    run.write_text("".join(f"{query} Q0 d{i}-0 1 {9 - i} t\n" for query in sorted(NAMES) for i in range(5)))
    given = (f"run={run}", "data=beir", f"data.root={unlabelled.toy}", "dev.holdout=5")
    mined = unlabelled("mine", *given, "mine.unjudged=true").artifact
    held = held_out(mined)
    assert len(held) == 5
    assert {row.query for row in read_candidates(mined.path / "candidates.arrow")} == NAMES - TEST - held
    counts = mined.manifest["counts"]
    assert counts["left_out"]["kept_for_judging"] == 15
    # q15 has no judgements, is mined all the same, and asks what q30 of the test split asks.
    assert counts["contaminated_test_queries"] == 1
    assert "15 queries of the run are held out or judged in another split than train" in capsys.readouterr().err
    judged = unlabelled("mine", *given).artifact
    assert {row.query for row in read_candidates(judged.path / "candidates.arrow")} == {
        f"q{i}" for i in range(15)
    } - held


def test_rounds_search_and_learn_from_queries_without_judgements(unlabelled):
    quick = ("rounds.count=1", "lexical=false", "single_vector=null", "dev.holdout=5")
    quick += ("train.max_steps=1", "teacher_train.max_steps=1", "distil_train.max_steps=1")
    made = unlabelled("rounds", *quick, "mine.unjudged=true", "tuples.relabel=unjudged").artifact
    inputs = made.manifest["inputs"]
    run = Artifact.open(inputs["round_1_found"]["path"])
    expected = NAMES - TEST - held_out(run)
    assert set(read_trec(run.path / "run.trec.gz")) == expected
    assert inputs["round_1_tuples"]["kind"] == "tuples"
    tuples = Artifact.open(inputs["round_1_tuples"]["path"])
    assert tuples.manifest["counts"]["relabelled"] == 15
    assert {pool.query for pool in read_pools(tuples.path / "pools.arrow")} == expected


def test_a_file_of_scores_that_lacks_the_tables_pairs_is_left_out_of_them(lab, outcome, tmp_path):
    file = tmp_path / "scores.trec"
    pairs = ((f"q{q}", f"d{t}-{d}", (7 * q + 3 * t + d) % 11) for q in range(20) for t in range(20) for d in range(3))
    file.write_text("".join(f"{query} Q0 {document} 1 {score} t\n" for query, document, score in pairs))
    given = ("teacher=scores", f"teacher.file={file}", *NO_TRAINING, "lexical=false", "single_vector=null")
    made = lab("rounds", "rounds.count=1", "name=scored", *given)
    told = json.loads((made.artifact.path / "rounds.json").read_text())
    assert list(told["means"]["test"]) == ["untrained", "round 0", "round 1"]
    note = (
        "teacher, re-ranking: left out, the file has no score for 100 of 100 pairs of dev and 100 of 100 pairs of test"
    )
    assert told["left_out"] == [note]
    assert note in made.text


def test_teachers_on_different_scales_are_warned_of(lab, outcome, capsys):
    inputs = outcome.artifact.manifest["inputs"]
    teachers = f"teachers=[{inputs['teacher']['path']},{inputs['pairwise']['path']}]"
    given = ("score", f"candidates={inputs['round_1_mined']['path']}", teachers)
    for normalise, warned in (("none", True), ("z_score", False)):
        say_once.cache_clear()
        capsys.readouterr()
        lab(*given, f"score.normalise={normalise}")
        assert ("(cross_encoder, model) are averaged as they are" in capsys.readouterr().err) == warned
        lab("rounds", "rounds=ensemble", f"score.normalise={normalise}", "dry_run=true")
        assert ("(teacher, index, bm25) are averaged as they are" in capsys.readouterr().err) == warned


def test_what_a_directory_holds_is_part_of_what_is_made_of_it(lab, outcome, tmp_path, tiny_backbone):
    inputs = outcome.artifact.manifest["inputs"]
    assert all(
        "backbone" in Artifact.open(inputs[one]["path"]).manifest["inputs"] for one in ("start", "single_vector")
    )
    assert "backbone" in Artifact.open(inputs["teacher"]["path"]).manifest["inputs"]
    place = tmp_path / "classifier"
    given = ("teacher=checkpoint", f"teacher.name={place}", "teacher.max_length=40", *NO_TRAINING)
    digests = []
    for seed in (0, 1, 1):
        shutil.rmtree(place, ignore_errors=True)
        CrossEncoder.from_pretrained(str(tiny_backbone), 40, seed).save(place)
        made = lab("teacher", *given).artifact
        digests.append(made.digest)
        # What was saved has another time, and nothing else that is new.
        assert made.manifest["files"]["model.safetensors"]["bytes"] == (place / "model.safetensors").stat().st_size
    assert digests[0] != digests[1] == digests[2]
    # Such names say of themselves what they stand for.
    cfg = lab.compose("teacher")[0]
    assert files_of(cfg, "backbone", "embedded/all-MiniLM-L6-v2") == {} == files_of(cfg, "backbone", "org/name")


def test_the_proof_of_rounds_ends_wrong_unless_just_what_follows_is_made_anew():
    spec = importlib.util.spec_from_file_location("prove", conf_dir().parent / "scripts" / "prove_rounds.py")
    proof = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(proof)
    right = [*(f"{name}x" for name in proof.ANEW), "runs/pydocs-test-proof-teacher-rerank10-x", "metrics/x"]
    right += ["indexes/pydocs-proof-round2-x", "candidates/pydocs-proof-round2-x"]
    assert proof.wrongly_made(right) == []
    assert "no scores anew" in proof.wrongly_made([])
    assert "no models/proof-round2-* anew" in proof.wrongly_made(
        [one for one in right if "models/proof-round2" not in one]
    )
    for more in ("models/proof-s0-x", "collections/pydocs-x", "bm25/pydocs-bm25-x"):
        assert proof.wrongly_made([*right, more]) == [f"{more} anew"]


def test_without_dev_queries_the_last_round_is_the_result(lab):
    quick = ("rounds.count=1", "lexical=false", "single_vector=null", "rounds.each.mined.run=bm25_train")
    plan = ("+rounds.once.bm25_train.stage=lexical", "~rounds.each.index", "~rounds.each.found")
    made = lab("rounds", *quick, *plan, "dev.queries=0", "name=nodev")
    assert made.objective is None
    assert "no dev split: the last, round 1, is the result" in made.text
    mined = Artifact.open(made.artifact.manifest["inputs"]["round_1_mined"]["path"])
    assert "-bm25-" in mined.manifest["inputs"]["run"]["path"]
    # The name of a split that nothing is read of makes no choice: not by test either.
    again = lab("rounds", *quick, *plan, "dev.queries=0", "splits.dev=test", "name=nodev")
    assert again.objective is None
    assert "no dev split: the last, round 1, is the result" in again.text


def test_a_number_of_rounds_is_no_choice_from_the_group():
    assert _meant("rounds", "rounds=2") == "rounds.count=2"
    assert _meant("rounds", "rounds=1,2") == "rounds.count=1,2"
    assert _meant("rounds", "rounds=denoised") == "rounds=denoised"
    assert _meant("train", "rounds=2") == "rounds=2"


ONCE = {"start": {"stage": "init"}, "pairwise": {"stage": "train", "model": "start"}}
MODEL = {"stage": "train", "model": "previous"}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, None),
        ({"count": -1}, "count=-1"),
        ({"first": "pairwize"}, "first=pairwize is none of the steps of once: start, pairwise"),
        ({"each": {"other": MODEL}}, "no step 'model'"),
        ({"each": {"model": {"stage": "distill"}}}, "stage=distill is none of"),
        ({"each": {"model": {"stage": "train"}}}, "does not say what it takes as 'model'"),
        ({"each": {"model": {**MODEL, "run": "start"}}}, "a train takes no 'run'"),
        ({"each": {"model": {"stage": "train", "model": "later"}, "later": MODEL}}, "is no step before it"),
        ({"each": {"model": {"stage": "train", "model": ["start", "previous"]}}}, "takes one step, not 2"),
        ({"once": {**ONCE, "bad": {"stage": "train", "model": "previous"}}}, "previous is no step before it"),
        ({"each": {"start": MODEL, "model": MODEL}}, "a step of once has that name too"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused_with_its_place(changed, told):
    plan = {"count": 1, "first": "pairwise", "once": ONCE, "each": {"model": MODEL}} | changed
    problems = Rounds.problems(**plan)
    assert (problems == []) if told is None else any(told in problem for problem in problems), problems


KEYS = {
    "mine": {
        "mine.depth": ("mine.depth=4",),
        "mine.ranks": ("mine.ranks=[3,20]",),
        "mine.min_grade": ("mine.min_grade=3",),
        "mine.positives": ("mine.positives=1",),
        "mine.unjudged": ("mine.unjudged=true",),
        "splits.test": ("splits.test=train",),
        "dev.holdout": ("dev.holdout=3", "splits.dev=none"),
    },
    "score": {
        "score.normalise": ("score.normalise=z_score",),
        "score.weights": ("score.weights=[1.0,3.0]", "score.normalise=min_max"),
        "encode.precision": ("encode.precision=bf16",),
    },
    "tuples": {
        "tuples.margin": ("tuples.margin=0.0",),
        "tuples.against": ("tuples.against=worst", "tuples.margin=0.0"),
        "tuples.relabel": ("tuples.relabel=always",),
        "tuples.worst_positive_rank": ("tuples.worst_positive_rank=1",),
    },
    "teacher": {
        "teacher.max_length": ("teacher.max_length=20",),
        "teacher.dev_candidates": ("teacher.dev_candidates=12",),
        "teacher_loss": ("loss@teacher_loss=hinge",),
        "teacher_optim.lr": ("teacher_optim.lr=2e-3",),
        "teacher_schedule": ("schedule@teacher_schedule=constant",),
        "teacher_train.negatives": ("teacher_train.negatives=1",),
        "teacher_train.attention_dropout": ("teacher_train.attention_dropout=0.5",),
        "seed": ("seed=1",),
    },
}


@pytest.fixture(scope="module")
def given(lab, outcome, tmp_path_factory) -> dict[str, list[str]]:
    """By verb, what it is given."""
    inputs = outcome.artifact.manifest["inputs"]
    run = tmp_path_factory.mktemp("run") / "all.trec"
    found = read_trec(inputs["round_1_found"]["path"] + "/run.trec.gz")
    lines = [f"{query} Q0 {d} 1 {s!r} t" for query, hits in found.items() for d, s in hits]
    # A query of the test split, which has no judgements in train.
    lines += [f"q30 Q0 {d} 1 {s!r} t" for d, s in next(iter(found.values()))]
    run.write_text("\n".join(lines))
    teachers = f"teachers=[{inputs['teacher']['path']},{inputs['pairwise']['path']}]"
    return {
        "mine": [f"run={run}", "data=beir", f"data.root={lab.toy}", "mine.ranks=[1,30]"],
        "score": [f"candidates={inputs['round_1_mined']['path']}", teachers],
        "tuples": [f"scores={inputs['round_1_scores']['path']}"],
        "teacher": [],
    }


@pytest.mark.parametrize(("verb", "key"), [(verb, key) for verb, keys in KEYS.items() for key in keys])
def test_every_key_of_the_steps_changes_something(lab, given, verb, key):
    change, *context = KEYS[verb][key]

    def facts(*overrides):
        taken = {override.partition("=")[0] for override in overrides}
        kept = [one for one in given[verb] if one.partition("=")[0] not in taken]
        artifact = lab(verb, *kept, *overrides).artifact
        return artifact.digest, artifact.manifest["counts"]

    assert facts(*context, change) != facts(*context)
