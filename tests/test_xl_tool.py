"""The real xl takes what is written for it, and means by it what was meant."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings

import translator
from tests.conftest import cases
from tests.test_xl_corpus import flat
from tests.test_xlcfg import VALUES, configs
from translator.errors import DocumentError
from translator.placing.resolve import resolve
from translator.xlcfg import language, to_xl, to_xml

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.servers import Xl

CONVERTED = cases("convert")


# What of a file xl understands otherwise once it went to XML and back, beside defaults that are spelled out then.
CHANGED = {
    "lose-what-is-unknown": r"/b_info/vcpu_hard_affinity.* | /nics\[0\]/mtu",
    "usb-and-usbdevice": r"/b_info/type\.hvm/usbdevice_list.*",  # a hub that QEMU adds anyhow, and lower case
    "usbversion-3": r"/b_info/type\.hvm/usbversion",  # as a usbctrl of that version
    "whole-hvm-guest": r"/nics\[0\]/rate_bytes_per_interval",
}


@pytest.mark.parametrize("case", CONVERTED, ids=[path.name for path in CONVERTED])
def test_xl_reads_what_is_written_as_what_it_was_written_from(xl: Xl, case: Path) -> None:
    before, after = (dict(flat(xl.read((case / name).read_bytes()))) for name in ("domain.cfg", "again.cfg"))
    changed = [path for path in before if before[path] != after.get(path) and not path.endswith("/uuid")]
    expected = re.compile(CHANGED.get(case.name, "none"), re.VERBOSE)
    assert not [path for path in changed if not expected.fullmatch(path)]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(configs())
def test_xl_and_we_see_the_same_controllers_and_devices(xl: Xl, config: bytes) -> None:
    written = to_xl(to_xml(config).data).data
    answer = xl.read(written)
    topology = resolve(translator.load(written)).topology
    controllers = [one for one in topology.controllers if one.family == "usb"]
    types = {"pv": "pv", "qusb": "qusb", "devicemodel": "emulated"}
    for one in answer.get("usbctrls", ()):
        ours = next(controller for controller in controllers if controller.index == one["devid"])
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
    on_bus = [
        one for one in topology.devices if said and one.controller == len(controllers) - 1 and one.family == "usb"
    ]
    assert len(said) == len(on_bus)


# Texts about which we and xl differ, on purpose: older readers of these files took the first three, and the last has
# more lists in lists than anybody needs.
OUR_OWN = ('"""', "\\\n", "\r\n", "[[[[")


@pytest.mark.parametrize("text", [text for text, _ in VALUES if not any(sign in text for sign in OUR_OWN)])
def test_the_language_is_xls(xl: Xl, text: str) -> None:
    data = f'name = "guest"\ntype = "hvm"\n{text}\n'.encode()
    assert refused(lambda: language.parse(data)) == refused(lambda: xl.read(data))


def refused(read: Callable[[], object]) -> bool:
    try:
        read()
    except (DocumentError, ValueError):
        return True
    return False
