"""Comparing by meaning: what says the same gives no difference, and one change of meaning gives that one."""

from __future__ import annotations

import asyncio
import functools
import random
import re
from typing import TYPE_CHECKING

import msgspec
import pytest
from lxml import etree

import translator
from tests.conftest import cases
from tests.domains import random_domain
from translator.comparison.delta import Delta
from translator.document.normalize import normalize
from translator.hosts.sandbox import Sandbox
from translator.planning.subjects import subject

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lxml.etree import _Element

    from translator import Plan

SEEDS = range(150)
# Elements whose order among each other means nothing once addresses are explicit. Hubs stand before what hangs on
# them, and disks' order is that in which firmware tries them.
_UNORDERED = ("input", "hostdev", "redirdev", "serial", "smartcard", "sound", "controller")


def plan_of(data: bytes) -> Plan:
    return translator.plan(translator.load(data))


@functools.cache
def normal(seed: int) -> bytes | None:
    """Return a random domain with all that it implies spelled out; None where it is refused."""
    try:
        return normalize(random_domain(random.Random(seed)).encode())
    except translator.DocumentError:
        return None


# What says the same


def reordered(data: bytes, random: random.Random) -> bytes:
    root = etree.fromstring(data)
    for devices in root.iter("devices"):
        children = list(devices)
        for tag in _UNORDERED:
            places = [number for number, one in enumerate(children) if one.tag == tag]
            elements = random.sample([children[number] for number in places], len(places))
            for number, element in zip(places, elements, strict=True):
                children[number] = element
        devices[:] = children
    for element in root.iter("*"):
        attributes = list(element.attrib.items())
        random.shuffle(attributes)
        element.attrib.clear()
        element.attrib.update(attributes)
    return etree.tostring(root)


def retyped(data: bytes, random: random.Random) -> bytes:
    """Return the document with other layout, quotes, comments, and empty elements written out."""
    text = re.sub(r">\s*<", lambda _: f">{random.choice(('', ' ', chr(10), '<!-- x -->', chr(9)))}<", data.decode())
    text = re.sub(r"(\s[\w-]+)=\"([^\"']*)\"", lambda match: f"{match[1]} = '{match[2]}'", text)
    return re.sub(
        r"<(\w+)([^<>]*)/>",
        lambda match: f"<{match[1]}{match[2]}></{match[1]}>" if random.random() < 0.5 else match[0],
        text,
    ).encode()


def realiased(data: bytes, random: random.Random) -> bytes:
    root = etree.fromstring(data)
    for number, alias in enumerate(root.iter("alias")):
        alias.set("name", f"ua-{number}-{random.randrange(1000)}")
    return etree.tostring(root)


def test_what_says_the_same_is_no_difference() -> None:
    compared = 0
    for seed in SEEDS:
        text = random_domain(random.Random(seed)).encode()
        try:
            plan = plan_of(text)
            explicit = normalize(text)
        except translator.DocumentError:
            continue
        chance = random.Random(seed)
        ways = {"retyped": retyped(text, chance), "normal": explicit, "reordered": reordered(explicit, chance)}
        ways["realiased"] = realiased(explicit, chance)
        for way, other in ways.items():
            compared += 1
            assert translator.diff(plan, plan_of(other)) == Delta(()), f"seed {seed}, {way}"
        assert translator.diff(translator.Plan.from_json(plan.to_json()), plan) == Delta(())
    assert compared > 300


@pytest.mark.parametrize("case", cases("plans"), ids=lambda case: case.name)
def test_what_is_no_fact_of_the_domain_is_no_difference(case: Path) -> None:
    domain = translator.load(case / "domain.xml")
    plan = translator.plan(domain)
    assert not translator.diff(plan, translator.plan(domain, coldplug="all"))
    if plan.topology.domain.hypervisor == "xen":
        assert not translator.diff(plan, translator.plan(domain, domid=7))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("model='xenusb2'", "model='pvusb-v2'"),
        ("model='qusb2'", "model='qusb2' ports='8'"),
        (
            "model='qusb2'",
            "model='qusb2'><backenddomain name='0'/></controller><controller type='usb' index='1' model='qusb1'",
        ),
    ],
)
def test_defaults_and_other_names(one: str, other: str) -> None:
    text = (
        "<domain type='xen'><name>a</name><os><type>hvm</type></os><devices>"
        "<controller type='usb' index='0' {}/><controller type='usb' index='1' model='qusb1'/></devices></domain>"
    )
    if "controller" in other:
        text = text.replace("<controller type='usb' index='1' model='qusb1'/>", "")
        one += "/><controller type='usb' index='1' model='qusb1'"
    assert not translator.diff(plan_of(text.format(one).encode()), plan_of(text.format(other).encode()))


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_a_xen_guests_elements_is_no_difference(seed: int) -> None:
    text = random_guest(random.Random(seed)).encode()
    assert translator.diff(plan_of(text), plan_of(reordered(text, random.Random(seed)))) == Delta(())


@pytest.mark.parametrize("case", cases("convert"), ids=lambda case: case.name)
def test_a_configuration_of_xls_is_the_document_that_it_converts_to(case: Path) -> None:
    config, document = (translator.plan(translator.load(case / f"domain.{suffix}")) for suffix in ("cfg", "xml"))
    assert translator.diff(config, document) == Delta(())
    assert translator.diff(config, translator.Plan.from_json(document.to_json())) == Delta(())


# One change of meaning


def _leaves(root: _Element, *tags: str) -> list[_Element]:
    """Return the devices of some kinds on a USB port; nothing hangs on them."""
    found = [one for tag in tags for one in root.iterfind(f"devices/{tag}")]
    return [one for one in found if one.find("address[@type='usb']") is not None]


def _free_port(root: _Element) -> tuple[str, str] | None:
    """Return a controller's index and a root port that nothing is on."""
    taken = {(one.get("bus"), one.get("port")) for one in root.iterfind("devices//address[@type='usb']")}
    for controller in root.iterfind("devices/controller[@type='usb']"):
        if controller.find("master") is None:
            for port in map(str, range(1, {"nec-xhci": 4, "qemu-xhci": 4}.get(controller.get("model", ""), 2) + 1)):
                place = controller.get("index", ""), port
                if place not in taken and int(controller.get("ports", "4")) >= int(port):
                    return place
    return None


def _id(element: _Element) -> str:
    address = element.find("address[@type='usb']")
    assert address is not None
    return f"device:usb:{address.get('bus')}:{address.get('port')}"


def remove_device(root: _Element, random: random.Random) -> str | None:
    # without the last boot order, firmware goes by os/boot
    leaves = [
        one for one in _leaves(root, "input", "hostdev", "redirdev", "serial", "sound") if one.find("boot") is None
    ]
    if not leaves:
        return None
    gone = random.choice(leaves)
    parent = gone.getparent()
    assert parent is not None
    parent.remove(gone)
    return _id(gone)


def add_device(root: _Element, random: random.Random) -> str | None:
    place, devices = _free_port(root), root.find("devices")
    if place is None or devices is None:
        return None
    new = etree.SubElement(devices, "input", type="mouse", bus="usb")
    etree.SubElement(new, "address", type="usb", bus=place[0], port=place[1])
    return _id(new)


def move_device(root: _Element, random: random.Random) -> str | None:
    leaves, place = _leaves(root, "hostdev", "redirdev", "serial", "disk"), _free_port(root)
    if not leaves or place is None:
        return None
    moved = random.choice(leaves)
    address = moved.find("address[@type='usb']")
    assert address is not None
    address.set("bus", place[0])
    address.set("port", place[1])
    return _id(moved)


def change_kind(root: _Element, random: random.Random) -> str | None:
    leaves = _leaves(root, "input")
    kinds = {one.get("type") for one in leaves}
    if len(kinds) != 1 or len(leaves) != 1:
        return None
    leaves[0].set("bus", "usb")  # a mouse's default is PS/2
    leaves[0].set("type", "keyboard" if "keyboard" not in kinds else "mouse")
    return _id(leaves[0])


def change_host_device(root: _Element, random: random.Random) -> str | None:
    products = root.findall("devices/hostdev/source/product")
    alone = [one for one in products if one.getparent().find("address") is None]  # type: ignore[union-attr]  # found below one
    if not alone:
        return None
    alone[0].set("id", "0x7777")
    return _id(alone[0].getparent().getparent())  # type: ignore[union-attr,arg-type]  # as above


def change_policy(root: _Element, random: random.Random) -> str | None:
    sources = [one for one in root.findall("devices/hostdev/source") if one.get("startupPolicy") != "optional"]
    if not sources:
        return None
    sources[0].set("startupPolicy", "optional")
    return _id(sources[0].getparent())  # type: ignore[arg-type]  # as above


def change_host_end(root: _Element, random: random.Random) -> str | None:
    for one in _leaves(root, "redirdev", "serial"):
        source = one.find("source[@path]")
        if source is not None:
            source.set("path", "/elsewhere")
            return _id(one)
    return None


def change_image(root: _Element, random: random.Random) -> str | None:
    for one in _leaves(root, "disk"):
        source = one.find("source[@file]")
        if source is not None:
            source.set("file", "/elsewhere")
            return _id(one)
    return None


def change_cache(root: _Element, random: random.Random) -> str | None:
    for one in _leaves(root, "disk"):
        driver = one.find("driver")
        if driver is not None and driver.get("cache") is None and one.find("source") is not None:
            driver.set("cache", "none" if one.find("shareable") is None else "unsafe")
            return _id(one)
    return None


def _xhci(root: _Element) -> _Element | None:
    return next((one for one in root.iterfind("devices/controller") if "xhci" in one.get("model", "")), None)


def exchange_implementation(root: _Element, random: random.Random) -> str | None:
    one = _xhci(root)
    if one is None:
        return None
    one.set("model", "qemu-xhci" if one.get("model") == "nec-xhci" else "nec-xhci")
    return f"controller:usb:{one.get('index')}"


def change_ports(root: _Element, random: random.Random) -> str | None:
    one = _xhci(root)
    if one is None or one.get("ports") == "15":
        return None
    one.set("ports", "15")
    return f"controller:usb:{one.get('index')}"


def change_interface(root: _Element, random: random.Random) -> str | None:
    one = _xhci(root)
    used = {address.get("bus") for address in root.iterfind("devices//address[@type='usb']")}
    if one is None or one.get("index") in used:
        return None
    one.set("model", "ehci")
    one.attrib.pop("ports", "")
    return f"controller:usb:{one.get('index')}"


def move_controller(root: _Element, random: random.Random) -> str | None:
    one = _xhci(root)
    address = one.find("address") if one is not None else None
    if one is None or address is None or address.get("bus") != "0x00":
        return None
    address.set("slot", "0x1c")
    return f"controller:usb:{one.get('index')}"


def change_machine(root: _Element, random: random.Random) -> str | None:
    kind = root.find("os/type")
    assert kind is not None
    if kind.get("machine") != "pc":
        return None
    kind.set("machine", "pc-i440fx-7.2")
    return "domain"


@pytest.mark.parametrize(
    ("edit", "action", "reason", "requires"),
    [
        (remove_device, "remove", "identity", None),
        (add_device, "add", "identity", "hot-plug"),
        (move_device, "move", "address", "hot-plug"),
        (change_kind, "change", "identity", "hot-plug"),
        (change_host_device, "change", "identity", "hot-plug"),
        (change_policy, "change", None, "none"),
        (change_host_end, "change", None, "hot-plug"),
        (change_image, "change", "identity", "hot-plug"),
        (change_cache, "change", None, "hot-plug"),
        (exchange_implementation, "change", None, None),
        (change_ports, "change", "ports", None),
        (change_interface, "change", "interface", None),
        (move_controller, "move", "address", None),
        (change_machine, "change", "identity", "restart"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_one_change_is_named_alone(
    edit: Callable[[_Element, random.Random], str | None], action: str, reason: str | None, requires: str | None
) -> None:
    """`requires` is None where it hangs on the machine: PCI Express has no hot-plug on its first bus."""
    seen = 0
    for seed in range(600):
        before = normal(seed)
        if before is None:
            continue
        root = etree.fromstring(before)
        id = edit(root, random.Random(seed))
        if id is None:
            continue
        try:
            old, new = plan_of(before), plan_of(etree.tostring(root))
        except translator.DocumentError:
            continue  # the change is one that cannot be
        topology = new.topology
        if any(one.implicit for one in topology.devices) or any(one.implicit for one in topology.controllers):
            continue  # libvirt adds a hub or a reader on its own account
        changes = translator.diff(old, new).changes
        assert [(one.action, one.id, one.reason) for one in changes] == [(action, id, reason)], f"seed {seed}"
        assert changes[0].guest_visible == (reason is not None)
        assert requires in (None, changes[0].requires), f"seed {seed}"
        back = translator.diff(new, old).changes
        opposite = {"add": "remove", "remove": "add"}.get(action, action)
        assert [(one.action, one.reason) for one in back] == [(opposite, reason)], f"seed {seed}"
        seen += 1
        if seen == 25:
            break
    assert seen > 3


# Carried out

HOSTDEVS = tuple(f"<source><address bus='1' device='{number}'/></source>" for number in (3, 4, 5))
MODELS = {"piix3-uhci": 2, "nec-xhci": 4, "qemu-xhci": 4, "qusb1": 3, "qusb2": 3, "xenusb2": 3}


def random_guest(random: random.Random) -> str:
    """Return a Xen guest of which everything can be hot-plugged, with every place spelled out."""
    elements, places = [], []
    for index in sorted(random.sample(range(4), random.randint(0, 3))):
        model = random.choice(list(MODELS))
        ports = MODELS[model] + random.choice((0, 2)) * ("xhci" in model)
        asked = "" if "uhci" in model else f" ports='{ports}'"
        elements.append(f"<controller type='usb' index='{index}' model='{model}'{asked}/>")
        places += [(index, port, "uhci" in model or "xhci" in model) for port in range(1, ports + 1)]
    hostdevs = random.sample(HOSTDEVS, len(HOSTDEVS))
    for index, port, emulated in random.sample(places, min(len(places), random.randint(0, 5))):
        address = f"<address type='usb' bus='{index}' port='{port}'/>"
        if emulated and random.random() < 0.6:
            kind = random.choice(("tablet", "mouse", "keyboard"))
            elements.append(f"<input type='{kind}' bus='usb'>{address}</input>")
        elif hostdevs:
            elements.append(f"<hostdev mode='subsystem' type='usb'>{hostdevs.pop()}{address}</hostdev>")
    return guest_of(*elements)


def guest_of(*elements: str) -> str:
    return (
        "<domain type='xen'><name>guest</name><uuid>8a1e5c0e-3f2b-4c1d-9b7a-6d5e4f3a2b1c</uuid>"
        f"<os><type>hvm</type></os><devices>{''.join(elements)}</devices></domain>"
    )


def test_another_controller_of_the_same_index_is_told_apart() -> None:
    """A number does not become itself: it is another controller that has it now."""
    old = (
        b"<domain type='kvm'><name>a</name><os><type arch='x86_64' machine='pc'>hvm</type></os><devices>"
        b"<controller type='usb' index='0' model='qemu-xhci'/>"
        b"<input type='tablet' bus='usb'><address type='usb' bus='0' port='1'/></input></devices></domain>"
    )
    new = old.replace(b"index='0'", b"index='3'")
    (field,) = (
        field
        for change in translator.diff(plan_of(old), plan_of(new)).changes
        if change.what == "device"
        for field in change.fields
    )
    assert (field.name, field.before, field.after) == ("controller", "0, now 3", "0, new")


def test_applying_does_exactly_what_is_listed() -> None:
    """From one guest to another in the sandbox: what changes is what was told, and nothing else is touched."""
    pool = guest_of(*(f"<hostdev mode='subsystem' type='usb'>{one}</hostdev>" for one in HOSTDEVS))

    async def run(seed: int) -> int:
        chance = random.Random(seed)
        async with Sandbox() as sandbox:
            guest = sandbox.make_host_for(plan_of(pool.encode()))
            old, new = (
                translator.plan(translator.load(random_guest(chance).encode()), domid=guest.domid) for _ in range(2)
            )
            async with translator.Host(
                xenstore=sandbox.xenstore_socket, qmp=guest.qmp_socket, sysfs=sandbox.sysfs
            ) as host:

                async def seen() -> Plan:
                    topology = await host.observe(domid=guest.domid)
                    # where on PCI a controller comes is QEMU's choice: the documents name no address
                    placeless = (msgspec.structs.replace(one, pci=None) for one in topology.controllers)
                    topology = msgspec.structs.replace(topology, controllers=tuple(placeless))
                    return translator.Plan(topology=topology, steps=())

                await host.apply(old)
                before = await seen()
                told = translator.diff(old, new).changes
                applied = await host.apply(new, prune=True, replace=True)
                changed = translator.diff(before, await seen()).changes
        assert [(one.action, one.id, one.reason) for one in changed] == [
            (one.action, one.id, one.reason) for one in told
        ], seed
        touched = {step.subject for step in applied.steps}
        sides = [side for one in told for side in (one.before, one.after) if side is not None]
        listed = {subject(side) for side in sides}
        exchanged = {one.id for one in told if one.what == "controller" and one.action == "change"}
        above = {id for id in touched - listed if f"controller:usb:{id.split(':')[2]}" in exchanged}
        assert touched == listed | above, seed
        return len(told)

    assert sum(asyncio.run(run(seed)) for seed in range(12)) > 40
