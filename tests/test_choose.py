"""Where an attached device goes that does not say where: one table of hosts, one of answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

import translator
from translator.errors import HostError
from translator.families.usb.speeds import mismatches
from translator.hosts.qmp import QomDevice
from translator.hotplug.choose import choose_port
from translator.live.observe import Observation
from translator.topology import Device, HostDevice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from translator.errors import Diagnostic
    from translator.registry.models import Speed
    from translator.topology import Layout

CONNECTED, WAITING, CLOSED = (4, 4), (2, 1), (6, 6)
HOST = "<hostdev type='usb'><source><address bus='1' device='{}'/></source><address type='usb' bus='{}' port='{}'/>"


def seen(
    guest: str,
    *controllers: str,
    devices: str = "",
    states: Mapping[int, tuple[int | None, int | None]] | None = None,
    foreign: Mapping[tuple[int, str], QomDevice] | None = None,
    lacking: frozenset[str] = frozenset(),
) -> Observation:
    """Return a host with these controllers; a document says it shortest."""
    os = f"<os><type>{guest}</type></os>"
    text = "".join(
        f"<controller type='usb' index='{index}' {said}" + ("/>" if ">" not in said else ">")
        for index, said in enumerate(controllers)
    )
    document = f"<domain type='xen'><name>a</name>{os}<devices>{text}{devices}</devices></domain>"
    topology = translator.plan(translator.load(document.encode()), domid=7).topology
    return Observation(topology, lacking, states or {}, frozenset(), foreign or {})


def given(device: int, controller: int, port: str) -> str:
    return HOST.format(device, controller, port) + "</hostdev>"


PV, QUSB, UHCI, XHCI = (
    "model='xenusb2' ports='1'",
    "model='qusb2' ports='2'",
    "model='piix3-uhci'",
    "model='nec-xhci'",
)
CASES: dict[str, tuple[Observation, str, tuple[int, str, str]]] = {
    "a connected one first": (
        seen("hvm", UHCI, QUSB, states={1: CONNECTED}),
        "hostdev",
        (1, "1", "qusb2"),
    ),
    "an emulated one before one without a frontend": (
        seen("hvm", QUSB, UHCI, states={0: WAITING}),
        "hostdev",
        (1, "1", "piix3-uhci"),
    ),
    "the first of several": (
        seen("hvm", QUSB, QUSB, states={0: CONNECTED, 1: CONNECTED}),
        "hostdev",
        (0, "1", "qusb2"),
    ),
    "the lowest free port": (
        seen("hvm", QUSB, devices=given(8, 0, "1"), states={0: CONNECTED}),
        "hostdev",
        (0, "2", "qusb2"),
    ),
    "a full one is passed over": (
        seen("hvm", PV, UHCI, devices=given(8, 0, "1"), states={0: CONNECTED}),
        "hostdev",
        (1, "1", "piix3-uhci"),
    ),
    "a port that a stranger holds is taken": (
        seen("hvm", UHCI, foreign={(0, "1"): QomDevice(path="", id="pen", driver="usb-wacom-tablet", parent_bus="")}),
        "tablet",
        (0, "2", "piix3-uhci"),
    ),
    "behind a hub when that is all there is": (
        seen("hvm", UHCI, devices="<hub type='usb'/><input type='mouse' bus='usb'/>"),
        "tablet",
        (0, "1.1", "piix3-uhci"),
    ),
    "a tablet is no host device": (
        seen("hvm", QUSB, XHCI, states={0: CONNECTED}),
        "tablet",
        (1, "1", "nec-xhci"),
    ),
    "a hub needs full speed": (seen("hvm", "model='ehci'"), "hub", (1, "1", "piix3-uhci")),
    "all are full: one comes along": (
        seen("hvm", PV, devices=given(8, 0, "1"), states={0: CONNECTED}),
        "hostdev",
        (1, "1", "ehci"),
    ),
    "a PV guest without any": (seen("linux"), "hostdev", (0, "1", "qusb2")),
    "a PV guest that has not connected yet": (
        seen("linux", QUSB, states={0: WAITING}),
        "hostdev",
        (0, "1", "qusb2"),
    ),
    "a controller that is closed is none": (
        seen("linux", QUSB, states={0: CLOSED}),
        "hostdev",
        (1, "1", "qusb2"),
    ),
    "one that QEMU lacks is none": (
        seen("hvm", UHCI, lacking=frozenset({"controller:usb:0"})),
        "mouse",
        (1, "1", "piix3-uhci"),
    ),
    "another domain's backend has other devices": (
        seen("hvm", "model='qusb2' ports='2'><backenddomain name='3'/></controller", states={0: CONNECTED}),
        "hostdev",
        (1, "1", "ehci"),
    ),
}


EHCI = "model='ehci'"
FAST: dict[str, tuple[Observation, Speed, tuple[int, str], str | None]] = {
    "a webcam passes a slow one by": (seen("hvm", UHCI, EHCI), "high", (1, "1"), None),
    "what is slow goes to the first that is slow": (seen("hvm", EHCI, UHCI), "full", (1, "1"), None),
    "the first of those that serve it": (seen("hvm", UHCI, XHCI, EHCI), "high", (1, "1"), None),
    "a fast one that is full is none": (
        seen("hvm", UHCI, "model='nec-xhci' ports='1'", devices=given(8, 1, "1")),
        "high",
        (0, "1"),
        "port 1 of controller 0 (piix3-uhci) serves only low, full speed",
    ),
    "where none serves it, the first": (seen("hvm", UHCI, UHCI), "high", (0, "1"), "it runs at high speed"),
    "USB 3 needs more than USB 2": (seen("hvm", EHCI, XHCI), "super", (1, "1"), None),
    "a PV one of version 1 is slow": (
        seen("linux", "model='qusb1'", QUSB, states={0: CONNECTED, 1: CONNECTED}),
        "high",
        (1, "1"),
        None,
    ),
    "a PV one of version 2 is no faster": (
        seen("linux", QUSB, states={0: CONNECTED}),
        "super",
        (0, "1"),
        "controller 0 (qusb2) serves only low, full, high speed",
    ),
    "behind a hub all is slow": (
        seen("hvm", "model='nec-xhci' ports='1'", devices="<hub type='usb'/>"),
        "high",
        (0, "1.1"),
        "port 1.1 of controller 0 (nec-xhci) serves only low, full speed",
    ),
}


@pytest.mark.parametrize(("host", "speed", "place", "warned"), FAST.values(), ids=FAST)
def test_a_host_device_goes_where_its_speed_is_served(
    host: Observation, speed: Speed, place: tuple[int, str], warned: str | None
) -> None:
    seat = choose_port(host, "hostdev", speed=speed)
    assert (seat.controller.index, seat.port) == place
    notes = told(host, *place, speed)
    assert [note.code for note in notes] == ["T318"] * bool(warned)
    assert not warned or warned in notes[0].message


def told(host: Observation, controller: int, port: str, speed: Speed) -> tuple[Diagnostic, ...]:
    """Return what is said of a camera of that speed in a port."""
    of_host = HostDevice(bus=1, device=9)
    camera = Device(
        family="usb",
        kind="hostdev",
        id=None,
        driver=None,
        controller=controller,
        port=port,
        host=of_host,
        properties={},
        implicit=False,
        source=None,
    )
    return mismatches(host.topology, [camera], {of_host.selector: speed})


@pytest.mark.parametrize(
    ("guest", "layout", "controller", "help"),
    [
        ("linux", "libxl", QUSB, "no controller of this guest can"),
        ("linux", "libxl", PV, "no controller of this guest can"),
        ("linux", "rfc7", PV, "that does, such as 'xenusb3'"),
        ("hvm", "libxl", QUSB, "that does, such as 'qemu-xhci'"),
    ],
)
def test_a_controller_that_would_serve_is_one_that_the_guest_can_have(
    guest: str, layout: Layout, controller: str, help: str
) -> None:
    there = seen(guest, controller)
    there = there._replace(topology=msgspec.structs.replace(there.topology, layout=layout))
    (note,) = told(there, 0, "1", "super")
    assert help in (note.help or "")


@pytest.mark.parametrize(("host", "kind", "place"), CASES.values(), ids=CASES)
def test_where_it_goes(host: Observation, kind: str, place: tuple[int, str, str]) -> None:
    seat = choose_port(host, kind)  # type: ignore[arg-type]  # an ElementKind
    assert (seat.controller.index, seat.port, seat.controller.model) == place
    assert seat.is_new == (seat.controller not in host.topology.controllers)


def test_what_comes_along_is_what_a_document_would_bring() -> None:
    for guest, usbback, model in (("hvm", True, "ehci"), ("linux", True, "xenusb2"), ("xenpvh", False, "qusb2")):
        domain = translator.load(
            f"<domain type='xen'><name>a</name><os><type>{guest}</type></os><devices><hostdev type='usb'><source>"
            "<address bus='1' device='8'/></source></hostdev></devices></domain>".encode()
        )
        (brought,) = translator.plan(domain, usbback=usbback).topology.controllers
        chosen = choose_port(seen(guest), "hostdev", usbback=usbback).controller
        assert chosen.model == model
        assert chosen == translator.Controller(
            **{name: getattr(brought, name) for name in brought.__struct_fields__} | {"source": None}
        )


REFUSED: dict[str, tuple[Observation, str, int | None, str | None, str, str]] = {
    "a port without a controller": (seen("hvm", UHCI), "tablet", None, "1", "T317", "no controller to count it on"),
    "no such controller": (seen("hvm", UHCI), "tablet", 9, None, "T419", "the domain has no USB controller 9"),
    "a tablet on a PV controller": (seen("hvm", QUSB), "tablet", 0, None, "T419", "0 (qusb2) cannot have a tablet"),
    "a tablet for a PV guest": (seen("linux"), "tablet", None, None, "T419", "has a free port for a tablet"),
    "it is full": (
        seen("linux", PV, devices=given(8, 0, "1")),
        "hostdev",
        0,
        None,
        "T419",
        "no port of controller 0 is free",
    ),
    "the port is taken": (
        seen("linux", QUSB, devices=given(8, 0, "1")),
        "hostdev",
        0,
        "1",
        "T414",
        "port 1 of controller 0 (qusb2) is taken",
    ),
    "no such port": (seen("hvm", UHCI), "tablet", 0, "3", "T419", "there is no port 3 on controller 0"),
    "no hub there": (seen("hvm", UHCI), "tablet", 0, "1.1", "T419", "there is no hub at port 1 of controller 0"),
}


@pytest.mark.parametrize(("host", "kind", "controller", "port", "code", "words"), REFUSED.values(), ids=REFUSED)
def test_where_it_cannot_go(
    host: Observation, kind: str, controller: int | None, port: str | None, code: str, words: str
) -> None:
    with pytest.raises((HostError, translator.DocumentError)) as caught:
        choose_port(host, kind, controller=controller, port=port)  # type: ignore[arg-type]  # an ElementKind
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == code
    assert words in diagnostic.message
    assert diagnostic.help
