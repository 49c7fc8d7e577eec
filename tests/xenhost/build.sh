#!/bin/bash
# build.sh: make the Xen test host's files once (cached in $XENHOST_CACHE, default ./cache):
#   xen  vmlinuz  dom0.ird  root.img   (all that run.sh needs)
# Needs root, apt with Debian bookworm main (+security), network to the Debian mirror.
set -euo pipefail
HERE=$(dirname "$(readlink -f "$0")"); C=${XENHOST_CACHE:-${TMPDIR:-/tmp}/xenhost-cache}
SUITE=bookworm
# the archive that apt here uses for this suite
MIRROR=${XENHOST_MIRROR:-$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(CREATED_BY)' | awk -v s=$SUITE '$2 == s && $3 == "Packages" {print $1; exit}')}
PKGS=python3,python3-lxml,python3-pyxs,usbutils,udev,kmod,iproute2,procps,util-linux,pciutils,strace,xen-utils-4.17,xen-utils-common,xenstore-utils,qemu-system-xen,busybox-static,libvirt-daemon,libvirt-daemon-driver-xen,libvirt-clients${XENHOST_PKGS:+,$XENHOST_PKGS}
mkdir -p "$C"; exec 9> "$C/lock"; flock 9
want=$(cd "$HERE"; { echo "$PKGS $MIRROR"; cat build.sh $(find dom0 guests -type f | sort); } | sha256sum | cut -c1-16)
[ "$(cat "$C/stamp" 2>/dev/null)" = "$want" ] && exit 0
say() { echo "build: [$SECONDS s] $*" >&2; }
need=(); for p in debootstrap cpio kmod gcc-12 make binutils xz-utils libelf1 e2fsprogs qemu-system-x86; do dpkg -s $p > /dev/null 2>&1 || need+=($p); done
[ ${#need[@]} = 0 ] || { say "apt-get install ${need[*]}"; DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${need[@]}" > "$C/apt.log" 2>&1; }
D=$C/debs X=$C/x R=$C/rootfs; mkdir -p "$D" "$X"

# --- hypervisor, kernel, and the headers and source for the one module Debian leaves out (xen-hcd)
LI=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image/ && !n++ {print $2}'); KV=${LI#linux-image-}
if [ "$(cat "$X/.kv" 2>/dev/null)" != "$KV" ]; then
    say "download Xen 4.17 and Linux $KV"; rm -rf "$X" "$D"; mkdir -p "$X" "$D"
    ABI=${KV%-amd64}
    (cd "$D"; apt-get -q download xen-hypervisor-4.17-amd64 $LI linux-headers-$KV linux-headers-$ABI-common linux-kbuild-6.1 linux-source-6.1 > dl.log 2>&1) || { cat "$D/dl.log"; exit 1; }
    for d in "$D"/xen-hyp*.deb "$D"/linux-image*.deb "$D"/linux-headers*.deb "$D"/linux-kbuild*.deb; do dpkg-deb -x "$d" "$X"; done
    mkdir -p "$X/hcd"
    { dpkg-deb --fsys-tarfile "$D"/linux-source*.deb | tar -xO ./usr/src/linux-source-6.1.tar.xz | xz -dc |
      tar -x -C "$X/hcd" --strip-components=4 --occurrence=1 linux-source-6.1/drivers/usb/host/xen-hcd.c; } 2> /dev/null || true
    [ -s "$X/hcd/xen-hcd.c" ] || { say "no xen-hcd.c"; exit 1; }
    rm -f "$D"/linux-source*.deb
    say "build xen-hcd.ko (CONFIG_USB_XEN_HCD is off in Debian's kernel)"
    H=$X/usr/src; sed -i "s#^include /usr/src/#include $H/#" "$H/linux-headers-$KV/Makefile"
    echo 'obj-m := xen-hcd.o' > "$X/hcd/Makefile"
    make -C "$H/linux-headers-$KV" M="$X/hcd" modules > "$X/hcd/make.log" 2>&1 || { tail "$X/hcd/make.log"; exit 1; }
    strip --strip-debug "$X/hcd/xen-hcd.ko"
    gzip -dc "$X"/boot/xen-4.17-amd64.gz > "$C/xen"; cp "$X/boot/vmlinuz-$KV" "$C/vmlinuz"
    echo "$KV" > "$X/.kv"
fi
# --- dom0's root file system
if [ "$(cat "$C/.rootfs" 2>/dev/null)" != "$PKGS $MIRROR" ]; then
    say "debootstrap"; rm -rf "$R" "$C/.rootfs"
    debootstrap --variant=minbase --components=main --include=$PKGS $SUITE "$R" "$MIRROR" > "$C/debootstrap.log" 2>&1 || { tail "$C/debootstrap.log"; exit 1; }
    rm -rf "$R"/var/cache/apt/archives/*.deb "$R"/var/lib/apt/lists/* "$R"/usr/share/{doc,man,info,locale,zoneinfo}/*
    echo "$PKGS $MIRROR" > "$C/.rootfs"
fi
# --- modules: a subset of Debian's, plus xen-hcd
say "modules and initramfs images"
M=$C/mods; rm -rf "$M"; mkdir -p "$M/lib/modules/$KV/kernel" "$M/lib/modules/$KV/extra"
(cd "$X/lib/modules/$KV/kernel"; for p in drivers/usb drivers/xen drivers/virtio drivers/hid drivers/block drivers/net/xen-netfront.ko \
    drivers/net/xen-netback drivers/net/mii.ko drivers/net/phy drivers/net/usb drivers/scsi drivers/cdrom drivers/ata block lib crypto \
    arch/x86/crypto fs/ext4 fs/jbd2 fs/mbcache.ko fs/fat fs/nls drivers/char/virtio_console.ko drivers/char/hw_random drivers/input/evdev.ko drivers/input/mouse net/bridge \
    net/802 net/llc drivers/acpi/button.ko; do [ -e $p ] && find $p -name '*.ko'; done | cpio -pdm --quiet "$M/lib/modules/$KV/kernel")
cp "$X/lib/modules/$KV"/modules.{builtin,builtin.modinfo,order} "$M/lib/modules/$KV/"; cp "$X/hcd/xen-hcd.ko" "$M/lib/modules/$KV/extra/"
depmod -b "$M" "$KV"
ird() { # ird OUT INIT MODULE...: an initramfs of busybox, INIT and the modules with what they need
    local o=$1 i=$2 t; shift 2; t=$(mktemp -d); mkdir -p "$t"/{bin,proc,sys,dev,mnt} "$t/lib/modules/$KV"
    cp "$R/bin/busybox" "$t/bin/"; ln -s busybox "$t/bin/sh"; install -m755 "$i" "$t/init"
    (cd "$M/lib/modules/$KV"; modprobe -d "$M" -S "$KV" -a --show-depends "$@" | sed -n 's/^insmod //p' | sort -u |
      while read -r f _; do mkdir -p "$t/$(dirname "${f#"$M"}")"; cp "$f" "$t/${f#"$M"}"; done
      cp modules.builtin modules.builtin.modinfo modules.order "$t/lib/modules/$KV/")
    depmod -b "$t" "$KV"; (cd "$t"; find . | cpio -o -H newc --quiet | gzip -1) > "$o"; rm -rf "$t"
}
ird "$C/dom0.ird" "$HERE/dom0/initrd-init" virtio_pci virtio_blk crc32c_generic ext4
ird "$C/guest.ird" "$HERE/guests/init" xen-hcd xhci-pci ehci-pci ohci-pci uhci-hcd hid-generic usbhid usb-storage sd_mod crct10dif_generic crc64-rocksoft
# --- dom0's disk
say "root.img"
rm -rf "$R"/lib/modules "$R"/srv/guests; mkdir -p "$R/lib/modules" "$R/srv/guests" "$R/job"
cp -a "$M"/lib/modules/* "$R/lib/modules/"; cp "$C/vmlinuz" "$C/guest.ird" "$HERE"/guests/*.cfg "$R/srv/guests/"
install -m755 "$HERE/dom0/xeninit" "$R/sbin/xeninit"; install -m755 "$HERE"/dom0/bin/* "$R/usr/local/bin/"
echo 'XENCONSOLED_ARGS="--log=guest"' > "$R/etc/default/xen"
# the scenarios count what a command asks of xenstored: log reads too, and never begin a new file
sed -i '/^access-log-/d' "$R/etc/xen/oxenstored.conf"
printf 'access-log-%s\n' 'read-ops = true' 'transactions-ops = true' 'nb-lines = 10000000' >> "$R/etc/xen/oxenstored.conf"
rm -f "$C/root.img"; truncate -s "$(( $(du -sm "$R" | cut -f1) + 800 ))M" "$C/root.img"
mke2fs -q -t ext4 -O ^has_journal,^metadata_csum -m 0 -d "$R" "$C/root.img"
echo "$want" > "$C/stamp"; say "done: $(du -ch "$C"/{xen,vmlinuz,dom0.ird,root.img} | tail -1 | cut -f1) needed by run.sh, $(du -sh "$C" | cut -f1) in the cache"
