"""What a guest shows and sounds like: vnc, sdl and spice, vfb, the graphics card, and sound cards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from translator.xlcfg.language import Text
from translator.xlcfg.sheet import Kept, Sheet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lxml.etree import _Element

    from translator.topology import Guest
    from translator.xlcfg.draft import Draft
    from translator.xlcfg.taken import Taken

FIRST_VNC_PORT = 5900
# The video memory, in KiB, that libvirt gives a card when nobody says. Source: libxlDomainVideoDefaults, observed.
_VIDEO_KIB = {"cirrus": 8192, "vga": 16384, "qxl": 131072, "xen": 4096}
_CARDS = {"stdvga": "vga", "cirrus": "cirrus", "qxl": "qxl"}
_VFB_KEYS = (
    *("type", "vnc", "vnclisten", "vncdisplay", "vncunused", "vncpasswd", "keymap", "sdl", "display", "xauthority"),
    "opengl",
)
_SPICE = ("spiceusbredirection", "spice_image_compression", "spice_streaming_video", "spicevdagent")


def read(sheet: Sheet, draft: Draft, devices: _Element, guest: Guest) -> None:
    """Add graphics and the card that goes with them, and sound cards."""
    if guest == "hvm":
        names = [name for name in _VFB_KEYS if name != "type"]
        options = {name: text for name in names if (text := sheet.text(name)) is not None}
        for kind in ("vnc", "sdl"):
            if sheet.flag(kind):
                _draw(sheet, draft, devices, kind, options)
        if sheet.flag("spice"):
            _read_spice(sheet, draft, devices)
    else:
        for number, text in enumerate(sheet.texts("vfb"), 1):
            options = sheet.options_of(text, f"vfb[{number}]", _VFB_KEYS)
            kind = options["type"].value if "type" in options else "sdl" if _on(options.get("sdl")) else "vnc"
            _draw(sheet, draft, devices, "sdl" if kind == "sdl" else "vnc", options, text)
    _read_sound(sheet, draft, devices)
    _read_video(sheet, draft, devices, guest)


def _on(text: Text | None) -> bool:
    return text is not None and text.value not in ("", "0")


def _draw(
    sheet: Sheet, draft: Draft, devices: _Element, kind: str, options: Mapping[str, Text], at: Text | None = None
) -> None:
    place = at.source if at is not None else sheet.place(kind)
    if kind == "sdl":
        names = {"display": options.get("display"), "xauth": options.get("xauthority")}
        draft.add(devices, "graphics", {"type": "sdl", **names}, at=place)
        return
    display = options.get("vncdisplay")
    number = sheet.as_number(display, "vncdisplay", most=59635) if display is not None else None
    listen = options.get("vnclisten")
    if listen is not None and ":" in listen.value and display is None and "[" not in listen.value:
        address, _, own = listen.value.rpartition(":")
        listen = Text(address, listen.source)
        number = sheet.as_number(Text(own, listen.source), "vnclisten", most=59635)
    auto = number is None or _on(options.get("vncunused"))
    graphics = draft.add(
        devices,
        "graphics",
        {
            "type": "vnc",
            "port": -1 if auto else FIRST_VNC_PORT + (number or 0),
            "autoport": "yes" if auto else "no",
            "keymap": options.get("keymap"),
            "listen": listen,
            "passwd": options.get("vncpasswd"),
        },
        at=place,
    )
    draft.add(graphics, "listen", {"type": "address", "address": listen})


def _read_spice(sheet: Sheet, draft: Draft, devices: _Element) -> None:
    host, open_to_all = sheet.text("spicehost"), sheet.flag("spicedisable_ticketing")
    port, tls = sheet.text("spiceport"), sheet.text("spicetls_port")
    password = sheet.text("spicepasswd")
    graphics = draft.add(
        devices,
        "graphics",
        {
            "type": "spice",
            "port": port,
            "tlsPort": tls,
            "autoport": "yes" if port is None and tls is None else "no",
            "keymap": sheet.text("keymap"),
            "listen": host,
            "passwd": None if open_to_all else password,
        },
        at=sheet.place("spice"),
    )
    draft.add(graphics, "listen", {"type": "address", "address": host})
    mouse = sheet.flag("spiceagent_mouse")
    if mouse is not None:
        draft.add(graphics, "mouse", {"mode": "client" if mouse else "server"}, at=sheet.place("spiceagent_mouse"))
    clipboard = sheet.flag("spice_clipboard_sharing")
    if clipboard is not None:
        place = sheet.place("spice_clipboard_sharing")
        draft.add(graphics, "clipboard", {"copypaste": "yes" if clipboard else "no"}, at=place)
        sheet.has("spicevdagent")  # sharing needs the agent, and libvirt turns it on with it
    for name in _SPICE:
        if name in sheet.settings and not (name == "spicevdagent" and clipboard):
            sheet.has(name)
            sheet.keep(Kept(name, sheet.settings[name].value, sheet.place(name)))


def _read_sound(sheet: Sheet, draft: Draft, devices: _Element) -> None:
    text = sheet.text("soundhw")
    for model in text.value.split(",") if text is not None else ():
        if model.strip():
            draft.add(devices, "sound", {"model": model.strip()}, at=sheet.place("soundhw"))


def _read_video(sheet: Sheet, draft: Draft, devices: _Element, guest: Guest) -> None:
    vga = sheet.word("vga", "none", *_CARDS) if guest == "hvm" else None
    standard = sheet.flag("stdvga") if guest == "hvm" else None
    megabytes = sheet.number("videoram", most=2**20) if guest == "hvm" else None
    if devices.find("graphics") is None or (vga is not None and vga.value == "none"):
        for name in ("vga", "stdvga", "videoram"):
            if guest == "hvm" and name in sheet.settings and not (vga is not None and vga.value == "none"):
                sheet.keep(Kept(name, sheet.settings[name].value, sheet.place(name)))
        return
    card = _CARDS[vga.value] if vga is not None else "vga" if standard else "cirrus" if guest == "hvm" else "xen"
    at = sheet.place("vga" if vga is not None else "stdvga") if vga is not None or standard else None
    video = draft.add(devices, "video", at=at)
    memory = _VIDEO_KIB[card] if megabytes is None else megabytes * 1024
    draft.add(video, "model", {"type": card, "vram": memory, "heads": 1, "primary": "yes"})


# From XML


def write(taken: Taken, devices: _Element | None, guest: Guest) -> dict[str, int | str | list[str]]:
    """Return the settings of displays and sound."""
    found: dict[str, int | str | list[str]] = {}
    graphics = taken.children(devices, "graphics")
    kinds = [taken.attribute(one, "type") for one in graphics]
    if guest == "hvm":
        found |= {"sdl": int("sdl" in kinds), "vnc": int("vnc" in kinds)}
    frames = []
    for one, kind in zip(graphics, kinds, strict=True):
        if kind == "spice" and guest == "hvm":
            found |= _spice(taken, one)
        elif kind in ("vnc", "sdl"):
            options = _vnc(taken, one) if kind == "vnc" else _sdl(taken, one)
            if guest == "hvm":
                found |= options
            else:
                frames.append(",".join([f"type={kind}", *(f"{name}={value}" for name, value in options.items())]))
        else:
            taken.whole(one)
            taken.warn(
                "T360", one, None, f"<graphics> is left out: a {guest.upper()} guest has none of type {kind!r}"
            )
    if frames:
        found["vfb"] = frames
    found |= _video(taken, devices, guest, bool(graphics))
    sounds = taken.children(devices, "sound") if guest == "hvm" else []
    models = [taken.attribute(one, "model") or "" for one in sounds if one.get("model") != "usb"]
    if models:
        found["soundhw"] = ",".join(models)
    return found


def _vnc(taken: Taken, graphics: _Element) -> dict[str, int | str]:
    port, autoport = taken.attribute(graphics, "port"), taken.attribute(graphics, "autoport")
    auto = autoport == "yes" or port in (None, "-1")
    found: dict[str, int | str] = {"vncunused": int(auto)}
    number = int(port) if port is not None and port.isascii() and port.isdigit() and len(port) < 6 else None
    if not auto and number is not None and number >= FIRST_VNC_PORT:
        found["vncdisplay"] = number - FIRST_VNC_PORT
    elif not auto:
        taken.warn(
            "T361", graphics, "port", f"xl counts displays from port {FIRST_VNC_PORT} on; the port is left out"
        )
    return found | _common(taken, graphics, "vnclisten", "vncpasswd")


def _common(taken: Taken, graphics: _Element, listen: str, password: str) -> dict[str, int | str]:
    inner = taken.child(graphics, "listen")
    kind, address = taken.attribute(inner, "type"), taken.attribute(inner, "address")
    if kind not in (None, "address"):
        taken.warn("T360", graphics, None, f"xl cannot listen at what libvirt calls {kind!r}; that is left out")
    values = {
        listen: taken.attribute(graphics, "listen") or address,
        password: taken.attribute(graphics, "passwd"),
        "keymap": taken.attribute(graphics, "keymap"),
    }
    return {name: value for name, value in values.items() if value is not None}


def _sdl(taken: Taken, graphics: _Element) -> dict[str, int | str]:
    values = {"display": taken.attribute(graphics, "display"), "xauthority": taken.attribute(graphics, "xauth")}
    return {"sdl": 1, **{name: value for name, value in values.items() if value is not None}}


def _spice(taken: Taken, graphics: _Element) -> dict[str, int | str]:
    found: dict[str, int | str] = {"spice": 1}
    taken.take(graphics, "autoport")
    for name, attribute in (("spiceport", "port"), ("spicetls_port", "tlsPort")):
        value = taken.attribute(graphics, attribute)
        if value is not None and value.isascii() and value.isdigit():
            found[name] = int(value)
    common = _common(taken, graphics, "spicehost", "spicepasswd")
    found |= {"spicedisable_ticketing": int("spicepasswd" not in common), **common}
    mouse = taken.attribute(taken.child(graphics, "mouse"), "mode")
    if mouse is not None:
        found["spiceagent_mouse"] = int(mouse == "client")
    clipboard = taken.attribute(taken.child(graphics, "clipboard"), "copypaste")
    if clipboard is not None:
        found |= {"spicevdagent": int(clipboard == "yes"), "spice_clipboard_sharing": int(clipboard == "yes")}
    return found


def _video(taken: Taken, devices: _Element | None, guest: Guest, shown: bool) -> dict[str, int | str | list[str]]:
    video = taken.child(devices, "video")
    model = taken.child(video, "model")
    card = taken.attribute(model, "type")
    taken.take(model, "heads", "primary")
    memory = taken.attribute(model, "vram")
    found: dict[str, int | str | list[str]] = {}
    if model is None or card is None:
        return found
    words = {libvirts: word for word, libvirts in _CARDS.items()}
    default = "cirrus" if guest == "hvm" else "xen"
    if card == "none":
        return {"vga": "none"} if guest == "hvm" else {}
    if guest == "hvm" and card in words:
        if card != default or not shown:
            found["vga"] = words[card]
    elif card != default:
        taken.warn(
            "T360", model, "type", f"xl has no graphics card {card!r} for {guest.upper()} guests; it is left out"
        )
    kib = int(memory) if memory is not None and memory.isascii() and memory.isdigit() and len(memory) < 10 else None
    if kib is not None and kib != _VIDEO_KIB.get(card) and guest == "hvm":
        found["videoram"] = max(1, kib // 1024)
    return found
