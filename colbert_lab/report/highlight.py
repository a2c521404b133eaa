"""An explanation to read: the two texts as HTML, words shaded by what they brought and received; and for a terminal.

Shades say how much; so do the numbers at the words, their titles and the table below, for who does not see colours.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from colbert_lab.evaluation.explain import Explanation, Part

_AROUND = 2
_BLOCKS = " ▏▎▍▌▋▊▉█"


@dataclass(frozen=True)
class Shown:
    """A pair on a page: its heading, facts told under it (rank, grade, ...), its heat map's SVG file where there is
    one."""

    heading: str
    explanation: Explanation
    facts: Mapping[str, str]
    heatmap: Path | None = None


def pair(shown: Shown, name: str) -> str:
    """The HTML of one pair, for a page; `name` sets its ids apart from other pairs'."""
    x = shown.explanation
    facts = {**shown.facts, "score": f"{x.score:.4f}"}
    told = " · ".join(f"{escape(key)} <b class=num>{escape(value)}</b>" for key, value in facts.items())
    shares = ", ".join(f"{kind} {share:.1%}" for kind, share in x.shares.items())
    far = "<br>scores are minus squared distances: the stronger the shade, the farther" if x.similarity == "l2" else ""
    picture = ""
    if shown.heatmap is not None:
        data = base64.b64encode(shown.heatmap.read_bytes()).decode()
        picture = (
            "<details><summary>Heat map</summary><div class=scroll>"
            f'<img alt="Similarity matrix of {escape(shown.heading)}; the table of contributions has its numbers" '
            f'src="data:image/svg+xml;base64,{data}"></div></details>'
        )
    return (
        f'<section class="pair explained"><h3>{escape(shown.heading)}</h3>\n'
        f"<p class=soft>{told}<br>brought by the query's {escape(shares)}{far}</p>\n{_query(x, name)}\n"
        "<p class=said aria-live=polite>Point at a word, or move to it by Tab, to see what it chose.</p>\n"
        f"{_document(x, name)}\n{_table(x)}\n{picture}</section>"
    )


def side_by_side(left: Sequence[str], right: Sequence[str], heads: tuple[str, str]) -> str:
    """Two columns of pairs under a head each; below each other where the window is narrow."""
    columns = (
        f"<div class=side><p><b>{escape(head)}</b></p>{''.join(some)}</div>" for head, some in zip(heads, (left, right))
    )
    return f"<div class=sides>{''.join(columns)}</div>"


def terminal(explanation: Explanation, title: str, width: int = 100) -> str:
    """The same for a terminal: every query token, the document token that it chose in its context, contribution, share
    and a bar; ends with a newline."""
    x = explanation
    shares = ", ".join(f"{name} {share:.1%}" for name, share in x.shares.items())
    lines = [title, f"score {x.score:.4f}: {shares}"]
    if x.document.cut:
        lines.append(f"{x.document.cut:,} tokens of the document's text were cut, and could not be chosen")
    if x.query.cut:
        lines.append(f"{x.query.cut:,} tokens of the query's text were cut")
    first = max([len("query"), *map(len, x.query.tokens)], default=5)
    contexts = [_context(x, int(best)) for best in x.best]
    second = min(max([len("chose"), *map(len, contexts)]), max(20, width - first - 32))
    lines += ["", f"{'query':<{first}}  {'chose':<{second}}  brought   share"]
    most = float(abs(x.contributions).max()) if len(x.contributions) else 0.0
    for token, context, value in zip(x.query.tokens, contexts, x.contributions.tolist()):
        bar = _bar(value / most, 10) if most else ""
        text = context if len(context) <= second else context[: second - 1] + "…"
        lines.append(f"{token:<{first}}  {text:<{second}}  {value:7.4f}  {x.share(value):6.1%}  {bar}".rstrip())
    return "\n".join(lines) + "\n"


def _query(x: Explanation, name: str) -> str:
    parts = x.query_parts()
    most = max((abs(part.contribution) for part in parts), default=0.0) or 1.0
    words = _word_of(x)
    chips = []
    for number, part in enumerate(parts):
        targets = " ".join(dict.fromkeys(f"{name}-d{words[at]}" for at in part.chose if at >= 0))
        told = f"{part.word.text} brought {part.contribution:.4f} ({x.share(part.contribution):.1%}); {_chose(x, part)}"
        other = "" if part.word.kind == "word" else " other"
        chips.append(
            f'<li><button type=button class="q{other}" id="{name}-q{number}" data-to="{targets}" '
            f'style="--s:{_shade(x, part, most)}" title="{escape(told)}" aria-label="{escape(told)}">'
            f"{escape(part.word.text)}<small>{part.contribution:.2f}</small></button></li>"
        )
    note = f"<p class=cut>{x.query.cut:,} tokens of the query were cut.</p>" if x.query.cut else ""
    return f'<ul class=query aria-label="query words">{"".join(chips)}</ul>{note}'


def _document(x: Explanation, name: str) -> str:
    """The document's text as it was written where the tokeniser tells places in it, else its words in a row."""
    parts = x.document_parts()
    most = max((abs(part.contribution) for part in parts), default=0.0) or 1.0
    askers = {at: number for number, part in enumerate(x.query_parts()) for at in part.word.positions}
    placed = any(part.word.span for part in parts)
    pieces, end = [], 0
    for number, part in enumerate(parts):
        word = part.word
        if placed and word.span is not None:
            pieces.append(escape(x.document.text[end : word.span[0]]))
            end = word.span[1]
        elif pieces:
            pieces.append(" ")
        after = " " if placed and word.span is None else ""
        if not part.chose:
            pieces.append(escape(word.text) if word.kind == "word" else "")
            continue
        who = ", ".join(x.query.tokens[at] for at in part.chose)
        told = f"{word.text} received {part.contribution:.4f} ({x.share(part.contribution):.1%}), chosen by {who}"
        back = " ".join(dict.fromkeys(f"{name}-q{askers[at]}" for at in part.chose))
        pieces.append(
            f'<mark tabindex=0 id="{name}-d{number}" data-to="{back}" '
            f'style="--s:{_shade(x, part, most)}" title="{escape(told)}">'
            f"{escape(word.text)}<sub>{part.contribution:.2f}</sub></mark>{after}"
        )
    last = max((part.word.span[1] for part in parts if part.word.span), default=0)
    rest = x.document.text[last:].strip() if placed else ""
    note = ""
    if x.document.cut:
        told = f"{x.document.cut:,} tokens of the text were cut and could not be chosen"
        note = f"<details><summary>{told}</summary><p class=cut>{escape(rest)}</p></details>"
        note = note if rest else f"<p class=cut>{told}.</p>"
    elif rest:
        pieces.append(escape(x.document.text[last:]))
    if not parts:
        pieces = ["<i>The document has no vectors.</i>"]
    return f"<div class=document>{''.join(pieces)}</div>{note}"


def _shade(x: Explanation, part: Part, most: float) -> str:
    """How dark a word is, 0 to 1: by what it is worth, by its part of the distance where scores are distances."""
    value = abs(part.contribution) if x.similarity == "l2" else max(0.0, part.contribution)
    return f"{value / most:.3f}"


def _table(x: Explanation) -> str:
    rows = "".join(
        f"<tr><td>{escape(token)}<td>{escape(_context(x, int(best)))}<td class=num>{value:.4f}"
        f"<td class=num>{x.share(value):.1%}</tr>"
        for token, best, value in zip(x.query.tokens, x.best, x.contributions.tolist())
    )
    return (
        "<details><summary>Contributions, token by token</summary><div class=scroll><table><thead><tr>"
        "<th scope=col>query token<th scope=col>chose<th scope=col class=num>brought<th scope=col class=num>share"
        f"</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _chose(x: Explanation, part: Part) -> str:
    named = [
        f"{x.query.tokens[at]} → {_context(x, int(x.best[at]))} ({float(x.contributions[at]):.4f})"
        for at in part.word.positions
    ]
    return "chose " + ", ".join(named)


def _context(x: Explanation, best: int) -> str:
    """A document token in brackets among its neighbours."""
    if best < 0:
        return "nothing: the document has no vectors"
    tokens = x.document.tokens
    before, after = tokens[max(0, best - _AROUND) : best], tokens[best + 1 : best + 1 + _AROUND]
    return " ".join([*before, f"‹{tokens[best]}›", *after])


def _word_of(x: Explanation) -> dict[int, int]:
    """Document position -> number of its word."""
    return {at: number for number, word in enumerate(x.document.words()) for at in word.positions}


def _bar(share: float, cells: int) -> str:
    """A bar of up to `cells` characters in eighths of one; of a negative share, its length after a minus."""
    eighths = round(abs(share) * cells * 8)
    return ("-" if share < 0 else "") + "█" * (eighths // 8) + _BLOCKS[eighths % 8].strip()
