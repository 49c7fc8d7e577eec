"""Character devices: the host's end as QMP's `chardev-add` takes it, and the same as a word of `-chardev`.

QEMU 7.2 reads no JSON after `-chardev`. The words are made from what goes over QMP, so that the two cannot tell
different things. Source: qapi/char.json and `qemu_chardev_opts` (chardev/char.c) of QEMU 7.2; order of the keys,
libvirt's qemuBuildChardevStr, as observed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from translator.document.domain import CharSource
    from translator.topology import Value

# What libvirt calls a spicevmc's channel follows from the device in front of it.
SPICE_CHANNELS = {"redirdev": "usbredir", "smartcard": "smartcard"}


def arguments(source: CharSource, id: str, channel: str | None) -> dict[str, Value]:
    """Return the arguments of `chardev-add`; `channel` is a spicevmc's."""
    type, data = _backend(source, channel)
    if source.log is not None:
        data["logfile"] = source.log
        if source.log_append is not None:
            data["logappend"] = source.log_append
    return {"id": id, "backend": {"type": type, "data": data}}


def _backend(source: CharSource, channel: str | None) -> tuple[str, dict[str, Any]]:
    match source.type:
        case "dev":
            return "serial", {"device": source.path}
        case "pipe":
            return "pipe", {"device": source.path}
        case "file":
            appended = {} if source.append is None else {"append": source.append}
            return "file", {"out": source.path, **appended}
        case "udp":
            data: dict[str, Any] = {"remote": _inet(source.host, source.service)}
            if source.bind_host or source.bind_service:
                data["local"] = _inet(source.bind_host, source.bind_service)
            return "udp", data
        case "tcp":
            return "socket", {"addr": _inet(source.host, source.service), **_socket(source)}
        case "unix":
            return "socket", {"addr": {"type": "unix", "data": {"path": source.path}}, **_socket(source)}
        case "spicevmc":
            return "spicevmc", {"type": channel or "vdagent"}
        case "spiceport":
            return "spiceport", {"fqdn": source.name}
        case "dbus":
            return "dbus", {"name": source.name}
        case type:
            return type, {}


def _inet(host: str | None, service: str | None) -> dict[str, Any]:
    return {"type": "inet", "data": {"host": host or "", "port": service or ""}}


def _socket(source: CharSource) -> dict[str, Any]:
    data: dict[str, Any] = {"telnet": True} if source.telnet else {}
    data["server"] = source.listen
    if source.listen:
        data["wait"] = False
    elif source.reconnect is not None:
        data["reconnect"] = source.reconnect
    return data


def word(arguments: Mapping[str, Any]) -> str:
    """Return what follows `-chardev` for the arguments of a `chardev-add`."""
    backend = arguments["backend"]
    type, data = backend["type"], backend["data"]
    pairs = [("id", arguments["id"]), *_pairs(type, data)]
    if "logfile" in data:
        pairs.append(("logfile", data["logfile"]))
    if "logappend" in data:
        pairs.append(("logappend", data["logappend"]))
    return ",".join([type, *(f"{key}={_value(value)}" for key, value in pairs)])


def _pairs(type: str, data: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    match type:
        case "serial" | "pipe":
            yield "path", data["device"]
        case "file":
            yield "path", data["out"]
            if "append" in data:
                yield "append", data["append"]
        case "udp":
            for prefix, end in (("", "remote"), ("local", "local")):
                if end in data:
                    yield f"{prefix}{'addr' if prefix else 'host'}", data[end]["data"]["host"]
                    yield f"{prefix}port", data[end]["data"]["port"]
        case "socket":
            yield from data["addr"]["data"].items()
            if "telnet" in data:
                yield "telnet", True
            if data["server"]:
                yield "server", True
                yield "wait", data["wait"]
            elif "reconnect" in data:
                yield "reconnect", data["reconnect"]
        case "spicevmc":
            yield "name", data["type"]
        case "spiceport":
            yield "name", data["fqdn"]
        case "dbus":
            yield "name", data["name"]


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value).replace(",", ",,")
