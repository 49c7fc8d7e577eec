"""The making of steps: one action each with its reverse and its reason, in the form that all families share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from translator.layouts import layout_named
from translator.placing.pci import BOARDS
from translator.planning.plan import LaunchOption, QmpCommand, Step
from translator.registry.models import machine_row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from translator.errors import Source
    from translator.layouts import Layout, Recorded
    from translator.planning.plan import Action, Stage
    from translator.topology import Backend, Controller, Device, Topology, Value

Coldplug = Literal["auto", "all"]
COLDPLUG: tuple[Coldplug, ...] = get_args(Coldplug)

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
    emulated device; `running` says that a domain that runs has all this, and what it has can be unplugged; `there`
    are the subjects of what such a domain has, where the rest is to come to it.
    """

    def __init__(
        self, topology: Topology, coldplug: Coldplug, *, running: bool, there: frozenset[str] = frozenset()
    ) -> None:
        self.topology = topology
        self.layout: Layout = layout_named(topology.layout)
        self.coldplug = coldplug
        self.running = running
        self.there = there
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

    def controller(self, controller: Controller, *, hotplug: bool) -> Step:
        """Give the machine an emulated controller; `hotplug` tells whether QEMU can add it while it runs."""
        stage = self.stage(controller.pci) if hotplug else "launch"
        id = f"controller:{controller.family}:{controller.index}"
        what = f"{controller.model} controller {controller.index} of family {controller.family}"
        return self.added(
            id,
            stage,
            controller.device_model,
            {
                "driver": controller.driver,
                **controller.properties,
                **({"id": controller.id} if controller.id is not None else {}),
                **self.place(controller.pci),
            },
            f"{'Start QEMU with' if stage == 'launch' else 'Hot-plug'} the {what}.{implied(controller)}",
            controller.source,
        )

    def device(
        self, controller: Controller, device: Device, seat: dict[str, Value], *, hotplug: bool
    ) -> Iterator[Step]:
        """Plug a device into its unit; `seat` are the properties that name it."""
        stage: Stage = "attach" if hotplug and self.coldplug != "all" else "launch"
        id = f"device:{device.family}:{device.controller}:{device.port}"
        for backend in device.backends:
            yield self.backend(f"{id}:{backend.part}", stage, controller.device_model, backend, device)
        verb, at = ("Start QEMU with", "at") if stage == "launch" else ("Plug", "into")
        yield self.added(
            id,
            stage,
            controller.device_model,
            {"driver": device.driver, **seat, **device.properties, "id": device.id},
            f"{verb} the {named(device)} {at} unit {device.port} of {device.family} controller {device.controller}.",
            device.source,
        )

    def stage(self, pci: str | None) -> Stage:
        """Return when a PCI controller can be added.

        QEMU: a function other than 0 of a slot in use "cannot be exposed to guest" on a running machine; PCI Express
        has no hot-plug on its first bus; and any other bus is a controller that is there from the start.
        """
        if pci is not None and self.behind_port(pci):
            return "attach" if self.coldplug != "all" else "launch"
        at_hand = pci is None or (pci.split(":")[1] == "00" and pci.endswith(".0"))
        hotplug = at_hand and self.coldplug != "all" and machine_row(self.topology.domain.machine).hotplug
        return "attach" if hotplug else "launch"

    def behind_port(self, pci: str) -> bool:
        """Tell whether an address is behind a port that a running machine has, which takes one device then too."""
        number = int(pci.split(":")[1], 16)
        port = self.controllers.get(("pci", number))
        if port is None or port.model not in ("pcie-root-port", "pcie-switch-downstream-port"):
            return False
        return self.running or f"controller:pci:{number}" in self.there

    def place(self, pci: str | None) -> dict[str, Value]:
        """Return `bus` and `addr` as libvirt spells them: hexadecimal, the function only where it is not 0."""
        if pci is None:
            return {}
        _, bus, rest = pci.split(":")
        slot, function = rest.split(".")
        root = "pcie.0" if self.board and self.board.express else "pci.0"
        number = int(bus, 16)
        opened = self.controllers.get(("pci", number))
        name = opened.id if opened is not None and opened.id is not None else f"pci.{number}"
        if opened is not None and opened.driver == "spapr-pci-host-bridge":
            name = f"{name}.0"
        addr = f"{int(slot, 16):#x}" + (f".{int(function, 16):#x}" if int(function, 16) else "")
        return {"bus": name if number else root, "addr": addr}


def backend_of(controller: Controller) -> str:
    return f"domain {0 if controller.backend is None else controller.backend}"


def implied(controller: Controller) -> str:
    return " The document does not name it; a device or the machine needs it." if controller.implicit else ""


def named(device: Device) -> str:
    named = device.host or device.scsi
    return f"host device {named.selector}" if named else device.kind


def count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")
