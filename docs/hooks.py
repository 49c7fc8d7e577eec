"""How mkdocs shows what stands outside of docs: in the place of the link that a reader of a checkout follows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

_LINK = re.compile(r"^\[[^\]]+\]\(\.\./([^)]+)\)$", re.MULTILINE)  # on a line of its own


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the file that such a link leads to in the link's place."""
    project = Path(config.docs_dir).parent

    def shown(link: re.Match[str]) -> str:
        path = project / link[1]
        return f"```{path.suffix[1:]}\n{path.read_text(encoding='utf-8')}```"

    return _LINK.sub(shown, markdown)
