"""translator: libvirt-style domain XML to exactly what a Xen or QEMU host must be told.

domain = translator.load("guest.xml")
plan = translator.plan(domain, domid=7)
async with translator.Host(xenstore=..., qmp=...) as host:
    await host.apply(plan)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from translator.api import diff, load, plan
    from translator.comparison.delta import Change, Delta
    from translator.document.domain import Domain
    from translator.errors import (
        Diagnostic,
        DocumentError,
        HostError,
        OutcomeUnknown,
        PlanError,
        RollbackError,
        Source,
        TranslatorError,
    )
    from translator.fleet.batch import Planned, plan_many
    from translator.live.blocking import BlockingHost
    from translator.live.host import Host
    from translator.live.observe import Observation
    from translator.planning.plan import (
        Basis,
        LaunchOption,
        Plan,
        QmpCommand,
        Step,
        SysfsWrites,
        Transaction,
        Wait,
        XenstoreOp,
    )
    from translator.saga.outcome import Applied, StepEvent
    from translator.saga.recover import Recovered
    from translator.saga.unfinished import Unfinished, UnfinishedStep
    from translator.topology import Controller, Device, DomainIdentity, HostDevice, Topology

__all__ = [
    "Applied",
    "Basis",
    "BlockingHost",
    "Change",
    "Controller",
    "Delta",
    "Device",
    "Diagnostic",
    "DocumentError",
    "Domain",
    "DomainIdentity",
    "Host",
    "HostDevice",
    "HostError",
    "LaunchOption",
    "Observation",
    "OutcomeUnknown",
    "Plan",
    "PlanError",
    "Planned",
    "QmpCommand",
    "Recovered",
    "RollbackError",
    "Source",
    "Step",
    "StepEvent",
    "SysfsWrites",
    "Topology",
    "Transaction",
    "TranslatorError",
    "Unfinished",
    "UnfinishedStep",
    "Wait",
    "XenstoreOp",
    "diff",
    "load",
    "plan",
    "plan_many",
]

# Imported when it is asked for: nobody waits for what they do without.
_WHERE = {
    "Applied": "translator.saga.outcome",
    "Basis": "translator.planning.plan",
    "BlockingHost": "translator.live.blocking",
    "Change": "translator.comparison.delta",
    "Controller": "translator.topology",
    "Delta": "translator.comparison.delta",
    "Device": "translator.topology",
    "Diagnostic": "translator.errors",
    "DocumentError": "translator.errors",
    "Domain": "translator.document.domain",
    "DomainIdentity": "translator.topology",
    "Host": "translator.live.host",
    "HostDevice": "translator.topology",
    "HostError": "translator.errors",
    "LaunchOption": "translator.planning.plan",
    "Observation": "translator.live.observe",
    "OutcomeUnknown": "translator.errors",
    "Plan": "translator.planning.plan",
    "PlanError": "translator.errors",
    "Planned": "translator.fleet.batch",
    "QmpCommand": "translator.planning.plan",
    "Recovered": "translator.saga.recover",
    "RollbackError": "translator.errors",
    "Source": "translator.errors",
    "Step": "translator.planning.plan",
    "StepEvent": "translator.saga.outcome",
    "SysfsWrites": "translator.planning.plan",
    "Topology": "translator.topology",
    "Transaction": "translator.planning.plan",
    "TranslatorError": "translator.errors",
    "Unfinished": "translator.saga.unfinished",
    "UnfinishedStep": "translator.saga.unfinished",
    "Wait": "translator.planning.plan",
    "XenstoreOp": "translator.planning.plan",
    "diff": "translator.api",
    "load": "translator.api",
    "plan": "translator.api",
    "plan_many": "translator.fleet.batch",
}

if not TYPE_CHECKING:  # which would let any name pass

    def __getattr__(name: str) -> Any:
        if name not in _WHERE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_WHERE[name]), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
