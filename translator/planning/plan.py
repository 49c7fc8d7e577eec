"""What will be done: a topology, the ordered steps that bring it about, and their JSON form.

A step is one action and, as data, the action that takes it back; rollback is derived from the plan and
never written a second time. An action is one of

    QmpCommand    a command for one QEMU                                  target `qmp`
    Transaction   xenstore operations that are committed together         target `xenstore`
    Wait          a xenstore node that must come to have one of several values    target `wait`
    SysfsWrites   writes to files below /sys                              target `sysfs`
    LaunchOption  what only QEMU's command line can say                   target `option`

Where a fact of the host is needed, a placeholder stands; `placeholders` puts the facts in. `plan_file` reads what
is written here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from translator.errors import Diagnostic, Source
from translator.placing import chardev
from translator.topology import (
    HostDevice,
    Topology,
    Untranslated,
    Value,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

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
                   in the place of each component `*`, and of `*[not(NAME)]` something without a node NAME below

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
# How many parts of a step's id name its subject.
_SUBJECT_PARTS = {"controller": 3, "device": 4, "device-model": 2}
# What a plan says of a diagnostic.
_DIAGNOSTIC = ("code", "severity", "message", "help", "line", "column", "element")
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
    def removes(self) -> bool:
        """Whether it is one of the steps that take its subject away."""
        part = self.id.removeprefix(self.subject)
        return part == ":remove" or part.startswith(":remove-")

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


class Basis(msgspec.Struct, frozen=True, kw_only=True):
    """The host that a plan was made against: what was seen of the domain, and how far it may be changed.

    `lacking` are the parts that were missing, see `translator.live.observe.Observation`; `prune`, `replace` and
    `force`, see `translator.live.transition.Policy`.
    """

    topology: Topology
    lacking: tuple[str, ...] = ()
    prune: bool = False
    replace: bool = False
    force: bool = False


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A topology and the steps that bring it about, in order.

    With a `basis` the steps are what leads there from what was seen, removals first, and they are for no other host.
    """

    topology: Topology
    steps: tuple[Step, ...]
    untranslated: tuple[Untranslated, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    basis: Basis | None = None

    def to_json(self) -> str:
        """Return the contract's JSON: keys in its order, two-space indent, one trailing newline."""
        return msgspec.json.format(msgspec.json.encode(to_wire(self)), indent=2).decode() + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Plan:
        """Read what `to_json` wrote.

        Raises:
            PlanError: the text is not JSON, of another format, or lacks something; the message has the path.
        """
        from translator.planning.plan_file import read

        return read(text)

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
        from translator.planning.placeholders import bind

        return bind(
            self,
            domid=domid,
            backends=backends or {},
            qmps=qmps or {},
            hostdevs=hostdevs or {},
            interfaces=interfaces or {},
            scsi=scsi or {},
        )

    def placeholders(self) -> tuple[str, ...]:
        """Return what the plan still needs to know of its host, sorted: `domid`, `hostdev:1.8:path`, …"""
        from translator.planning.placeholders import IN_JSON

        names = set(IN_JSON.findall(self.to_json()))
        return tuple(sorted(msgspec.json.decode(f'"{name}"') for name in names))


def check_plan(given: object) -> None:
    """Refuse what is given in the place of a plan.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(given, Plan):
        raise TypeError(
            f"expected a Plan, and not {type(given).__name__}; "
            "a document becomes one by: translator.plan(translator.load(…))"
        )


def is_plan(data: bytes) -> bool:
    """Tell whether a file's content, or the beginning of it, is a plan and no document."""
    return data[:1000].lstrip()[:1] == b"{"


def to_wire(plan: Plan) -> dict[str, Any]:
    """Return the plan as its JSON has it, but for what msgspec writes by itself: its structs and tuples."""
    wire: dict[str, Any] = {
        "format": FORMAT,
        **_topology_to_wire(plan.topology),
        "steps": [step_to_wire(step) for step in plan.steps],
        "untranslated": plan.untranslated,
        "diagnostics": [{name: getattr(found, name) for name in _DIAGNOSTIC} for found in plan.diagnostics],
    }
    if plan.basis is not None:
        rest = {name: getattr(plan.basis, name) for name in ("prune", "replace", "force")}
        wire["basis"] = rest | _topology_to_wire(plan.basis.topology) | {"lacking": plan.basis.lacking}
    return wire


def _topology_to_wire(topology: Topology) -> dict[str, Any]:
    return {name: getattr(topology, name) for name in topology.__struct_fields__}


def step_to_wire(step: Step) -> dict[str, Any]:
    """Return the step as the contract lays it out: its action's fields are its own, and `target` tells their kind."""
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
