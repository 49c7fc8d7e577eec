"""What stands in a plan for what only a host knows, and how the facts come in its place.

    ${domid}                  the domain's id
    ${backend_domid:NAME}     the id of the backend domain NAME
    ${qmp:NAME}               the socket of device model NAME's monitor
    ${hostdev:SELECTOR:FACT}  FACT of the host's USB device that SELECTOR names, as `words` reads it
    ${scsi:SELECTOR:FACT}     FACT of the host's SCSI device that SELECTOR names: pdev, name, sg

A USB device's FACT is one of

    bus, device               its numbers; bus4 and device4 in four hexadecimal digits, xbus and xdevice in as few
    path, node                its host port path, and its character device; path_node is the path as xenstore takes it
    interface, driver         the name of an interface of it, and the driver that this had before it was given away;
                              interface_node is the name as xenstore takes it

An operation or a write that names an interface stands for one for each interface, and one that names the driver
for one for each interface that has one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

import msgspec

from translator.errors import Diagnostic, PlanError
from translator.planning.plan import SysfsWrite, SysfsWrites, Transaction, XenstoreOp, to_wire
from translator.planning.plan_file import from_builtins

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from translator.hosts.scsi import ScsiFacts
    from translator.planning.plan import Action, Plan
    from translator.topology import HostDevice

PLACEHOLDER = re.compile(r"\$\{((?:(?!\$\{)[^}])*)\}")
IN_JSON = re.compile(r'\$\{((?:(?!\$\{)[^"\\}]|\\.)*)\}')  # within one string


def bind(
    plan: Plan,
    *,
    domid: int | None,
    backends: Mapping[str, int],
    qmps: Mapping[str, str],
    hostdevs: Mapping[str, HostDevice],
    interfaces: Mapping[str, Mapping[str, str | None]],
    scsi: Mapping[str, ScsiFacts],
) -> Plan:
    """Do what `Plan.bind` says."""
    bound_to = plan.topology.domain.domid
    if domid is not None and bound_to not in (None, domid):
        raise PlanError(
            [
                Diagnostic(
                    code="T111",
                    message=f"the plan is for domain {bound_to}, and cannot be bound to domain {domid}",
                    help="make it again from the document, with the domid that is meant or with none",
                )
            ]
        )
    facts: dict[str, str] = {}
    if domid is not None:
        facts["domid"] = str(domid)
    facts |= {f"qmp:{name}": path for name, path in qmps.items()}
    for name, backend in backends.items():
        facts[f"backend_domid:{name}"] = str(backend)
    for selector, found in hostdevs.items():
        facts |= {f"hostdev:{selector}:{fact}": value for fact, value in _facts(found).items()}
    for selector, known in scsi.items():
        facts |= {
            f"scsi:{selector}:pdev": known.physical,
            f"scsi:{selector}:name": known.name,
            f"scsi:{selector}:sg": known.generic or "",
        }

    def told(action: Action) -> Action:
        return _spread(_known(action, hostdevs), interfaces)

    spread = msgspec.structs.replace(
        plan,
        basis=None,  # what was seen has none, and a guest's own name may look like one
        steps=tuple(
            msgspec.structs.replace(step, action=told(step.action), undo=step.undo and told(step.undo))
            for step in plan.steps
        ),
    )
    bound = from_builtins(msgspec.json.decode(_substitute_all(msgspec.json.encode(to_wire(spread)), facts)))
    topology = msgspec.structs.replace(
        bound.topology,
        domain=bound.topology.domain
        if domid is None
        else msgspec.structs.replace(bound.topology.domain, domid=domid),
        controllers=tuple(
            msgspec.structs.replace(one, backend=backends[one.backend])
            if isinstance(one.backend, str) and one.backend in backends
            else one
            for one in bound.topology.controllers
        ),
        devices=tuple(
            msgspec.structs.replace(
                one,
                host=one.host and hostdevs.get(one.host.selector, one.host),
                scsi=scsi[one.scsi.selector].device if one.scsi and one.scsi.selector in scsi else one.scsi,
            )
            for one in bound.topology.devices
        ),
    )
    return msgspec.structs.replace(bound, topology=topology, basis=plan.basis)


def _facts(device: HostDevice) -> dict[str, str]:
    """Return what is known of a device; one that was pulled is known by what a record says of it."""
    found: dict[str, str] = {}
    if device.path is not None:
        found |= {"path": device.path, "path_node": node_name(device.path)}
    for name, number in (("bus", device.bus), ("device", device.device)):
        if number is not None:
            found |= {name: str(number), f"{name}4": f"{number:04x}", f"x{name}": f"{number:x}"}
    if device.bus is not None and device.device is not None:
        found["node"] = device.node
    return found


def node_name(name: str) -> str:
    """Return sysfs' name of a device or interface as a xenstore node's. Source: usbintf_get (libxl_usb.c)."""
    return name.replace(".", "_").replace(":", "@")


def _spread(action: Action, interfaces: Mapping[str, Mapping[str, str | None]]) -> Action:
    """Put each interface of a device in the place of those operations and writes that stand for one."""
    if isinstance(action, Transaction):
        return msgspec.structs.replace(action, transaction=tuple(_for_each(action.transaction, interfaces)))
    if isinstance(action, SysfsWrites):
        return SysfsWrites(tuple(_for_each(action.writes, interfaces)))
    return action


_Part = TypeVar("_Part", XenstoreOp, SysfsWrite)


def _known(action: Action, hostdevs: Mapping[str, HostDevice]) -> Action:
    """Leave out where a device cannot be looked for, as too little is known of it: one that was pulled."""
    if not isinstance(action, Transaction):
        return action
    unknown = tuple(
        f"${{hostdev:{selector}:{fact}"
        for selector, found in hostdevs.items()
        for fact in ("bus", "device", "path")
        if getattr(found, fact) is None
    )
    return msgspec.structs.replace(
        action,
        transaction=tuple(
            one
            for one in action.transaction
            if one.op != "expect-nowhere" or not any(word in f"{one.path} {one.value}" for word in unknown)
        ),
    )


def _for_each(parts: Iterable[_Part], interfaces: Mapping[str, Mapping[str, str | None]]) -> Iterator[_Part]:
    for part in parts:
        text = f"{part.path} {part.value}"
        selector = next((one for one in interfaces if f"${{hostdev:{one}:interface" in text), None)
        if selector is None:
            yield part
            continue
        key = f"hostdev:{selector}"
        for interface, driver in interfaces[selector].items():
            if driver is None and f"${{{key}:driver}}" in text:
                continue
            facts = {
                f"{key}:interface": interface,
                f"{key}:interface_node": node_name(interface),
                f"{key}:driver": driver or "",
            }
            yield msgspec.structs.replace(
                part, path=_substitute(part.path, facts), value=part.value and _substitute(part.value, facts)
            )


def _substitute(text: str, facts: Mapping[str, str]) -> str:
    return PLACEHOLDER.sub(lambda match: facts.get(match[1], match[0]), text)


def _substitute_all(json: bytes, facts: Mapping[str, str]) -> bytes:
    """Return JSON with the placeholders of its strings replaced; as text, since a plan has thousands of strings."""

    def replaced(match: re.Match[str]) -> str:
        value = facts.get(msgspec.json.decode(f'"{match[1]}"'))
        return match[0] if value is None else msgspec.json.encode(value)[1:-1].decode()

    return IN_JSON.sub(replaced, json.decode()).encode()
