"""Checking a configuration: every mistake is found, told with its place and its mending, and nothing else is."""

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from colbert_lab.errors import ConfigError
from colbert_lab.stages.check import check, fits, locate, signature_problems


class Loss:
    def __init__(self, temperature: float = 1.0, weight: float | None = None, name: str = "kl"):
        pass


class Index:
    def __init__(self, bits: Literal[1, 2, 4, 8], path: Path, sizes: list[int] = (), inner: object = None):
        pass

    @staticmethod
    def problems(bits, path, **others):
        return [f"bits={bits} needs a longer path    try: index.path=/{path}"] if len(path) < bits else []


class Open:
    def __init__(self, a: int, **others):
        pass


def optimizer(params, lr: float, fused: bool = False):
    pass


class Colour(enum.Enum):
    red = 1


@dataclass
class Options:
    seed: int
    name: str = "n"
    tracking: "Tracking | None" = None


@dataclass
class Tracking:
    project: str
    tags: list[str]


HERE = __name__
LOSS = {"_target_": f"{HERE}.Loss", "temperature": 0.5, "weight": None, "name": "kl"}
INDEX = {"_target_": f"{HERE}.Index", "bits": 2, "path": "/some/where", "sizes": [1, 2], "inner": None}


def found(cfg, **options):
    try:
        check(OmegaConf.create(cfg), Path("conf"), "the test", **options)
    except ConfigError as error:
        return str(error)
    return ""


def test_nothing_is_found_in_what_is_right():
    cfg = {
        "seed": 0,
        "loss": LOSS,
        "index": INDEX | {"inner": {"_target_": f"{HERE}.Open", "a": "${seed}", "more": 1}},
        "optimizer": {"_target_": f"{HERE}.optimizer", "_partial_": True, "lr": 1, "fused": False},
        "callbacks": {"one": {"_target_": "collections.OrderedDict"}, "none": None},
        "sinks": [LOSS, None],
        "tracking": {"sink": None},
    }
    assert found(cfg) == ""


def test_all_mistakes_in_one_message_in_the_style_of_the_house(tmp_path):
    conf = tmp_path / "conf"
    (conf / "loss").mkdir(parents=True)
    (conf / "loss" / "kl.yaml").write_text(f"_target_: {HERE}.Loss\ntemprature: 0.25\nweight: true\n")
    (conf / "index").mkdir()
    (conf / "index" / "residual.yaml").write_text(f"_target_: {HERE}.Index\nbits: 3\npath: /p\n")
    (conf / "train.yaml").write_text("defaults: [loss: kl, index: residual, _self_]\ndata:\n  root: ???\n")
    with initialize_config_dir(str(conf), version_base="1.3"):
        cfg = compose("train", return_hydra_config=True)
    choices = cfg.hydra.runtime.choices
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    with pytest.raises(ConfigError) as caught:
        check(cfg, conf, "train", choices=choices)
    text = str(caught.value)
    lines = [line.split("  try: ") for line in text.splitlines()]
    assert [[part.strip() for part in line] for line in lines] == [
        ["4 problems in train"],
        [f"loss (conf/loss/kl.yaml -> {HERE}.Loss)"],
        ["unknown key 'temprature'; did you mean 'temperature'?", "loss.temperature=0.25"],
        ["weight=true must be a number or null", "loss.weight=1.0"],
        [f"index (conf/index/residual.yaml -> {HERE}.Index)"],
        ["bits=3 must be one of 1, 2, 4, 8", "index.bits=2"],
        ["data"],
        ["'root' needs a value", "data.root=DIR"],
    ]
    assert len(caught.value.problems) == 4
    assert text.splitlines()[2].startswith("    unknown")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"loss": LOSS | {"_target_": f"{HERE}.Los"}}, f"there is no 'Los' in {HERE}; did you mean {HERE}.Loss?"),
        ({"loss": LOSS | {"_target_": "colbert_lab.erors.LabError"}}, "did you mean colbert_lab.errors?"),
        ({"loss": LOSS | {"_target_": "no_such_package.x"}}, "there is no 'no_such_package'"),
        ({"loss": LOSS | {"_target_": f"{HERE}.HERE"}}, "is a str, it cannot be called"),
        ({"loss": LOSS | {"temperature": "hot"}}, "temperature=hot must be a number"),
        ({"loss": LOSS | {"temperature": None}}, "temperature=null must be a number"),
        ({"loss": LOSS | {"name": 123}}, "loss.name='\"123\"'"),
        ({"loss": LOSS | {"_partail_": True}}, "did you mean '_partial_'?"),
        ({"index": INDEX | {"bits": float("inf")}}, "bits=inf must be one of"),
        ({"index": INDEX | {"sizes": float("nan")}}, "try: index.sizes=[]"),
        ({"loss": LOSS | {"qqq": 1}}, "known are: temperature, weight, name"),
        ({"index": INDEX | {"bits": True}}, "bits=true must be one of 1, 2, 4, 8"),
        ({"index": INDEX | {"sizes": [1, "a"]}}, "sizes=[1,a] must be a list of a whole number"),
        ({"index": INDEX | {"path": "???"}}, "try: index.path=DIR"),
        ({"index": {"_target_": f"{HERE}.Index", "bits": 2}}, "'path' is missing"),
        ({"index": INDEX | {"inner": {"_target_": f"{HERE}.Open"}}}, "try: +index.inner.a=1"),
        ({"index": INDEX | {"bits": 8, "path": "/p"}}, "bits=8 needs a longer path"),
        ({"loss": LOSS | {"temperature": "${no.such}"}}, "${no.such} cannot be resolved"),
        ({"loss": LOSS | {"temperature": "${nothing:1}"}}, "${nothing:1} cannot be resolved"),
        ({"list": [{"deep": [LOSS | {"weight": "x"}]}]}, "list[0].deep[0].weight=1.0"),
        ({"optimizer": {"_target_": f"{HERE}.optimizer", "lr": 1.0}}, "'params' is missing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_mistake(change, expected):
    text = found({"loss": LOSS, "index": INDEX} | change)
    assert expected in text
    assert text.startswith("1 problem in the test")


def test_a_missing_value_is_told_once_however_often_it_is_used():
    text = found({"dim": "???", "a": "${dim}", "loss": LOSS | {"weight": "${dim}"}})
    assert text.count("needs a value") == 1
    assert text.startswith("1 problem")


def test_hydra_values_are_no_mistake_outside_of_a_main():
    assert found({"run_dir": "${hydra:runtime.output_dir}"}) == ""


def test_a_missing_optional_package_is_told_with_its_installation(tmp_path, monkeypatch):
    (tmp_path / "needs_it.py").write_text("import surely_not_installed\n")
    (tmp_path / "fails.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert locate("needs_it.X")[1].endswith("pip install surely_not_installed")
    assert "ZeroDivisionError" in locate("fails.X")[1]


def test_runtime_parameters_may_be_missing():
    cfg = {"parts": {"a": {"_target_": f"{HERE}.optimizer", "lr": 0.1, "fused": True}}}
    assert found(cfg, runtime={"parts.*": {"params"}}) == ""
    assert "'params' is missing" in found(cfg, runtime={"parts.b": {"params"}})


def test_plain_keys_against_a_schema():
    good = {"seed": 1, "name": "x", "tracking": {"project": "p", "tags": []}, "group": {"_target_": "builtins.dict"}}
    assert found(good, schema=Options) == ""
    assert "unknown key 'distil_train'" in found(good | {"distil_train": {"max_steps": 1}}, schema=Options)
    text = found(good | {"seed": "one", "nam": "y"}, schema=Options)
    assert "seed=one must be a whole number" in text
    assert "unknown key 'nam'; did you mean 'name'?" in text
    assert "'seed' is missing" in found({"name": "x"}, schema=Options)

    @dataclass
    class Nested:
        tracking: Tracking

    assert "tracking.tags=[]" in found({"tracking": {"project": "p", "tags": 3}}, schema=Nested)
    assert "top level" in found({"seed": "x"}, schema=Options)


def test_fits():
    right = [
        (1, float),
        (None, int | None),
        ("a", Literal["a", "b"] | None),
        ("/x", Path),
        ("red", Colour),
        ([1, 2.0], tuple[float, ...]),
        ([1, "a"], tuple[int, str]),
        ({"a": 1}, dict[str, int]),
        (object, Loss),
        ([], list),
        ({}, dict),
        (3, "Unknown"),
    ]
    wrong = [
        (True, int),
        (True, float),
        (1, bool),
        ("1", int),
        (1.0, int),
        (1, str),
        ("c", Literal["a"]),
        (3, Path),
        ("blue", Colour),
        ([1], tuple[int, str]),
        ("abc", list[str]),
        ({"a": "x"}, dict[str, int]),
        (None, str),
    ]
    assert [pair for pair in right if not fits(*pair)] == []
    assert [pair for pair in wrong if fits(*pair)] == []


def test_yaml_and_signatures_are_held_against_each_other():
    assert signature_problems({"loss": LOSS, "index": INDEX}, package=HERE) == []
    short = {key: value for key, value in LOSS.items() if key != "weight"}
    found = signature_problems({"a": [short]}, package=HERE)
    assert found == [f"a.0: {HERE}.Loss takes 'weight', which is not spelled out"]
    assert signature_problems(OmegaConf.create(short), {"": {"weight"}}, package=HERE) == []
    assert signature_problems(LOSS | {"temprature": "${x}"}) == [f".: {HERE}.Loss does not take 'temprature'"]
    assert "no 'Los'" in signature_problems({"_target_": f"{HERE}.Los"})[0]
