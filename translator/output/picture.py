"""A topology as a picture: SVG drawn here, or the words that Graphviz or Mermaid draw from.

A picture is a tree: the domain, below it its controllers, below each what sits on its ports, and below a hub what
hangs on it. Marks, by the id of a controller or device, say what became of it in a comparison.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from translator.output import escape
from translator.planning.subjects import subject
from translator.topology import PARAVIRTUAL_TYPES, Controller, Device, port_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from translator.topology import Topology

Mark = Literal["add", "remove", "change", "move"]
SIGNS: Mapping[Mark, str] = {"add": "+", "remove": "−", "change": "~", "move": "→"}

# Of SVG, in its own units; text is in a font whose letters are all of one width, so that it is known what fits.
_WIDTH, _HEIGHT, _ROW, _INDENT, _MARGIN = 300, 38, 46, 30, 12
_LETTERS, _SMALL_LETTERS = 34, 42

STYLE = """\
.tp { --ink: #1c2330; --soft: #5b6675; --line: #9aa5b4; --box: #fff; --edge: #c3cbd6; --pv: #eef4ff;
  --add: #1a7f37; --remove: #c02634; --change: #8a6100; --move: #0a5fc2; color-scheme: light dark;
  font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
@media (prefers-color-scheme: dark) {
  .tp { --ink: #e4e9f0; --soft: #9aa7b8; --line: #5d6978; --box: #1b212b; --edge: #3c4654; --pv: #1a2740;
    --add: #4cc268; --remove: #ff7b86; --change: #e0ae3c; --move: #6cb0ff; }
}
.tp rect { fill: var(--box); stroke: var(--edge); }
.tp .domain rect { fill: none; stroke: var(--line); stroke-width: 2; }
.tp .controller rect { stroke: var(--line); }
.tp .pv rect { fill: var(--pv); }
.tp .implicit rect { stroke-dasharray: 4 3; }
.tp text { fill: var(--ink); font-size: 12.5px; }
.tp .title { font-weight: 600; }
.tp .small { fill: var(--soft); font-size: 10.5px; }
.tp path { fill: none; stroke: var(--line); stroke-width: 1.25; }
.tp .add rect { stroke: var(--add); stroke-width: 2.5; } .tp .add .sign { fill: var(--add); }
.tp .remove rect { stroke: var(--remove); stroke-width: 2.5; } .tp .remove .sign { fill: var(--remove); }
.tp .change rect { stroke: var(--change); stroke-width: 2.5; } .tp .change .sign { fill: var(--change); }
.tp .move rect { stroke: var(--move); stroke-width: 2.5; } .tp .move .sign { fill: var(--move); }
.tp .sign { font-size: 15px; font-weight: 700; }
"""


class _Node(msgspec.Struct, kw_only=True):
    """One box: `port` is where on its parent it sits; `id` is that of its subject, if it is one."""

    title: str
    small: str
    classes: str
    port: str = ""
    id: str | None = None
    children: list[_Node] = msgspec.field(default_factory=list)


def svg(topology: Topology, marks: Mapping[str, Mark] | None = None, *, style: bool = True) -> str:
    """Return the topology as an SVG that needs nothing else, in light and in dark.

    Args:
        marks: what to highlight, by id.
        style: whether the picture brings its style sheet along; a page with many pictures has `STYLE` once.
    """
    return _Drawing(marks or {}).picture(topology, style=style)


def dot(topology: Topology, marks: Mapping[str, Mark] | None = None) -> str:
    """Return the topology in Graphviz' language."""
    lines = ["digraph topology {", "  rankdir=LR;", '  node [shape=box, style=rounded, fontname="monospace"];']
    lines.append('  edge [arrowhead=none, fontname="monospace"];')
    for number, parent, node in _numbered(_tree(topology)):
        label = escape.dot(f"{_sign(node, marks)}{node.title}")
        small = escape.dot(node.small)
        text = f"{label[:-1]}\\n{small[1:]}" if node.small else label
        lines.append(f"  n{number} [label={text}{', style=dashed' if 'implicit' in node.classes else ''}];")
        if parent is not None:
            lines.append(f"  n{parent} -> n{number}{f' [label={escape.dot(node.port)}]' if node.port else ''};")
    return "\n".join([*lines, "}"]) + "\n"


def mermaid(topology: Topology, marks: Mapping[str, Mark] | None = None) -> str:
    """Return the topology as a Mermaid flow chart, which GitHub and GitLab draw in Markdown."""
    lines = ["flowchart LR"]
    for number, parent, node in _numbered(_tree(topology)):
        small = f"<br/>{escape.mermaid(node.small)}" if node.small else ""
        lines.append(f'  n{number}["{escape.mermaid(_sign(node, marks) + node.title)}{small}"]')
        if parent is not None:
            port = f'|"{escape.mermaid(node.port)}"|' if node.port else ""
            lines.append(f"  n{parent} ---{port} n{number}")
    return "\n".join(lines) + "\n"


def _sign(node: _Node, marks: Mapping[str, Mark] | None) -> str:
    mark = marks.get(node.id) if marks and node.id else None
    return f"{SIGNS[mark]} " if mark else ""


# What stands in the boxes


def _tree(topology: Topology) -> _Node:
    domain = topology.domain
    machine = domain.guest if domain.hypervisor == "xen" else domain.arch
    root = _Node(
        title=domain.name,
        small=f"{domain.hypervisor} · {machine} · {domain.machine}",
        classes="domain",
    )
    used: dict[tuple[str, int], int] = {}
    for device in topology.devices:
        if "." not in device.port:
            used[device.family, device.controller] = used.get((device.family, device.controller), 0) + 1
    for one in topology.controllers:
        if one.place is not None and "." not in one.place.port:
            used["usb", one.place.controller] = used.get(("usb", one.place.controller), 0) + 1
    nodes = {
        (one.family, one.index): _controller(one, used.get((one.family, one.index), 0)) for one in _sorted(topology)
    }
    places: dict[tuple[str, int, str], _Node] = {}
    for device in topology.devices:
        node = _device(device)
        if device.family == "ccid":
            nodes["ccid", device.controller].children.append(node)
        else:
            places[device.family, device.controller, device.port] = node
    for one in _sorted(topology):
        if one.place is None:
            root.children.append(nodes[one.family, one.index])
        else:
            places["usb", one.place.controller, one.place.port] = nodes[one.family, one.index]
    for (family, index, port), node in sorted(places.items(), key=_by_port):
        node.port = f"port {port}"
        parent = places.get((family, index, port.rpartition(".")[0])) or nodes[family, index]
        parent.children.append(node)
    return root


def _by_port(place: tuple[tuple[str, int, str], _Node]) -> tuple[str, int, tuple[int, ...]]:
    (family, index, port), _ = place
    return family, index, port_key(port)


def _sorted(topology: Topology) -> list[Controller]:
    return sorted(topology.controllers, key=lambda one: (one.family != "usb", one.index))


def _controller(controller: Controller, used: int) -> _Node:
    facts = [f"{controller.family} {controller.index}"]
    if controller.type != "none" and controller.family != "ccid":
        facts.append(f"{used} of {controller.ports} ports")
    if controller.pci is not None:
        facts.append(controller.pci.removeprefix("0000:"))
    if controller.backend is not None:
        facts.append(f"domain {controller.backend}")
    classes = ["controller"]
    if controller.type in PARAVIRTUAL_TYPES:
        classes.append("pv")
    if controller.implicit:
        classes.append("implicit")
    companions = [
        _Node(title=one.model, small=f"companion from port {one.startport + 1}", classes="controller")
        for one in sorted(controller.companions, key=lambda one: one.startport)
    ]
    return _Node(
        title=controller.model,
        small=" · ".join(facts),
        classes=" ".join(classes),
        id=subject(controller),
        children=companions,
    )


def _device(device: Device) -> _Node:
    title: str = device.kind
    facts = [device.id] if device.id else []
    if device.host is not None:
        title += f" {device.host.selector}"
        if device.host.path is not None and device.host.path != device.host.selector:
            facts.insert(0, f"host port {device.host.path}")
    # an id that waits for the host's facts tells nobody anything
    small = " · ".join(fact for fact in facts if "${" not in fact)
    return _Node(
        title=title, small=small, classes="device implicit" if device.implicit else "device", id=subject(device)
    )


def _numbered(root: _Node) -> Iterator[tuple[int, int | None, _Node]]:
    """Yield each node behind its parent, with its number and its parent's."""
    waiting: list[tuple[int | None, _Node]] = [(None, root)]
    number = 0
    while waiting:
        parent, node = waiting.pop()
        yield number, parent, node
        waiting += [(number, child) for child in reversed(node.children)]
        number += 1


# SVG


class _Drawing:
    def __init__(self, marks: Mapping[str, Mark]) -> None:
        self.marks = marks
        self.boxes: list[str] = []
        self.lines: list[str] = []
        self.rows = 0
        self.depth = 0

    def picture(self, topology: Topology, *, style: bool) -> str:
        self.draw(_tree(topology))
        width = 2 * _MARGIN + self.depth * _INDENT + _WIDTH
        height = 2 * _MARGIN + (self.rows - 1) * _ROW + _HEIGHT
        name = escape.markup(topology.domain.name)
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" class="tp" role="img" viewBox="0 0 {width} {height}" '
                f'width="{width}" height="{height}">',
                f"<title>USB topology of {name}</title>",
                *([f"<style>\n{STYLE}</style>"] if style else []),
                *self.lines,
                *self.boxes,
                "</svg>\n",
            ]
        )

    def draw(self, root: _Node) -> None:
        """Draw each node in a row of its own, and the line to its parent, whose row is given."""
        waiting: list[tuple[_Node, int, int]] = [(root, 0, 0)]
        while waiting:
            node, depth, above = waiting.pop()
            x, y = _MARGIN + depth * _INDENT, _MARGIN + self.rows * _ROW
            self.box(node, x, y)
            if depth:
                trunk = x - _INDENT // 2
                self.lines.append(f'<path d="M{trunk} {above}V{y + _HEIGHT // 2}H{x}"/>')
            self.rows += 1
            self.depth = max(self.depth, depth)
            waiting += [(child, depth + 1, y + _HEIGHT) for child in reversed(node.children)]

    def box(self, node: _Node, x: int, y: int) -> None:
        mark = self.marks.get(node.id) if node.id else None
        small = " · ".join(filter(None, [node.port, node.small]))
        attribute = f' data-id="{escape.markup(node.id)}"' if node.id else ""
        title = _cut(node.title, _LETTERS - 2 * bool(mark))
        hint = escape.markup(" · ".join(filter(None, [node.title, small])))
        self.boxes += [
            f'<g class="{node.classes}{f" {mark}" if mark else ""}"{attribute} transform="translate({x} {y})">',
            f"<title>{hint}{f' ({mark})' if mark else ''}</title>",
            f'<rect width="{_WIDTH}" height="{_HEIGHT}" rx="7"/>',
            f'<text class="title" x="12" y="{16 if small else 23}">{title}</text>',
        ]
        if small:
            self.boxes.append(f'<text class="small" x="12" y="30">{_cut(small, _SMALL_LETTERS)}</text>')
        if mark:
            self.boxes.append(f'<text class="sign" x="{_WIDTH - 20}" y="24">{SIGNS[mark]}</text>')
        self.boxes.append("</g>")


def _cut(text: str, letters: int) -> str:
    seen = escape.visible(text)
    return escape.markup(seen if len(seen) <= letters else f"{seen[: letters - 1]}…")
