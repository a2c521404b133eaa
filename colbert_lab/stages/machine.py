"""What of this machine a command takes: `threads` of its processor, and so many `devices`."""

from omegaconf import DictConfig

from colbert_lab.errors import ConfigError

_TRAININGS = ("train", "teacher_train", "distil_train")


def take(cfg: DictConfig) -> None:
    """Have torch use cfg.threads; ConfigError for devices that cannot be, or cannot share a training's batches."""
    if "devices" in cfg:
        _check_devices(cfg)
    if cfg.get("threads"):
        import torch

        torch.set_num_threads(cfg.threads)


def _check_devices(cfg: DictConfig) -> None:
    if cfg.devices < 1:
        raise ConfigError(f"devices={cfg.devices} must be at least 1")
    if wrong := [
        f"{name}.batch_queries={node.batch_queries} cannot be shared equally by devices={cfg.devices}\n"
        f"try: {name}.batch_queries={cfg.devices * max(1, node.batch_queries // cfg.devices)}"
        for name, node in cfg.items()
        if name in _TRAININGS and node.batch_queries % cfg.devices
    ]:
        raise ConfigError(wrong, "what the devices share")
