"""xl's USB verbs in our terms: what its words say, and its list of what a domain has, character for character.

Source: tools/xl/xl_usb.c and xl_parse.c of Xen 4.17, as observed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from translator.registry.models import CANONICAL, ControllerKind, brought_along
from translator.topology import Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from translator.live.observe import Observation
    from translator.topology import Guest, Type

_TYPES: Mapping[str, Type] = {"pv": "pv", "qusb": "qusb", "devicemodel": "emulated"}
_WORDS: Mapping[Type, str] = {type: word for word, type in _TYPES.items()}
XHCI_PORTS = 8  # of a controller of libxl's, when nobody says


class XlWordError(Exception):
    """A word of the command line that xl would not take, either."""


def controller_word(words: Sequence[str], guest: Guest, *, usbback: bool) -> str:
    """Return what `usbctrl-attach`'s words ask for, as `translator attach` calls it: `controller:qusb2,ports=4`.

    Raises:
        XlWordError: a word is not one of xl's.
    """
    asked = _options(words, ("type", "version", "ports"), "usbctrl")
    word = asked.get("type", "auto")
    if word == "auto":
        row = brought_along("hostdev", guest, usbback)
        assert row is not None, "every kind of guest takes host devices"
        type = row.kind.type
    elif word in _TYPES:
        type = _TYPES[word]
    else:
        raise XlWordError(f"Invalid usb controller type '{word}'; possible: auto, {', '.join(_TYPES)}")
    version = _number(asked, "version", 2)
    kind = ControllerKind(type, version)
    if kind not in CANONICAL:
        raise XlWordError(f"there is no controller of type {word} and version {version}; versions are 1, 2 and 3")
    ports = asked.get("ports", str(XHCI_PORTS) if kind == ControllerKind("emulated", 3) else None)
    if ports is not None:
        ports = str(_number({"ports": ports}, "ports", 0))
    return f"controller:{CANONICAL[kind].name}" + (f",ports={ports}" if ports is not None else "")


def device_word(words: Sequence[str]) -> tuple[str, Place | None]:
    """Return the host device that `usbdev-attach`'s words ask for, and the place.

    Raises:
        XlWordError: a word is not one of xl's, or one is missing.
    """
    asked = _options(words, ("type", "hostbus", "hostaddr", "controller", "port"), "usbdev")
    if asked.get("type", "hostdev") != "hostdev":
        raise XlWordError(f"Invalid usb device type: {asked['type']}; possible: hostdev")
    for name in ("hostbus", "hostaddr"):
        if name not in asked:
            raise XlWordError(f"{name}=N is missing")
    bus, device = (_number(asked, name, 0) for name in ("hostbus", "hostaddr"))
    for name, number in (("hostbus", bus), ("hostaddr", device)):
        if not 1 <= number <= 255:
            raise XlWordError(f"{name}={asked[name]} is not between 1 and 255")
    if "port" in asked and "controller" not in asked:
        raise XlWordError("USB controller must be specified if you specify port")
    if "controller" not in asked:
        return f"hostdev:{bus}.{device}", None
    port = str(_number(asked, "port", 0)) if "port" in asked else ""
    return f"hostdev:{bus}.{device}", Place(_number(asked, "controller", 0), port)


def usb_list(seen: Observation) -> str:
    """Return what `xl usb-list` prints of the domain: its controllers, and the host's device in each root port."""
    return "".join(_lines(seen))


def specifier(word: str) -> str:
    """Return the word of the series of 2014, `hostdev:BUS.ADDR`, as ours.

    Raises:
        XlWordError: it is not of that form.
    """
    kind, _, rest = word.partition(":")
    bus, dot, address = rest.partition(".")
    if kind != "hostdev":
        raise XlWordError(f"Unknown device type: {kind}; possible: hostdev:BUS.ADDR")
    if not dot or not address:
        raise XlWordError(f"Device type {kind} requires hostaddr, such as hostdev:1.8")
    for name, digits in (("hostbus", bus), ("hostaddr", address)):
        if not re.fullmatch(r"[0-9]{1,3}", digits) or not 1 <= int(digits) <= 255:
            raise XlWordError(f"Bad {name}: {digits}")
    return f"hostdev:{int(bus)}.{int(address)}"


def usb_list_2014(seen: Observation) -> str:
    """Return what `xl usb-list` of the series of 2014 prints: the host devices that are recorded for the domain."""
    types = {one.index: one for one in seen.topology.controllers if one.family == "usb"}
    lines = []
    for device in seen.topology.devices:
        host = device.host
        if host is None or host.bus is None or host.device is None:
            continue
        controller = types[device.controller]
        backend = controller.backend or 0
        protocol = "devicemodel" if controller.type == "emulated" else "pv"
        lines.append(f"{protocol:>10}  {backend:>7}  {'hostdev':>7}  {host.bus:03}.{host.device:03}\n")
    return "".join(["protocol    backend  type     device\n", *lines]) if lines else ""


def _lines(seen: Observation) -> Iterator[str]:
    given = {(one.controller, one.port): one.host for one in seen.topology.devices if one.host is not None}
    for controller in seen.topology.controllers:
        if controller.family != "usb" or f"controller:usb:{controller.index}:record" in seen.lacking:
            continue  # libxl knows what is on its records
        state = seen.states.get(controller.index, (None, None))[1]
        yield f"{'Devid':<6} {'Type':<12} {'BE':<3} {'state':<5} {'usb-ver':<7} {'ports':<5}\n"
        yield (
            f"{controller.index:<6} {_WORDS[controller.type]:<12} {controller.backend or 0:<3} "
            f"{0 if controller.type == 'emulated' else -1 if state is None else state:<5} "
            f"{controller.version:<7} {controller.ports:<5}\n"
        )
        for port in range(1, controller.ports + 1):
            host = given.get((controller.index, str(port)))
            if host is None or host.bus is None or host.device is None:
                yield f"  Port {port}:\n"
            else:
                yield f"  Port {port}: Bus {host.bus:03x} Device {host.device:03x}\n"


def _options(words: Iterable[str], known: Sequence[str], what: str) -> dict[str, str]:
    asked = {}
    for word in words:
        for option in word.split(","):
            name, equals, value = option.partition("=")
            if name not in known or not equals:
                raise XlWordError(f"Unknown string `{option}' in {what} spec; possible: {'=, '.join(known)}=")
            asked[name] = value
    return asked


def _number(asked: Mapping[str, str], name: str, default: int) -> int:
    """Return a number as C reads one: decimal, 0x… or 0…"""
    text = asked.get(name)
    if text is None:
        return default
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,8}", text):
        return int(text, 16)
    if re.fullmatch(r"0[0-7]{1,9}", text):
        return int(text, 8)
    if re.fullmatch(r"0|[1-9][0-9]{0,8}", text):
        return int(text)
    raise XlWordError(f"{name}={text} is not a number")
