"""The host's end of a character device, read from the element that has one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from translator.document.domain import CharSource
from translator.document.reader import Place, attributes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from translator.document.reader import Reader

_NEEDS = {
    "dev": ("path",),
    "file": ("path",),
    "pipe": ("path",),
    "unix": ("path",),
    "tcp": ("host", "service"),
    "udp": ("service",),
    "spiceport": ("channel",),
}
TYPES = (
    "null",
    "vc",
    "pty",
    "dev",
    "file",
    "pipe",
    "stdio",
    "udp",
    "tcp",
    "unix",
    "spicevmc",
    "spiceport",
    "dbus",
)


def char_source(reader: Reader, place: Place, type: str) -> CharSource | None:
    """Return the host's end; None, with a fault, where something of it is missing or not translated."""
    sources = [
        Place(one, f"{place.path}/source[{number}]") for number, one in enumerate(place.element.iterfind("source"), 1)
    ]
    source = sources[0] if sources else None
    bind = None
    if type == "udp":  # the one protocol with an end of its own beside the other side's
        bind = next((one for one in sources if one.element.get("mode") == "bind"), None)
        source = next((one for one in sources if one is not bind), None)
    given: Mapping[str, str] = attributes(source.element) if source else {}
    listen = given.get("mode") == "bind"
    needed = _NEEDS.get(type, ())
    for name in needed:
        if not given.get(name):
            reader.fault(
                "T322",
                source or place,
                None,
                f"the host's end of this {type} device lacks {name!r}",
                f"add <source {name}='…'/>",
            )
            return None
    protocol = reader.attribute(place, "protocol", "type") or "raw"
    if type not in TYPES or protocol in ("tls", "telnets") or given.get("tls") == "yes":
        what = f"type {type!r}" if type not in TYPES else "with TLS"
        reader.fault(
            "T330",
            place,
            None,
            f"a character device {what} is not translated",
            f"possible: {', '.join(TYPES)}, without TLS",
        )
        return None
    reconnect = reader.child(source, "reconnect") if source else None
    seconds = None
    if reconnect is not None and reconnect.element.get("enabled") == "yes":
        seconds = reader.number(reconnect, "timeout", required=True)
    append = given.get("append")
    log_append = reader.attribute(place, "log", "append")
    return CharSource(
        type=type,
        path=given.get("path"),
        host=given.get("host"),
        service=given.get("service"),
        bind_host=bind.element.get("host") if bind else None,
        bind_service=bind.element.get("service") if bind else None,
        listen=listen,
        telnet=type == "tcp" and protocol == "telnet",
        reconnect=seconds,
        append=append == "on" if append else None,
        name=given.get("channel") or ("org.qemu.usbredir" if type == "dbus" else None),
        log=reader.attribute(place, "log", "file"),
        log_append=log_append == "on" if log_append else None,
    )
