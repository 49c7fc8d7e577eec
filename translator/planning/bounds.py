"""What the steps of a plan may touch: a plan file that names anything else is not one of ours.

A plan is carried out with the rights of whoever applies it, and it may have come a long way: its steps are held to
the places where layouts keep a domain's controllers and devices, and to the commands that plug and unplug.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from translator.planning.plan import LaunchOption, QmpCommand, SysfsWrites, Transaction

if TYPE_CHECKING:
    from collections.abc import Iterator

    from translator.planning.plan import Action, Step, XenstoreOp

_COMMANDS = ("device_add", "device_del", "chardev-add", "chardev-remove", "blockdev-add", "blockdev-del")
_OPTIONS = ("-audiodev",)
_BINDINGS = re.compile(r"/sys/bus/usb/drivers/(?!\.\.?/)[^/]+/(bind|unbind)")
_INTERFACE = re.compile(r"\$\{hostdev:[^}]+\}|[0-9]+-[0-9]+(\.[0-9]+)*:[0-9]+\.[0-9]+")
# Operations that look and change nothing.
_LOOKS = ("expect", "expect-absent", "expect-nowhere")
# The directories of the layouts, each for a domain's controllers or devices; what is below them is ours to remove.
_RECORDS = "device/vusb|device/vscsi|device-model|usb|usbctrl"
_BACKENDS = "vusb|qusb|vscsi"


def strays(steps: tuple[Step, ...], domid: int | None) -> Iterator[str]:
    """Yield what the steps of a plan file touch beyond what is a plan's to touch.

    Args:
        domid: the domain that the plan is bound to, whose nodes alone it may write.
    """
    ours, removable = _places(domid)
    for step in steps:
        if step.undo is None and not step.undo_reason:
            yield f"step {step.id} has no undo and no reason for that"
        for action in (step.action, step.undo):
            for what in _beyond(action, ours, removable):
                yield f"step {step.id} {what}"


def _beyond(action: Action | None, ours: re.Pattern[str], removable: re.Pattern[str]) -> Iterator[str]:
    match action:
        case QmpCommand(command) if command not in _COMMANDS:
            yield f"gives QEMU the command {command!r}"
        case LaunchOption(option) if option not in _OPTIONS:
            yield f"gives QEMU the option {option!r}"
        case SysfsWrites(writes):
            for write in writes:
                if not _BINDINGS.fullmatch(write.path) or not _INTERFACE.fullmatch(write.value):
                    yield f"writes {write.value!r} to {write.path!r}"
        case Transaction(operations, _, otherwise):
            for operation in (*operations, *(otherwise or ())):
                if not _is_ours(operation, ours, removable):
                    yield f"does {operation.op} at {operation.path!r}"


def _is_ours(operation: XenstoreOp, ours: re.Pattern[str], removable: re.Pattern[str]) -> bool:
    if operation.op in _LOOKS:
        return True
    if any(part in ("", ".", "..") for part in operation.path.split("/")[1:]):
        return False
    return (removable if operation.op == "rm" else ours).fullmatch(operation.path) is not None


def _places(domid: int | None) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return what may be written, and what may be removed with all that is below it."""
    domain = re.escape("${domid}" if domid is None else str(domid))
    backend = rf"/local/domain/(?:\$\{{backend_domid:[^}}]+\}}|[0-9]+)/backend/(?:{_BACKENDS})"
    below = (
        rf"/libxl/{domain}/(?:{_RECORDS})/.+",
        r"/libxl/usbback/.+",
        rf"/local/domain/{domain}/device/(?:vusb|vscsi)/.+",
        rf"{backend}/{domain}/.+",
    )
    above = (
        rf"/libxl/{domain}/(?:device|{_RECORDS})",
        r"/libxl/usbback",
        rf"/local/domain/{domain}/device/(?:vusb|vscsi)",
        rf"{backend}(?:/{domain})?",
    )
    return re.compile("|".join((*below, *above))), re.compile("|".join(below))
