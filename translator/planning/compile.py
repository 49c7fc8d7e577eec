"""A `Topology` becomes the steps that bring it about, in the order that undoing them needs.

What can be taken back without the guest's help comes first: paravirtual controllers and their devices, then
the emulated controllers, which a guest has to let go of, then what sits on them, hubs before what hangs there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from translator.families import families
from translator.planning.plan import Plan, Step
from translator.planning.steps import Coldplug, Steps
from translator.topology import PRIMARY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from translator.errors import Diagnostic
    from translator.topology import Topology, Untranslated


def compile_plan(
    topology: Topology,
    *,
    coldplug: Coldplug = "auto",
    running: bool = False,
    there: frozenset[str] = frozenset(),
    untranslated: Sequence[Untranslated] = (),
    diagnostics: Sequence[Diagnostic] = (),
) -> Plan:
    """Return the plan of a topology.

    Args:
        coldplug: `auto` puts into the launch stage what QEMU cannot hot-plug, `all` every emulated device.
        running: whether a domain that runs has all this: then only what cannot be unplugged is in the launch stage.
        there: the subjects of what a running domain has of this: what has room on it can come.
        untranslated: elements that no step comes from, to be kept in the plan.
        diagnostics: warnings to be kept in the plan.
    """
    steps = Steps(topology, coldplug, running=running, there=there)
    return Plan(
        topology=topology,
        steps=(*_device_model_steps(topology), *_family_steps(steps)),
        untranslated=tuple(untranslated),
        diagnostics=tuple(diagnostics),
    )


def _family_steps(steps: Steps) -> Iterator[Step]:
    of_families = [family.steps(steps) for family in families()]
    for one in of_families:
        yield from one.paravirtual()
    for one in of_families:
        yield from one.controllers()
    for one in of_families:
        yield from one.devices()


def launch_only(topology: Topology, *, running: bool) -> frozenset[str]:
    """Return the ids of the controllers and devices that cannot be plugged; or unplugged, where all this runs."""
    steps = _family_steps(Steps(topology, "auto", running=running))
    return frozenset(step.subject for step in steps if step.stage == "launch")


def _device_model_steps(topology: Topology) -> Iterator[Step]:
    """Record the device models besides the primary one, before anything that is theirs."""
    for model in topology.device_models:
        if model.name == PRIMARY:
            continue
        from translator.layouts.emulators import record

        action, undo = record(topology.domain, model)
        theirs = [one for one in topology.controllers if one.device_model == model.name]
        what = ", ".join(f"{one.family} controller {one.index}" for one in theirs) or "nothing yet"
        yield Step(
            id=f"device-model:{model.name}",
            stage="attach",
            device_model=None,
            action=action,
            undo=undo,
            undo_reason=None,
            why=f"Record device model {model.name!r}, which emulates {what}, where whoever comes next looks for it.",
            source=theirs[0].source if theirs else None,
        )
