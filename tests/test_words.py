"""Devices named by one word, and back; and what is said of a word that names none."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import translator
from translator.hotplug.words import DeviceWord, parse_device_word, parse_selector
from translator.topology import HostDevice


@pytest.mark.parametrize(
    ("word", "host"),
    [
        ("hostdev:1.8", HostDevice(bus=1, device=8)),
        ("hostdev:001.008", HostDevice(bus=1, device=8)),
        ("hostdev:1-8", HostDevice(path="1-8")),
        ("hostdev:3-1.5.2", HostDevice(path="3-1.5.2")),
        ("hostdev:046d:c52b", HostDevice(vendor=0x046D, product=0xC52B)),
        ("hostdev:0x46d:0XC".replace("X", "x"), HostDevice(vendor=0x046D, product=0xC)),
        ("hostdev:046d:c52b:A:1", HostDevice(vendor=0x046D, product=0xC52B, serial="A:1")),
        ("hostdev:serial:0000:00:14.0", HostDevice(serial="0000:00:14.0")),
    ],
)
def test_a_host_device(word: str, host: HostDevice) -> None:
    assert parse_device_word(word) == DeviceWord("hostdev", host)


@pytest.mark.parametrize("kind", ["tablet", "mouse", "keyboard", "hub"])
def test_an_emulated_device(kind: str) -> None:
    assert parse_device_word(kind) == DeviceWord(kind)  # type: ignore[arg-type]  # a Kind


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("", "'' is no kind of device"),
        ("table", "'table' is no kind of device"),
        ("tablet:1", "'tablet' is no kind of device"),
        ("hostdev", "does not say which device"),
        ("hostdev:", "does not say which device"),
        ("hostdev:8", "'8' names no device"),
        ("hostdev:x.8", "the bus 'x' is not a number"),
        ("hostdev:1.x", "the device number 'x' is not a number"),
        ("hostdev:1.", "the device number '' is not a number"),
        ("hostdev:0.8", "the bus '0' is not a number from 1 to 255"),
        ("hostdev:1.256", "the device number '256' is not a number from 1 to 255"),
        ("hostdev:1.8.2", "the device number '8.2' is not a number"),
        ("hostdev:1.\u0663", "the device number '\u0663' is not a number"),
        ("hostdev:-1.2", "the bus '' is not a number"),
        ("hostdev:1-", "the port '' is not a number"),
        ("hostdev:1-2.0", "the port '0' is not a number"),
        ("hostdev:1-1.1.1.1.1.1.1", "the port '1.1.1.1.1.1.1' is 7 levels deep"),
        ("hostdev:46dd1:c52b", "the vendor '46dd1' is not one to four hexadecimal digits"),
        ("hostdev:046d:", "the product '' is not one to four hexadecimal digits"),
        ("hostdev:046d:c52g", "the product 'c52g' is not one to four hexadecimal digits"),
        ("hostdev:0000:c52b", "there is no vendor 0000"),
        ("hostdev:046d:c52b:", "the serial number '' is empty"),
        ("hostdev:serial:${domid}", "the serial number '${domid}' is empty, too long, or has a '$'"),
        ("hostdev:serial:" + "9" * 5000, "99…' is empty, too long"),
        ("hostdev:1." + "9" * 5000, "99…' is not a number"),
    ],
)
def test_the_part_that_is_wrong_is_named(word: str, part: str) -> None:
    with pytest.raises(translator.DocumentError) as caught:
        parse_device_word(word)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "T340"
    assert part in diagnostic.message
    assert diagnostic.help


_numbers = st.integers(1, 255)
_words = st.integers(1, 0xFFFF)
_serials = st.from_regex(r"[A-Za-z0-9 .:_-]{1,40}", fullmatch=True)
hosts = st.one_of(
    st.builds(HostDevice, bus=_numbers, device=_numbers),
    st.builds(HostDevice, vendor=_words, product=_words),
    st.builds(HostDevice, vendor=_words, product=_words, serial=_serials),
    st.builds(HostDevice, serial=_serials),
    st.builds(
        lambda bus, ports: HostDevice(path=f"{bus}-{'.'.join(map(str, ports))}"),
        _numbers,
        st.lists(_numbers, min_size=1, max_size=6),
    ),
)


@given(hosts)
def test_a_selector_is_read_back(host: HostDevice) -> None:
    assert parse_selector(host.selector) == host


@given(st.text(max_size=40))
def test_any_word_is_read_or_refused(word: str) -> None:
    with contextlib.suppress(translator.DocumentError):
        parse_device_word(word)
