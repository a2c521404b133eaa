"""Explaining overrides: all that is wrong, each by itself, with what was probably meant."""

import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from colbert_lab.stages.overrides import close, explain, shown

FILES = {
    "train.yaml": "defaults:\n  - loss: kl\n  - data/tokenizer: fast\n  - _self_\n  - experiment: null\n"
    "seed: 0\noptional: null\ntraining: {optimizer: {lr: 1e-5}, steps: 3}\ncallbacks: [{a: 1}]\nlink: ${training}\n",
    "index.yaml": "defaults:\n  - data: ???\n  - loss: kl\n  - _self_\nseed: 0\n",
    "loss/kl.yaml": "temperature: 1.0\n",
    "loss/hinge.yaml": "margin: 1.0\n",
    "data/toy.yaml": "root: /x\n",
    "data/tokenizer/fast.yaml": "length: 3\n",
    "data/tokenizer/slow.yaml": "length: 4\n",
    "experiment/e1.yaml": "# @package _global_\ndefaults:\n  - override /loss: hinge\nseed: 3\n",
    "experiment/sub/e2.yaml": "# @package _global_\nseed: 4\n",
}


@pytest.fixture(scope="module")
def conf(tmp_path_factory):
    root = tmp_path_factory.mktemp("made") / "conf"
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["loss=hinge", "seed=1", "experiment=e1", "loss.margin=0.1"],
        ["loss=kl,hinge", "seed=range(0,3)", "training.steps=choice(1,2)", "optional=interval(0,1)"],
        ["experiment=glob(*)"],
        ["experiment=sub/e2", "+new=1", "++seed=4", "~callbacks", "training.optimizer={lr:1}", "link.steps=3"],
        ["hydra.run.dir=/tmp/x", "hydra/job_logging=disabled", "training.steps=null", "callbacks.0.a=2", "~loss"],
        ["data/tokenizer=slow", "data.tokenizer.length=9"],
    ],
    ids=str,
)
def test_right_overrides(conf, overrides):
    found = explain(conf, "train", overrides)
    # What lies behind an interpolation Hydra itself does not set.
    assert [problem for problem in found if not problem.startswith("link.steps")] == []


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("loss=hing", "loss=hing: conf/loss has no 'hing'; did you mean 'hinge'? choices: hinge, kl"),
        ("loss=kl,hing", "loss=hing: conf/loss has no 'hing'; did you mean 'hinge'? choices: hinge, kl"),
        ("loss=choice(kl,hing)", "loss=hing: conf/loss has no 'hing'; did you mean 'hinge'? choices: hinge, kl"),
        ("loss=0.5", "loss=0.5: conf/loss has no '0.5'; choices: hinge, kl"),
        ("loss=null", "loss=null: to leave the group out write ~loss; choices: hinge, kl"),
        ("loss=glob(z*)", "loss=glob(z*): it matches nothing; choices: hinge, kl"),
        ("experiment=e2", "experiment=e2: conf/experiment has no 'e2'; did you mean 'sub/e2'? choices: e1, sub/e2"),
        ("los=hinge", "los=hinge: there is no key 'los'; did you mean loss=hinge?"),
        ("lr=1e-4", "lr=1e-4: there is no key 'lr'; did you mean training.optimizer.lr=1e-4?"),
        ("optimizer.lr=1", "optimizer.lr=1: there is no key 'optimizer.lr'; did you mean training.optimizer.lr=1?"),
        ("training.stesp=1", "training.stesp=1: there is no key 'training.stesp'; did you mean training.steps=1?"),
        ("sed=1,2", "sed=1,2: there is no key 'sed'; did you mean seed=1,2?"),
        ("loss.margin=2", "there is no key 'loss.margin' with this choice; there is one with loss=hinge"),
        ("loss.hinge=1", "loss.hinge=1: there is no key 'loss.hinge'; did you mean loss=hinge?"),
        ("seed.x=1", "seed.x=1: there is no key 'seed.x'"),
        ("zzz=1", "zzz=1: there is no key 'zzz'; keys: loss, data, seed, optional, training, callbacks, link"),
        ("~traning", "~traning: there is no key 'traning'; did you mean ~training?"),
        ("+seed=1", "+seed=1: 'seed' exists already; try seed=1"),
        ("data.tokenizer=slow", "data/tokenizer is a group, chosen with a slash: try data/tokenizer=slow"),
        ("data/tokeniser=slow", "conf has no group 'data/tokeniser'; did you mean 'data/tokenizer'?"),
        ("loss", "loss: no value is given: try loss=VALUE"),
        ("--seed=1", "--seed=1: values are given as key=value: try seed=1"),
        ("seed =1", "seed =1: no blank may stand before the =: try seed=1"),
        ("optional=a=b", "to give it as text, quote it: try optional='\"a=b\"'"),
        ("hydra.run.di=1", "hydra.run.di=1: Could not override 'hydra.run.di'."),
        ("data=toy", "data=toy: Could not override 'data'."),
    ],
)
def test_each_mistake(conf, override, expected):
    found = explain(conf, "train", ["seed=1", override, "training.steps=4"])
    assert len(found) == 1, found
    assert expected in found[0]


def test_all_mistakes_are_told_at_once(conf):
    overrides = ["loss=hing", "lr=2", "a=[1,", "data/tokenizer=fsat", "experiment=e1", "loss.margin=2"]
    found = explain(conf, "train", overrides)
    assert [problem.split(":")[0] for problem in found] == ["a=[1,", "loss=hing", "data/tokenizer=fsat", "lr=2"]


def test_a_group_that_must_be_chosen_hides_nothing_else(conf):
    found = explain(conf, "index", ["sed=1"])
    assert found[0].startswith("data must be chosen: try data=NAME; choices: toy")
    assert found[1].startswith("sed=1: there is no key 'sed'; did you mean seed=1?")
    assert len(found) == 2
    assert explain(conf, "index", ["data=toy"]) == []


def test_an_unknown_primary_file(conf):
    assert explain(conf, "trian", []) == ["there is no conf/trian.yaml; did you mean 'train'?"]


def test_a_yaml_file_that_cannot_be_read(tmp_path):
    (tmp_path / "train.yaml").write_text("seed: [1,\n")
    (problem,) = explain(tmp_path, "train", [])
    assert "train.yaml" in problem
    assert "line 2" in problem


def test_hydra_is_left_as_it_was(conf):
    assert not GlobalHydra.instance().is_initialized()
    with initialize_config_dir(str(conf), version_base="1.3", job_name="outer"):
        running = GlobalHydra.instance().hydra
        assert explain(conf, "train", ["loss=hing"])
        assert GlobalHydra.instance().hydra is running
        assert compose("train").seed == 0
    assert explain(conf, "train", []) == []
    assert not GlobalHydra.instance().is_initialized()


def test_no_torch(conf):
    code = (
        "import sys\nfrom colbert_lab.stages.overrides import explain\nimport colbert_lab.stages.check\n"
        f"assert explain({str(conf)!r}, 'train', []) == []\nassert not {{'torch', 'numpy', 'wandb'}} & set(sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr


def test_words():
    assert close("Temprature", ["temperature", "margin"]) == ["temperature"]
    assert close("hin", ["hinge", "kl"]) == ["hinge"]
    assert close("x", ["hinge"]) == []
    values = [None, True, 3, 1e-5, "a/b-c.d", "12", "true", "a b", [1, "x"], {"a": None}]
    assert [shown(value) for value in values] == [
        "null",
        "true",
        "3",
        "1e-05",
        "a/b-c.d",
        "'\"12\"'",
        "'\"true\"'",
        "'\"a b\"'",
        "[1,x]",
        "{a:null}",
    ]
