"""What no two elements of a document may have alike, and what one needs of another, wherever they sit."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from translator.document.domain import DeviceElement, Domain, Label
    from translator.findings import Findings


def check(domain: Domain, findings: Findings) -> None:
    """Note every contradiction between the elements of a document.

    Source: virDomainDefValidateInternal and virDomainDefBootOrderPostParse (conf/), as observed.
    """
    _host_devices(domain, findings)
    _disk_targets(domain, findings)
    _aliases(domain, findings)
    _boot_orders(domain, findings)
    _smartcards(domain, findings)
    _backends(domain, findings)


def _host_devices(domain: Domain, findings: Findings) -> None:
    """A host device is given once. Source: virDomainHostdevMatchSubsysUSB (conf/domain_conf.c), as observed.

    One that is named by its place is another's double when both name that place; one named by its ids alone
    stands for whatever has them.
    """
    seen: dict[Hashable, DeviceElement] = {}
    for element in domain.devices:
        host = element.host
        if host is None:
            continue
        place: Hashable | None = None
        if host.path or host.device is not None:
            place = "at", host.path or (host.bus, host.device)
        elif host.serial:
            place = "serial", host.vendor, host.product, host.serial
        ids = ("ids", host.vendor or 0, host.product or 0)
        first = (seen.get(place) if place is not None else None) or seen.get(ids)
        if first is not None:
            findings.fault(
                "T311",
                element,
                f"host device {host.selector} is passed through twice, here and in line {first.source.line}",
                "source",
                "a host device can be given once; two alike are told apart by <address bus=… device=…/>",
            )
        seen.setdefault(ids if place is None else place, element)


def _disk_targets(domain: Domain, findings: Findings) -> None:
    seen: dict[str, bool] = {}
    for disk in domain.disks:
        usb = disk.bus == "usb"
        if seen.get(disk.target, False) or (usb and disk.target in seen):
            findings.fault(
                "T326",
                disk,
                f"there are two disks with target {disk.target!r}",
                "target/@dev",
                "each disk has a name of its own; on bus 'usb' the letters also make the device's id",
            )
        seen[disk.target] = usb or seen.get(disk.target, False)


def _aliases(domain: Domain, findings: Findings) -> None:
    seen: dict[str, Label] = {}
    for label in domain.aliases:
        first = seen.setdefault(label.value, label)
        if first is not label:
            findings.fault(
                "T324",
                label,
                f"alias {label.value!r} is given twice, here and in line {first.source.line}",
                "alias/@name",
                "an alias is the device's id in QEMU: choose another",
            )


def _boot_orders(domain: Domain, findings: Findings) -> None:
    seen: dict[str, Label] = {}
    for label in domain.boot_orders:
        if domain.boot:
            findings.fault(
                "T325",
                label,
                "a device has a boot order, and <os> names boot devices too",
                "boot",
                "remove the <boot dev='…'/> of <os>, or the <boot order='…'/> of the devices",
            )
            return
        first = seen.setdefault(label.value.lstrip("+0"), label)
        if first is not label:
            findings.fault(
                "T325",
                label,
                f"boot order {label.value} is given twice, here and in line {first.source.line}",
                "boot/@order",
                "give each device an order of its own",
            )


def _smartcards(domain: Domain, findings: Findings) -> None:
    cards = [element for element in domain.devices if element.kind == "smartcard"]
    for card in cards[1:]:
        findings.fault("T327", card, "a domain can have one smartcard", help="remove this one or the other")


def _backends(domain: Domain, findings: Findings) -> None:
    audios = {audio.id for audio in domain.audios} or {1}  # a domain that names none gets one
    for element in domain.devices:
        if element.audio is not None and element.audio not in audios:
            known = ", ".join(map(str, sorted(audios)[:20]))
            findings.fault(
                "T329",
                element,
                f"there is no audio backend with id {element.audio}",
                "audio/@id",
                f"add <audio id='{element.audio}' type='none'/>; the domain's: {known}",
            )
        if element.chardev is not None and element.chardev.type == "spicevmc" and not domain.spice:
            findings.fault(
                "T322",
                element,
                "a character device of type 'spicevmc' needs SPICE, and the domain has no such graphics",
                "@type",
                "add <graphics type='spice'/>, or name another type",
            )
