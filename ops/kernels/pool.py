"""Pooling over windows of a channels-last image: maximum (with indices), average, Lp norm; global as one window.

Vectorised over channels: one output pixel times up to four vectors of channels is accumulated in registers over the
taps of its window. Taps outside the image are skipped. Task = (image, output depth and rows, chunk of channels).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from . import target
from .depthwise import native_input, native_output
from .image import SIZES, Alloc, Image, channels_last, triple
from .launch import Launch
from .sizes import alike, certainly, deferred, least
from .spec import handwritten

if TYPE_CHECKING:
    from .emit import E
    from .window import Code

_TASK_BYTES = 64 << 10  # a task costs the executor about a microsecond
_WIDE = 4  # vectors of channels that are pooled together
_SPLIT_PIXELS = 1024  # a window above this size is pooled in two steps, if there is nothing else to share out


@dataclass(frozen=True)
class Window:
    """The geometry of a pooling operator, per spatial dimension.

    Attributes:
        include_pad: whether an average counts taps in the border (not those behind it, which `ceil_mode` can bring).
        divisor: of an average; 0: the number of taps.
        p: the exponent of an Lp norm.
        column_major: whether indices count the first spatial dimension fastest (storage_order = 1).
    """

    kernel: Sequence[int]
    strides: Sequence[int]
    dilations: Sequence[int]
    begin: Sequence[int]
    end: Sequence[int]
    include_pad: bool = False
    divisor: int = 0
    p: int = 2
    column_major: bool = False


def global_window(x: Image, p: int = 2) -> Window:
    """The window that covers the whole image."""
    size, one, zero = x.shape[2:], [1] * (len(x.shape) - 2), [0] * (len(x.shape) - 2)
    return Window(size, one, one, zero, zero, p=p)


def pool(
    dtype: str,
    mode: str,
    x: Image,
    y: Image,
    window: Window,
    *,
    indices: Image | None = None,
    alloc: Alloc,
    threads: int = 1,
    label: str = "pool",
) -> list[Launch]:
    """Pool x into y (ONNX MaxPool, AveragePool, LpPool and their global forms).

    Args:
        dtype: memory type of x and y. Maximum: any type but b1; others: f32, f64, f16, bf16.
        mode: "max" (NaN propagates; a window without taps gives the lowest value), "average" or "lp".
        y: its shape decides how many windows there are.
        indices: of maxima, int64: position of the first maximum in the C-contiguous x.

    Raises:
        ValueError: unknown mode, or indices of another mode than max.
    """
    if mode not in ("max", "average", "lp") or (indices is not None and mode != "max"):
        raise ValueError(f"pool: mode {mode!r}, indices {indices is not None}")
    launches: list[Launch] = []
    source = native_input(dtype, x, launches, alloc, threads, label)
    out, after = native_output(dtype, y, None, alloc, threads, label)
    places = indices
    if indices is not None:
        places, extra = native_output("i64", indices, None, alloc, threads, label)
        after = after + extra
    if 0 in y.shape:
        return []
    if indices is None and mode != "lp" and dtype in ("f32", "f64") and _worth_splitting(source, out, window, threads):
        launches += _two_steps(dtype, mode, source, out, window, alloc, threads, label)
    else:
        launches.append(_launch(dtype, mode, source, out, window, places, threads, label))
    return launches + after


def _worth_splitting(x: Image, y: Image, window: Window, threads: int) -> bool:
    chunks = -(-x.shape[1] // (_WIDE * target.current().lanes))
    whole = alike(window.kernel, x.shape[2:]) and certainly(y.pixels, 1) and not any(window.begin) and not any(window.end)
    return whole and len(x.shape) == 4 and threads > 1 and x.shape[0] * chunks < threads and x.pixels >= _SPLIT_PIXELS


def _two_steps(dtype: str, mode: str, x: Image, y: Image, window: Window, alloc: Alloc, threads: int, label: str) -> list[Launch]:
    """Pool a 2-D image in bands of rows, then the bands."""
    n, c, h, w = x.shape
    rows = -(-h // (4 * threads))
    bands = -(-h // rows)
    size = SIZES[dtype]
    middle = channels_last(alloc(n * c * bands * size), (n, c, bands, 1), size)
    zero, one = (0, 0), (1, 1)
    first = replace(window, kernel=(rows, w), strides=(rows, 1), dilations=one, begin=zero, end=(bands * rows - h, 0), divisor=1)
    second = replace(window, kernel=(bands, 1), strides=one, dilations=one, begin=zero, end=zero, divisor=window.divisor or h * w)
    return [
        _launch(dtype, mode, x, middle, first, None, threads, label),
        _launch(dtype, mode, middle, y, second, None, threads, label),
    ]


@deferred()
def _blocks(planes: int, height: int, channels: int, wide: int, wanted: int) -> tuple[int, int, int, int]:
    """(output rows of a task, blocks of rows, channels of a task, chunks of channels) for about so many tasks."""
    tasks = max(1, wanted)
    rows = max(1, min(height, -(-height * planes // tasks)))
    row_blocks = -(-height // rows)
    chunk = max(1, -(-channels // wide) // max(1, tasks // (planes * row_blocks))) * wide
    return rows, row_blocks, chunk, -(-channels // chunk)


def _launch(dtype: str, mode: str, x: Image, y: Image, window: Window, indices: Image | None, threads: int, label: str) -> Launch:
    x3, y3 = x.volume(), y.volume()
    i3 = (indices or y).volume()
    n, c, od, oh, ow = y3.shape
    kernel, strides = triple(window.kernel, 1), triple(window.strides, 1)
    lanes, size = _lanes(dtype), SIZES[dtype]
    taps = prod(kernel)
    wanted = least(4 * threads, n * c * od * oh * ow * taps * size // _TASK_BYTES)
    rows, row_blocks, chunk, chunks = _blocks(n * od, oh, c, _WIDE * lanes, wanted)
    d, h, w = x3.shape[2:]
    order = (1, d, d * h) if window.column_major else (h * w, w, 1)
    if window.column_major and len(x.shape) < 5:
        order = (0, 1, h) if len(x.shape) == 4 else (0, 0, 1)
    args = (x3.address, y3.address, indices.address if indices else 0,
            x3.strides[0], *x3.strides[2:], y3.strides[0], *y3.strides[2:], i3.strides[0], *i3.strides[2:],
            c, d, h, w, od, oh, ow, *kernel, *strides, *triple(window.dilations, 1), *triple(window.begin, 0),
            *triple(window.end, 0), int(window.include_pad), window.divisor, window.p, rows, row_blocks, chunk, chunks,
            c * d * h * w, d * h * w, *order)  # fmt: skip
    kernel_spec = handwritten(f"pool_{mode}", "pool:factory", dtype=dtype, mode="indices" if indices else mode)
    moved = size * n * c * (x3.pixels + y3.pixels)
    return Launch(kernel_spec, args, n * od * row_blocks * chunks, 0, label, n * c * y3.pixels * taps, moved)


def _lanes(dtype: str) -> int:
    return max(1, target.current().lanes * 4 // max(SIZES[dtype], 4 if dtype in ("f16", "bf16") else 1))


def factory(dtype: str, mode: str) -> Callable:
    """The kernel; mode as in `pool`, or "indices" for maxima with their positions."""
    lanes = _lanes(dtype) if mode != "indices" else target.current().lanes // 2
    size, tile = SIZES[dtype], _tile(dtype, mode, lanes)

    def kernel(args, task, scratch):
        c, d, h, w, od, oh, ow = args[15], args[16], args[17], args[18], args[19], args[20], args[21]
        kd, kh, kw, sd, sh, sw = args[22], args[23], args[24], args[25], args[26], args[27]
        dd, dh, dw, bd, bh, bw = args[28], args[29], args[30], args[31], args[32], args[33]
        rows, row_blocks, chunk, chunks = args[40], args[41], args[42], args[43]
        c0, outer = task % chunks * chunk, task // chunks
        block, outer = outer % row_blocks, outer // row_blocks
        depth, n = outer % od, outer // od
        at_d = depth * sd - bd
        d0, d1 = max(0, -(at_d // dd)), min(kd, (d - 1 - at_d) // dd + 1)
        all_d = min(kd, (d + args[34] - 1 - at_d) // dd + 1)
        for row in range(block * rows, min(oh, block * rows + rows)):
            at_h = row * sh - bh
            h0, h1 = max(0, -(at_h // dh)), min(kh, (h - 1 - at_h) // dh + 1)
            all_h = min(kh, (h + args[35] - 1 - at_h) // dh + 1)
            for col in range(ow):
                at_w = col * sw - bw
                w0, w1 = max(0, -(at_w // dw)), min(kw, (w - 1 - at_w) // dw + 1)
                nd, nh, nw = max(0, d1 - d0), max(0, h1 - h0), max(0, w1 - w0)
                count = nd * nh * nw
                if args[37] != 0:
                    count = all_d * all_h * min(kw, (w + args[36] - 1 - at_w) // dw + 1)
                if args[38] != 0:
                    count = args[38]
                x = args[0] + n * args[3] + c0 * size
                x += (at_d + d0 * dd) * args[4] + (at_h + h0 * dh) * args[5] + (at_w + w0 * dw) * args[6]
                y = args[1] + n * args[7] + depth * args[8] + row * args[9] + col * args[10] + c0 * size
                place = args[2] + n * args[11] + depth * args[12] + row * args[13] + col * args[14] + c0 * 8
                index = n * args[44] + c0 * args[45]
                index += (at_d + d0 * dd) * args[46] + (at_h + h0 * dh) * args[47] + (at_w + w0 * dw) * args[48]
                tile(args, x, y, place, index, nd, nh, nw, max(1, count), min(chunk, c - c0))

    return kernel


def _tile(dtype: str, mode: str, lanes: int) -> Callable:
    """``tile(args, x, y, place, index, nd, nh, nw, count, channels)``: one output pixel.

    x points at the first tap; nd, nh, nw count the taps; `count` divides an average; `index` is the position of the
    first tap and `place` where the position of the maximum goes.
    """
    from . import window

    def body(code, block, x, y, place, index, nd, nh, nw, count, channels):
        argument = [code.argument(block, i) for i in range(49)]
        steps = [(argument[4 + i] * argument[28 + i], argument[46 + i] * argument[28 + i]) for i in range(3)]
        step = lanes * code.size
        if mode == "indices":
            lane = window.emit.iota(code.builder, "i64", lanes) * window.emit.splat(argument[45], lanes)

        def group(offset, vectors, left):
            base = index
            if mode == "indices":
                base = index + offset / code.size * argument[45]
            sums = [code.variable(_initial(code, mode)) for _ in range(vectors)]
            # where a NaN was met: beside the chain of maxima, which then is one instruction a tap
            whole = "i64" if code.kind == "f64" else "i32"
            met = [code.variable(window.emit.constant(code.builder, whole, lanes, 0)) for _ in range(vectors)]
            best = code.variable(base)
            if mode == "indices":
                best = code.variable(lane + window.emit.splat(base, lanes))
            with code.taps([nd, nh, nw], steps, (x + offset, base)) as (at, here):
                for v, total in enumerate(sums):
                    value = code.load(at + v * step, left)
                    if mode == "indices":
                        old = total.get()
                        better = (value > old) | (value.isnan() & ~old.isnan())
                        found = lane + window.emit.splat(here, lanes)
                        best.set(found.select(better, found, best.get()))
                        total.set(value.select(better, value, old))
                    elif mode == "max":
                        total.set(total.get().at_least(value))
                        if window.emit.is_float(code.kind):
                            met[v].set(met[v].get() | value.isnan().cast(whole))
                    else:
                        total.set(_combine(code, mode, total.get(), value, argument[39]))
            for v, total in enumerate(sums):
                if mode == "max" and window.emit.is_float(code.kind):
                    total.set(total.get().select(met[v].get() != 0, total.get().like(np.nan), total.get()))
                code.store(y + offset + v * step, _finish(code, mode, total.get(), count, argument[39]), left)
            if mode == "indices":
                code.store(place + offset * (8 // code.size), best.get(), left, "i64")

        def vector(offset, vectors, left):
            group(offset, vectors, left)

        window.over_channels(code, channels, vector, 1 if mode == "indices" else _WIDE)

    return window.leaf("x y place index nd nh nw count channels", dtype, lanes, body)


def _initial(code: Code, mode: str) -> E:
    """The value that a window without taps has."""
    from . import emit

    lowest: float = 0
    if mode in ("max", "indices"):
        bits = emit.BITS[code.kind]
        lowest = -np.inf if emit.is_float(code.kind) else -(1 << (bits - 1)) if emit.is_signed(code.kind) else 0
    return emit.constant(code.builder, code.kind, code.lanes, lowest)


def _combine(code: Code, mode: str, total: E, value: E, p: E) -> E:
    return total + (value if mode == "average" else _power(code, value.abs(), p))


def _power(code: Code, base: E, exponent: E) -> E:
    """base ** exponent for an integer exponent of at least 0."""
    result = code.variable(base.like(1))
    with code.loop(exponent):
        result.set(result.get() * base)
    return result.get()


def _finish(code: Code, mode: str, total: E, count: E, p: E) -> E:
    from . import emit

    if mode == "average":
        return total / emit.splat(count.cast(code.kind), code.lanes)
    return _root(code, total, p) if mode == "lp" else total


def _root(code: Code, total: E, p: E) -> E:
    """total ** (1 / p) by Newton's method from the exponent divided by p; 0, infinity and NaN stay."""
    from . import emit

    whole = "i32" if code.kind == "f32" else "i64"
    one = total.like(1).bits(whole)
    divisor = emit.splat(p.cast(whole), code.lanes)
    guess = code.variable(((total.bits(whole) - one) / divisor + one).bits(code.kind))
    factor = emit.splat(p.cast(code.kind), code.lanes)
    with code.loop(code.word(7 if code.kind == "f32" else 8)):
        root = guess.get()
        guess.set(root + (total / _power(code, root, p - 1) - root) / factor)
    plain = (total > 0) & (total < np.inf)
    return total.select(plain, guess.get(), total)
