"""Where USB controllers sit on PCI: libvirt's rules, one document each, and the placement's own edges."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
import pytest

import translator
from translator.document.domain import PciDemand
from translator.errors import DocumentError
from translator.placing.pci import BOARDS, Misplaced, Placed, place
from translator.planning.plan import QmpCommand

if TYPE_CHECKING:
    from translator.document.domain import PciPlug

XHCI = "<controller type='usb' model='qemu-xhci'/>"
PIIX3 = "<controller type='usb' model='piix3-uhci'/>"
EHCI = "<controller type='usb' model='ehci'/>"
NIC = "<interface type='user'><model type='virtio'/></interface>"
NO_BALLOON = "<memballoon model='none'/>"
VIDEO = "<video><model type='vga'/></video>"
PC = "pc-i440fx-7.2"
Q35 = "pc-q35-7.2"


def ich9(index: int, *names: str) -> str:
    models = names or ("ehci1", "uhci1", "uhci2", "uhci3")
    return "".join(f"<controller type='usb' index='{index}' model='ich9-{name}'/>" for name in models)


def at(slot: int, function: int = 0, bus: int = 0, model: str = "qemu-xhci", index: int = 0, flag: str = "") -> str:
    return (
        f"<controller type='usb' index='{index}' model='{model}'>"
        f"<address type='pci' bus='{bus}' slot='{slot:#x}' function='{function}'{flag}/></controller>"
    )


def document(machine: str, devices: str) -> bytes:
    return (
        "<domain type='kvm'><name>guest</name><memory>1</memory><vcpu>1</vcpu>"
        f"<os><type arch='x86_64' machine='{machine}'>hvm</type></os><devices>{devices}</devices></domain>"
    ).encode()


def places(machine: str, devices: str) -> list[str]:
    """Return `bus addr` of each USB controller as on the command line, with a + for multifunction."""
    plan = translator.plan(translator.load(document(machine, devices)))
    return [
        f"{arguments['bus']} {arguments['addr']}" + ("+" if arguments.get("multifunction") else "")
        for step in plan.steps
        if isinstance(step.action, QmpCommand)
        and "addr" in (arguments := step.action.arguments)
        and step.id.startswith("controller:usb:")
    ]


PLACED = {
    # pc
    "the PIIX3's own controller is function 2 of slot 1": (PC, PIIX3, ["pci.0 0x1.0x2"]),
    "a machine's unasked controller is that one": (PC, "", ["pci.0 0x1.0x2"]),
    "another PIIX3 takes a slot of its own": (PC, PIIX3 + PIIX3, ["pci.0 0x1.0x2", "pci.0 0x2"]),
    "the lowest free slot, in order": (PC, XHCI + EHCI, ["pci.0 0x2", "pci.0 0x3"]),
    "the primary video card has slot 2": (PC, XHCI + VIDEO, ["pci.0 0x3"]),
    "graphics bring a video card along": (PC, XHCI + "<graphics type='vnc'/>", ["pci.0 0x3"]),
    "no video card takes no slot": (PC, XHCI + "<video><model type='none'/></video>", ["pci.0 0x2"]),
    "a second video card comes late": (PC, XHCI + VIDEO + "<video><model type='qxl'/></video>", ["pci.0 0x3"]),
    "a video card whose slot is taken goes before all others": (
        PC,
        VIDEO + at(2, model="ehci") + "<controller type='usb' index='1' model='qemu-xhci'/>",
        ["pci.0 0x2", "pci.0 0x4"],
    ),
    "interfaces and sound cards go before controllers": (
        PC,
        XHCI + NIC + "<sound model='ich6'/><sound model='sb16'/>",
        ["pci.0 0x4"],
    ),
    "disks, balloon and rng go after them": (
        PC,
        "<disk type='file' device='disk'><source file='/d'/><target dev='vda' bus='virtio'/></disk>"
        "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>" + XHCI,
        ["pci.0 0x2"],
    ),
    "controllers of another kind go first where they are named first": (
        PC,
        "<controller type='scsi' model='virtio-scsi'/>" + XHCI,
        ["pci.0 0x3"],
    ),
    "and last where they are named last": (PC, XHCI + "<controller type='sata' index='0'/>", ["pci.0 0x2"]),
    "the unasked controller comes after all that are named": (
        Q35,
        "<controller type='usb' index='1' model='nec-xhci'/><controller type='scsi' model='virtio-scsi'/>",
        ["pci.1 0x0", "pci.3 0x0"],
    ),
    "what is given is entered first": (
        PC,
        at(2, model="ehci") + "<controller type='usb' index='1' model='nec-xhci'/>",
        ["pci.0 0x2", "pci.0 0x3"],
    ),
    "an address of zeros is none, whatever its function": (PC, at(0, 7), ["pci.0 0x2"]),
    "function 0 of a shared slot opens it": (
        PC,
        at(5) + at(5, 3, index=1, model="ehci"),
        ["pci.0 0x5+", "pci.0 0x5.0x3"],
    ),
    "unless the document says no": (
        PC,
        at(5, flag=" multifunction='off'") + at(5, 3, index=1, model="ehci"),
        ["pci.0 0x5", "pci.0 0x5.0x3"],
    ),
    "others than USB controllers count, too": (
        PC,
        at(5) + "<rng model='virtio'><backend model='random'>/dev/random</backend>"
        "<address type='pci' slot='5' function='1'/></rng>",
        ["pci.0 0x5+"],
    ),
    "a hub holds the PCI slot that it cannot use": (
        PC,
        XHCI + "<interface type='user'><address type='pci' slot='2'/></interface>",
        ["pci.0 0x3"],
    ),
    "a full bus gets a bridge, which goes first": (PC, XHCI + NIC * 29, ["pci.1 0x1"]),
    "an EHCI and its companions share a slot": (
        PC,
        ich9(0),
        ["pci.0 0x2.0x7", "pci.0 0x2+", "pci.0 0x2.0x1", "pci.0 0x2.0x2"],
    ),
    "the slot of the one with an address": (
        PC,
        at(9, 7, model="ich9-ehci1") + ich9(0, "uhci1", "uhci3"),
        ["pci.0 0x9.0x7", "pci.0 0x9+", "pci.0 0x9.0x2"],
    ),
    # q35
    "PCI Express: a root port each, and one to spare": (Q35, XHCI + NO_BALLOON, ["pci.1 0x0"]),
    "a conventional one sits on a bridge": (Q35, PIIX3, ["pci.2 0x1"]),
    "the bridge takes the lowest root port, and Express the following": (
        Q35,
        XHCI + PIIX3 + XHCI,
        ["pci.2 0x0", "pci.3 0x1", "pci.4 0x0"],
    ),
    "interfaces get the first root ports": (Q35, XHCI + NIC + NIC, ["pci.3 0x0"]),
    "an EHCI and its companions sit where Intel's do": (
        Q35,
        ich9(0),
        ["pcie.0 0x1d.0x7", "pcie.0 0x1d+", "pcie.0 0x1d.0x1", "pcie.0 0x1d.0x2"],
    ),
    "the next at 0x1a, a third on the bridge": (
        Q35,
        ich9(0, "ehci1", "uhci1") + ich9(1, "ehci1", "uhci1") + ich9(2, "ehci1", "uhci1"),
        ["pcie.0 0x1d.0x7", "pcie.0 0x1d+", "pcie.0 0x1a.0x7", "pcie.0 0x1a+", "pci.2 0x1.0x7", "pci.2 0x1+"],
    ),
    "without the first UHCI all on the bridge": (
        Q35,
        ich9(0, "ehci1", "uhci2"),
        ["pci.2 0x1.0x7", "pci.2 0x1.0x1"],
    ),
    "a document may mix PCI and PCI Express": (Q35, at(4, model="ehci"), ["pcie.0 0x4"]),
    "busses are added up to the one that is named": (Q35, at(0, bus=3), ["pci.3 0x0"]),
    "a conventional one's own bus counts up for the bridge's root port": (
        Q35,
        at(3, bus=1, model="ehci"),
        ["pci.2 0x3"],
    ),
    "root ports of the document are used": (
        Q35,
        XHCI + "<controller type='pci' index='1' model='pcie-root-port'/>",
        ["pci.1 0x0"],
    ),
    # others
    "virt is all PCI Express": ("virt-7.2", at(1) + NO_BALLOON, ["pcie.0 0x1"]),
    "pseries is all conventional": ("pseries-7.2", XHCI + NO_BALLOON, ["pci.0 0x1"]),
    "where the board is unknown, QEMU chooses": ("isapc", XHCI, []),
    "and where a PCI controller is": (PC, XHCI + "<controller type='pci' index='1' model='pci-root'/>", []),
}


@pytest.mark.parametrize(("machine", "devices", "expected"), PLACED.values(), ids=PLACED)
def test_placed(machine: str, devices: str, expected: list[str]) -> None:
    assert places(machine, devices) == expected


REFUSED = {
    "two at one place": (
        PC,
        at(5) + at(5, index=1, model="ehci"),
        "USB controller 1 (ehci, line 1) and USB controller 0 (qemu-xhci, line 1) both want PCI address 0000:00:05.0",
    ),
    "another device there": (
        PC,
        at(5) + "<interface type='user'><address type='pci' slot='5'/></interface>",
        "USB controller 0 (qemu-xhci, line 1) and the <interface> in line 1 both want PCI address 0000:00:05.0",
    ),
    "the chipset there": (
        Q35,
        at(0x1F),
        "USB controller 0 (qemu-xhci, line 1) and the chipset's ISA bridge both want PCI address 0000:00:1f.0",
    ),
    "the PIIX3's controller elsewhere": (
        PC,
        at(5, model="piix3-uhci"),
        "USB controller 0 (piix3-uhci, line 1) is part of the chipset and sits at PCI address 0000:00:01.2, "
        "not at 0000:00:05.0",
    ),
    "and in a machine without PIIX3": (
        Q35,
        at(1, 2, model="piix3-uhci"),
        "PCI address 0000:00:01.2 is the PIIX3's, and this machine has none",
    ),
    "a companion twice": (
        PC,
        ich9(0, "ehci1", "uhci1", "uhci1"),
        "USB controller 0 (ich9-uhci1, line 1) and USB controller 0 (ich9-uhci1, line 1) "
        "both want PCI address 0000:00:02.0",
    ),
    "a slot that a root port has not": (
        Q35,
        at(1, bus=1),
        "USB controller 0 (qemu-xhci, line 1) cannot sit at PCI address 0000:01:01.0: the last slot of bus 1 is 0x0",
    ),
    "a slot that is the host's": (
        PC,
        at(0, bus=1),
        "USB controller 0 (qemu-xhci, line 1) cannot sit at PCI address 0000:01:00.0: the first slot of bus 1 is 0x1",
    ),
    "another PCI domain": (
        PC,
        at(3).replace("bus='0'", "domain='1'"),
        "USB controller 0 (qemu-xhci, line 1) cannot sit at PCI address 0001:00:03.0: there is only PCI domain 0",
    ),
}


@pytest.mark.parametrize(("machine", "devices", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(machine: str, devices: str, message: str) -> None:
    with pytest.raises(DocumentError) as refused:
        places(machine, devices)
    assert [(one.code, one.message) for one in refused.value.diagnostics] == [("T321", message)]


def test_what_is_wrong_beside_usb_is_not_ours_to_refuse() -> None:
    twice = "<interface type='user'><address type='pci' slot='5'/></interface>" * 2
    assert places(PC, twice + XHCI) == []


LAUNCHED = {
    "pc's first bus can be plugged": (PC, XHCI, "attach"),
    "the chipset's function cannot": (PC, PIIX3, "launch"),
    "nor what sits on a bridge": (PC, at(1, bus=1), "launch"),
    "nor anything on PCI Express": (Q35, XHCI, "launch"),
}


@pytest.mark.parametrize(("machine", "devices", "stage"), LAUNCHED.values(), ids=LAUNCHED)
def test_stage(machine: str, devices: str, stage: str) -> None:
    plan = translator.plan(translator.load(document(machine, devices)))
    assert {step.stage for step in plan.steps} == {stage}


def test_a_xen_domain_has_the_addresses_of_its_document_only() -> None:
    xen = (
        document("pc", XHCI + at(6, index=1, model="ehci")).replace(b"'kvm'", b"'xen'").replace(b"machine='pc'", b"")
    )
    controllers = translator.plan(translator.load(xen)).topology.controllers
    assert [controller.pci for controller in controllers] == [None, "0000:00:06.0"]


def test_what_is_placed_stays_when_it_is_written_down() -> None:
    """The second reading of a document, in which each address is explicit, finds the same places."""
    demands = [
        PciDemand(what="nic", plug="express"),
        PciDemand(what="usb", plug="conventional", group=0, function=7),
        PciDemand(what="uhci", plug="conventional", group=0, function=0, multifunction=True),
        PciDemand(what="disk", plug="express"),
    ]
    placed = place(BOARDS["q35"], demands)
    assert isinstance(placed, Placed)
    written = [
        msgspec.structs.replace(demand, address=address)
        for demand, address in zip(demands, placed.addresses, strict=True)
    ]
    busses = [
        PciDemand(what="bus", plug=bus.model, address=bus.address, opens=(bus.index, bus.model))  # type: ignore[arg-type]
        for bus in placed.added
    ]
    assert [bus.opens for bus in busses] == [
        (1, "pcie-root-port"),
        (2, "pcie-root-port"),
        (3, "pcie-to-pci-bridge"),
        (4, "pcie-root-port"),
        (5, "pcie-root-port"),
    ]
    again = place(BOARDS["q35"], [*busses, *written])
    assert isinstance(again, Placed)
    assert again == Placed((*(bus.address for bus in busses), *placed.addresses), ())


def test_more_root_ports_than_fit() -> None:
    demands = [PciDemand(what="nic", plug="express") for _ in range(300)]
    assert place(BOARDS["q35"], demands) == Misplaced(
        (), "there is no PCI slot for everything that needs one", "remove some of it"
    )


@pytest.mark.parametrize(("board", "plug", "few"), [("pseries", "conventional", 500), ("q35", "express", 29)])
def test_time_grows_with_the_number_of_devices_only(board: str, plug: PciPlug, few: int) -> None:
    def seconds(count: int) -> float:
        demands = [PciDemand(what="usb", plug=plug) for _ in range(count)]
        start = time.process_time()
        placed = place(BOARDS[board], demands)
        seconds = time.process_time() - start
        assert isinstance(placed, Placed)
        assert len({(one.bus, one.slot) for one in placed.addresses if one}) == count
        return seconds

    short, long = (min(seconds(count) for _ in range(3)) for count in (few, few * 8))
    assert long < 3 * 8 * short
