"""A `Topology` becomes the steps that bring it about, in the order that undoing them needs.

What can be taken back without the guest's help comes first: paravirtual controllers and their devices, then
the emulated controllers, which a guest has to let go of, then what sits on them, hubs before what hangs there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from translator.layouts import layout_named
from translator.models import MODELS
from translator.plan import Plan, QmpCommand, Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from translator.errors import Diagnostic, Source
    from translator.layouts import Layout, Recorded
    from translator.plan import Stage
    from translator.topology import Controller, Device, Topology, Untranslated, Value

Coldplug = Literal["auto", "all"]


def compile_plan(
    topology: Topology,
    *,
    coldplug: Coldplug = "auto",
    untranslated: Sequence[Untranslated] = (),
    diagnostics: Sequence[Diagnostic] = (),
) -> Plan:
    """Return the plan of a topology.

    Args:
        coldplug: `auto` puts into the launch stage what QEMU cannot hot-plug, `all` every emulated device.
        untranslated: elements that no step comes from, to be kept in the plan.
        diagnostics: warnings to be kept in the plan.
    """
    return Plan(
        topology=topology,
        steps=tuple(_Compiler(topology, coldplug).steps()),
        untranslated=tuple(untranslated),
        diagnostics=tuple(diagnostics),
    )


class _Compiler:
    def __init__(self, topology: Topology, coldplug: Coldplug) -> None:
        self.topology = topology
        self.layout: Layout = layout_named(topology.layout)
        self.coldplug = coldplug
        self.by_index = {controller.index: controller for controller in topology.controllers}
        self.devices: dict[int, list[Device]] = {index: [] for index in self.by_index}
        for device in topology.devices:
            self.devices[device.controller].append(device)

    def steps(self) -> Iterator[Step]:
        emulated = [one for one in self.topology.controllers if one.type == "emulated"]
        for controller in self.topology.controllers:
            if controller.type in ("pv", "qusb"):
                yield from self.paravirtual(controller)
                for device in self.devices[controller.index]:
                    yield from self.given(controller, device, "")
        for controller in emulated:
            yield from self.controller(controller)
        for controller in emulated:
            # a hub's port sorts before the ports of what hangs on it
            for device in self.devices[controller.index]:
                yield from self.device(controller, device)

    def paravirtual(self, controller: Controller) -> Iterator[Step]:
        domain, id = self.topology.domain, f"controller:usb:{controller.index}"
        served_by = "the kernel's usbback" if controller.type == "pv" else "QEMU"
        record = self.layout.record_controller(domain, controller)
        assert record is not None, "a layout that offers paravirtual controllers records them"
        why = (
            f"Make {controller.model} controller {controller.index} with {controller.ports} ports known to the guest "
            f"and to {served_by} in {_backend(controller)}."
        )
        yield self.recorded(id, None, record, f"{why}{_implied(controller)}", controller.source)
        wait = self.layout.await_backend(domain, controller)
        assert wait is not None, "what is paravirtual has a backend"
        why = f"Wait until {served_by} in {_backend(controller)} has taken controller {controller.index} on."
        yield self.recorded(f"{id}:backend", None, wait, why, controller.source)

    def controller(self, controller: Controller) -> Iterator[Step]:
        id, name = f"controller:usb:{controller.index}", controller.device_model
        record = self.layout.record_controller(self.topology.domain, controller)
        if record:
            why = f"Record controller {controller.index} where the toolstack looks for it."
            yield self.recorded(f"{id}:record", name, record, why, controller.source)
        stage = self.stage(controller)
        what = f"{controller.model} controller {controller.index} with {_count(controller.ports, 'port')}"
        yield self.added(
            id,
            stage,
            name,
            {"driver": controller.driver, **controller.properties, "id": controller.id, **self.place(controller.pci)},
            f"{'Start QEMU with' if stage == 'launch' else 'Hot-plug'} the {what}.{_implied(controller)}",
            controller.source,
        )
        for companion in controller.companions:
            yield Step(
                id=f"{id}:companion-{companion.startport}",
                stage="launch",
                device_model=name,
                action=QmpCommand(
                    "device_add",
                    {
                        "driver": companion.driver,
                        "masterbus": f"{controller.id}.0",
                        "firstport": companion.startport,
                        **companion.properties,
                        **self.place(companion.pci),
                    },
                ),
                undo=None,
                undo_reason="a companion cannot be unplugged; it goes with the machine",
                why=f"Start QEMU with the {companion.model} that serves slower devices "
                f"from port {companion.startport + 1} of controller {controller.index} on.",
                source=companion.source,
            )

    def device(self, controller: Controller, device: Device) -> Iterator[Step]:
        id = f"device:usb:{controller.index}:{device.port}"
        yield from self.given(controller, device, ":record")
        stage: Stage = "launch" if self.coldplug == "all" else "attach"
        verb, at = ("Start QEMU with", "at") if stage == "launch" else ("Plug", "into")
        yield self.added(
            id,
            stage,
            controller.device_model,
            {
                "driver": device.driver,
                **device.properties,
                "id": device.id,
                "bus": f"{controller.id}.0",
                "port": device.port,
            },
            f"{verb} the {_named(device)} {at} port {device.port} of controller {controller.index}.",
            device.source,
        )

    def given(self, controller: Controller, device: Device, part: str) -> Iterator[Step]:
        record = self.layout.record_device(self.topology.domain, controller, device)
        if record:
            why = f"Give the {_named(device)} to port {device.port} of controller {controller.index}."
            id = f"device:usb:{controller.index}:{device.port}{part}"
            yield self.recorded(id, controller.device_model if part else None, record, why, device.source)

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
            undo_reason=None if stage == "attach" else "it is on QEMU's command line, and goes with the machine",
            why=why,
            source=source,
        )

    def stage(self, controller: Controller) -> Stage:
        if self.coldplug == "all" or controller.companions or not MODELS[controller.model].hotplug:
            return "launch"
        if self.topology.domain.hypervisor != "xen" and "q35" in self.topology.domain.machine:
            return "launch"  # QEMU: "Bus 'pcie.0' does not support hotplugging"
        # QEMU: a function other than 0 of a slot in use "cannot be exposed to guest" on a running machine
        return "launch" if controller.pci and not controller.pci.endswith(".0") else "attach"

    def place(self, pci: str | None) -> dict[str, Value]:
        """Return `bus` and `addr` as libvirt spells them: hexadecimal, the function only where it is not 0."""
        if pci is None:
            return {}
        _, bus, rest = pci.split(":")
        slot, function = rest.split(".")
        root = "pcie.0" if "q35" in self.topology.domain.machine else "pci.0"
        number = int(bus, 16)
        addr = f"{int(slot, 16):#x}" + (f".{int(function, 16):#x}" if int(function, 16) else "")
        return {"bus": f"pci.{number}" if number else root, "addr": addr}


def _backend(controller: Controller) -> str:
    return f"domain {0 if controller.backend is None else controller.backend}"


def _implied(controller: Controller) -> str:
    return " The document does not name it; a device or the machine needs it." if controller.implicit else ""


def _named(device: Device) -> str:
    return f"host device {device.host.selector}" if device.host else device.kind


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")
