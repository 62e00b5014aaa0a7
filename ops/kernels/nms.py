"""Greedy non-maximum suppression of the boxes of one image and class.

Candidates above the score threshold form a heap, the best on top (of equal scores the first box); each in turn is
compared with the boxes that were chosen, eight at a time, until one overlaps it too much. Task = (image, class). What
was chosen is then put together as rows.
Numba-free but for the factories.
"""

from __future__ import annotations

from collections.abc import Callable

from . import target
from .image import Opaque
from .launch import Launch
from .spec import handwritten


def select(
    boxes: Opaque, scores: Opaque, overlap: Opaque, threshold: Opaque, chosen: Opaque, counts: Opaque, images: int, classes: int,
    count: int, most: int, center: bool,
) -> list[Launch]:  # fmt: skip
    """chosen[b, c, : counts[b, c]]: the boxes that stay, best first.

    Args:
        boxes: float32[images, count, 4]; corners in any order, or center and size. scores: float32[images, classes, count].
        overlap: address of the intersection over union above which a box goes. threshold: address of the score that a
            box must exceed, or 0. chosen: int32[images, classes, most]. counts: int64[images, classes].
    """
    if images * classes == 0:
        return []
    args = (boxes, scores, overlap, threshold, chosen, counts, classes, count, most)
    kernel = handwritten("nms", "nms:factory", center=center)
    scratch = 16 * count + 20 * (most + 64)
    label = f"{images}x{classes} of {count} boxes"
    return [Launch(kernel, args, images * classes, scratch, label, 0, 4 * images * count * (classes + 4))]


def rows(chosen: Opaque, counts: Opaque, out: Opaque, found: Opaque, images: int, classes: int, most: int) -> list[Launch]:
    """out[: found[0]]: (image, class, box) of what `select` chose, int64[images * classes * most, 3]."""
    kernel = handwritten("nms_rows", "nms:listing")
    args = (chosen, counts, out, found, images * classes, classes, most)
    return [Launch(kernel, args, 1, 0, f"{images}x{classes}", 0, 28 * images * classes * most)]


def listing() -> Callable:
    """The kernel of `rows`."""
    from . import simd

    words, load, to_word = simd.block, simd.load("i32", 0), simd.to("i64")

    def kernel(args, task, scratch):
        counts, out, found = words(args[1]), words(args[2]), 0
        for pair in range(args[4]):
            for i in range(counts[pair]):
                out[found], out[found + 1] = pair // args[5], pair % args[5]
                out[found + 2] = to_word(load(args[0] + 4 * (pair * args[6] + i)))
                found += 3
        words(args[3])[0] = found // 3

    return kernel


def factory(center: bool) -> Callable:
    """The kernel of `select`."""
    from . import simd
    from .topk import _better, _key, _sink

    lanes = target.current().lanes
    load, store, load_vector = simd.load("f32", 0), simd.store("f32"), simd.load("f32", lanes)
    # `sink` brings the smallest key and of equal ones the largest index to the top: the best score, and with ~j the first box
    key, sink, better, words = _key("f32", False), _sink(), _better("f32", True), simd.block
    store_index, store_count, minimum, maximum = simd.store("i32"), simd.store("i64"), simd.at_most, simd.at_least
    splat, reduce_or, first, first_lanes = simd.splat("f32", lanes), simd.reduce_or, simd.first, simd.first_lanes(lanes)
    single = simd.to("f32")

    def kernel(args, task, scratch):
        count, most = args[7], args[8]
        image = task // args[6]
        scores, boxes = args[1] + 4 * task * count, args[0] + 16 * image * count
        heap, kept, row = words(scratch), scratch + 16 * count, 4 * (most + 64)
        limit = splat(load(args[2]))
        candidates = 0
        for i in range(0, count, lanes):
            if args[3] != 0 and i + lanes <= count and not better(scores + 4 * i, load(args[3])):
                continue
            for j in range(i, min(i + lanes, count)):
                score = load(scores + 4 * j)
                if args[3] == 0 or score > load(args[3]):
                    heap[2 * candidates], heap[2 * candidates + 1] = key(score), ~j
                    candidates += 1
        for i in range(candidates // 2 - 1, -1, -1):
            sink(scratch, i, candidates)
        chosen = 0
        while candidates > 0 and chosen < most:
            j = ~heap[1]
            candidates -= 1
            heap[0], heap[1] = heap[2 * candidates], heap[2 * candidates + 1]
            sink(scratch, 0, candidates)
            a, b, c, d = (load(boxes + 16 * j), load(boxes + 16 * j + 4), load(boxes + 16 * j + 8), load(boxes + 16 * j + 12))
            if center:
                a, b, c, d = a - c * single(0.5), b - d * single(0.5), a + c * single(0.5), b + d * single(0.5)
            a, b, c, d = min(a, c), min(b, d), max(a, c), max(b, d)
            area = (c - a) * (d - b)
            free = True
            if area > single(0):
                i = 0
                while free and i < chosen:
                    at = kept + 4 * i
                    height = minimum(load_vector(at + 2 * row), splat(c)) - maximum(load_vector(at), splat(a))
                    width = minimum(load_vector(at + 3 * row), splat(d)) - maximum(load_vector(at + row), splat(b))
                    common = maximum(height, 0.0) * maximum(width, 0.0)
                    other = load_vector(at + 4 * row)
                    over = (common / (other + splat(area) - common) > limit) & (common > 0.0) & (other > 0.0)
                    free = not first(reduce_or(over & first_lanes(chosen - i)))
                    i += lanes
            if free:
                at = kept + 4 * chosen
                store(at, a)
                store(at + row, b)
                store(at + 2 * row, c)
                store(at + 3 * row, d)
                store(at + 4 * row, area)
                store_index(args[4] + 4 * (task * most + chosen), j)
                chosen += 1
        store_count(args[5] + 8 * task, chosen)

    return kernel
