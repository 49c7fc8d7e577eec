"""What mkdocs is to generate: pages that the code has, and that nobody has to keep true."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from griffe import Docstring
from mkdocs.structure.files import File

import translator
from translator.cli import reference

if TYPE_CHECKING:
    from types import FunctionType

    from griffe import DocstringSection
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
    public = [getattr(translator, name) for name in translator.__all__]
    return "\n\n".join(_function(one) for one in public if inspect.isfunction(one))


_STARS = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


def _function(function: FunctionType) -> str:
    name = function.__name__
    signature = inspect.signature(function)
    parameters = signature.parameters.values()
    written = [f"    {_STARS.get(one.kind, '')}{_parameter(one)}," for one in parameters]
    keywords = [one.kind is one.KEYWORD_ONLY for one in parameters]
    if True in keywords:
        written.insert(keywords.index(True), "    *,")
    call = "\n".join((f"{name}(", *written, f") -> {signature.return_annotation}"))
    parsed = Docstring(function.__doc__ or "", parser="google", parser_options={"warnings": False}).parse()
    told = [section.value if section.kind.value == "text" else _items(section) for section in parsed]
    return "\n\n".join((f"### {name} {{#translator.{name}}}", f"```python\n{call}\n```", *told))


def _parameter(one: inspect.Parameter) -> str:
    default = "" if one.default is one.empty else f" = {one.default!r}"
    return f"{one.name}: {one.annotation}{default}"


def _items(section: DocstringSection) -> str:
    """Return the parameters, or the exceptions, of a function as a list."""
    items = [
        (getattr(item, "name", None) or item.annotation, " ".join(item.description.split())) for item in section.value
    ]
    return "\n".join((f"{section.kind.value.capitalize()}:\n", *(f"- `{name}`: {told}" for name, told in items)))
