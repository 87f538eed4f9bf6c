"""A flamegraph as one SVG file that needs nothing else: no fonts, no scripts from elsewhere.

A click on a frame zooms, on the root or on `reset` back; `search` (or Ctrl-F) marks frames by a
regular expression and says their share of what is shown.  Frames narrower than MIN_PIXELS are
left out.  With `before`, a differential graph: widths are those of `after`; red took more of the
time than before, blue less.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.sax.saxutils import escape, quoteattr

from forwarder.telemetry.flame.fold import KERNEL_MARK, Folded
from forwarder.telemetry.flame.script import SCRIPT

WIDTH = 1200.0  # pixels
PAD, HEAD, FOOT = 10.0, 48.0, 28.0
ROW = 17.0
CHARACTER = 7.0  # pixels of the text's font
MIN_PIXELS = 0.15
DEPTH_MAX = 400


@dataclass
class Node:
    """One frame with all stacks that go through it there."""

    name: str
    weight: int = 0
    before: int = 0
    children: dict[str, Node] = field(default_factory=dict)

    def child(self, name: str) -> Node:
        return self.children.setdefault(name, Node(name))


def tree(folded: Folded, before: Folded | None = None) -> Node:
    """The stacks as a tree; deeper than DEPTH_MAX is cut."""
    root = Node("all")
    for stacks, is_before in ((folded, False), (before or {}, True)):
        for stack, weight in stacks.items():
            node = root
            for name in ("", *stack[:DEPTH_MAX]):
                node = node.child(name) if name else node
                if is_before:
                    node.before += weight
                else:
                    node.weight += weight
    return root


def _colour(node: Node, root: Node, *, differs: bool) -> str:
    if differs:
        old = node.before / root.before if root.before else 0.0
        new = node.weight / root.weight
        change = max(-1.0, min(1.0, (new - old) / max(new, old, 1e-9)))
        fade = round(255 - 175 * abs(change))
        return f"rgb(255,{fade},{fade})" if change > 0 else f"rgb({fade},{fade},255)"
    shade = hashlib.sha256(node.name.encode()).digest()[0] / 255
    if node.name.endswith(KERNEL_MARK):
        return f"rgb(240,{130 + round(50 * shade)},{60 + round(30 * shade)})"
    if node.name.endswith(".py)"):
        return f"rgb({90 + round(50 * shade)},{190 + round(40 * shade)},{100 + round(40 * shade)})"
    return f"rgb({230 + round(20 * shade)},{200 + round(30 * shade)},{70 + round(40 * shade)})"


def _title(node: Node, root: Node, unit: str, *, differs: bool) -> str:
    share = node.weight / root.weight
    told = f"{node.name} ({node.weight:,} {unit}, {share:.2%}"
    if differs and root.before:
        old = node.before / root.before
        told += f"; before {old:.2%}, {share - old:+.2%}"
    return told + ")"


def _frames(root: Node) -> Iterator[tuple[Node, float, int]]:
    """Each frame that is wide enough, with its left end and its depth."""
    scale = (WIDTH - 2 * PAD) / root.weight
    todo: list[tuple[Node, float, int]] = [(root, 0.0, 0)]
    while todo:
        node, left, depth = todo.pop()
        yield node, PAD + left * scale, depth
        for name in sorted(node.children):
            child = node.children[name]
            if child.weight * scale >= MIN_PIXELS:
                todo.append((child, left, depth + 1))
            left += child.weight


def _label(name: str, width: float) -> str:
    room = int((width - 6) / CHARACTER)
    if room < 3:
        return ""
    return name if len(name) <= room else name[: room - 2] + ".."


def draw(title: str, folded: Folded, *, unit: str = "samples", before: Folded | None = None) -> str:
    """The file's text.  `folded` must not be empty."""
    root = tree(folded, before)
    shown = list(_frames(root))
    deepest = max(depth for _, _, depth in shown)
    scale = (WIDTH - 2 * PAD) / root.weight
    height = HEAD + FOOT + ROW * (deepest + 1)
    differs = before is not None
    parts = [
        '<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n'
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH:g}" height="{height:g}" '
        f'viewBox="0 0 {WIDTH:g} {height:g}" font-family="monospace" font-size="12">\n'
        "<style>g.f:hover rect{stroke:#000;stroke-width:0.6}"
        "g.f{cursor:pointer} text{pointer-events:none}"
        " .b{cursor:pointer;pointer-events:all;fill:#555} .b:hover{fill:#000}</style>\n"
        f'<rect width="100%" height="100%" fill="#fbfaf5"/>\n'
        f'<text x="{WIDTH / 2:g}" y="22" text-anchor="middle" font-size="16">'
        f"{escape(title)}</text>\n"
        f'<text id="reset" class="b" x="{PAD:g}" y="22" visibility="hidden">reset</text>\n'
        f'<text id="search" class="b" x="{WIDTH - PAD:g}" y="22" text-anchor="end">search</text>\n'
        f'<text id="told" x="{PAD:g}" y="{height - 9:g}"> </text>\n'
        f'<text id="found" x="{WIDTH - PAD:g}" y="{height - 9:g}" text-anchor="end"> </text>\n'
    ]
    for node, left, depth in shown:
        width = node.weight * scale
        top = height - FOOT - ROW * (depth + 1)
        parts.append(
            f'<g class="f" data-x="{left:.2f}" data-w="{width:.2f}" data-d="{depth}" '
            f"data-n={quoteattr(node.name)}>"
            f"<title>{escape(_title(node, root, unit, differs=differs))}</title>"
            f'<rect x="{left:.2f}" y="{top:g}" width="{width:.2f}" height="{ROW - 1:g}" rx="1.5" '
            f'fill="{_colour(node, root, differs=differs)}"/>'
            f'<text x="{left + 3:.2f}" y="{top + 12:g}">{escape(_label(node.name, width))}</text>'
            "</g>\n"
        )
    parts.append(f"<script><![CDATA[\n{SCRIPT}]]></script>\n</svg>\n")
    return "".join(parts)
