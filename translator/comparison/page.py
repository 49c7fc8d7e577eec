"""A comparison as one HTML page: pictures of both sides, what guests notice first, searchable, light and dark.

The page asks for nothing from anywhere: a policy in its head forbids it, and allows but the style and the script
that it carries, by their hashes. So a name that some document smuggled past our escaping would still be inert.
"""

from __future__ import annotations

import base64
import hashlib
import tempfile
from typing import TYPE_CHECKING

from translator.comparison.review import SIGNS, Tally, facts, headline, noticed_first
from translator.output import escape, picture
from translator.planning.subjects import subject
from translator.topology import Controller, Device

if TYPE_CHECKING:
    from collections.abc import Iterator

    from translator.comparison.delta import Change
    from translator.comparison.review import Compared, Review
    from translator.output.picture import Mark
    from translator.planning.plan import Plan

_IN_MEMORY = 1 << 22  # bytes of a page's body; a longer one waits on disk until its head is known

STYLE = (
    picture.STYLE
    + """\
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --text: #1c2330; --quiet: #5b6675; --rule: #d9dee6;
  --green: #1a7f37; --red: #c02634; --amber: #8a6100; --blue: #0a5fc2; --loud: #fff1d6; }
@media (prefers-color-scheme: dark) {
  :root { --page: #10141a; --card: #171c24; --text: #e4e9f0; --quiet: #9aa7b8; --rule: #2c3541;
    --green: #4cc268; --red: #ff7b86; --amber: #e0ae3c; --blue: #6cb0ff; --loud: #3a2f12; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; }
header, main { max-width: 1240px; margin: 0 auto; padding: 20px; }
header { padding-bottom: 0; }
h1 { font-size: 22px; margin: 0 0 4px; }
h2 { font-size: 16px; margin: 0; overflow-wrap: anywhere; font-family: ui-monospace, "DejaVu Sans Mono", monospace; }
h2 .status { font: 600 12px system-ui, sans-serif; color: var(--quiet); margin-left: 8px; }
.summary { margin: 0; }
.files { margin: 0; color: var(--quiet); }
.tools { display: flex; flex-wrap: wrap; gap: 8px 20px; align-items: center; margin-top: 14px; }
.tools input[type=search] { flex: 1 1 240px; max-width: 420px; padding: 7px 10px; font: inherit; color: inherit;
  background: var(--card); border: 1px solid var(--rule); border-radius: 7px; }
article { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 16px 18px;
  margin: 0 0 18px; content-visibility: auto; contain-intrinsic-size: auto 480px; }
[hidden] { display: none !important; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin-top: 10px; }
th { text-align: left; font-size: 12px; font-weight: 600; color: var(--quiet); }
th, td { padding: 6px 10px 6px 0; border-top: 1px solid var(--rule); vertical-align: top; }
td { overflow-wrap: anywhere; } td:nth-child(2) { min-width: 7.5em; }
td:nth-child(3) { min-width: 8em; } td:last-child { white-space: nowrap; }
tr:first-child th { border-top: 0; }
td.sign { font: 700 16px ui-monospace, monospace; width: 26px; }
td.add { color: var(--green); } td.remove { color: var(--red); } td.change { color: var(--amber); }
td.move { color: var(--blue); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 10px; margin: 0; font-size: 13px; }
dt { color: var(--quiet); } dd { margin: 0; }
del { text-decoration-color: var(--red); } ins { text-decoration: none; font-weight: 600; }
.notices { background: var(--loud); border-radius: 5px; padding: 1px 7px; font-weight: 600; white-space: nowrap; }
.quiet { color: var(--quiet); }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 16px;
  margin-top: 14px; }
figure { margin: 0; min-width: 0; }
figcaption { font-size: 12px; font-weight: 600; color: var(--quiet); margin-bottom: 6px; }
.pictures svg { max-width: 100%; height: auto; display: block; }
@media (max-width: 640px) { header, main { padding: 12px; } article { padding: 12px; } dl { display: block; }
  th, td { padding-right: 8px; } }
.tp .lit rect { stroke-width: 4.5; }
"""
)

SCRIPT = """\
const search = document.querySelector("#search"), loud = document.querySelector("#loud");
const articles = [...document.querySelectorAll("article")], none = document.querySelector("#none");
function show() {
  const words = search.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let shown = 0;
  for (const article of articles) {
    article.sought ??= article.textContent.toLowerCase();
    article.hidden = (loud.checked && !("noticed" in article.dataset))
      || !words.every(word => article.sought.includes(word));
    for (const row of article.querySelectorAll("tr[data-id]"))
      row.hidden = loud.checked && !("noticed" in row.dataset);
    shown += !article.hidden;
  }
  none.hidden = shown > 0 || articles.length === 0;
}
search.addEventListener("input", show);
loud.addEventListener("change", show);
for (const [event, lit] of [["mouseover", true], ["mouseout", false]])
  document.addEventListener(event, ({target}) => {
    const row = target.closest("tr[data-id]");
    if (!row) return;
    for (const box of row.closest("article").querySelectorAll("g[data-id]"))
      if (box.dataset.id === row.dataset.id || box.dataset.id === row.dataset.was) box.classList.toggle("lit", lit);
  });
show();
"""


def page(review: Review) -> Iterator[str]:
    """Give the page; the files in which guests notice something come first."""
    tally = Tally()
    with (
        tempfile.SpooledTemporaryFile(_IN_MEMORY, "w+", encoding="utf-8", newline="") as loud,
        tempfile.SpooledTemporaryFile(_IN_MEMORY, "w+", encoding="utf-8", newline="") as quiet,
    ):
        for one in review.files:
            tally.count(one)
            if one.status not in ("same", "refused") or (review.single and one.status == "same"):
                (loud if one.noticed else quiet).write(_article(one))
        yield _head(tally, single=review.single)
        for body in (loud, quiet):
            body.seek(0)
            while piece := body.read(1 << 16):
                yield piece
    yield f'<p id="none" hidden>Nothing fits.</p>\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n'


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _head(tally: Tally, *, single: bool) -> str:
    own = f"style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}"
    policy = f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'"
    files = "" if single else f'<p class="files">{escape.markup(tally.about_files())}</p>\n'
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>USB hardware compared</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>USB hardware compared</h1>
<p class="summary">{escape.markup(tally.headline())}</p>
{files}<div class="tools">
<input type="search" id="search" placeholder="Search files, devices, ports …" aria-label="Search">
<label><input type="checkbox" id="loud"> only what guests notice</label>
</div>
</header>
<main>
"""


def _article(one: Compared) -> str:
    marks = _marks(one)
    rows = "".join(map(_row, noticed_first(one.delta.changes)))
    table = (
        '<div class="scroll"><table>\n<tr><th></th><th>what</th><th>change</th><th>guest</th><th>requires</th></tr>\n'
        f"{rows}</table></div>\n"
        if rows
        else ""
    )
    sides = (("before", one.old, marks[0]), ("after", one.new, marks[1]))
    figures = "".join(_figure(title, plan, marks) for title, plan, marks in sides if plan is not None)
    return (
        f"<article{' data-noticed' if one.noticed else ''}>\n"
        f'<h2>{escape.markup(one.path)}<span class="status">{escape.markup(one.told)}</span></h2>\n'
        f'{table}<div class="pictures">\n{figures}</div>\n</article>\n'
    )


def _figure(title: str, plan: Plan, marks: dict[str, Mark]) -> str:
    return f"<figure><figcaption>{title}</figcaption>\n{picture.svg(plan.topology, marks, style=False)}</figure>\n"


def _marks(one: Compared) -> tuple[dict[str, Mark], dict[str, Mark]]:
    """Return what to highlight on either side, by id."""
    sides: tuple[dict[str, Mark], dict[str, Mark]] = ({}, {})
    for change in one.delta.changes:
        for side, part in zip(sides, (change.before, change.after), strict=True):
            if isinstance(part, (Controller, Device)):
                side[subject(part)] = change.action
    return sides


def _row(change: Change) -> str:
    told = "".join(
        f"<dt>{name}</dt><dd><del>{before}</del> → <ins>{after}</ins></dd>"
        for name, before, after in (map(escape.markup, facts(field)) for field in change.fields)
    )
    guest = f'<span class="notices">{change.reason}</span>' if change.reason else '<span class="quiet">no</span>'
    was = change.before
    ids = f' data-id="{escape.markup(change.id)}"'
    if isinstance(was, (Controller, Device)) and subject(was) != change.id:
        ids += f' data-was="{escape.markup(subject(was))}"'
    return (
        f"<tr{ids}{' data-noticed' if change.guest_visible else ''}>"
        f'<td class="sign {change.action}" title="{change.action}">{SIGNS[change.action]}</td>'
        f"<td>{escape.markup(headline(change))}</td><td>{f'<dl>{told}</dl>' if told else change.action}</td>"
        f"<td>{guest}</td><td>{change.needs}</td></tr>\n"
    )
