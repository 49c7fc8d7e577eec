"""The steps that give a domain its controllers with units, and the devices on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from translator.plan import Step
    from translator.steps import Steps
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
        """See `translator.families.FamilySteps`."""
        for controller in self.steps.topology.controllers:
            if controller.family == self.family.name and controller.driver is not None:
                hotplug = self.family.models[controller.model].hotplug
                yield self.steps.controller(controller, hotplug=hotplug)

    def devices(self) -> Iterator[Step]:
        """See `translator.families.FamilySteps`."""
        for device in self.steps.topology.devices:
            if device.family == self.family.name and device.driver is not None:
                controller = self.steps.controllers[device.family, device.controller]
                yield from self.steps.device(
                    controller, device, self.family.seat(controller, device), hotplug=self.family.hotplug
                )
