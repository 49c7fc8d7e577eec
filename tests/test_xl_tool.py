"""The real xl takes what is written for it, and means by it what was meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings

import translator
from tests.conftest import cases
from tests.servers import OxenStored, Xl, require
from tests.test_xlcfg import VALUES, configs
from translator.errors import DocumentError
from translator.resolve import resolve
from translator.xlcfg import language, to_xl, to_xml

if TYPE_CHECKING:
    from collections.abc import Iterator

CONVERTED = cases("convert")


@pytest.fixture(scope="module")
def xl() -> Iterator[Xl]:
    require(Xl)
    require(OxenStored)
    with OxenStored() as xenstored:
        yield Xl(xenstored)


@pytest.mark.parametrize("case", CONVERTED, ids=[path.name for path in CONVERTED])
def test_xl_reads_what_is_written_as_what_it_was_written_from(xl: Xl, case: Any) -> None:
    """Two files that look quite different are the same domain, where xl understands both."""
    again = usb_of(xl.read((case / "again.cfg").read_bytes()))
    if not any(word in case.name for word in ("usb-and-usbdevice", "usbversion", "old", "usbctrl-and")):
        assert usb_of(xl.read((case / "domain.cfg").read_bytes())) == again


def usb_of(answer: dict[str, Any]) -> dict[str, Any]:
    """Return what xl understood of a file's USB, defaults filled in where they are documented."""
    hvm = answer["b_info"].get("type.hvm", {})
    controllers = [{"type": "auto", "version": 2, "ports": 8, **one} for one in answer.get("usbctrls", ())]
    devices = {name: hvm.get(name) for name in ("usbdevice", "usbdevice_list", "usbversion")}
    return {"controllers": controllers, "usb": hvm.get("usb", "False"), **devices}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(configs())
def test_xl_and_we_see_the_same_controllers_and_devices(xl: Xl, config: bytes) -> None:
    written = to_xl(to_xml(config).data).data
    answer = xl.read(written)
    topology = resolve(translator.load(written)).topology
    types = {"pv": "pv", "qusb": "qusb", "devicemodel": "emulated"}
    for one in answer.get("usbctrls", ()):
        ours = next(controller for controller in topology.controllers if controller.index == one["devid"])
        if "type" in one:  # else auto, whose number of ports hangs on what it turns out to be
            assert (types[one["type"]], one["version"]) == (ours.type, ours.version)
        assert one.get("ports", ours.ports) == ours.ports
    mine = {(one.host.bus, one.host.device): (one.controller, one.port) for one in topology.devices if one.host}
    for one in answer.get("usbdevs", ()):
        host = one["type.hostdev"]
        # xl leaves out what is zero
        assert mine[host["hostbus"], host["hostaddr"]] == (one.get("ctrl", 0), str(one["port"]))
    words = answer["b_info"].get("type.hvm", {})
    said = words.get("usbdevice_list", [words["usbdevice"]] if "usbdevice" in words else [])
    on_bus = [one for one in topology.devices if said and one.controller == len(topology.controllers) - 1]
    assert len(said) == len(on_bus)


# What our reader takes and xl does not, on purpose: what older readers of these files took.
LENIENT = ('"""', "\\\n", "\r\n")


@pytest.mark.parametrize("text", [text for text, _ in VALUES])
def test_the_language_is_xls(xl: Xl, text: str) -> None:
    data = f'name = "guest"\ntype = "hvm"\n{text}\n'.encode()
    assert refused(lambda: language.parse(data)) == (
        refused(lambda: xl.read(data)) and not any(one in text for one in LENIENT)
    )


def refused(read: Any) -> bool:
    try:
        read()
    except (DocumentError, ValueError):
        return True
    return False
