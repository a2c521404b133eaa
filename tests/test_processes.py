"""Work shared by processes: results in the order of the tasks, errors as raised, no more ahead than needed."""

import os
import signal

import pytest
import torch

from colbert_lab.errors import ConfigError, LabError
from colbert_lab.processes import gpus_for, in_order


def slow_squares(offset):
    """Squares, the first of them last."""

    def square(number):
        torch.manual_seed(0)
        for _ in range(200 if number == 0 else 1):
            torch.rand(100, 100) @ torch.rand(100, 100)
        return number * number + offset, torch.arange(number), torch.get_num_threads(), os.getpid()

    return square


def breaking(how):
    def work(number):
        if number == 2:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ConfigError(["this", "that"], "number 2")
        return number

    return work


def test_results_come_in_the_order_of_the_tasks_and_few_are_ahead():
    taken = []

    def tasks():
        for number in range(12):
            taken.append(number)
            yield number

    found = in_order(2, slow_squares, (5,), tasks())
    first = next(found)
    assert len(taken) == 5, "two for each of two processes, and the one that is given"
    rest = list(found)
    assert [value for value, *_ in (first, *rest)] == [n * n + 5 for n in range(12)]
    assert all(torch.equal(tensor, torch.arange(n)) for n, (_, tensor, _, _) in enumerate((first, *rest)))
    assert {threads for _, _, threads, _ in rest} == {max(1, torch.get_num_threads() // 2)}
    assert os.getpid() not in {process for *_, process in rest}


@pytest.mark.parametrize(
    ("how", "told"),
    [("raise", "2 problems in number 2\n  this\n  that"), ("kill", "one of the 2 processes that share the work was")],
)
def test_what_breaks_is_told(how, told):
    found = in_order(2, breaking, (how,), range(20))
    with pytest.raises(LabError) as caught:
        list(found)
    assert str(caught.value).startswith(told)


def test_each_process_has_a_gpu_or_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert gpus_for(3) == []
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus_for(2) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, 7")
    assert gpus_for(1) == ["5"]
    with pytest.raises(ConfigError, match=r"3 devices are asked for, but there are 2\n *try: devices=2"):
        gpus_for(3)
