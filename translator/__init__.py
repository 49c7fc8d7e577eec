"""translator: libvirt-style domain XML to exactly what a Xen or QEMU host must be told.

domain = translator.load("guest.xml")
plan = translator.plan(domain, domid=7)
async with translator.Host(xenstore=..., qmp=...) as host:
    await host.apply(plan)
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from translator.compile import compile_plan
from translator.domain import MAX_SIZE, Domain
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
from translator.plan import Basis, Plan, Step
from translator.resolve import resolve
from translator.steps import COLDPLUG, Coldplug
from translator.topology import Controller, Device, Topology, check_domid

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from translator.batch import Planned, plan_many
    from translator.blocking import BlockingHost
    from translator.delta import Change, Delta
    from translator.domain import SharePolicy
    from translator.drivers import Driver
    from translator.host import Host
    from translator.outcome import Applied, StepEvent
    from translator.recover import Recovered
    from translator.topology import Layout
    from translator.unfinished import Unfinished, UnfinishedStep

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
    "Host",
    "HostError",
    "OutcomeUnknown",
    "Plan",
    "PlanError",
    "Planned",
    "Recovered",
    "RollbackError",
    "Source",
    "Step",
    "StepEvent",
    "Topology",
    "TranslatorError",
    "Unfinished",
    "UnfinishedStep",
    "diff",
    "load",
    "plan",
    "plan_many",
]

# What making a plan does without, and a command line that makes one does not wait for.
_LATE = {
    "Applied": "translator.outcome",
    "BlockingHost": "translator.blocking",
    "Change": "translator.delta",
    "Delta": "translator.delta",
    "Host": "translator.host",
    "Planned": "translator.batch",
    "Recovered": "translator.recover",
    "StepEvent": "translator.outcome",
    "Unfinished": "translator.unfinished",
    "UnfinishedStep": "translator.unfinished",
    "plan_many": "translator.batch",
}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load(
    source: str | PathLike[str] | bytes | BinaryIO, *, file: str | None = None, max_size: int = MAX_SIZE
) -> Domain:
    """Return what a domain document says.

    Args:
        source: a path, the document's bytes, or a binary file object.
        file: the name for diagnostics; a path's own if None.
        max_size: the largest document that is read, in bytes.

    Raises:
        DocumentError: the document is refused, with all its faults.
        OSError: the file cannot be read.
        TypeError: it is text.
    """
    from translator.parse import parse
    from translator.validate import validate

    if isinstance(source, bytes):
        data = source
    elif isinstance(source, str) and source.lstrip().startswith("<"):
        raise TypeError("a str is a path; give a document itself as bytes: text.encode()")
    elif isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as stream:
            data = stream.read(max_size + 1)
        file = file or os.fspath(source)
    else:
        data = source.read(max_size + 1)
        if not isinstance(data, bytes):
            raise TypeError("the file is open for text; open it with 'rb'")
    return parse(validate(data, file=file, max_size=max_size))


def plan(
    domain: Domain,
    *,
    domid: int | None = None,
    layout: Layout | None = None,
    coldplug: Coldplug = "auto",
    usbback: bool = False,
    device_models: SharePolicy | None = None,
    probed: Mapping[str, Driver | None] | None = None,
) -> Plan:
    """Return the plan that makes a domain have what its document says.

    Args:
        domid: the running Xen domain's id; the document's own if None, and a placeholder when that has none.
        layout: where a Xen domain's records live; libxl if None.
        coldplug: `all` puts every emulated device on QEMU's command line, not only what cannot be hot-plugged.
        usbback: whether the backend domain has the kernel's PVUSB backend, for controllers without a model.
        device_models: how the controllers of a Xen HVM guest are shared out: `primary`, `single`,
            `per-controller` or `named`; None: as the document says.
        probed: what a QEMU was found to have, for overrides of properties that only it knows; see `translator.probe`.

    Raises:
        DocumentError: what the document says cannot be; with all its faults.
        ValueError: an argument is none of those possible.
    """
    from translator.pinpoint import pinpoint, pinpointed

    if coldplug not in COLDPLUG:
        raise ValueError(f"coldplug is one of {', '.join(COLDPLUG)}, and not {coldplug!r}")
    check_domid(domid)
    if domid is not None:
        domain = msgspec.structs.replace(domain, domid=domid)
    with pinpointed(domain.data):
        resolution = resolve(domain, layout=layout, usbback=usbback, device_models=device_models, probed=probed)
    return compile_plan(
        resolution.topology,
        coldplug=coldplug,
        untranslated=(*domain.untranslated, *resolution.untranslated),
        diagnostics=[
            msgspec.structs.replace(warning, file=None)
            for warning in pinpoint((*domain.warnings, *resolution.warnings), domain.data)
        ],
    )


def diff(old: Plan, new: Plan) -> Delta:
    """Return what leads from one plan to another, by meaning: what the guest notices, and what it requires.

    The order of elements, layout, names of ours and defaults that are spelled out make no difference. A plan
    without steps is one that was observed: what a host does not tell is no difference either.
    """
    from translator.compare import compare

    return compare(old, new)
