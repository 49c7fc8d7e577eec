"""A device named by one word, as on a command line: `hostdev:1.8`, `tablet`.

hostdev:1.8                 the host's device 8 on bus 1, as `lsusb` numbers them; new at every replug
hostdev:1-1.2               whatever is plugged into the host's port 1-1.2, as sysfs names it
hostdev:046d:c52b           the host's device of that vendor and product, in hexadecimal
hostdev:046d:c52b:SERIAL    the one of them with that serial number
hostdev:serial:SERIAL       the one with that serial number, whatever it is
tablet mouse keyboard hub   an emulated one
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

import msgspec

from translator.errors import Diagnostic, DocumentError
from translator.findings import LONGEST_WORD
from translator.topology import HostDevice, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

PLAIN: Mapping[str, Kind] = {"tablet": "tablet", "mouse": "mouse", "keyboard": "keyboard", "hub": "hub"}
MOST = 255  # of bus and device numbers, as libxl has them
DEEPEST = 6  # ports from the root hub to a device. Source: USB 2.0, 4.1.1: seven tiers, the root hub's included
_SERIAL = re.compile(r"[^${}\x00-\x1f\x7f]{1,126}")
_FORMS = (
    "hostdev:BUS.DEVICE (1.8), hostdev:BUS-PORT (1-1.2), hostdev:VENDOR:PRODUCT (046d:c52b), "
    "hostdev:VENDOR:PRODUCT:SERIAL, hostdev:serial:SERIAL"
)


class DeviceWord(msgspec.Struct, frozen=True):
    """What a word names: a kind of device, and which of the host's when it is one of those."""

    kind: Kind
    host: HostDevice | None = None


def parse_device_word(word: str) -> DeviceWord:
    """Return what the word names.

    Raises:
        DocumentError: T340, with the part of the word that is wrong.
    """
    if word in PLAIN:
        return DeviceWord(PLAIN[word])
    head, colon, rest = word.partition(":")
    if head != "hostdev":
        possible = ", ".join((*PLAIN, "controller:MODEL", _FORMS))
        _refuse(word, f"{_shown(head)} is no kind of device", f"possible: {possible}")
    if not colon or not rest:
        _refuse(word, "it does not say which device of the host is meant", f"possible: {_FORMS}")
    return DeviceWord("hostdev", parse_selector(rest))


def parse_selector(selector: str) -> HostDevice:
    """Return the device of the host that is named; see `HostDevice.selector`, the way back.

    Raises:
        DocumentError: T340, with the part that is wrong.
    """
    word = f"hostdev:{selector}"
    if ":" in selector:
        return _by_ids(word, selector)
    if "-" in selector:
        bus, _, ports = selector.partition("-")
        chain = ports.split(".")
        if len(chain) > DEEPEST:
            _refuse(word, f"the port {_shown(ports)} is {len(chain)} levels deep", f"USB has at most {DEEPEST}")
        for port in chain:
            _number(word, "port", port)
        return HostDevice(path=f"{_number(word, 'bus', bus)}-" + ".".join(str(int(port)) for port in chain))
    bus, dot, device = selector.partition(".")
    if not dot:
        _refuse(word, f"{_shown(selector)} names no device", f"possible: {_FORMS}")
    return HostDevice(bus=_number(word, "bus", bus), device=_number(word, "device number", device))


def is_serial(text: str) -> bool:
    """Tell whether a text can be a serial number, and stand in a plan without meaning more than itself."""
    return _SERIAL.fullmatch(text) is not None


def _by_ids(word: str, selector: str) -> HostDevice:
    vendor, _, rest = selector.partition(":")
    product, colon, serial = (vendor, ":", rest) if vendor == "serial" else rest.partition(":")
    if colon and not is_serial(serial):
        _refuse(
            word,
            f"the serial number {_shown(serial)} is empty, too long, or has a '$', a brace or a control character",
            "it is what the file 'serial' of the device says, in /sys/bus/usb/devices",
        )
    if vendor == "serial":
        return HostDevice(serial=serial)
    ids = {}
    for name, digits in (("vendor", vendor), ("product", product)):
        if not re.fullmatch(r"(0x)?[0-9a-fA-F]{1,4}", digits):
            _refuse(word, f"the {name} {_shown(digits)} is not one to four hexadecimal digits", "such as 046d:c52b")
        ids[name] = int(digits, 16)
    if not ids["vendor"]:
        _refuse(word, "there is no vendor 0000", "see `lsusb`")
    return HostDevice(vendor=ids["vendor"], product=ids["product"], serial=serial or None)


def _number(word: str, what: str, digits: str) -> int:
    if not re.fullmatch(r"0{0,8}[0-9]{1,3}", digits) or not 1 <= int(digits) <= MOST:
        _refuse(word, f"the {what} {_shown(digits)} is not a number from 1 to {MOST}", f"possible: {_FORMS}")
    return int(digits)


def _shown(part: str) -> str:
    return repr(part if len(part) <= LONGEST_WORD else part[:LONGEST_WORD] + "…")


def _refuse(word: str, message: str, help: str) -> NoReturn:
    raise DocumentError([Diagnostic(code="T340", message=f"{_shown(word)} is no device: {message}", help=help)])
