"""Sections: several trainings in one configuration; `distil_train`, `distil_loss`, ... beside `train`, `loss`, ..."""

import re

from omegaconf import DictConfig, OmegaConf, open_dict

KEYS = ("train", "loss", "optim", "schedule", "examples")


def section(cfg: DictConfig, prefix: str) -> DictConfig:
    """`cfg` with each of KEYS replaced by its `<prefix>_<key>`, where there is one; its trackers share one group."""
    view = OmegaConf.create(OmegaConf.to_container(cfg, resolve=False))
    with open_dict(view):
        view.tracking.group = cfg.tracking.group or cfg.name
        for key in KEYS:
            if f"{prefix}_{key}" in cfg:
                view[key] = cfg[f"{prefix}_{key}"]
            if f"{prefix}_{key}" in (cfg.get("choices") or {}):
                view.choices[key] = cfg.choices[f"{prefix}_{key}"]
    return view


def named(cfg: DictConfig, label: str) -> DictConfig:
    """`cfg` under the name `<name>-<label>`, still in the group of `cfg`; tagged with the round that a label names."""
    view = OmegaConf.create(OmegaConf.to_container(cfg, resolve=False))
    with open_dict(view):
        view.tracking.group = cfg.tracking.group or cfg.name
        view.name = f"{cfg.name}-{label}"
        if number := re.fullmatch(r"round(\d+)", label):
            view.tracking.tags = [*cfg.tracking.tags, f"round:{number[1]}"]
    return view
