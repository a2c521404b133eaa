"""Environment: the code, the packages and the machine that a run had."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from colbert_lab.artifact import versions
from colbert_lab.processes import cores


def environment() -> dict[str, Any]:
    """`code` (versions and commit), `machine` (cpu, cores, memory_bytes, gpus) and, once torch is loaded, `torch`."""
    found: dict[str, Any] = {"code": versions(), "machine": _machine()}
    torch = sys.modules.get("torch")
    if torch is not None:
        found["torch"] = {"threads": torch.get_num_threads(), "cuda": torch.version.cuda}
    return found


def _machine() -> dict[str, Any]:
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": _gpus(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _gpus() -> list[str]:
    """Names of the GPUs with their memory; asks the driver's own tool, so that torch need not be loaded for it."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]
