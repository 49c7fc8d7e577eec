"""The steps that give a domain its USB: paravirtual ones first, then controllers, hubs, readers, and the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from translator.planning.plan import QmpCommand, Step
from translator.planning.steps import backend_of, count, implied, named
from translator.registry.models import DEVICE_KINDS, MODELS
from translator.topology import PARAVIRTUAL_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from translator.planning.plan import Stage
    from translator.planning.steps import Steps
    from translator.topology import Companion, Controller, Device


class UsbSteps:
    """The steps of one plan that are USB's."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.topology = steps.topology
        self.layout = steps.layout
        self.at_launch = set() if steps.running else set(self.needed_at_launch())
        self.usb = [one for one in self.topology.controllers if one.family == "usb"]
        self.given_to: dict[int, list[Device]] = {one.index: [] for one in self.usb if one.type in PARAVIRTUAL_TYPES}
        self.plugged: list[Device] = []
        for device in self.topology.devices:
            if device.family == "usb" and device.controller in self.given_to:
                self.given_to[device.controller].append(device)
            elif device.family in ("usb", "ccid"):
                self.plugged.append(device)

    def paravirtual(self) -> Iterator[Step]:
        """See `translator.families.FamilySteps`."""
        for controller in self.usb:
            if controller.index in self.given_to:
                yield from self.paravirtual_one(controller)
                for device in self.given_to[controller.index]:
                    yield from self.given(controller, device, "")

    def controllers(self) -> Iterator[Step]:
        """See `translator.families.FamilySteps`."""
        companions: dict[int, list[tuple[Controller, Companion]]] = {}
        for master in self.usb:
            for companion in master.companions:
                behind = master.index if companion.after is None else companion.after
                companions.setdefault(behind, []).append((master, companion))
        for controller in self.usb:
            if controller.type == "emulated":
                yield from self.controller(controller)
            for master, companion in companions.get(controller.index, ()):
                yield self.companion(master, companion)

    def devices(self) -> Iterator[Step]:
        """Yield hubs first: the rest may hang on them."""
        for device in self.plugged:
            if device.kind == "hub":
                yield from self.device(device)
        for controller in self.topology.controllers:
            if controller.family == "ccid":
                yield self.reader(controller)
        for device in self.plugged:
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

    def paravirtual_one(self, controller: Controller) -> Iterator[Step]:
        domain, id = self.topology.domain, f"controller:usb:{controller.index}"
        served_by = "the kernel's usbback" if controller.type == "pv" else "QEMU"
        record = self.layout.record_controller(domain, controller)
        assert record is not None, "a layout that offers paravirtual controllers records them"
        why = (
            f"Make {controller.model} controller {controller.index} with {controller.ports} ports known to the guest "
            f"and to {served_by} in {backend_of(controller)}."
        )
        yield self.steps.recorded(id, None, record, f"{why}{implied(controller)}", controller.source)
        wait = self.layout.await_backend(domain, controller)
        assert wait is not None, "what is paravirtual has a backend"
        why = f"Wait until {served_by} in {backend_of(controller)} has taken controller {controller.index} on."
        yield self.steps.recorded(f"{id}:backend", None, wait, why, controller.source)

    def controller(self, controller: Controller) -> Iterator[Step]:
        id, name = f"controller:usb:{controller.index}", controller.device_model
        record = self.layout.record_controller(self.topology.domain, controller)
        if record:
            why = f"Record controller {controller.index} where the toolstack looks for it."
            yield self.steps.recorded(f"{id}:record", name, record, why, controller.source)
        stage = self.stage(controller)
        what = f"{controller.model} controller {controller.index} with {count(controller.ports, 'port')}"
        yield self.steps.added(
            id,
            stage,
            name,
            {
                "driver": controller.driver,
                **controller.properties,
                "id": controller.id,
                **self.steps.place(controller.pci),
            },
            f"{'Start QEMU with' if stage == 'launch' else 'Hot-plug'} the {what}.{implied(controller)}",
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
                    **self.steps.place(companion.pci),
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
        usb = self.steps.controllers["usb", place.controller]
        return self.steps.added(
            f"controller:ccid:{controller.index}",
            stage,
            usb.device_model,
            {
                "driver": controller.driver,
                **controller.properties,
                "id": controller.id,
                "bus": f"{usb.id}.0",
                "port": place.port,
            },
            f"{verb} the smartcard reader {at} port {place.port} of controller {usb.index}.{implied(controller)}",
            controller.source,
        )

    def device(self, device: Device) -> Iterator[Step]:
        controller = self.steps.controllers[device.family, device.controller]
        id = f"device:{device.family}:{controller.index}:{device.port}"
        place = controller.place
        seat = (place.controller, place.port) if place else (controller.index, device.port)
        stage, verb, at = self.plugging(*seat)
        if controller.family == "usb":
            yield from self.given(controller, device, ":record")
        for backend in device.backends:
            yield self.steps.backend(f"{id}:{backend.part}", stage, controller.device_model, backend, device)
        values = {**device.properties, "id": device.id, "bus": f"{controller.id}.0", "port": device.port}
        keys = DEVICE_KINDS[device.kind].keys
        where = f"port {device.port} of controller {controller.index}" if not place else "the reader"
        yield self.steps.added(
            id,
            stage,
            controller.device_model,
            # in libvirt's order, and behind it what the document gives besides
            {"driver": device.driver} | {key: values[key] for key in keys if key in values} | device.properties,
            f"{verb} the {named(device)} {at} {where}.",
            device.source,
        )

    def plugging(self, controller: int, port: str) -> tuple[Stage, str, str]:
        """Return when a port is filled, and two words to say so with."""
        if self.steps.coldplug == "all" or (controller, port) in self.at_launch:
            return "launch", "Start QEMU with", "at"
        return "attach", "Plug", "into"

    def given(self, controller: Controller, device: Device, part: str) -> Iterator[Step]:
        record = self.layout.record_device(self.topology.domain, controller, device)
        if record:
            why = f"Give the {named(device)} to port {device.port} of controller {controller.index}."
            id = f"device:usb:{controller.index}:{device.port}{part}"
            yield self.steps.recorded(id, controller.device_model if part else None, record, why, device.source)
        borrowed = self.layout.borrow(controller, device)
        if borrowed:
            remembered, exchanged = borrowed
            id = f"device:usb:{controller.index}:{device.port}"
            why = f"Note which drivers of the host the {named(device)} has, to give it back to them."
            yield self.steps.recorded(f"{id}:drivers", None, remembered, why, device.source)
            why = f"Take the {named(device)} from them and give it to the kernel's usbback."
            yield self.steps.recorded(f"{id}:usbback", None, exchanged, why, device.source)

    def stage(self, controller: Controller) -> Stage:
        if self.steps.coldplug == "all" or (controller.index, "") in self.at_launch:
            return "launch"
        if controller.companions or not MODELS[controller.model].hotplug:
            return "launch"
        return self.steps.stage(controller.pci)
