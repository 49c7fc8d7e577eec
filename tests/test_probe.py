"""A QEMU is asked what it has before anything is asked of it; on the real one and on the sandbox."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import stat
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest

import translator
from tests.conftest import PROJECT
from tests.servers import Qemu, require
from tests.test_cli import translator as command
from tests.test_models import NOT_ON_PCS
from translator.errors import HostError
from translator.hosts.qmp import Qmp
from translator.hosts.sandbox import Sandbox
from translator.live.drivers import LARGEST, KnownDrivers, Property
from translator.live.probe import ask, compare, survey
from translator.output import render
from translator.planning.plan import Plan, QmpCommand
from translator.registry import rows as registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
    from pathlib import Path

    from translator.planning.plan import Step
    from translator.topology import Value

DOCUMENT = b"""<domain type='kvm'>
  <name>probed</name>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <controller type='usb' index='0' model='piix3-uhci'/>
    <controller type='usb' index='1' model='qemu-xhci' ports='6'/>
    <input type='tablet' bus='usb'><address type='usb' bus='1' port='1'/></input>
    <input type='tablet' bus='usb'><address type='usb' bus='1' port='2'/></input>
    <hub type='usb'><address type='usb' bus='1' port='3'/></hub>
  </devices>
</domain>
"""
XHCI, TABLET = "controller:usb:1", "device:usb:1:1"


@pytest.fixture(params=["qemu", "sandbox"])
def qemu(request: pytest.FixtureRequest) -> Any:
    """Return how to start a QEMU for a plan; it gives its socket."""

    @asynccontextmanager
    async def real(plan: Plan) -> AsyncIterator[str]:
        with Qemu(words=shlex.split(render.qemu_args(plan))) as server:
            yield server.socket

    @asynccontextmanager
    async def embedded(plan: Plan) -> AsyncIterator[str]:
        async with Sandbox() as sandbox:
            yield str(sandbox.make_host_for(plan).qmp_socket)

    if request.param == "qemu":
        require(Qemu)
        return real
    return embedded


def planned(document: bytes = DOCUMENT) -> Plan:
    return translator.plan(translator.load(document))


def changed(plan: Plan, id: str, arguments: Mapping[str, Value]) -> Plan:
    """Return the plan with other arguments in one of its `device_add`s."""

    def change(step: Step) -> Step:
        if step.id != id:
            return step
        assert isinstance(step.action, QmpCommand)
        action = QmpCommand(step.action.execute, {**step.action.arguments, **arguments})
        return msgspec.structs.replace(step, action=action)

    return msgspec.structs.replace(plan, steps=tuple(map(change, plan.steps)))


class Refusal(NamedTuple):
    step: str
    arguments: Mapping[str, Value]
    code: str
    message: str
    help: str


REFUSED = {
    "no such controller": Refusal(
        XHCI,
        {"driver": "vt82c686b-usb-uhci"},
        "T460",
        "has no driver 'vt82c686b-usb-uhci', which device 'usb1' needs",
        "a model that would do: 'piix3-uhci'",
    ),
    "no such device": Refusal(
        TABLET,
        {"driver": "usb-pen"},
        "T460",
        "has no driver 'usb-pen', which device 'input0' needs",
        "this QEMU is built or packaged without it: install that part",
    ),
    "no such property of a controller": Refusal(
        XHCI,
        {"slots": 32},
        "T461",
        "has no property 'slots' for driver 'qemu-xhci', and device 'usb1' sets it to 32",
        "a model that would do: 'nec-xhci'",
    ),
    "no such property of a device": Refusal(
        TABLET,
        {"colour": "red"},
        "T461",
        "has no property 'colour' for driver 'usb-tablet', and device 'input0' sets it to 'red'",
        "leave it out",
    ),
    "a value of another type": Refusal(
        XHCI,
        {"p2": True},
        "T462",
        "will not take True for property 'p2' of device 'usb1': it takes a number, 0 to 4294967295",
        "a model that would do: 'nec-xhci'",
    ),
}


@pytest.mark.parametrize("claim", REFUSED)
def test_what_a_qemu_cannot_do_is_refused_before_the_first_step(qemu: Any, claim: str) -> None:
    step, arguments, code, message, help = REFUSED[claim]
    plan = planned()
    begun: list[str] = []

    async def scenario() -> None:
        async with qemu(plan) as socket, translator.Host(qmp=socket) as host:
            there = (await host.observe()).controllers
            for dry_run in (True, False):
                with pytest.raises(HostError) as caught:
                    await host.apply(
                        changed(plan, step, arguments),
                        dry_run=dry_run,
                        on_step=lambda event: begun.append(event.step.id),
                    )
                assert (caught.value.code, caught.value.help) == (code, help), caught.value
                assert message in caught.value.message
                assert caught.value.source is not None
            assert (await host.observe()).controllers == there

    asyncio.run(scenario())
    assert begun == []


def test_a_plan_for_another_machine_is_refused_where_nothing_can_be_hot_plugged() -> None:
    require(Qemu)

    async def scenario() -> None:
        with Qemu(machine="q35") as server:
            monitor = await Qmp.connect(server.socket)
            with pytest.raises(HostError, match="cannot hot-plug device 'usb1', a qemu-xhci, on its") as caught:
                await compare(planned().steps, monitor, KnownDrivers())
            await monitor.close()
            assert caught.value.code == "T463"
            assert caught.value.help == "start QEMU with it: see `translator plan --coldplug all`"

    asyncio.run(scenario())


def test_the_survey_of_a_qemu_finds_it_as_the_registry_says(qemu: Any) -> None:
    async def scenario() -> None:
        async with qemu(planned()) as socket:
            monitor = await Qmp.connect(socket)
            found = await survey(monitor, KnownDrivers())
            await monitor.close()
            assert found.version.startswith("7.2.")
            assert found.machine.startswith("pc")
            assert set(map(str, found.differences())) == {f"{driver}: not in this QEMU" for driver in NOT_ON_PCS}

    asyncio.run(scenario())


def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list that every driver asked for is added to."""
    drivers: list[str] = []
    execute = Qmp.execute

    async def counting(self: Qmp, name: str, arguments: Mapping[str, Value] | None = None) -> Value:
        if name == "device-list-properties" and arguments is not None:
            drivers.append(str(arguments["typename"]))
        return await execute(self, name, arguments)

    monkeypatch.setattr(Qmp, "execute", counting)
    return drivers


def test_an_apply_asks_once_for_each_driver_of_its_steps(qemu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drivers = asked(monkeypatch)
    plan = planned()

    async def scenario() -> None:
        async with qemu(plan) as socket, translator.Host(qmp=socket) as host:
            await host.apply(plan)
            assert sorted(drivers) == ["qemu-xhci", "usb-hub", "usb-tablet"]  # the other is there from the start
            await host.apply(plan)  # nothing is outstanding, and nothing is asked
            assert len(drivers) == 3

    asyncio.run(scenario())


def with_monitor(qemu: Any, work: Callable[[Qmp], Coroutine[Any, Any, None]]) -> None:
    async def scenario() -> None:
        async with qemu(planned()) as socket:
            monitor = await Qmp.connect(socket)
            try:
                await work(monitor)
            finally:
                await monitor.close()

    asyncio.run(scenario())


def test_another_default_is_told_where_a_plan_relies_on_it(qemu: Any) -> None:
    async def scenario(monitor: Qmp) -> None:
        known = KnownDrivers()
        found = await ask(monitor, ["qemu-xhci"], known)
        xhci = found["qemu-xhci"]
        assert xhci is not None
        other = {name: Property(one.type, False) if name == "streams" else one for name, one in xhci.items()}
        known.add(monitor.version, {"qemu-xhci": other | {"p2": Property("uint32", 8)}})  # p2 is in the plan
        warnings = await compare(planned().steps, monitor, known)
        assert [(one.code, one.severity, one.message, one.line) for one in warnings] == [
            (
                "T464",
                "warning",
                "this QEMU has false for 'streams' of device 'usb1' by default, and QEMU 7.2 has true",
                6,
            )
        ]

    with_monitor(qemu, scenario)


# What is kept from one process to the next


def test_what_was_found_is_kept_for_the_next_process(
    qemu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drivers = asked(monkeypatch)
    everything = registry.drivers()

    async def scenario(monitor: Qmp) -> None:
        first = await ask(monitor, everything, KnownDrivers(tmp_path))
        assert sorted(drivers) == sorted(everything)
        drivers.clear()
        assert await ask(monitor, everything, KnownDrivers(tmp_path)) == first
        assert set(drivers) == NOT_ON_PCS  # what is not there may come

    with_monitor(qemu, scenario)
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.stat().st_size < LARGEST / 10


FOUND = {"usb-hub": {"ports": Property("uint32", 8)}}


def spoil_link(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")


def spoil_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


SPOILED: dict[str, Callable[[Path], object]] = {
    "garbage": lambda file: file.write_bytes(b"\xff{"),
    "deep": lambda file: file.write_bytes(b"[" * 100_000),
    "of another format": lambda file: file.write_text(file.read_text().replace("drivers/1", "drivers/9")),
    "of another version": lambda file: file.write_text(file.read_text().replace("7.2.0", "6.0.0")),
    "of another shape": lambda file: file.write_text(file.read_text().replace('"uint32"', "32")),
    "large": lambda file: file.write_bytes(file.read_bytes().ljust(LARGEST + 1)),
    "writable by others": lambda file: file.chmod(0o666),
    "a link": spoil_link,
    "a pipe": spoil_pipe,
    "in a directory of others": lambda file: file.parent.chmod(0o777),
}


@pytest.mark.parametrize("how", SPOILED)
def test_a_file_that_is_not_as_we_wrote_it_is_as_if_it_were_not_there(tmp_path: Path, how: str) -> None:
    KnownDrivers(tmp_path).add("7.2.0", FOUND)
    assert KnownDrivers(tmp_path).of("7.2.0") == FOUND
    (file,) = tmp_path.iterdir()
    SPOILED[how](file)
    known = KnownDrivers(tmp_path)
    assert known.of("7.2.0") == {}
    known.add("7.2.0", FOUND)
    assert known.of("7.2.0") == FOUND
    if how != "in a directory of others":
        assert KnownDrivers(tmp_path).of("7.2.0") == FOUND


def test_a_directory_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    known = KnownDrivers(tmp_path / "none")
    known.add("../7.2", FOUND)
    assert known.of("../7.2") == FOUND
    assert list(tmp_path.iterdir()) == []


# From the command line


def test_the_commands_ask_the_qemu_at_a_socket(tmp_path: Path) -> None:
    require(Qemu)
    state = tmp_path / "state"
    state.mkdir()
    document = tmp_path / "domain.xml"
    document.write_bytes(DOCUMENT.replace(b"qemu-xhci", b"nec-xhci"))
    with Qemu() as server:
        done = command("models", "--probe", server.socket, "--state", str(state))
        assert (done.returncode, done.stderr) == (0, "")
        assert "  vt82c686b-usb-uhci: not in this QEMU\n" in done.stdout
        found = json.loads(command("models", "nec-xhci", "--probe", server.socket, "--format", "json").stdout)
        (model,) = found["models"]
        assert model == {
            "family": "usb",
            "name": "nec-xhci",
            "driver": "nec-usb-xhci",
            "present": True,
            "hotplug": True,
        }
        assert found["differences"] == []
        made = command("plan", "--probe", server.socket, "--state", str(state), str(document))
        assert (made.returncode, made.stderr) == (0, "")
        assert len(list(state.iterdir())) == 1
        mips = PROJECT / "fixtures/plans/qemu-mips-vt82c686b-uhci"
        refused = command("plan", "--probe", server.socket, str(mips))
        assert (refused.returncode, refused.stdout) == (4, "")
        assert "domain.xml:6:5: error[T460]: QEMU 7.2." in refused.stderr
        assert "help: a model that would do: 'piix3-uhci'" in refused.stderr
    gone = command("models", "--probe", server.socket, "--state", str(state))
    assert (gone.returncode, gone.stdout) == (4, "")
    assert "error[T402]" in gone.stderr
