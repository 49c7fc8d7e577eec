"""Network interfaces: the entries of `vif`, and `<interface>`. Source: xl-network-configuration(5)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from translator.xlcfg.language import Text
from translator.xlcfg.sheet import Kept, Option, Sheet, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lxml.etree import _Element

    from translator.xlcfg.draft import Draft
    from translator.xlcfg.taken import Taken

_KNOWN = ("mac", "bridge", "script", "model", "type", "vifname", "ip", "rate", "backend")
_OTHERS = (
    *(
        "gatewaydev",
        "netdev",
        "gateway",
        "devid",
        "mtu",
        "trusted",
        "accel",
        "forwarddev",
        "uuid",
        "policy",
        "handle",
    ),
    *("colo_", "remus_"),
)
_OPEN_VSWITCH = "vif-openvswitch"
_MAC = re.compile(r"[0-9a-fA-F]{1,2}(:[0-9a-fA-F]{1,2}){5}", re.ASCII)
_RATE = re.compile(r"([0-9]{1,9})([KMG]?)([Bb])/s(?:@.*)?", re.ASCII)
_KILOBYTES = {"": 1 / 1024, "K": 1, "M": 1024, "G": 1024 * 1024}


def read(sheet: Sheet, draft: Draft, devices: _Element) -> None:
    """Add an `<interface>` for each entry."""
    for number, text in enumerate(sheet.texts("vif"), 1):
        options: dict[str, Text] = {}
        for option in sheet.options(text, f"vif[{number}]"):
            if option.key in _KNOWN:
                options[option.key] = option.text
            elif option.key.startswith(_OTHERS):
                sheet.keep(Kept("vif", text, option.source, number - 1, f"{option.key}={option.value}"))
            else:
                _unknown(sheet, option, number)
        mac = options.get("mac")
        if mac is not None and not _MAC.fullmatch(mac.value):
            help = "such as 00:16:3e:01:02:03"
            sheet.fault("T119", mac.source, f"{shown(mac.value)} is no MAC address", help, f"vif[{number}]")
        rate = options.get("rate")
        if rate is not None and not _RATE.fullmatch(rate.value):
            help = "such as 10240KB/s"
            sheet.fault("T119", rate.source, f"{shown(rate.value)} is no rate", help, f"vif[{number}]")
            del options["rate"]
        _draw(draft, devices, text, options)


def _unknown(sheet: Sheet, option: Option, number: int) -> None:
    sheet.fault(
        "T119",
        option.source,
        f"{shown(option.key or option.value)} is no option of vif[{number}]",
        f"possible: {', '.join(_KNOWN)}",
        f"vif[{number}]",
    )


def _draw(draft: Draft, devices: _Element, entry: Text, options: Mapping[str, Text]) -> None:
    bridge, script = options.get("bridge"), options.get("script")
    type = "bridge" if bridge is not None else "ethernet"
    interface = draft.add(devices, "interface", {"type": type}, at=entry.source)
    if "mac" in options:
        draft.add(interface, "mac", {"address": options["mac"]})
    if bridge is not None and script is not None and script.value.rpartition("/")[2] == _OPEN_VSWITCH:
        # BRIDGE.TAG is a port of one VLAN, BRIDGE:TAG:TAG a trunk of several
        trunk = re.fullmatch(r"([^:]+)((?::[0-9]{1,4})+)", bridge.value)
        tagged = re.fullmatch(r"(.+)\.([0-9]{1,4})", bridge.value)
        name = trunk[1] if trunk else tagged[1] if tagged else bridge.value
        draft.add(interface, "source", {"bridge": Text(name, bridge.source)})
        tags = trunk[2][1:].split(":") if trunk else [tagged[2]] if tagged else []
        if tags:
            vlan = draft.add(interface, "vlan", {"trunk": "yes" if trunk else None}, at=bridge.source)
            for tag in tags:
                draft.add(vlan, "tag", {"id": tag})
        draft.add(interface, "virtualport", {"type": "openvswitch"})
    elif bridge is not None:
        draft.add(interface, "source", {"bridge": bridge})
    for address in options["ip"].value.split() if "ip" in options else ():
        family = "ipv6" if ":" in address else "ipv4"
        draft.add(interface, "ip", {"address": address, "family": family}, at=options["ip"].source)
    rate = _RATE.fullmatch(options["rate"].value) if "rate" in options else None
    if rate is not None:
        kilobytes = int(rate[1]) * _KILOBYTES[rate[2]] / (1 if rate[3] == "B" else 8)
        bandwidth = draft.add(interface, "bandwidth", at=options["rate"].source)
        draft.add(bandwidth, "outbound", {"average": max(1, int(kilobytes))})
    if script is not None:
        draft.add(interface, "script", {"path": script})
    if "backend" in options:
        draft.add(interface, "backenddomain", {"name": options["backend"]})
    if "vifname" in options:
        draft.add(interface, "target", {"dev": options["vifname"]})
    model = options.get("model")
    if model is None and "type" in options and options["type"].value == "vif":
        model = Text("netfront", options["type"].source)
    if model is not None:
        draft.add(interface, "model", {"type": model})


# From XML


def write(taken: Taken, devices: _Element | None) -> list[str]:
    """Return the entries of interfaces."""
    interfaces = list(devices.iterchildren("interface")) if devices is not None else []
    return [entry for one in interfaces if (entry := _written(taken, one)) is not None]


def _written(taken: Taken, interface: _Element) -> str | None:
    if interface in taken or interface.find("model[@type='usb-net']") is not None:
        return None  # a PCI device, or one of USB's
    taken.see(interface)
    type, source = taken.attribute(interface, "type"), taken.child(interface, "source")
    if type not in ("bridge", "ethernet", "network"):
        taken.whole(interface)
        taken.warn("T360", interface, None, f"<interface> is left out: xl has none of type {type!r}")
        return None
    script = taken.attribute(taken.child(interface, "script"), "path")
    bridge = taken.attribute(source, "bridge")
    if bridge is None and taken.attribute(source, "network") is not None:
        taken.warn(
            "T361",
            interface,
            None,
            f"network {source.get('network')!r} is libvirt's, and xl does not know its bridge"
            if source is not None
            else "",
            "name the bridge: <interface type='bridge'><source bridge='…'/>",
        )
    port = taken.child(interface, "virtualport")
    vlan = taken.child(interface, "vlan")
    if taken.attribute(port, "type") == "openvswitch":
        script = script or _OPEN_VSWITCH
        trunk = taken.attribute(vlan, "trunk") == "yes"
        tags = [taken.attribute(tag, "id") or "" for tag in taken.children(vlan, "tag")]
        if tags and bridge:
            bridge += (":" + ":".join(tags)) if trunk or len(tags) > 1 else f".{tags[0]}"
    model = taken.attribute(taken.child(interface, "model"), "type")
    average = taken.attribute(taken.child(taken.child(interface, "bandwidth"), "outbound"), "average")
    addresses = []
    for ip in taken.children(interface, "ip"):
        taken.take(ip, "family")
        addresses.append(taken.attribute(ip, "address") or "")
    options = {
        "mac": taken.attribute(taken.child(interface, "mac"), "address"),
        "bridge": bridge,
        "ip": " ".join(addresses),
        "script": script,
        "vifname": taken.attribute(taken.child(interface, "target"), "dev"),
        "backend": taken.attribute(taken.child(interface, "backenddomain"), "name"),
        "type" if model == "netfront" else "model": "vif" if model == "netfront" else model,
        "rate": f"{average}KB/s" if average else None,
    }
    for key, value in options.items():
        if value and "," in value:
            taken.warn(
                "T360", interface, None, f"the {key} {value!r} has a comma, which xl cannot read, and is left out"
            )
    return ",".join(f"{key}={value}" for key, value in options.items() if value and "," not in value)
