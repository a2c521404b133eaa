"""The numeric precision of a forward pass: fp32, or bf16 autocast where the hardware computes in bf16."""

from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]


def resolve_precision(precision: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """What "auto" means on this device: bf16 where it is fast, else fp32; anything else is taken as it is."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        # bf16 without AVX512_BF16 or AMX is emulated, several times slower than fp32.
        return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"
    return "fp32"


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """The autocast context of a precision on a device."""
    resolved = resolve_precision(precision, device)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=resolved == "bf16")


def best_device() -> torch.device:
    """The first CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
