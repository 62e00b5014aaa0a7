"""Which of the possible algorithms computes a convolution: what describes a layer, and the rules that choose.

`ops/conv.py` names the algorithms of a layer, the one that its cost model prefers first; a rule takes one. The rule that
measures them is in `jitrt/measure.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ConvLayer:
    """All that decides how fast an algorithm is; never the batch size: filters stay packed, results the same, in another one.

    Attributes:
        image: (C, *spatial). filters: (O, C / groups, *kernel).
        pads: before each spatial dimension, then after each, as ONNX has them.
    """

    dtype: str
    image: tuple[int, ...]
    filters: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    groups: int

    def __str__(self) -> str:
        def by(sizes: Sequence[int]) -> str:
            return "x".join(map(str, sizes))

        filters = f"{self.filters[0]} filters {by(self.filters[2:])}"
        rest = f"strides {by(self.strides)}, dilations {by(self.dilations)}, pads {by(self.pads)}, groups {self.groups}"
        return f"{self.dtype} {by(self.image)}, {filters}, {rest}"


Choose = Callable[[ConvLayer, Sequence[str]], str]  # one of the names


def winograd_name(tile: int) -> str:
    """The name of the algorithm Winograd F(tile x tile, 3 x 3)."""
    return f"winograd {tile}x{tile}"


def is_winograd(name: str) -> bool:
    """Whether an algorithm of that name is a form of Winograd's."""
    return name.startswith("winograd")


def expected(layer: ConvLayer, names: Sequence[str]) -> str:
    """What the cost model prefers."""
    return names[0]


def without_winograd(layer: ConvLayer, names: Sequence[str]) -> str:
    """What the cost model prefers of the direct algorithms."""
    return next(name for name in names if not is_winograd(name))


def wherever_possible(name: str) -> Choose:
    """The algorithm of that name; for layers that do not have it a direct one."""
    return lambda layer, names: name if name in names else without_winograd(layer, names)
