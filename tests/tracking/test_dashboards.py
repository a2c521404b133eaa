"""The workspace as code: it names only what is logged, passes wandb-workspaces' own models, and needs no network."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "dashboards.py"


@pytest.fixture(scope="module")
def dashboards():
    specification = importlib.util.spec_from_file_location("dashboards", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    sys.modules["dashboards"] = module
    specification.loader.exec_module(module)
    return module


def test_the_descriptions_need_no_package(dashboards):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import dashboards\n"
        "assert dashboards.panels(['toy'])\n"
        "assert not {'wandb', 'wandb_workspaces'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(SCRIPT.parent)]).returncode == 0


def test_every_section_that_is_asked_for_is_there(dashboards):
    names = [section.name for section in dashboards.panels()]
    assert names == ["Overview", "Training", "Validation", "Rounds", "Index", "Search", "Sweep", "Failures"]
    kinds = {panel.kind for section in dashboards.panels(["toy"]) for panel in section.panels}
    assert kinds == {"line", "bar", "scatter", "parallel", "importance", "table", "text"}


def test_a_dry_run_shows_what_would_be_written_without_network_and_account(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    # A proxy that is not there: whoever reaches out fails.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    home = {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")}
    command = [sys.executable, str(SCRIPT), "--dry-run", "--spec", "--datasets", "scifact"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=environment | nowhere | home, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    told = done.stdout
    assert "eval/scifact_ndcg_10 against index/bytes_per_token" in told
    assert "round/dev_ndcg_10 over round; seeds as one" in told
    specification = json.loads(told[told.index("\n{") : told.rindex("\n}") + 2])
    sections = specification["section"]["panelBankConfig"]["sections"]
    panels = {panel["viewType"] for section in sections for panel in section["panels"]}
    assert panels >= {
        "Run History Line Plot",
        "Bar Chart",
        "Scatter Plot",
        "Parallel Coordinates Plot",
        "Parameter Importance",
    }
    text = json.dumps(sections)
    assert '"summary:index/bytes_per_token"' in text
    assert '"config:optim.value.lr"' in text


def test_every_term_of_the_losses_that_ship_is_shown(dashboards):
    losses = [yaml.safe_load(file.read_text()) for file in (SCRIPT.parent.parent / "conf" / "loss").glob("*.yaml")]
    terms = {term for loss in losses for term in loss["terms"]}
    assert len(losses) >= 6
    assert set(dashboards.PARTS) == {f"train/loss_{term}" for term in terms}


def test_all_that_the_shipped_sweeps_vary_has_a_column(dashboards):
    repository = SCRIPT.parent.parent
    sweeps = [yaml.safe_load(file.read_text())["params"] for file in (repository / "conf" / "sweep").glob("*.yaml")]
    sweeps.append(yaml.safe_load((repository / "scripts" / "wandb_sweep.yaml").read_text())["parameters"])
    keys = {key for sweep in sweeps for key in sweep}
    # A group's key is a node in the configuration; what was chosen is noted by name.
    columns = {f"choices.{key}" if (repository / "conf" / key).is_dir() else key for key in keys}
    assert "choices.loss" in columns
    assert columns <= set(dashboards.SWEPT)
    text = json.dumps(dashboards.spec(dashboards.workspace(dashboards.panels(), "e", "p", "n")))
    assert '"config:choices.value.loss"' in text


def test_a_collection_is_found_by_its_name(dashboards):
    shown = dashboards.named_metrics(dashboards.panels(["2wikimqa", "cqadupstack/english"]))
    assert {"eval/_2wikimqa_ndcg_10", "val/cqadupstack_english_ndcg_10"} <= shown


def test_saving_without_an_account_is_refused_before_anything_is_reached(dashboards, capsys):
    assert dashboards.main([]) == 1
    assert "try: --entity TEAM" in capsys.readouterr().err


def test_what_wandb_workspaces_refuses_is_an_error(dashboards):
    wrong = dashboards.Section("x", (dashboards.Panel("line", "y", metrics=(3,)),))
    with pytest.raises(ValueError, match="validation error"):
        dashboards.workspace([wrong], "e", "p", "n")
