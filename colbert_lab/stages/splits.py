"""Which split plays which part: settled and held against those of the data before any of it is read."""

from collections.abc import Sequence

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from colbert_lab.data.collection import Collection, Qrels
from colbert_lab.errors import ConfigError
from colbert_lab.stages.making import create


def checked_splits(cfg: DictConfig, trains: bool = True, mines: bool = False) -> DictConfig:
    """`settled`, checked against what cfg.data says of itself: nothing is read or fetched for it.

    `trains`: whether a model is chosen by dev; `mines`: whether the judgements of train are needed whatever is trained
    on. ConfigError where a split that is needed is not there, or the best would be chosen by the test split.
    """
    source = create(cfg.data)
    there = source.splits()
    cfg = settled(cfg, there)
    names, problems = cfg.splits, []
    chooses = trains and cfg.dev.queries > 0
    needed = ["test"]
    # Without a dev split its queries are held out of train.
    if mines or (chooses and names.dev not in there):
        needed.append("train")
    problems += [
        f"{source.name} has no split {names[role]!r}, only {', '.join(there) or 'none'}\ntry: splits.{role}=NAME"
        for role in needed
        if names[role] not in there
    ]
    if chooses and names.dev == names.test:
        problems.append(
            f"splits.dev and splits.test are both {names.test!r}: the best would be chosen by what it is judged by\n"
            "try: splits.dev=held_out, which takes dev.holdout queries out of train"
        )
    if problems:
        raise ConfigError(problems, "the splits")
    return cfg


def settled(cfg: DictConfig, there: Sequence[str]) -> DictConfig:
    """`cfg` with one name at splits.test: of a list the first that is among `there`, or simply the first."""
    if not isinstance(cfg.splits.test, ListConfig):
        return cfg
    view = OmegaConf.create(OmegaConf.to_container(cfg, resolve=False))
    with open_dict(view):
        names = list(cfg.splits.test)
        view.splits.test = next((name for name in names if name in there), names[0])
    return view


def kept_for_judging(cfg: DictConfig, collection: Collection, dev: Qrels) -> set[str]:
    """The queries that choose or judge, and are never trained on: those of `dev`, and of every split but train."""
    return set(dev).union(*(collection.qrels(split) for split in collection.splits if split != cfg.splits.train))
