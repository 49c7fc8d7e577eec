"""A plan that was made against a host is carried out as it was shown, or not at all when the host has changed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

import translator
from tests.conftest import FIXTURES, PROJECT
from tests.test_apply import DOMID, Bench, bench, plan_of, run
from translator.errors import HostError, PlanError
from translator.hosts.xenstore import Xenstore
from translator.planning.plan import XenstoreOp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["bench"]  # a fixture

UUID = "8a1e5c0e-3f2b-4c1d-9b7a-6d5e4f3a2b1c"
NOWHERE = "11111111-2222-3333-4444-555555555555"

in_the_sandbox = pytest.mark.parametrize("bench", ["sandbox"], indirect=True)


async def made(host: Bench, plan: translator.Plan, **policy: bool) -> translator.Plan:
    """Return the plan against the host as another process reads it."""
    against = (await host.apply(plan, dry_run=True, **policy)).plan
    assert against is not None
    return translator.Plan.from_json(against.to_json())


async def write(host: Bench, *operations: XenstoreOp) -> None:
    client = await Xenstore.connect(host.xenstore)
    await client.commit(operations)
    await client.close()


def test_what_was_shown_is_what_runs(bench: Any) -> None:
    schema = json.loads((PROJECT / "schemas/plan.schema.json").read_text())

    async def scenario() -> None:
        async with bench(plan_of("one")) as host:
            await host.apply(plan_of("one"))
            plan = await made(host, plan_of("ten"))
            assert plan == await made(host, plan_of("ten"))
            jsonschema.validate(json.loads(plan.to_json()), schema)
            assert plan.placeholders() == ()
            assert (await host.apply(plan)).steps == plan.steps
            # what matches needs nothing, whatever it was before
            assert (await host.apply(plan)).steps == ()

            going = await made(host, plan_of("one"), prune=True)
            jsonschema.validate(json.loads(going.to_json()), schema)
            assert all(step.removes for step in going.steps)
            with pytest.raises(ValueError, match="says itself what may be removed"):
                await host.apply(going, replace=True)
            assert (await host.apply(going)).steps == going.steps
            assert [one.index for one in (await host.observe()).controllers] == [0]

    run(scenario())


async def _nothing(host: Bench) -> None:
    pass


async def _a_keyboard_comes(host: Bench) -> None:
    await host.qemu("device_add", driver="usb-kbd", id="input9", bus="xenusb-1.0", port="2")


async def _the_mouse_goes(host: Bench) -> None:
    async with host.host() as connected:
        await connected.detach("input2", domid=DOMID)


async def _it_is_done_by_somebody_else(host: Bench) -> None:
    await host.apply(plan_of("hvm"))


async def _the_record_goes(host: Bench) -> None:
    await write(host, XenstoreOp("rm", f"/libxl/{DOMID}/device/vusb/0"))


async def _what_is_of_no_known_kind_comes(host: Bench) -> None:
    await host.qemu("device_add", driver="usb-wacom-tablet", id="pen", bus="xenusb-1.0", port="2")


async def _another_domain_comes(host: Bench) -> None:
    await write(host, XenstoreOp("write", f"/local/domain/{DOMID}/vm", f"/vm/{NOWHERE}"))


# What happens before the plan is applied, which would plug the keyboard in; and the end of what is said, if it is not
HAPPENINGS: dict[str, tuple[Callable[[Bench], Awaitable[None]], str | None]] = {
    "nothing": (_nothing, None),
    "it is done by somebody else": (_it_is_done_by_somebody_else, None),
    "something is added": (_a_keyboard_comes, "keyboard on usb controller 1 port 2 was added"),
    "something is removed": (_the_mouse_goes, "mouse on usb controller 1 port 3 was removed"),
    "something is there in part": (_the_record_goes, "controller:usb:0:record is not there any more"),
    "something of no known kind": (_what_is_of_no_known_kind_comes, "device:usb:1:2:remove is needed now"),
    "another domain": (_another_domain_comes, f"with UUID {UUID}, and domain {DOMID} is 'hvm' with UUID {NOWHERE}"),
}


@in_the_sandbox
@pytest.mark.parametrize(("happening", "complaint"), HAPPENINGS.values(), ids=HAPPENINGS)
def test_a_host_that_has_changed_is_left_alone(bench: Any, happening: Any, complaint: str | None) -> None:
    """The document names no UUID: what the plan was made against is another domain's by what was seen."""
    document = (FIXTURES / "hosts/hvm.xml").read_bytes().replace(f"<uuid>{UUID}</uuid>".encode(), b"")
    nameless = translator.plan(translator.load(document), domid=DOMID)

    async def scenario() -> None:
        async with bench(plan_of("hvm")) as host:
            await host.apply(plan_of("hvm"))
            async with host.host() as connected:
                await connected.detach("input1", domid=DOMID)
            plan = await made(host, nameless, prune=True)
            assert [step.id for step in plan.steps] == ["device:usb:0:2.1"]
            await happening(host)
            before = await host.nodes(), await host.devices()
            if complaint is None:
                steps = (await host.apply(plan)).steps
                assert steps == (plan.steps if happening is _nothing else ())
                return
            with pytest.raises(HostError) as caught:
                await host.apply(plan)
            if happening is _another_domain_comes:  # whose monitor is the former one's: that is met first
                assert caught.value.code == "T444"
                assert str(complaint) in caught.value.message
            else:
                assert caught.value.code == "T426"
                assert caught.value.message == f"the domain is not as it was when the plan was made: {complaint}"
            assert (await host.nodes(), await host.devices()) == before

    run(scenario())


def test_what_driver_and_backend_do_by_themselves_is_no_difference(bench: Any) -> None:
    frontend, backend = f"/local/domain/{DOMID}/device/vusb/1/state", f"/local/domain/0/backend/qusb/{DOMID}/1/state"

    async def scenario() -> None:
        async with bench(plan_of("mixed")) as host:
            await host.apply(plan_of("mixed"))
            async with host.host() as connected:
                await connected.detach("hostdev:1.9", domid=DOMID)
            await write(host, XenstoreOp("write", frontend, "1"), XenstoreOp("write", backend, "6"))
            plan = await made(host, plan_of("mixed"))
            assert [step.id for step in plan.steps] == ["controller:usb:1:backend", "device:usb:1:2"]
            await write(host, XenstoreOp("write", frontend, "4"), XenstoreOp("write", backend, "4"))
            assert [step.id for step in (await host.apply(plan)).steps] == ["device:usb:1:2"]

    run(scenario())


def test_a_basis_is_read_as_carefully_as_the_rest() -> None:
    wire = json.loads(plan_of("hvm").to_json())
    basis = {name: wire[name] for name in ("domain", "layout", "device_models", "controllers", "devices")}
    basis |= {"prune": True, "replace": False, "force": False, "lacking": []}
    assert translator.Plan.from_json(json.dumps(wire | {"basis": basis})).basis is not None
    for damage in ({"prune": 1}, {"devices": [wire["devices"][0] | {"port": "one"}]}, {"domain": None}):
        with pytest.raises(PlanError, match="the plan is damaged"):
            translator.Plan.from_json(json.dumps(wire | {"basis": basis | damage}))
