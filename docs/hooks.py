"""What mkdocs is to generate: pages that the code has, and that nobody has to keep true."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mkdocs.structure.files import File

from translator.cli import reference

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the commands' reference."""
    files.append(File.generated(config, "commands.md", content=reference.markdown()))
    return files
