"""The making of steps: one action each with its reverse and its reason, in the form that all families share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from translator.layouts import layout_named
from translator.models import machine_row
from translator.pci import BOARDS
from translator.plan import LaunchOption, QmpCommand, Step

if TYPE_CHECKING:
    from translator.errors import Source
    from translator.layouts import Layout, Recorded
    from translator.plan import Action, Stage
    from translator.topology import Backend, Controller, Device, Topology, Value

Coldplug = Literal["auto", "all"]

AT_LAUNCH = "it is on QEMU's command line, and goes with the machine"
# A backend's name among its arguments, the command that removes it, and what each part is for.
_NAMES = {"chardev": "id", "blockdev": "node-name"}
_REMOVALS = {"chardev": "chardev-remove", "blockdev": "blockdev-del"}
_PARTS = {
    "chardev": "Make the host's end of",
    "storage": "Open what is behind",
    "format": "Read the format of",
}


class Steps:
    """The steps of one plan in the making.

    `coldplug` is `auto` where only that is in the launch stage which QEMU cannot hot-plug, `all` for every
    emulated device; `running` says that a domain that runs has all this, and what it has can be unplugged.
    """

    def __init__(self, topology: Topology, coldplug: Coldplug, *, running: bool) -> None:
        self.topology = topology
        self.layout: Layout = layout_named(topology.layout)
        self.coldplug = coldplug
        self.running = running
        self.board = BOARDS.get(machine_row(topology.domain.machine).board or "")
        self.controllers = {(one.family, one.index): one for one in topology.controllers}

    def recorded(self, id: str, device_model: str | None, record: Recorded, why: str, source: Source | None) -> Step:
        return Step(
            id=id,
            stage="attach",
            device_model=device_model,
            action=record.action,
            undo=record.undo,
            undo_reason=None,
            why=why,
            source=source,
        )

    def added(
        self,
        id: str,
        stage: Stage,
        device_model: str | None,
        arguments: dict[str, Value],
        why: str,
        source: Source | None,
    ) -> Step:
        return Step(
            id=id,
            stage=stage,
            device_model=device_model,
            action=QmpCommand("device_add", arguments),
            undo=QmpCommand("device_del", {"id": arguments["id"]}) if stage == "attach" else None,
            undo_reason=None if stage == "attach" else AT_LAUNCH,
            why=why,
            source=source,
        )

    def backend(self, id: str, stage: Stage, device_model: str | None, backend: Backend, device: Device) -> Step:
        action: Action
        undo: Action | None
        if backend.kind == "audiodev":
            action, undo = LaunchOption("-audiodev", backend.arguments), None
            why = f"Let the {named(device)} play on the host's audio, once for all that use this backend."
        else:
            key = _NAMES[backend.kind]
            action = QmpCommand(f"{backend.kind}-add", backend.arguments)
            undo = QmpCommand(_REMOVALS[backend.kind], {key: backend.arguments[key]})
            why = f"{_PARTS[backend.part]} the {named(device)}."
        return Step(
            id=id,
            stage=stage,
            device_model=device_model,
            action=action,
            undo=undo,
            undo_reason=None if undo else "an audio backend goes with QEMU",
            why=why,
            source=device.source,
        )

    def place(self, pci: str | None) -> dict[str, Value]:
        """Return `bus` and `addr` as libvirt spells them: hexadecimal, the function only where it is not 0."""
        if pci is None:
            return {}
        _, bus, rest = pci.split(":")
        slot, function = rest.split(".")
        root = "pcie.0" if self.board and self.board.express else "pci.0"
        number = int(bus, 16)
        addr = f"{int(slot, 16):#x}" + (f".{int(function, 16):#x}" if int(function, 16) else "")
        return {"bus": f"pci.{number}" if number else root, "addr": addr}


def backend_of(controller: Controller) -> str:
    return f"domain {0 if controller.backend is None else controller.backend}"


def implied(controller: Controller) -> str:
    return " The document does not name it; a device or the machine needs it." if controller.implicit else ""


def named(device: Device) -> str:
    return f"host device {device.host.selector}" if device.host else device.kind


def count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")
