"""Devices for a running domain: a fragment of domain XML, or words that stand for one.

hostdev:…, tablet, mouse, keyboard, hub       see `words`
controller[:MODEL][,index=N][,ports=N]        a USB controller; without a model, what the guest's kind gets
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

import msgspec

from translator.errors import Diagnostic, DocumentError
from translator.families import by_name, by_tag
from translator.hotplug.words import parse_device_word
from translator.registry.models import NAMES

if TYPE_CHECKING:
    from translator.document.domain import Domain
    from translator.topology import DomainIdentity, HostDevice, Place

_DECLARATION = re.compile(rb"^\xef\xbb\xbf|^\s*<\?xml[^>]*\?>")
_CONTROLLER = re.compile(r"controller(:(?P<model>[^,]*))?(?P<options>(,[^,]*)*)")
_SPICE = "/domain/devices/graphics[1]"
_TAKEN = ("controller", *sorted(set(by_tag()) - {"controller"}))


def read_fragment(text: bytes, identity: DomainIdentity, *, file: str | None = None) -> Domain:
    """Return the devices of a fragment, `<hostdev>…</hostdev>` for one, as those of a domain like the one it is for.

    Raises:
        DocumentError: the fragment is refused, with all its faults; T441, there is nothing in it to attach.
    """
    from translator.document.parse import parse
    from translator.document.validate import validate

    hypervisor = "xen" if identity.hypervisor == "xen" else "kvm"
    os_type = {"pv": "xen", "pvh": "xenpvh"}.get(identity.guest, "hvm")
    while declaration := _DECLARATION.match(text):
        text = text[declaration.end() :]
    # in one line, so that lines count as in the fragment; whether the domain has SPICE its QEMU knows
    head = (
        f"<domain type='{hypervisor}'><name>fragment</name><os><type>{os_type}</type></os>"
        "<devices><graphics type='spice'/>"
    ).encode()
    try:
        domain = parse(validate(head + text + b"</devices></domain>", file=file))
    except DocumentError as error:
        raise DocumentError([_moved(one, len(head)) for one in error.diagnostics]) from None
    # what of these families cannot come is theirs to say, and has a reason
    known = {one.path for one in domain.controllers} | {one.path for one in domain.devices} | {_SPICE}
    odd = [one for one in domain.untranslated if one.element not in known]
    if odd or not (domain.controllers or domain.devices):
        found = ", ".join(f"<{one.element.rpartition('/')[2].partition('[')[0]}>" for one in odd)
        raise DocumentError(
            [
                Diagnostic(
                    code="T441",
                    message=f"{found} is nothing that can be attached here"
                    if found
                    else "there is no device in the fragment",
                    help=f"possible: {', '.join(f'<{tag}>' for tag in _TAKEN)}, on a controller of {_families()}",
                    file=file,
                    line=odd[0].source.line if odd else None,
                )
            ]
        )
    # what else takes PCI slots only the running QEMU knows
    return msgspec.structs.replace(domain, machine=identity.machine, arch=identity.arch, pci=None)


def _families() -> str:
    return ", ".join(by_name())


def spell(word: str, place: Place | None = None) -> bytes:
    """Return the XML of what a word names, at that place.

    Raises:
        DocumentError: T340, with the part of the word that is wrong.
    """
    if word.partition(":")[0].partition(",")[0] == "controller":
        return _controller(word).encode()
    device = parse_device_word(word)
    port = f" port='{place.port}'" if place is not None and place.port else ""
    address = f"<address type='usb' bus='{place.controller}'{port}/>" if place is not None else ""
    if device.host is not None:
        source = _source(device.host)
        return f"<hostdev mode='subsystem' type='usb'><source>{source}</source>{address}</hostdev>".encode()
    tag, words = ("hub", "type='usb'") if device.kind == "hub" else ("input", f"type='{device.kind}' bus='usb'")
    return (f"<{tag} {words}>{address}</{tag}>" if address else f"<{tag} {words}/>").encode()


def unplaced(error: DocumentError) -> DocumentError:
    """Return what was found in a word's XML, whose lines nobody has written."""
    return DocumentError(
        [msgspec.structs.replace(one, line=None, column=None, element=None) for one in error.diagnostics]
    )


def _source(host: HostDevice) -> str:
    parts = ""
    if host.vendor is not None:
        parts += f"<vendor id='{host.vendor:#06x}'/><product id='{host.product or 0:#06x}'/>"
    if host.device is not None:
        parts += f"<address bus='{host.bus}' device='{host.device}'/>"
    elif host.path is not None:
        bus, _, port = host.path.partition("-")
        parts += f"<address bus='{bus}' port='{port}'/>"
    if host.serial is not None:
        escaped = host.serial.replace("&", "&amp;").replace("<", "&lt;")
        parts += f"<serial>{escaped}</serial>"
    return parts


def _controller(word: str) -> str:
    match = _CONTROLLER.fullmatch(word)
    if match is None:
        _refuse(word, "after 'controller' there is a colon or a comma", "such as controller:qusb2,ports=4")
    words = {"type": "usb"}
    if match["model"] is not None:
        if match["model"] not in NAMES:
            _refuse(word, f"{match['model']!r} is no model", f"known: {', '.join(NAMES)}")
        words["model"] = match["model"]
    for option in filter(None, match["options"].split(",")):
        name, equals, value = option.partition("=")
        if name not in ("index", "ports") or not equals:
            _refuse(word, f"{option!r} is no option of a controller", "possible: index=N, ports=N")
        if not re.fullmatch(r"[0-9]{1,9}", value):
            _refuse(word, f"the {name} {value!r} is not a number", f"such as {name}=4")
        words[name] = value
    return "<controller" + "".join(f" {name}='{value}'" for name, value in words.items()) + "/>"


def _moved(finding: Diagnostic, width: int) -> Diagnostic:
    """Return the finding with its column in the fragment, before whose first line stands something of ours."""
    if finding.line != 1 or finding.column is None:
        return finding
    return msgspec.structs.replace(finding, column=max(finding.column - width, 1))


def _refuse(word: str, message: str, help: str) -> NoReturn:
    shown = word if len(word) <= 60 else f"{word[:60]}…"
    raise DocumentError([Diagnostic(code="T340", message=f"{shown!r} is no device: {message}", help=help)])
