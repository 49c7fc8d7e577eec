"""Answers for libvirt: a document a line (JSON) in, libvirt's verdict and command line a line out.

For the system's Python, which has the binding. The driver runs in this process (`qemu:///embed`), below the
folder that the first argument names: no daemon, and nothing outside that folder.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any
from xml.etree import ElementTree

import libvirt  # type: ignore[import-not-found,unused-ignore]  # Debian's, not in the virtual environment

_BUS = 250  # of the made-up devices that stand for those to be found on the host


def answer(connection: Any, xml: str) -> dict[str, Any] | None:
    """Return `stage` (where the document was refused), `error` and `argv`; None what there is not."""
    known, lookups = _known(xml)
    refused = argv = None
    try:
        argv = connection.domainXMLToNative("qemu-argv", known, 0)
    except libvirt.libvirtError as error:
        refused = {"stage": "native", "error": str(error), "argv": None}
    if refused or lookups:
        try:
            connection.defineXML(xml).undefine()
        except libvirt.libvirtError as error:
            return {"stage": "define", "error": str(error), "argv": None}
    if argv is None:
        return refused
    return {"stage": None, "error": None, "argv": re.sub(rf"/dev/bus/usb/{_BUS}/(\d+)", _lookup(lookups), argv)}


def _known(xml: str) -> tuple[str, list[str]]:
    """Return the document with an address for each host device that libvirt would have to look up, and their ids."""
    lookups: list[str] = []
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return xml, lookups
    for source in root.iterfind("devices/hostdev/source"):
        vendor, product = source.find("vendor"), source.find("product")
        if vendor is None or product is None or source.find("address") is not None:
            continue
        ids = [_number(one.get("id", "")) for one in (vendor, product)]
        if ids[0] and ids[1] is not None:
            lookups.append(f"@lookup:vendor={ids[0]:#06x},product={ids[1]:#06x}")
            ElementTree.SubElement(source, "address", bus=str(_BUS), device=str(len(lookups)))
    return (ElementTree.tostring(root, encoding="unicode") if lookups else xml), lookups


def _number(text: str) -> int | None:
    """Read a number as C does: 0x is hexadecimal, another 0 in front octal; None where it is none."""
    match = re.fullmatch(r"\s*\+?(?:0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))", text)
    if match is None:
        return None
    return int(match[1], 16) if match[1] else int(match[2], 8) if match[2] else int(match[3])


def _lookup(lookups: list[str]) -> Any:
    return lambda match: lookups[int(match[1]) - 1]


def main() -> None:
    """Answer until there is no more input."""
    libvirt.registerErrorHandler(lambda *_: None, None)
    libvirt.virEventRegisterDefaultImpl()
    connection = libvirt.open(f"qemu:///embed?root={sys.argv[1]}")
    for line in sys.stdin:
        print(json.dumps(answer(connection, json.loads(line))), flush=True)
    connection.close()


main()
