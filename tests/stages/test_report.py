"""report, runs, show: what logs and artifacts hold is told whole, without a model, and a browser finds it well."""

import fcntl
import json
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import Browser
from omegaconf import OmegaConf
from report_toys import write_comparison, write_fidelity, write_rounds, write_run, write_suite, write_sweep

from colbert_lab.errors import ArtifactError, ConfigError, DataError
from colbert_lab.report import sections_sweep
from colbert_lab.stages import report, runs, show
from colbert_lab.stages.launch import launch
from colbert_lab.stages.local_runs import command_of, find, lineage, record
from colbert_lab.stages.report import findings, report_of

REPOSITORY = Path(__file__).resolve().parent.parent.parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


class Headings(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.found, self._in = [], False
        self.feed(text)

    def handle_starttag(self, name, attributes):
        self._in = name == "h2"

    def handle_data(self, data):
        if self._in:
            self.found.append(data)
            self._in = False


def headings(file: Path) -> set[str]:
    return set(Headings(file.read_text(encoding="utf-8")).found)


COMMON = {"Runs", "Environment", "Commands to reproduce"}


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (write_rounds, {"Results", "By round", "Curves by step", "Score distributions"}),
        (write_fidelity, {"Indexes against exact MaxSim"}),
        (write_comparison, {"Results", "Quality and cost", "Query by query", "Guards"}),
        (write_sweep, {"Sweep", "Curves by step", "Score distributions", "Configuration", "What failed"}),
    ],
)
def test_each_kind_of_thing_has_its_sections_and_no_others(tmp_path, write, expected):
    place = write(tmp_path / "outputs")
    assert headings(report_of([place], tmp_path / "page.html", "title")) == expected | COMMON


def test_everything_below_a_root_is_told_and_equal_places_give_equal_bytes(tmp_path):
    for write in (write_rounds, write_fidelity, write_comparison, write_sweep):
        write(tmp_path / "outputs")
    (tmp_path / "outputs" / "reports").mkdir()
    one = report_of([tmp_path / "outputs"], tmp_path / "a.html", "t").read_bytes()
    again = report_of([tmp_path / "outputs", tmp_path / "outputs" / "rounds"], tmp_path / "b" / "b.html", "t")
    assert one == again.read_bytes()
    assert str(tmp_path) not in one.decode()


def test_an_artifact_brings_what_it_was_made_of(tmp_path):
    rounds = write_rounds(tmp_path)
    assert {place.name.rpartition("-")[0] for place in lineage(find([rounds]).runs)} == {
        "toy-rounds",
        "toy-test-rounds",
        "toy-s0",
    }


def test_what_was_moved_is_found_beside_what_was_made_of_it(tmp_path):
    rounds = write_rounds(tmp_path / "before")
    (tmp_path / "before").rename(tmp_path / "after")
    assert len(lineage([tmp_path / "after" / "rounds" / rounds.name])) == 3


def test_what_failed_is_told_with_its_error(tmp_path):
    error = "TrainingError: <the loss> became nan"
    write_run(tmp_path, "model", "bad", 1, state="failed", error=error)
    found = report_of([tmp_path], tmp_path / "page.html", "t").read_text()
    assert "&lt;the loss&gt; became nan" in found
    assert "Something failed" in found


def test_a_run_that_was_killed_is_no_longer_running(tmp_path):
    """Its log says running for ever: no process is left that could say anything else."""
    place = write_run(tmp_path, "model", "mine", 1, state="running")
    page = tmp_path / "page.html"

    def told() -> tuple[str, str, str]:
        return show.told(place, 100), listed(tmp_path), report_of([tmp_path], page, "t").read_text()

    with place.with_name(f".{place.name.removesuffix('.partial')}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        shown, table, html = told()
        assert "\nrunning, " in shown
        assert " running " in table
        assert "What failed" not in headings(page)
        assert "not finished" not in html
    # The lock's file stays where its holder could not remove it.
    shown, table, html = told()
    assert "\nkilled, " in shown
    assert "out of memory" in shown[shown.index("\nfailed\n") :]
    assert " killed " in table
    assert "What failed" in headings(page)
    assert "1, 1 of them not finished" in html


def test_a_log_that_is_broken_spoils_its_own_run_alone(tmp_path):
    good = write_run(
        tmp_path, "model", "good", 1, lines=[{"axis": "trainer/step", "step": i, "train/loss": i} for i in (1, 2)]
    )
    bad = write_run(tmp_path, "model", "bad", 2)
    (bad / "log" / "metrics.jsonl").write_text('{"broken\n{"axis": "a", "step": 1}\n')
    assert record(good).problem is None
    assert "metrics.jsonl:1" in record(bad).problem
    assert "metrics.jsonl:1" in report_of([tmp_path], tmp_path / "page.html", "t").read_text()


def test_values_that_are_no_numbers_are_left_out_and_counted(tmp_path):
    values = [1.0, float("nan"), 2.0, float("inf"), 3.0]
    lines = [{"axis": "trainer/step", "step": i, "train/loss": value} for i, value in enumerate(values)]
    place = write_run(tmp_path, "model", "m", 1, lines=lines)
    curve = record(place).curves["train/loss"]
    assert (curve.points, curve.skipped) == ([(0, 1.0), (2, 2.0), (4, 3.0)], 2)
    assert "2 values that are no numbers" in report_of([place], tmp_path / "page.html", "t").read_text()


def test_texts_of_documents_and_names_are_text(tmp_path):
    evil = "<script>alert(1)</script>"
    place = write_comparison(tmp_path, text=evil)
    found = report_of([place], tmp_path / "page.html", evil).read_text()
    assert "&lt;script&gt;alert(1)" in found
    assert evil not in found


def test_published_figures_stand_beside_ours_with_what_differs(tmp_path):
    found = report_of([write_comparison(tmp_path)], tmp_path / "page.html", "t").read_text()
    row = found[found.index("colbert [1]") :].partition("</tr>")[0]
    assert all(told in row for told in ("0.6710", "0.6900", "+0.0190", "a pool in place of the corpus"))
    assert "[1] a paper, table 2" in found


def test_a_suite_has_its_table_averages_published_ones_and_its_collections(tmp_path):
    html = report_of([write_suite(tmp_path)], tmp_path / "page.html", "t").read_text()
    assert {"Suites", "Results", "Query by query"} <= headings(tmp_path / "page.html")
    suite = html[html.index('id="suites"') : html.index('id="results"')]
    assert suite.count("0.6900") == 3  # the toy's and the average of colbert, and beside the published mean
    assert all(told in suite for told in ("1 of BEIR-13", "0.4998", "+0.1902", "candidates: all", "Not judged: nq"))
    assert "[1] a paper, table 2" in suite
    assert '<a href="#table-results-0">toy: test, queries 32 ids</a>' in suite
    assert 'id="table-results-0"' in html


def test_queries_are_counted_as_averages_are_over_them(tmp_path):
    """`judged` are those with a positive: those without are counted besides."""
    systems = {"bm25": {"means": {"ndcg_10": 0.5}, "counts": {"judged": 10, "without_positives": 3}}}
    told = {"split": "test", "collection": "toy", "systems": systems, "tests": []}
    (found,) = findings([write_run(tmp_path, "metrics", "m", 1, files={"metrics.json": told})], "t").results
    assert found.queries == 10


def test_a_place_with_nothing_is_refused(tmp_path):
    with pytest.raises(DataError, match="no run and no sweep"):
        report_of([tmp_path], tmp_path / "page.html", "t")
    with pytest.raises(DataError, match="is no directory"):
        report_of([tmp_path / "gone"], tmp_path / "page.html", "t")
    with pytest.raises(ConfigError, match="runs="):
        report.run(OmegaConf.create({"runs": None}))


def test_the_page_is_made_without_torch(tmp_path):
    write_rounds(tmp_path / "outputs")
    code = (
        "import sys; from pathlib import Path; from colbert_lab.stages.report import report_of;"
        f"report_of([Path({str(tmp_path / 'outputs')!r})], Path({str(tmp_path / 'p.html')!r}), 't');"
        "print({'torch', 'transformers', 'wandb', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.strip() == "set()"


def test_a_command_is_told_as_a_person_types_it():
    assert (
        command_of(["/x/experiments/train.py", "loss=kl", "name=a b"])
        == "python experiments/train.py loss=kl 'name=a b'"
    )
    assert command_of(["/x/bin/colbert-lab", "train", "loss=kl"]) == "colbert-lab train loss=kl"
    assert command_of(["/x/bin/pytest", "tests"]) is None


def listed(root: Path, **given) -> str:
    return runs.run(OmegaConf.create({"root": str(root), "kind": None, "match": None, "sort": None, **given}))


def test_runs_are_listed_newest_first_or_best_first_within_the_width(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    for number, value in ((1, 0.5), (2, 0.9), (3, 0.7)):
        write_run(
            tmp_path,
            "model",
            f"toy-{'long-' * number}s{number}",
            number,
            summary={"val/ndcg_10": value, "objective": value},
        )
    write_run(tmp_path, "index", "toy", 4)

    def order(text: str) -> list[str]:
        return [line.split()[0][-2:] for line in text.splitlines()[2:]]

    assert order(listed(tmp_path, kind="model")) == ["s3", "s2", "s1"]
    assert order(listed(tmp_path, sort="ndcg_10")) == ["s2", "s3", "s1", "oy"]
    assert max(map(len, listed(tmp_path).splitlines())) <= 90
    assert order(listed(tmp_path, match="long-long-s2")) == ["s2"]
    with pytest.raises(ConfigError, match="sort=nothing"):
        listed(tmp_path, sort="nothing")
    with pytest.raises(ConfigError, match="kinds that are there: index, model"):
        listed(tmp_path, kind="modle")


def test_one_run_is_shown_with_lineage_changes_numbers_and_curves(tmp_path):
    rounds = write_rounds(tmp_path)
    model = next((tmp_path / "models").iterdir())
    shown = show.run(OmegaConf.create({"of": str(rounds), "root": str(tmp_path)}))
    assert f"pairwise: models/{model.name}" in shown
    shown = show.run(OmegaConf.create({"of": "toy-s0", "root": str(tmp_path)}))
    assert "model toy-s0" in shown
    assert "█" in shown
    assert "python experiments/train.py loss=hinge" in shown
    write_run(tmp_path, "model", "toy-s01", 77, config={"optim": {"lr": 0.5}})
    assert "optim.lr  0.5  (default " in show.run(OmegaConf.create({"of": "toy-s01", "root": str(tmp_path)}))
    with pytest.raises(ConfigError, match="could be any of 2"):
        show.run(OmegaConf.create({"of": "toy-s0", "root": str(tmp_path)}))
    with pytest.raises(ArtifactError, match="is no run"):
        show.run(OmegaConf.create({"of": "nothing", "root": str(tmp_path)}))


def test_a_sparkline_goes_from_the_least_to_the_greatest():
    assert show.sparkline([(i, float(i)) for i in range(8)]) == "▁▂▃▄▅▆▇█"
    assert show.sparkline([(0, 1.0), (1, 1.0)]) == "▁▁"
    assert len(show.sparkline([(i, float(i % 7)) for i in range(1000)])) == 40


def test_the_verbs_run_from_a_command_line(tmp_path, capsys):
    rounds = write_rounds(tmp_path)
    launch("report", [f"runs={rounds}", f"root={tmp_path}"])
    page = tmp_path / "reports" / f"{rounds.name}.html"
    assert capsys.readouterr().out.strip() == f"report: {page}"
    assert page.is_file()
    launch("runs", [f"root={tmp_path}", "kind=rounds"])
    assert "toy-rounds" in capsys.readouterr().out
    launch("show", [str(rounds)])
    assert "rounds toy-rounds" in capsys.readouterr().out


@pytest.fixture(scope="module")
def hundred(tmp_path_factory) -> tuple[Path, float]:
    """The page of a sweep of a hundred runs of 180 lines each, and the seconds that it took to make."""
    root = tmp_path_factory.mktemp("hundred")
    sweep = write_sweep(root, 5, 10, 2, steps=1500)
    start = time.perf_counter()
    return report_of([sweep], root / "page.html", "a hundred runs"), time.perf_counter() - start


def test_a_summary_that_jobs_have_left_behind_is_left_out(tmp_path):
    sweep = write_sweep(tmp_path)
    summary = json.loads((sweep / "sweep.json").read_text())
    for finished, there in ((11, True), (10, False)):
        (sweep / "sweep.json").write_text(json.dumps(summary | {"counts": {"finished": finished, "failed": 1}}))
        html = report_of([sweep], tmp_path / "p.html", "t").read_text()
        assert ("Configurations, best first" in html) == there
        assert ("Jobs have ended since" in html) != there


def test_a_trial_that_was_stopped_is_not_the_best(tmp_path):
    sweep = write_sweep(tmp_path)
    lines = [json.loads(line) for line in (sweep / "jobs.jsonl").read_text().splitlines()]
    lines[0] |= {"state": "pruned", "objective": 0.999, "objective_name": "val/ndcg_10", "figures": {}}
    (sweep / "jobs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = findings([sweep], "t")
    (one,) = found.sweeps
    html = str(sections_sweep.sweeps(found))
    assert "Jobs by their parameters, to dev_ndcg_10" in html
    table = html[html.index("Jobs, best first") :]
    best = max(line["objective"] for line in lines if line["state"] == "finished")
    assert f"{best:.4f}" in table[: table.index("0.9990")]
    assert len(one.jobs) == 12


def test_a_hundred_runs_are_quick_and_small(hundred):
    page, seconds = hundred
    assert page.stat().st_size < 3_000_000
    assert seconds < 20
    assert "thinned to about" in page.read_text()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    with Browser(CHROMIUM, tmp_path_factory.mktemp("profile")) as started:
        yield started


# The texts of one column of a table, of the rows that are seen.
COLUMN = (
    "[...document.querySelectorAll('#table-{0} tbody tr')]"
    ".filter(r => r.offsetParent).map(r => r.cells[{1}].textContent)"
)


def healthy(page) -> None:
    assert page.complaints() == []
    assert [url for url in page.requests() if not url.startswith(("file:", "data:"))] == []
    assert sum(url.startswith("file:") for url in page.requests()) == 1
    assert page.seconds < 3
    assert page.evaluate("[...document.querySelectorAll('svg.chart')].every(s => s.childElementCount > 1)")


@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_every_kind_of_report_whole(tmp_path, browser, width):
    for write in (write_rounds, write_fidelity, write_comparison):
        write(tmp_path / "outputs")
    page = browser.open(report_of([tmp_path / "outputs"], tmp_path / "p.html", "t").as_uri(), width=width)
    healthy(page)
    # 2 by round, 8 curves, 2 histograms, 2 fronts, 3 costs, 3 systems query by query, 2 heat maps.
    assert page.evaluate("document.querySelectorAll('svg.chart').length") == 22
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_tables_sort_and_filter_by_mouse_and_keyboard(tmp_path, browser):
    sweep = write_sweep(tmp_path)
    page = browser.open(report_of([sweep], tmp_path / "p.html", "t").as_uri())
    healthy(page)
    head = "document.querySelectorAll('#table-jobs-0 thead button')"
    values = page.evaluate(COLUMN.format("jobs-0", 3))
    assert values == sorted(values, reverse=True)[1:] + ["–"]
    page.evaluate(f"{head}[3].click()")
    assert page.evaluate(f"{head}[3].parentElement.getAttribute('aria-sort')") == "descending"
    page.evaluate(f"{head}[3].focus()")
    page.press("Enter")
    assert page.evaluate(f"{head}[3].parentElement.getAttribute('aria-sort')") == "ascending"
    # What has no value stays last, whichever way.
    assert page.evaluate(COLUMN.format("jobs-0", 3)) == sorted(values[:-1]) + ["–"]
    typed = (
        "(i => {{ i.value = '{0}'; i.dispatchEvent(new Event('input')) }})(document.getElementById('filter-jobs-0'))"
    )
    page.evaluate(typed.format("softmax optim.lr<0.0001"))
    assert page.evaluate(COLUMN.format("jobs-0", 0)) == ["softmax"] * 4
    assert page.evaluate("document.querySelector('#filter-jobs-0 ~ .count').textContent") == "4 of 12 rows"
    page.evaluate(typed.format("state=failed"))
    assert page.evaluate(COLUMN.format("jobs-0", 6)) == ["failed"]
    page.evaluate(typed.format(""))
    assert len(page.evaluate(COLUMN.format("jobs-0", 0))) == 12


def test_a_filter_knows_columns_by_names_of_several_words(tmp_path, browser):
    """Of the comparison's tests every `p alone` is 0.001; `p` is 0.3 for single vector, 0.002 for the other two."""
    page = browser.open(report_of([write_comparison(tmp_path)], tmp_path / "p.html", "t").as_uri())
    table = page.evaluate("document.querySelector('table[id^=table-tests]').id")

    def kept(text: str) -> list[list[str]]:
        typed = f"(i => {{ i.value = {json.dumps(text)}; i.dispatchEvent(new Event('input')) }})"
        page.evaluate(f"{typed}(document.querySelector('[data-filter={table}]'))")
        rows = f"[...document.querySelectorAll('#{table} tbody tr')].filter(r => !r.hidden)"
        return page.evaluate(f"{rows}.map(r => [r.cells[0].textContent, r.cells[2].textContent])")

    both = [["single vector", "ndcg_10"], ["single vector", "mrr_10"]]
    assert len(kept("p alone<0.05")) == len(kept("P ALONE <= 0.001")) == 6
    assert kept("p alone>0.05") == []
    assert kept("p>0.1") == kept("vector p alone<0.05") == kept("p alone<0.05 p>0.1 single") == both
    assert kept('system="single vector" metric=mrr_10 judged') == []
    assert kept('system="single vector" metric=mrr_10') == both[1:]
    # What names no column is a word like others, and so is a condition that is still being written.
    assert kept("p beside<0.05") == kept("p alone<") == []
    assert page.complaints() == []


def test_axes_are_brushed_runs_followed_lines_smoothed_and_themes_changed(tmp_path, browser):
    sweep = write_sweep(tmp_path)
    page = browser.open(report_of([sweep], tmp_path / "p.html", "t").as_uri())
    lit = "[...document.querySelectorAll('.job')].filter(j => !j.classList.contains('dim')).length"
    assert page.evaluate(lit) == 11
    page.evaluate("document.querySelector('.band[aria-label=\"loss: hinge\"]').focus()")
    page.press("Enter")
    assert page.evaluate(lit) == 6
    assert page.evaluate(COLUMN.format("jobs-0", 0)) == ["hinge"] * 6
    page.evaluate("document.querySelector('.clear').click()")
    assert page.evaluate(lit) == 11
    page.evaluate("document.querySelector('.chip').click()")
    run = page.evaluate("document.querySelector('.chip').dataset.run")
    there = "[...new Set([...document.querySelectorAll('path.line:not(.dim)')].map(l => l.dataset.run))]"
    assert page.evaluate(there) == [run]
    before = page.evaluate("document.querySelector('path.line').getAttribute('d')")
    slide = "(s => {{ s.value = {0}; s.dispatchEvent(new Event('input')) }})(document.getElementById('smoothing'))"
    page.evaluate(slide.format(0.9))
    assert page.evaluate("document.querySelector('path.line').getAttribute('d')") != before
    page.evaluate(slide.format(0))
    assert page.evaluate("document.querySelector('path.line').getAttribute('d')") == before
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    page.evaluate("document.getElementById('theme').click()")
    assert page.evaluate(ground) == "rgb(22, 24, 27)"
    assert page.complaints() == []


def test_each_sweep_is_brushed_by_itself(tmp_path, browser):
    places = [write_sweep(tmp_path / name) for name in ("a", "b")]
    page = browser.open(report_of(places, tmp_path / "p.html", "t").as_uri())
    page.evaluate(
        "document.querySelectorAll('svg.parallel')[1].querySelector('.band[aria-label=\"loss: hinge\"]').focus()"
    )
    page.press("Enter")
    dim = "document.querySelectorAll('#table-jobs-{0} tbody tr.dim').length"
    assert page.evaluate(dim.format(0)) == 0
    assert page.evaluate(dim.format(1)) == 6
    assert page.complaints() == []


def test_a_hundred_runs_open_in_three_seconds(hundred, browser):
    healthy(browser.open(hundred[0].as_uri()))
