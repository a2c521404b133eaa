"""What ranked a run's documents: the model whose token vectors did, how texts were cut, whether vectors were merged.

A score can be taken apart among tokens where MaxSim gave it: not one by words, by a cross-encoder, or of one vector a
text.
"""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from colbert_lab.artifact import Artifact
from colbert_lab.stages.encoding import known_precision
from colbert_lab.stages.making import input_of, say


def is_late_interaction(model: Artifact) -> bool:
    """Whether the model in an artifact has a vector a token; by its record alone, nothing is loaded."""
    from colbert_lab.models.checkpoint import CONTRACT_FILE, FORMAT
    from colbert_lab.models.record import read_record

    return read_record(model.path / CONTRACT_FILE, FORMAT, "checkpoint").get("model", "colbert") == "colbert"


def has_token_vectors(index: Artifact) -> bool:
    """Whether an index ranks by them; index=single_vector tells, as `pooling`, how it made one of all of a text's."""
    return index.manifest["counts"].get("pooling") is None


def merged(index: Artifact) -> str | None:
    """What is to be said of explanations by every token's own vector where the index holds fewer; else None."""
    pooling = index.manifest["config"].get("pooling")
    if pooling is None:
        return None
    return (
        f"the index holds {index.manifest['counts']['vectors']:,} vectors, merged by pooling.factor="
        f"{pooling['factor']}; explanations are of every token's own, so that their scores are not the run's"
    )


def note_of(run: Artifact | str | None) -> str | None:
    """What is to be said beside a run's explanations: why their scores are not the run's; None where they are."""
    index = _index_of(run) if isinstance(run, Artifact) else None
    if index is None or has_token_vectors(index):
        return None if index is None else merged(index)
    return "the run compared one vector a text (index=single_vector): the scores of explanations are not the run's"


def model_of(run: Artifact, cfg: DictConfig) -> Artifact | None:
    """The model whose token vectors ranked a run; None where words, a cross-encoder or one vector a text did."""
    inputs = run.manifest["inputs"]
    # Re-ranked by one teacher: a model, or an index with the vectors of one.
    made_by = None if "teacher_1" in inputs else inputs.get("teacher_0", {}).get("kind")
    if inputs.get("model", {}).get("kind") == "model":
        model = input_of(run, "model", cfg.model_at)
    elif made_by == "model":
        model = input_of(run, "teacher_0", cfg.model_at)
    elif made_by == "index":
        model = input_of(input_of(run, "teacher_0"), "model", cfg.model_at)
    else:
        return None
    index = _index_of(run)
    return model if is_late_interaction(model) and (index is None or has_token_vectors(index)) else None


def cut_by(run: Artifact | str | None) -> dict[str, Any] | None:
    """The section `passages` by which a run's documents were cut; None where they were not."""
    if not isinstance(run, Artifact):
        return None
    found = run.manifest["config"].get("passages")
    if found is None and "index" in run.manifest["inputs"]:
        found = input_of(run, "index").manifest["config"].get("passages")
    if found is not None:
        say("documents were cut into passages for this run; each is explained by its best one")
    return found


def encoded_as(cfg: DictConfig, run: Artifact | str | None) -> DictConfig:
    """`cfg`, whose precision "auto" is the one that a run's queries were encoded in, where its manifest says one."""
    known = known_precision(run) if isinstance(run, Artifact) else None
    if cfg.encode.precision != "auto" or known is None:
        return cfg
    view = OmegaConf.create(OmegaConf.to_container(cfg, resolve=False))
    view.encode.precision = known
    return view


def _index_of(run: Artifact) -> Artifact | None:
    """The index that a run was searched in, or whose vectors alone it was re-ranked with; None for another run."""
    inputs = run.manifest["inputs"]
    if "index" in inputs:
        return input_of(run, "index")
    alone = "teacher_1" not in inputs and inputs.get("teacher_0", {}).get("kind") == "index"
    return input_of(run, "teacher_0") if alone else None
