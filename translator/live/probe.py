"""What a running QEMU has, before anything is asked of it: drivers, their properties, and what it cannot hot-plug.

A plan is pure and made for any QEMU; whether this one can carry it out is asked here, once for each driver and all
at once (`device-list-properties`, about a millisecond each). QEMU does not tell what it can hot-plug: that is the
registry's word, which a test holds to a real QEMU's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from translator.errors import Diagnostic, HostError
from translator.hosts.qmp import CommandRefused
from translator.live.drivers import Driver, Property
from translator.planning.plan import QmpCommand
from translator.registry import rows as registry
from translator.registry.knob import knob_of_type, spelled
from translator.registry.models import hot_plugs
from translator.topology import PRIMARY, Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from translator.hosts.qmp import Qmp
    from translator.live.drivers import KnownDrivers
    from translator.live.host import Host
    from translator.planning.plan import Step
    from translator.registry.models import Model

# What `device_add` takes besides the driver's properties.
_NO_PROPERTIES = frozenset({"driver", "id", "bus"})
_ROOTS = (None, "pci.0", "pcie.0")


class Difference(NamedTuple):
    """One thing in which a QEMU and the registry do not agree; `name` is None where it is the whole driver."""

    driver: str
    name: str | None
    ours: str | None
    theirs: str | None

    def __str__(self) -> str:
        what = self.driver if self.name is None else f"{self.driver}.{self.name}"
        if self.theirs is None:
            return f"{what}: not in this QEMU"
        if self.ours is None:
            return f"{what}: {self.theirs}, and the registry does not know it"
        return f"{what}: {self.theirs}, and {self.ours} in the registry"


class Survey(NamedTuple):
    """Everything of the registry that one QEMU has.

    `drivers` maps each to its properties, and those that this QEMU lacks to None.
    """

    version: str
    machine: str
    drivers: Mapping[str, Driver | None]

    def differences(self) -> tuple[Difference, ...]:
        """Return in what it is not as the registry says, driver by driver."""
        return tuple(one for driver, found in self.drivers.items() for one in differences(driver, found))


async def survey(monitor: Qmp, known: KnownDrivers) -> Survey:
    """Ask a QEMU for every driver of the registry.

    Raises:
        HostError: the monitor is lost.
    """
    machine, found = await asyncio.gather(monitor.machine(), ask(monitor, registry.drivers(), known))
    return Survey(monitor.version, machine.type, found)


async def ask(monitor: Qmp, drivers: Iterable[str], known: KnownDrivers) -> dict[str, Driver | None]:
    """Return the properties of each driver, None for one that this QEMU lacks; what is known is not asked again.

    A monitor without the question tells of no driver at all.
    """
    before = known.of(monitor.version)
    names = list(dict.fromkeys(drivers))
    unknown = [name for name in names if name not in before]
    try:
        answers = await asyncio.gather(*(_ask(monitor, name) for name in unknown))
    except CommandRefused as error:
        if error.error_class != "CommandNotFound":
            raise
        return {}
    found = dict(zip(unknown, answers, strict=True))
    known.add(monitor.version, {name: driver for name, driver in found.items() if driver is not None})
    return {name: before[name] if name in before else found[name] for name in names}


async def check(steps: Iterable[Step], host: Host, domid: int | None, machine: str) -> None:
    """Refuse steps that the domain's QEMUs cannot carry out, before the first is begun.

    Args:
        machine: the type of the running machine.

    Raises:
        HostError: T460 to T463, with the element that asked for it and what would do instead.
    """
    steps = tuple(step for step, _ in _added(steps))
    for name in sorted({step.device_model or PRIMARY for step in steps}):
        ours = [step for step in steps if (step.device_model or PRIMARY) == name]
        await check_steps(ours, await host.qmp(name, domid), machine, host.known_drivers)


async def check_steps(steps: Iterable[Step], monitor: Qmp, machine: str, known: KnownDrivers) -> None:
    """Do what `check` does for the steps of one device model; those that add no device are passed over."""
    added = list(_added(steps))
    found = await ask(monitor, (driver for _, arguments in added if (driver := _driver(arguments))), known)
    for step, arguments in added:
        driver = _driver(arguments)
        if driver in found:
            problem = _problem(step, arguments, found[driver], machine)
            if problem is not None:
                code, message, wanted = problem
                help = await _instead(driver, wanted, monitor, machine if code == "T463" else None)
                raise HostError(code, f"QEMU {monitor.version} {message}", help, step.source)


def _added(steps: Iterable[Step]) -> Iterator[tuple[Step, Mapping[str, Value]]]:
    """Yield the steps that add a device, each with what QEMU is told of it."""
    for step in steps:
        if isinstance(step.action, QmpCommand) and step.action.execute == "device_add":
            yield step, step.action.arguments


def _driver(arguments: Mapping[str, Value]) -> str:
    return str(arguments.get("driver", ""))


def _problem(
    step: Step, arguments: Mapping[str, Value], driver: Driver | None, machine: str
) -> tuple[str, str, str | None] | None:
    """Return what is wrong with a step: code, message, and the property that a model must have instead."""
    name, subject = _driver(arguments), _subject(step, arguments)
    if driver is None:
        return "T460", f"has no driver {name!r}, which {subject} needs", None
    for key, value in arguments.items():
        if key in _NO_PROPERTIES:
            continue
        if key not in driver:
            return "T461", f"has no property {key!r} for driver {name!r}, and {subject} sets it to {value!r}", key
        if (fault := _fault(key, driver[key], value)) is not None:
            return "T462", f"will not take {value!r} for property {key!r} of {subject}: {fault}", key
    row = registry.by_driver().get(registry.own_name(name))
    on_root = arguments.get("bus") in _ROOTS
    if step.stage == "attach" and row is not None and on_root and not hot_plugs(row, machine):
        return "T463", f"cannot hot-plug {subject}, a {row.name}, on its machine {machine!r}", None
    return None


def _subject(step: Step, arguments: Mapping[str, Value]) -> str:
    """Return the words for what a step is about: the device's id, or what serves a master's ports."""
    return f"device {arguments['id']!r}" if "id" in arguments else f"the companion {step.id}"


def _fault(name: str, property: Property, value: Value) -> str | None:
    if isinstance(value, str) and property.type != "bool":
        return None  # QEMU reads most of its types from text too
    knob = knob_of_type(name, property.type)
    return None if knob is None else knob.fault(value)


async def _instead(driver: str, wanted: str | None, monitor: Qmp, machine: str | None) -> str:
    """Return the help: a model that would do, of those that this QEMU has."""
    from translator.registry.knobs import knobs_of

    row, since = registry.by_driver().get(registry.own_name(driver)), None
    if wanted is not None:
        knob = knobs_of(driver).get(wanted)
        since = knob.since if knob is not None else None
    age = f"QEMU has it from {since} on; " if since else ""
    if row is None:
        return age + ("leave it out" if wanted else "this QEMU is built or packaged without it: install that part")
    there = await _types(monitor)
    family = (one for one in registry.models() if one.family == row.family)
    fitting = [
        one
        for one in sorted(family, key=lambda one: _distance(row, one))
        if one is not row
        and one.own_driver in there
        and one.features().get("companion") == row.features().get("companion")
        and (wanted is None or wanted in knobs_of(one.own_driver or ""))
        and (machine is None or hot_plugs(one, machine))
    ]
    if fitting:
        return f"{age}a model that would do: {fitting[0].name!r}"
    if machine is not None:
        return "start QEMU with it: see `translator plan --coldplug all`"
    return age + ("leave it out" if wanted else "no model of this kind is in this QEMU")


def _distance(row: Model, other: Model) -> tuple[bool, bool]:
    """Order models by how little a guest would notice: the same interface first, then the same generation."""
    return other.interface != row.interface, other.kind.version != row.kind.version


async def _types(monitor: Qmp) -> frozenset[str]:
    answer = await monitor.execute("qom-list-types", {"implements": "device", "abstract": False})
    return frozenset(one.name for one in msgspec.convert(answer, list[_Named]))


class _Named(msgspec.Struct):
    name: str


class _Listed(msgspec.Struct, rename={"default": "default-value"}):
    name: str
    type: str
    default: Value = None


async def _ask(monitor: Qmp, driver: str) -> Driver | None:
    try:
        answer = await monitor.execute("device-list-properties", {"typename": registry.own_name(driver)})
    except CommandRefused as error:
        if error.error_class == "CommandNotFound":
            raise
        return None
    listed = msgspec.convert(answer, list[_Listed])
    # parts of the object are no properties that one could set, and most links are QEMU's own; an I/O thread is chosen
    return {
        one.name: Property(one.type, one.default)
        for one in listed
        if "<" not in one.type or one.type == "link<iothread>"
    }


def differences(driver: str, found: Driver | None) -> Iterator[Difference]:
    """Yield in what a QEMU's driver is not as the registry says."""
    from translator.registry.knobs import knobs_of

    if found is None:
        yield Difference(driver, None, "known", None)
        return
    ours = {name: Property(knob.type, knob.default) for name, knob in knobs_of(driver).items()}
    for name in sorted(ours.keys() | found.keys()):
        if ours.get(name) != found.get(name):
            yield Difference(driver, name, _told(ours.get(name)), _told(found.get(name)))


def _told(property: Property | None) -> str | None:

    if property is None:
        return None
    default = "" if property.default is None else f" with default {spelled(property.default)}"
    return f"{property.type}{default}"


async def compare(steps: Iterable[Step], monitor: Qmp, known: KnownDrivers) -> tuple[Diagnostic, ...]:
    """Return a warning for each default that is another than the registry's and that a step relies on.

    Raises:
        HostError: as `check`, for any of the steps.
    """
    from translator.registry.knobs import knobs_of

    added = list(_added(steps))
    machine = (await monitor.machine()).type
    await check_steps((step for step, _ in added), monitor, machine, known)
    found = await ask(monitor, (_driver(arguments) for _, arguments in added), known)
    warnings = []
    for step, arguments in added:
        driver = found.get(_driver(arguments)) or {}
        for name, knob in knobs_of(_driver(arguments)).items():
            if name in driver and name not in arguments and driver[name].default != knob.default:
                warnings.append(
                    Diagnostic(
                        code="T464",
                        severity="warning",
                        message=f"this QEMU has {spelled(driver[name].default)} for {name!r} of "
                        f"{_subject(step, arguments)} by default, and QEMU 7.2 has {spelled(knob.default)}",
                        help="where the guest must find what it found before, set it with <qemu:override>",
                        line=step.source.line if step.source else None,
                        column=step.source.column if step.source else None,
                    )
                )
    return tuple(warnings)
