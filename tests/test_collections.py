"""On a real collection: the figures that MaxSim over an untrained encoder is known to give."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from colbert_lab.stages import pipeline
from colbert_lab.stages.launch import conf_dir

CRANFIELD = Path(__file__).parents[2] / "shared" / "collections" / "cranfield"


@pytest.mark.slow
@pytest.mark.skipif(not CRANFIELD.is_dir(), reason="the collections are not beside this clone")
# Both against the known figure of 384 dimensions; a third of them may cost 0.012.
@pytest.mark.parametrize(("projection", "expected", "tolerance"), [("none", 0.558, 0.004), ("pca", 0.558, 0.012)])
def test_untrained_maxsim_on_cranfield(tmp_path, projection, expected, tolerance):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        overrides = [
            "experiment=untrained",
            f"projection={projection}",
            "data=beir",
            f"data.root={CRANFIELD}",
            "train.max_steps=0",
            "lexical=false",
            "tracking=none",
            f"root={tmp_path}",
            "name=cranfield",
        ]
        figures = pipeline.run(compose("pipeline", overrides=overrides)).figures
    assert abs(figures["test_ndcg_10"] - expected) <= tolerance
