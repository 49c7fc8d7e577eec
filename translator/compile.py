"""A `Topology` becomes the steps that bring it about, in the order that undoing them needs.

What can be taken back without the guest's help comes first: paravirtual controllers and their devices, then
the emulated controllers, which a guest has to let go of, then what sits on them, hubs before what hangs there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from translator.layouts import layout_named
from translator.models import DEVICE_KINDS, MODELS, machine_row
from translator.pci import BOARDS
from translator.plan import LaunchOption, Plan, QmpCommand, Step
from translator.topology import PRIMARY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from translator.errors import Diagnostic, Source
    from translator.layouts import Layout, Recorded
    from translator.pci import AddedBus
    from translator.plan import Action, Stage
    from translator.topology import Backend, Companion, Controller, Device, Topology, Untranslated, Value

Coldplug = Literal["auto", "all"]

# A backend's name among its arguments, the command that removes it, and what each part is for.
_NAMES = {"chardev": "id", "blockdev": "node-name"}
_REMOVALS = {"chardev": "chardev-remove", "blockdev": "blockdev-del"}
_PARTS = {
    "chardev": "Make the host's end of",
    "storage": "Open what is behind",
    "format": "Read the format of",
}


def compile_plan(
    topology: Topology,
    *,
    coldplug: Coldplug = "auto",
    running: bool = False,
    busses: Sequence[AddedBus] = (),
    untranslated: Sequence[Untranslated] = (),
    diagnostics: Sequence[Diagnostic] = (),
) -> Plan:
    """Return the plan of a topology.

    Args:
        coldplug: `auto` puts into the launch stage what QEMU cannot hot-plug, `all` every emulated device.
        running: whether a domain that runs has all this: then only what cannot be unplugged is in the launch stage.
        busses: the PCI busses, by index, that controllers sit on and that the machine does not have of itself.
        untranslated: elements that no step comes from, to be kept in the plan.
        diagnostics: warnings to be kept in the plan.
    """
    return Plan(
        topology=topology,
        steps=(*_bus_steps(topology, busses), *_Compiler(topology, coldplug, running).steps()),
        untranslated=tuple(untranslated),
        diagnostics=tuple(diagnostics),
    )


# QEMU's driver for the controller of a PCI bus. Source: virDomainControllerPCIModelName (conf/domain_conf.c).
_BUS_DRIVERS = {
    "pcie-root-port": "pcie-root-port",
    "pcie-to-pci-bridge": "pcie-pci-bridge",
    "pci-bridge": "pci-bridge",
    "dmi-to-pci-bridge": "i82801b11-bridge",
    "pcie-switch-upstream-port": "x3130-upstream",
    "pcie-switch-downstream-port": "xio3130-downstream",
}
_AT_LAUNCH = "it is on QEMU's command line, and goes with the machine"


def _bus_steps(topology: Topology, busses: Sequence[AddedBus]) -> Iterator[Step]:
    """Open the PCI busses on the way to a controller. Source: qemuBuildControllerPCIDevProps, as observed."""
    roots = {"q35": "pcie.0", "virt": "pcie.0"}
    root = roots.get(machine_row(topology.domain.machine).board or "", "pci.0")
    for bus in busses:
        driver, address = _BUS_DRIVERS.get(bus.model), bus.address
        if driver is None or address is None:
            continue  # an expander is the machine's own: whoever asks for one has to start QEMU with it
        numbers: dict[str, Value] = {}
        if driver in ("pcie-root-port", "xio3130-downstream"):
            numbers = {"port": address.slot << 3 | address.function, "chassis": bus.index}
        elif driver == "pci-bridge":
            numbers = {"chassis_nr": bus.index}
        yield Step(
            id=f"controller:pci:{bus.index}",
            stage="launch",
            device_model=PRIMARY,
            action=QmpCommand(
                "device_add",
                {
                    "driver": driver,
                    **numbers,
                    "id": f"pci.{bus.index}",
                    "bus": f"pci.{address.bus}" if address.bus else root,
                    **({"multifunction": True} if address.multifunction else {}),
                    "addr": f"{address.slot:#x}" + (f".{address.function:#x}" if address.function else ""),
                },
            ),
            undo=None,
            undo_reason=_AT_LAUNCH,
            why=f"Start QEMU with the {bus.model} that opens PCI bus {bus.index} to the USB controllers.",
            source=topology.controllers[0].source,
        )


class _Compiler:
    def __init__(self, topology: Topology, coldplug: Coldplug, running: bool) -> None:
        self.topology = topology
        self.layout: Layout = layout_named(topology.layout)
        self.coldplug = coldplug
        self.board = BOARDS.get(machine_row(topology.domain.machine).board or "")
        self.controllers = {(one.family, one.index): one for one in topology.controllers}
        self.at_launch = set() if running else set(self.needed_at_launch())

    def steps(self) -> Iterator[Step]:
        usb = [one for one in self.topology.controllers if one.family == "usb"]
        companions: dict[int, list[tuple[Controller, Companion]]] = {}
        for master in usb:
            for companion in master.companions:
                behind = master.index if companion.after is None else companion.after
                companions.setdefault(behind, []).append((master, companion))
        given: dict[int, list[Device]] = {one.index: [] for one in usb if one.type in ("pv", "qusb")}
        plugged = []
        for device in self.topology.devices:
            if device.family == "usb" and device.controller in given:
                given[device.controller].append(device)
            else:
                plugged.append(device)
        for controller in usb:
            if controller.index in given:
                yield from self.paravirtual(controller)
                for device in given[controller.index]:
                    yield from self.given(controller, device, "")
        for controller in usb:
            if controller.type == "emulated":
                yield from self.controller(controller)
            for master, companion in companions.get(controller.index, ()):
                yield self.companion(master, companion)
        # hubs first: the rest may hang on them
        for device in plugged:
            if device.kind == "hub":
                yield from self.device(device)
        for controller in self.topology.controllers:
            if controller.family == "ccid":
                yield self.reader(controller)
        for device in plugged:
            if device.kind != "hub":
                yield from self.device(device)

    def needed_at_launch(self) -> Iterator[tuple[int, str]]:
        """Give the ports of what QEMU has from its start on or not at all, and of all hubs on the way there.

        An audio backend has no QMP command; so what plays on one cannot be hot-plugged either.
        """
        for device in self.topology.devices:
            if any(backend.kind == "audiodev" for backend in device.backends) or device.kind == "sound":
                port = device.port
                while port:
                    yield device.controller, port
                    port = port.rpartition(".")[0]
                yield device.controller, ""

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

    def companion(self, controller: Controller, companion: Companion) -> Step:
        return Step(
            id=f"controller:usb:{controller.index}:companion-{companion.startport}",
            stage="launch",
            device_model=controller.device_model,
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

    def reader(self, controller: Controller) -> Step:
        place = controller.place
        assert place is not None, "a ccid controller sits on a USB port"
        stage, verb, at = self.plugging(place.controller, place.port)
        usb = self.controllers["usb", place.controller]
        return self.added(
            f"controller:ccid:{controller.index}",
            stage,
            usb.device_model,
            {"driver": controller.driver, "id": controller.id, "bus": f"{usb.id}.0", "port": place.port},
            f"{verb} the smartcard reader {at} port {place.port} of controller {usb.index}.{_implied(controller)}",
            controller.source,
        )

    def device(self, device: Device) -> Iterator[Step]:
        controller = self.controllers[device.family, device.controller]
        id = f"device:{device.family}:{controller.index}:{device.port}"
        place = controller.place
        seat = (place.controller, place.port) if place else (controller.index, device.port)
        stage, verb, at = self.plugging(*seat)
        if controller.family == "usb":
            yield from self.given(controller, device, ":record")
        for backend in device.backends:
            yield self.backend(f"{id}:{backend.part}", stage, controller.device_model, backend, device)
        values = {**device.properties, "id": device.id, "bus": f"{controller.id}.0", "port": device.port}
        keys = DEVICE_KINDS[device.kind].keys
        assert set(device.properties) <= set(keys), "every property has a place in libvirt's order"
        where = f"port {device.port} of controller {controller.index}" if not place else "the reader"
        yield self.added(
            id,
            stage,
            controller.device_model,
            {"driver": device.driver} | {key: values[key] for key in keys if key in values},
            f"{verb} the {_named(device)} {at} {where}.",
            device.source,
        )

    def plugging(self, controller: int, port: str) -> tuple[Stage, str, str]:
        """Return when a port is filled, and two words to say so with."""
        if self.coldplug == "all" or (controller, port) in self.at_launch:
            return "launch", "Start QEMU with", "at"
        return "attach", "Plug", "into"

    def backend(self, id: str, stage: Stage, device_model: str | None, backend: Backend, device: Device) -> Step:
        action: Action
        undo: Action | None
        if backend.kind == "audiodev":
            action, undo = LaunchOption("-audiodev", backend.arguments), None
            why = f"Let the {_named(device)} play on the host's audio, once for all that use this backend."
        else:
            key = _NAMES[backend.kind]
            action = QmpCommand(f"{backend.kind}-add", backend.arguments)
            undo = QmpCommand(_REMOVALS[backend.kind], {key: backend.arguments[key]})
            why = f"{_PARTS[backend.part]} the {_named(device)}."
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
            undo_reason=None if stage == "attach" else _AT_LAUNCH,
            why=why,
            source=source,
        )

    def stage(self, controller: Controller) -> Stage:
        if self.coldplug == "all" or (controller.index, "") in self.at_launch:
            return "launch"
        if controller.companions or not MODELS[controller.model].hotplug:
            return "launch"
        # QEMU: a function other than 0 of a slot in use "cannot be exposed to guest" on a running machine;
        # PCI Express has no hot-plug on its first bus; and any other bus is a controller that is no step of ours
        at_hand = controller.pci is None or (controller.pci.split(":")[1] == "00" and controller.pci.endswith(".0"))
        return "attach" if at_hand and machine_row(self.topology.domain.machine).hotplug else "launch"

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


def _backend(controller: Controller) -> str:
    return f"domain {0 if controller.backend is None else controller.backend}"


def _implied(controller: Controller) -> str:
    return " The document does not name it; a device or the machine needs it." if controller.implicit else ""


def _named(device: Device) -> str:
    return f"host device {device.host.selector}" if device.host else device.kind


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")
