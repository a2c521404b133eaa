"""Work shared by processes: results in the order of the tasks, errors as raised, no more ahead than needed."""

import os
import signal
import time
from multiprocessing.connection import Connection

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


def echo():
    return bytes


class Odd(Exception):
    """What pickles, but not back."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def half(connection, content, *_):
    """Send a part of a message, and be killed."""
    os.write(connection.fileno(), content[:3])
    os.kill(os.getpid(), signal.SIGKILL)


def breaking(how):
    if how == "make":
        raise ConfigError("there is no such model")

    def work(number):
        if number == 2:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "half":
                Connection._send = half
                return number
            if how == "odd":
                raise Odd("one", "two")
            raise ConfigError(["this", "that"], "number 2")
        if how == "slow" and number:
            time.sleep(600)
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
    [
        ("raise", "2 problems in number 2\n  this\n  that"),
        ("make", "1 problem in the configuration\n  there is no such model"),
        ("kill", "one of the 2 processes that share the work was killed"),
        ("half", "one of the 2 processes that share the work was killed"),
    ],
)
def test_what_breaks_is_told(how, told):
    with pytest.raises(LabError) as caught:
        list(in_order(2, breaking, (how,), range(20)))
    assert str(caught.value).startswith(told)


def test_an_error_that_does_not_pickle_back_is_told_all_the_same():
    with pytest.raises(RuntimeError, match=r"(?s)in work.*Odd: one and two"):
        list(in_order(2, breaking, ("odd",), range(20)))


def test_what_is_left_early_is_ended_at_once():
    found = in_order(2, breaking, ("slow",), range(20))
    assert next(found) == 0
    start = time.monotonic()
    found.close()
    assert time.monotonic() - start < 60, "nobody waited for tasks that sleep"


def test_a_task_and_its_result_may_be_large():
    """Larger than what a pipe holds, both ways at once."""
    tasks = [bytes([number]) * 2**21 for number in range(9)]
    assert list(in_order(2, echo, (), tasks)) == tasks


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
