"""How resizing, sampling, regions, patches and spectra are drawn."""

from __future__ import annotations

import numpy as np

from .catalogue import Case, Node, Sums, Undrawable, rule
from .draw import Draw, Values

INT64 = np.int64
SCALES = (0.5, 1.0, 1.5, 2.0, 3.0, 0.7)


@rule("Resize")
def resize(n: Node, d: Draw) -> Case:
    parameter = "T" if "T" in n.kernel else "T1"
    cubic = n.version >= 11 and n.type(parameter).kind == "f"  # onnxruntime has it for float32 alone
    mode = n.set("mode", None, "nearest", "linear", "cubic" if cubic else "linear")
    coordinates = n.set(
        "coordinate_transformation_mode", None, "half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric",
        *(["half_pixel_symmetric"] if n.version >= 19 else []),
    )  # fmt: skip
    n.set("nearest_mode", None, "round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    shape = (d.integer(1, 2), d.integer(1, 3), *(d.choice([1, 2, 3, 5, 8]) for _ in "hw"))
    if mode == "cubic":
        n.set("cubic_coeff_a", None, -0.5)
        n.set("exclude_outside", None, 0, 1)
    if mode in ("linear", "cubic") and n.version >= 18:
        n.set("antialias", None, None, 0, 1)
    x = n.values(parameter, shape, Values.PLAIN)
    by_scale = n.version == 10 or coordinates is None or d.chance(60)
    scales = [1.0, 1.0, d.choice(SCALES), d.choice(SCALES)]
    sizes = [*shape[:2], d.integer(1, 11), d.integer(1, 11)]
    if n.version == 10:
        return n.case(x, np.array(scales, np.float32), tolerance=Sums.STEP if x.dtype.kind != "f" else Sums.SUMS, maybe=(1,))
    axes = n.set("axes", None, [2, 3], [-2, -1]) if n.version >= 18 else None
    if axes:
        scales, sizes = scales[2:], sizes[2:]
    roi = np.array([], np.float32) if n.version < 13 else None
    given = (
        (np.array(scales, np.float32), None)
        if by_scale
        else (np.array([], np.float32) if n.version < 13 else None, np.array(sizes, INT64))
    )
    return n.case(x, roi, *given, tolerance=Sums.STEP if x.dtype.kind != "f" else Sums.SUMS, maybe=(2, 3))


@rule("Upsample")
def upsample(n: Node, d: Draw) -> Case:
    n.set("mode", None, "nearest", "linear")
    x = n.values("T", (d.integer(1, 2), d.integer(1, 3), d.integer(1, 5), d.integer(1, 5)), Values.PLAIN)
    scales = [1.0, 1.0, d.choice([1.0, 2.0, 3.0, 1.5]), d.choice([1.0, 2.0, 3.0, 1.5])]
    tolerance = Sums.STEP if x.dtype.kind != "f" else Sums.SUMS
    if n.has("scales"):
        n.set("scales", scales)
        return n.case(x, tolerance=tolerance)
    return n.case(x, np.array(scales, np.float32), tolerance=tolerance, maybe=(1,))


@rule("GridSample")
@rule("GridSample", domain="com.microsoft")
def grid_sample(n: Node, d: Draw) -> Case:
    rank = 3 if n.version >= 20 and d.chance(30) else 2
    old = n.version < 20
    n.set("mode", None, "nearest", *(("bilinear", "bicubic") if old else ("linear",) if rank == 3 else ("linear", "cubic")))
    n.set("padding_mode", None, "zeros", "border", "reflection")
    n.set("align_corners", None, 0, 1)
    batch = d.integer(1, 2)
    x = n.values("T1", (batch, d.integer(1, 3), *(d.integer(1, 6) for _ in range(rank))), Values.PLAIN)
    grid = d.values(
        x.dtype if "T2" not in n.kernel else n.type("T2"), (batch, *(d.integer(1, 5) for _ in range(rank)), rank), Values.PLAIN
    )
    return n.case(x, (grid * 0.6).astype(grid.dtype), tolerance=Sums.SUMS)


@rule("AffineGrid")
def affine_grid(n: Node, d: Draw) -> Case:
    rank, batch = d.integer(2, 3), d.integer(1, 2)
    n.set("align_corners", None, 0, 1)
    size = np.array([batch, d.integer(1, 3), *(d.integer(1, 5) for _ in range(rank))], INT64)
    return n.case(n.values("T1", (batch, rank, rank + 1), Values.PLAIN), size, tolerance=Sums.SUMS, maybe=(1,))


@rule("RoiAlign")
def roi_align(n: Node, d: Draw) -> Case:
    batch, regions = d.integer(1, 2), d.integer(0, 4)
    n.set("mode", None, "avg", "max")
    n.set("output_height", None, d.integer(1, 4))
    n.set("output_width", None, d.integer(1, 4))
    n.set("sampling_ratio", None, 0, 1, 3)
    n.set("spatial_scale", None, 0.5)
    n.set("coordinate_transformation_mode", None, "half_pixel", "output_half_pixel")
    x = n.values("T1", (batch, d.integer(1, 3), d.integer(2, 8), d.integer(2, 8)), Values.PLAIN)
    corner, extent = d.values(x.dtype, (regions, 2), Values.POSITIVE) * 2, d.values(x.dtype, (regions, 2), Values.POSITIVE) * 3
    boxes = np.concatenate([corner, corner + extent], -1).astype(x.dtype)
    return n.case(x, boxes, d.indices((regions,), batch, negative=False), tolerance=Sums.SUMS)


@rule("MaxRoiPool")
def max_roi_pool(n: Node, d: Draw) -> Case:
    batch, regions = d.integer(1, 2), d.integer(1, 4)
    n.set("pooled_shape", [d.integer(1, 4), d.integer(1, 4)])
    n.set("spatial_scale", None, 0.5)
    x = n.values("T", (batch, d.integer(1, 3), d.integer(3, 9), d.integer(3, 9)), Values.PLAIN)
    corner = d.indices((regions, 2), 4, np.float32, negative=False)
    boxes = np.concatenate(
        [
            d.indices((regions, 1), batch, np.float32, negative=False),
            corner,
            corner + d.indices((regions, 2), 5, np.float32, negative=False),
        ],
        -1,
    )
    return n.case(x, boxes.astype(np.float32))


@rule("Col2Im")
def col2im(n: Node, d: Draw) -> Case:
    rank = d.integer(1, 3)
    block = [d.integer(1, 3) for _ in range(rank)]
    strides = n.set("strides", None, [d.integer(1, 2) for _ in range(rank)]) or [1] * rank
    dilations = n.set("dilations", None, [d.integer(1, 2) for _ in range(rank)]) or [1] * rank
    pads = n.set("pads", None, [d.integer(0, 1) for _ in range(2 * rank)]) or [0] * 2 * rank
    counts = [d.integer(1, 4) for _ in range(rank)]
    image = [
        (c - 1) * s + (b - 1) * k + 1 - pads[i] - pads[i + rank]
        for i, (c, s, b, k) in enumerate(zip(counts, strides, block, dilations))
    ]
    if min(image) < 1:
        raise Undrawable
    x = n.values("T", (d.integer(1, 2), d.integer(1, 3) * int(np.prod(block)), int(np.prod(counts))), Values.PLAIN)
    return n.case(x, np.array(image, INT64), np.array(block, INT64), tolerance=Sums.SUMS, maybe=(1, 2))


@rule("DeformConv")
def deformable(n: Node, d: Draw) -> Case:
    group, offsets = d.choice([1, 1, 2]), d.choice([1, 1, 2])
    channels, outer = d.integer(1, 2) * group * offsets, d.integer(1, 2) * group
    kernel = [d.integer(1, 3), d.integer(1, 3)]
    strides = n.set("strides", None, [1, 2]) or [1, 1]
    pads = n.set("pads", None, [1, 0, 1, 1]) or [0] * 4
    dilations = n.set("dilations", None, [1, 1], [2, 1]) or [1, 1]
    n.set("group", group)
    n.set("offset_group", offsets)
    size = [d.integer(5, 7), d.integer(5, 7)]
    out = [(size[i] + pads[i] + pads[i + 2] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1 for i in range(2)]
    batch, taps = d.integer(1, 2), kernel[0] * kernel[1]
    x, w = n.values("T", (batch, channels, *size), Values.PLAIN), n.values("T", (outer, channels // group, *kernel), Values.PLAIN)
    offset = n.values("T", (batch, offsets * taps * 2, *out), Values.PLAIN)
    bias = n.values("T", (outer,), Values.PLAIN) if d.chance(50) else None
    mask = n.values("T", (batch, offsets * taps, *out), Values.PLAIN) if d.chance(50) else None
    return n.case(x, w, offset, bias, mask, tolerance=Sums.SUMS)


@rule("DFT")
def fourier(n: Node, d: Draw) -> Case:
    real = d.chance(50)
    shape = (d.integer(1, 2), *(d.integer(1, 9) for _ in range(d.integer(1, 2))), 1 if real else 2)
    x = n.values("T1", shape, Values.PLAIN)
    n.set("inverse", None, 0, 1)
    if real and not n.attributes.get("inverse"):
        n.set("onesided", None, 0, 1)
    axis = d.integer(1, len(shape) - 2)
    length = np.array(d.integer(1, 10), INT64) if d.chance(40) else None
    if n.has("axis"):
        n.set("axis", axis)
        return n.case(x, length, tolerance=Sums.SUMS, maybe=(1,))
    return n.case(x, length, np.array(d.choice([axis, axis - len(shape)]), INT64), tolerance=Sums.SUMS, maybe=(1, 2))


@rule("STFT")
def short_time_fourier(n: Node, d: Draw) -> Case:
    batch, length, frame, step = d.integer(1, 2), d.integer(12, 20), d.choice([4, 5, 8]), d.integer(1, 4)
    signal = n.values("T1", (batch, length, 1), Values.PLAIN)
    n.set("onesided", None, 0, 1)
    windowed = n.values("T1", (frame,), Values.PLAIN) if d.chance(60) else None
    given = np.array(frame, INT64) if windowed is None or d.chance(50) else None
    return n.case(signal, np.array(step, INT64), windowed, given, tolerance=Sums.SUMS)


@rule("HannWindow", "HammingWindow", "BlackmanWindow")
def window_function(n: Node, d: Draw) -> Case:
    n.set("periodic", None, 0, 1)
    return n.case(np.array(d.choice([2, 3, 8, 17]), n.type("T1")), tolerance=Sums.UNIT, maybe=(0,))


@rule("MelWeightMatrix")
def mel(n: Node, d: Draw) -> Case:
    values = [np.array(v, INT64) for v in (d.integer(1, 8), d.choice([16, 32, 64]), d.choice([8192, 16000]))]
    edges = [np.array(v, np.float32) for v in (d.choice([0, 20, 100]), d.choice([2000, 4000]))]
    return n.case(*values, *edges, tolerance=Sums.SUMS)


@rule("Det")
@rule("Inverse", domain="com.microsoft")
def determinant(n: Node, d: Draw) -> Case:
    size = d.integer(1, 5)
    x = n.values("T", (*d.shape(0, 2, least=1), size, size), Values.PLAIN)
    return n.case((x / 4 + 4 * np.eye(size)).astype(x.dtype), tolerance=Sums.SUMS)
