"""`translator detach`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from translator.cli import options

if TYPE_CHECKING:
    from translator.cli.options import Moving


@click.command(
    "detach",
    epilog=options.examples("translator detach guest hostdev:046d:c52b", "translator detach guest 1:2 controller:2"),
)
@options.force
@options.moving
def command(force: bool, moving: Moving) -> None:
    """Detach devices and controllers from a running domain, named by id, name or UUID.

    DEVICE is an id in QEMU or an alias, a port such as 1:2, controller:1, or what it was attached by: a word or a
    file with a fragment of domain XML. What stands on a controller or a hub goes with it. For one port of a
    paravirtual controller nothing else is looked at, and no QEMU is asked.
    """
    from translator.cli.moving import move
    from translator.document.save import remove
    from translator.hotplug.attach import detach

    move(moving, partial(detach, force=force), remove, verb="detach", done="detached")
