"""Heat maps and highlighted texts: equal bytes of equal explanations, nothing left out in silence or injected."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from colbert_lab.evaluation.explain import Explanation, explain
from colbert_lab.report.heatmap import heatmap, shown_columns
from colbert_lab.report.highlight import Shown, pair, side_by_side, terminal
from colbert_lab.report.highlight_page import page
from colbert_lab.text.positions import Positions


def made(m: int = 5, n: int = 12, similarity: str = "cosine", document: Positions | None = None) -> Explanation:
    generator = torch.Generator().manual_seed(m * 1000 + n)
    query, vectors = (
        torch.nn.functional.normalize(torch.randn(count, 16, generator=generator), dim=-1) for count in (m, n)
    )
    kinds = ["special", *["word"] * (m - 3), "mask", "special"]
    query_positions = Positions.of([f"$q{i}$" for i in range(m)], kinds)
    return explain(query, vectors, query_positions, document or [f"d{i}" for i in range(n)], similarity)


class Checked(HTMLParser):
    """The tags, ids and targets of a page, and whatever it would load."""

    def __init__(self):
        super().__init__()
        self.ids, self.targets, self.tags, self.loaded = [], [], [], []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.targets += (found.get("data-to") or "").split()
        self.loaded += [found[key] for key in ("src", "href") if key in found]


def checked(html: str) -> Checked:
    parser = Checked()
    parser.feed(html)
    return parser


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_equal_explanations_make_equal_bytes(tmp_path, suffix):
    files = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for file in files:
        heatmap(file, made(), "a $title$ of a pair")
    assert files[0].read_bytes() == files[1].read_bytes()
    other = tmp_path / f"c{suffix}"
    heatmap(other, made(n=13), "a $title$ of a pair")
    assert other.read_bytes() != files[0].read_bytes()


def test_the_picture_says_what_it_leaves_out(tmp_path):
    x = made(40, 300)
    heatmap(tmp_path / "long.svg", x, "long")
    drawn = (tmp_path / "long.svg").read_text()
    assert "showing 60 of 300 document tokens" in drawn
    assert "···" in drawn
    shown = shown_columns(x, 60)
    assert set(x.best.tolist()) <= set(shown)
    assert len(shown) == 60
    heatmap(tmp_path / "short.svg", made(5, 60), "short")
    assert "showing" not in (tmp_path / "short.svg").read_text()
    heatmap(tmp_path / "tall.svg", made(70, 10), "tall")
    assert "showing 64 of 70 query tokens" in (tmp_path / "tall.svg").read_text()


def test_more_chosen_than_columns_keeps_those_that_received_most():
    x = made(40, 300)
    kept = shown_columns(x, 5)
    left = x.received[[i for i in range(300) if i not in kept]].max()
    assert len(kept) == 5
    assert x.received[kept].min() >= left


def test_empty_documents_and_distances_are_drawn(tmp_path):
    heatmap(tmp_path / "empty.svg", made(4, 0), "empty")
    assert "no vectors" in (tmp_path / "empty.svg").read_text()
    heatmap(tmp_path / "far.svg", made(4, 6, "l2"), "far")
    assert "minus squared distance" in (tmp_path / "far.svg").read_text()
    assert "no vectors" in pair(Shown("x", made(4, 0), {}), "p")
    assert "the stronger the shade, the farther" in pair(Shown("x", made(4, 6, "l2"), {}), "p")
    with pytest.raises(ValueError, match=r"\.pdf"):
        heatmap(Path("x.pdf"), made(), "x")


def test_the_page_is_whole_and_its_words_point_to_each_other(tmp_path):
    heatmap(tmp_path / "h.svg", made(), "x")
    pairs = [pair(Shown("q · d", made(n=n), {"rank": "1"}, tmp_path / "h.svg"), f"p{n}") for n in (12, 30)]
    html = page("A page", side_by_side(pairs[:1], pairs[1:], ("a", "b")))
    found = checked(html)
    assert len(found.ids) == len(set(found.ids))
    assert found.targets
    assert set(found.targets) <= set(found.ids)
    assert [one[:19] for one in found.loaded] == ["data:image/svg+xml;"] * 2
    assert not re.search(r"url\(|@import|https?://", html)
    assert "prefers-color-scheme: dark" in html


def test_words_carry_their_numbers():
    x = made(3, 4)
    html = pair(Shown("x", x, {}), "p")
    for part in x.query_parts():
        assert f"brought {part.contribution:.4f} ({x.share(part.contribution):.1%})" in html
    for part in x.document_parts():
        assert (f"{part.word.text} received {part.contribution:.4f}" in html) == bool(part.chose)


def test_text_is_text_and_stays_as_it_was_written():
    text = "<script>alert(1)</script> & Co., cut"
    document = Positions(
        ("script", "alert", "co"), ("word",) * 3, (False,) * 3, ((1, 7), (8, 13), (28, 30)), text, cut=1
    )
    body = pair(Shown("<i>", made(4, 3, document=document), {"<u>": "<s>"}), "p")
    html = page('"<em>', body)
    tags = checked(html).tags
    assert tags.count("script") == 1
    assert not {"em", "i", "u", "s"} & set(tags)
    plain = re.sub(r"<sub>.*?</sub>|<[^>]+>", "", html)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; Co" in plain
    assert "1 tokens of the text were cut" in plain
    assert ", cut" in plain


def test_the_terminal_has_a_line_a_query_token():
    x = made(5, 12)
    lines = terminal(x, "q and d").splitlines()
    assert lines[0] == "q and d"
    assert lines[1].startswith(f"score {x.score:.4f}: words ")
    rows = lines[-5:]
    for row, token, best, value in zip(rows, x.query.tokens, x.best, x.contributions.tolist()):
        assert row.startswith(token)
        assert f"‹d{best}›" in row
        assert f"{value:.4f}" in row
    assert max(map(len, lines)) <= 100
    bars = [row.count("█") for row in rows]
    assert max(bars) == 10
    assert bars.index(10) == int(x.contributions.argmax())
