"""Names that both directions know: those of xl's settings, of events, of clocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# Of what `--keep-unknown` puts into <metadata>.
NAMESPACE = "urn:translator:xl:1"

_ACTIONS = ("destroy", "restart", "rename-restart", "preserve")
_CRASH = (*_ACTIONS, "coredump-destroy", "coredump-restart")
EVENTS: Mapping[str, tuple[str, ...]] = {"on_poweroff": _ACTIONS, "on_reboot": _ACTIONS, "on_crash": _CRASH}

# tsc_mode, in the order of its numbers, and libvirt's word.
TIMERS: Mapping[str, str] = {
    "default": "auto",
    "always_emulate": "emulate",
    "native": "native",
    "native_paravirt": "paravirt",
}

# Every setting of xl.cfg(5) in Xen 4.17, and those of its elders that are read here.
_NAMES = """
    acpi acpi_firmware acpi_laptop_slate acpi_s3 acpi_s4 altp2m altp2mhvm apic arm_sve bios bios_path_override
    blkdev_start boot bootargs bootloader bootloader_args builder cap channel claim_mode cmdline
    console_autoconnect cpu_weight cpuid cpus cpus_soft device_model_args device_model_args_hvm
    device_model_args_pv device_model_override device_model_stubdomain_override device_model_stubdomain_seclabel
    device_model_user device_model_version device_tree disk display dm_restrict dpci_align driver_domain dtdev
    e820_host extra fda fdb firmware firmware_override gfx_passthru gic_version hap hdtype hpet init_seclabel
    iomem ioports irqs kernel keymap localtime max_event_channels max_grant_frames max_grant_version
    max_maptrack_frames maxmem maxvcpus mca_caps memory mmio_hole ms_vm_genid msr_relaxed name nestedhvm nodes
    nographic nomigrate nx on_crash on_poweroff on_reboot on_soft_reset on_watchdog oos opengl p9 pae parallel
    passthrough pci pci_msitranslate pci_permissive pci_power_mgmt pci_seize pool pvcalls pvh pvshim
    pvshim_cmdline pvshim_extra pvshim_path ramdisk rdm rdm_mem_boundary root rtc_timeoffset sched sdl seclabel
    serial shadow_memory smbios_firmware soundhw spice spice_clipboard_sharing spice_image_compression
    spice_streaming_video spiceagent_mouse spicedisable_ticketing spicehost spicepasswd spiceport spicetls_port
    spiceusbredirection spicevdagent stdvga stubdomain_cmdline stubdomain_kernel stubdomain_memory
    stubdomain_ramdisk suppress_spurious_page_faults swiotlb system_firmware tee timer_mode tsc_mode type usb
    usbcontroller usbctrl usbdev usbdevice usbversion uuid vcpus vdispl vendor_device vfb vga videoram vif
    viridian virtio vkb vkb_device vmtrace_buf_kb vnc vncdisplay vnclisten vncpasswd vncunused vncviewer vnuma
    vpmu vpt_align vscsi vsnd vtpm vuart vusb xauthority xen_platform_pci xend_suspend_evtchn_compat
"""
KNOWN = frozenset(_NAMES.split())
