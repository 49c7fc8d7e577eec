"""USB in xl's files, in every generation of the syntax, as controllers and devices.

    usbctrl = [ "type=qusb,version=2,ports=6" ]        xl since 4.7: controllers, numbered in order
    usbdev = [ "hostbus=1,hostaddr=3,controller=0" ]   and devices of the host
    usb = 1; usbdevice = [ "tablet", "host:1.3" ]      what QEMU's -usb and -usbdevice do; HVM guests only
    usbversion = 3                                     the same, with a controller of that version instead
    vusb = [ "usbver=2, numports=4, port_1=1-8" ]      xend: a paravirtual controller and what is in its ports
    usbcontroller = [ "type=pv,name=pv0" ]             as discussed on xen-devel in 2014, devices
    usbdevice = [ "type=hostdev,hostaddr=4.3,bus=pv0" ]    naming controllers

A controller's number is its index in XML and libxl's devid. Those of usbctrl come first, for usbdev counts on
their numbers; then those of vusb, then those of usbcontroller. That of usb or usbversion has 0, or, beside
others, the next number.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from translator.errors import Source
from translator.registry.models import CANONICAL, DEVICE_KINDS, ControllerKind
from translator.xlcfg.language import Text
from translator.xlcfg.sheet import Kept, Sheet, lowered, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from translator.topology import Guest, Type

MOST_PORTS = 31
# libxl's words, and those of the discussion; None is auto.
TYPES: dict[str, Type | None] = {
    "auto": None,
    "pv": "pv",
    "qusb": "qusb",
    "devicemodel": "emulated",
    "emulated": "emulated",
}
WORDS: dict[Type | None, str] = {None: "auto", "pv": "pv", "qusb": "qusb", "emulated": "devicemodel"}
INPUTS = ("tablet", "mouse", "keyboard")
PIIX3 = CANONICAL[ControllerKind("emulated", 1)].name
PIIX3_PORTS = 2
XHCI = CANONICAL[ControllerKind("emulated", 3)].name
XHCI_PORTS = 8  # of usbctrl, when it does not say. Source: libxl__device_usbctrl_setdefault (libxl_usb.c)

_HOST_ADDRESS = re.compile(r"([0-9]+)\.([0-9]+)", re.ASCII)
_HOST_IDS = re.compile(r"(?:0x)?([0-9a-fA-F]{1,4}):(?:0x)?([0-9a-fA-F]{1,4})", re.ASCII)
_HOST_PORT = re.compile(r"([0-9]{1,3})-([0-9]+(?:\.[0-9]+){0,3})", re.ASCII)
_PORT_KEY = re.compile(r"port_([0-9]{1,9})", re.ASCII)
# What QEMU's -usbdevice has had beside what is translated.
_OTHER_DEVICES = ("wacom-tablet", "braille", "serial", "net", "bt", "u2f-key", "ccid", "audio", "mtp")

Host = dict[str, Text | str]


class Controller(msgspec.Struct, frozen=True):
    """A controller: `model` is None for auto."""

    index: int
    source: Source
    model: Text | str | None = None
    ports: Text | None = None


class Device(msgspec.Struct, frozen=True):
    """A device; `host` is what `<source>` names it by, `file` a disk's image with its format."""

    kind: Literal["hostdev", "tablet", "mouse", "keyboard", "hub", "disk"]
    source: Source
    host: Host | None = None
    file: tuple[str, str] | None = None
    controller: Text | int | None = None
    port: Text | int | None = None


class Usb(NamedTuple):
    """All of a file's USB."""

    controllers: tuple[Controller, ...]
    devices: tuple[Device, ...]
    off: Source | None = None  # where the file says that there is none


def read(sheet: Sheet, guest: Guest) -> Usb:
    """Return what the settings say about USB; what cannot be is noted as a fault."""
    return _Reader(sheet, guest).usb()


class _Reader:
    def __init__(self, sheet: Sheet, guest: Guest) -> None:
        self.sheet = sheet
        self.guest = guest
        self.controllers: list[Controller] = []
        self.devices: list[Device] = []
        self.named: dict[str, int] = {}

    def usb(self) -> Usb:
        self.usbctrl()
        self.vusb()
        self.usbcontroller()
        self.usbdev()
        self.emulated_bus()
        only_off = not self.controllers and not self.devices and self.sheet.flag("usb") is False
        return Usb(tuple(self.controllers), tuple(self.devices), self.sheet.place("usb") if only_off else None)

    # Controllers

    def usbctrl(self) -> None:
        for number, text in enumerate(self.sheet.texts("usbctrl"), 1):
            options = self.sheet.options_of(text, f"usbctrl[{number}]", ("type", "version", "ports"))
            self.controller(text, f"usbctrl[{number}]", options)

    def usbcontroller(self) -> None:
        keys = ("type", "name", "usbversion", "numports")
        for number, text in enumerate(self.sheet.texts("usbcontroller"), 1):
            element = f"usbcontroller[{number}]"
            options = self.sheet.options_of(text, element, keys)
            name = options.get("name")
            if name is not None and name.value in self.named:
                self.sheet.fault(
                    "T119", name.source, f"two controllers have the name {shown(name.value)}", None, element
                )
            elif name is not None:
                self.named[name.value] = len(self.controllers)
            same = {"type": "type", "usbversion": "version", "numports": "ports"}
            self.controller(text, element, {same[key]: value for key, value in options.items() if key in same})

    def controller(self, entry: Text, element: str, options: Mapping[str, Text]) -> None:
        ports = options.get("ports")
        if ports is not None and self.sheet.as_number(ports, "ports", least=1, most=MOST_PORTS, element=element):
            ports = Text(str(int(ports.value, 0) if not ports.value.isdigit() else int(ports.value)), ports.source)
        model = self.model(element, options.get("type"), options.get("version"))
        if model is not None and model.value == XHCI and ports is None:
            ports = Text(str(XHCI_PORTS), model.source)
        self.controllers.append(Controller(len(self.controllers), entry.source, model, ports))

    def model(self, element: str, type_text: Text | None, version_text: Text | None) -> Text | None:
        """Return the model of a type and version; None for auto, which says version 2."""
        type = lowered({word: word for word in TYPES}, type_text) if type_text is not None else "auto"
        if type is None:
            assert type_text is not None
            self.sheet.fault(
                "T119",
                type_text.source,
                f"{shown(type_text.value)} is no type of USB controllers",
                "possible: auto, pv, qusb, devicemodel",
                element,
            )
            return None
        version = 2
        if version_text is not None:
            version = self.sheet.as_number(version_text, "version", least=1, most=3, element=element) or 2
        kind = TYPES[type]
        if kind is None and version == 2:
            return None
        at = version_text or type_text
        assert at is not None
        if kind is None and self.guest == "hvm":
            kind = "emulated"
        elif kind is None:
            kind = "qusb" if version == 1 else "pv"
            self.sheet.warn(
                "T361",
                at.source,
                f"XML has no word for the type auto of version {version}; it becomes type {kind}",
                "name the type: type=pv or type=qusb",
                element,
            )
        if kind == "qusb" and version == 3:
            self.sheet.fault("T356", at.source, "version is '3'", "possible for type qusb: 1 and 2", element)
            return None
        return Text(CANONICAL[ControllerKind(kind, version)].name, at.source)

    def vusb(self) -> None:
        for number, text in enumerate(self.sheet.texts("vusb"), 1):
            element, index = f"vusb[{number}]", len(self.controllers)
            options: dict[str, Text] = {"type": Text("pv", text.source)}
            for option in self.sheet.options(text, element):
                port = _PORT_KEY.fullmatch(option.key)
                if port is not None:
                    self.port_of_vusb(option.text, element, index, int(port[1]))
                elif option.key in ("usbver", "numports"):
                    options["version" if option.key == "usbver" else "ports"] = option.text
                else:
                    word = option.key or option.value
                    self.sheet.fault(
                        "T119",
                        option.source,
                        f"{shown(word)} is no option of {element}",
                        "possible: usbver, numports, port_1, port_2, …",
                        element,
                    )
            self.controller(text, element, options)

    def port_of_vusb(self, text: Text, element: str, index: int, port: int) -> None:
        if not text.value:
            return  # a port that has nothing in it
        path = _HOST_PORT.fullmatch(text.value)
        if path is None:
            self.sheet.fault(
                "T119",
                text.source,
                f"{shown(text.value)} is no port of the host",
                "a port is a bus and a path, as sysfs names it: 1-8, 1-1.2",
                element,
            )
            return
        host: Host = {"bus": Text(str(int(path[1])), text.source), "port": Text(path[2], text.source)}
        self.devices.append(Device("hostdev", text.source, host, controller=index, port=Text(str(port), text.source)))

    # Devices

    def usbdev(self) -> None:
        keys = ("type", "devtype", "devicetype", "hostbus", "hostaddr", "controller", "port")
        for number, text in enumerate(self.sheet.texts("usbdev"), 1):
            element = f"usbdev[{number}]"
            options = self.sheet.options_of(text, element, keys)
            for key in ("type", "devtype", "devicetype"):
                if key in options and options[key].value.lower() != "hostdev":
                    self.sheet.fault(
                        "T119",
                        options[key].source,
                        f"{shown(options[key].value)} is no type of usbdev",
                        "possible: hostdev",
                        element,
                    )
            host: Host = {}
            for key, attribute in (("hostbus", "bus"), ("hostaddr", "device")):
                if key in options:
                    host[attribute] = self.decimal(options[key], key, 255, element)
                else:
                    self.sheet.fault("T119", text.source, f"{element} has no {key}", f"add {key}=NUMBER", element)
            controller, port = self.bus(options, element), self.port(options, element)
            if port is not None and controller is None:
                help = "add controller=NUMBER"
                self.sheet.fault("T317", text.source, f"{element} has a port, and no controller", help, element)
                port = None
            self.devices.append(Device("hostdev", text.source, host, controller=controller, port=port))

    def decimal(self, text: Text, what: str, most: int, element: str, least: int = 1) -> Text:
        number = self.sheet.as_number(text, what, least=least, most=most, element=element)
        return Text(str(number), text.source)

    def bus(self, options: Mapping[str, Text], element: str) -> Text | None:
        text = options.get("controller")
        return self.decimal(text, "controller", 2**31 - 1, element, least=0) if text is not None else None

    def port(self, options: Mapping[str, Text], element: str) -> Text | None:
        text = options.get("port")
        return self.decimal(text, "port", MOST_PORTS, element) if text is not None else None

    # usb, usbversion and usbdevice

    def emulated_bus(self) -> None:
        """Read what QEMU emulates: its controller, if there is one, comes last, and its devices sit on it."""
        entries = [
            (f"usbdevice[{number}]", text)
            for number, text in enumerate(self.sheet.texts("usbdevice", single=True), 1)
            if text.value
        ]
        for element, text in entries:
            if text.value.startswith("type="):
                self.described(element, text)
        devices = [(element, text) for element, text in entries if not text.value.startswith("type=")]
        usb, version = self.sheet.flag("usb"), self.sheet.number("usbversion", most=3)
        if self.guest != "hvm":
            for name in ("usb", "usbversion", "usbdevice"):
                if (name == "usbdevice" and devices) or (name != "usbdevice" and self.sheet.number(name)):
                    self.sheet.warn(
                        "T358",
                        self.sheet.place(name),
                        f"{name} is left out: a {self.guest.upper()} guest has no emulated USB",
                        "usbctrl and usbdev are for every guest",
                        name,
                    )
            return
        if version and (usb or devices):
            self.sheet.fault(
                "T355",
                self.sheet.place("usbversion"),
                f"usbversion cannot be given together with {'usb' if usb else 'usbdevice'}",
                "usb=1 is a controller of version 1; remove one of them",
                "usbversion",
            )
        elif usb is False and devices:
            self.sheet.fault(
                "T355", self.sheet.place("usb"), "usb is off, and usbdevice has devices", "usb = 1", "usb"
            )
        elif version:
            model = CANONICAL[ControllerKind("emulated", version)].name
            self.controllers.append(Controller(len(self.controllers), self.sheet.place("usbversion"), model))
        elif usb or devices:
            place = self.sheet.place("usb" if usb else "usbdevice")
            bus = Controller(len(self.controllers), place, PIIX3)
            self.controllers.append(bus)
            self.plug(devices, bus.index)

    def plug(self, entries: Iterable[tuple[str, Text]], index: int) -> None:
        """Add the devices of the emulated bus, each where QEMU plugs it.

        That is the first free port, those of a hub after the others; before the last one is taken comes a hub.
        Source: usb_claim_port (hw/usb/bus.c).
        """
        devices = [device for entry in entries if (device := self.device(*entry)) is not None]
        if not index and len(devices) <= PIIX3_PORTS and all(device.kind in INPUTS for device in devices):
            self.devices += devices  # which go there without being told, as libvirt has them
            return
        free = [str(port) for port in range(1, PIIX3_PORTS + 1)]
        for number, device in enumerate(devices):
            if len(free) == 1 and device.kind != "hub" and number < len(devices) - 1:
                self.add_at(Device("hub", device.source), index, free)
            self.add_at(device, index, free)

    def add_at(self, device: Device, index: int, free: list[str]) -> None:
        if not free:
            self.sheet.fault("T310", device.source, f"usb=1 has no port left for a {device.kind}", None, "usbdevice")
            return
        port = free.pop(0)
        if device.kind == "hub":
            free += [f"{port}.{number}" for number in range(1, DEVICE_KINDS["hub"].ports + 1)]
        self.devices.append(
            msgspec.structs.replace(device, controller=index, port=Text(port, device.source, quoted=False))
        )

    def device(self, element: str, text: Text) -> Device | None:
        """Return what QEMU's -usbdevice makes of a word."""
        word, _, rest = text.value.partition(":")
        kinds = {kind: kind for kind in (*INPUTS, "hub")}
        kind = kinds.get(word) if not rest else None
        if kind is not None:
            return Device(kind, text.source)  # type: ignore[arg-type]  # the table's words are kinds
        if word == "host":
            host = self.host(Text(rest, Source(text.source.line, text.source.column + len("host:"))), element)
            return Device("hostdev", text.source, host) if host else None
        if word == "disk" and rest:
            format, colon, file = rest.removeprefix("format=").partition(":")
            given = rest.startswith("format=") and colon
            return Device("disk", text.source, file=(file, format) if given else (rest, "raw"))
        if word in _OTHER_DEVICES:
            self.sheet.keep(Kept("usbdevice", text, text.source, int(element[10:-1]) - 1, text.value))
            return None
        near = get_close_matches(word, (*INPUTS, "hub", "host", "disk"), n=1)
        help = f"did you mean {near[0]!r}?" if near else "possible: tablet, mouse, keyboard, hub, host:…, disk:…"
        self.sheet.fault("T357", text.source, f"{shown(text.value)} is no USB device", help, element)
        return None

    def host(self, text: Text, element: str) -> Host | None:
        """Return what BUS.ADDRESS or VENDOR:PRODUCT stands for."""
        if found := _HOST_ADDRESS.fullmatch(text.value):
            parts = zip(("bus", "device"), found.groups(), ("hostbus", "hostaddr"), strict=True)
            return {name: self.decimal(_stripped(value, text), what, 255, element) for name, value, what in parts}
        if found := _HOST_IDS.fullmatch(text.value):
            return {"vendor": f"0x{found[1].lower():0>4}", "product": f"0x{found[2].lower():0>4}"}
        self.sheet.fault(
            "T357",
            text.source,
            f"{shown(text.value)} names no device of the host",
            "a device is named by bus and address, host:1.3, or by vendor and product, host:046d:c52b",
            element,
        )
        return None

    def described(self, element: str, text: Text) -> None:
        """Read an entry that says what it is by options, and may name a controller."""
        options = self.sheet.options_of(text, element, ("type", "hostaddr", "bus", "port"))
        type, bus, index = options["type"], options.get("bus"), None
        if bus is not None and bus.value not in self.named:
            known = ", ".join(self.named)
            self.sheet.fault(
                "T119",
                bus.source,
                f"no controller has the name {shown(bus.value)}",
                f"known: {known}" if known else 'usbcontroller = [ "type=pv,name=pv0" ]',
                element,
            )
        elif bus is not None:
            index = Text(str(self.named[bus.value]), bus.source)
        host = None
        if type.value == "hostdev" and "hostaddr" in options:
            host = self.host(options["hostaddr"], element)
        elif type.value == "hostdev":
            self.sheet.fault("T119", text.source, f"{element} has no hostaddr", "add hostaddr=BUS.ADDRESS", element)
        elif type.value not in INPUTS:
            self.sheet.fault(
                "T357",
                type.source,
                f"{shown(type.value)} is no USB device",
                f"possible: hostdev, {', '.join(INPUTS)}",
                element,
            )
            return
        kind = next((one for one in INPUTS if one == type.value), "hostdev")
        self.devices.append(
            Device(kind, text.source, host, controller=index, port=self.port(options, element))  # type: ignore[arg-type]
        )


def _stripped(digits: str, at: Text) -> Text:
    """Return a number whose zeros in front do not make it octal."""
    return Text(digits.lstrip("0") or "0", at.source)
