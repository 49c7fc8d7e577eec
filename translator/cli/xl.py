"""`translator xl`: xl's USB verbs, with its words and its output."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import click

from translator.cli import options
from translator.cli.hosts import host_of, run
from translator.cli.inputs import usage, write
from translator.hotplug.xl import XlWordError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import translator
    from translator.cli.options import Journaling, Reaching, Reporting


class Call(NamedTuple):
    """How a verb was called: the host's options stand before it."""

    connecting: Reaching
    journaling: Journaling
    reporting: Reporting


_WORDS = {"ignore_unknown_options": True}
_domain = click.argument("domain")


@click.group(
    "xl",
    epilog=options.examples(
        "translator xl usb-list guest",
        "translator xl usbdev-attach guest hostbus=1 hostaddr=8 controller=0",
    ),
)
@options.reaching
@options.journaling
@options.reporting
@click.pass_context
def command(context: click.Context, connecting: Reaching, journaling: Journaling, reporting: Reporting) -> None:
    """Do as `xl` does: the same words and the same output, with the undo and the errors of `attach` and `detach`."""
    context.obj = Call(connecting, journaling, reporting)


@command.command(
    "usbctrl-attach",
    context_settings=_WORDS,
    epilog=options.examples("translator xl usbctrl-attach guest type=qusb version=2 ports=4"),
)
@_domain
@click.argument("words", nargs=-1, metavar="[type=TYPE] [version=N] [ports=N]")
@click.pass_obj
def usbctrl_attach(call: Call, domain: str, words: tuple[str, ...]) -> None:
    """Create a USB controller for a domain."""

    async def work(host: translator.Host, domid: int) -> None:
        from translator.hotplug.xl import controller_word

        layout = call.connecting.layout
        guest = (await host.observe(domid=domid, layout=layout)).domain.guest
        try:
            word = controller_word(words, guest, usbback=host.sysfs.has_driver("usbback"))
        except XlWordError as error:
            usage(str(error))
        await host.attach(word, domid=domid, layout=layout)

    _on(call, domain, work)


@command.command("usbctrl-detach", epilog=options.examples("translator xl usbctrl-detach guest 0"))
@_domain
@click.argument("devid", type=click.IntRange(0))
@click.pass_obj
def usbctrl_detach(call: Call, domain: str, devid: int) -> None:
    """Remove a USB controller, and the devices on it, from a domain."""

    async def work(host: translator.Host, domid: int) -> None:
        await host.detach(f"controller:{devid}", domid=domid, layout=call.connecting.layout)

    _on(call, domain, work)


@command.command(
    "usbdev-attach",
    context_settings=_WORDS,
    epilog=options.examples("translator xl usbdev-attach guest hostbus=1 hostaddr=8 controller=0"),
)
@_domain
@click.argument("words", nargs=-1, metavar="hostbus=N hostaddr=N [controller=N [port=N]]")
@click.pass_obj
def usbdev_attach(call: Call, domain: str, words: tuple[str, ...]) -> None:
    """Attach a USB device of the host to a domain."""
    from translator.hotplug.xl import device_word

    try:
        word, place = device_word(words)
    except XlWordError as error:
        usage(str(error))

    async def work(host: translator.Host, domid: int) -> None:
        from translator.hotplug.attach import Given, attach

        await attach(host, [Given(word)], domid=domid, layout=call.connecting.layout, place=place)

    _on(call, domain, work)


@command.command("usbdev-detach", epilog=options.examples("translator xl usbdev-detach guest 0 1"))
@_domain
@click.argument("controller", type=click.IntRange(0))
@click.argument("port", type=click.IntRange(1))
@click.pass_obj
def usbdev_detach(call: Call, domain: str, controller: int, port: int) -> None:
    """Take the device in a port of a controller away from a domain."""

    async def work(host: translator.Host, domid: int) -> None:
        await host.detach(f"{controller}:{port}", domid=domid, layout=call.connecting.layout)

    _on(call, domain, work)


@command.command("usb-list", epilog=options.examples("translator xl --xenstore /run/xenstored/socket usb-list guest"))
@_domain
@click.pass_obj
def usb_list(call: Call, domain: str) -> None:
    """List a domain's USB controllers and devices; with --layout rfc7 as the series of 2014 did."""

    async def work(host: translator.Host, domid: int) -> None:
        from translator.hotplug.xl import usb_list, usb_list_2014
        from translator.live.observe import observe

        layout = call.connecting.layout
        # where the records of that series do not tell a port, QEMU does
        seen = await observe(host, domid=domid, layout=layout, records_only=layout != "rfc7")
        write(usb_list_2014(seen) if layout == "rfc7" else usb_list(seen), None)

    _on(call, domain, work)


@command.command("usb-attach", epilog=options.examples("translator xl usb-attach guest hostdev:1.8"))
@_domain
@click.argument("device", metavar="hostdev:BUS.ADDR")
@click.pass_obj
def usb_attach(call: Call, domain: str, device: str) -> None:
    """Attach a USB device of the host to a domain, as the series of 2014 did."""
    word = _specifier(device)

    async def work(host: translator.Host, domid: int) -> None:
        await host.attach(word, domid=domid, layout=call.connecting.layout or "rfc7")

    _on(call, domain, work)


@command.command("usb-detach", epilog=options.examples("translator xl usb-detach guest hostdev:1.8"))
@_domain
@click.argument("device", metavar="hostdev:BUS.ADDR")
@click.pass_obj
def usb_detach(call: Call, domain: str, device: str) -> None:
    """Detach a USB device from a domain, as the series of 2014 did."""
    word = _specifier(device)

    async def work(host: translator.Host, domid: int) -> None:
        await host.detach(word, domid=domid, layout=call.connecting.layout or "rfc7")

    _on(call, domain, work)


def _specifier(device: str) -> str:
    from translator.hotplug.xl import specifier

    try:
        return specifier(device)
    except XlWordError as error:
        usage(str(error))


def _on(call: Call, domain: str, work: Callable[[translator.Host, int], Awaitable[None]]) -> None:
    """Do the work on the domain of that id or name."""
    report = call.reporting.report()

    async def reached() -> None:
        from translator.hotplug.attach import find_domain

        async with host_of(call.connecting, call.journaling) as host:
            await work(host, await find_domain(host, domain))

    with report.document(None):
        run(reached())
    report.exit()
