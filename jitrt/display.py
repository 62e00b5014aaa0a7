"""How graphs, plans, steps and profiles look in a notebook: HTML tables, SVG charts. Text is the objects' own `str`.

The rooms below know no HTML: importing this module gives their classes `_repr_html_`. Long cells are cut, with the
whole text as a tooltip, so that a table of real models stays as wide as the page.
"""

from __future__ import annotations

import pathlib
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .fusion.graph import Attribute, Graph
from .fusion.plan import HostStep, Plan, Step

WIDEST = 44  # characters of a cell
TALLEST = 480  # pixels of a table; the rest scrolls
_CELL = "padding:2px 8px;white-space:nowrap;"
# one colour a kernel: distinct for common eyes, and dark enough for both white and black pages
_PALETTE = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#9d755d", "#d6a000", "#7f8c8d", "#3f8fd2")


def _escaped(text: str) -> str:
    import html  # for notebooks alone: it holds the names of all characters

    return html.escape(text)


@dataclass(frozen=True)
class Svg:
    """A drawing; notebooks show it."""

    text: str

    def _repr_html_(self) -> str:
        return self.text

    def save(self, path: str | pathlib.Path) -> None:
        """Write an .svg file."""
        pathlib.Path(path).write_text(self.text)


# -- tables
def table(columns: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """An HTML table. A column whose name begins with ``>`` holds numbers and is set to the right."""
    right = [name.startswith(">") for name in columns]
    head = "".join(f"<th style='{_CELL}{_side(r)}'>{_escaped(c.lstrip('>'))}</th>" for c, r in zip(columns, right))
    body = "".join("<tr>" + "".join(map(_cell, row, right)) + "</tr>" for row in rows)
    title = f"<caption style='caption-side:top;text-align:left;padding:4px 8px'>{caption}</caption>" if caption else ""
    return (
        f"<div style='max-height:{TALLEST}px;overflow:auto;font-size:90%'><table style='border-collapse:collapse'>{title}"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(value: object, right: bool) -> str:
    text = str(value)
    short = shorten(text)
    title = f" title='{_escaped(text)}'" if short != text else ""
    return f"<td style='{_CELL}{_side(right)}'{title}>{_escaped(short)}</td>"


def _side(right: bool) -> str:
    return "text-align:right;font-variant-numeric:tabular-nums" if right else "text-align:left"


def shorten(text: str, width: int = WIDEST) -> str:
    """The text, or its start and end around an ellipsis: names of nodes differ at both."""
    if len(text) <= width:
        return text
    tail = width // 3
    return f"{text[: width - tail - 1]}…{text[-tail:]}"


def graph_html(graph: Graph) -> str:
    """One row a node."""
    rows = [
        (i, f"{node.domain}::{node.op}" if node.domain else node.op, ", ".join(o or "_" for o in node.outputs),
         ", ".join(n or "_" for n in node.inputs), ", ".join(f"{k}={_brief(v)}" for k, v in node.attributes.items()), node.name)
        for i, node in enumerate(graph.nodes)
    ]  # fmt: skip
    inputs, outputs = (_typed(graph, names) for names in (graph.inputs, graph.outputs))
    caption = f"<b>{_escaped(graph.name or 'graph')}</b> ({_escaped(inputs)}) → ({_escaped(outputs)}): {len(rows)} nodes"
    return table((">#", "operator", "outputs", "inputs", "attributes", "name"), rows, caption)


def _typed(graph: Graph, names: Sequence[str]) -> str:
    return ", ".join(f"{name}: {graph.types[name]}" if name in graph.types else name for name in names)


def _brief(value: Attribute) -> str:
    if isinstance(value, Graph):
        return f"graph of {len(value.nodes)} nodes"
    if isinstance(value, np.ndarray) and value.size > 8:
        return f"{value.dtype}[{','.join(map(str, value.shape))}]"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value.tolist() if isinstance(value, np.ndarray) else value)


def plan_html(plan: Plan) -> str:
    """One row a step."""
    rows: list[tuple[object, ...]] = []
    for i, s in enumerate(plan.steps):
        nodes = ", ".join(s.nodes)
        if isinstance(s, HostStep):
            rows.append((i, s.kind, s.reason, "", "", "", nodes))
        else:
            rows.append((i, s.kernel.name, s.shape, s.tasks, f"{s.bytes / 1024:,.1f}", f"{s.flops / 1e6:,.2f}", nodes))
    columns = (">#", "kernel", "shape", ">tasks", ">KB", ">MFLOP", "nodes")
    lines = [plan.summary, *(f"for {guard}" for guard in plan.guards)]
    return table(columns, rows, "<br>".join([f"<b>plan</b> for {_escaped(plan.signature)}", *map(_escaped, lines)]))


def step_html(step: Step) -> str:
    """What the step is, and its source folded away."""
    rows = [
        ("nodes", ", ".join(step.nodes)), ("shape", step.shape), ("tasks", step.tasks), ("arguments", len(step.args)),
        ("bytes moved", f"{step.bytes:,}"), ("FLOPs", f"{step.flops:,}"),
    ]  # fmt: skip
    source = f"<details><summary>source</summary><pre>{_escaped(step.source)}</pre></details>"
    return table((step.kernel.name, ""), rows) + source


def host_step_html(step: HostStep) -> str:
    """What the step is."""
    named = ((kind, ", ".join(map(str, values))) for kind, values in (("reads", step.inputs), ("makes", step.outputs)))
    return table((step.kind, ""), [("nodes", ", ".join(step.nodes)), ("why", step.reason), *named])


# -- charts
def bars(rows: Sequence[tuple[str, float, str]], title: str) -> Svg:
    """Horizontal bars for (label, value, text of the value), in the order given."""
    label, width, line = 330, 420, 20
    most = max((value for _, value, _ in rows), default=0.0) or 1.0
    parts = []
    for i, (name, value, text) in enumerate(rows):
        y, size = 28 + i * line, max(value / most * width, 1)
        parts.append(
            f"<g><title>{_escaped(name)}: {_escaped(text)}</title>"
            f"<text x='{label - 8}' y='{y + 14}' text-anchor='end'>{_escaped(shorten(name))}</text>"
            f"<rect x='{label}' y='{y + 3}' width='{size:.1f}' height='{line - 6}' fill='{colour(name)}'/>"
            f"<text x='{label + size + 6:.1f}' y='{y + 14}'>{_escaped(text)}</text></g>"
        )
    return _drawing(label + width + 150, 34 + line * len(rows), title, parts)


def timeline(spans: Sequence[tuple[str, int, float, float]], threads: int, title: str) -> Svg:
    """(name, thread, start, end) in seconds as one lane a thread."""
    left, width, lane = 80, 820, 30
    end = max((stop for *_, stop in spans), default=0.0) or 1e-9
    unit, factor = ("ms", 1e3) if end > 2e-3 else ("µs", 1e6)
    parts = [f"<text x='{left - 8}' y='{48 + t * lane}' text-anchor='end'>thread {t}</text>" for t in range(threads)]
    for name, thread, start, stop in spans:
        x, size = left + start / end * width, max((stop - start) / end * width, 0.3)
        tip = f"{name}: {start * factor:.2f} to {stop * factor:.2f} {unit}"
        parts.append(
            f"<rect x='{x:.2f}' y='{30 + thread * lane}' width='{size:.2f}' height='{lane - 4}' fill='{colour(name)}' "
            f"stroke='white' stroke-width='0.3'>"
            f"<title>{_escaped(tip)}</title></rect>"
        )
    bottom = 34 + threads * lane
    for i in range(6):
        x = left + width * i / 5
        parts.append(f"<path d='M{x:.1f} {bottom}v5' stroke='currentColor'/>")
        parts.append(f"<text x='{x:.1f}' y='{bottom + 18}' text-anchor='middle'>{end * factor * i / 5:.3g} {unit}</text>")
    return _drawing(left + width + 40, bottom + 26, title, parts)


def colour(name: str) -> str:
    """The colour of a kernel: what its name says before the first space, so that the charts of a profile agree."""
    return _PALETTE[zlib.crc32(name.split(" ")[0].encode()) % len(_PALETTE)]


def _drawing(width: int, height: int, title: str, parts: Sequence[str]) -> Svg:
    return Svg(
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' style='max-width:100%' "
        f"font-family='sans-serif' font-size='12' fill='currentColor'><text x='4' y='16' font-weight='bold'>"
        f"{_escaped(title)}</text>{''.join(parts)}</svg>"
    )


for _kind, _view in ((Graph, graph_html), (Plan, plan_html), (Step, step_html), (HostStep, host_step_html)):
    setattr(_kind, "_repr_html_", _view)  # noqa: B010 (the type checker knows no such attribute)
