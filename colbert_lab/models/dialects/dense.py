"""Dense modules as one bias-free linear map: y = W x, or W x + R x with a residual, one after the other."""

from pathlib import Path

import torch
from torch import Tensor

from colbert_lab.errors import ArtifactError
from colbert_lab.models.dialects.files import Record, tensors

_IDENTITY = ("torch.nn.modules.linear.Identity", "torch.nn.Identity")
# What the classes do where the file does not say.
_DEFAULTS = {True: ("torch.nn.modules.linear.Identity", False), False: ("torch.nn.modules.activation.Tanh", True)}


def folded(places: list[Path], hidden: int, of_pylate: bool) -> Tensor | None:
    """The weight [d, h] that Dense modules in these directories come to, fp32; None for no module.

    A single one is the weight that was saved; a product is taken in fp64. ArtifactError for a bias, for an activation
    that is none, and where shapes contradict the configuration, each other or the backbone's `hidden` dimensions.
    """
    maps = [_map(place, of_pylate) for place in places]
    width = hidden
    for place, weight in zip(places, maps):
        if weight.shape[1] != width:
            raise ArtifactError(f"{place / 'config.json'}: in_features is {weight.shape[1]}, and {width} come in")
        width = weight.shape[0]
    if not maps:
        return None
    total = maps[0]
    for weight in maps[1:]:
        total = weight.double() @ total.double()
    return total.float()


def _map(place: Path, of_pylate: bool) -> Tensor:
    config = Record.read(place / "config.json")
    activation, bias = _DEFAULTS[of_pylate]
    if config.get("activation_function", str, activation, quiet=True) not in _IDENTITY:
        raise config.refused("activation_function", "a projection of ours is linear, with none (Identity)")
    held = tensors(place)
    if config.get("bias", bool, bias, quiet=True) or "linear.bias" in held:
        raise config.refused("bias", "a projection of ours has none")
    for key in ("module_input_name", "module_output_name"):
        if config.get(key, str, "token_embeddings", quiet=True) != "token_embeddings":
            raise config.refused(key, "only token_embeddings are read")
    if "linear.weight" not in held:
        raise ArtifactError(f"{place} has no linear.weight among its tensors")
    weight = held["linear.weight"]
    for key, size in (("out_features", weight.shape[0]), ("in_features", weight.shape[1])):
        if config.get(key, int, size, quiet=True) != size:
            raise config.refused(key, f"its linear.weight is {list(weight.shape)}")
    if not config.get("use_residual", bool, False, quiet=True):
        return weight
    past = held.get("residual.weight")
    if past is None and weight.shape[0] == weight.shape[1]:
        past = torch.eye(len(weight))
    if past is None or past.shape != weight.shape:
        raise config.refused("use_residual", f"there is no residual.weight of {list(weight.shape)} to add")
    return weight.double() + past.double()
