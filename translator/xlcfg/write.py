"""Domain XML becomes a file in xl's language; what that has no words for is told, element by element."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from translator.errors import Diagnostic, DocumentError
from translator.xlcfg import consoles, disks, displays, hosts, language, networks, usbwrite, vscsi
from translator.xlcfg.hosts import to_kib
from translator.xlcfg.names import EVENTS, NAMESPACE, TIMERS
from translator.xlcfg.taken import Taken

if TYPE_CHECKING:
    from lxml.etree import _Element

    from translator.document.domain import Domain
    from translator.document.validate import Document
    from translator.topology import Topology

_BOOT = {"fd": "a", "hd": "c", "cdrom": "d", "network": "n"}


class Written(NamedTuple):
    """The text, and what did not get into it."""

    text: str
    lost: tuple[Diagnostic, ...]


def write(document: Document, domain: Domain, topology: Topology) -> Written:
    """Return a Xen domain's file in xl's language.

    Args:
        document: what is to be put into it.
        domain: what `parse` makes of the document.
        topology: what `resolve` makes of that.

    Raises:
        DocumentError: the domain is not one of Xen's.
    """
    if domain.hypervisor != "xen":
        raise DocumentError(
            [
                Diagnostic(
                    code="T362",
                    message=f"an xl.cfg is for Xen domains, and this one is of type {domain.hypervisor!r}",
                    help="<domain type='xen'>",
                    file=document.file,
                    line=domain.source.line,
                    column=domain.source.column,
                    element=f"{domain.path}/@type",
                )
            ]
        )
    writer = _Writer(document, domain, topology)
    text = language.write(writer.settings().items())
    lost = (*writer.taken.warnings, *writer.taken.untaken())
    return Written(text, tuple(sorted(lost, key=lambda one: (one.line or 0, one.column or 0, one.code))))


Settings = dict[str, object]


class _Writer:
    def __init__(self, document: Document, domain: Domain, topology: Topology) -> None:
        self.domain = domain
        self.topology = topology
        self.hvm = domain.guest == "hvm"
        self.root = document.root
        self.taken = Taken(document.root, document.locator, document.file)
        self.found: Settings = {}

    def settings(self) -> Settings:
        found, taken, root = self.found, self.taken, self.root
        taken.take(root, "type", "id")
        devices = taken.child(root, "devices")
        found["name"] = self.domain.name
        taken.whole(root.find("name"))
        if self.domain.uuid is not None:
            found["uuid"] = self.domain.uuid
            taken.whole(root.find("uuid"))
        if self.domain.guest != "pv":
            found["type"] = self.domain.guest
        self.resources()
        self.os()
        self.features()
        self.clock()
        for event, actions in EVENTS.items():
            action = taken.text(taken.child(root, event))
            if action in actions:
                found[event] = action
            elif action is not None:
                taken.warn("T360", root.find(event) or root, None, f"xl has no action {action!r}; it is left out")
        if nodes := hosts.write_numa(taken):
            found["vnuma"] = nodes
        self.devices(devices)
        self.kept()
        return found

    def resources(self) -> None:
        taken, root, found = self.taken, self.root, self.found
        kib: dict[str, int] = {}
        for tag, name in (("memory", "maxmem"), ("currentMemory", "memory")):
            element = taken.child(root, tag)
            amount = (
                to_kib(taken.text(element) or "", taken.attribute(element, "unit")) if element is not None else None
            )
            if amount is not None and element is not None:
                kib[name] = amount
                if amount % 1024:
                    taken.warn(
                        "T361",
                        element,
                        None,
                        f"xl counts memory in MiB: {amount} KiB becomes {-(-amount // 1024)} MiB",
                    )
        if "maxmem" in kib:
            kib.setdefault("memory", kib["maxmem"])
        found.update({name: -(-kib[name] // 1024) for name in ("maxmem", "memory") if name in kib})
        vcpu = taken.child(root, "vcpu")
        total, current = taken.text(vcpu), taken.attribute(vcpu, "current")
        if vcpu is not None and vcpu.get("placement") == "static":
            taken.take(vcpu, "placement")
        if total is not None and total.isascii() and total.isdigit():
            if current is not None and current != total:
                found["maxvcpus"] = int(total)
            found["vcpus"] = int(current if current is not None and current.isdigit() else total)

    def os(self) -> None:
        taken, root, found = self.taken, self.root, self.found
        for tag, name in (("bootloader", "bootloader"), ("bootloader_args", "bootloader_args")):
            if (text := taken.text(taken.child(root, tag))) is not None:
                found[name] = text
        if self.domain.guest == "pv" and root.find("bootloader") is None and root.find("os/kernel") is None:
            found["bootloader"] = "pygrub"  # as libvirt does when it starts such a domain; xl insists on one of them
        os = taken.child(root, "os")
        type = taken.child(os, "type")
        taken.text(type)
        taken.take(type, "machine")
        if type is not None and type.get("arch") in (None, "x86_64"):
            taken.take(type, "arch")
        if self.hvm:
            self.loader(os)
        for tag, name in (("kernel", "kernel"), ("initrd", "ramdisk"), ("cmdline", "cmdline")):
            if (text := taken.text(taken.child(os, tag))) is not None:
                found[name] = text
        if not self.hvm:
            return
        table = taken.child(taken.child(os, "acpi"), "table")
        if table is not None and taken.attribute(table, "type") == "slic" and (path := taken.text(table)):
            found["acpi_firmware"] = path
        letters = ""
        for one in taken.children(os, "boot"):
            device = one.get("dev") or ""
            if device in _BOOT:
                taken.take(one, "dev")
            letters += _BOOT.get(device, "")
        if letters:
            found["boot"] = letters

    def loader(self, os: _Element | None) -> None:
        taken = self.taken
        loader = taken.child(os, "loader")
        path, type = taken.text(loader), taken.attribute(loader, "type")
        taken.take(loader, "readonly")
        if type == "pflash" and path is not None:
            self.found["bios"] = "ovmf"
            if path.rpartition("/")[2] != "ovmf.bin":
                self.found["bios_path_override"] = path
        elif path is not None and path.rpartition("/")[2] != "hvmloader":
            self.found["firmware_override"] = path

    def features(self) -> None:
        features = self.taken.child(self.root, "features")
        for name in ("pae", "acpi", "apic") if self.hvm else ():
            self.found[name] = int(self.taken.child(features, name) is not None)
        hap = self.taken.child(features, "hap")
        if hap is not None and self.hvm:
            self.found["hap"] = int(self.taken.attribute(hap, "state") != "off")
        if self.hvm:
            self.found["viridian"] = int(self.taken.child(features, "viridian") is not None)

    def clock(self) -> None:
        taken, found = self.taken, self.found
        clock = taken.child(self.root, "clock")
        offset, basis = taken.attribute(clock, "offset"), taken.attribute(clock, "basis")
        adjustment = taken.attribute(clock, "adjustment")
        local = "localtime" in (offset, basis)
        if self.hvm and clock is not None:
            found["rtc_timeoffset"] = _seconds(adjustment)
        if clock is not None:
            found["localtime"] = int(local)
            if offset not in ("utc", "localtime", "variable"):
                taken.warn("T361", clock, "offset", f"xl has no clock of offset {offset!r}; it becomes utc")
        for timer in taken.children(clock, "timer"):
            name, present = taken.attribute(timer, "name"), taken.attribute(timer, "present")
            words = {libvirts: word for word, libvirts in TIMERS.items()}
            mode = words.get(taken.attribute(timer, "mode") or "") if name == "tsc" else None
            if name == "hpet" and self.hvm:
                found["hpet"] = int(present != "no")
            elif mode is not None:
                found["tsc_mode"] = mode
            else:
                taken.whole(timer)
                taken.warn("T360", timer, None, f"<timer name={name!r}> has no place in an xl.cfg and is left out")

    def devices(self, devices: _Element | None) -> None:
        taken, found = self.taken, self.found
        emulator = taken.text(taken.child(devices, "emulator"))
        if emulator is not None:
            found["device_model_override"] = emulator
        if entries := disks.write(taken, devices):
            found["disk"] = entries
        cards = hosts.write_pci(taken, devices)  # some of which are interfaces
        if entries := networks.write(taken, devices):
            found["vif"] = entries
        found.update(consoles.write(taken, devices, self.domain.guest))
        if cards:
            found["pci"] = cards
        found.update(displays.write(taken, devices, self.domain.guest))
        if devices is None:
            return
        if entries := vscsi.write(taken, devices, self.topology):
            found["vscsi"] = entries
        for controller in devices.iterfind("controller"):
            type = controller.get("type")
            if type == "xenbus":
                for attribute, name in (
                    ("maxGrantFrames", "max_grant_frames"),
                    ("maxEventChannels", "max_event_channels"),
                ):
                    limit = taken.attribute(controller, attribute)
                    if limit is not None and limit.isascii() and limit.isdigit():
                        found[name] = int(limit)
            if type in ("xenbus", "ide", "fdc", "scsi", "pci"):
                taken.see(controller)
                taken.take(controller, "type", "index")
                taken.whole(controller.find("address"))
        for type in ("mouse", "keyboard"):
            taken.implied(devices, "input", type=type, bus="ps2" if self.hvm else "xen")
        taken.implied(devices, "memballoon", model="xen")
        self.usb(devices)

    def usb(self, devices: _Element) -> None:
        """Write USB from what was resolved: what the document left to chance is chosen the same way again."""
        taken = self.taken
        written = usbwrite.write(self.topology, self.domain)
        self.found.update(written.settings)
        elements = {taken.locator.path(one): one for one in devices.iterchildren("*")}
        numbered = {f"{path}[1]" if not path.endswith("]") else path: one for path, one in elements.items()}
        parts = usbwrite.parts(self.domain)
        for path in parts.values():
            taken.whole(numbered.get(path))
        for path, message in written.lost:
            element = numbered.get(path, devices)
            taken.warn("T360", element, None, f"<{element.tag}>: {message}")
        for path in written.ignored:
            element = numbered.get(path, devices)
            message = (
                f"<{element.tag}> is written as vusb, for it has a port of the host; xend read that, and xl does not"
            )
            taken.warn("T363", element, None, message, "name the device by bus and device number for xl")
        again = _read_again(language.write(self.found.items()))
        told = {path for path, _ in written.lost}
        for one, message in usbwrite.differences(self.topology, again):
            path = parts.get(one.source, "/domain")
            element = numbered.get(path, devices)
            if path not in told:
                taken.warn("T361", element, None, f"<{element.tag}>: {message}")

    def kept(self) -> None:
        """Restore what the way to XML kept."""
        taken = self.taken
        metadata = taken.child(self.root, "metadata")
        kept = taken.child(metadata, f"{{{NAMESPACE}}}kept")
        if kept is None:
            return
        taken.whole(kept)
        for setting in kept.iterchildren(f"{{{NAMESPACE}}}setting"):
            name = setting.get("name") or ""
            config = None
            with suppress(DocumentError):
                config = language.parse(f"{name} = {setting.text or ''}\n".encode())
            if config is None or list(config.settings) != [name] or name in self.found:
                taken.warn(
                    "T360",
                    setting,
                    None,
                    f"the kept setting {name!r} is damaged, or said by an element, and is left out",
                )
                continue
            self.found[name] = config.settings[name].value
        for option in kept.iterchildren(f"{{{NAMESPACE}}}option"):
            self.option(option)

    def option(self, option: _Element) -> None:
        name, entry, text = option.get("setting") or "", option.get("entry") or "", option.text or ""
        said = self.found.get(name)
        entries: list[object] = list(said) if isinstance(said, list) else [] if said is None else [said]
        number = int(entry) if entry.isascii() and entry.isdigit() and len(entry) < 5 else -1
        if name == "usbdevice" and 0 <= number <= len(entries):
            entries.insert(number, text)
        elif 0 <= number < len(entries) and isinstance(entries[number], str):
            entries[number] = _with_option(name, str(entries[number]), text)
        else:
            self.taken.warn("T360", option, None, f"there is no entry {entry} of {name} to put {text!r} into")
            return
        self.found[name] = entries


def _with_option(name: str, entry: str, option: str) -> str:
    """Return an entry with one option more; target= stays the last."""
    before, target, rest = entry.partition("target=")
    if name == "disk" and target:
        return f"{before}{option},{target}{rest}"
    if name == "pci" and option.startswith("@"):
        address, comma, rest = entry.partition(",")
        return f"{address}{option}{comma}{rest}"
    return f"{entry},{option}"


def _read_again(text: str) -> Topology:
    """Return what a file written here means."""
    from translator.document.parse import parse
    from translator.document.validate import validate
    from translator.placing.resolve import resolve

    return resolve(parse(validate(text.encode()))).topology


def _seconds(text: str | None) -> int | str:
    if text is None or text in ("reset", ""):
        return 0
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text
