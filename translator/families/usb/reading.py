"""What a document says of devices on USB, kind by kind."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from translator.document.domain import Certificates
from translator.document.parse_chardev import char_source
from translator.document.reader import SIGNED_MAX, Place, quoted
from translator.hotplug.words import is_serial
from translator.topology import HostDevice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from translator.document.domain import DeviceElement
    from translator.document.parse_devices import Devices
    from translator.topology import ElementKind

INPUTS: Mapping[str, ElementKind] = MappingProxyType({"tablet": "tablet", "mouse": "mouse", "keyboard": "keyboard"})
_CERTIFICATE_DATABASE = "/etc/pki/nssdb"

_FOREIGN_ADDRESSES = (
    "pci",
    "drive",
    "virtio-serial",
    "ccid",
    "spapr-vio",
    "virtio-s390",
    "ccw",
    "virtio-mmio",
    "isa",
    "dimm",
    "unassigned",
)


def read(devices: Devices, place: Place, ordinal: int) -> DeviceElement | None:
    """Return what the element says as a USB device; None when it is none."""
    return _KINDS[place.element.tag](devices, place, ordinal)


def _hub(devices: Devices, place: Place, ordinal: int) -> DeviceElement:
    address = devices.reader.child(place, "address")
    foreign = address is not None and address.element.get("type") in _FOREIGN_ADDRESSES
    # libvirt drops a hub's address that is not of USB, and gives it one
    return devices.element(place, "hub", ordinal, address=None if foreign else devices.reader.usb_address(place))


def _input(devices: Devices, place: Place, ordinal: int) -> DeviceElement | None:
    type, bus = place.element.get("type", ""), place.element.get("bus")
    if bus is None:
        emulated = devices.x86 and type in ("mouse", "keyboard")
        bus = "usb" if type in INPUTS and not emulated and devices.hypervisor != "xen" else None
    if bus == "usb" and type in INPUTS:
        return devices.element(place, INPUTS[type], ordinal, address=devices.reader.usb_address(place))
    if (bus == "usb" and type == "passthrough") or (bus == "ps2" and type == "tablet"):
        instead = "virtio" if type == "passthrough" else "usb or virtio"
        devices.reader.fault(
            "T334",
            place,
            "bus",
            f"bus {bus!r} has no input devices of type {type!r}",
            f"possible for a {type}: {instead}",
        )
    elif bus == "xen" and devices.hypervisor != "xen":
        devices.reader.fault("T334", place, "bus", "only a Xen domain has inputs on bus 'xen'", "possible: ps2, usb")
    return None


def _ccid(devices: Devices, place: Place, ordinal: int) -> DeviceElement | None:
    if place.element.get("type") != "ccid":
        return None
    index = devices.reader.number(place, "index", most=SIGNED_MAX)
    return devices.element(place, "ccid", 0, address=devices.reader.usb_address(place), index=index)


def _hostdev(devices: Devices, place: Place, ordinal: int) -> DeviceElement | None:
    if place.element.get("type") != "usb":
        return None
    if place.element.get("mode", "subsystem") != "subsystem":
        devices.reader.fault(
            "T334", place, "mode", "only mode 'subsystem' has devices of type 'usb'", "possible: subsystem"
        )
        return None
    source = devices.reader.child(place, "source")
    return devices.element(
        place,
        "hostdev",
        ordinal,
        address=devices.reader.usb_address(place),
        host=_host(devices, place, source),
        boot=devices.boot(place),
        guest_reset=source.element.get("guestReset") if source else None,
        startup_policy=source.element.get("startupPolicy") if source else None,
    )


def _host(devices: Devices, hostdev: Place, source: Place | None) -> HostDevice | None:
    reader = devices.reader
    if source is None:
        reader.fault("T312", hostdev, None, "the <hostdev> has no <source>", "say which device of the host is meant")
        return None
    before = len(reader.faults)
    found: dict[str, int] = {}
    for name in ("vendor", "product"):
        child = reader.child(source, name)
        if child is not None:
            number = reader.number(child, "id", base=0, most=0xFFFF, required=True)
            if number is not None:
                found[name] = number
    address = reader.child(source, "address")
    path = None
    if address is not None:
        bus = reader.number(address, "bus", base=0, required=True)
        port = reader.port(address)
        if port is not None:
            path = f"{bus}-{port}"
        else:
            number = reader.number(address, "device", base=0, required=True)
            if bus and number:
                found |= {"bus": bus, "device": number}
    serial = _serial_number(devices, source)
    if len(reader.faults) > before:
        return None  # what it names is known no further
    half = ("vendor" in found) != ("product" in found) or found.get("vendor") == 0
    if half or not ("vendor" in found or "device" in found or path is not None or serial is not None):
        reader.fault(
            "T312",
            source,
            None,
            "the <source> does not name a device of the host",
            "give <vendor id=…/> with <product id=…/>, <address bus=… device=…/> or bus=… port=…, or <serial>",
        )
        return None
    return HostDevice(**found, path=path, serial=serial)


def _serial_number(devices: Devices, source: Place) -> str | None:
    """Return the serial number that a host device is named by, if it is."""
    place = devices.reader.child(source, "serial")
    if place is None:
        return None
    text = (place.element.text or "").strip()
    if not is_serial(text):
        devices.reader.fault(
            "T312",
            place,
            None,
            f"{quoted(text)} is no serial number",
            "it is what the file 'serial' of the device says, in /sys/bus/usb/devices",
        )
    return text


def _redirdev(devices: Devices, place: Place, ordinal: int) -> DeviceElement | None:
    return devices.element(
        place,
        "redirdev",
        ordinal,
        address=devices.reader.usb_address(place),
        boot=devices.boot(place),
        chardev=char_source(devices.reader, place, place.element.get("type", "")),
    )


def _serial(devices: Devices, place: Place, ordinal: int) -> DeviceElement | None:
    target = devices.reader.child(place, "target")
    type = target.element.get("type") if target else None
    model = devices.reader.attribute(place, "target/model", "name")
    if target is not None and model is not None and (type == "usb-serial") != (model == "usb-serial"):
        if "usb-serial" in (type, model):
            devices.reader.fault(
                "T334",
                target,
                None,
                f"model {model!r} does not go with target type {type or 'isa-serial'!r}",
                "a usb-serial has both, or no model",
            )
        return None
    if type != "usb-serial":
        return None
    return devices.element(
        place,
        "serial",
        ordinal,
        address=devices.reader.usb_address(place),
        chardev=char_source(devices.reader, place, place.element.get("type", "pty")),
    )


def _smartcard(devices: Devices, place: Place, ordinal: int) -> DeviceElement | None:
    reader, mode = devices.reader, place.element.get("mode")
    address = reader.child(place, "address")
    if address is not None and address.element.get("type") != "ccid":
        reader.fault(
            "T306",
            address,
            "type",
            f"a smartcard cannot have an address of type {address.element.get('type')!r}",
            "possible: ccid",
        )
    elif address is not None and any(reader.number(address, name) for name in ("controller", "slot")):
        reader.fault(
            "T327",
            address,
            None,
            "a smartcard can only be in slot 0 of ccid controller 0",
            "leave the address out",
        )
    chardev = certificates = None
    if mode == "passthrough" and place.element.get("type") is None:
        reader.fault("T322", place, None, "a smartcard of mode 'passthrough' needs a type", "such as type='tcp'")
    elif mode == "passthrough":
        chardev = char_source(devices.reader, place, place.element.get("type", ""))
    elif mode == "host-certificates":
        names = [(one.text or "").strip() for one in place.element.iterfind("certificate")]
        if len(names) != 3:
            reader.fault("T327", place, None, f"{len(names)} certificates are named, and three are needed")
            return None
        database = place.element.findtext("database") or _CERTIFICATE_DATABASE
        certificates = Certificates((names[0], names[1], names[2]), database)
    return devices.element(place, "smartcard", ordinal, chardev=chardev, certificates=certificates)


def _disk(devices: Devices, place: Place, ordinal: int) -> DeviceElement | None:
    number = devices.disks.at(place)
    if number is None or devices.disks.found[number].bus != "usb":
        return None
    return devices.element(
        place,
        "disk",
        ordinal,
        address=devices.reader.usb_address(place),
        boot=devices.boot(place),
        disk=number,
    )


def _sound(devices: Devices, place: Place, ordinal: int) -> DeviceElement | None:
    if place.element.get("model") != "usb":
        return None
    audio = devices.reader.child(place, "audio")
    return devices.element(
        place,
        "sound",
        ordinal,
        address=devices.reader.usb_address(place),
        audio=devices.reader.number(audio, "id", least=1, required=True) if audio else None,
    )


def _interface(devices: Devices, place: Place, ordinal: int) -> DeviceElement | None:
    if devices.reader.attribute(place, "model", "type") != "usb-net":
        return None
    address = devices.reader.child(place, "address")
    if address is None:
        devices.reader.fault(
            "T334",
            place,
            None,
            "libvirt has no place for a usb-net that names none",
            "name a port: <address type='usb' bus='0' port='1'/>",
        )
        return None
    return devices.element(
        place,
        "net",
        ordinal,
        address=devices.reader.usb_address(place),
        boot=devices.boot(place),
        mac=devices.reader.attribute(place, "mac", "address"),
    )


_KINDS: Mapping[str, Callable[[Devices, Place, int], DeviceElement | None]] = MappingProxyType(
    {
        "hostdev": _hostdev,
        "input": _input,
        "controller": _ccid,
        "hub": _hub,
        "redirdev": _redirdev,
        "disk": _disk,
        "smartcard": _smartcard,
        "sound": _sound,
        "serial": _serial,
        "interface": _interface,
    }
)
# The elements that may be devices on USB.
TAGS = tuple(_KINDS)
