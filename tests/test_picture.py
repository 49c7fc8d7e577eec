"""Pictures of topologies: whole, and safe whatever a document or a host calls things."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import msgspec
import pytest
from lxml import etree

import translator
from tests.conftest import FIXTURES, cases
from translator.output import picture
from translator.planning.subjects import subject

if TYPE_CHECKING:
    from pathlib import Path

    from translator.topology import Topology

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '</title><script>alert("1")</script>&\\" ]; x -> y [label="\x00\u202e`|#quot;'


def topology_of(name: str) -> Topology:
    return translator.plan(translator.load(FIXTURES / name / "domain.xml")).topology


def called(topology: Topology, name: str) -> Topology:
    replace = msgspec.structs.replace
    return replace(
        topology,
        domain=replace(topology.domain, name=name, machine=name),
        devices=tuple(replace(device, id=name) for device in topology.devices),
    )


def boxes(svg: str) -> list[etree._Element]:
    return list(etree.fromstring(svg.encode()).iter(f"{SVG}g"))


@pytest.mark.parametrize("case", cases("plans"), ids=lambda case: case.name)
def test_every_controller_and_device_is_drawn_once(case: Path) -> None:
    topology = topology_of(f"plans/{case.name}")
    drawn = [id for box in boxes(picture.svg(topology)) if (id := box.get("data-id"))]
    ids = [subject(one) for one in topology.controllers] + [subject(one) for one in topology.devices]
    assert sorted(drawn) == sorted(ids)
    companions = sum(len(controller.companions) for controller in topology.controllers)
    everything = 1 + len(ids) + companions
    assert len(boxes(picture.svg(topology))) == everything
    assert len(re.findall(r"^  n\d+ \[label=", picture.dot(topology), re.MULTILINE)) == everything
    assert len(re.findall(r"^  n\d+\[", picture.mermaid(topology), re.MULTILINE)) == everything


def test_no_two_boxes_overlap() -> None:
    places = [
        box.get("transform")
        for box in boxes(picture.svg(topology_of("plans/kvm-every-kind-in-the-order-of-service")))
    ]
    assert len(set(places)) == len(places)


def test_marks_are_signs_as_well_as_colours() -> None:
    topology = topology_of("demo/web")
    marks: dict[str, picture.Mark] = {"controller:usb:1": "change", "device:usb:2:2.1": "move"}
    found = {
        box.get("data-id"): (box.get("class", "").split()[-1], box.findtext(f"{SVG}text[@class='sign']"))
        for box in boxes(picture.svg(topology, marks))
        if box.find(f"{SVG}text[@class='sign']") is not None
    }
    assert found == {"controller:usb:1": ("change", "~"), "device:usb:2:2.1": ("move", "→")}
    assert "~ qusb2" in picture.dot(topology, marks)
    assert "#126; qusb2" in picture.mermaid(topology, marks)


def test_a_name_is_never_more_than_a_text() -> None:
    tame, hostile = (called(topology_of("demo/web"), name) for name in ("x", HOSTILE))
    root = etree.fromstring(picture.svg(hostile).encode())
    assert [one.tag for one in root.iter()] == [
        one.tag for one in etree.fromstring(picture.svg(tame).encode()).iter()
    ]
    assert root.findtext(f"{SVG}title") == "USB topology of " + HOSTILE.replace("\x00", "\\u0000").replace(
        "\u202e", "\\u202e"
    )
    for draw in (picture.dot, picture.mermaid):
        assert draw(hostile).count("\n") == draw(tame).count("\n")
    for line in picture.mermaid(hostile).splitlines()[1:]:
        assert re.fullmatch(
            r'  n\d+(\["[A-Za-z0-9 ,:/_.·#;\\<br>-]*"\]| ---\|"[a-z0-9 .]+"\| n\d+| --- n\d+)', line
        ), line


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_graphviz_reads_it() -> None:
    done = subprocess.run(
        ["dot", "-Tplain"],
        input=picture.dot(called(topology_of("demo/web"), HOSTILE)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(re.findall(r"^node ", done.stdout, re.MULTILINE)) == 10
