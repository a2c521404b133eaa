"""fidelity: the grid and its mistakes, what is measured and found again, and the plot that shows it."""

import itertools
import json

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from colbert_lab.artifact import Artifact
from colbert_lab.errors import ConfigError
from colbert_lab.ragged import Ragged
from colbert_lab.report.pareto import Point, draw, pareto_plot
from colbert_lab.run import Run, read_trec
from colbert_lab.stages import fidelity as stage
from colbert_lab.stages.fidelity_grid import probe_of, settings
from colbert_lab.stages.launch import conf_dir

SMALL_GRID = ("~grid.residual", "grid.ivfpq.probes=[1,2]", "fidelity.depths=[5,20]", "fidelity.quality=overlap_20")


def rows(artifact: Artifact) -> dict[str, dict]:
    told = json.loads((artifact.path / "fidelity.json").read_text())
    return {row["setting"]["label"]: row for row in told["settings"]}


@pytest.fixture(scope="module")
def model(lab) -> Artifact:
    return lab("init").artifact


@pytest.fixture(scope="module")
def outcome(lab, model):
    return lab("fidelity", f"model={model.path}", *SMALL_GRID)


def test_every_combination_is_a_setting_and_probes_share_an_index():
    grid = {"ivfpq": {"subvectors": [4, 8], "pooling": {"factor": [1, 2]}, "probes": [None, 4], "hits": 7}}
    found = settings(grid, conf_dir())
    assert len(found) == 2 * 2 * 2
    assert found[1].label == "ivfpq subvectors=4 pooling.factor=1 probes=4 hits=7"
    assert [one.short for one in found[:2]] == ["auto/7", "4/7"]
    assert found[-1].index["subvectors"] == 8
    assert found[-1].index["sample"] == 64
    assert found[-1].sections == {"pooling.factor": 2}
    assert (probe_of(found[-1]).probes, probe_of(found[-1]).hits) == (4, 7)
    together = [series for series, _ in itertools.groupby(one.series for one in found)]
    assert len(together) == len(set(together)) == 4
    (plain,) = settings({"exact": {}}, conf_dir())
    assert (plain.label, plain.short, probe_of(plain)) == ("exact", "", None)


def test_all_mistakes_of_a_grid_are_told_at_once():
    grid = {
        "ivfqp": {},
        "exact": {"dtype": [], "probes": [1]},
        "bm25": {"k1": [1.2]},
        "ivfpq": {"probes": ["many"], "sample": [64, 1]},
    }
    with pytest.raises(ConfigError) as caught:
        settings(grid, conf_dir())
    told = "\n".join(caught.value.problems)
    for part in (
        "did you mean 'ivfpq'?",
        "grid.exact.dtype has no value",
        "grid.exact.probes: neither the index nor its search has it",
        "holds texts",
        "probes=many must be a whole number",
        "sample=1 must be at least 39",
    ):
        assert part in told


def test_the_twin_is_exact_and_the_others_are_measured_against_it(lab, outcome):
    found = rows(outcome.artifact)
    assert set(found) == {"exact dtype=fp32", "exact dtype=fp16", "ivfpq probes=1", "ivfpq probes=2"}
    twin = found["exact dtype=fp32"]
    assert twin["figures"]["overlap_5"] == twin["figures"]["overlap_20"] == 1.0
    assert (twin["error"]["max"], twin["tests"]) == (0.0, {})
    # Vectors of 16 dimensions: twice the bytes of fp16, and half a percent of other files.
    assert 0 < found["exact dtype=fp16"]["error"]["max"] < 0.02
    assert found["exact dtype=fp16"]["index"]["bytes_per_vector"] >= 32
    assert twin["index"]["bytes_per_vector"] - found["exact dtype=fp16"]["index"]["bytes_per_vector"] == pytest.approx(
        32, abs=0.1
    )
    for label in set(found) - {"exact dtype=fp32"}:
        test = found[label]["tests"]["ndcg_10"]
        gained = found[label]["figures"]["ndcg_10"] - twin["figures"]["ndcg_10"]
        assert test["mean_difference"] == pytest.approx(gained)
        assert test["p"] <= test["holm"] <= 1
        assert {"p50", "p95"} <= found[label]["latency"]["with_encoding"].keys()
    assert found["ivfpq probes=2"]["resolved"]["probes"] == 2
    assert len(list((lab.root / "indexes").glob("*ivfpq*"))) == 1


def test_its_ndcg_is_that_of_the_other_verbs(lab, model, outcome):
    index = lab("index", f"model={model.path}", "index.dtype=fp32", "encode.precision=fp32").artifact
    found = lab("search", f"index_dir={index.path}", "search.k=20", "encode.precision=fp32").artifact
    metrics = lab("evaluate", f"run={found.path}", "evaluate.metrics=[ndcg_10,mrr_10]").artifact
    (system,) = json.loads((metrics.path / "metrics.json").read_text())["systems"].values()
    figures = rows(outcome.artifact)["exact dtype=fp32"]["figures"]
    assert {name: figures[name] for name in system["means"]} == system["means"]


def test_the_table_has_the_best_first_and_marks_the_front(outcome):
    told = json.loads((outcome.artifact.path / "fidelity.json").read_text())["settings"]
    qualities = [row["figures"]["overlap_20"] for row in told]
    assert qualities == sorted(qualities, reverse=True)
    text = (outcome.artifact.path / "table.txt").read_text()
    assert outcome.text.startswith(text)
    lines = text.splitlines()
    assert lines[0] == "toy0 test, 10 queries, k = 20"
    for line, row in zip(lines[4:], told, strict=False):
        marks = line.removeprefix(row["setting"]["label"]).split()[0]
        front = row["front"]
        assert marks == ("t" * front["latency"] + "b" * front["bytes"] or f"{row['figures']['overlap_5']:.4f}")
    assert any(row["front"]["bytes"] for row in told)
    for cost in ("latency", "bytes"):
        assert "exact dtype=fp16" in (outcome.artifact.path / f"overlap_20-{cost}.svg").read_text()


class Killed(BaseException):
    """Ends a stage as a signal would."""


def test_what_was_measured_is_not_measured_again(fresh_lab, model, monkeypatch):
    measured, real = [], stage._measure

    def counted(cfg, setting, *others):
        if len(measured) == 2:
            raise Killed
        measured.append(setting.label)
        return real(cfg, setting, *others)

    monkeypatch.setattr(stage, "_measure", counted)
    few = (f"model={model.path}", "~grid.ivfpq", "~grid.residual", "grid.exact.dtype=[fp16,bf16]")
    with pytest.raises(Killed):
        fresh_lab("fidelity", *few)
    assert measured == ["exact dtype=fp32", "exact dtype=fp16"]
    measured.clear()
    first = fresh_lab("fidelity", *few).artifact
    assert measured == ["exact dtype=bf16"]
    assert fresh_lab("fidelity", *few, "fidelity.quality=ndcg_10").artifact != first
    assert fresh_lab("fidelity", *few).artifact == first
    assert measured == ["exact dtype=bf16"]


class Losing:
    """The index it wraps, whose second stage loses each query's best document."""

    def __init__(self, index):
        self._index = index

    def __getattr__(self, name):
        return getattr(self._index, name)

    def search(self, query_ids, queries, k, only=None, probe=None):
        found = self._index.search(query_ids, queries, k + 1, only=only, probe=probe)
        if only is not None:
            return found
        return Run({query: hits.without({hits.ids[0]}).cut(k) for query, hits in found.items()}, k)

    def stages(self, query, k, *, probe=None):
        every = self._index.ids
        best = self._index.search(["q"], Ragged.from_list([query]), len(every))["q"].ids
        return {"probe": every, "approximation": best[1:], "found": best[1 : k + 1]}


def test_a_given_index_has_the_twin_of_its_own_vectors_and_its_stages_are_told(lab, model, monkeypatch):
    index = lab("index", f"model={model.path}", "encode.precision=fp32", "pooling.factor=2").artifact
    real = stage.open_index
    pooled = index.manifest["counts"]["vectors"]
    assert pooled < index.manifest["counts"]["encoded_vectors"]
    monkeypatch.setattr(stage, "open_index", lambda a: Losing(real(a)) if a.digest == index.digest else real(a))
    few = ("fidelity.depths=[5,20]", "fidelity.quality=overlap_5")
    found = rows(lab("fidelity", "!all", *given(lab), f"index_dir={index.path}", *few).artifact)
    assert set(found) == {"exact dtype=fp32", "exact pooling.factor=2"}
    row, twin = found["exact pooling.factor=2"], found["exact dtype=fp32"]
    assert twin["index"]["vectors"] == index.manifest["counts"]["encoded_vectors"]
    assert row["index"]["vectors"] == pooled
    assert row["index"]["bytes_per_vector"] == row["index"]["bytes"] / twin["index"]["vectors"]
    assert list(row["stages"]) == ["probe", "approximation", "found"]
    assert row["stages"]["probe"] == {"5": 1.0, "20": 1.0}
    assert row["stages"]["approximation"]["5"] < 1
    assert row["stages"]["found"] == {"5": row["figures"]["overlap_5"], "20": row["figures"]["overlap_20"]}
    assert twin["stages"] == {}


def given(lab) -> list[str]:
    """The small settings without data, which a given index brings."""
    return [one for one in lab.arguments("fidelity") if not one.startswith("data")]


def test_what_cannot_be_measured_is_refused_before_anything_is_made(fresh_lab):
    with pytest.raises(ConfigError) as caught:
        fresh_lab("fidelity", "fidelity.depths=[0]", "fidelity.quality=recall_7", "fidelity.timed=0")
    assert len(caught.value.problems) == 4
    assert "model=<directory" in str(caught.value)
    with pytest.raises(ConfigError, match="neither the index nor its search"):
        fresh_lab("fidelity", "model=somewhere", "+grid.exact.cells=[1]")
    assert not fresh_lab.root.exists()


def test_the_plot_labels_the_front_and_covers_nothing(tmp_path):
    points = [
        Point(f"residual bits={bits}", f"{cells}/{many}", 2 + cells + many / 300 + bits / 9, quality, cells < 4)
        for bits, top in ((1, 0.85), (2, 0.93), (4, 0.98))
        for cells, many in itertools.product((1, 2, 4), (256, 1024))
        for quality in [top - 0.2 / cells - 20 / many]
    ] + [Point("exact", "", 70.0, 1.0, True)]
    figure = Figure(figsize=(8.6, 5.2))
    renderer = FigureCanvasAgg(figure).get_renderer()
    draw(figure, points, "title", "ms", "overlap@100", "residual: cells/candidates")
    (axes,) = figure.axes
    labels = [text for text in axes.texts if text.get_text() not in ("overlap@100", "residual: cells/candidates")]
    # Four names, and the twelve settings on the front; the best of no residual series is among them.
    assert len(labels) == 4 + 12
    for text in labels:
        text.update_positions(renderer)
    # An annotation's own extent takes in its leader line, which may pass a label.
    boxes = [Text.get_window_extent(text, renderer) for text in labels]
    assert [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])] == []
    dots = axes.transData.transform([(p.cost, p.quality) for p in points])
    assert [dot for dot in dots for box in boxes if box.contains(*dot)] == []
    for name in ("one.svg", "two.svg"):
        pareto_plot(tmp_path / name, points, "title", "ms", "overlap@100")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert "residual bits=4" in (tmp_path / "one.svg").read_text()
    with pytest.raises(ValueError, match="must be positive"):
        pareto_plot(tmp_path / "three.svg", [Point("exact", "", 0.0, 1.0, True)], "", "", "")


def test_a_given_index_that_lacks_documents_is_held_against_exact_search_of_those_it_has(fresh_lab, model, tmp_path):
    whole = fresh_lab("index", f"model={model.path}", "encode.precision=fp32").artifact
    found = read_trec(fresh_lab("search", f"index_dir={whole.path}").artifact.path / "run.trec.gz")
    best = sorted({hits.ids[0] for hits in found.values()})
    (tmp_path / "delete").write_text("\n".join(best))
    index = fresh_lab("update", f"index_dir={whole.path}", f"delete={tmp_path / 'delete'}").artifact
    few = ("fidelity.depths=[5,20]", "fidelity.quality=overlap_5")
    of_whole, of_less = (
        rows(fresh_lab("fidelity", "!all", *given(fresh_lab), f"index_dir={one.path}", *few).artifact)
        for one in (whole, index)
    )
    assert of_less["exact dtype=fp32"]["figures"]["overlap_20"] == 1.0
    assert of_less["exact"]["figures"]["overlap_20"] > 0.9
    # Every query's best is gone, for the twin as well.
    assert of_less["exact dtype=fp32"]["figures"] != of_whole["exact dtype=fp32"]["figures"]
    twins = [told["exact dtype=fp32"]["index"] for told in (of_whole, of_less)]
    assert twins[0]["bytes_per_vector"] < twins[1]["bytes_per_vector"]
