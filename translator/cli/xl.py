"""`translator xl`: xl's USB verbs, with its words and its output."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import click

from translator.cli import options
from translator.cli.hosts import host_of, run
from translator.cli.inputs import usage, write
from translator.xl import XlWordError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import translator
    from translator.cli.options import Connecting, Journaling, Reporting


class Call(NamedTuple):
    """How a verb was called: the host's options stand before it."""

    connecting: Connecting
    journaling: Journaling
    reporting: Reporting


_WORDS = {"ignore_unknown_options": True}
_domain = click.argument("domain")


@click.group("xl")
@options.reaching
@options.journaling
@options.reporting
@click.pass_context
def command(context: click.Context, connecting: Connecting, journaling: Journaling, reporting: Reporting) -> None:
    """Do as `xl` does: the same words and the same output, with the undo and the errors of `attach` and `detach`."""
    context.obj = Call(connecting, journaling, reporting)


@command.command("usbctrl-attach", context_settings=_WORDS)
@_domain
@click.argument("words", nargs=-1, metavar="[type=TYPE] [version=N] [ports=N]")
@click.pass_obj
def usbctrl_attach(call: Call, domain: str, words: tuple[str, ...]) -> None:
    """Create a USB controller for a domain."""

    async def work(host: translator.Host, domid: int) -> None:
        from translator.xl import controller_word

        guest = (await host.observe(domid=domid)).domain.guest
        try:
            word = controller_word(words, guest, usbback=host.sysfs.has_driver("usbback"))
        except XlWordError as error:
            usage(str(error))
        await host.attach(word, domid=domid)

    _on(call, domain, work)


@command.command("usbctrl-detach")
@_domain
@click.argument("devid", type=click.IntRange(0))
@click.pass_obj
def usbctrl_detach(call: Call, domain: str, devid: int) -> None:
    """Remove a USB controller, and the devices on it, from a domain."""

    async def work(host: translator.Host, domid: int) -> None:
        await host.detach(f"controller:{devid}", domid=domid)

    _on(call, domain, work)


@command.command("usbdev-attach", context_settings=_WORDS)
@_domain
@click.argument("words", nargs=-1, metavar="hostbus=N hostaddr=N [controller=N [port=N]]")
@click.pass_obj
def usbdev_attach(call: Call, domain: str, words: tuple[str, ...]) -> None:
    """Attach a USB device of the host to a domain."""
    from translator.xl import device_word

    try:
        word, place = device_word(words)
    except XlWordError as error:
        usage(str(error))

    async def work(host: translator.Host, domid: int) -> None:
        from translator.attach import Given, attach

        await attach(host, [Given(word)], domid=domid, place=place)

    _on(call, domain, work)


@command.command("usbdev-detach")
@_domain
@click.argument("controller", type=click.IntRange(0))
@click.argument("port", type=click.IntRange(1))
@click.pass_obj
def usbdev_detach(call: Call, domain: str, controller: int, port: int) -> None:
    """Take the device in a port of a controller away from a domain."""

    async def work(host: translator.Host, domid: int) -> None:
        await host.detach(f"{controller}:{port}", domid=domid)

    _on(call, domain, work)


@command.command("usb-list")
@_domain
@click.pass_obj
def usb_list(call: Call, domain: str) -> None:
    """List a domain's USB controllers and devices."""

    async def work(host: translator.Host, domid: int) -> None:
        from translator.observe import observe
        from translator.xl import usb_list

        write(usb_list(await observe(host, domid=domid, records_only=True)), None)

    _on(call, domain, work)


def _on(call: Call, domain: str, work: Callable[[translator.Host, int], Awaitable[None]]) -> None:
    """Do the work on the domain of that id or name."""
    report = call.reporting.report()

    async def reached() -> None:
        from translator.attach import find_domain

        async with host_of(call.connecting, call.journaling) as host:
            await work(host, await find_domain(host, domain))

    with report.document(None):
        run(reached())
    report.exit()
