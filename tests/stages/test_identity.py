"""Who a run is: the question of the study that it belongs to, and what was chosen, by name, for a dashboard."""

import pytest
from omegaconf import OmegaConf

from colbert_lab.stages import identity, launch
from colbert_lab.stages.identity import chosen, identity_of


@pytest.fixture
def studies(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "_STUDIES", tmp_path)
    return tmp_path


def notes(group, experiment=None, own=None):
    tracking = {"project": "p", "group": group, "tags": [], "notes": own, "sink": None}
    cfg = {"name": "n", "seed": 0, "tracking": tracking, "choices": {"experiment": experiment} if experiment else {}}
    return identity_of(OmegaConf.create(cfg), "train", "n-s0", {}).notes


def test_notes_are_the_question_of_the_study(studies):
    (studies / "pairwise.md").write_text("# Title\n\nIn May.\n\n**Asked.** Does it\nlift nDCG@10?\n\n**Found.** Yes.\n")
    assert notes("pairwise") == "Does it lift nDCG@10?"
    assert notes("pairwise-hinge-x", "pairwise") == "Does it lift nDCG@10?", "a group of its own, in that experiment"
    assert notes("pairwise", own="mine") == "mine"
    (studies / "plain.md").write_text("# Title\n\nWhat is\nthis?\n\nMore.\n")
    assert notes("plain", "pairwise") == "What is this?", "the group's own study comes first"
    (studies / "empty.md").write_text("# Title\n")
    assert notes("empty") is None
    assert notes("no such study", "nor this") is None
    assert notes("../" * 200 + "x") is None


def test_every_study_that_ships_asks_something():
    found = {file.stem: notes(file.stem) for file in identity._STUDIES.glob("*.md")}
    assert len(found) >= 5
    assert all(text.endswith(("?", ".")) and not text.startswith("*") for text in found.values()), found


def test_what_was_chosen_is_kept_by_where_it_went():
    choices = {"loss": "softmax", "loss@distil_loss": "kl", "index@exact": "exact", "experiment": None, "sweep": "grid"}
    choices |= {"hydra/launcher": "basic", "hydra": "default", "sampler@examples.sampler": "uniform"}
    assert chosen(choices) == {
        "loss": "softmax",
        "distil_loss": "kl",
        "exact": "exact",
        "examples_sampler": "uniform",
    }


def test_a_run_is_given_its_choices_as_plain_keys(lab, monkeypatch):
    seen = []
    monkeypatch.setattr("colbert_lab.stages.train.run", lambda cfg: seen.append(cfg) or "")
    cfg, given, choices = lab.compose("train", "loss=hinge", "experiment=pairwise")
    launch.run_job("train", cfg, given, choices)
    held = OmegaConf.to_container(seen[0], resolve=True)["choices"]
    assert (held["loss"], held["experiment"], held["data"]) == ("hinge", "pairwise", "beir")
    assert not {"tracking", "local"} & set(held), "how a run is told is no choice to compare by"
    assert all(isinstance(option, str) for option in held.values())
