"""What will be done: a topology, the ordered steps that bring it about, and their JSON form.

A step is one action and, as data, the action that takes it back; rollback is derived from the plan and
never written a second time. An action is one of

    QmpCommand    a command for one QEMU                                  target `qmp`
    Transaction   xenstore operations that are committed together         target `xenstore`
    Wait          a xenstore node that must come to have one of several values    target `wait`
    SysfsWrites   writes to files below /sys                              target `sysfs`
    LaunchOption  what only QEMU's command line can say                   target `option`

Placeholders stand in a plan for what only a host knows; `bind` puts the facts in their place:

    ${domid}                  the domain's id
    ${backend_domid:NAME}     the id of the backend domain NAME
    ${qmp:NAME}               the socket of device model NAME's monitor
    ${hostdev:SELECTOR:FACT}  FACT of the host device that SELECTOR names, as `words` reads it

FACT is one of

    bus, device               its numbers; bus4 and device4 in four hexadecimal digits, xbus and xdevice in as few
    path, node                its host port path, and its character device; path_node is the path as xenstore takes it
    interface, driver         the name of an interface of it, and the driver that this had before it was given away;
                              interface_node is the name as xenstore takes it

An operation or a write that names an interface stands for one for each interface, and one that names the driver
for one for each interface that has one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from translator import chardev
from translator.errors import Diagnostic, PlanError, Severity, Source
from translator.models import MODELS
from translator.topology import (
    DEVICE_MODEL_NAME,
    Controller,
    Device,
    DeviceModel,
    DomainIdentity,
    HostDevice,
    Layout,
    Topology,
    Untranslated,
    Value,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from translator.hosts.scsi import ScsiFacts

FORMAT = "translator-plan/1"

Stage = Literal["launch", "attach"]
Target = Literal["qmp", "xenstore", "wait", "sysfs", "option"]
Op = Literal["write", "mkdir", "rm", "rm-empty", "sweep", "expect", "expect-absent", "expect-nowhere"]


class XenstoreOp(msgspec.Struct, frozen=True, omit_defaults=True):
    """One operation of a transaction.

    write          set `value`; `permissions` are set too when given
    mkdir          create an empty node with `permissions` where there is none; one that is there stays as it is
    rm             remove the node and everything below it; an absent node is fine
    rm-empty       remove the node if it has neither children nor a value, and if what is undone has made it
    sweep          remove the node if it has neither children nor a value, whoever made it, as a detach does
    expect         fail unless the node exists and, when `value` is given, has it
    expect-absent  fail if the node exists
    expect-nowhere  fail if a node has `value`, or exists when no value is given, whose path is `path` with something
                   in the place of each component `*`

    `permissions` are as `xenstore-ls -p` prints them, the owner first: `("n7", "r0")`. `why` is, for the
    guards, what to tell the reader when they fail.
    """

    op: Op
    path: str
    value: str | None = None
    permissions: tuple[str, ...] | None = None
    why: str | None = None


class QmpCommand(msgspec.Struct, frozen=True, omit_defaults=True):
    """`execute` with `arguments`, exactly what goes on the wire.

    A removal is waited for, since a PCI device goes when its guest lets go of it; unless `awaited` is False.
    """

    execute: str
    arguments: dict[str, Value]
    awaited: bool = True


class Wait(msgspec.Struct, frozen=True, omit_defaults=True):
    """Wait until the node `path` has one of `values`; `timeout_s` is the longest wait, in seconds.

    `refusals` are values that end the wait at once, in failure; `unanswered` is what a failure means.
    """

    path: str
    values: tuple[str, ...]
    timeout_s: int
    refusals: tuple[str, ...] = ()
    unanswered: str | None = None


class Transaction(msgspec.Struct, frozen=True, omit_defaults=True):
    """Operations that take effect together or not at all.

    `wait` is the answer that a backend or a guest owes. When it does not come in time, `otherwise` is committed
    and the action has failed; where that is None, the action goes on all the same.
    """

    transaction: tuple[XenstoreOp, ...]
    wait: Wait | None = None
    otherwise: tuple[XenstoreOp, ...] | None = None


class SysfsWrite(msgspec.Struct, frozen=True, omit_defaults=True):
    """Write `value` to the file `path`, which begins with /sys.

    A driver's `bind` and `unbind` take an interface's name; one that is as it is to be needs no write. With
    `if_there`, nor does one that is gone.
    """

    path: str
    value: str
    if_there: bool = False


class SysfsWrites(msgspec.Struct, frozen=True):
    """Writes in order."""

    writes: tuple[SysfsWrite, ...]


class LaunchOption(msgspec.Struct, frozen=True):
    """An option of QEMU's command line with its JSON; `-audiodev` has no command in QMP."""

    option: str
    value: dict[str, Value]


Action = QmpCommand | Transaction | Wait | SysfsWrites | LaunchOption
TARGETS: Mapping[type[Action], Target] = {
    QmpCommand: "qmp",
    Transaction: "xenstore",
    Wait: "wait",
    SysfsWrites: "sysfs",
    LaunchOption: "option",
}
# What a QMP command is on the command line.
_OPTIONS = {"device_add": "-device", "chardev-add": "-chardev", "blockdev-add": "-blockdev"}


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One action with its reverse, its reason and the element that asked for it.

    `id` is `controller:FAMILY:INDEX`, `device:FAMILY:INDEX:PORT` or `device-model:NAME`, with `:PART` behind it for
    all but the subject's main step. `undo` is None only with an `undo_reason`.
    """

    id: str
    stage: Stage
    device_model: str | None
    action: Action
    undo: Action | None
    undo_reason: str | None
    why: str
    source: Source | None

    @property
    def target(self) -> Target:
        """Which part of the host carries the step out."""
        return TARGETS[type(self.action)]

    @property
    def subject(self) -> str:
        """The id of what the step serves, a controller, a device or a device model, without the step's part."""
        parts = self.id.split(":")
        return ":".join(parts[: _SUBJECT_PARTS[parts[0]]])

    @property
    def launch_words(self) -> tuple[str, str]:
        """The step as words of QEMU's command line: an option and its JSON, or its text where QEMU has none."""
        if isinstance(self.action, LaunchOption):
            return self.action.option, msgspec.json.encode(self.action.value).decode()
        assert isinstance(self.action, QmpCommand), "only QEMU has a launch stage"
        option, arguments = _OPTIONS[self.action.execute], self.action.arguments
        if option == "-chardev":
            return option, chardev.word(arguments)
        return option, msgspec.json.encode(arguments).decode()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A topology and the steps that bring it about, in order."""

    topology: Topology
    steps: tuple[Step, ...]
    untranslated: tuple[Untranslated, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()

    def to_json(self) -> str:
        """Return the contract's JSON: keys in its order, two-space indent, one trailing newline."""
        return _to_text(_to_wire(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Plan:
        """Read what `to_json` wrote.

        Raises:
            PlanError: the text is not JSON, of another format, or lacks something; the message has the path.
        """
        try:
            head = msgspec.json.decode(text, type=_WireHead)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _damaged(f"this is not a plan: {error}") from error
        if head.format != FORMAT:
            raise _damaged(f"the plan's format is {head.format!r}, and this version reads {FORMAT!r}")
        try:
            plan = _from_wire(msgspec.json.decode(text, type=_WirePlan))
        except (msgspec.DecodeError, RecursionError) as error:
            raise _damaged(f"the plan is damaged: {error}") from error
        for fault in _inconsistencies(plan):
            raise _damaged(f"the plan is damaged: {fault}")
        return plan

    def bind(
        self,
        *,
        domid: int | None = None,
        backends: Mapping[str, int] | None = None,
        qmps: Mapping[str, str] | None = None,
        hostdevs: Mapping[str, HostDevice] | None = None,
        interfaces: Mapping[str, Mapping[str, str | None]] | None = None,
        scsi: Mapping[str, ScsiFacts] | None = None,
    ) -> Plan:
        """Return the plan with its placeholders replaced by a host's facts; those not given stay.

        `hostdevs` maps a selector (`1.8`, `046d:c52b`) to the device that it names, with all that is known of it, and
        `interfaces` to that device's interfaces, each with the name of its driver. `scsi` maps a selector to what the
        host tells of that SCSI device.

        Raises:
            PlanError: the plan is bound to another domid.
        """
        bound_to = self.topology.domain.domid
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
        facts |= {f"qmp:{name}": path for name, path in (qmps or {}).items()}
        for name, backend in (backends or {}).items():
            facts[f"backend_domid:{name}"] = str(backend)
        for selector, found in (hostdevs or {}).items():
            facts |= {f"hostdev:{selector}:{fact}": value for fact, value in _facts(found).items()}
        for selector, known in (scsi or {}).items():
            facts |= {
                f"scsi:{selector}:pdev": known.physical,
                f"scsi:{selector}:name": known.name,
                f"scsi:{selector}:sg": known.generic or "",
            }
        spread = self
        if hostdevs or interfaces:

            def told(action: Action) -> Action:
                return _spread(_known(action, hostdevs or {}), interfaces or {})

            steps = (
                msgspec.structs.replace(step, action=told(step.action), undo=step.undo and told(step.undo))
                for step in self.steps
            )
            spread = msgspec.structs.replace(self, steps=tuple(steps))
        bound = _from_wire(msgspec.convert(_substitute(msgspec.to_builtins(_to_wire(spread)), facts), _WirePlan))
        topology = bound.topology
        identity = topology.domain
        if domid is not None:
            identity = msgspec.structs.replace(identity, domid=domid)
        controllers = tuple(
            msgspec.structs.replace(controller, backend=backends[controller.backend])
            if backends and isinstance(controller.backend, str) and controller.backend in backends
            else controller
            for controller in topology.controllers
        )
        devices = tuple(
            msgspec.structs.replace(device, host=hostdevs[device.host.selector])
            if hostdevs and device.host and device.host.selector in hostdevs
            else device
            for device in topology.devices
        )
        devices = tuple(
            msgspec.structs.replace(device, scsi=scsi[device.scsi.selector].device)
            if scsi and device.scsi and device.scsi.selector in scsi
            else device
            for device in devices
        )
        topology = msgspec.structs.replace(topology, domain=identity, controllers=controllers, devices=devices)
        return msgspec.structs.replace(bound, topology=topology)

    def placeholders(self) -> tuple[str, ...]:
        """Return what the plan still needs to know of its host, sorted: `domid`, `hostdev:1.8:path`, …"""
        return tuple(sorted(set(PLACEHOLDER.findall(self.to_json()))))


def is_plan(data: bytes) -> bool:
    """Tell whether a file's content, or the beginning of it, is a plan and no document."""
    return data[:1000].lstrip()[:1] == b"{"


PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")


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
                part, path=_substitute(part.path, facts), value=_substitute(part.value, facts)
            )


def _substitute(value: Any, facts: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return PLACEHOLDER.sub(lambda match: facts.get(match[1], match[0]), value) if "${" in value else value
    if isinstance(value, (list, tuple)):
        return [_substitute(item, facts) for item in value]
    if isinstance(value, dict):
        return {key: _substitute(item, facts) for key, item in value.items()}
    return value


_SUBJECT_PARTS = {"controller": 3, "device": 4, "device-model": 2}
_PORT = re.compile(r"[1-9][0-9]{0,8}(\.[1-9][0-9]{0,8}){0,3}")
_SLOT = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,3}")
_STEP_ID = re.compile(
    r"(controller:[a-z-]+:[0-9]{1,9}|device:[a-z-]+:[0-9]{1,9}:[0-9.]+)(:[a-z0-9-]+)?"
    rf"|device-model:{DEVICE_MODEL_NAME.pattern}(:remove)?"
)


def _inconsistencies(plan: Plan) -> Iterator[str]:
    """Yield what a file may say that no plan of ours does and that the stages behind it rely on."""
    topology = plan.topology
    present = {(controller.family, controller.index) for controller in topology.controllers}
    if len(present) < len(topology.controllers):
        yield "two controllers of one family have the same index"
    if topology.domain.domid is not None and topology.domain.domid < 1:
        yield f"there is no guest with domid {topology.domain.domid}"
    for controller in topology.controllers:
        if controller.family == "usb" and controller.type == "emulated" and controller.model not in MODELS:
            yield f"unknown controller model {controller.model!r}"
        if (controller.place is not None) != (controller.family == "ccid"):
            yield f"controller {controller.index} of family {controller.family} cannot sit there"
    seats = [("usb", one.place.controller, one.place.port) for one in topology.controllers if one.place is not None]
    seats += [(one.family, one.controller, one.port) for one in topology.devices]
    for family, index, port in seats:
        if (family, index) not in present:
            yield f"something is on {family} controller {index}, which is not in the plan"
        if not (_PORT if family == "usb" else _SLOT).fullmatch(port):
            yield f"{port!r} is not a port"
    if len(set(seats)) < len(seats):
        yield "two devices are on one port"
    for step in plan.steps:
        if not _STEP_ID.fullmatch(step.id):
            yield f"{step.id!r} is not the id of a step"
        if step.stage == "launch" and step.target not in ("qmp", "option"):
            yield f"step {step.id} is for QEMU's command line, and its target is {step.target}"
        for action in (step.action, step.undo):
            if isinstance(action, QmpCommand) and action.execute == "device_del" and "id" not in action.arguments:
                yield f"step {step.id} deletes a device without an id"
    from translator.bounds import strays

    yield from strays(plan.steps, topology.domain.domid)


def _damaged(message: str) -> PlanError:
    return PlanError([Diagnostic(code="T110", message=message, help="make it again with: translator plan")])


# The wire: the contract lays a step's action flat into the step, whose `target` tells which action it is. An
# undo has no target of its own; its first key tells.

_ACTIONS: Mapping[Target, type[Action]] = {target: kind for kind, target in TARGETS.items()}
_UNDO_KEYS: Mapping[str, type[Action]] = {kind.__struct_fields__[0]: kind for kind in TARGETS}


class _WireStep(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    stage: Stage
    target: Target
    device_model: str | None = None
    undo: dict[str, Any] | None = None
    undo_reason: str | None = None
    why: str
    source: Source | None = None


class _WireDiagnostic(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    severity: Severity
    message: str
    help: str | None
    line: int | None
    column: int | None
    element: str | None


class _WireHead(msgspec.Struct, frozen=True):
    format: str


class _WirePlan(msgspec.Struct, frozen=True, kw_only=True):
    format: str
    domain: DomainIdentity
    layout: Layout
    device_models: tuple[DeviceModel, ...]
    controllers: tuple[Controller, ...]
    devices: tuple[Device, ...]
    steps: tuple[dict[str, Any], ...]
    untranslated: tuple[Untranslated, ...]
    diagnostics: tuple[_WireDiagnostic, ...]


def step_to_wire(step: Step) -> dict[str, Any]:
    wire: dict[str, Any] = {
        "id": step.id,
        "stage": step.stage,
        "target": step.target,
        "device_model": step.device_model,
        **msgspec.to_builtins(step.action),
        "undo": step.undo,
    }
    if step.undo_reason is not None:
        wire["undo_reason"] = step.undo_reason
    return wire | {"why": step.why, "source": step.source}


def step_from_wire(wire: dict[str, Any]) -> Step:
    head = msgspec.convert(wire, _WireStep)
    undo: Action | None = None
    if head.undo is not None:
        kind = next((_UNDO_KEYS[key] for key in head.undo if key in _UNDO_KEYS), None)
        if kind is None:
            raise msgspec.ValidationError(f"the undo of step {head.id!r} is no action")
        undo = msgspec.convert(head.undo, kind)
    return Step(
        id=head.id,
        stage=head.stage,
        device_model=head.device_model,
        action=msgspec.convert(wire, _ACTIONS[head.target]),
        undo=undo,
        undo_reason=head.undo_reason,
        why=head.why,
        source=head.source,
    )


def _to_wire(plan: Plan) -> _WirePlan:
    topology = plan.topology
    return _WirePlan(
        format=FORMAT,
        domain=topology.domain,
        layout=topology.layout,
        device_models=topology.device_models,
        controllers=topology.controllers,
        devices=topology.devices,
        steps=tuple(step_to_wire(step) for step in plan.steps),
        untranslated=plan.untranslated,
        diagnostics=tuple(
            _WireDiagnostic(
                **{name: getattr(found, name) for name in _WireDiagnostic.__struct_fields__},
            )
            for found in plan.diagnostics
        ),
    )


def _from_wire(wire: _WirePlan) -> Plan:
    return Plan(
        topology=Topology(
            domain=wire.domain,
            layout=wire.layout,
            device_models=wire.device_models,
            controllers=wire.controllers,
            devices=wire.devices,
        ),
        steps=tuple(step_from_wire(step) for step in wire.steps),
        untranslated=wire.untranslated,
        diagnostics=tuple(Diagnostic(**msgspec.structs.asdict(found)) for found in wire.diagnostics),
    )


def _to_text(wire: msgspec.Struct) -> str:
    return msgspec.json.format(msgspec.json.encode(wire), indent=2).decode() + "\n"
