"""A file in xl's language becomes domain XML, as libvirt's own conversion writes it."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

from lxml import etree

from translator.errors import DocumentError, Source
from translator.findings import MOST_FAULTS, told
from translator.registry.models import XEN_MACHINES
from translator.xlcfg import consoles, disks, displays, hosts, language, networks, usb, usbdraw, vscsi
from translator.xlcfg.draft import Draft
from translator.xlcfg.language import Text, spelled
from translator.xlcfg.names import EVENTS, KNOWN, NAMESPACE, TIMERS
from translator.xlcfg.sheet import Kept, Sheet, shown

if TYPE_CHECKING:
    from lxml.etree import _Element

    from translator.errors import Diagnostic
    from translator.topology import Guest
    from translator.xlcfg.language import Setting

_OS = {"hvm": "hvm", "pv": "linux", "pvh": "xenpvh"}
_BUILDERS: dict[str, Guest] = {"hvm": "hvm", "generic": "pv", "linux": "pv"}
_BOOT = {"a": "fd", "c": "hd", "d": "cdrom", "n": "network"}
_LOADER = "/usr/lib/xen/boot/hvmloader"
_OVMF = "/usr/lib/xen/boot/ovmf.bin"
_OFFSET = re.compile(r"-?[0-9]{1,9}", re.ASCII)


class Drawn(NamedTuple):
    """The XML drawn up from the settings, and what is to be said of it; `lost` is what is left out and not kept."""

    draft: Draft
    settings: tuple[Setting, ...]
    warnings: tuple[Diagnostic, ...]
    lost: tuple[Diagnostic, ...]


def read(data: bytes, *, file: str | None = None, keep_unknown: bool = False) -> Drawn:
    """Return the domain XML of a file in xl's language.

    Args:
        file: what diagnostics call it.
        keep_unknown: whether what XML has no place for is kept in `<metadata>`, for the way back.

    Raises:
        DocumentError: with all the faults.
    """
    sheet = Sheet(language.parse(data, file=file), file)
    reader = _Reader(sheet)
    reader.domain()
    unknown = reader.unknown()
    if sheet.faults:
        raise DocumentError(told(sorted(sheet.faults, key=lambda one: (one.line or 0, one.column or 0))))
    if keep_unknown:
        reader.keep(sheet.kept)
    misspelled = {one.element for one in unknown}
    lost = () if keep_unknown else tuple(_lost(sheet, kept) for kept in sheet.kept if kept.name not in misspelled)
    return Drawn(
        reader.draft, tuple(sheet.settings.values()), tuple(told((*sheet.warnings, *unknown))), tuple(told(lost))
    )


def _lost(sheet: Sheet, kept: Kept) -> Diagnostic:
    what = kept.name if kept.option is None else f"{shown(kept.option)} of {kept.name}[{(kept.number or 0) + 1}]"
    sheet.warn(
        "T122",
        kept.source,
        f"{what} is not translated, and left out",
        "--keep-unknown keeps it in <metadata>",
        kept.name,
    )
    return sheet.warnings.pop()


class _Reader:
    def __init__(self, sheet: Sheet) -> None:
        self.sheet = sheet
        self.draft = Draft(type="xen")
        self.root = self.draft.root
        self.guest = self.kind()

    def kind(self) -> Guest:
        """Return whether the guest is HVM, PV or PVH; PV when nobody says."""
        type = self.sheet.word("type", "hvm", "pv", "pvh")
        builder = self.sheet.word("builder", *_BUILDERS)
        guests: dict[str, Guest] = {"hvm": "hvm", "pv": "pv", "pvh": "pvh"}
        built = _BUILDERS[builder.value] if builder is not None else None
        if type is None:
            return built or "pv"
        if built is not None and built != type.value and builder is not None:
            self.sheet.fault(
                "T355",
                builder.source,
                f"builder says that the guest is {built.upper()}, and type that it is {type.value.upper()}",
                "type is the newer of the two: remove builder",
                "builder",
            )
        return guests[type.value]

    def domain(self) -> None:
        sheet, draft, root = self.sheet, self.draft, self.root
        name = sheet.text("name")
        if name is None and "name" not in sheet.settings:
            sheet.fault("T123", Source(1, 1), "the file does not say the domain's name", 'name = "…"')
        draft.add(root, "name", text=name)
        if (uuid := sheet.text("uuid")) is not None:
            draft.add(root, "uuid", text=uuid)
        self.resources()
        self.os()
        if self.guest == "hvm":
            self.features()
        hosts.read_numa(sheet, draft)
        self.clock()
        for event, actions in EVENTS.items():
            if (action := sheet.word(event, *actions)) is not None:
                draft.add(root, event, text=action)
        self.devices(draft.add(root, "devices"))

    def resources(self) -> None:
        sheet = self.sheet
        memory, most = sheet.number("memory"), sheet.number("maxmem")
        if most is not None or memory is not None:
            at = sheet.place("maxmem" if most is not None else "memory")
            maximum = most if most is not None else memory or 0
            self.draft.add(self.root, "memory", {"unit": "KiB"}, maximum * 1024, at=at)
            current = maximum if memory is None else memory
            self.draft.add(self.root, "currentMemory", {"unit": "KiB"}, current * 1024, at=sheet.place("memory"))
        vcpus, maximum_vcpus = sheet.number("vcpus", least=1), sheet.number("maxvcpus", least=1)
        if vcpus is None and maximum_vcpus is None:
            return
        current = vcpus or maximum_vcpus or 1
        total = maximum_vcpus or current
        if current > total:
            sheet.fault(
                "T356",
                sheet.place("vcpus"),
                f"vcpus is {current}, and maxvcpus {total}",
                "vcpus is the smaller",
                "vcpus",
            )
        attributes = {"placement": "static", "current": current if current != total else None}
        self.draft.add(self.root, "vcpu", attributes, total, at=sheet.place("vcpus"))

    def os(self) -> None:
        sheet, draft, hvm = self.sheet, self.draft, self.guest == "hvm"
        bootloader, kernel = sheet.text("bootloader"), sheet.text("kernel")
        if bootloader is not None and not hvm:
            draft.add(self.root, "bootloader", text=bootloader)
            arguments = sheet.text("bootloader_args") or sheet.text("bootargs")
            if arguments is not None:
                draft.add(self.root, "bootloader_args", text=arguments)
        elif bootloader is not None:
            sheet.keep(Kept("bootloader", bootloader, sheet.place("bootloader")))
        os = draft.add(self.root, "os")
        place = next((sheet.place(name) for name in ("type", "builder") if name in sheet.settings), None)
        draft.add(os, "type", {"arch": "x86_64", "machine": XEN_MACHINES[self.guest]}, _OS[self.guest], at=place)
        if hvm:
            kernel = self.loader(os, kernel)
        for tag, text in (("kernel", kernel), ("initrd", sheet.text("ramdisk")), ("cmdline", self.command_line())):
            if text is not None:
                draft.add(os, tag, text=text)
        if not hvm:
            return
        if (table := sheet.text("acpi_firmware")) is not None:
            draft.add(draft.add(os, "acpi", at=table.source), "table", {"type": "slic"}, table)
        boot = sheet.text("boot")
        for letter in boot.value if boot is not None else "c":
            if letter in _BOOT:
                draft.add(os, "boot", {"dev": _BOOT[letter]}, at=sheet.place("boot"))
            elif boot is not None:
                help = f"possible: {', '.join(f'{sign} ({what})' for sign, what in _BOOT.items())}"
                sheet.fault("T118", boot.source, f"boot has the letter {letter!r}", help, "boot")

    def loader(self, os: _Element, kernel: Text | None) -> Text | None:
        """Add the firmware; return the kernel, if it is not what xend called so and was the firmware."""
        sheet = self.sheet
        bios, override = sheet.text("bios"), sheet.text("firmware_override")
        old = kernel if kernel is not None and kernel.value.rpartition("/")[2].startswith("hvmloader") else None
        if bios is not None and bios.value == "ovmf":
            self.draft.add(os, "loader", {"readonly": "yes", "type": "pflash"}, _OVMF, at=bios.source)
            path = sheet.text("bios_path_override")
            if path is not None:
                os[-1].text = path.value
        else:
            if bios is not None and bios.value not in ("seabios", "rombios"):
                sheet.fault(
                    "T118", bios.source, f"bios is {shown(bios.value)}", "possible: ovmf, seabios, rombios", "bios"
                )
            elif bios is not None:
                sheet.keep(Kept("bios", bios, bios.source))
            self.draft.add(os, "loader", {"type": "rom"}, override or old or _LOADER)
        return None if old is not None else kernel

    def command_line(self) -> Text | None:
        """Return the kernel's arguments; root and extra are the older way, and do not count beside cmdline."""
        sheet = self.sheet
        line, root, extra = sheet.text("cmdline"), sheet.text("root"), sheet.text("extra")
        if line is not None:
            for name in ("root", "extra"):
                if name in sheet.settings:
                    sheet.warn(
                        "T124",
                        sheet.place(name),
                        f"{name} does not count beside cmdline",
                        "put it into cmdline",
                        name,
                    )
            return line
        parts = [f"root={root.value}"] if root is not None else []
        parts += [extra.value] if extra is not None else []
        given = root or extra
        return Text(" ".join(parts), given.source) if given is not None and parts else None

    def features(self) -> None:
        sheet, features = self.sheet, self.draft.add(self.root, "features")
        for name in ("acpi", "apic", "pae"):
            if sheet.flag(name) is not False:
                self.draft.add(features, name, at=sheet.place(name))
        if (hap := sheet.flag("hap")) is not None:
            self.draft.add(features, "hap", {"state": None if hap else "off"}, at=sheet.place("hap"))
        if sheet.has("viridian"):
            value = sheet.settings["viridian"].value
            if not isinstance(value, Text) or value.value not in ("0", "1"):
                sheet.keep(Kept("viridian", value, value.source))  # a list of enlightenments
            elif value.value == "1":
                self.draft.add(features, "viridian", at=value.source)

    def clock(self) -> None:
        sheet, local = self.sheet, bool(self.sheet.flag("localtime"))
        place = sheet.place("localtime")
        basis = "localtime" if local else "utc"
        if self.guest == "hvm":
            offset = sheet.text("rtc_timeoffset")
            if offset is not None and not _OFFSET.fullmatch(offset.value):
                sheet.fault(
                    "T118", offset.source, f"rtc_timeoffset is {shown(offset.value)}", "seconds", "rtc_timeoffset"
                )
            attributes = {"offset": "variable", "adjustment": offset or "0", "basis": basis}
            clock = self.draft.add(self.root, "clock", attributes, at=place)
        else:
            clock = self.draft.add(self.root, "clock", {"offset": basis, "adjustment": "reset"}, at=place)
        mode = sheet.word("tsc_mode", *TIMERS, *"0123")
        if mode is not None:
            word = TIMERS.get(mode.value) or list(TIMERS.values())[int(mode.value)]
            self.draft.add(clock, "timer", {"name": "tsc", "present": "yes", "mode": word}, at=mode.source)
        hpet = sheet.flag("hpet")
        if hpet is not None:
            present = "yes" if hpet else "no"
            self.draft.add(clock, "timer", {"name": "hpet", "present": present}, at=sheet.place("hpet"))

    def devices(self, devices: _Element) -> None:
        sheet, draft = self.sheet, self.draft
        emulator = sheet.text("device_model_override")
        if emulator is not None:
            draft.add(devices, "emulator", text=emulator)
        targets = disks.read(sheet, draft, devices)
        limits = {"maxGrantFrames": "max_grant_frames", "maxEventChannels": "max_event_channels"}
        most = {attribute: sheet.number(name) for attribute, name in limits.items()}
        draft.add(devices, "controller", {"type": "xenbus", "index": 0, **most})
        busses = {str(target.get("bus")) for target in devices.iterfind("disk/target")}
        for bus in ("ide", "scsi", "fdc"):
            if bus in busses:
                draft.add(devices, "controller", {"type": bus, "index": 0})
        topology = usb.read(sheet, self.guest)
        networks.read(sheet, draft, devices)
        consoles.read(sheet, draft, devices, self.guest)
        usbdraw.draw(topology, draft, devices, targets)
        for type in ("mouse", "keyboard"):
            draft.add(devices, "input", {"type": type, "bus": "ps2" if self.guest == "hvm" else "xen"})
        displays.read(sheet, draft, devices, self.guest)
        hosts.read_pci(sheet, draft, devices)
        vscsi.read(sheet, draft, devices)
        draft.add(devices, "memballoon", {"model": "xen"})

    # What XML has no place for

    def unknown(self) -> list[Diagnostic]:
        """Keep the settings that nobody read; return a warning for each that nearly is another."""
        sheet, found, strange = self.sheet, [], 0
        for setting in sheet.untaken():
            strange += setting.name not in KNOWN
            # finding out what a name resembles is slow
            sought = setting.name not in KNOWN and strange <= MOST_FAULTS
            near = get_close_matches(setting.name, KNOWN, n=1, cutoff=0.75) if sought else []
            if near:
                message = f"{setting.name} is no setting of xl's and has no effect"
                sheet.warn("T121", setting.source, message, f"did you mean {near[0]!r}?", setting.name)
                found.append(sheet.warnings.pop())
            sheet.keep(Kept(setting.name, setting.value, setting.source))
        return found

    def keep(self, kept: list[Kept]) -> None:
        """Put what has no place into `<metadata>`."""
        if not kept:
            return
        metadata = etree.Element("metadata")
        settings = etree.SubElement(metadata, f"{{{NAMESPACE}}}kept", nsmap={"xl": NAMESPACE})
        for one in kept:
            if one.option is None:
                element = etree.SubElement(settings, f"{{{NAMESPACE}}}setting", {"name": one.name})
                element.text = spelled(one.value)
            else:
                where = {"setting": one.name, "entry": str(one.number)}
                etree.SubElement(settings, f"{{{NAMESPACE}}}option", where).text = one.option
        before = [tag for tag in ("name", "uuid") if self.root.find(tag) is not None]
        self.root.insert(len(before), metadata)
