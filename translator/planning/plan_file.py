"""A plan from its JSON. A file may be anybody's: what no plan of ours says is refused, and so is damage.

The contract lays a step's action flat into the step, whose `target` tells which action it is. An undo has no target
of its own; its first key tells.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from translator.errors import Diagnostic, PlanError, Severity, Source
from translator.planning.bounds import strays
from translator.planning.plan import FORMAT, TARGETS, Action, Basis, Plan, QmpCommand, Stage, Step, Target
from translator.registry.models import MODELS
from translator.topology import DEVICE_MODEL_NAME, Topology, Untranslated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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


class _WireBasis(Topology, frozen=True, kw_only=True):
    prune: bool
    replace: bool
    force: bool
    lacking: tuple[str, ...]


class _WirePlan(Topology, frozen=True, kw_only=True):
    format: str
    steps: tuple[dict[str, Any], ...]
    untranslated: tuple[Untranslated, ...]
    diagnostics: tuple[_WireDiagnostic, ...]
    basis: _WireBasis | None = None


def read(text: str | bytes) -> Plan:
    """Do what `Plan.from_json` says."""
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


def from_builtins(wire: dict[str, Any]) -> Plan:
    """Return the plan that its JSON's dicts and lists say, which are our own."""
    return _from_wire(msgspec.convert(wire, _WirePlan))


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


def _from_wire(wire: _WirePlan) -> Plan:
    return Plan(
        topology=_topology_of(wire),
        steps=tuple(step_from_wire(step) for step in wire.steps),
        untranslated=wire.untranslated,
        diagnostics=tuple(Diagnostic(**msgspec.structs.asdict(found)) for found in wire.diagnostics),
        basis=None if wire.basis is None else _basis_of(wire.basis),
    )


def _basis_of(wire: _WireBasis) -> Basis:
    rest = {name: getattr(wire, name) for name in ("lacking", "prune", "replace", "force")}
    return Basis(topology=_topology_of(wire), **rest)


def _topology_of(wire: Topology) -> Topology:
    return Topology(**{name: getattr(wire, name) for name in Topology.__struct_fields__})


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
    for one in plan.basis.topology.devices if plan.basis is not None else ():
        if not (_PORT if one.family == "usb" else _SLOT).fullmatch(one.port):
            yield f"{one.port!r} is not a port"
    for step in plan.steps:
        if not _STEP_ID.fullmatch(step.id):
            yield f"{step.id!r} is not the id of a step"
        if step.stage == "launch" and step.target not in ("qmp", "option"):
            yield f"step {step.id} is for QEMU's command line, and its target is {step.target}"
        for action in (step.action, step.undo):
            if isinstance(action, QmpCommand) and action.execute == "device_del" and "id" not in action.arguments:
                yield f"step {step.id} deletes a device without an id"
    yield from strays(plan.steps, topology.domain.domid)


def _damaged(message: str) -> PlanError:
    return PlanError([Diagnostic(code="T110", message=message, help="make it again with: translator plan")])
