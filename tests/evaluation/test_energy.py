"""Energy: what is added up of the processor's counters, what a device's samples make, and why there is none."""

import re

import pytest
import torch

from colbert_lab.evaluation import energy
from colbert_lab.evaluation.energy import measured_energy


def zone(root, name, told, counter, most=1_000_000_000):
    """A RAPL zone: its name as the kernel has it, its counter in microjoules and where that wraps around."""
    directory = root / name
    directory.mkdir(parents=True)
    (directory / "name").write_text(f"{told}\n")
    (directory / "energy_uj").write_text(f"{counter}\n")
    (directory / "max_energy_range_uj").write_text(f"{most}\n")
    return directory / "energy_uj"


@pytest.fixture
def powercap(tmp_path):
    (tmp_path / "intel-rapl").mkdir()
    return tmp_path


def test_packages_and_memory_are_added_and_their_parts_are_not(powercap):
    counters = {
        name: zone(powercap, name, told, 5_000_000)
        for name, told in {
            "intel-rapl:0": "package-0",
            "intel-rapl:0:0": "core",
            "intel-rapl:0:1": "dram",
            "intel-rapl:1": "package-1",
            "intel-rapl:2": "psys",
        }.items()
    }

    def work():
        for number, counter in enumerate(counters.values(), 1):
            counter.write_text(str(5_000_000 + number * 1_000_000))

    found = measured_energy(work, powercap)
    # package-0 used 1 J, its dram 3 J, package-1 4 J.
    assert found.joules == pytest.approx(8)
    assert found.of == ("package-0", "dram", "package-1")
    assert found.reason is None


def test_a_counter_that_wraps_around(powercap):
    counter = zone(powercap, "intel-rapl:0", "package-0", 999_000, most=999_999)
    # 999 steps to 999,999, one more to 0, then 500,000: 501,000 µJ.
    assert measured_energy(lambda: counter.write_text("500000"), powercap).joules == pytest.approx(0.501)


def test_without_counters_the_work_is_done_and_the_reason_told(tmp_path):
    done = []
    found = measured_energy(lambda: done.append(1), tmp_path / "none")
    assert (done, found.joules) == ([1], None)
    assert "no RAPL counter" in found.reason


def test_a_counter_that_may_not_be_read(powercap, monkeypatch):
    counter = zone(powercap, "intel-rapl:0", "package-0", 1)
    read = type(counter).read_text

    def refuse(file, *args, **kwargs):
        if file == counter:
            raise PermissionError(13, "Permission denied")
        return read(file, *args, **kwargs)

    monkeypatch.setattr(type(counter), "read_text", refuse)
    found = measured_energy(lambda: None, powercap)
    assert found.joules is None
    assert f"chmod a+r {counter}" in found.reason


def test_an_error_in_the_work_is_the_callers(powercap):
    zone(powercap, "intel-rapl:0", "package-0", 1)
    with pytest.raises(ZeroDivisionError):
        measured_energy(lambda: 1 / 0, powercap)


class Device:
    uuid = "0-1"


@pytest.fixture
def cuda(monkeypatch):
    """A device that torch has used."""
    for name, value in {
        "is_available": True,
        "is_initialized": True,
        "current_device": 0,
        "get_device_properties": Device,
        "synchronize": None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)


def tool(tmp_path, lines):
    """What stands in for nvidia-smi: prints lines and goes on until it is ended."""
    script = tmp_path / "smi"
    script.write_text(f"#!/bin/sh\nprintf '{lines}'\nexec sleep 30\n")
    script.chmod(0o755)
    return str(script)


def test_a_device_counts_its_mean_power_over_the_time(powercap, cuda, monkeypatch, tmp_path):
    counter = zone(powercap, "intel-rapl:0", "package-0", 0)
    readings = iter([10.0, 12.0])
    monkeypatch.setattr(energy.time, "perf_counter", lambda: next(readings))
    # 100 W and 300 W for 2 s; the line that was cut counts nothing.
    found = measured_energy(lambda: counter.write_text("5000000"), powercap, tool(tmp_path, r"100.0\n300.0\n9"))
    assert found.of == ("cuda:0", "package-0")
    assert found.joules == pytest.approx(400 + 5)


@pytest.mark.parametrize(("lines", "said"), [(r"[N/A]\n", "tells no power of cuda:0: .N/A."), (None, "does not run")])
def test_a_device_that_does_not_tell(powercap, cuda, tmp_path, lines, said):
    zone(powercap, "intel-rapl:0", "package-0", 0)
    found = measured_energy(lambda: None, powercap, tool(tmp_path, lines) if lines else "/no/such/tool")
    assert found.joules is None
    assert found.of == ()

    assert re.search(said, found.reason)
