"""Random domains with controllers and disks of every family, and the live libvirt's answer to each against ours.

    python -m tests.families_oracle --count 400 --seed 7

Compared are the verdict, every `-device` of a controller, a disk or a channel of these families with all its
properties but the names of block nodes, which are ours, and every `-chardev` behind one. Where a console sits that
names no port only we say: libvirt leaves it to QEMU.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import sys
from itertools import pairwise
from typing import Any, NamedTuple

import translator
from tests import oracle
from tests.corpus import arguments_of

_SCSI = (
    *("lsilogic", "virtio-scsi", "virtio-transitional", "virtio-non-transitional"),
    *("lsisas1068", "lsisas1078", "vmpvscsi"),
)
_NAMES = {"scsi": "sd", "ide": "hd", "sata": "sd", "fdc": "fd"}
# Drivers of these families, as libvirt names them.
_OURS = {
    *("lsi", "virtio-scsi-pci", "virtio-scsi-pci-transitional", "virtio-scsi-pci-non-transitional", "mptsas1068"),
    *("megasas", "pvscsi", "ahci", "virtio-serial-pci", "virtio-serial-pci-transitional", "isa-fdc", "floppy"),
    *("virtio-serial-pci-non-transitional", "pcie-root-port", "pcie-pci-bridge", "pci-bridge", "ide-hd"),
    *("scsi-hd", "scsi-cd", "ide-cd", "i82801b11-bridge", "virtserialport", "virtconsole"),
}
# Names of nodes are ours, and libvirt spells out what is QEMU's default.
_NOT_COMPARED = ("drive", "device_id", "driveA", "driveB")


class Comparison(NamedTuple):
    """A document, and the words that only one of the two has."""

    document: str
    error: str | None
    ours: str | None
    only_theirs: tuple[str, ...]
    only_ours: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether both refuse, or both tell QEMU the same."""
        return (self.error is None) == (self.ours is None) and not self.only_theirs and not self.only_ours


def random_domain(seed: int) -> str:
    """Return a document of that seed: nothing in it but what these families are about."""
    rng = random.Random(seed)
    machine = rng.choice(("pc", "q35"))
    parts = [] if rng.random() < 0.5 else ["<controller type='usb' model='none'/>"]
    taken: set[str] = set()
    for index in range(rng.randrange(3)):
        model = rng.choice(_SCSI)
        number = f" index='{index}'" if rng.random() < 0.7 else ""
        queues = "<driver queues='4'/>" if model.startswith("virtio") and rng.random() < 0.3 else ""
        parts.append(f"<controller type='scsi'{number} model='{model}'>{queues}</controller>")
    if rng.random() < 0.4:
        ports = rng.choice(("", " ports='8'", " ports='16' vectors='4'"))
        parts.append(f"<controller type='virtio-serial' index='{rng.randrange(2)}'{ports}/>")
    if rng.random() < 0.3:
        parts.append(f"<controller type='sata' index='{rng.randrange(3)}'/>")
    for _ in range(rng.randrange(6)):
        bus = rng.choice(("scsi", "scsi", "sata", "fdc") if machine == "q35" else ("scsi", "ide", "sata", "fdc"))
        letter = rng.choice("ab" if bus == "fdc" else "abcd" if bus == "ide" else "abcdefghijklmnopq")
        name = _NAMES[bus] + letter
        if name in taken:
            continue
        taken.add(name)
        kind = "floppy" if bus == "fdc" else rng.choice(("disk", "disk", "cdrom"))
        parts.append(
            f"<disk type='file' device='{kind}'><driver name='qemu' type='raw'/><source file='/srv/{name}.img'/>"
            f"<target dev='{name}' bus='{bus}'/>{_address(rng, bus)}</disk>"
        )
    parts += [_channel(rng, f"c{number}") for number in range(rng.randrange(4))]
    if rng.random() < 0.3:
        parts += _busses(rng, machine)
    rng.shuffle(parts)
    return (
        "<domain type='qemu'><name>guest</name><memory>65536</memory><vcpu>1</vcpu>"
        f"<os><type arch='x86_64' machine='{machine}'>hvm</type></os>"
        f"<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{''.join(parts)}</devices></domain>"
    )


def _channel(rng: random.Random, name: str) -> str:
    """Return a channel or a console; on port 0, of controller 0, at most the first is."""
    console = rng.random() < 0.3
    port = rng.randrange(int(console and name != "c0"), 9)
    controller = rng.randrange(3) if port or not console else 0
    address = f"<address type='virtio-serial' controller='{controller}' bus='0' port='{port}'/>"
    source = rng.choice(
        ("pty'>", "null'>", f"file'><source path='/srv/{name}'/>", f"unix'><source path='/run/{name}'/>")
    )
    tag, named = ("console", "") if console else ("channel", f" name='{name}'" if rng.random() < 0.8 else "")
    place = address if rng.random() < 0.4 else ""
    return f"<{tag} type='{source}<target type='virtio'{named}/>{place}</{tag}>"


def _address(rng: random.Random, bus: str) -> str:
    if rng.random() < 0.7:
        return ""
    most = {"scsi": (2, 1, 7), "ide": (1, 2, 2), "sata": (2, 1, 6), "fdc": (1, 1, 2)}[bus]
    controller, number, unit = map(rng.randrange, most)
    return f"<address type='drive' controller='{controller}' bus='{number}' target='0' unit='{unit}'/>"


def _busses(rng: random.Random, machine: str) -> list[str]:
    if machine == "pc":
        return ["<controller type='pci' index='1' model='pci-bridge'/>"]
    models = rng.sample(("pcie-root-port", "pcie-to-pci-bridge", "dmi-to-pci-bridge", "pcie-root-port"), 2)
    return [f"<controller type='pci' index='{index}' model='{model}'/>" for index, model in enumerate(models, 1)]


def compared(seeds: range) -> list[Comparison]:
    """Return how we agree about the documents of these seeds."""
    documents = [random_domain(seed) for seed in seeds]
    answers = oracle.Libvirt.ask_raw(documents)
    return [_compare(document, answer) for document, answer in zip(documents, answers, strict=True)]


def _compare(document: str, answer: dict[str, Any]) -> Comparison:
    words = shlex.split(answer["argv"] or "")
    theirs = [arguments_of(value) for option, value in pairwise(words) if option == "-device"]
    theirs += [_chardev(value) for option, value in pairwise(words) if option == "-chardev"]
    try:
        plan = translator.plan(translator.load(document.encode()), coldplug="all")
    except translator.DocumentError as error:
        return Comparison(document, answer["error"], str(error), (), ())
    launched = [step.launch_words for step in plan.steps]
    mine = [arguments_of(value) for option, value in launched if option == "-device"]
    mine += [_chardev(value) for option, value in launched if option == "-chardev"]
    unplaced = {one["id"] for one in theirs if one.get("driver") == "virtconsole" and "bus" not in one}
    for one in mine:
        if one.get("id") in unplaced:
            del one["bus"], one["nr"]
    if answer["error"] is not None:
        return Comparison(document, answer["error"], None, (), ())
    those, these = ({_word(one) for one in words} - {None} for words in (theirs, mine))
    return Comparison(
        document, None, None, *(tuple(sorted(filter(None, more))) for more in (those - these, these - those))
    )


def _chardev(word: str) -> dict[str, Any]:
    """Return what follows `-chardev`, its type for a driver."""
    type, _, rest = word.partition(",")
    return {"driver": f"-chardev {type}", **dict(pair.split("=", 1) for pair in rest.split(","))}


def _word(device: dict[str, Any]) -> str | None:
    if device["driver"] not in _OURS and not str(device["id"]).startswith(("charchannel", "charconsole")):
        return None
    values: dict[Any, Any] = {"on": True, "off": False}
    compared = {key: value for key, value in device.items() if key not in _NOT_COMPARED}
    return json.dumps(
        {key: values.get(value, value) if isinstance(value, str) else value for key, value in compared.items()},
        sort_keys=True,
    )


def main() -> int:
    """Run the command line; return 1 where anything differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.families_oracle", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--count", type=int, default=200, help="how many documents [default: 200]")
    parser.add_argument("--seed", type=int, default=0, help="the first seed [default: 0]")
    options = parser.parse_args()
    found = compared(range(options.seed, options.seed + options.count))
    wrong = [one for one in found if not one.equal]
    refused = sum(one.error is not None for one in found)
    print(f"{len(found) - len(wrong)} of {len(found)} equal; libvirt refuses {refused}")
    for one in wrong[:10]:
        print(one.document, one.error, one.ours, *one.only_theirs, "  ours:", *one.only_ours, sep="\n  ")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
