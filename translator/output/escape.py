"""How a document's words stand in each output, so that they are text there and nothing else.

Names come from documents, plan files and hosts that somebody hostile may have written. What cannot be seen, or
would turn the direction of the text around it, is spelled out: `\\u202e`.
"""

from __future__ import annotations

import re

# Controls, what has no width, what changes direction, and what is no character; XML can hold all the rest.
_UNSEEN = (
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_MARKUP = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"})
_PLAIN = r"[^A-Za-z0-9 ,:/_.\u00b7-]"


def visible(text: str) -> str:
    """Return the text on one line, for a terminal: every character can be seen, or is spelled out."""
    if text.isascii() and text.isprintable():
        return text
    return re.sub(_UNSEEN, lambda match: f"\\u{ord(match[0]):04x}", text)


def markup(text: str) -> str:
    """Return the text for an element or a quoted attribute of HTML or SVG."""
    return visible(text).translate(_MARKUP)


def code(text: str) -> str:
    """Return the text as a code span of Markdown, also inside a table: nothing in one is a link or a mention."""
    seen = visible(text).replace("|", "\\|")
    fence = "`" * (max((len(run) for run in re.findall("`+", seen)), default=0) + 1)
    pad = " " if not seen.strip() or seen[0] in " `" or seen[-1] in " `" else ""
    return f"{fence}{pad}{seen}{pad}{fence}"


def dot(text: str) -> str:
    """Return the text as a quoted string of Graphviz' language."""
    seen = visible(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{seen}"'


def mermaid(text: str) -> str:
    """Return the text for a quoted label of a Mermaid diagram: all but plain words as character codes."""
    return re.sub(_PLAIN, lambda match: f"#{ord(match[0])};", visible(text))
