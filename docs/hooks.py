"""What mkdocs is to generate: pages that the code has, and that nobody has to keep true."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

import translator
from translator.cli import reference

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the commands' reference."""
    files.append(File.generated(config, "commands.md", content=reference.markdown()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the functions into the Python reference, whose names modules have too, as which mkdocstrings takes them."""
    return markdown.replace("{{ functions }}", _functions()) if page.file.src_uri == "python.md" else markdown


def _functions() -> str:
    functions = [getattr(translator, name) for name in translator.__all__]
    return "\n\n".join(
        f"### {one.__name__} {{#translator.{one.__name__}}}\n\n"
        f"```python\n{one.__name__}{inspect.signature(one)}\n```\n\n```text\n{inspect.getdoc(one)}\n```"
        for one in functions
        if inspect.isfunction(one)
    )
