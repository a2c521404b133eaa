"""The frame of a page of highlighted texts: one HTML file with its style and script inside, light and dark."""

from html import escape

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b1b1b; --soft: #5c5c5c; --line: #d6d6d6; --card: #f7f7f5;
  --hot: 242 153 0; --most: .72; --edge: #b25e00; --lit: #0b5fa5; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181b; --ink: #e9e7e2; --soft: #a9a9a4; --line: #3a3e44;
  --card: #1e2125; --hot: 214 120 0; --most: .62; --edge: #f0a040; --lit: #7cc0ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1.4rem 3rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.35rem; margin: .2rem 0 .4rem; } h2 { font-size: 1.12rem; margin: 2.2rem 0 .3rem;
  border-top: 1px solid var(--line); padding-top: 1.1rem; } h3 { font-size: 1rem; margin: 0 0 .2rem; }
p { margin: .25rem 0 .6rem; } .soft { color: var(--soft); } .num { font-variant-numeric: tabular-nums; }
.pair { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .8rem 1rem;
  margin: .8rem 0; }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(24rem, 1fr)); gap: 0 1rem; align-items: start; }
.side { min-width: 0; } .side > p:first-child { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.query { display: flex; flex-wrap: wrap; gap: .25rem; margin: .5rem 0 .2rem; padding: 0; list-style: none; }
.q { font: inherit; line-height: 1.25; color: inherit; cursor: pointer; text-align: center; padding: .14rem .45rem;
  border: 1px solid var(--line); border-bottom: 3px solid var(--edge); border-radius: 5px;
  background: rgb(var(--hot) / calc(var(--s) * var(--most))); }
.q small { display: block; font-size: .72em; color: inherit; opacity: .85; font-variant-numeric: tabular-nums; }
.q.other { border-style: dashed; font-size: .82em; }
.said { min-height: 1.55em; margin: .1rem 0 .5rem; font-size: .9em; color: var(--soft); }
.document { overflow-wrap: anywhere; line-height: 1.9; }
mark { color: inherit; background: rgb(var(--hot) / calc(var(--s) * var(--most))); border-bottom: 2px solid var(--edge);
  border-radius: 3px; padding: 0 .1em; } mark sub { font-size: .66em; margin-left: .15em; line-height: 0; opacity: .85;
  font-variant-numeric: tabular-nums; }
.lit, .q:focus-visible, mark:focus-visible { outline: 2.5px solid var(--lit); outline-offset: 1px; }
.cut { color: var(--soft); border-left: 3px solid var(--line); padding-left: .5rem; }
details { margin: .5rem 0 0; } summary { cursor: pointer; color: var(--soft); }
table { border-collapse: collapse; margin: .4rem 0; font-size: .9em; }
th, td { text-align: left; padding: .12rem .8rem .12rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top; } td.num, th.num { text-align: right; }
.scroll { overflow-x: auto; } img { width: max(100%, 62rem); border-radius: 6px; background: #fff; }
th { white-space: nowrap; }
"""

_SCRIPT = """
document.querySelectorAll('.explained').forEach(function (box) {
  var said = box.querySelector('.said'), rest = said.textContent;
  function light(word, on) {
    (word.dataset.to || '').split(' ').filter(Boolean).concat(word.id).forEach(function (id) {
      var one = document.getElementById(id); if (one) one.classList.toggle('lit', on); });
    said.textContent = on ? word.title : rest;
  }
  box.querySelectorAll('.q, mark').forEach(function (word) {
    [['mouseenter', true], ['focus', true], ['mouseleave', false], ['blur', false]].forEach(function (on) {
      word.addEventListener(on[0], function () { light(word, on[1]); }); });
  });
});
"""


def page(title: str, body: str) -> str:
    """A whole page that needs nothing from anywhere else; `body` is HTML, `title` text."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f"{body}\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )
