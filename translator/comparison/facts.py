"""What a domain, a controller or a device is, as a list of facts, and by which of them a guest notices a change.

Names (ids, aliases, node names), places in a document and what was implicit are no facts. What is left out is what
QEMU or libvirt puts there, so that a default that is spelled out is none either.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from translator.registry.knobs import knobs_of
from translator.registry.models import MODELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from translator.topology import Controller, Device, Topology, Value

Reason = Literal["interface", "identity", "address", "ports"]

REASONS: tuple[Reason, ...] = ("interface", "identity", "address", "ports")  # the first that applies is told

# By what the guest notices that a fact has changed. Those that it does not notice are about who implements an
# interface and what the host does behind it; a fact without a row is noticed, until somebody shows otherwise.
_NOTICED: Mapping[str, Reason | None] = {
    # of a domain
    "hypervisor": "identity",
    "guest": "identity",
    "arch": "identity",
    "machine": "identity",
    "uuid": "identity",
    "name": None,
    "emulator": None,
    "device_models": None,
    "layout": None,
    # of a controller
    "interface": "interface",
    "version": "interface",
    "ports": "ports",
    "pci": "address",
    "multifunction": "address",
    "companions": "interface",
    "companion-addresses": "address",
    "index": None,
    "model": None,
    "type": None,
    "backend": None,
    "device_model": None,
    "companion-models": None,
    # of a device
    "controller": "address",
    "port": "address",
    "account-failed": None,
    "account-invalid": None,
    "aio": None,
    "audio": None,
    "backend_defaults": None,
    "cache": None,
    "chardev": None,
    "commandlog": None,
    "db": None,
    "debug": None,
    "detect-zeroes": None,
    "discard": None,
    "filter": None,
    "guest-reset": None,
    "guest-resets-all": None,
    "io_timeout": None,
    "ioeventfd": None,
    "iothread": None,
    "isobsize": None,
    "isobufs": None,
    "loglevel": None,
    "pcap": None,
    "pipeline": None,
    "share-rw": None,
    "startup_policy": None,
    "rerror": None,
    "werror": None,
}
PLACES = frozenset(("controller", "port", "index", "pci", "multifunction", "companion-addresses"))
NOTHING_TO_DO = frozenset(("name", "startup_policy"))

# What a host's end is when nobody says. Sources: BlockdevOptions and BlockdevOptionsFile (qapi/block-core.json) of
# QEMU 7.2; of startupPolicy, libvirt's format of domain XML. A property's default is the registry's word.
_DEFAULTS: dict[str, Any] = {
    "aio": "threads",
    "cache": {"direct": False, "no-flush": False},
    "discard": "ignore",
    "detect-zeroes": "off",
    "startup_policy": "mandatory",
}
# What `auto` comes to. Source: blkconf_apply_backend_options (hw/block/block.c) and blk_get_error_action.
_AUTO: dict[str, Value] = {"write-cache": "on", "werror": "enospc", "rerror": "report"}


def reason_of(names: Iterable[str]) -> Reason | None:
    """Return by what the guest notices that facts of these names have changed; None if it does not."""
    found = {_NOTICED.get(name, "identity") for name in names}
    return next((reason for reason in REASONS if reason in found), None)


def or_default(driver: str | None, name: str, value: Any) -> Any:
    """Return the value, or what it is when nobody says."""
    if value is not None:
        return value
    default = _AUTO.get(name, _defaults_of(driver).get(name))
    return None if default is _OURS else default


def of_domain(topology: Topology, *, seen: bool) -> dict[str, Any]:
    domain = topology.domain
    facts: dict[str, Any] = {"name": domain.name, "uuid": domain.uuid, "guest": domain.guest}
    if seen:
        return facts
    return facts | {
        "hypervisor": domain.hypervisor,
        "arch": domain.arch,
        "machine": domain.machine,
        "emulator": topology.device_models[0].emulator if topology.device_models else None,
        "device_models": sorted([one.name, one.emulator or ""] for one in topology.device_models[1:]),
        "layout": topology.layout,
    }


def of_controller(controller: Controller, *, seen: bool) -> dict[str, Any]:
    """Return the facts of a controller; how many ports it has is one, so properties that repeat it are not."""
    companions = sorted(controller.companions, key=lambda one: one.startport)
    facts: dict[str, Any] = {
        "interface": controller.interface,
        "model": controller.model,
        "type": controller.type,
        "version": controller.version,
        "ports": controller.ports,
        "pci": controller.pci,
        "backend": controller.backend,
        "companions": [[one.startport, MODELS[one.model].interface] for one in companions if one.model in MODELS],
        "companion-models": [one.model for one in companions],
        "companion-addresses": [one.pci for one in companions],
        "index": controller.index,
    }
    if controller.place is not None:
        facts |= {"controller": controller.place.controller, "port": controller.place.port}
    if seen:
        if None in facts["companion-addresses"]:
            del facts["companion-addresses"]
        return facts
    for one in companions:
        own = _settled(one.driver, one.properties)
        facts |= {f"companion-{one.startport}-{name}": value for name, value in own.items()}
    bits = [one.get("multifunction") for one in (controller.properties, *(one.properties for one in companions))]
    return facts | {
        **_settled(controller.driver, controller.properties),
        "device_model": controller.device_model,
        "multifunction": [bit is True for bit in bits],
    }


def of_device(device: Device, audio: Mapping[Any, Any], *, seen: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {"kind": device.kind, "controller": device.controller, "port": device.port}
    if device.host is not None:
        facts["host"] = device.host
    if seen:
        return facts
    if device.kind == "smartcard":  # of the other kinds, the driver is the kind's, or the PV controller's to know
        facts["driver"] = device.driver
    facts |= _DEFAULTS | _settled(device.driver, device.properties)
    if device.startup_policy is not None:
        facts["startup_policy"] = device.startup_policy
    if "audiodev" in device.properties:
        facts["audio"] = audio.get(device.properties["audiodev"])
    for backend in device.backends:
        facts |= _backend(backend.part, backend.arguments)
    return facts


def _settled(driver: str | None, properties: Mapping[str, Value]) -> dict[str, Value]:
    """Return the properties that are not what they would be anyway, without those that the topology decides."""
    defaults = _defaults_of(driver)
    return {
        name: value
        for name, value in properties.items()
        if name not in defaults or (defaults[name] is not _OURS and value not in (defaults[name], _AUTO.get(name)))
    }


_OURS = object()


@cache
def _defaults_of(driver: str | None) -> Mapping[str, object]:
    knobs = knobs_of(driver) if driver is not None else {}
    return {name: _OURS if knob.ours else knob.default for name, knob in knobs.items()}


def _backend(part: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of what is behind a device: of a disk, what the guest reads apart from how it is read."""
    match part:
        case "chardev":
            backend = arguments.get("backend") or {}
            data = backend.get("data") or {}
            return {
                "chardev": {"type": backend.get("type")} | {key: data[key] for key in data if data[key] is not False}
            }
        case "storage":
            medium = {key: arguments.get(key) for key in ("driver", "filename")}
            rest = {key: arguments[key] for key in ("aio", "cache") if key in arguments}
            return {"medium": medium, **rest}
        case "format":
            kept = ("read-only", "discard", "detect-zeroes")
            return {"format": arguments.get("driver"), **{key: arguments[key] for key in kept if key in arguments}}
    return {}
