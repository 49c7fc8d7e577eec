"""`translator attach`."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import click

from translator.cli import inputs, options
from translator.topology import Place

if TYPE_CHECKING:
    from translator.cli.options import Moving


@click.command(
    "attach",
    epilog=options.examples(
        "translator attach guest hostdev:046d:c52b",
        "translator attach guest tablet --save guest.xml",
    ),
)
@click.option("--controller", type=click.IntRange(0), help="The controller that a device goes to.")
@click.option("--port", help="The port of it, such as 2 or 2.1.")
@click.option("--no-auto-controller", is_flag=True, help="Let no controller come along where no port is free.")
@options.moving
def command(controller: int | None, port: str | None, no_auto_controller: bool, moving: Moving) -> None:
    """Attach devices to a running domain, named by id, name or UUID.

    DEVICE is a file with a fragment of domain XML (or -), or one of hostdev:1.8, hostdev:1-1.2, hostdev:046d:c52b,
    tablet, mouse, keyboard, hub, controller:MODEL,ports=N.
    """
    from translator.cli.moving import move
    from translator.document.save import add
    from translator.hotplug.attach import attach

    if port is not None and not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3}){0,3}", port):
        inputs.usage(f"{port!r} is not a port, such as 2 or 2.1")
    if port is not None and controller is None:
        inputs.usage("--port counts on a controller; name it: --controller N")
    place = None if controller is None else Place(controller, port or "")
    work = partial(attach, place=place, auto_controller=not no_auto_controller)
    move(moving, work, add, verb="attach", done="attached")
