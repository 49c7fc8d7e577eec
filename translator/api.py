"""The functions of the package: a document read, planned, and compared."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from translator.document.domain import MAX_SIZE, Domain
from translator.placing.resolve import resolve
from translator.planning.compile import compile_plan
from translator.planning.plan import check_plan
from translator.planning.steps import COLDPLUG, Coldplug
from translator.topology import check_domid

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from translator.comparison.delta import Delta
    from translator.document.domain import SharePolicy
    from translator.live.drivers import Driver
    from translator.planning.plan import Plan
    from translator.topology import Layout


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
        TypeError: it is text, or nothing of the kind.
    """
    from translator.document.parse import parse
    from translator.document.validate import validate

    if isinstance(source, bytes):
        data = source
    elif isinstance(source, str) and source.lstrip().startswith("<"):
        raise TypeError("a str is a path; give a document itself as bytes: text.encode()")
    elif isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as stream:
            data = stream.read(max_size + 1)
        file = file or os.fspath(source)
    elif not hasattr(source, "read"):
        raise TypeError(f"expected a path, bytes or a binary file, and not {type(source).__name__}")
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
        probed: what a QEMU was found to have, for overrides of properties that only it knows; see
            `translator.live.probe`.

    Raises:
        DocumentError: what the document says cannot be; with all its faults.
        TypeError: it is no Domain.
        ValueError: an argument is none of those possible.
    """
    from translator.document.parse_device_models import POLICIES
    from translator.document.pinpoint import pinpoint, pinpointed

    if not isinstance(domain, Domain):
        raise TypeError(f"expected a Domain, as load() returns it, and not {type(domain).__name__}")
    if coldplug not in COLDPLUG:
        raise ValueError(f"coldplug is one of {', '.join(COLDPLUG)}, and not {coldplug!r}")
    if device_models is not None and device_models not in POLICIES:
        raise ValueError(f"device_models is one of {', '.join(POLICIES)}, and not {device_models!r}")
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
    without steps is one that was observed: what a host does not tell is no difference either. So a running domain
    is compared by `diff(Plan(topology=seen, steps=()), plan)`, with `seen` from `Host.observe`.

    Raises:
        TypeError: one of them is no Plan.
    """
    from translator.comparison.compare import compare

    check_plan(old)
    check_plan(new)

    return compare(old, new)
