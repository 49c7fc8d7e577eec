"""Serial ports, consoles and channels: `serial`, `parallel` and `channel`, `<serial>`, `<console>` and `<channel>`.

A serial port is described as QEMU's -serial takes it: pty, /dev/ttyS0, tcp:HOST:PORT,server, unix:PATH, …
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from translator.xlcfg.sheet import Kept, Sheet, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lxml.etree import _Element

    from translator.topology import Guest
    from translator.xlcfg.draft import Draft
    from translator.xlcfg.language import Text
    from translator.xlcfg.taken import Taken

_BARE = ("pty", "null", "vc", "stdio")
_PATHS = ("file", "pipe")


class _Port(NamedTuple):
    """What a description says: libvirt's type, its `<source>`s, and its protocol."""

    type: str
    sources: tuple[dict[str, str], ...] = ()
    protocol: str | None = None


def read(sheet: Sheet, draft: Draft, devices: _Element, guest: Guest) -> None:
    """Add the guest's ports and consoles."""
    for kind in ("serial", "parallel"):
        entries = [text for text in sheet.texts(kind, single=True) if text.value not in ("none", "")]
        if guest != "hvm":
            for text in entries:
                sheet.keep(Kept(kind, sheet.settings[kind].value, text.source))
            continue
        for number, text in enumerate(entries):
            port = _described(text)
            if port is None:
                sheet.fault(
                    "T119",
                    text.source,
                    f"{shown(text.value)} is no {kind} port",
                    "possible: none, pty, null, stdio, file:…, pipe:…, tcp:…, telnet:…, udp:…, unix:…, /dev/…",
                    f"{kind}[{number + 1}]",
                )
                continue
            _draw(draft, devices, kind, port, number, text)
    serial = devices.find("serial")
    if serial is not None:
        console = draft.add(devices, "console", {"type": serial.get("type")}, at=sheet.place("serial"))
        for child in serial.iterchildren("source", "protocol"):
            draft.add(console, str(child.tag), {str(name): str(value) for name, value in child.items()})
        draft.add(console, "target", {"type": "serial", "port": 0})
    elif guest != "hvm":
        console = draft.add(devices, "console", {"type": "pty"})
        draft.add(console, "target", {"type": "xen", "port": 0})
    _read_channels(sheet, draft, devices)


def _draw(draft: Draft, devices: _Element, kind: str, port: _Port, number: int, text: Text) -> None:
    element = draft.add(devices, kind, {"type": port.type}, at=text.source)
    for source in port.sources:
        draft.add(element, "source", source)
    if port.protocol is not None:
        draft.add(element, "protocol", {"type": port.protocol})
    draft.add(element, "target", {"port": number})


def _described(text: Text) -> _Port | None:
    word, colon, rest = text.value.partition(":")
    if text.value in _BARE:
        return _Port(text.value)
    if text.value.startswith("/dev/"):
        return _Port("dev", ({"path": text.value},))
    address, *flags = rest.split(",")
    mode = "bind" if "server" in flags else "connect"
    if not colon:
        return None
    if word in _PATHS:
        return _Port(word, ({"path": rest},))
    if word == "unix":
        return _Port("unix", ({"mode": mode, "path": address},))
    if word in ("tcp", "telnet"):
        host, _, service = address.rpartition(":")
        return _Port("tcp", ({"mode": mode, "host": host, "service": service},), "raw" if word == "tcp" else "telnet")
    if word == "udp":
        remote, at, local = address.partition("@")
        (host, _, service), (bind, _, own) = remote.rpartition(":"), local.rpartition(":")
        sources = ({"mode": "connect", "host": host, "service": service},)
        return _Port("udp", ({"mode": "bind", "host": bind, "service": own}, *sources) if at else sources)
    return None


def _read_channels(sheet: Sheet, draft: Draft, devices: _Element) -> None:
    for number, text in enumerate(sheet.texts("channel"), 1):
        element = f"channel[{number}]"
        options = sheet.options_of(text, element, ("connection", "name", "path", "backend"))
        connection = options.get("connection")
        if connection is None or connection.value not in ("pty", "socket"):
            where = connection or text
            sheet.fault("T119", where.source, f"{element} has no connection", "possible: pty, socket", element)
            continue
        channel = draft.add(
            devices, "channel", {"type": "pty" if connection.value == "pty" else "unix"}, at=text.source
        )
        if "path" in options:
            draft.add(channel, "source", {"mode": "bind", "path": options["path"]})
        draft.add(channel, "target", {"type": "xen", "name": options.get("name")})
        if "backend" in options:
            sheet.keep(Kept("channel", text, text.source, number - 1, f"backend={options['backend'].value}"))


# From XML


def write(taken: Taken, devices: _Element | None, guest: Guest) -> dict[str, str | list[str]]:
    """Return the settings of ports and channels; a console that repeats the first port goes without saying."""
    found: dict[str, str | list[str]] = {}
    serials = taken.children(devices, "serial") if guest == "hvm" else []
    serials = [one for one in serials if one.find("target[@type='usb-serial']") is None]
    consoles = list(devices.iterchildren("console")) if devices is not None else []
    described = {kind: _descriptions(taken, elements) for kind, elements in (("serial", serials),)}
    if guest == "hvm":
        described["parallel"] = _descriptions(taken, taken.children(devices, "parallel"))
        if not serials and consoles and consoles[0].find("target[@type='virtio']") is None:
            described["serial"] = _descriptions(taken, consoles[:1])  # libvirt takes it for the first serial port
        for kind in ("parallel", "serial"):
            words = described[kind] or ["none"]
            found[kind] = words[0] if len(words) == 1 else words
    for console in consoles[:1]:
        taken.whole(console)
    if guest != "hvm" and consoles and consoles[0].get("type") != "pty":
        taken.warn("T361", consoles[0], "type", "xl gives every PV guest a console of type pty")
    channels = [entry for one in taken.children(devices, "channel") if (entry := _channel(taken, one))]
    if channels:
        found["channel"] = channels
    return found


def _descriptions(taken: Taken, elements: Sequence[_Element]) -> list[str]:
    found = []
    for element in elements:
        taken.child(element, "target")
        taken.take(element.find("target"), "port", "type")
        word = _description(taken, element)
        if word is None:
            taken.whole(element)
            type = element.get("type")
            taken.warn("T360", element, None, f"<{element.tag}> is left out: xl has none of type {type!r}")
        else:
            found.append(word)
    return found


def _description(taken: Taken, element: _Element) -> str | None:
    type = taken.attribute(element, "type") or "pty"
    sources = [
        {name: taken.attribute(source, name) or "" for name in map(str, source.attrib)}
        for source in taken.children(element, "source")
    ]
    by_mode = {source.get("mode", "connect"): source for source in sources}
    first = sources[0] if sources else {}
    protocol = taken.attribute(taken.child(element, "protocol"), "type")
    server = ",server,nowait" if first.get("mode") == "bind" else ""
    if type in _BARE:
        return type
    if type == "dev" and first.get("path", "").startswith("/dev/"):
        return first["path"]
    if type in _PATHS:
        return f"{type}:{first.get('path', '')}"
    if type == "unix":
        return f"unix:{first.get('path', '')}{server}"
    if type == "tcp":
        word = "telnet" if protocol == "telnet" else "tcp"
        return f"{word}:{first.get('host', '')}:{first.get('service', '')}{server}"
    if type == "udp":
        there, here = by_mode.get("connect", {}), by_mode.get("bind")
        local = f"@{here.get('host', '')}:{here.get('service', '')}" if here else ""
        return f"udp:{there.get('host', '')}:{there.get('service', '')}{local}"
    return None


def _channel(taken: Taken, channel: _Element) -> str | None:
    target, type = taken.child(channel, "target"), taken.attribute(channel, "type")
    if taken.attribute(target, "type") != "xen" or type not in ("pty", "unix"):
        taken.whole(channel)
        taken.warn("T360", channel, None, "<channel> is left out: xl has channels of target xen, type pty or unix")
        return None
    source = taken.child(channel, "source")
    taken.take(source, "mode")
    path, name = taken.attribute(source, "path"), taken.attribute(target, "name")
    parts = [f"connection={'pty' if type == 'pty' else 'socket'}"]
    parts += [f"path={path}"] if path and type == "unix" else []
    return ",".join([*parts, *([f"name={name}"] if name else [])])
