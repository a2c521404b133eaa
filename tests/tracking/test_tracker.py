"""The tracker: always the local log, a sink that may fail, an end that is always told."""

import logging
import math
import signal

import pytest

from colbert_lab.errors import ConfigError, DataError, LabError
from colbert_lab.tracking.log import told_segments
from colbert_lab.tracking.read import histograms, history, read_metrics, state, summary
from colbert_lab.tracking.sigterm import exit_on_sigterm
from colbert_lab.tracking.tracker import RunIdentity, Tracker

METHODS = ["open", "log", "summary", "derived", "table", "histogram", "artifact", "close"]


class Recorder:
    """A sink that notes its calls and fails in some of them."""

    online = True

    def __init__(self, failing=(), required=False):
        self.required = required
        self.failing = failing
        self.calls = []

    def __getattr__(self, name):
        if name not in (*METHODS, "alert"):
            raise AttributeError(name)

        def call(*arguments):
            self.calls.append((name, arguments))
            if name in self.failing:
                raise RuntimeError(f"{name} is down")

        return call

    def names(self):
        return [name for name, _ in self.calls]


def whole_run(directory, sink):
    with Tracker.start(directory / "log", RunIdentity(name="n"), {"seed": 0}, ["seed=0"], sink) as tracker:
        tracker.log({"train/loss": 1.0}, 1)
        tracker.derived({"parameters": 3})
        tracker.summary({"objective": 0.5})
        tracker.table("eval/per_query", [{"id": "q"}], by="ndcg_10")
        tracker.histogram("train/positive_scores", [0.5, 1.0], 1)
        tracker.artifact("m", "model", directory, "0" * 64)
        tracker.resumed(0)
        tracker.log({"train/loss": 0.5}, 1)


def test_a_sink_hears_everything_in_order(tmp_path):
    sink = Recorder()
    whole_run(tmp_path, sink)
    told = ["open", "log", "derived", "summary", "table", "histogram", "artifact", "log", "close"]
    assert sink.names() == told
    directory, identity, config = sink.calls[0][1]
    assert directory == tmp_path / "log"
    assert len(identity.id) == 8
    assert config["seed"] == 0
    assert config["derived"]["code"]["python"]
    assert sink.calls[-1][1] == (0,)


def test_the_identity_stays_with_the_directory(tmp_path):
    first, second = Recorder(), Recorder()
    whole_run(tmp_path, first)
    whole_run(tmp_path, second)
    assert first.calls[0][1][1] == second.calls[0][1][1]
    assert second.calls[0][1][2]["derived"]["parameters"] == 3


@pytest.mark.parametrize("failing", [METHODS, *([method] for method in METHODS)], ids=lambda f: "+".join(f))
def test_a_failing_sink_never_stops_the_run_and_is_told_once(tmp_path, caplog, failing):
    sink = Recorder(failing)
    with caplog.at_level(logging.WARNING):
        whole_run(tmp_path, sink)
    assert len(caplog.records) == 1
    assert "failed (RuntimeError" in caplog.text
    assert history(tmp_path / "log") == {"train/loss": [(1, 0.5)]}
    assert summary(tmp_path / "log") == {"objective": 0.5}
    assert state(tmp_path / "log")["state"] == "finished"
    first = next(i for i, name in enumerate(sink.names()) if name in failing)
    assert set(sink.names()[first + 1 :]) <= {"close"}, "a sink that failed is only closed"
    assert "close" in sink.names()


def test_a_required_sink_stops_the_run(tmp_path):
    with pytest.raises(ConfigError, match=r"tracking\.sink\.required=false"):
        whole_run(tmp_path / "a", Recorder(["open"], required=True))
    assert state(tmp_path / "a" / "log")["state"] == "failed"
    with pytest.raises(LabError, match="summary is down"):
        whole_run(tmp_path / "b", Recorder(["summary"], required=True))
    assert state(tmp_path / "b" / "log")["exit_code"] == 1
    with pytest.raises(LabError, match="close is down"):
        whole_run(tmp_path / "c", Recorder(["close"], required=True))


@pytest.mark.parametrize(
    ("error", "expected", "code"),
    [
        (ZeroDivisionError("x"), "failed", 1),
        (DataError("line 3"), "failed", 1),
        (KeyboardInterrupt(), "preempted", 130),
        (SystemExit(143), "preempted", 143),
        (SystemExit(), "preempted", 143),
        (SystemExit("bye"), "preempted", 1),
    ],
    ids=repr,
)
def test_how_a_run_ended(tmp_path, error, expected, code):
    sink = Recorder(required=True, failing=["close"])
    with pytest.raises(type(error)), Tracker.start(tmp_path, RunIdentity(), {}, [], sink):
        raise error
    found = state(tmp_path)
    assert (found["state"], found["exit_code"]) == (expected, code)
    assert found["ended"] >= found["started"]
    assert sink.calls[-1] == ("close", (code,))
    if isinstance(error, ZeroDivisionError):
        assert "Traceback" in found["error"]
    elif expected == "failed":
        assert found["error"] == "line 3"


@pytest.mark.parametrize("down", [[], ["alert"]])
def test_a_failure_calls_a_person(tmp_path, down):
    sink = Recorder(down, required=True)
    with pytest.raises(DataError), Tracker.start(tmp_path, RunIdentity(), {}, [], sink):
        raise DataError("line 3")
    assert sink.calls[1:] == [("alert", ("run failed", "line 3")), ("close", (1,))]
    events = [line for line in (tmp_path / "metrics.jsonl").read_text().splitlines() if '"alert"' in line]
    assert len(events) == 1
    assert "line 3" in events[0]
    assert told_segments(tmp_path) == (0 if down else 1)


def test_online_is_noted_only_of_what_was_told_to_the_end(tmp_path):
    whole_run(tmp_path, Recorder())
    assert told_segments(tmp_path / "log") == 1
    whole_run(tmp_path, Recorder(["table"]))
    whole_run(tmp_path, Recorder(["close"]))
    offline = Recorder()
    offline.online = False
    whole_run(tmp_path, offline)
    assert told_segments(tmp_path / "log") == 1
    assert len(state(tmp_path / "log")["segments"]) == 4


def test_histograms_come_back(tmp_path):
    with Tracker.start(tmp_path, RunIdentity(), {}, []) as tracker:
        tracker.histogram("train/scores", [0.0, 1.0, 4.0, math.nan, -7.0, 9.0], 3, edges=[0, 2, 4])
        tracker.histogram("train/scores", [1.0], 5)
        tracker.histogram("train/scores", [math.inf], 6)
        tracker.resumed(4)
        tracker.histogram("train/scores", [2.0, 3.0], 5)
        with pytest.raises(ValueError, match="metric name"):
            tracker.histogram("train/p@1", [1.0], 0)
    first, second = histograms(tmp_path)["train/scores"]
    # 0 and 1 and, nearest, -7; the last edge, 4, belongs to the last bin, and 9 is nearest to it.
    assert first == (3, [3, 2], [0, 2, 4], "trainer/step")
    assert (second.step, sum(second.counts), second.edges[0], second.edges[-1]) == (5, 2, 2.0, 3.0)
    assert history(tmp_path) == {}


def test_finished_once(tmp_path):
    sink = Recorder()
    with Tracker.start(tmp_path, RunIdentity(), {}, [], sink) as tracker:
        tracker.finish("failed", 3, "stopped early")
    assert state(tmp_path)["exit_code"] == 3
    assert sink.names().count("close") == 1


def test_interrupted_while_the_sink_opens(tmp_path):
    class Slow(Recorder):
        def open(self, *arguments):
            raise SystemExit(143)

    with pytest.raises(SystemExit):
        Tracker.start(tmp_path, RunIdentity(), {}, [], Slow())
    assert state(tmp_path)["state"] == "preempted"


def test_names_are_checked_with_and_without_a_log(tmp_path):
    for tracker in (Tracker.silent(), Tracker.start(tmp_path, RunIdentity(), {}, [])):
        with tracker:
            for wrong in (
                lambda t: t.log({"val/ndcg@10": 1.0}, 0),
                lambda t: t.log({"a": 1.0}, 0, axis="my axis"),
                lambda t: t.summary({"val/p 50": 1.0}),
                lambda t: t.table("per query", []),
            ):
                with pytest.raises(ValueError, match="metric name"):
                    wrong(tracker)
    assert read_metrics(tmp_path) == []


def test_a_silent_tracker_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Tracker.silent() as tracker:
        tracker.log({"train/loss": 1.0}, 1)
        tracker.derived({"parameters": 3})
        tracker.summary({"objective": 0.5})
        tracker.table("per_query", [])
        tracker.artifact("m", "model", tmp_path, "0" * 64)
        tracker.resumed(0)
    assert list(tmp_path.iterdir()) == []


def test_sigterm_is_an_exit(tmp_path):
    before = signal.getsignal(signal.SIGTERM)

    def preempted():
        with exit_on_sigterm(), Tracker.start(tmp_path, RunIdentity(), {}, []):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit) as caught:
        preempted()
    assert caught.value.code == 143
    assert state(tmp_path)["state"] == "preempted"
    assert signal.getsignal(signal.SIGTERM) == before
