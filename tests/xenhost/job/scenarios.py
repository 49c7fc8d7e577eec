"""What a real Xen host and real guests make of us; run in dom0: `python3 -m job.scenarios [NAME…]`.

The hardware, see README.md one folder up: a stick at 2-1, a tablet at 1-2, a hub at 1-3 with a keyboard, a second
stick at 1-3.2 and a pen tablet at 1-3.3.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .harness import (
    ClaimError,
    Done,
    Guest,
    begun,
    guest,
    hears_the_kernel,
    main,
    python,
    restored,
    same,
    saved,
    scenario,
    sh,
    translator,
    tree,
    usb_tree,
)

if TYPE_CHECKING:
    import subprocess

STICK, TABLET, PEN = "46f4:0001", "0627:0001", "056a:0000"
STATE = "/tmp/state"
# What is done by us and by xl, for what it takes.
TOGETHER, SAME = "a controller with two ports comes, and a device", "nothing to do"
LISTED, ATTACHED = "what there is", "a device comes"
DETACHED, REMOVED = "a device goes", "a controller goes"
SUCCESSORS = ("11111111-2222-4333-8444-555555555555", "66666666-7777-4888-9999-aaaaaaaaaaaa")


def controller(model: str, index: int = 0, ports: int | None = None) -> str:
    """Return the element of a controller."""
    more = "" if ports is None else f" ports='{ports}'"
    return f"<controller type='usb' index='{index}' model='{model}'{more}/>"


def by_number(bus: int, device: int, controller: int = 0, port: int | None = None) -> str:
    """Return the element of a host device by its bus and device number."""
    place = "" if port is None else f"<address type='usb' bus='{controller}' port='{port}'/>"
    return (
        "<hostdev mode='subsystem' type='usb'><source>"
        f"<address bus='{bus}' device='{device}'/></source>{place}</hostdev>"
    )


def by_path(path: str) -> str:
    """Return the element of a host device by the port that it is plugged into."""
    bus, _, port = path.partition("-")
    return f"<hostdev mode='subsystem' type='usb'><source><address bus='{bus}' port='{port}'/></source></hostdev>"


def by_product(product: str) -> str:
    """Return the element of a host device by its vendor and product."""
    vendor, _, number = product.partition(":")
    return (
        f"<hostdev mode='subsystem' type='usb'><source><vendor id='0x{vendor}'/><product id='0x{number}'/></source>"
        "</hostdev>"
    )


def number_of(path: str) -> tuple[int, int]:
    """Return bus and device number of the host device at a port path, such as 2-1."""
    root = f"/sys/bus/usb/devices/{path}"
    with open(f"{root}/busnum") as bus, open(f"{root}/devnum") as device:
        return int(bus.read()), int(device.read())


def spelled(path: str) -> str:
    """Return bus and device number of the host device at a port path as `listed` gives them."""
    return "{}.{}".format(*number_of(path))


def apply(one: Guest, document: Path, *options: str) -> Done:
    """Apply a document to a guest."""
    return translator("apply", str(document), "--domid", str(one.domid), "--state", STATE, *options)


def listed(one: Guest) -> dict[str, str]:
    """Return bus and device number of what `xl usb-list` says is in the taken ports, by controller and port."""
    taken, controller = {}, ""
    for line in sh("xl", "usb-list", one.name).check().out.splitlines()[1:]:
        if port := re.match(r"\s+Port (\d+): *Bus (\w+) Device (\w+)", line):
            taken[f"{controller}:{port[1]}"] = f"{int(port[2], 16)}.{int(port[3], 16)}"
        elif not line.startswith(" "):
            controller = line.split()[0]
    return taken


def seen(one: Guest) -> tuple[list[tuple[int, str]], list[tuple[str, int, str]]]:
    """Return the guest's controllers (index, model) and devices (kind, controller, port), as we observe them."""
    observed = json.loads(translator("observe", "--domid", str(one.domid), "--format", "json").check().out)
    return (
        [(each["index"], each["model"]) for each in observed["controllers"]],
        [(each["kind"], each["controller"], each["port"]) for each in observed["devices"]],
    )


def expect(found: object, wanted: object) -> None:
    """Fail unless both are the same."""
    if found != wanted:
        raise ClaimError(f"found {found!r}, wanted {wanted!r}")


def holds(one: Guest, *paths: str) -> None:
    """Fail unless controller 0, a qusb2, has these devices, from port 1 on: to xl, in xenstore, and to us."""
    ports = [str(number) for number, _ in enumerate(paths, 1)]
    expect(listed(one), {f"0:{port}": spelled(path) for port, path in zip(ports, paths, strict=True)})
    root = f"/local/domain/0/backend/qusb/{one.domid}/0/port"
    expect([sh("xenstore-read", f"{root}/{port}").check().out.strip() for port in ports], [*paths])
    controllers, devices = seen(one)
    expect(controllers[0], (0, "qusb2"))
    expect(devices, [("hostdev", 0, port) for port in ports])


@scenario
def pv_two_devices() -> list[Done]:
    """A PV guest gets a controller with two host devices, sees both, and a second apply changes nothing; one is
    detached, and an empty document applied with --prune leaves the store as it was."""
    with guest("pv3") as pv:
        before = usb_tree(pv.domid)
        document = pv.document(controller("qusb2", ports=4), by_path("2-1"), by_product(PEN))
        first = apply(pv, document).check(says="pv3 matches")
        pv.wait_all(rf"USB \+\S+ {STICK}", rf"USB \+\S+ {PEN}")
        holds(pv, "2-1", "1-3.3")
        second = apply(pv, document).check(says="no change")
        one = translator("detach", "pv3", "0:1", "--state", STATE).check()
        pv.loses(STICK)
        expect(seen(pv)[1], [("hostdev", 0, "2")])
        expect(listed(pv), {"0:2": spelled("1-3.3")})
        pruned = apply(pv, pv.document(), "--prune").check()
        pv.loses(PEN)
        same(before, usb_tree(pv.domid))
        return [first, second, one, pruned]


@scenario
def pv_without_device_model() -> list[Done]:
    """A PV guest without a device model is refused qusb before anything is written."""
    with guest("pv1") as pv:
        before = tree()
        document = pv.document(controller("qusb2", ports=4))
        refused = apply(pv, document).check(4, "T423")
        same(before, tree())
        return [refused]


@scenario
def pv_without_usbback() -> list[Done]:
    """A kernel without usbback leaves nothing of a refused xenusb2 behind."""
    with guest("pv1") as pv:
        before = tree()
        document = pv.document(controller("xenusb2", ports=4))
        refused = apply(pv, document).check(4, "T417")
        same(before, tree())
        return [refused]


@scenario
def pvh_qusb() -> list[Done]:
    """A PVH guest, which has no controller of QEMU's, gets a second one of qusb, and a device on it."""
    with guest("pvh2") as pvh:
        document = pvh.document(controller("qusb2", 0, ports=4), controller("qusb1", 1, ports=2), by_path("2-1"))
        first = apply(pvh, document).check(says="pvh2 matches")
        pvh.sees(STICK)
        holds(pvh, "2-1")
        emulated = pvh.document(controller("nec-xhci", 2))
        apply(pvh, emulated).check(3, "has no emulated USB")
        return [first]


@scenario
def hvm_controllers() -> list[Done]:
    """An HVM guest gets xhci, ehci and piix3-uhci hot-plugged with a tablet and a stick, gives the stick back, and
    has its xhci replaced by a qusb controller."""
    with guest("hvm1") as hvm:
        tablet = "<input type='tablet' bus='usb'><address type='usb' bus='1' port='1'/></input>"
        kept = (controller("piix3-uhci", 1), controller("ehci", 2), tablet)
        document = hvm.document(controller("nec-xhci", 0), *kept, by_number(*number_of("2-1"), controller=0, port=1))
        first = apply(hvm, document).check(says="hvm1 matches")
        hvm.wait_all(rf"USB \+\S+ {STICK}", rf"USB \+\S+ {TABLET}")
        expect(listed(hvm), {"0:1": spelled("2-1")})
        second = apply(hvm, document).check(says="no change")
        detached = translator("detach", "hvm1", "0:1", "--state", STATE).check()
        hvm.loses(STICK)
        replaced = hvm.document(
            controller("qusb2", 0, ports=4), *kept, by_number(*number_of("2-1"), controller=0, port=1)
        )
        exchanged = apply(hvm, replaced, "--replace", "--timeout", "60").check(says="the guest sees")
        hvm.sees(STICK)
        expect(seen(hvm)[0], [(0, "qusb2"), (1, "piix3-uhci"), (2, "ehci")])
        expect(seen(hvm)[1], [("hostdev", 0, "1"), ("tablet", 1, "1")])
        expect(listed(hvm), {"0:1": spelled("2-1")})
        types = [line.split(" = ")[1] for line in usb_tree(hvm.domid) if re.match(r"/libxl/\S+/vusb/\d/type ", line)]
        expect([word.split('"')[1] for word in types], ["qusb", "devicemodel", "devicemodel"])
        return [first, second, detached, exchanged]


@scenario
def xl_sees_and_detaches_ours() -> list[Done]:
    """What we attach, xl lists and detaches, and nothing is left of it."""
    with guest("pv3") as pv:
        before = usb_tree(pv.domid)
        document = pv.document(controller("qusb2", ports=2), by_number(*number_of("2-1"), port=1))
        ours = apply(pv, document).check()
        pv.sees(STICK)
        holds(pv, "2-1")
        given_back = sh("xl", "usbdev-detach", "pv3", "0", "1").check()
        pv.loses(STICK)
        expect(seen(pv), ([(0, "qusb2")], []))
        removed = sh("xl", "usbctrl-detach", "pv3", "0").check()
        expect(seen(pv), ([], []))
        same(before, usb_tree(pv.domid))
        return [ours, given_back, removed]


@scenario
def we_see_what_xl_attached() -> list[Done]:
    """What xl attaches, we observe; an apply of the same changes nothing; and we detach it."""
    with guest("pv3") as pv:
        before = usb_tree(pv.domid)
        bus, device = number_of("2-1")
        made = sh("xl", "usbctrl-attach", "pv3", "type=qusb", "version=2", "ports=2").check()
        given = sh("xl", "usbdev-attach", "pv3", f"hostbus={bus}", f"hostaddr={device}").check()
        pv.sees(STICK)
        holds(pv, "2-1")
        document = pv.document(controller("qusb2", ports=2), by_number(bus, device, port=1))
        again = apply(pv, document).check(says="no change")
        ours = translator("detach", "pv3", "0:1", "--state", STATE).check()
        pv.loses(STICK)
        expect(listed(pv), {})
        gone = translator("detach", "pv3", "controller:0", "--state", STATE).check()
        same(before, usb_tree(pv.domid))
        return [made, given, again, ours, gone]


@scenario
def race_for_a_port() -> None:
    """When xl and we go for one port at the same time, it holds one device, and who says that it is his is right."""
    with guest("pv3") as pv:
        bus, device = number_of("1-3.2")
        sh("xl", "usbctrl-attach", "pv3", "type=qusb", "version=2", "ports=1").check()
        document = pv.document(controller("qusb2", ports=1), by_path("2-1"))
        ours = begun("apply", str(document), "--domid", str(pv.domid), "--state", STATE)
        sh("xl", "usbdev-attach", "pv3", f"hostbus={bus}", f"hostaddr={device}", "controller=0", "port=1")
        code = ours.wait(300)
        held = sh("xenstore-read", f"/local/domain/0/backend/qusb/{pv.domid}/0/port/1").check().out.strip()
        expect((code, held), (0, "2-1") if code == 0 else (4, "1-3.2"))
        serial = {"2-1": "XENSTICK01", "1-3.2": "XENSTICK02"}[held]
        pv.wait(rf"USB \+\S+ {STICK}.*{serial}")
        expect(listed(pv), {"0:1": spelled(held)})
        expect(seen(pv), ([(0, "qusb2")], [("hostdev", 0, "1")]))


def on_its_way(one: Guest, document: Path) -> subprocess.Popen[bytes]:
    """Begin an apply and wait for its first step."""
    shutil.rmtree(STATE, ignore_errors=True)
    running = begun("apply", str(document), "--domid", str(one.domid), "--state", STATE)
    while running.poll() is None and not list(Path(STATE).rglob("*.journal")):
        time.sleep(0.05)
    return running


def held_up(one: Guest, document: Path) -> subprocess.Popen[bytes]:
    """Begin an apply and stop it behind its first step, and not behind its last."""
    running = on_its_way(one, document)
    running.send_signal(signal.SIGSTOP)
    if running.poll() is not None or not list(Path(STATE).rglob("*.journal")):
        raise ClaimError("the apply was over before it could be held up")
    return running


def fails(running: subprocess.Popen[bytes]) -> None:
    """Let an apply go on that was held up: it has to fail, and to leave nothing in between."""
    print("  it goes on, and has to fail:", flush=True)
    running.send_signal(signal.SIGCONT)
    expect(running.wait(300), 4)


def killed(one: Guest, document: Path) -> None:
    """Begin an apply and kill it within a second of its first step."""
    running = on_its_way(one, document)
    time.sleep(random.random())
    running.kill()
    running.wait()


@scenario
def killed_and_rolled_back() -> list[Done]:
    """An apply is killed on its way, and recover leaves the store and the guest as they were."""
    with guest("pv3") as pv:
        before = usb_tree(pv.domid)
        killed(pv, pv.document(controller("qusb2", ports=4), by_path("2-1"), by_path("1-3.2")))
        recovered = translator("recover", "--state", STATE).check()
        same(before, usb_tree(pv.domid))
        translator("recover", "--list", "--state", STATE).check()
        return [recovered]


@scenario
def killed_and_resumed() -> list[Done]:
    """An apply is killed on its way, and recover --resume ends with what was asked for."""
    with guest("pv3") as pv:
        document = pv.document(controller("qusb2", ports=4), by_path("2-1"), by_path("1-3.2"))
        killed(pv, document)
        resumed = translator("recover", "--resume", "--state", STATE).check()
        pv.sees(STICK)
        pv.sees(STICK)
        holds(pv, "2-1", "1-3.2")
        apply(pv, document).check(says="no change")
        return [resumed]


@scenario
def pv_destroyed_on_the_way() -> None:
    """A guest is destroyed while an apply runs, and neither its successor nor the store inherits anything."""
    with guest("pv3") as pv:
        document = pv.document(controller("qusb2", ports=4), by_path("2-1"))
        applying = held_up(pv, document)
        sh("xl", "destroy", "pv3").check()
        fails(applying)
        translator("recover", "--state", STATE).check()
        left = [line for line in tree() if f"/{pv.domid}/" in line and ("vusb" in line or "qusb" in line)]
        expect(left, [])
    with guest("pv3") as successor:
        before = tree()
        apply(pv, document).check(4, "T403")  # the domid is nobody's, whoever has the name now
        expect(seen(successor), ([], []))
        same(before, tree())


@scenario
def pv_domid_given_again() -> list[Done]:
    """While an apply is held up, its guest goes and another one gets the domid: it has nothing of it, neither from
    the apply, nor from one that was killed and is recovered; a document that names the first one is refused."""
    with guest("pv3") as pv:
        document = pv.document(controller("qusb2", ports=4), by_path("2-1"))
        before = usb_tree(pv.domid)
        vm = sh("xenstore-read", f"/local/domain/{pv.domid}/vm").check().out.strip()
        kept = saved(pv)
        restored(kept)

        applying = held_up(pv, document)
        sh("xl", "destroy", "pv3").check()
        restored(kept, SUCCESSORS[0])
        fails(applying)
        same(before, usb_tree(pv.domid))

        killed(pv, document)
        sh("xl", "destroy", "pv3").check()
        restored(kept, SUCCESSORS[1])
        recovered = translator("recover", "--state", STATE).check()
        same(before, usb_tree(pv.domid))

        uuid = vm.removeprefix("/vm/")
        document.write_text(document.read_text().replace("<memory>", f"<uuid>{uuid}</uuid><memory>"))
        refused = apply(pv, document).check(4, "T404")
        same(before, usb_tree(pv.domid))
        document.write_text(document.read_text().replace(uuid, SUCCESSORS[1]))
        apply(pv, document).check(says="pv3 matches")
        pv.sees(STICK)
        holds(pv, "2-1")
        kept.unlink()
        return [recovered, refused]


@scenario
def pv_follow_a_replug() -> None:
    """A stick that is pulled and plugged in again comes back to its guest by itself, named by its serial number, and
    so does the other one, which the backend loses on the way."""
    with guest("pv3") as pv:
        by_serial = (
            "<hostdev mode='subsystem' type='usb'><source><serial>XENSTICK01</serial></source>"
            "<address type='usb' bus='0' port='1'/></hostdev>"
        )
        document = pv.document(controller("qusb2", ports=4), by_serial, by_path("1-3.2"))
        apply(pv, document).check()
        pv.wait_all(*(rf"USB \+\S+ {STICK}.*XENSTICK0{number}" for number in (1, 2)))
        following = begun("follow", str(document), "--state", STATE)
        hears_the_kernel(following)
        time.sleep(5)  # for its first look
        sh("hostmon", "device_del stick1").check()
        pv.loses(STICK)
        time.sleep(5)
        again = "device_add usb-storage,bus=xhci.0,port=1,drive=u1,serial=XENSTICK01,id=stick1b"
        sh("hostmon", again).check()
        pv.wait_all(*(rf"USB \+\S+ {STICK}.*XENSTICK0{number}" for number in (1, 2)))
        following.terminate()
        expect(following.wait(60), 0)
        holds(pv, "2-1", "1-3.2")
        sh("hostmon", "device_del stick1b").check()
        time.sleep(5)
        sh("hostmon", again.replace("stick1b", "stick1")).check()


@scenario
def pv_our_xl() -> list[Done]:
    """Our xl verbs do as xl's, and print what xl prints."""
    with guest("pv3") as pv:
        before = usb_tree(pv.domid)
        bus, device = number_of("2-1")
        ours = ("xl", "usbctrl-attach", "pv3", "type=qusb", "version=2", "ports=3")
        made = translator(*ours).check()
        given = translator("xl", "usbdev-attach", "pv3", f"hostbus={bus}", f"hostaddr={device}").check()
        pv.sees(STICK)
        listed = translator("xl", "usb-list", "pv3").check()
        expect(listed.out, sh("xl", "usb-list", "pv3").check().out)
        holds(pv, "2-1")
        taken = translator("xl", "usbdev-detach", "pv3", "0", "1").check()
        pv.loses(STICK)
        translator("xl", "usbctrl-detach", "pv3", "0").check()
        same(before, usb_tree(pv.domid))
        return [made, given, listed, taken]


@scenario
def pv_hook() -> None:
    """libvirt's hook refuses before a start what cannot be, gives a started guest its PVUSB, and cleans up."""
    with guest("pv3") as pv:
        bad = pv.document(controller("xenusb3"))
        words = ("hook", "--state", STATE, "pv3")
        translator(*words, "prepare", "begin", "-", input=bad.read_text()).check(3)
        document = pv.document(controller("qusb2", ports=2), by_path("2-1")).read_text()
        document = document.replace("<domain type='xen'>", f"<domain type='xen' id='{pv.domid}'>")
        translator(*words, "prepare", "begin", "-", input=document).check()
        translator(*words, "started", "begin", "-", input=document).check()
        pv.sees(STICK)
        holds(pv, "2-1")
        sh("xl", "destroy", "pv3").check()
        translator(*words, "release", "end", "-", input=document).check()
        expect(usb_tree(pv.domid), [])


@scenario
def pv_beside_xl() -> list[Done]:
    """For the same effect a command of ours asks no more of xenstore than xl does; and, told but not judged, what a
    device takes in one process and by xl in turn."""
    with guest("pv3") as pv:
        bus, device = number_of("2-1")
        document = str(pv.document(controller("qusb2", ports=2), by_number(bus, device)))
        attach = ("xl", "usbdev-attach", "pv3", f"hostbus={bus}", f"hostaddr={device}")
        theirs = {
            TOGETHER: [
                sh("xl", "usbctrl-attach", "pv3", "type=qusb", "version=2", "ports=2").check(),
                sh(*attach).check(),
            ]
        }
        pv.sees(STICK)
        theirs[LISTED] = [sh("xl", "usb-list", "pv3").check()]
        theirs[DETACHED] = [sh("xl", "usbdev-detach", "pv3", "0", "1").check()]
        pv.loses(STICK)
        theirs[ATTACHED] = [sh(*attach).check()]
        pv.sees(STICK)
        sh("xl", "usbdev-detach", "pv3", "0", "1").check()
        pv.loses(STICK)
        theirs[REMOVED] = [sh("xl", "usbctrl-detach", "pv3", "0").check()]

        ours = {TOGETHER: translator("apply", document, "--name", "pv3", "--state", STATE).check()}
        pv.sees(STICK)
        ours[LISTED] = translator("observe", "--name", "pv3").check()
        ours[SAME] = translator("apply", document, "--name", "pv3", "--state", STATE).check(says="no change")
        ours[DETACHED] = translator("detach", "pv3", "0:1", "--state", STATE).check()
        pv.loses(STICK)
        ours[ATTACHED] = translator("attach", "pv3", f"hostdev:{bus}.{device}", "--state", STATE).check()
        pv.sees(STICK)
        times = {ATTACHED: "attach", DETACHED: "detach"}
        translator("detach", "pv3", "0:1", "--state", STATE).check()
        pv.loses(STICK)
        turns = json.loads(python("-m", "job.inprocess", "pv3", str(bus), str(device), "5").check().out)
        ours[REMOVED] = translator("detach", "pv3", "controller:0", "--state", STATE).check()

        for effect, by_xl in theirs.items():
            asked = sum(done.requests for done in by_xl)
            if not 0 < ours[effect].requests <= asked:
                raise ClaimError(f"{effect}: {ours[effect].requests} requests, and xl makes {asked}")
        figures = []
        for effect, done in ours.items():
            figures.append(figure(f"{effect}: translator", [done]))
            if effect in theirs:
                figures.append(figure(f"{effect}: xl", theirs[effect]))
            if verb := times.get(effect):
                figures.append(median(f"{effect}: Host", turns["ours"][verb], turns["requests"][verb]))
                figures.append(median(f"{effect}: xl in turn", turns["xl"][verb], 0))
        return figures


def figure(what: str, steps: list[Done]) -> Done:
    """Return the figure of what took these commands."""
    seconds, requests, lines = zip(*((one.seconds, one.requests, one.lines) for one in steps), strict=True)
    return Done((what,), 0, "", "", sum(seconds), sum(requests), sum(lines))


def median(what: str, seconds: list[float], requests: int) -> Done:
    """Return the figure of the same done several times."""
    return Done((what,), 0, "", "", statistics.median(seconds), requests, 0)


@scenario
def pv_under_libvirt() -> list[Done]:
    """A guest that libvirt's Xen driver runs, with a device that libvirt attached: its document is plannable, apply
    finds nothing to change, and the host devices are those that we observe."""
    connect = ("virsh", "-c", "xen:///system")
    start_libvirt(connect)
    Path("/tmp/domain.xml").write_text(
        sh(*connect, "domxml-from-native", "xen-xl", "/srv/guests/pv2.cfg").check().out
    )

    def create() -> None:
        sh(*connect, "create", "/tmp/domain.xml").check()

    with guest("pv2", create) as pv:
        bus, device = number_of("2-1")
        Path("/tmp/device.xml").write_text(by_number(bus, device))
        given = sh(*connect, "attach-device", "pv2", "/tmp/device.xml").check()
        pv.sees(STICK)
        dump = Path("/tmp/dump.xml")
        dump.write_text(sh(*connect, "dumpxml", "pv2").check().out)
        translator("plan", str(dump)).check()
        told = re.findall(r"<hostdev .*?<address bus='(\d+)' device='(\d+)'/>", dump.read_text(), re.DOTALL)
        observed = json.loads(translator("observe", "--domid", str(pv.domid), "--format", "json").check().out)
        hosts = [(one["host"]["bus"], one["host"]["device"]) for one in observed["devices"]]
        expect(hosts, [(int(bus), int(device)) for bus, device in told])
        expect(hosts, [number_of("2-1")])
        same_again = apply(pv, dump).check(says="no change")
        taken = translator("detach", "pv2", "0:1", "--state", STATE).check()
        pv.loses(STICK)
        return [given, same_again, taken]


def start_libvirt(connect: tuple[str, ...]) -> None:
    """Start libvirtd as far as it runs here: no processor of libvirt's map is as small as the emulated one, and its
    QEMU driver wants users that the Xen driver does not need."""
    models = Path("/usr/share/libvirt/cpu_map/x86_486.xml")
    models.write_text("<cpus><model name='486'><decode host='on' guest='on'/><feature name='fpu'/></model></cpus>\n")
    for driver in Path("/usr/lib/x86_64-linux-gnu/libvirt/connection-driver").glob("*_qemu.so"):
        driver.unlink()
    for folder in ("/run/libvirt", "/var/lib/libvirt", "/var/log/libvirt"):
        Path(folder).mkdir(parents=True, exist_ok=True)
    sh("virtlogd", "-d").check()
    sh("libvirtd", "-d").check()
    deadline = time.monotonic() + 120
    while sh(*connect, "version").code:
        if time.monotonic() > deadline:
            raise ClaimError("libvirtd does not answer")
        time.sleep(3)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
