"""What the installed QEMU says of the families' drivers, asked of its monitor: the embedded host's table.

    python -m tests.qemu_drivers > translator/hosts/sandbox/drivers.json

For each driver its alias, the type that it comes from, the kind of bus that it sits on, whether it can be plugged
into a running machine, its properties as `device-list-properties` has them, and the busses that it makes: names,
kinds, whether they take devices while the machine runs, and the largest unit.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import msgspec

from tests.servers import Qemu
from translator.errors import HostError
from translator.families import families
from translator.hosts.qmp import Qmp

_LINE = re.compile(r'name "([^"]+)", bus ([^,\n]+)(?:, alias "([^"]+)")?')
# The numbers of a unit, and what is plugged in to see which are possible.
_UNITS = {"SCSI": ("scsi-cd", ("channel", "scsi-id", "lun")), "virtio-serial-bus": ("virtconsole", ("nr",))}
_AT_START = {"IDE": ("ide-cd", ("unit",)), "floppy-bus": ("floppy", ("unit",))}
_MOST = 1 << 15  # beyond every unit
# What a driver cannot do without, and where on a q35 one goes that is none of the first bus.
_NEEDED: dict[str, dict[str, Any]] = {
    "pci-bridge": {"chassis_nr": 7},
    "pcie-root-port": {"chassis": 7},
    "ioh3420": {"chassis": 7},
    "x3130-upstream": {"bus": "root"},
    "xio3130-downstream": {"bus": "upstream", "chassis": 8},
    "pcie-pci-bridge": {"bus": "root"},
    "pxb": {"bus_nr": 200},
    "pxb-pcie": {"bus_nr": 200},
}
_SUPPORT = (
    {"driver": "pcie-root-port", "id": "root", "chassis": 5},
    {"driver": "pcie-root-port", "id": "root2", "chassis": 6},
    {"driver": "x3130-upstream", "id": "upstream", "bus": "root2"},
)


def installed() -> dict[str, tuple[str, str | None]]:
    """Return the bus and the alias of every driver."""
    listing = subprocess.run(["qemu-system-x86_64", "-device", "help"], capture_output=True, text=True, check=True)
    return {match[1]: (match[2], match[3]) for match in _LINE.finditer(listing.stdout)}


def named() -> list[str]:
    """Return the drivers of the families but USB's, which has a table of its own."""
    others = [family for family in families() if family.name != "usb"]
    wanted = {name for family in others for name in family.asked()}
    return sorted(wanted & installed().keys())


async def _ask(machine: str, devices: list[dict[str, Any]], work: Any) -> Any:
    with Qemu(*devices, machine=machine) as qemu:
        monitor = await Qmp.connect(qemu.socket)
        try:
            return await work(monitor)
        finally:
            await monitor.close()


async def _children(monitor: Qmp, path: str) -> list[tuple[str, str]]:
    listing: Any = await monitor.execute("qom-list", {"path": path})
    return [(one["name"], one["type"][6:-1]) for one in listing if one["type"].startswith("child<")]


async def _busses(monitor: Qmp, path: str, kinds: set[str]) -> list[dict[str, Any]]:
    """Return the busses of a device, those of what it is made of included, without those of other devices on it."""
    found: list[dict[str, Any]] = []
    for name, type in await _children(monitor, path):
        if type in kinds:
            found.append({"path": name, "kind": type})
        elif name == "virtio-backend":
            found += [
                one | {"path": f"{name}/{one['path']}"} for one in await _busses(monitor, f"{path}/{name}", kinds)
            ]
    return found


async def _refusal(monitor: Qmp, arguments: dict[str, Any]) -> str:
    """Return why a device cannot be added; empty where it can, and then it is gone again."""
    try:
        await monitor.execute("device_add", arguments)
    except HostError as error:
        return error.message
    try:
        await monitor.remove_device(arguments["id"], 0.5)
    except HostError as error:
        return f"added, and {error.message}"
    return ""


async def _limits(monitor: Qmp, bus: str, kind: str) -> list[int]:
    """Return the largest of each number of a unit, found by halving."""
    driver, parts = _UNITS[kind]
    found = []
    for part in parts:
        least, most = 0, _MOST
        while least < most:
            middle = (least + most + 1) // 2
            place = dict.fromkeys(parts, 0) | {part: middle}
            if await _refusal(monitor, {"driver": driver, "id": "unit", "bus": bus, **place}):
                most = middle - 1
            else:
                least = middle
        found.append(least)
    return found


async def _fixed(monitor: Qmp, bus: str, kind: str) -> str:
    driver, parts = _AT_START[kind]
    return await _refusal(monitor, {"driver": driver, "id": "unit", "bus": bus, **dict.fromkeys(parts, 0)})


async def _row(name: str, bus: str, alias: str | None, kinds: set[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"alias": alias, "bus": bus}

    async def plain(monitor: Qmp) -> None:
        row["properties"] = await monitor.execute("device-list-properties", {"typename": name})
        types: Any = await monitor.execute("qom-list-types", {"abstract": True})
        row["parent"] = next(one["parent"] for one in types if one["name"] == name)
        refusal = await _refusal(monitor, {"driver": name, "id": "probe", **_NEEDED.get(name, {})})
        row["pluggable"] = "expects a pluggable device type" not in refusal

    async def made(monitor: Qmp) -> None:
        row["makes"] = []
        for one in await _busses(monitor, "/machine/peripheral/probe", kinds):
            bus = one["path"].rpartition("/")[2]
            entry = {"path": one["path"].replace("probe", "{id}"), "kind": one["kind"], "hotplug": False, "units": []}
            if one["kind"] in _UNITS:
                entry |= {"hotplug": True, "units": await _limits(monitor, bus, one["kind"])}
            elif one["kind"] in _AT_START:
                refusal = await _fixed(monitor, bus, one["kind"])
                assert "does not support hotplugging" in refusal, refusal
            row["makes"].append(entry)

    await _ask("pc", [], plain)
    row["makes"] = []
    if bus in ("PCI", "ISA"):
        for machine, support in (("pc", ()), ("q35", _SUPPORT)):
            devices = [*support, {"driver": name, "id": "probe", **_NEEDED.get(name, {})}]
            try:
                await _ask(machine, devices, made)
                if name.startswith("pxb"):  # whose bus belongs to a host bridge of its own
                    await _ask(
                        machine, [*devices, {"driver": "pcie-root-port", "bus": "probe"}], lambda _: _nothing()
                    )
                    entry = {"path": "{id}", "kind": "PCIE" if name == "pxb-pcie" else "PCI"}
                    row["makes"] = [entry | {"hotplug": False, "units": []}]
                for one in row["makes"]:
                    if one["kind"] in _AT_START:
                        bus = one["path"].rpartition("/")[2].replace("{id}", "probe")
                        one["units"] = [await _largest(machine, devices, bus, one["kind"])]
                break
            except RuntimeError:  # it does not start: the other board has what this one needs
                continue
    return row


async def _boards(kinds: set[str]) -> dict[str, Any]:
    """Return the busses that each board has of itself."""
    found: dict[str, Any] = {}
    for machine in ("pc", "q35"):

        async def own(monitor: Qmp) -> list[dict[str, Any]]:
            busses = []
            for name, _ in await _children(monitor, "/machine/unattached"):
                path = f"/machine/unattached/{name}"
                for one in await _busses(monitor, path, kinds & {"IDE", "floppy-bus"}):
                    refusal = await _fixed(monitor, one["path"], one["kind"])
                    busses.append(
                        {
                            "path": f"{path}/{one['path']}",
                            "kind": one["kind"],
                            "hotplug": "hotplugging" not in refusal,
                        }
                    )
            return busses

        found[machine] = await _ask(machine, [], own)
        for one in found[machine]:
            one["units"] = [await _largest(machine, [], one["path"].rpartition("/")[2], one["kind"])]
    return found


async def _nothing() -> None:
    """Ask nothing: that QEMU started is the answer."""


async def _largest(machine: str, devices: list[dict[str, Any]], bus: str, kind: str) -> int:
    """Return the largest unit of a bus that takes devices only as QEMU starts: one more is a QEMU that does not."""
    driver, parts = _AT_START[kind]

    for unit in range(1, 4):
        try:
            await _ask(machine, [*devices, {"driver": driver, "bus": bus, parts[0]: unit}], lambda _: _nothing())
        except RuntimeError:
            return unit - 1
    raise AssertionError(f"{bus} has no end")


async def table() -> dict[str, Any]:
    """Return what the embedded host is told."""

    async def bus_kinds(monitor: Qmp) -> set[str]:
        types: Any = await monitor.execute("qom-list-types", {"implements": "bus"})
        return {one["name"] for one in types}

    kinds = await _ask("pc", [], bus_kinds)
    everything = installed()
    return {
        "boards": await _boards(kinds),
        "drivers": {name: await _row(name, *everything[name], kinds) for name in named()},
    }


def main() -> None:
    """Print the table; what the QEMUs said as they went is not it."""
    with redirect_stdout(StringIO()):
        found = asyncio.run(table())
    print(written(found), end="")


def written(found: dict[str, Any]) -> str:
    """Return the table as it is kept: a property to a line."""

    def line(value: Any) -> str:
        return msgspec.json.encode(value).decode()

    rows = []
    for name, row in found["drivers"].items():
        rest = line({key: value for key, value in row.items() if key != "properties"})[1:-1]
        properties = ",\n   ".join(map(line, row["properties"]))
        rows.append(f'  {line(name)}: {{{rest},\n   "properties": [\n   {properties}]}}')
    return f'{{"boards": {line(found["boards"])},\n "drivers": {{\n' + ",\n".join(rows) + "}}\n"


if __name__ == "__main__":
    main()
