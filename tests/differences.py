"""Where we differ from libvirt on purpose: each rule tells which differences it accounts for.

docs/libvirt-differences.md has, below a heading with the rule's name, the reason.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lxml import etree

import translator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.corpus import Comparison

# what libvirt says of PCI devices that are none of ours
_OTHERS = re.compile(r"Cannot automatically add a new PCI bus|Invalid PCI address")
_TWICE = re.compile(r"Attempted double use of PCI Address 0000:([0-9a-f]+):([0-9a-f]+)\.([0-7])")


def _refused(one: Comparison, pattern: str) -> bool:
    """Tell whether only we refuse, and for nothing but what the pattern says."""
    first_lines = re.findall(r"^\S+ error\[.*", one.ours.error or "", re.MULTILINE)
    alone = one.differs == ("verdict",) and one.case.expected.error is None
    return alone and bool(first_lines) and all(re.search(pattern, line) for line in first_lines)


def _unknown_word(one: Comparison) -> bool:
    return _refused(one, r"error\[T20[13]\]: (element|attribute) \S+ is not allowed|<controller> lacks the attribute")


def _unknown_property(one: Comparison) -> bool:
    return _refused(one, r"error\[T376\]: QEMU's \S+ has no property|error\[T379\]")


def _other_bus(one: Comparison) -> bool:
    return _refused(one, r"error\[T306\]: a USB device cannot have an address of type")


def _child_hub_first(one: Comparison) -> bool:
    if one.differs != ("verdict",) or "there is no hub at port" not in (one.case.expected.error or ""):
        return False
    plan = translator.plan(translator.load(one.case.xml))
    return any(warning.code == "T332" for warning in plan.diagnostics)


def _master_first(one: Comparison) -> bool:
    """Only the companions' place differs, and the bus' name where libvirt takes it from one before its master."""
    if "order" not in one.differs or not set(one.differs) <= {"order", "ports"}:
        return False
    theirs, mine = one.case.expected.devices or (), one.ours.devices or ()
    return _others_in_order(theirs) == _others_in_order(mine) and _companions(theirs) == _companions(mine)


def _others_in_order(devices: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(device["driver"], str(device.get("id"))) for device in devices if "masterbus" not in device]


def _companions(devices: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return sorted((device["driver"], str(device.get("addr"))) for device in devices if "masterbus" in device)


_HOST_ADDRESS = re.compile(rb"<source[^>]*>(?:<(?:vendor|product)[^>]*>)*<address([^>]*)>")
_PCI_ADDRESS = re.compile(rb"<controller[^>]*ich9-uhci1[^>]*>(?:<master[^>]*>)?<address type=.pci.([^>]*)>")
_ZERO = re.compile(rb"(?:bus|device)=.\s*\+?0+.(?:\s|/|$)")
_SLOT = re.compile(rb"(?:bus|slot|function)=.(?:0x)?0*[1-9a-f]")


def _zero_in_host_address(one: Comparison) -> bool:
    zero = any(_ZERO.search(found) for found in _HOST_ADDRESS.findall(one.case.xml))
    return zero and (_refused(one, r"error\[T312\]") or one.differs == ("properties",))


def _zero_address(one: Comparison) -> bool:
    empty = any(not _SLOT.search(found) for found in _PCI_ADDRESS.findall(one.case.xml))
    return empty and one.differs == ("pci",)


def _others_fault(one: Comparison) -> bool:
    error = one.case.expected.error or ""
    return one.differs == ("verdict",) and bool(_OTHERS.search(error) or _twice_among_others(error, one.case.xml))


def _twice_among_others(error: str, xml: bytes) -> bool:
    """Tell whether libvirt complains of a PCI address that no USB controller names."""
    found = _TWICE.search(error)
    if found is None:
        return False
    addresses = etree.fromstring(xml).iterfind("devices/controller[@type='usb']/address[@type='pci']")
    named = {tuple(int(one.get(name, "0"), 0) for name in ("bus", "slot", "function")) for one in addresses}
    return tuple(int(number, 16) for number in found.groups()) not in named


def _open_socket(one: Comparison) -> bool:
    theirs = one.case.expected.backends or ()
    return one.differs == ("backends",) and any("fd" in backend for backend in theirs)


DIFFERENCES: Mapping[str, Callable[[Comparison], bool]] = {
    "Unknown words are refused": _unknown_word,
    "Properties are known": _unknown_property,
    "USB devices are on USB": _other_bus,
    "A hub before the one it hangs on is accepted with a warning": _child_hub_first,
    "Companions come right after their master": _master_first,
    "A host's device has a bus and a number": _zero_in_host_address,
    "A PCI address of zeros is none": _zero_address,
    "Faults of other devices are not looked for": _others_fault,
    "A socket to listen on is named by its path": _open_socket,
}


def rule_of(comparison: Comparison) -> str | None:
    """Return the name of the rule that accounts for what differs, None if there is none."""
    return next((name for name, accounts in DIFFERENCES.items() if accounts(comparison)), None)
