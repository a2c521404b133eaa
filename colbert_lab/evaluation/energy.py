"""How much energy a piece of work takes, where the machine tells.

The processor through Linux's RAPL counters, a CUDA device through nvidia-smi's power. Elsewhere there is a reason
instead of a number: an energy is never estimated.
"""

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

POWERCAP = Path("/sys/class/powercap")
_SAMPLE_MS = 100


@dataclass(frozen=True)
class Energy:
    """Joules of a piece of work; None where the machine does not tell, and `reason` says why.

    `of` names what was measured ("package-0", "dram", "cuda:0"). It is all that these parts used meanwhile, whoever
    made them: idle power and other processes count in.
    """

    joules: float | None
    of: tuple[str, ...] = ()
    reason: str | None = None


class _Untold(Exception):
    """The machine does not tell, for this reason."""


def measured_energy(call: Callable[[], Any], powercap: Path = POWERCAP, nvidia_smi: str = "nvidia-smi") -> Energy:
    """The energy while `call` ran: the processor's and, where torch has used one before, the current CUDA device's.

    All that is in use must tell, or joules is None; `call` runs once in any case. It should take seconds: power is
    sampled ten times a second. A RAPL counter may wrap around once, which takes it a quarter of an hour at 300 W.
    """
    device = torch.cuda.current_device() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    meters: list[_Processor | _Device] = []
    reason = None
    try:
        # The processor's comes last: the device's takes a moment to start.
        meters += [_Device(nvidia_smi, device)] if device is not None else []
        meters.append(_Processor(powercap))
    except _Untold as untold:
        reason = str(untold)
    used: list[tuple[str, float]] = []
    try:
        try:
            call()
            if device is not None:
                torch.cuda.synchronize()
        finally:
            for meter in meters:
                meter.stop()
        used = [part for meter in meters for part in meter.joules()]
    except _Untold as untold:
        reason = str(untold)
    if reason is not None:
        return Energy(None, reason=reason)
    return Energy(sum(joules for _, joules in used), tuple(name for name, _ in used))


class _Processor:
    """The RAPL counters of all packages and of memory, which is beside a package and not in it.

    Cores and graphics are parts of their package, and psys counts the packages again: these are left out.
    """

    def __init__(self, powercap: Path):
        zones = sorted(powercap.glob("intel-rapl:*")) if powercap.is_dir() else []
        self._zones = {zone: name for zone in zones if (name := _read(zone / "name")).startswith(("package", "dram"))}
        if not self._zones:
            raise _Untold(f"there is no RAPL counter in {powercap}: another system, processor, or a virtual machine")
        self._start = {zone: _counter(zone) for zone in self._zones}

    def stop(self) -> None:
        self._end = {zone: _counter(zone) for zone in self._zones}

    def joules(self) -> list[tuple[str, float]]:
        found = []
        for zone, name in self._zones.items():
            used = self._end[zone] - self._start[zone]
            if used < 0:
                used += int(_read(zone / "max_energy_range_uj")) + 1
            found.append((name, used / 1e6))
        return found


class _Device:
    """The mean power of a CUDA device, times the time."""

    def __init__(self, nvidia_smi: str, device: int):
        self._name = f"cuda:{device}"
        chosen = f"--id=GPU-{torch.cuda.get_device_properties(device).uuid}"
        query = ["--query-gpu=power.draw", "--format=csv,noheader,nounits", f"--loop-ms={_SAMPLE_MS}"]
        try:
            self._process = subprocess.Popen([nvidia_smi, chosen, *query], stdout=subprocess.PIPE, text=True)
        except OSError as error:
            raise _Untold(f"{nvidia_smi} does not run: {error}") from error
        # The first line says that it samples, or that it cannot.
        self._first = self._process.stdout.readline()
        self._begun = time.perf_counter()

    def stop(self) -> None:
        self._seconds = time.perf_counter() - self._begun
        self._process.terminate()
        self._told = self._first + self._process.communicate()[0]

    def joules(self) -> list[tuple[str, float]]:
        # The last line may be cut where sampling was ended.
        complete = self._told[: self._told.rfind("\n") + 1].split("\n")[:-1]
        try:
            watts = [float(line) for line in complete]
        except ValueError:
            watts = []
        if not watts:
            raise _Untold(f"nvidia-smi tells no power of {self._name}: {self._told.strip() or 'it says nothing'}")
        return [(self._name, sum(watts) / len(watts) * self._seconds)]


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except PermissionError as error:
        raise _Untold(f"{file} may not be read: an administrator can allow it (chmod a+r {file})") from error
    except OSError as error:
        raise _Untold(f"{file} cannot be read: {error}") from error


def _counter(zone: Path) -> int:
    return int(_read(zone / "energy_uj"))
