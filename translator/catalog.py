"""Every diagnostic code, with what it means, what to do, and an example: `translator explain` and the docs."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

import msgspec

from translator.errors import Severity


class Entry(msgspec.Struct, frozen=True):
    """One code. `example` is what provokes it: XML, a line of an xl.cfg, or a situation on a host."""

    title: str
    meaning: str
    example: str
    severity: Severity = "error"


CATALOG: dict[str, Entry] = {
    # XML
    "T101": Entry(
        "not well-formed",
        "The document is not XML: a tag is not closed, a character is not allowed, or it is cut off.",
        "<domain><name>guest</domain>",
    ),
    "T102": Entry(
        "document type or entity",
        "Domain XML needs neither a DOCTYPE nor entities of its own, and both are used in attacks. Remove them.",
        "<!DOCTYPE domain [<!ENTITY x 'y'>]>",
    ),
    "T103": Entry(
        "too large",
        "The document, or one name, value or text in it, is larger than anything a domain needs.",
        "a document of 20 MB",
    ),
    "T104": Entry(
        "wrong root element",
        "The root is neither `<domain>` nor a `<domstatus>` that holds one.",
        "<network><name>default</name></network>",
    ),
    "T105": Entry(
        "encoding",
        "The bytes are not in the encoding that the document claims, or that one is not supported. Use UTF-8.",
        "<?xml version='1.0' encoding='EBCDIC-US'?>",
    ),
    "T106": Entry(
        "too deep or too many",
        "Elements are nested more than 256 levels deep, or there are more of them than any domain needs.",
        "<a><a><a>… 300 levels",
    ),
    "T107": Entry(
        "unreadable input",
        "The file is not there or may not be read, or the folder has no `*.xml` below it. The others are looked at "
        "all the same.",
        "translator validate no-such.xml",
    ),
    "T108": Entry(
        "there is more",
        "A hundred faults of a document are told, or a hundred misspelled names. Put these right, and look again.",
        "<hub/>, a hundred times and once more",
        "note",
    ),
    "T110": Entry(
        "not a plan",
        "The plan file is damaged, or of a format that this version does not read. Make it again from its XML.",
        '{"format": "translator-plan/9"}',
    ),
    "T111": Entry(
        "bound to another domain",
        "The paths in a plan that was made for a domid are that domain's. Make it again for the other one.",
        "translator apply plan-for-8.json --domid 9",
    ),
    "T112": Entry(
        "no steps for it",
        "A plan names a controller or device that the host lacks, and has no steps to make it. What `observe` "
        "prints is such a plan. Make one from a document.",
        "translator observe --domid 7 --format json --output seen.json; translator apply seen.json --domid 7",
    ),
    # Files in xl's language
    "T115": Entry(
        "not xl's language",
        "The file cannot be read on from here. Settings are NAME = VALUE, in a line each or with semicolons between "
        "them; a value is a string in quotes, a number, or a list of values.",
        "usb = true",
    ),
    "T116": Entry(
        "character that cannot be",
        "The file is not UTF-8, or it has a character that domain XML cannot hold.",
        'name = "a\\x01"',
    ),
    "T117": Entry(
        "cannot be added",
        "`+=` adds a list to a list or a string to a string.",
        'usbctrl = [ "type=pv" ]; usbctrl += "type=qusb"',
    ),
    "T118": Entry(
        "value of another kind",
        "The setting wants a list, one value, a number, or one of some words.",
        'memory = "much"',
    ),
    "T119": Entry(
        "bad entry",
        "A string of options has one that xl does not know, lacks one that it needs, or is not spelled KEY=VALUE "
        "with commas between.",
        'usbctrl = [ "type=pv,prots=4" ]',
    ),
    "T120": Entry(
        "set again",
        "The last value of a setting counts. `+=` adds to the one before.",
        'usbdevice = "tablet"; usbdevice = "mouse"',
        "warning",
    ),
    "T121": Entry(
        "unknown setting",
        "A setting that xl does not know has nearly the name of one that it does. It has no effect.",
        'usbdevices = [ "tablet" ]',
        "warning",
    ),
    "T122": Entry(
        "not translated into domain XML",
        "`convert --to xml` leaves this out, whether domain XML has words for it or not. With `--keep-unknown` it is "
        "kept in `<metadata>`, and the way back restores it.",
        'cpus = "2-3"',
        "warning",
    ),
    "T123": Entry("no name", "A domain has a name.", "memory = 512"),
    "T124": Entry(
        "does not count beside cmdline",
        "`root` and `extra` are the older way to say what `cmdline` says, and xl ignores them beside it.",
        'cmdline = "quiet"; root = "/dev/xvda1"',
        "warning",
    ),
    "T130": Entry(
        "not in git",
        "There is no git repository here, or it has no such revision. In CI, the base has to be fetched too.",
        "translator diff --git no-such-branch..HEAD -- guests",
    ),
    # Schema
    "T201": Entry(
        "element not allowed here",
        "The schema knows every element that may stand in this place, and this is none of them.",
        "<controller type='usb'><colour/></controller>",
    ),
    "T202": Entry(
        "attribute not allowed here",
        "The element has no such attribute.",
        "<controller type='usb' indx='0'/>",
    ),
    "T203": Entry("attribute missing", "The element needs this attribute.", "<controller index='0'/>"),
    "T204": Entry(
        "bad value",
        "The value is not one of those, or not of the form, that the schema allows here.",
        "<controller type='usbb'/>",
    ),
    "T205": Entry("element missing", "The element needs a child that is not there.", "<hostdev type='usb'/>"),
    "T206": Entry(
        "unknown element",
        "An element that has no effect has nearly the name of one that would. `--strict` makes this an error.",
        "<devices><contoler type='usb'/></devices>",
        "warning",
    ),
    "T299": Entry(
        "refused by the schema",
        "The schema refuses the document for a reason that has no code of its own.",
        "",
    ),
    # Meaning
    "T301": Entry(
        "unknown controller model",
        "`translator models` lists those there are.",
        "<controller type='usb' model='piix3-uhcl'/>",
    ),
    "T302": Entry(
        "no such port",
        "The controller, or the hub on the way, has fewer ports.",
        "<controller type='usb' model='ehci'/> … <address type='usb' bus='0' port='7'/>",
    ),
    "T303": Entry(
        "port taken",
        "Two devices name the same port, or one the port of a hub. Leave the port out to get the lowest free one.",
        "two inputs with <address type='usb' bus='0' port='1'/>",
    ),
    "T304": Entry(
        "no such controller",
        "An address names a controller that the document does not have.",
        "<address type='usb' bus='3' port='1'/>",
    ),
    "T305": Entry(
        "USB is off",
        "A controller of model `none` says that the domain has no USB, and a device needs it.",
        "<controller type='usb' model='none'/><input type='tablet' bus='usb'/>",
    ),
    "T306": Entry(
        "bad number or address",
        "Numbers are read as libvirt reads them: decimal for indexes and ports, any C base for ids.",
        "<address type='usb' bus='0' port='1.x'/>",
    ),
    "T307": Entry(
        "number of ports",
        "Many models have a fixed number of ports; the others have a range.",
        "<controller type='usb' model='nec-xhci' ports='16'/>",
    ),
    "T308": Entry(
        "index given twice",
        "Two controllers of one family, usb or ccid, have the same index. Only companions share their master's.",
        "<controller type='usb' index='1' …/><controller type='usb' index='1' …/>",
    ),
    "T309": Entry(
        "model not available here",
        "Paravirtual models are for Xen guests, emulated ones for guests with emulated hardware, and a layout "
        "records only the versions that it has words for.",
        "<domain type='kvm'> … <controller type='usb' model='qusb2'/>",
    ),
    "T310": Entry(
        "no free port",
        "Every port that the device could have is taken. Add a controller, a hub, or ports.",
        "three devices on a piix3-uhci whose two ports are fixed",
    ),
    "T311": Entry(
        "host device twice",
        "A device of the host can be given once. Two alike are told apart by bus and device number.",
        "two hostdevs with <address bus='1' device='8'/>",
    ),
    "T312": Entry(
        "host device not named",
        "A `<hostdev>` needs a `<source>` with vendor and product, or bus and device, or bus and port.",
        "<source><vendor id='0x046d'/></source>",
    ),
    "T313": Entry(
        "no hub there",
        "A port such as 2.1 counts on a hub at port 2, which the document does not have.",
        "<address type='usb' bus='0' port='2.1'/>",
    ),
    "T314": Entry(
        "paravirtual controller",
        "A paravirtual controller passes host devices through; what QEMU emulates needs an emulated one.",
        "<input type='tablet' bus='usb'> on a qusb2",
    ),
    "T315": Entry(
        "companion without master",
        "A companion serves the slow devices of an EHCI controller that has the same index.",
        "<controller type='usb' index='1' model='ich9-uhci1'/> alone",
    ),
    "T316": Entry(
        "domain or os type",
        "Domains of type xen, qemu and kvm are translated.",
        "<domain type='lxc'>",
    ),
    "T317": Entry(
        "port without controller",
        "On a Xen domain a port is counted on a controller that the address names.",
        "<address type='usb' port='1'/>",
    ),
    "T318": Entry(
        "speed mismatch",
        "The guest will not see the device: it runs at a speed that the controller's ports do not serve. The "
        "placement is kept, because stored documents must keep their hardware. `--strict` makes this an error. A "
        "host device's speed is known to its host: `attach`, `apply` and `plan --sysfs` tell of it.",
        "<hub type='usb'/> on an ehci controller without companions",
        "warning",
    ),
    "T319": Entry(
        "name, alias or UUID",
        "Names become paths and ids on the host, so they have no slash, no control character and no `${`, which "
        "begins a placeholder in a plan. Two elements with one alias would get one id.",
        "<name>../guest</name>",
    ),
    "T320": Entry(
        "none beside another controller",
        "A controller of model `none` says that there is no USB; another one contradicts it.",
        "<controller type='usb' model='none'/><controller type='usb' model='ehci'/>",
    ),
    "T321": Entry(
        "PCI address not possible",
        "A controller cannot sit where its PCI address says: the place is taken, the bus has no such slot or takes "
        "other things, or the chipset has a place for it. Leave the address out to get a free one.",
        "<controller type='usb' index='1'><address type='pci' slot='0x01' function='0x3'/></controller>",
    ),
    "T322": Entry(
        "character device",
        "The host's end of a redirected device, a serial port or a smartcard lacks something: a path, a host, a "
        "port, SPICE graphics for `spicevmc`, or, for a smartcard passed through, its type.",
        "<redirdev bus='usb' type='tcp'><source mode='connect' host='localhost'/></redirdev>",
    ),
    "T323": Entry(
        "no such USB disk",
        "A USB disk is a `disk` with a source or a `cdrom`; its target is a prefix such as sd and letters. Only USB "
        "disks can be `removable`.",
        "<disk type='file' device='floppy'><target dev='sda' bus='usb'/></disk>",
    ),
    "T324": Entry(
        "alias given twice",
        "An alias that begins with ua- is the device's id in QEMU, and ids are given once.",
        "two inputs with <alias name='ua-pointer'/>",
    ),
    "T325": Entry(
        "boot order",
        "Two devices have the same order, or devices have one while `<os>` lists boot devices.",
        "two hostdevs with <boot order='1'/>",
    ),
    "T326": Entry(
        "disk target twice",
        "Each disk has a target of its own, whatever bus it is on.",
        "<target dev='sda' bus='scsi'/> and <target dev='sda' bus='usb'/>",
    ),
    "T327": Entry(
        "smartcard",
        "A domain can have one smartcard, in slot 0 of ccid controller 0. Mode `host-certificates` needs three "
        "certificates.",
        "two <smartcard mode='host'/>",
    ),
    "T328": Entry(
        "redirection filter",
        "There is one `<redirfilter>`, and its versions are such as 2.0, or -1 for any.",
        "<redirfilter><usbdev version='2.345' allow='yes'/></redirfilter>",
    ),
    "T329": Entry(
        "no such audio backend",
        "A sound device names an `<audio>` by its id, and there is none with it.",
        "<sound model='usb'><audio id='2'/></sound>",
    ),
    "T330": Entry(
        "host's end not translated",
        "libvirt can put this behind a device; translator cannot yet. It refuses rather than to leave the device "
        "without it.",
        "<disk type='network'> on bus 'usb'",
    ),
    "T331": Entry(
        "QEMU will refuse",
        "libvirt accepts the document, and QEMU will not start with what it makes of it. What the document says is "
        "kept. `--strict` makes this an error.",
        "<target dev='sda' bus='usb'/> and <target dev='vda' bus='usb'/>: both get the id usb-disk0",
        "warning",
    ),
    "T332": Entry(
        "hub before its parent",
        "A hub is given a port below another one that comes later in the document. libvirt stores such a domain and "
        "then does not start it. Here it is plugged behind its parent. `--strict` makes this an error.",
        "<hub type='usb'/> before <hub type='usb'> with the last free root port",
        "warning",
    ),
    "T333": Entry(
        "network not translated",
        "The usb-net is plugged in, and what the `<interface>` connects it to is not made. `--strict` makes this an "
        "error.",
        "<interface type='network'><model type='usb-net'/>",
        "warning",
    ),
    "T334": Entry(
        "not on this bus",
        "The bus, the mode or the target type does not go with the device.",
        "<input type='tablet' bus='ps2'/>",
    ),
    "T335": Entry(
        "device models not possible",
        "The controllers cannot be shared out among device models as asked: the guest can have one only, a "
        "controller is not there, is listed twice or is paravirtual, or functions of one PCI slot would be torn "
        "apart.",
        "<tr:device-models policy='named'> on a PV guest",
    ),
    "T336": Entry(
        "no PCI slot left",
        "Controllers sit on PCI slots, among all else that does, and the machine cannot have as many as the document "
        "has devices. Remove some.",
        "<controller type='usb' model='qemu-xhci'/>, 300 times",
    ),
    "T340": Entry(
        "a word that names no device",
        "On the command line a device is one word: `hostdev:` and which of the host's is meant, `controller:` and a "
        "model, or `tablet`, `mouse`, `keyboard`, `hub`. The message names the part that is wrong.",
        "hostdev:1.x",
    ),
    # xl's language
    "T355": Entry(
        "settings that exclude each other",
        "xl documents that usbversion does not go with usb and usbdevice; usbdevice needs the bus that usb=0 turns "
        "off; and type and builder say the same thing.",
        "usb = 1; usbversion = 3",
    ),
    "T356": Entry(
        "out of range",
        "xl itself takes any number here, and the domain then does not start, or starts with another one.",
        'usbctrl = [ "type=pv,ports=99" ]',
    ),
    "T357": Entry(
        "no such USB device",
        "usbdevice knows tablet, mouse, keyboard, hub, disk:FILE, and host:BUS.ADDRESS or host:VENDOR:PRODUCT.",
        'usbdevice = "tabelt"',
    ),
    "T358": Entry(
        "for HVM guests",
        "PV and PVH guests have no emulated USB; xl ignores usb, usbdevice and usbversion there.",
        'type = "pv"; usb = 1',
        "warning",
    ),
    "T360": Entry(
        "no place in an xl.cfg",
        "`convert --to xl` leaves this out, for xl has no word for it. `--strict` makes this an error.",
        "<redirdev bus='usb' type='spicevmc'/>",
        "warning",
    ),
    "T361": Entry(
        "comes out otherwise",
        "The other language can say nearly this. What the domain has there will differ in what the message names. "
        "`--strict` makes this an error.",
        "<controller type='usb' index='3' model='qusb2'/> alone: xl counts controllers from 0",
        "warning",
    ),
    "T362": Entry(
        "not a Xen domain",
        "xl runs domains of type xen.",
        "<domain type='kvm'>",
    ),
    "T363": Entry(
        "xl ignores this",
        "Only xend's vusb can say which port of the host a device is in. xl, which came after, does not read it.",
        "<hostdev type='usb'> with <source><address bus='1' port='8'/></source> on a xenusb2",
        "warning",
    ),
    "T364": Entry(
        "no such NUMA node",
        "A PCI bus can be on a NUMA node that `<cpu><numa>` has a cell for.",
        "<target busNr='180'><node>1</node></target>, of a domain with one cell",
    ),
    "T365": Entry(
        "on the channel subsystem",
        "Virtio controllers of an S/390 are on its channel subsystem (ccw), or on PCI with numbers of its own (zPCI)."
        " Neither is translated, and the controllers are left out.",
        "<controller type='scsi' model='virtio-scsi'/>, of a domain with arch='s390x'",
        "warning",
    ),
    "T370": Entry(
        "the guest notices",
        "Between the two versions, something changed that the guest sees: an interface, an identity, an address or "
        "how many ports there are.",
        "a controller's model was 'piix3-uhci', and is 'ehci'",
        "warning",
    ),
    "T371": Entry(
        "the guest does not notice",
        "Between the two versions, something changed behind what the guest sees: who implements an interface, or "
        "what the host does for it. Two models of one interface are one to the guest, although the PCI ids that it "
        "can read differ.",
        "a controller's model was 'nec-xhci', and is 'qemu-xhci'",
        "note",
    ),
    "T372": Entry(
        "domain added, removed, renamed or repaired",
        "The document is on one side only, lies elsewhere now, or was refused before. No running guest notices.",
        "guests/new.xml is not in the base",
        "warning",
    ),
    "T373": Entry(
        "plan out of date",
        "The plan that is committed beside the document is not the one that it makes, or the document is gone. See "
        "what changed, and write it again: `translator plan --update`.",
        "guest.xml was edited, and guest.plan.json was not",
    ),
    "T374": Entry(
        "plan missing",
        "There is no plan beside the document. Write it: `translator plan --update`.",
        "guest.xml without guest.plan.json",
    ),
    "T375": Entry(
        "override of no device",
        "A `<qemu:device>` names its device by alias: the document's own, or the id that the device gets in QEMU. "
        "Paravirtual controllers and what is on them have no device in QEMU.",
        "<qemu:device alias='ubs'>",
    ),
    "T376": Entry(
        "no such property",
        "QEMU's driver has no property of this name that is known here; docs/models.md lists those there are. With "
        "`plan --probe` a running QEMU is asked, and its word holds too.",
        "<qemu:property name='slotz' type='unsigned' value='32'/>",
    ),
    "T377": Entry(
        "value not for this property",
        "A property takes a number (signed or unsigned), a truth value (bool: true or false) or a text (string), and "
        "many have a range.",
        "<qemu:property name='slots' type='unsigned' value='65'/>",
    ),
    "T378": Entry(
        "property not to be overridden",
        "Where a device sits, how many ports it has and what is behind it follows from the document's elements, and "
        "is said there.",
        "<qemu:property name='port' type='string' value='2'/>",
    ),
    "T379": Entry(
        "property given twice",
        "One device gets a property once.",
        "two <qemu:property name='slots'/> for one alias",
    ),
    "T380": Entry(
        "nothing to remove",
        "Type `remove` takes away a property that the device would be given otherwise; this one it is not given.",
        "<qemu:property name='slots' type='remove'/>",
    ),
    "T385": Entry(
        "not a unit's address",
        "A device on a controller with units has an address of its family: `drive` for disks and SCSI devices of "
        "the host, `virtio-serial` for channels and consoles.",
        "<disk type='file'><target dev='sda' bus='scsi'/><address type='pci' slot='5'/></disk>",
    ),
    "T386": Entry(
        "model that cannot be had",
        "libvirt knows the model, and no hypervisor of ours has such a controller. The message gives another one.",
        "<controller type='scsi' model='buslogic'/>",
    ),
    "T387": Entry(
        "no such unit",
        "The controller has no unit of these numbers. libvirt accepts that, and QEMU then refuses to start.",
        "<disk type='file'><target dev='hdc' bus='ide'/><address type='drive' bus='0' unit='2'/></disk>",
        "warning",
    ),
    "T388": Entry(
        "unit taken",
        "Two devices are on one unit of a controller. A disk's letters tell its unit where it has no address.",
        "two disks with <address type='drive' controller='0' bus='0' target='0' unit='0'/>",
    ),
    "T389": Entry(
        "root of PCI",
        "Controller 0 of type pci is the machine's own: its model is the board's, and it plugs into nothing.",
        "<controller type='pci' index='0' model='pcie-root'/> on a pc",
    ),
    "T390": Entry(
        "PCI places unknown",
        "A PCI controller says too little for the places behind it to be told; QEMU chooses those of all devices.",
        "<controller type='pci' index='1'/>",
        "warning",
    ),
    "T391": Entry(
        "STATE damaged",
        "The file of `--since` has been cut short or changed. All inputs are looked at, and it is written again.",
        "translator validate --since half-written.json guests",
        "warning",
    ),
    "T392": Entry(
        "STATE not written",
        "What `--since` would have remembered cannot be kept. What was found stands.",
        "translator validate --since /read-only/state.json guests",
    ),
    # Host
    "T401": Entry("no xenstored", "No xenstored answers there. Is this dom0, and may you?", "--xenstore /nowhere"),
    "T402": Entry(
        "no QMP",
        "No QEMU answers there in time. A monitor serves one client at a time: another one may hold it.",
        "--qmp /nowhere",
    ),
    "T403": Entry("no such domain", "No running domain has this id or name.", "--domid 4711"),
    "T404": Entry(
        "not the domain, or not as planned",
        "A guard of the plan failed inside its transaction: the domain is another one, or what must not be there is.",
        "domid 7 was destroyed and given to another domain",
    ),
    "T405": Entry(
        "xenstored refused", "xenstored refused a request; the message has its word.", "a quota is used up"
    ),
    "T406": Entry("QEMU refused", "QEMU refused a command; the message has its words.", "a duplicate device id"),
    "T407": Entry(
        "no answer in time",
        "What was waited for did not come. For a controller's backend: the backend domain has no driver for it.",
        "a pv controller where no usbback is loaded",
    ),
    "T408": Entry(
        "outcome unknown",
        "The connection broke, or time ran out, while a request was under way: it may have had its effect.",
        "QEMU is killed in the middle of device_add",
    ),
    "T409": Entry(
        "conflicts",
        "The transaction met somebody else's at every try. Something writes to these nodes without pause.",
        "two toolstacks at one domain",
    ),
    "T410": Entry(
        "removal pending in the guest",
        "The guest was asked to let go of a controller, and has not in time. QEMU may still remove a PCI controller "
        "when the guest does; a PV controller is connected again.",
        "a PCI controller in a guest that is paused",
    ),
    "T411": Entry(
        "no such host device",
        "The host has no such USB device, or it cannot be read. A sandbox has those that its documents name, "
        "and those of its `--device`.",
        "it was pulled",
    ),
    "T412": Entry(
        "ambiguous host device",
        "Several USB devices of the host have these ids. Name one by bus and device number, port or serial number.",
        "two receivers of one make",
    ),
    "T413": Entry("sysfs refused", "The kernel refused a write below /sys.", "a driver that is not loaded"),
    "T414": Entry(
        "held by something else",
        "The host has another controller or device in a place that the document needs. It is never taken over.",
        "port 1 of controller 0 has a device that somebody attached",
    ),
    "T415": Entry(
        "cannot be added while running",
        "QEMU has these devices only from its start on; the message has the words for its command line.",
        "an ich9-ehci1 on a running machine",
    ),
    "T416": Entry(
        "a hub",
        "A hub of the host cannot be given to a guest. Give it the devices behind the hub.",
        "<source><address bus='1' device='1'/></source>",
    ),
    "T417": Entry(
        "no usbback",
        "The host's kernel has no PVUSB backend loaded, which serves controllers of type pv. Nothing was touched.",
        "<controller type='usb' model='xenusb2'/> on a host without usbback",
    ),
    "T418": Entry(
        "the host device is another's",
        "A device of the host is given to one domain at a time, and to one port of it. All domains are searched, "
        "whatever way they got it.",
        "a receiver that domain 9 has",
    ),
    "T419": Entry(
        "no place on the running domain",
        "The controller, port or hub that a device is to be attached to is not there, or has nothing free.",
        "attach to controller 9 of a domain that has one",
    ),
    "T420": Entry(
        "qemu-traditional",
        "The domain's device model is qemu-traditional, which cannot be told of USB devices while it runs.",
        'device_model_version="qemu-xen-traditional"',
    ),
    "T421": Entry(
        "stub domain",
        "The domain's QEMU runs in a stub domain, where neither its monitor nor the host's devices are at hand.",
        "device_model_stubdomain_override=1",
    ),
    "T422": Entry(
        "another type of guest",
        "The document is for a PV, PVH or HVM guest, and the running domain is another one.",
        "a document with <type>linux</type>, applied to an HVM domain",
    ),
    "T423": Entry(
        "no QEMU that serves qusb",
        "A qusb controller is served by the domain's QEMU, and the domain has none, or one that cannot.",
        "a PV guest that was started without vfb= or usbctrl=",
    ),
    "T424": Entry(
        "left out",
        "A host device with startupPolicy='optional' is not there; the domain gets everything else.",
        "<source startupPolicy='optional'>",
        severity="warning",
    ),
    "T425": Entry(
        "left of an earlier domain",
        "A domid is given again. What an earlier domain's controller has left in a backend's directory is nobody's, "
        "and the new one does not inherit it.",
        "a toolstack that was killed while it destroyed a domain",
    ),
    "T426": Entry(
        "the plan is stale",
        "A plan that `apply --dry-run --format json` has printed goes with the host that it was made against, and "
        "the domain has changed since. What became of it is named; nothing is carried out. Make the plan again, and "
        "look at what it does now.",
        "somebody attached a device between the review of a plan and its apply",
    ),
    "T429": Entry(
        "a process has ended",
        "One of the processes that `--jobs` started was killed. What was printed before is whole.",
        "translator plan --jobs 8 domains/",
    ),
    "T430": Entry(
        "monitor busy",
        "A QEMU monitor serves one client at a time, and another one holds it: a libvirt, a socat left open. Where "
        "several are to be served, QEMU needs a second `-qmp`.",
        "qemu.sock: the monitor is busy: it says nothing for 10 s, as while another client holds it",
    ),
    "T431": Entry(
        "no answer in time",
        "A command was sent to QEMU and its answer did not come in time. It may be carried out all the same, so the "
        "host is looked at before it is repeated, and what may be in effect is undone when the whole fails.",
        "QEMU did not answer device_add within 10 s",
    ),
    "T435": Entry(
        "cannot be removed while running",
        "QEMU has these for as long as it runs, or they have no name that it could be told.",
        "an ich9-ehci1 that the document no longer names, with --prune",
    ),
    "T436": Entry(
        "what the guest sees of an exchange",
        "One controller or device takes the place of another one.",
        "a qusb2 controller becomes a xenusb2, with --replace: the guest sees a replug",
        severity="note",
    ),
    "T437": Entry(
        "attached already",
        "A host device is given to one guest at a time, and once; the message says where it is.",
        "translator attach guest hostdev:1.8, twice",
    ),
    "T438": Entry(
        "not attached",
        "The running domain has no such controller or device; the message lists what it has.",
        "translator detach guest mouse, of a guest with a tablet only",
    ),
    "T439": Entry(
        "several are meant",
        "More than one thing on the domain is what was named. Name it by its place, such as 1:2.",
        "translator detach guest hub, of a guest with two hubs",
    ),
    "T441": Entry(
        "not to be attached",
        "A fragment has to hold controllers, or devices that stand on one.",
        "translator attach guest - <<< \"<interface type='bridge'/>\"",
    ),
    "T442": Entry(
        "the document cannot follow",
        "What was asked of the running domain cannot be said in the document, which has something else there.",
        "translator detach guest 1:2 --save guest.xml, of a document without that device",
    ),
    "T443": Entry(
        "not to be followed",
        "A device is followed from one replug to the next by what stays: vendor and product, its port, or its serial "
        "number. Its number on the bus does not.",
        "translator follow guest hostdev:1.8",
    ),
    "T444": Entry(
        "another domain's monitor",
        "The QEMU that answers at the socket tells the UUID or the name of a guest that is not the domain which was "
        "named. libxl names a QEMU after its domain; a QEMU that tells neither is taken at the user's word. After "
        "`xl rename`, leave `--qmp` out: libxl's own socket goes by the domain's id.",
        "translator attach other mouse --qmp /var/run/xen/qmp-libxl-5, while 'other' is domain 1",
    ),
    "T460": Entry(
        "driver not in this QEMU",
        "The running QEMU was asked before the first step, and has no such driver: it is older, or built or packaged "
        "without it. The help names a model that would do, where there is one.",
        "model vt82c686b-uhci on a QEMU for PCs",
    ),
    "T461": Entry(
        "property not in this QEMU",
        "The running QEMU was asked before the first step, and its driver has no such property: it came with a later "
        "release, or is gone.",
        "usb-host's hostdevice on QEMU 5.0",
    ),
    "T462": Entry(
        "value not for this QEMU",
        "The property of the running QEMU's driver is of another type than the value in the plan.",
        "a plan file in which somebody has written p2: true",
    ),
    "T463": Entry(
        "no hot-plug on this machine",
        "The running machine's first PCI bus is PCI Express, which takes nothing while the guest runs; the plan was "
        "made for another machine type.",
        "a plan for machine pc applied to a q35",
    ),
    "T464": Entry(
        "another default",
        "The running QEMU has another default for a property that the document leaves open, so the guest may find "
        "other hardware than with QEMU 7.2.",
        "qemu-xhci with streams off by default",
        "warning",
    ),
    "T470": Entry(
        "no such SCSI device",
        "/sys of the host shows no SCSI device of that name. The message lists those there are.",
        "<source dev='/dev/sdz'/>",
    ),
    "T471": Entry(
        "SCSI device in use",
        "The device is given to a guest already, and one guest has it at a time. Detach it there first.",
        "the same <adapter> and <address> in two domains",
    ),
    "T472": Entry(
        "ambiguous SCSI device",
        "Several SCSI devices of the host have this WWN and LUN, over several paths. Name one by its adapter and "
        "address.",
        "<source wwn='naa.60014054ac780582' lun='0'/>",
    ),
    "T473": Entry(
        "property is another on the host",
        "A device that is there already has another property than the document gives it, by an element of its own or "
        "by `<qemu:override>`. QEMU sets a property when a device comes, and not afterwards: `--replace` takes the "
        "device away and brings it again, which the guest sees.",
        "<qemu:property name='slots' type='unsigned' value='32'/> of a nec-xhci that runs with 64",
    ),
    "T480": Entry(
        "not while it runs",
        "QEMU has no hot-plug for this controller, or for the devices of its bus. It has to be there when the domain "
        "starts.",
        "translator attach guest - <<< \"<controller type='isa'/>\"",
    ),
    "T481": Entry(
        "no PCI slot is free",
        "The first PCI bus of a q35 machine takes nothing while it runs, and each root port takes one device of PCI "
        "Express.",
        "attach a scsi controller to a q35 guest without a free pcie-root-port",
    ),
    "T482": Entry(
        "leads nowhere",
        "What is behind a device on the host is of a kind that is not translated, or is not said: nothing could be "
        "told QEMU of it.",
        "translator attach guest - <<< \"<channel type='unix'><target type='virtio' name='agent'/></channel>\"",
    ),
    "T483": Entry(
        "a node of another domain",
        "A driver domain's SCSI device is named by its adapter and address there, or by its WWN: what a node in /dev "
        "is there, nobody here can tell.",
        "<source dev='/dev/sdm'/>, on a controller with <backenddomain name='storage'/>",
    ),
    # Execution
    "T501": Entry(
        "a step failed", "What was done before it was undone; the host is as it was.", "QEMU refused a device"
    ),
    "T502": Entry(
        "rollback incomplete",
        "A step failed, and some of those before it could not be undone. The message names them.",
        "a controller that a paused guest does not let go of",
    ),
    "T503": Entry(
        "the result is not there",
        "Every step succeeded, and the host was then seen not to match: something else works on the same domain.",
        "a second toolstack detaches what was just attached",
    ),
    "T504": Entry(
        "domain in use",
        "Two applies never work on one domain at the same time; the other one was not finished within "
        "`--lock-timeout`.",
        "process 4711 is working on this domain",
    ),
    "T505": Entry(
        "left in between",
        "An earlier apply to this domain was killed, or could not undo all it had done. Its journal says what is to "
        "be taken back, or finished, before anything else is done: `translator recover`.",
        "a machine whose operator has just run kill -9",
    ),
    "T506": Entry(
        "journal damaged",
        "What a journal says is checked with checksums, and it is not as it was written. Nothing is guessed from the "
        "rest: look at the domain yourself.",
        "a file system that lost blocks",
    ),
    "T507": Entry(
        "no place for the journal",
        "The directory for journals cannot be made, written or trusted. Without a journal nothing is begun.",
        "a disk that is full",
    ),
    "T508": Entry(
        "not confirmed",
        "`apply --no-commit` waits for `translator commit`; it did not come in time, and all was taken back.",
        "--commit-timeout 60, and nobody there",
    ),
    "T509": Entry(
        "nothing to confirm",
        "No apply waits for `translator commit`: none was begun with `--no-commit`, or its time has run out.",
        "translator commit, a minute too late",
    ),
    "T510": Entry(
        "cannot be finished",
        "The domain that an apply was killed on has gone, its id is another domain's by now, or another QEMU listens "
        "at its monitor's place. What is left of the apply can be taken away only.",
        "translator recover --resume after xl destroy",
    ),
    "T511": Entry(
        "no such journal",
        "The journal that a recovery was to look at is not there any more: its apply has come to its end, or it was "
        "recovered by somebody else.",
        "two programs recover at the same time",
    ),
    "T512": Entry(
        "changed since",
        "Somebody else has changed what a killed apply had made. It is left as it is, and the apply cannot be "
        "finished.",
        "xl usbctrl-detach, and then translator recover --resume",
    ),
    "T513": Entry(
        "cannot be taken back",
        "A killed apply has taken away what nothing brings back, such as a chardev of which QEMU does not say how it "
        "was made. That goes last, so there is little left to do: the apply can be finished only.",
        "apply --prune, killed after it had removed a serial port",
    ),
    "T520": Entry(
        "no scheduler",
        "No dask scheduler answers at the address of `--scheduler` in time.",
        "translator validate --scheduler tcp://10.0.0.1:1 guests",
    ),
    "T521": Entry(
        "another translator",
        "A worker of the cluster has another version of the translator, or none. What it would say could be wrong, "
        "so it is not asked.",
        "a worker that was not restarted after an upgrade",
    ),
    "T522": Entry(
        "workers die of it",
        "Several workers have died one after the other while they had this document. All others are done.",
        "a worker with too little memory",
    ),
    "T523": Entry(
        "scheduler lost",
        "The cluster's scheduler went away in the middle of the work. What was printed before is whole.",
        "translator plan --scheduler tcp://10.0.0.1:8786 guests, and the machine is switched off",
    ),
}

_LONGEST_EXAMPLE = 500  # characters of a document in docs/diagnostics.md
_FAMILIES = {
    "T1": "Reading",
    "T2": "The schema",
    "T3": "What the document means",
    "T4": "The host",
    "T5": "Carrying out",
}


def entry_of(code: str) -> Entry:
    """Return the entry of a code; a plan that another version made may have one that is not known here."""
    return CATALOG.get(code) or Entry("another version's finding", "This version does not know the code.", "")


def text_of(code: str) -> str | None:
    """Return the entry of a code as text, None if there is none."""
    entry = CATALOG.get(code)
    if entry is None:
        return None
    text = textwrap.fill(entry.meaning, 80, break_on_hyphens=False, break_long_words=False)
    example = f"\n\nWhat provokes it:\n  {entry.example}" if entry.example else ""
    return f"{entry.severity}[{code}]: {entry.title}\n\n{text}{example}\n"


def markdown(fixtures: Path) -> str:
    """Return docs/diagnostics.md, whose examples are the cases below `fixtures` and what is said of them."""
    examples = _examples(fixtures)
    lines = [
        "# Diagnostics",
        "",
        "Every code that translator prints. `translator explain CODE` prints an entry.",
    ]
    for family, title in _FAMILIES.items():
        lines += ["", f"## {family}xx: {title}"]
        for code, entry in CATALOG.items():
            if code.startswith(family):
                kind = "" if entry.severity == "error" else f" ({entry.severity})"
                anchor = f'<a id="{code.lower()}"></a>'
                lines += ["", anchor, "", f"### {code}: {entry.title}{kind}", "", entry.meaning]
                if code in examples:
                    document, said = examples[code]
                    language = "xml" if document.startswith("<") else ""
                    lines += ["", f"```{language}", document, "```", "", "```", said, "```"]
                elif entry.example:
                    lines += ["", "```", entry.example, "```"]
    return "\n".join(lines) + "\n"


def _examples(fixtures: Path) -> dict[str, tuple[str, str]]:
    """Return by code the shortest document that provokes it and nothing else, and what is said of it."""
    found: dict[str, tuple[str, str]] = {}
    for case in sorted(fixtures.iterdir()):
        said = (case / "error.txt").read_text(encoding="utf-8").strip()
        codes = re.findall(r"^domain\.(?:xml|cfg):.*?\w\[(T\d+)\]: ", said, re.MULTILINE)
        (file,) = case.glob("domain.*")
        try:
            document = file.read_text(encoding="utf-8").strip()
        except UnicodeDecodeError:
            continue
        printable = document.replace("\n", "").isprintable() and document
        if len(codes) != 1 or not printable or len(document) > _LONGEST_EXAMPLE or "```" in document + said:
            continue
        if codes[0] not in found or len(document) < len(found[codes[0]][0]):
            found[codes[0]] = (document, said)
    return found


if __name__ == "__main__":
    sys.stdout.write(markdown(Path("fixtures/errors")))
