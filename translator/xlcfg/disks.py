"""Disks: the entries of `disk`, as xl and as xend took them, and `<disk>`.

    format=qcow2,vdev=hda,access=rw,backendtype=qdisk,target=/a/b    by name; target takes the rest
    /a/b,qcow2,hda,rw                                                by position
    phy:/dev/vg/a,hda,w    tap:qcow2:/a/b,xvda,w    ,hdc:cdrom,r     as xend had them

Source: xl-disk-configuration(5), libxlu_disk_l.l.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from translator.errors import Source
from translator.xlcfg.language import Text
from translator.xlcfg.sheet import Kept, Option, Sheet, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lxml.etree import _Element

    from translator.xlcfg.draft import Draft
    from translator.xlcfg.taken import Taken

_NAMED = ("target", "format", "vdev", "access", "devtype", "backendtype", "backend", "script")
_POSITIONS = ("target", "format", "vdev", "access")
_CLASSIC = ("target", "vdev", "access")
_FLAGS = ("discard", "no-discard", "direct-io-safe")  # and what begins with colo
_ACCESS = {"rw": "rw", "w": "rw", "ro": "ro", "r": "ro", "w!": "shared", "!": "shared"}
# xl's word for a format, and libvirt's.
_FORMATS = {"raw": "raw", "qcow": "qcow", "qcow2": "qcow2", "vhd": "vpc", "qed": "qed"}
_BACKENDS = {"phy": "phy", "qdisk": "qemu", "tap": "tap", "standalone": "qemu"}
_BACKEND_OF = {"phy": "phy", "qemu": "qdisk", "file": "qdisk", "tap": "tap", "tap2": "tap"}
_DEVICES = {"cdrom": "cdrom", "disk": "disk"}
_BUSSES = {"hd": "ide", "xvd": "xen", "sd": "scsi", "fd": "fdc"}
_VDEV = re.compile(r"(hd|xvd|sd|fd)([a-z]+)([0-9]*)", re.ASCII)
_WITH_TYPE = re.compile(r"((?:hd|xvd|sd|fd)[a-z]+[0-9]*)(?::(cdrom|disk))?", re.ASCII)
_PREFIX = re.compile(r"(phy|file|tap2?)(?::(aio|raw|qcow2?|vhd))?:(?=/)")
_RBD_HOST = re.compile(r"(\[.*\]|[^:]*)(?::([0-9]+))?", re.ASCII)


def read(sheet: Sheet, draft: Draft, devices: _Element) -> list[str]:
    """Add a `<disk>` for each entry; return their targets."""
    targets = []
    for number, text in enumerate(sheet.texts("disk"), 1):
        options = _Entry(sheet, text, number).options()
        if options is not None:
            _draw(draft, devices, text, options)
            targets.append(options["vdev"].value)
    return targets


class _Entry:
    """One entry, taken apart."""

    def __init__(self, sheet: Sheet, text: Text, number: int) -> None:
        self.sheet = sheet
        self.text = text
        self.number = number
        self.element = f"disk[{number}]"

    def options(self) -> dict[str, Text] | None:
        """Return the options by name, in libvirt's words; None, with a fault, when they cannot be."""
        found: dict[str, Text] = {}
        positional: list[Option] = []
        for option in self.pieces():
            if option.key:
                found.setdefault(option.key, option.text)
            else:
                positional.append(option)
        words = [option.value for option in positional]
        prefix = _PREFIX.match(words[0]) if words else None
        second = words[1] if len(words) > 1 else ""
        names = _CLASSIC if prefix or _WITH_TYPE.fullmatch(second) else _POSITIONS
        if len(positional) > len(names):
            self.fault(positional[len(names)].source, "it has more parts than there are places for")
            return None
        for name, option in zip(names, positional, strict=False):
            if option.value:
                found.setdefault(name, option.text)
        if prefix:
            found["target"] = Text(words[0][prefix.end() :], positional[0].source)
            found["driver"] = Text(prefix[1], positional[0].source)
            if prefix[2] in _FORMATS:
                found["format"] = Text(prefix[2], positional[0].source)
        elif names is _CLASSIC and not words[0]:
            found["driver"] = Text("phy", self.text.source)
        return self.in_words({name: text for name, text in found.items() if text.value})

    def pieces(self) -> Iterator[Option]:
        """Yield the parts; `target=` takes all that follows it."""
        text, position = self.text.value, 0
        while position <= len(text):
            rest = text[position:]
            piece = rest if rest.lstrip().startswith("target=") else rest.partition(",")[0]
            source = Source(self.text.source.line, self.text.source.column + position)
            key, equals, value = piece.strip().partition("=")
            if equals and key in _NAMED:
                yield Option(key, value, source)
            elif piece.strip() == "cdrom":
                yield Option("devtype", "cdrom", source)
            elif piece.strip() in _FLAGS or piece.startswith("colo"):
                self.sheet.keep(Kept("disk", self.text, source, self.number - 1, piece.strip()))
            elif equals and re.fullmatch(r"[a-z][-a-z0-9]*", key):
                self.fault(source, f"{shown(key)} is no option of a disk")
            elif piece.strip() or position + len(piece) < len(text):
                yield Option("", piece.strip(), source)
            position += len(piece) + 1

    def in_words(self, found: dict[str, Text]) -> dict[str, Text] | None:
        tables: Mapping[str, Mapping[str, str]] = {
            "access": _ACCESS,
            "format": _FORMATS,
            "backendtype": _BACKENDS,
            "devtype": _DEVICES,
        }
        for name, table in tables.items():
            if name in found:
                word = table.get(found[name].value.lower())
                if word is None:
                    problem = f"{shown(found[name].value)} is no {name} of a disk"
                    self.fault(found[name].source, problem, f"possible: {', '.join(table)}")
                    return None
                found[name] = Text(word, found[name].source)
        vdev = found.get("vdev")
        match = _WITH_TYPE.fullmatch(vdev.value) if vdev is not None else None
        if vdev is None or match is None:
            problem = f"{shown(vdev.value)} is no vdev" if vdev else "it says nowhere what the guest sees it as"
            self.fault((vdev or self.text).source, problem, "a vdev is such as xvda, hda, sda or fda")
            return None
        found["vdev"] = Text(match[1], vdev.source)
        if match[2]:
            found["devtype"] = Text(match[2], vdev.source)
        return found

    def fault(self, source: Source, message: str, help: str | None = None) -> None:
        self.sheet.fault("T119", source, f"{self.element}: {message}", help, self.element)


def _draw(draft: Draft, devices: _Element, entry: Text, options: Mapping[str, Text]) -> None:
    driver = options["backendtype"].value if "backendtype" in options else "qemu"
    if "driver" in options:
        driver = options["driver"].value
    target, access = options.get("target"), options["access"].value if "access" in options else "rw"
    device = options["devtype"].value if "devtype" in options else "disk"
    network = target is not None and target.value.startswith("rbd:")
    type = "network" if network else "block" if driver == "phy" else "file"
    disk = draft.add(devices, "disk", {"type": type, "device": device}, at=entry.source)
    draft.add(disk, "driver", {"name": driver, "type": options.get("format", "raw")})
    if network and target is not None:
        _draw_rbd(draft, disk, target)
    elif target is not None:
        draft.add(disk, "source", {"dev" if type == "block" else "file": target})
    if "script" in options:
        draft.add(disk, "script", {"path": options["script"]})
    if "backend" in options:
        draft.add(disk, "backenddomain", {"name": options["backend"]})
    vdev = options["vdev"]
    name = _VDEV.fullmatch(vdev.value)
    assert name is not None
    draft.add(disk, "target", {"dev": vdev, "bus": _BUSSES[name[1]]})
    if access == "ro" or device == "cdrom":
        draft.add(disk, "readonly")
    if access == "shared":
        draft.add(disk, "shareable")
    if name[1] != "xvd" and len(name[2]) == 1:
        draft.add(disk, "address", _drive(name[1], ord(name[2]) - ord("a")))


def _drive(prefix: str, number: int) -> dict[str, str]:
    """Return the address of the n-th drive: two on an IDE bus, seven on a SCSI controller."""
    controller, bus, unit = {"hd": (0, number // 2, number % 2), "fd": (0, 0, number)}.get(
        prefix, (number // 7, 0, number % 7)
    )
    return {"type": "drive", "controller": str(controller), "bus": str(bus), "target": "0", "unit": str(unit)}


def _draw_rbd(draft: Draft, disk: _Element, target: Text) -> None:
    """Read `rbd:POOL/IMAGE:KEY=VALUE:mon_host=HOST\\:PORT\\;HOST`, in which a backslash keeps a sign."""
    name, *options = re.split(r"(?<!\\):", target.value.removeprefix("rbd:"))
    source = draft.add(disk, "source", {"protocol": "rbd", "name": name}, at=target.source)
    for key, value in (option.partition("=")[::2] for option in options):
        hosts = re.split(r"\\?;", value) if key == "mon_host" else ()
        for host in hosts:
            found = _RBD_HOST.fullmatch(host.replace("\\", ""))
            if found:
                draft.add(source, "host", {"name": found[1], "port": found[2]})


# From XML


def write(taken: Taken, devices: _Element | None) -> list[str]:
    """Return the entries of disks that are not USB's."""
    found = []
    for disk in taken.children(devices, "disk"):
        target = taken.child(disk, "target")
        if taken.attribute(target, "bus") == "usb":
            continue  # whoever writes USB takes it
        entry = _written(taken, disk, target)
        if entry is not None:
            found.append(entry)
    return found


def _written(taken: Taken, disk: _Element, target: _Element | None) -> str | None:
    type, device = taken.attribute(disk, "type") or "file", taken.attribute(disk, "device") or "disk"
    driver, source = taken.child(disk, "driver"), taken.child(disk, "source")
    vdev = taken.attribute(target, "dev") or ""
    default = "phy" if type == "block" else "qemu"
    backend = _BACKEND_OF.get(taken.attribute(driver, "name") or default)
    image = taken.attribute(driver, "type") or "raw"
    format = next((word for word, libvirts in _FORMATS.items() if libvirts == image), None)
    path = taken.attribute(source, "dev" if type == "block" else "file")
    if type == "network":
        path = _rbd(taken, source)
    reason = None
    if not _VDEV.fullmatch(vdev):
        reason = f"its target {vdev!r} is no vdev of Xen"
    elif device not in _DEVICES:
        reason = f"xl has no disks of device {device!r}"
    elif backend is None or format is None:
        reason = f"xl has no such driver or format ({image})"
    elif type not in ("file", "block") and path is None:
        reason = f"xl has no disks of type {type!r}"
    if reason is not None:
        taken.whole(disk)
        taken.warn("T360", disk, None, f"<disk> is left out: {reason}")
        return None
    parts = [f"format={format}", f"vdev={vdev}"]
    read_only = taken.child(disk, "readonly") is not None
    shared = taken.child(disk, "shareable") is not None
    parts += [f"access={'w!' if shared else 'ro' if read_only else 'rw'}", f"backendtype={backend}"]
    for child, attribute, key in (("script", "path", "script"), ("backenddomain", "name", "backend")):
        value = taken.attribute(taken.child(disk, child), attribute)
        if value and "," not in value:
            parts.append(f"{key}={value}")
    if device == "cdrom":
        parts.append("devtype=cdrom")
    taken.whole(disk.find("address[@type='drive']"))
    if driver is not None and driver.get("cache") == "default":
        taken.take(driver, "cache")
    return ",".join([*parts, f"target={path or ''}"])


def _rbd(taken: Taken, source: _Element | None) -> str | None:
    if taken.attribute(source, "protocol") != "rbd":
        return None
    hosts = []
    for host in taken.children(source, "host"):
        port = taken.attribute(host, "port")
        hosts.append((taken.attribute(host, "name") or "") + (rf"\:{port}" if port else ""))
    servers = f":mon_host={_SEMICOLON.join(hosts)}" if hosts else ""
    return f"rbd:{taken.attribute(source, 'name')}:auth_supported=none{servers}"


_SEMICOLON = r"\;"
