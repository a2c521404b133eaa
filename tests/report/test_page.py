"""The page: whole and well-formed, everything escaped, sections with data alone, drawings true to what they show."""

import random
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from colbert_lab.report.charts import Dot, Series, line_chart, scatter_chart, thinned
from colbert_lab.report.charts_bars import difference_chart, heat_map
from colbert_lab.report.markup import Html, duration, markup, significant, tag
from colbert_lab.report.page import SECTIONS, page
from colbert_lab.report.parallel import parallel_chart
from colbert_lab.report.records import Curve, Findings, RunRecord
from colbert_lab.report.scales import fitted, tick_text

EVIL = "<script>alert(1)</script> & \"quoted\" 'too'"


class Outline(HTMLParser):
    """Collects what is on a page, and what is not closed as it was opened."""

    VOID = frozenset({"meta", "link", "input", "br"})

    def __init__(self, text: str):
        super().__init__()
        self.open, self.wrong, self.ids, self.headings, self.tags = [], [], [], [], []
        self.addresses: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, name, attributes):
        given = dict(attributes)
        self.tags.append(name)
        self.ids += [given["id"]] if "id" in given else []
        self.addresses += [given[key] for key in ("src", "href", "xlink:href") if key in given]
        if name not in self.VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        if not self.open or self.open.pop() != name:
            self.wrong.append(name)

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def run_record(number: int, **given) -> RunRecord:
    points = [(step, 1.0 / (step + number + 1)) for step in range(0, 100, 10)]
    full = {"key": f"r{number}", "label": f"toy-s{number}", "place": f"models/toy-s{number}", "kind": "model"}
    full |= {"state": "finished", "summary": {"objective": 0.5 + number / 100}, "config": {"seed": number, "lr": 0.1}}
    full |= {
        "curves": {"train/loss": Curve("trainer/step", points)},
        "command": f"python experiments/train.py seed={number}",
    }
    return RunRecord(**{**full, **given})


def test_an_element_escapes_what_is_not_markup():
    assert tag("p", "a < b", tag("b", "&"), None, ["x", Html("<i></i>")], class_="n", data_run="r1") == (
        '<p class="n" data-run="r1">a &lt; b<b>&amp;</b>x<i></i></p>'
    )
    assert tag("a", "x", href='"><script>') == '<a href="&quot;&gt;&lt;script&gt;">x</a>'
    assert tag("input", disabled=True, hidden=False, value=None) == "<input disabled>"
    assert markup("<", Html("<b></b>")) == "&lt;<b></b>"


def test_a_page_of_nothing_has_no_section_and_is_whole():
    outline = Outline(page(Findings("nothing")))
    assert (outline.open, outline.wrong, outline.headings) == ([], [], [])


def test_every_text_that_comes_from_outside_is_text():
    run = run_record(0, label=EVIL, place=EVIL, kind=EVIL, error=EVIL, state="failed", notes=EVIL, command=EVIL)
    run = replace(run, config={EVIL: EVIL}, summary={EVIL: 1.0, "objective": 2.0}, environment={EVIL: EVIL})
    run = replace(run, curves={EVIL: Curve(EVIL, [(0, 1.0), (1, 2.0)])}, inputs=[(EVIL, EVIL)])
    found = page(Findings(EVIL, [run, replace(run, key="r1", config={EVIL: "another"})]))
    outline = Outline(found)
    assert "alert(1)" in found
    assert outline.tags.count("script") == 1
    assert (outline.open, outline.wrong) == ([], [])
    assert {"What failed", "Configuration", "Environment", "Runs"} <= set(outline.headings)


def test_the_page_loads_nothing_and_ids_are_its_only_ones():
    found = page(Findings("two", [run_record(0), run_record(1)]))
    outline = Outline(found)
    assert [one for one in outline.addresses if not one.startswith(("#", "data:"))] == []
    assert not re.search(r"https?://|@import|url\(", found)
    assert len(outline.ids) == len(set(outline.ids))
    assert all(one[1:] in outline.ids for one in outline.addresses if one.startswith("#"))


def test_sections_are_those_with_data_in_reading_order():
    outline = Outline(page(Findings("two", [run_record(0), run_record(1)])))
    headings = [heading for _, heading, _ in SECTIONS]
    assert outline.headings == [h for h in headings if h in outline.headings]
    assert set(outline.headings) == {"Curves by step", "Runs", "Configuration", "Commands to reproduce"}


def test_configurations_are_told_whole_with_the_keys_that_differ_apart():
    found = page(Findings("two", [run_record(0), run_record(1)]))
    assert "1 key differs" in found
    assert "1 key that is the same in all runs" in found
    assert "lr: 0.1" in found


def test_a_number_has_the_digits_that_tell():
    assert [significant(v, 3) for v in (0, 0.03124, 12340.0, 3e-5, 1.5)] == ["0", "0.0312", "12,340", "3e-05", "1.5"]
    assert [tick_text(v) for v in (12_000, 3e6, 0.25)] == ["12k", "3M", "0.25"]
    assert [duration(v) for v in (0.5, 48, 720, 12_000)] == ["0.5 s", "48 s", "12 min", "3 h 20 min"]


def test_ticks_are_round_and_within_the_scale():
    assert fitted([0.0, 1.0], 0, 100, room=0).ticks(5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert fitted([1.0, 1000.0], 0, 100, log=True, room=0).ticks(5) == [1, 10, 100, 1000]
    flat = fitted([0.7, 0.7], 0, 100)
    assert flat.low < 0.7 < flat.high
    assert fitted([10.0, 1000.0], 0, 100, log=True, room=0)(100.0) == pytest.approx(50)


def test_a_thinned_line_keeps_its_ends_and_extremes():
    draw = random.Random(0)
    points = [(step, draw.random()) for step in range(1000)]
    points[345], points[678] = (345, 9.0), (678, -9.0)
    kept = thinned(points, 60)
    assert len(kept) <= 61
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert {(345, 9.0), (678, -9.0)} <= set(kept)
    assert [x for x, _ in kept] == sorted(x for x, _ in kept)
    assert thinned(points[:50], 60) == points[:50]


def test_labels_at_the_ends_of_lines_do_not_cover_each_other():
    series = [Series(f"run{i}", [(0, 0.1), (1, 0.5 + i / 1e6)], f"r{i}", i) for i in range(6)]
    drawn = line_chart("loss", series, "step")
    heights = sorted(float(y) for y in re.findall(r'y="([\d.]+)" class="end', drawn))
    assert len(heights) == 6
    assert all(b - a >= 11 for a, b in pairwise(heights))


def test_a_scatter_joins_its_front_alone():
    dots = [Dot(1, 0.5, "a", "a", 0, True), Dot(10, 0.6, "b", "b", 1, True), Dot(5, 0.1, "c", "c", 2)]
    drawn = scatter_chart("q", dots, "ms", "ndcg", log_x=True)
    (path,) = re.findall(r'd="([^"]+)" class="frontline"', drawn)
    assert path.count("L") == 1
    assert drawn.count("<circle") == 3


def test_wins_ties_and_losses_are_counted():
    drawn = difference_chart("x", [("a", 0.2), ("b", 0.0), ("c", -0.1), ("d", 0.1)], "ndcg_10")
    assert ("2 won" in drawn, "1 tied" in drawn, "1 lost" in drawn) == (True, True, True)
    assert drawn.count('class="won"') == 2


def test_of_many_queries_wins_and_losses_are_two_areas():
    """6,000 won, a third of them by 1, 0.5 and 0.25 each, 3,000 lost by 0.5, one of them by 0.9; 1,000 tie."""
    found = [(f"w{i}", (1.0, 0.5, 0.25)[i % 3]) for i in range(6000)] + [(f"l{i}", -0.5) for i in range(3000)]
    found = [*found, ("bad", -0.9), *((f"t{i}", 0.0) for i in range(1000))]
    drawn = difference_chart("x", found, "ndcg_10")
    assert len(drawn) < 15_000
    assert ("6,000 won" in drawn, "1,000 tied" in drawn, "3,001 lost" in drawn) == (True, True, True)
    assert "A step is the mean of about 30 queries" in drawn
    won, lost = (re.search(rf'd="([^"]+)" class="{side}"', drawn)[1] for side in ("won", "lost"))
    base = float(re.match(r"M[\d.]+,([\d.]+)V", won)[1])

    def area(path: str) -> float:
        # From the left edge on, each "V y H x" is a step as high as base - y up to x.
        x, total = float(re.match(r"M([\d.]+)", path)[1]), 0.0
        for y, right in re.findall(r"V([\d.]+)H([\d.]+)", path):
            x, total = float(right), total + (base - float(y)) * (float(right) - x)
        return total

    # Means 7/12 of 6,000 and -(0.5 * 3000 + 0.9) / 3001 of 3,001: what was drawn smaller is not drawn less.
    assert area(won) / -area(lost) == pytest.approx((6000 * 7 / 12) / (0.5 * 3000 + 0.9), rel=0.01)
    # A step is a pixel of the 296 or 297 that there are for 9,001 queries.
    assert won.count("H") == 198
    assert 'data-tip="bad: -0.900, the largest of 31 here"' in drawn
    assert drawn.count("data-tip") == 40


def test_as_many_queries_as_pixels_still_have_a_bar_each():
    pairs = [(f"q{i}", 0.5 if i < 171 else -0.5) for i in range(332)]
    assert difference_chart("x", pairs, "m").count("<rect") == 332
    drawn = difference_chart("x", [*pairs, ("more", 0.5)], "m")
    assert (drawn.count('class="won"'), drawn.count('class="lost"'), drawn.count("<rect")) == (1, 1, 40)
    drawn = difference_chart("x", [(f"q{i}", 0.5) for i in range(1000)], "m")
    assert ('class="won"' in drawn, 'class="lost"' in drawn) == (True, False)


def test_a_heat_map_shows_the_columns_that_were_chosen():
    drawn = heat_map(["q1", "q2"], ["d1", "d2", "d3"], [[0.1, 0.9, 0.2], [0.3, 0.8, 0.1]], [1, 1], "x")
    assert ("d2" in drawn, ">d1<" in drawn, ">d3<" in drawn) == (True, False, False)
    assert "1 of 3 document tokens" in drawn
    # A document without a vector was chosen by none.
    assert 'class="chosen"' not in heat_map(["q1"], ["d1"], [[0.1]], [-1], "x")


def test_parallel_lines_say_which_bands_they_pass():
    jobs = [{"loss": "kl", "lr": i / 10, "ndcg": i / 100} for i in range(8)] + [
        {"loss": "hinge", "lr": 0.3, "ndcg": 0.5}
    ]
    drawn = parallel_chart("x", jobs, [f"r{i}" for i in range(9)], "ndcg", [f"job {i}" for i in range(9)])
    bands = dict(re.findall(r'data-run="(r\d)" data-bands="([^"]+)"', drawn))
    # Choices from below: hinge, kl. Numbers lie in quarters: lr 0 in the lowest, 0.7 in the highest.
    assert (bands["r0"], bands["r7"].split()[:2], bands["r8"].split()[0]) == ("1 0 0", ["1", "3"], "0")
    assert bands["r8"].split()[2] == "3"
