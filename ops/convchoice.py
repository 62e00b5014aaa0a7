"""Which of the possible algorithms computes a convolution: what describes a layer, the cost model, and the rules that choose.

`ops/convolve.py` names the algorithms of a layer, the one that the cost model prefers first; a rule takes one. The rule that
measures them is in `jitrt/measure.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from .kernels import target
from .kernels.blocking import heights
from .kernels.convweights import padded_columns
from .kernels.sizes import cached, deferred, fixed
from .kernels.winograd import in_groups
from .kernels.winogradforms import Form, forms
from .kernels.winogradgroups import group_cycles

# cycles of one core: fitted to layers of real networks
_MEMORY = 4  # bytes that a core gets from memory in a cycle while all cores read
_CACHE = 8  # bytes of transforms that a core writes or reads in a cycle
_BEGINNING = 24  # K steps that a tile costs beside its own
_LATENCY = 4  # of a multiply-add: a tile of one vector takes no less for a K step
_FEW_PIXELS = 7  # products of fewer take as long
_LAUNCHES = 10_000  # of every thread
_PAIR = 0.62  # the time of a multiply-add of int16 by that of a float32: of every product of integers
_AHEAD = 0.9  # of the direct way's time, which is what a form has to stay below


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


@cached(maxsize=256)
def winograd_forms(layer: ConvLayer) -> dict[str, Form]:
    """The forms of Winograd for filters of that size, by name."""
    return {f"winograd {form}": form for form in forms(layer.filters[2:], layer.dtype == "int16")}


def is_winograd(name: str) -> bool:
    """Whether an algorithm of that name is a form of Winograd's."""
    return name.startswith("winograd")


def winograd_by_cost(layer: ConvLayer, size: Sequence[int], threads: int, bits: int = 0) -> str:
    """The name of the form that is expected to be faster than the direct way for that output size; empty if none is.

    Args:
        bits: of the largest sum of a layer of int16.
    """
    whole = layer.dtype == "int16"
    best = fixed(_cheapest(layer.filters, layer.dilations, layer.groups, tuple(size), threads, whole, bits))
    return list(winograd_forms(layer))[best] if best >= 0 else ""


@deferred(least=None)
def _cheapest(
    filters: tuple[int, ...], dilations: tuple[int, ...], groups: int, size: tuple[int, ...], threads: int, whole: bool, bits: int
) -> int:  # fmt: skip
    """Which of the forms for these filters is expected to be faster than the direct way; -1: none.

    Products take their time at the register tile's speed or at that of reading the filters from memory, whichever is slower,
    and transforms theirs at the speed of the caches.
    """
    o, c, *kernel = filters
    taps, itemsize = prod(kernel), 2 if whole else 4
    cpu, each, height = target.current(), o // groups, heights()[0]
    columns = padded_columns(each, 4, groups)
    vectors = -(-each // cpu.lanes)
    pairs, rest = divmod(-(-2 * each // cpu.lanes) / 2 if cpu.masks else vectors, 2)  # the last one may be half a vector
    step = (2 * pairs / cpu.units + max(rest / cpu.units, bool(rest) * _LATENCY / height)) * (_PAIR if whole else 1)

    def products(sets: int, pixels: int, depth: int) -> float:
        """Of `sets` products with a filter of `depth` channels."""
        computing = pixels * (depth * step + vectors * _BEGINNING / cpu.units)
        return sets * groups * max(computing, columns * depth * itemsize / _MEMORY)

    best, least = -1, _AHEAD * products(1, prod(size), taps * c)
    for i, form in enumerate(forms(tuple(kernel), whole)):
        tiles = prod(form.tiles(size, dilations))
        if in_groups(filters, form, groups):
            cycles = groups * max(group_cycles(each, c, form.products, tiles), columns * c * taps * itemsize / _MEMORY)
        else:
            cycles = products(form.products, max(tiles, _FEW_PIXELS), c) + _LAUNCHES * threads
            cycles += form.products * tiles * (c * groups * itemsize + o * 4) / _CACHE
        if cycles < least and form.sum_bits >= bits and not form.coarse:
            best, least = i, cycles
    return best


def expected(layer: ConvLayer, names: Sequence[str]) -> str:
    """What the cost model prefers."""
    return names[0]


def without_winograd(layer: ConvLayer, names: Sequence[str]) -> str:
    """What the cost model prefers of the direct algorithms."""
    return next(name for name in names if not is_winograd(name))


def wherever_possible(name: str) -> Choose:
    """The algorithm of that name; for layers that do not have it a direct one."""
    return lambda layer, names: name if name in names else without_winograd(layer, names)


def winograd_of(tile: int, coarse: bool) -> Choose:
    """Winograd with tiles of as many outputs a side; for layers that have no such form, or a coarse one alone, a direct algorithm.

    Args:
        tile: outputs a side.
        coarse: whether coarse forms are meant too.
    """

    def choose(layer: ConvLayer, names: Sequence[str]) -> str:
        meant = (name for name, form in winograd_forms(layer).items() if max(form.outputs) == tile and coarse >= form.coarse)
        return next((name for name in meant if name in names), without_winograd(layer, names))

    return choose
