"""Tree ensembles: the leaves that rows reach, and the sum (minimum, maximum) of what these say.

A node is a record {threshold, byte offset of its feature, place of its first child}. The second child lies after the
first: the next place is ``child + size * (x <= threshold)``, without a branch. A leaf compares with the NaN that stands
behind a row's numbers, and is its own first child, so a walk takes as many steps as the tree is deep, wherever it
ends. Eight walks go on together, eight rows through one tree, or one row through eight trees: their loads overlap.

Task = a block of rows, stored by groups of eight with the same feature of all next to each other (L2). For each tree, whose
upper records stay in L1, all groups: each row adds up its trees in their order. Numba-free but for the factories.
"""

from __future__ import annotations

from collections.abc import Callable

from .image import SIZES, Opaque
from .launch import Launch
from .spec import handwritten

LANES = 8
_BLOCK_BYTES = 128 << 10
_MOST_ROWS = 512
# a record's threshold has the rows' type; after it come two 32-bit fields
FIELD = 4


def record_size(dtype: str) -> int:
    """Bytes of a node."""
    return SIZES[dtype] + 2 * FIELD


def feature_offset(dtype: str, feature: int) -> int:
    """What a record says of the feature it compares."""
    return feature * LANES * SIZES[dtype]


def walk(
    dtype: str, x: Opaque, out: Opaque, records: Opaque, trees: Opaque, votes: Opaque, columns: Opaque, rows: int, features: int,
    used: int, count: int, targets: int, fold: str, missing: bool, single: bool, threads: int,
) -> list[Launch]:  # fmt: skip
    """out[i, k]: what the leaves of row i say of target k, folded; NaN for a minimum or maximum of nothing. All dense.

    Args:
        trees: int64[count rounded up to eight, 3]: place of the root, steps to the nearest leaf and to the farthest.
        votes: where a leaf's `threshold` (as an int32) counts bytes from: {number, -}, then {target, weight} as often.
        columns: int64[used]: which of a row's features the records mean by 0, 1 ...; `used` itself is the NaN.
        fold: add, minimum or maximum. missing: some records lead NaN to the second child (bit 0 of the feature's offset).
        single: every leaf says one thing of the one target; its `threshold` is that.
    """
    if rows * targets == 0:
        return []
    row_bytes = (used + 1) * SIZES[dtype]
    fair = -(-rows // (4 * threads))
    block = max(LANES, min(_BLOCK_BYTES // row_bytes, _MOST_ROWS, fair) // LANES * LANES)
    args = (x, out, records, trees, votes, rows, features, count, targets, block, columns, used)
    kernel = handwritten("forest", "forest:factory", dtype=dtype, fold=fold, missing=missing, single=single)
    scratch = LANES * 8 + block * row_bytes
    return [Launch(kernel, args, -(-rows // block), scratch, f"{count} trees, {rows} rows", 0, rows * (row_bytes + 4 * targets))]


def factory(dtype: str, fold: str, missing: bool, single: bool) -> Callable:
    """The kernel of `walk`."""
    from . import simd

    size, words = SIZES[dtype], simd.block
    store = simd.store(dtype)
    by_rows, by_trees = _walks(dtype, missing, lanes=size, trees=0), _walks(dtype, missing, lanes=0, trees=3)
    add, pack = _add(dtype, fold, single), _pack(dtype)
    start = 0.0 if fold == "add" else float("nan")

    def kernel(args, task, scratch):
        rows, count, targets, block = args[5], args[7], args[8], args[9]
        first = task * block
        here = min(block, rows - first)
        out, packed, group = args[1] + first * targets * size, scratch + 64, (args[11] + 1) * LANES * size
        pack(args[0] + first * args[6] * size, packed, here, args[6], args[10], args[11])
        for i in range(here * targets):
            store(out + i * size, start)
        whole, found = here // LANES, words(scratch)
        for tree in range(count):
            for g in range(whole):
                by_rows(args[2], args[3] + 24 * tree, packed + g * group, scratch)
                for i in range(LANES):
                    add(args[2] + found[i], args[4], out + (g * LANES + i) * targets * size)
        for row in range(whole * LANES, here):
            x = packed + whole * group + (row - whole * LANES) * size
            for tree in range(0, count, LANES):
                by_trees(args[2], args[3] + 24 * tree, x, scratch)
                for i in range(min(LANES, count - tree)):
                    add(args[2] + found[i], args[4], out + row * targets * size)

    return kernel


def _step(dtype: str, missing: bool) -> Callable:
    """``step(records, place, x)``: the place after `place` for the row whose first feature lies at x."""
    from . import emit, simd

    def read(at, memory):
        raw = at.b.load(emit.pointer(at.b, at.v, emit.stored(memory, 0)), align=SIZES[memory])
        return emit.from_memory(at.b, raw, memory, 0)

    def step(records, place, x):
        at = records + place
        offset = read(at + SIZES[dtype], "u32").cast("i64")
        child = read(at + (SIZES[dtype] + FIELD), "u32").cast("i64")
        value = read(x + (offset & ~1 if missing else offset), dtype)
        second = value <= read(at, dtype)
        if missing:
            second = second | (value.isnan() & (offset & 1).cast("b1"))
        # the outcome is a coin's: a branch would be guessed wrong half of the time
        return child.choose(second, child + record_size(dtype), child)

    return simd.lift(step, "step")


def _walks(dtype: str, missing: bool, lanes: int, trees: int) -> Callable:
    """``walk(records, tree, x, found)``: the places of the leaves of eight walks, as int64.

    Args:
        lanes: bytes from one walk's row to the next one's. trees: words from its tree to the next one's.
    """
    from . import simd
    from .subroutine import subroutine

    step, words, child = _step(dtype, missing), simd.block, SIZES[dtype] + FIELD
    load, to_word = simd.load("u32", 0), simd.to("i64")

    @subroutine
    def walk(records, tree, x, found):
        t, out = words(tree), words(found)
        near, far = t[1], t[2]
        for i in range(1, LANES):
            near, far = min(near, t[i * trees + 1]), max(far, t[i * trees + 2])
        a, b, c, d = t[0], t[trees], t[2 * trees], t[3 * trees]
        e, f, g, h = t[4 * trees], t[5 * trees], t[6 * trees], t[7 * trees]
        going = True
        while going:
            for _ in range(near):
                a = step(records, a, x)
                b = step(records, b, x + lanes)
                c = step(records, c, x + 2 * lanes)
                d = step(records, d, x + 3 * lanes)
                e = step(records, e, x + 4 * lanes)
                f = step(records, f, x + 5 * lanes)
                g = step(records, g, x + 6 * lanes)
                h = step(records, h, x + 7 * lanes)
            out[0], out[1], out[2], out[3], out[4], out[5], out[6], out[7] = a, b, c, d, e, f, g, h
            far -= near
            going = False
            if far > 0:
                # a ragged tree: go on until all eight have come to a leaf
                near = min(far, 4)
                for i in range(LANES):
                    going = going or to_word(load(records + out[i] + child)) != out[i]

    return walk


def _pack(dtype: str) -> Callable:
    """``pack(x, packed, rows, features, columns, used)``: groups of eight rows, column by column, and a NaN.

    The last row fills up the last group.
    """
    from . import simd
    from .subroutine import subroutine

    size, load, store, words = SIZES[dtype], simd.load(dtype, 0), simd.store(dtype), simd.block
    nan = float("nan")

    @subroutine
    def pack(x, packed, rows, features, columns, used):
        column = words(columns)
        for first in range(0, rows, LANES):
            to = packed + first * (used + 1) * size
            for i in range(LANES):
                row = x + min(first + i, rows - 1) * features * size
                for j in range(used):
                    store(to + (j * LANES + i) * size, load(row + column[j] * size))
                store(to + (used * LANES + i) * size, nan)

    return pack


def _add(dtype: str, fold: str, single: bool) -> Callable:
    """``add(leaf, votes, out)``: what the leaf at an address says joins a row's results."""
    from . import emit, simd
    from .subroutine import subroutine

    size, load, store, load_word, to_word = (
        SIZES[dtype],
        simd.load(dtype, 0),
        simd.store(dtype),
        simd.load("i32", 0),
        simd.to("i64"),
    )
    # a minimum or maximum begins with NaN, which every comparison fails
    meaning = {
        "add": emit.E.__add__,
        "minimum": lambda old, new: old.select(old <= new, old, new),
        "maximum": lambda old, new: old.select(old >= new, old, new),
    }[fold]
    join = simd.lift(lambda old, new: meaning(old, new), f"join_{fold}")

    @subroutine
    def add(leaf, votes, out):
        if single:
            store(out, join(load(out), load(leaf)))
        else:
            at = votes + to_word(load_word(leaf))
            for _ in range(to_word(load_word(at))):
                at += 2 * size
                to = out + to_word(load_word(at)) * size
                store(to, join(load(to), load(at + size)))

    return add
