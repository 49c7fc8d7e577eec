"""Plans for people and for other programs' input: text, xenstore tree, QMP lines, QEMU's command line, pictures."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from translator.layouts import CLOSING
from translator.output.escape import visible
from translator.planning.plan import Action, LaunchOption, Plan, QmpCommand, SysfsWrites, Transaction, Wait
from translator.planning.subjects import subject
from translator.topology import port_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from translator.live.observe import Observation
    from translator.planning.plan import XenstoreOp
    from translator.topology import Controller, Device, Topology


def text(plan: Plan) -> str:
    """Return the topology as a tree, then the steps with their reasons."""
    lines = [*_tree(plan.topology)]
    for stage, title in (("launch", "on QEMU's command line"), ("attach", "on the running domain")):
        steps = [step for step in plan.steps if step.stage == stage]
        if steps:
            lines += ["", f"{len(steps)} step{'s' if len(steps) > 1 else ''} {title}"]
        for number, step in enumerate(steps, 1):
            where = f"  (line {step.source.line})" if step.source else ""
            lines.append(f"{number:3}  {step.target:8}  {step.id}{where}")
            lines.append(f"     {step.why}")
            lines += (f"       {line}" for line in _action(step.action))
    if plan.untranslated:
        lines += ["", "not translated"]
        lines += (f"  {one.element}  (line {one.source.line})" for one in plan.untranslated)
    return _shown(lines)


def xenstore(plan: Plan) -> str:
    """Return what `xenstore-ls -fp` would print of the plan's nodes once all its transactions are committed."""
    values: dict[str, str] = {}
    permissions: dict[str, tuple[str, ...]] = {}
    for step in plan.steps:
        if isinstance(step.action, Transaction):
            for operation in step.action.transaction:
                if operation.op in ("write", "mkdir"):
                    new = "" if operation.op == "mkdir" else (operation.value or "")
                    values[operation.path] = new if operation.op == "write" else values.get(operation.path, new)
                    if operation.permissions:
                        permissions[operation.path] = operation.permissions
    return "".join(
        f'{path} = "{visible(values[path])}"   ({",".join(permissions.get(path, ()))})\n'
        for path in sorted(values, key=lambda path: path.split("/"))
    )


def qmp(plan: Plan) -> str:
    """Return the commands of the attach stage as they go over the wire, one a line."""
    import json

    return "".join(
        json.dumps({"execute": step.action.execute, "arguments": step.action.arguments}) + "\n"
        for step in plan.steps
        if step.stage == "attach" and isinstance(step.action, QmpCommand)
    )


def qemu_args(plan: Plan, device_model: str | None = None) -> str:
    """Return the launch stage as words for a shell, an option a line; those of one device model if it is named."""
    import shlex

    return "".join(
        shlex.join(step.launch_words) + "\n"
        for step in plan.steps
        if step.stage == "launch" and device_model in (None, step.device_model)
    )


# XenbusState, xen/include/public/io/xenbus.h.
_STATES = ("unknown", "initialising", "waiting", "initialised", "connected", "closing", "closed")


def observed(seen: Observation, names: Mapping[str, str]) -> str:
    """Return what was seen as a tree, with the states of both ends, what is missing or on its way, and names.

    `names` are those of the host's devices, by host port path.
    """
    notes: dict[str, list[str]] = {}
    for index, (backend, _) in seen.states.items():
        ends = f"backend {_state(backend)}"
        pending = ", removal pending in the guest" if backend == CLOSING else ""
        notes[f"controller:usb:{index}"] = [f"{ends}{pending}"]
    for device in seen.topology.devices:
        name = names.get(device.host.path or "") if device.host else None
        if name is not None:
            notes.setdefault(subject(device), []).append(name)
    for id in sorted(seen.lacking):
        about, part = id, ""
        if id.count(":") > (2 if id.startswith("controller") else 3):
            about, _, part = id.rpartition(":")
        if part != "backend":  # of which the state is told
            missing = "the toolstack has no record of it" if part == "record" else "QEMU does not have it"
            notes.setdefault(about, []).append(missing)
    lines = [*_tree(seen.topology, {id: f"  ({'; '.join(said)})" for id, said in notes.items()})]
    for (index, port), other in sorted(seen.foreign.items()):
        lines.append(f"on port {port} of controller {index}, of no kind that is known here: {other.driver}")
    return _shown(lines)


def _shown(lines: Iterable[str]) -> str:
    """Return the lines for a terminal: who wrote a plan, or answers as a QEMU, may be anybody."""
    return "".join(f"{visible(line)}\n" for line in lines)


def _state(state: int | None) -> str:
    return "absent" if state is None else _STATES[state] if state < len(_STATES) else f"in state {state}"


def _svg(plan: Plan) -> str:
    from translator.output import picture

    return picture.svg(plan.topology)


def _dot(plan: Plan) -> str:
    from translator.output import picture

    return picture.dot(plan.topology)


def _mermaid(plan: Plan) -> str:
    from translator.output import picture

    return picture.mermaid(plan.topology)


FORMATS: Mapping[str, Callable[[Plan], str]] = {
    "text": text,
    "json": Plan.to_json,
    "xenstore": xenstore,
    "qmp": qmp,
    "qemu-args": qemu_args,
    "svg": _svg,
    "dot": _dot,
    "mermaid": _mermaid,
}


def _tree(topology: Topology, notes: Mapping[str, str] = MappingProxyType({})) -> Iterable[str]:
    domain = topology.domain
    domid = f", domid {domain.domid}" if domain.domid is not None else ""
    machine = (
        f"{domain.guest}, {domain.machine}" if domain.hypervisor == "xen" else f"{domain.arch}, {domain.machine}"
    )
    yield f"{domain.name}  {domain.hypervisor} ({machine}){domid}"
    ports: dict[tuple[str, int], list[_Port]] = {}
    for device in topology.devices:
        what = _device(device) + notes.get(subject(device), "")
        ports.setdefault((device.family, device.controller), []).append(_Port(device.port, what))
    for reader in topology.controllers:
        if reader.place:
            cards = [port.what for port in ports.get((reader.family, reader.index), ())]
            what = f"ccid controller {reader.index}{' implicit' if reader.implicit else ''}  [{reader.id}]"
            seat = ports.setdefault(("usb", reader.place.controller), [])
            seat.append(_Port(reader.place.port, " with ".join([what, *cards])))
    # what a machine has of itself is shown where something is on it
    shown = [one for one in topology.controllers if not one.place and (not one.built_in or _key(one) in ports)]
    families = dict.fromkeys(("usb", *(one.family for one in shown)))
    order = {family: number for number, family in enumerate(families)}
    controllers = sorted(shown, key=lambda one: (order[one.family], one.index))
    for number, controller in enumerate(controllers):
        last = number == len(controllers) - 1
        yield f"{'└─' if last else '├─'} {_controller(controller)}{notes.get(subject(controller), '')}"
        indent = "   " if last else "│  "
        for companion in controller.companions:
            yield f"{indent}with {companion.model} from port {companion.startport + 1} on"
        there = ports.get(_key(controller), [])
        lines = _ports(there) if controller.family == "usb" else _units(there)
        yield from (indent + line for line in lines)


def _key(controller: Controller) -> tuple[str, int]:
    return controller.family, controller.index


class _Port(NamedTuple):
    port: str
    what: str


def _ports(ports: list[_Port]) -> Iterable[str]:
    """Draw the ports of one controller; what hangs on a hub is drawn below it."""
    by_parent: dict[str, list[_Port]] = {}
    for one in sorted(ports, key=lambda one: port_key(one.port)):
        by_parent.setdefault(one.port.rpartition(".")[0], []).append(one)

    def level(parent: str, indent: str) -> Iterable[str]:
        here = by_parent.get(parent, [])
        for number, one in enumerate(here):
            last = number == len(here) - 1
            yield f"{indent}{'└─' if last else '├─'} port {one.port}: {one.what}"
            yield from level(one.port, indent + ("   " if last else "│  "))

    yield from level("", "")


def _units(units: list[_Port]) -> Iterable[str]:
    """Draw the units of one controller, which is all that there is on it."""
    for number, one in enumerate(sorted(units, key=lambda one: port_key(one.port))):
        yield f"{'└─' if number == len(units) - 1 else '├─'} unit {one.port}: {one.what}"


def _controller(controller: Controller) -> str:
    usb = controller.family == "usb"
    version = f" USB {controller.version}" if controller.version else ""
    name = "controller" if usb else f"{controller.family} controller"
    parts = [f"{name} {controller.index}: {controller.model}, {controller.type}{version}"]
    if usb:
        parts.append(f"{controller.ports} ports")
    if controller.backend is not None:
        parts.append(f"backend in domain {controller.backend}")
    if controller.frontend:
        parts.append(f"frontend {controller.frontend}")
    if controller.pci:
        parts.append(f"PCI {controller.pci}")
    if controller.implicit:
        parts.append("implicit")
    return ", ".join(parts) + (f"  [{controller.id}]" if controller.id else "")


def _device(device: Device) -> str:
    parts: list[str] = [device.kind]
    host = device.host
    if host:
        if host.bus is not None and host.device is not None:
            parts.append(f"{host.bus}.{host.device}")
        if host.vendor is not None and host.product is not None:
            parts.append(f"{host.vendor:04x}:{host.product:04x}")
        if host.path is not None:
            parts.append(f"at host port {host.path}")
    if device.scsi:
        parts.append(device.scsi.selector)
    if device.implicit:
        parts.append("implicit")
    return " ".join(parts) + (f"  [{device.id}]" if device.id else "")


def _action(action: Action) -> Iterable[str]:
    match action:
        case QmpCommand(command, arguments):
            yield f"{command} {_one_line(arguments)}"
        case Transaction(operations):
            yield from _operations(operations)
        case Wait(path, values, timeout_s):
            yield f"{path} = {' or '.join(values)}, for at most {timeout_s} s"
        case SysfsWrites(writes):
            yield from (f"{write.path} < {write.value}" for write in writes)
        case LaunchOption(option, value):
            yield f"{option} {_one_line(value)}"


def _one_line(value: Mapping[str, object]) -> str:
    return str(msgspec.json.format(msgspec.json.encode(value), indent=0), "utf-8")


def _operations(operations: Iterable[XenstoreOp]) -> Iterable[str]:
    """Draw a transaction; what is written one after the other below one directory stands on one line."""
    folders: list[str] = []
    current, line = "", ""
    searched = None
    for one in operations:
        if one.op == "expect-nowhere" and one.why and one.why == searched:
            continue  # the same, looked for somewhere else
        searched = one.why if one.op == "expect-nowhere" else None
        folder = max((path for path in folders if one.path.startswith(f"{path}/")), key=len, default="")
        if one.op == "write" and folder:
            leaf = f"{one.path.removeprefix(f'{folder}/')}={one.value or ''}"
            if folder == current:
                line += f" {leaf}" if ": " in line else f": {leaf}"
                continue
            yield line
            current, line = folder, f"write {folder}: {leaf}"
            continue
        if line:
            yield line
        value = "" if one.value is None else f' = "{one.value}"'
        permissions = f" ({','.join(one.permissions)})" if one.permissions else ""
        current, line = "", f"{one.op} {one.path}{value}{permissions}"
        if searched:
            line = f"expect everywhere that {searched}"
        if one.op == "mkdir":
            folders.append(one.path)
            current = one.path
    yield line
