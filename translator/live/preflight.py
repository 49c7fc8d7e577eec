"""What is refused before the first step is carried out: what would fail in the middle, or could never work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from translator.errors import HostError
from translator.hosts.xenstore import claimed, elsewhere
from translator.planning.plan import SysfsWrites, Transaction

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from translator.hosts.xenview import View
    from translator.live.host import Host
    from translator.live.transition import Transition
    from translator.planning.plan import Plan, Step, XenstoreOp
    from translator.topology import Controller

_OS_TYPES = {"pv": "linux", "pvh": "xenpvh", "hvm": "hvm"}


async def check_guest_type(plan: Plan, nodes: View) -> None:
    """Refuse a document that is for another type of guest than the running domain is.

    Raises:
        HostError: T422.
    """
    domain = plan.topology.domain
    found = await nodes.read(f"/libxl/{domain.domid}/type")
    if found in _OS_TYPES and found != domain.guest:
        raise HostError(
            "T422",
            f"the document is for a guest of type {domain.guest.upper()}, and domain {domain.domid} is of type "
            f"{found.upper()}",
            f"its <os> must have <type>{_OS_TYPES[found]}</type>; or is another domain meant?",
        )


async def preflight(plan: Plan, change: Transition, host: Host, nodes: View) -> None:
    """Look whether the host can carry out what is to change to match the plan.

    What a step itself makes sure of in its transaction is asked here too, so that nothing has to be undone.

    Raises:
        HostError: T417, T418, T420, T421, T423, T425, with what to do instead.
    """
    domid = plan.topology.domain.domid
    assert domid is not None, "the nodes are a Xen domain's"
    steps = change.additions
    if any(step.target == "qmp" for step in change.steps):
        await _device_model(domid, nodes)
    for controller in _added(plan, steps, "qusb"):
        await _serves_qusb(domid, controller, nodes)
    _usbback(plan, steps, host)
    wanted = _claimed(change)
    # the devices of a plan are looked for in the same places; what is listed there tells of much of the rest
    seen = await nodes.matching(*(operation.path for _, operation in wanted), sought=True)
    await _leftovers(change, nodes)
    _claims(change, wanted, seen)


def _claimed(change: Transition) -> list[tuple[Step, XenstoreOp]]:
    """Return what is to be nowhere, with the step that wants it."""
    return [
        (step, operation)
        for step in change.additions
        if isinstance(step.action, Transaction)
        for operation in step.action.transaction
        if operation.op == "expect-nowhere"
    ]


def _claims(
    change: Transition, wanted: Sequence[tuple[Step, XenstoreOp]], seen: Mapping[str, Mapping[str, str]]
) -> None:
    """Refuse host devices that somebody has; what a removal gives back on the way may be given again."""
    returned = {
        operation.path
        for step in change.removals
        if isinstance(step.action, Transaction)
        for operation in step.action.transaction
        if operation.op == "rm" or (operation.op == "write" and operation.value == "")
    }
    for step, operation in wanted:
        found = elsewhere(operation, seen[operation.path])
        if found is not None and not any(f"{found}/".startswith(f"{path}/") for path in returned):
            error = claimed(operation, found)
            raise HostError(error.code, error.message, error.help, step.source)


async def _leftovers(change: Transition, nodes: View) -> None:
    """Refuse what a domain of the same id has left: a backend's directory without a record of its controller.

    A controller that a removal takes away on the way is none.
    """
    removed = {step.subject for step in change.removals}
    for step in change.additions:
        if not isinstance(step.action, Transaction) or step.subject in removed:
            continue
        absent = [one.path for one in step.action.transaction if one.op == "expect-absent"]
        for path in absent:
            if "/backend/" in path and not await nodes.is_absent(path):
                raise HostError(
                    "T425",
                    f"{path} is left of an earlier domain with this id",
                    f"nobody serves it any more: remove it with `xenstore-rm {path}`",
                    step.source,
                )


async def _device_model(domid: int, nodes: View) -> None:
    """Source: libxl__device_usbctrl_add and libxl_get_stubdom_id, which refuse the same later and say less."""
    if await nodes.read(f"/libxl/{domid}/dm-version") == "qemu_xen_traditional":
        raise HostError(
            "T420",
            f"the device model of domain {domid} is qemu-traditional, which takes no USB devices while it runs",
            'start the domain with device_model_version="qemu-xen", or with a paravirtual controller of type pv',
        )
    stub = await nodes.read(f"/local/domain/{domid}/image/device-model-domid")
    if stub is not None:
        raise HostError(
            "T421",
            f"the QEMU of domain {domid} runs in stub domain {stub}, out of reach",
            "start the domain without device_model_stubdomain_override, or use a controller of type pv",
        )


async def _serves_qusb(domid: int, controller: Controller, nodes: View) -> None:
    backend = controller.backend or 0
    if await nodes.read(f"/local/domain/{backend}/device-model/{domid}/backends/qusb") is None:
        await _device_model(domid, nodes)  # for a better reason
        raise HostError(
            "T423",
            f"controller {controller.index} is qusb, and domain {domid} has no QEMU that serves it in domain "
            f"{backend}",
            "start the guest with usbctrl= or vfb= in its configuration, which gives a PV guest a QEMU; or name "
            "'xenusb2' where the kernel has usbback",
            controller.source,
        )


def _usbback(plan: Plan, steps: Sequence[Step], host: Host) -> None:
    """A backend domain's kernel is out of sight: whether it has a driver, the handshake tells."""
    wanted = [one for one in _added(plan, steps, "pv") if one.backend == 0]
    lending = [step for step in steps if isinstance(step.action, SysfsWrites)]
    if (wanted or lending) and host.sysfs.lacks_driver("usbback"):
        raise HostError(
            "T417",
            "the host's kernel has no driver usbback, which serves controllers of type pv",
            "load it (modprobe xen-usbback), or name 'qusb2', which QEMU serves",
            wanted[0].source if wanted else lending[0].source,
        )


def _added(plan: Plan, steps: Sequence[Step], type: str) -> list[Controller]:
    """Return the controllers of that type that some step is about."""
    subjects = {step.subject for step in steps}
    return [
        controller
        for controller in plan.topology.controllers
        if controller.type == type and f"controller:usb:{controller.index}" in subjects
    ]
