"""Random domain documents about USB: most of them sound, some careless about addresses, some broken on purpose.

One seed, one document; elements of all kinds stand in any order, as libvirt takes them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

MACHINES = ("pc", "q35", "pc-i440fx-7.2", "pc-q35-7.2")
PORTS = {"piix3-uhci": 2, "piix4-uhci": 2, "ehci": 6, "pci-ohci": 3, "nec-xhci": 4, "qemu-xhci": 4}
NUMBERS = {
    "index",
    "ports",
    "bus",
    "port",
    "device",
    "slot",
    "function",
    "startport",
    "order",
    "id",
    "class",
    "version",
}
VALUES = ("", "-1", "0", "1", "+2", " 3", "4 ", "0x1", "010", "16", "31", "99999999999", "x", "1.2", "1.", "0.1")

_SUBJECTS = "controller type=.usb.|hostdev|input|hub|redirdev|vendor|product|master|usbdev|boot order="
_SPOILED = f"{_SUBJECTS}|address|target (?:dev|type)="
_TAG = re.compile(rf"<(?:{_SPOILED})\b[^>]*>")
_ATTRIBUTE = re.compile(r" ([a-zA-Z]+)=\"([^\"]*)\"")


def random_domain(random: Random) -> str:
    """Return a domain document."""
    return _Maker(random).domain()


def _attributes(**values: object) -> str:
    return "".join(f" {name}={quoteattr(str(value))}" for name, value in values.items() if value is not None)


class _Maker:
    def __init__(self, random: Random) -> None:
        self.random = random
        self.machine = random.choice(MACHINES)
        self.q35 = "q35" in self.machine
        self.care = random.choices(("sound", "careless", "broken"), (70, 20, 10))[0]
        self.free: dict[int, list[str]] = {}  # ports that nothing was put on, by controller
        self.order = 0
        self.aliases = 0
        self.targets = list("abcdefghijkl")
        self.spice = random.random() < 0.3
        self.os_boot = random.random() < 0.2
        self.slots = list(range(4, 24))
        random.shuffle(self.slots)

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def domain(self) -> str:
        elements = [*self.controllers(), *self.hubs()]
        makers = (self.hostdev, self.disk, self.tablet, self.redirdev, self.serial, self.sound, self.smartcard)
        weights = (4, 4, 6, 4, 2, 2, 1)
        few = self.chance(0.85)
        for make in self.random.choices(makers, weights, k=self.random.randrange(7 if few else 25)):
            elements.append(make())
        elements += self.others()
        if self.chance(0.25):
            elements.append(self.redirfilter())
        if self.care != "sound" or self.chance(0.5):
            self.random.shuffle(elements)
        boot = f'<boot dev="{self.random.choice(("hd", "cdrom", "network"))}"/>' if self.os_boot else ""
        text = (
            f'<domain type="qemu">\n  <name>guest</name>\n  <memory unit="MiB">128</memory>\n  <os>\n'
            f'    <type arch="x86_64" machine="{self.machine}">hvm</type>{boot}\n  </os>\n  <devices>\n'
            "    <emulator>/usr/bin/qemu-system-x86_64</emulator>\n"
            + "".join(f"    {element}\n" for element in elements if element)
            + "  </devices>\n</domain>\n"
        )
        return self.broken(text) if self.care == "broken" else text

    def broken(self, text: str) -> str:
        """Spoil one attribute: another value, or none."""
        tags = list(_TAG.finditer(text))
        if not tags:
            return text
        tag = self.random.choice(tags)
        attributes = list(_ATTRIBUTE.finditer(tag[0]))
        if not attributes:
            return text
        one = self.random.choice([one for one in attributes if one[1] in NUMBERS] or attributes)
        new = "" if self.chance(0.2) else f" {one[1]}={quoteattr(self.random.choice(VALUES))}"
        return text[: tag.start() + one.start()] + new + text[tag.start() + one.end() :]

    # Controllers and hubs

    def controllers(self) -> list[str]:
        if self.chance(0.3):
            self.free[0] = self.ports(4 if self.q35 else 2)
            return []
        if self.chance(0.03):
            return ['<controller type="usb" model="none"/>']
        found: list[str] = []
        index = 0
        for _ in range(self.random.randint(1, 3)):
            if self.chance(0.08):
                index += 1
            explicit = None if self.chance(0.2) else index
            if self.chance(0.25):
                found += self.ich9(index, explicit)
            else:
                found.append(self.plain(index, explicit))
            index += 1
        if 0 not in self.free:
            self.free[0] = self.ports(4 if self.q35 else 2)
        return found

    def plain(self, index: int, explicit: int | None) -> str:
        model = None if self.chance(0.15) else self.random.choice(list(PORTS))
        ports = None
        if self.chance(0.4 if model and "xhci" in model else 0.01):
            ports = self.random.choice((0, 1, 2, 3, 8, 15, 16) if self.care != "sound" else (1, 2, 3, 8, 15))
        self.free[index] = self.ports(ports or PORTS[model or "piix3-uhci"])
        on_board = not self.q35 and index == 0 and model in (None, "piix3-uhci")
        address = '<address type="pci" slot="1" function="2"/>' if on_board and self.chance(0.2) else ""
        if not on_board and self.chance(0.2):
            address = self.pci(self.slot())
        return self.element(
            "controller", address + self.alias(), type="usb", index=explicit, model=model, ports=ports
        )

    def ich9(self, index: int, explicit: int | None) -> list[str]:
        self.free[index] = self.ports(6)
        members = [("ich9-ehci1", 7, None), ("ich9-uhci1", 0, 0), ("ich9-uhci2", 1, 2), ("ich9-uhci3", 2, 4)]
        if self.chance(0.2):
            members = members[:1] + self.random.sample(members[1:], self.random.randint(0, 2))
        if self.care == "careless" and self.chance(0.1):
            del members[0]
        if self.chance(0.2) and explicit is not None:
            self.random.shuffle(members)
        slot = self.slot() if self.chance(0.35) else None
        all_of_them = self.chance(0.6)
        found = []
        for model, function, startport in members:
            inner = "" if startport is None or self.chance(0.3) else f'<master startport="{startport}"/>'
            if slot is not None and (all_of_them or self.chance(0.3)):
                inner += self.pci(slot, function)
            found.append(self.element("controller", inner + self.alias(0.1), type="usb", index=explicit, model=model))
        return found

    def hubs(self) -> list[str]:
        found = []
        for _ in range(self.random.choices((0, 1, 2, 4), (70, 15, 10, 5))[0]):
            address, place = self.usb_address()
            if place:
                bus, port = place
                if port.count(".") < 3:
                    self.free[bus] += [f"{port}.{number}" for number in range(1, 9)]
            found.append(self.element("hub", address + self.alias(), type="usb"))
        return found

    # Devices

    def hostdev(self) -> str:
        vendor = f'<vendor id="0x{self.random.choice(("046d", "1d6b", "0951"))}"/><product id="0x{self.hex4()}"/>'
        place = f'<address bus="{self.random.randint(1, 4)}" device="{self.random.randint(1, 60)}"/>'
        source = self.random.choice((vendor, place, place, vendor + place))
        if self.care == "careless" and self.chance(0.05):
            source = self.random.choice(("", vendor.partition("/>")[0] + "/>", '<address bus="0" device="0"/>'))
        reset = self.random.choice((None, None, None, "on", "off", "uninitialized"))
        policy = self.random.choice((None, None, None, "mandatory", "requisite"))
        inner = self.element("source", source, guestReset=reset, startupPolicy=policy) + self.common()
        managed = self.random.choice((None, "yes", "no"))
        return self.element("hostdev", inner, mode="subsystem", type="usb", managed=managed)

    def disk(self) -> str:
        if not self.targets:
            return ""
        device = self.random.choice(("disk", "disk", "disk", "cdrom", None))
        number = len(self.targets)
        driver = {"name": "qemu", "type": self.random.choice(("raw", "qcow2"))}
        if self.chance(0.3):
            driver["cache"] = self.random.choice(("none", "writeback", "writethrough", "directsync", "unsafe"))
        if self.chance(0.15):
            driver["discard"] = self.random.choice(("unmap", "ignore"))
        if self.chance(0.15):
            driver["error_policy"] = self.random.choice(("stop", "report", "ignore", "enospace"))
        inner = self.element("driver", "", **driver) if self.chance(0.9) else ""
        type_, source = "file", f'<source file="/var/tmp/img{number}.raw"/>'
        if self.chance(0.2):
            type_, source = "block", f'<source dev="/dev/vg/lv{number}"/>'
        if device == "cdrom" and self.chance(0.3):
            source = ""
        target = self.targets.pop(self.random.randrange(len(self.targets)) if self.chance(0.3) else 0)
        removable = self.random.choice((None, None, "on", "off")) if device != "cdrom" else None
        inner += source + self.element("target", "", dev=f"sd{target}", bus="usb", removable=removable)
        shareable = "<shareable/>" if driver["type"] == "raw" and self.chance(0.08) else ""
        inner += "<readonly/>" if self.chance(0.1) else shareable
        inner += f"<serial>WD {number}</serial>" if self.chance(0.15) else ""
        return self.element("disk", inner + self.common(), type=type_, device=device)

    def tablet(self) -> str:
        kind = self.random.choice(("tablet", "tablet", "mouse", "keyboard"))
        bus = "usb" if kind != "tablet" or self.chance(0.9) else None
        return self.element("input", self.common(boot=False), type=kind, bus=bus)

    def redirdev(self) -> str:
        kind, source = self.character("usbredir")
        return self.element(
            "redirdev", source + self.common(), bus=self.random.choice(("usb", "usb", None)), type=kind
        )

    def serial(self) -> str:
        kind, source = self.character(None)
        model = '<model name="usb-serial"/>' if self.chance(0.3) else ""
        port = str(self.random.randint(0, 3)) if self.chance(0.2) else None
        target = self.element("target", model, type="usb-serial", port=port)
        return self.element("serial", source + target + self.common(boot=False), type=kind)

    def sound(self) -> str:
        audio = f'<audio id="{self.random.randint(1, 2)}"/>' if self.care == "careless" and self.chance(0.1) else ""
        return self.element("sound", audio + self.common(boot=False), model="usb")

    def smartcard(self) -> str:
        mode = self.random.choice(("host", "host-certificates", "passthrough"))
        inner = ""
        kind = None
        if mode == "host-certificates":
            inner = "".join(f"<certificate>cert{number}</certificate>" for number in range(1, 4))
            inner += "<database>/etc/pki/nssdb/</database>" if self.chance(0.4) else ""
        elif mode == "passthrough":
            kind, inner = self.character("smartcard")
            kind = kind or "pty"
        address = '<address type="ccid" controller="0" slot="0"/>' if self.chance(0.3) else ""
        ccid = ""
        if self.chance(0.3):
            usb, _ = self.usb_address()
            ccid = self.element("controller", usb + self.alias(), type="ccid", index=0)
        return self.element("smartcard", inner + address + self.alias(), mode=mode, type=kind) + ccid

    def character(self, spice: str | None) -> tuple[str, str]:
        """Return the type of a character device and its source."""
        number = self.random.randint(1, 99)
        kinds = ["pty", "null", "file", "dev", "tcp", "unix"]
        if spice and (self.spice or self.care == "careless"):
            kinds.append("spicevmc")
        kind = self.random.choice(kinds)
        mode = self.random.choice(("bind", "connect"))
        retry = f'<reconnect enabled="yes" timeout="{number}"/>' if mode == "connect" and self.chance(0.2) else ""
        if kind in ("file", "dev"):
            return kind, f'<source path="/tmp/char{number}"/>'
        if kind == "unix":
            return kind, self.element("source", retry, mode=mode, path=f"/tmp/socket{number}")
        if kind == "tcp":
            protocol = f'<protocol type="{self.random.choice(("raw", "telnet"))}"/>' if self.chance(0.5) else ""
            source = self.element("source", retry, mode=mode, host="127.0.0.1", service=4000 + number)
            return kind, source + protocol
        return kind, ""

    def redirfilter(self) -> str:
        rules = []
        for _ in range(self.random.randrange(4)):
            rule: dict[str, object] = {}
            for name, values in (
                ("class", ("0x08", "3", "-1", "0x1f")),
                ("vendor", ("0x1234", "-1", "0x0951")),
                ("product", ("0xBEEF", "-1", "0x1")),
                ("version", ("1.10", "2.5", "-1", "2.00", "0.1", "11.22")),
            ):
                if self.chance(0.5):
                    rule[name] = self.random.choice(values)
            rules.append(self.element("usbdev", "", **rule, allow=self.random.choice(("yes", "no"))))
        return self.element("redirfilter", "".join(rules))

    def others(self) -> list[str]:
        """Return what takes PCI slots, and inputs and sounds that are not USB's but are counted with them."""
        found = []
        if self.spice:
            found.append('<graphics type="spice"/>')
        if self.chance(0.5):
            found.append(f'<memballoon model="{self.random.choice(("none", "none", "virtio"))}"/>')
        makers: tuple[tuple[float, Callable[[], str]], ...] = (
            (0.15, lambda: self.input("ps2", ("mouse", "keyboard"))),
            (0.1, lambda: self.input("virtio", ("tablet", "mouse", "keyboard"))),
            (0.12, lambda: self.element("sound", self.alias(), model=self.random.choice(("ich6", "ac97", "ich9")))),
            (0.15, self.interface),
            (0.1, lambda: '<rng model="virtio"><backend model="random">/dev/urandom</backend></rng>'),
            (0.15, self.video),
            (0.1, lambda: '<disk type="file"><source file="/v.img"/><target dev="vda" bus="virtio"/></disk>'),
            (0.1, lambda: '<serial type="pty"><target port="0"/></serial>'),
            (0.08, self.bridge),
            (0.06, lambda: self.element("audio", "", id=1, type="spice" if self.spice else "sdl")),
            (0.05, lambda: '<controller type="scsi" model="virtio-scsi"/>'),
            (0.05, lambda: '<controller type="virtio-serial"/>'),
        )
        return found + [make() for share, make in makers if self.chance(share)]

    def input(self, bus: str, kinds: tuple[str, ...]) -> str:
        return self.element("input", self.alias(0.1), type=self.random.choice(kinds), bus=bus)

    def interface(self) -> str:
        model = self.random.choice(("virtio", "e1000", "rtl8139", "e1000e"))
        address = self.pci(self.slot()) if self.chance(0.2) else ""
        return (
            f'<interface type="user"><mac address="52:54:00:00:00:01"/><model type="{model}"/>{address}</interface>'
        )

    def video(self) -> str:
        return f'<video><model type="{self.random.choice(("vga", "cirrus", "virtio", "none"))}"/></video>'

    def bridge(self) -> str:
        if not self.q35:
            return '<controller type="pci" index="1" model="pci-bridge"/>'
        return '<controller type="pci" index="1" model="pcie-root-port"/>'

    # Addresses, aliases, elements

    def common(self, *, boot: bool = True) -> str:
        address, _ = self.usb_address()
        order = ""
        if boot and self.chance(0.1) and (not self.os_boot or self.care == "careless"):
            self.order += 0 if self.care == "careless" and self.chance(0.1) and self.order else 1
            order = f'<boot order="{self.order}"/>'
        return order + address + self.alias()

    def usb_address(self) -> tuple[str, tuple[int, str] | None]:
        """Return an address, or none, and the place when it names one that is free and exists."""
        if self.care == "careless" and self.chance(0.25):
            path = ".".join(str(self.random.randint(1, 9)) for _ in range(self.random.choice((1, 1, 1, 2, 3))))
            return f'<address type="usb" bus="{self.random.randint(0, 2)}" port="{path}"/>', None
        way = self.random.choices(("none", "bus", "port"), (50, 10, 40))[0]
        if way == "none" or not self.free:
            return "", None
        bus = self.random.choice(list(self.free))
        if way == "bus" or not self.free[bus]:
            port = ' port="0"' if self.chance(0.1) else ""
            return f'<address type="usb" bus="{bus}"{port}/>', None
        port = self.free[bus].pop(self.random.randrange(len(self.free[bus])))
        return f'<address type="usb" bus="{bus}" port="{port}"/>', (bus, port)

    def ports(self, count: int) -> list[str]:
        return [str(number) for number in range(1, count + 1)]

    def slot(self) -> int:
        return self.slots.pop() if self.care == "sound" else self.random.choice(self.slots)

    def pci(self, slot: int, function: int = 0) -> str:
        multifunction = self.random.choice((None, "on", "off")) if function == 0 and self.chance(0.3) else None
        extra = _attributes(multifunction=multifunction)
        return f'<address type="pci" bus="0x00" slot="{slot:#04x}" function="{function:#x}"{extra}/>'

    def alias(self, share: float = 0.15) -> str:
        if not self.chance(share):
            return ""
        self.aliases += 0 if self.care == "careless" and self.chance(0.1) else 1
        name = self.random.choice((f"ua-{self.aliases}", f"ua-dev_{self.aliases}", f"net{self.aliases}", "ua-a.b"))
        return f'<alias name="{name}"/>'

    def hex4(self) -> str:
        return f"{self.random.randrange(1, 0x10000):04x}"

    def element(self, tag: str, inner: str, /, **attributes: object) -> str:
        start = f"<{tag}{_attributes(**attributes)}"
        return f"{start}>{inner}</{tag}>" if inner else f"{start}/>"
