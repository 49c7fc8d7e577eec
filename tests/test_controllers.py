"""Controllers of every family are libvirt's: which there are, where they sit, and what QEMU is told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import controllers
from tests.conftest import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable

# The cases that differ, each with its reason in docs/libvirt-differences.md; the list may shrink.
DIFFERENT = {
    "aarch64-video-virtio-gpu-pci",
    "aarch64-virtio-pci-manual-addresses",
    "hostdev-pci-duplicate",
    "hostdev-scsi-vhost-scsi-ccw",
    "hostdev-vfio-zpci-boundaries",
    "hostdev-vfio-zpci-multidomain-many",
    "hostdev-vfio-zpci-set-zero",
    "launch-security-s390-pv",
    "qemu-ns",
    "s390-panic",
    "s390-panic-no-address",
    "vhost-vsock-ccw-iommu",
}


def test_controllers_are_libvirts(say: Callable[[str], None]) -> None:
    if reason := controllers.missing():
        pytest.skip(reason)
    found = [controllers.compare(case) for case in controllers.read_corpus()]
    say("agreement with libvirt about controllers\n" + controllers.table(found))
    differ = {one.case.name: one for one in found if one.differs and one.case.reason is None}
    new = [one for name, one in differ.items() if name not in DIFFERENT]
    assert not new, "\n\n".join(map(controllers.explain, new[:3]))


@pytest.mark.parametrize("name", sorted(DIFFERENT))
def test_every_difference_is_documented(name: str) -> None:
    assert f"`{name}`" in (PROJECT / "docs/libvirt-differences.md").read_text()
