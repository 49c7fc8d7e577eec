"""The steps that give a domain its controllers with units, and the devices on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from translator.planning.plan import Step
    from translator.planning.steps import Steps
    from translator.units.family import UnitFamily


class UnitSteps:
    """See `translator.families.FamilySteps`."""

    def __init__(self, family: UnitFamily, steps: Steps) -> None:
        self.family = family
        self.steps = steps

    def paravirtual(self) -> Iterator[Step]:
        """See `translator.families.FamilySteps`."""
        return iter(())

    def controllers(self) -> Iterator[Step]:
        """See `translator.families.FamilySteps`; where a device is there from the start, so is its controller."""
        topology, family = self.steps.topology, self.family
        with_devices = {one.controller for one in topology.devices if one.family == family.name and one.driver}
        for controller in topology.controllers:
            if controller.family == family.name and controller.driver is not None:
                fixed = not family.hotplug and controller.index in with_devices
                hotplug = family.models[controller.model].hotplug and not fixed
                yield self.steps.controller(controller, hotplug=hotplug)

    def devices(self) -> Iterator[Step]:
        """See `translator.families.FamilySteps`."""
        for device in self.steps.topology.devices:
            if device.family == self.family.name and device.driver is not None:
                controller = self.steps.controllers[device.family, device.controller]
                yield from self.steps.device(
                    controller, device, self.family.seat(controller, device), hotplug=self.family.hotplug
                )
