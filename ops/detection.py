"""Operators of detectors: NonMaxSuppression, RoiAlign, MaxRoiPool, GridSample, AffineGrid. Images are channels-last in memory."""

from __future__ import annotations

from math import prod

import numpy as np

from . import evaluate
from .builder import Builder, Declined, OperatorError
from .kernels import nms, sample
from .kernels.image import Image
from .primitives import LaunchContext, Opaque, Operand, Tensor
from .registry import op


@op("NonMaxSuppression", since=10)
def non_max_suppression(
    t: Builder, boxes: Tensor, scores: Tensor, max_output_boxes_per_class: Tensor | None = None,
    iou_threshold: Tensor | None = None, score_threshold: Tensor | None = None, *, center_point_box=0,
) -> Tensor | Opaque:  # fmt: skip
    """int64[chosen, 3] of (image, class, box): best boxes first, without those that overlap a better one too much."""
    if boxes.rank != 3 or boxes.shape[2] != 4 or scores.rank != 3 or scores.shape[::2] != boxes.shape[:2]:
        raise OperatorError(f"boxes {list(boxes.shape)} and scores {list(scores.shape)} do not fit each other")
    if boxes.dtype != np.float32 or scores.dtype != np.float32:
        raise Declined("boxes that are not float32")
    most = 0 if max_output_boxes_per_class is None else t.ints(max_output_boxes_per_class)[0]
    images, classes, count = scores.shape
    most = max(0, min(most, count))
    if images * classes * most == 0:
        return t.constant(np.zeros((0, 3), np.int64))
    overlap = t.constant(np.zeros(1, np.float32)) if iou_threshold is None else iou_threshold

    def launch(c: LaunchContext) -> list:
        threshold = c.inputs[3].address if c.inputs[3] else 0
        addresses = (c.inputs[0].address, c.inputs[1].address, c.inputs[2].address, threshold)
        outputs = (x.address for x in c.outputs)
        return nms.select(*addresses, *outputs, images, classes, count, most, bool(center_point_box))

    inputs = (boxes, scores, overlap, score_threshold)
    outputs = [(np.dtype(np.int32), (images, classes, most)), (np.dtype(np.int64), (images, classes))]
    dense = tuple(None if x is None else tuple(range(x.rank)) for x in inputs)
    chosen, counts = t.kernel("nms", inputs, outputs, launch, orders=dense)

    def gather(c: LaunchContext) -> list:
        return nms.rows(*(x.address for x in (*c.inputs, *c.outputs)), images, classes, most)

    kinds = [(np.dtype(np.int64), (images * classes * most, 3)), (np.dtype(np.int64), (1,))]
    rows, found = t.kernel("nms_rows", (chosen, counts), kinds, gather, orders=((0, 1, 2), (0, 1)))
    return t.cut(rows, found, 0)


@op("RoiAlign", since=10)
def roi_align_of_opset_10(
    t: Builder, X: Tensor, rois: Tensor, batch_indices: Tensor, *, mode="avg", output_height=1, output_width=1, sampling_ratio=0,
    spatial_scale=1.0,
) -> Tensor:  # fmt: skip
    """Before opset 16 pixels are their corners."""
    return _roi_align(t, X, rois, batch_indices, mode, (output_height, output_width), sampling_ratio, spatial_scale, False)


@op("RoiAlign", since=16)
def roi_align(
    t: Builder, X: Tensor, rois: Tensor, batch_indices: Tensor, *, coordinate_transformation_mode="half_pixel", mode="avg",
    output_height=1, output_width=1, sampling_ratio=0, spatial_scale=1.0,
) -> Tensor:  # fmt: skip
    """Each box of an image resampled to cells: averages (or maxima) of interpolated samples."""
    if coordinate_transformation_mode not in ("half_pixel", "output_half_pixel"):
        raise OperatorError(f"unknown coordinate_transformation_mode {coordinate_transformation_mode!r}")
    half = coordinate_transformation_mode == "half_pixel"
    return _roi_align(t, X, rois, batch_indices, mode, (output_height, output_width), sampling_ratio, spatial_scale, half)


def _roi_align(
    t: Builder, x: Tensor, boxes: Tensor, batch: Tensor, mode: str, size: tuple[int, int], ratio: int, scale: float, half: bool
) -> Tensor:
    if x.rank != 4 or boxes.rank != 2 or boxes.shape[1] != 4 or batch.shape != boxes.shape[:1]:
        raise OperatorError(f"an image {list(x.shape)}, boxes {list(boxes.shape)} and their images {list(batch.shape)} do not fit")
    if mode not in ("avg", "max"):
        raise OperatorError(f"mode must be avg or max, not {mode!r}")
    if x.dtype.name in ("float16", "bfloat16"):
        wide = [t.cast(v, np.float32) for v in (x, boxes)]
        return t.cast(_roi_align(t, *wide, batch, mode, size, ratio, scale, half), x.dtype)
    n, c, height, width = x.shape
    if n * height * width == 0:
        raise Declined("boxes in an empty image")
    count, order = boxes.shape[0], (0, 2, 3, 1)

    def launch(k: LaunchContext) -> list:
        name, index = evaluate.memory_name(x.dtype), evaluate.memory_name(batch.dtype)
        places = (_image(k.inputs[0]), *(v.address for v in (*k.inputs[1:], k.outputs[0])))
        return sample.roi_align(name, index, *places, count, size, mode, half, scale, ratio, alloc=k.alloc, threads=k.threads)

    return t.kernel(
        "roi_align", (x, boxes, batch), [(x.dtype, (count, c, *size))], launch, orders=(None, (0, 1), (0,)),
        output_orders=(order,), errors=("a box names an image that is not there",),
    )[0]  # fmt: skip


@op("MaxRoiPool")
def max_roi_pool(t: Builder, X: Tensor, rois: Tensor, *, pooled_shape, spatial_scale=1.0) -> Tensor:
    """The largest pixel in each cell of boxes (image, x1, y1, x2, y2), whose corners are rounded; an empty cell is 0."""
    if X.rank != 4 or rois.rank != 2 or rois.shape[1] != 5 or len(pooled_shape) != 2:
        raise OperatorError(f"an image {list(X.shape)}, boxes {list(rois.shape)} and cells {list(pooled_shape)} do not fit")
    if X.dtype.name in ("float16", "bfloat16"):
        wide = [t.cast(v, np.float32) for v in (X, rois)]
        return t.cast(max_roi_pool(t, *wide, pooled_shape=pooled_shape, spatial_scale=spatial_scale), X.dtype)
    if 0 in X.shape:
        raise Declined("boxes in an empty image")
    count, order = rois.shape[0], (0, 2, 3, 1)

    def launch(k: LaunchContext) -> list:
        places = (_image(k.inputs[0]), k.inputs[1].address, k.outputs[0].address)
        name = evaluate.memory_name(X.dtype)
        return sample.max_roi_pool(name, *places, count, pooled_shape, spatial_scale, alloc=k.alloc, threads=k.threads)

    return t.kernel(
        "max_roi_pool", (X, rois), [(X.dtype, (count, X.shape[1], *pooled_shape))], launch, orders=(None, (0, 1)),
        output_orders=(order,), errors=("a box names an image that is not there",),
    )[0]  # fmt: skip


@op("AffineGrid", since=20)
def affine_grid(t: Builder, theta: Tensor, size: Tensor, *, align_corners=0) -> Tensor:
    """[N, *spatial, rank]: where the points of an image of `size` come from, by a matrix [rank, rank + 1] for each."""
    n, _, *spatial = t.ints(size)
    rank = len(spatial)
    if theta.shape != (n, rank, rank + 1):
        raise OperatorError(f"matrices {list(theta.shape)} do not fit a size of {[n, '?', *spatial]}")
    axes = [np.linspace(-1, 1, m) if align_corners else (2 * np.arange(m) + 1) / m - 1 for m in spatial]
    # a point names the innermost dimension first
    points = np.stack([*reversed(np.meshgrid(*axes, indexing="ij")), np.ones(spatial)], -1).reshape(1, prod(spatial), rank + 1)
    grid = t.op("MatMul", t.constant(points, theta.dtype), t.transpose(theta, (0, 2, 1)), since=13)
    return t.reshape(grid, [n, *spatial, rank])


@op("GridSample", since=16)
def grid_sample(t: Builder, X: Tensor, grid: Tensor, *, align_corners=0, mode="linear", padding_mode="zeros") -> Tensor:
    """The image at the points of a grid, whose coordinates run from -1 to 1 along each dimension."""
    kind = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    if kind not in ("nearest", "linear", "cubic") or padding_mode not in ("zeros", "border", "reflection"):
        raise OperatorError(f"unknown mode {mode!r} or padding_mode {padding_mode!r}")
    spatial = X.rank - 2
    if grid.rank != X.rank or grid.shape[-1] != spatial or grid.shape[0] != X.shape[0]:
        raise OperatorError(f"a grid {list(grid.shape)} does not fit an image {list(X.shape)}")
    return sampled(t, X, grid, kind, padding_mode, "corners" if align_corners else "edges")


def sampled(t: Builder, X: Tensor, grid: Tensor, mode: str, padding: str, units: str) -> Tensor:
    """The image [N, C, *image] at the points of a grid [N, *size, rank], whose `units` the kernel explains."""
    if not 1 <= X.rank - 2 <= 3 or X.dtype.kind not in "fV" or 0 in X.shape[2:]:
        raise Declined("sampling of integers or of more than 3 dimensions")
    if X.dtype.name in ("float16", "bfloat16"):
        return t.cast(sampled(t, t.cast(X, np.float32), grid, mode, padding, units), X.dtype)
    if grid.dtype.name not in ("float32", "float64"):
        grid = t.cast(grid, np.float32)
    n, c = X.shape[:2]
    size = grid.shape[1:-1]
    order = (0, *range(2, X.rank), 1)

    def launch(k: LaunchContext) -> list:
        names = [evaluate.memory_name(v.dtype) for v in (X, grid)]
        places = (_image(k.inputs[0]), k.inputs[1].address, k.outputs[0].address)
        return sample.grid_sample(*names, *places, prod(size), mode, padding, units, alloc=k.alloc, threads=k.threads)

    return t.kernel(
        "grid_sample", (X, grid), [(X.dtype, (n, c, *size))], launch, orders=(None, tuple(range(grid.rank))),
        output_orders=(order,),
    )[0]  # fmt: skip


def _image(x: Operand) -> Image:
    return Image(x.address, x.shape, x.strides)
