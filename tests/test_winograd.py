"""Winograd convolution against float64: all forms, borders, remainders of the tile, several strips and images, tails."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_problems import (
    EPILOGUE,
    Memory,
    address_of,
    block,
    convolution,
    empty,
    image,
    native,
    output_shape,
    relative_error,
    run,
)

from benchmarks.errors import LAYERS, errors
from jitrt.ops.kernels import target, winograd
from jitrt.ops.kernels.spec import KernelSpec
from jitrt.ops.kernels.winograd import WinogradWeights, pack_winograd
from jitrt.ops.kernels.winogradforms import Form, forms, matrices

ONE = (1, 1)
RNG = np.random.default_rng(3)
F2, F4, F6 = forms((3, 3))
TOLERANCE = {4: 3e-6, 6: 5e-6, 8: 2e-5}  # of the largest output, by points


def result(x, w, begin, end, form, dilations=ONE, groups=1, threads=1, **rest):
    """The convolution of native images by a form, with bias and residual, and what float64 makes of it."""
    memory = Memory()
    bias = RNG.standard_normal(len(w)).astype(np.float32)
    y = empty(output_shape(x.shape, w.shape, ONE, dilations, begin, end), np.float32)
    other = native(RNG.standard_normal(y.shape).astype(np.float32))
    weights = WinogradWeights(w.shape[:2], form, groups, memory.keep(pack_winograd(w, form, groups)))
    run(
        winograd.winograd(
            image(x), weights, image(y), [*begin, *end], dilations, bias=memory.keep(bias), residual=image(other), low=-2.0,
            alloc=memory.alloc, threads=threads, **rest,
        )
    )  # fmt: skip
    expected = convolution(x, w, ONE, dilations, begin, end, groups) + bias.reshape(1, -1, 1, 1) + other
    return y, np.maximum(expected, -2.0)


@pytest.mark.parametrize(("form", "threads"), [(F2, 1), (F2, 2), (F4, 1), (F4, 2), (F6, 2)], ids=str)
@pytest.mark.parametrize(
    ("batch", "channels", "outputs", "size", "begin", "end"),
    [
        (1, 16, 32, (8, 8), (1, 1), (1, 1)),
        (2, 32, 16, (13, 6), (0, 1), (2, 0)),
        (3, 16, 16, (3, 3), (0, 0), (0, 0)),
        (1, 16, 48, (1, 1), (1, 1), (1, 1)),
        (1, 64, 64, (97, 113), (1, 1), (1, 1)),
        (2, 16, 16, (5, 9), (3, 4), (4, 3)),
    ],
)
def test_results_agree_with_float64(batch, channels, outputs, size, begin, end, form, threads):
    x = native(RNG.standard_normal((batch, channels, *size)).astype(np.float32))
    w = RNG.standard_normal((outputs, channels, 3, 3)).astype(np.float32)
    assert relative_error(*result(x, w, begin, end, form, threads=threads)) < TOLERANCE[form.points]


@settings(max_examples=60, deadline=None)
@given(
    taps=st.sampled_from([(3, 3), (5, 5), (1, 3), (3, 1), (1, 5), (5, 1), (1, 7), (7, 1), (3, 5)]),
    size=st.tuples(st.integers(1, 21), st.integers(1, 21)),
    begin=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    end=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    dilations=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    groups=st.integers(1, 4),
    data=st.data(),
)
def test_every_form_agrees_with_float64(taps, size, begin, end, dilations, groups, data):
    """Images smaller than the filters, groups that are no multiple of a vector or a panel, any borders."""
    form = data.draw(st.sampled_from([form for form in forms(taps) if taps in ((3, 3), (5, 5)) or not form.coarse]))
    lanes = target.current().lanes
    each, outputs = (lanes * data.draw(st.integers(1, 3)) // np.gcd(lanes, groups) for _ in "co")
    size = tuple(max(n, (r - 1) * d + 1 - b - e) for n, r, d, b, e in zip(size, taps, dilations, begin, end))
    x = native(RNG.standard_normal((data.draw(st.integers(1, 2)), each * groups, *size)).astype(np.float32))
    w = RNG.standard_normal((outputs * groups, each, *taps)).astype(np.float32)
    y, expected = result(x, w, begin, end, form, dilations, groups, data.draw(st.integers(1, 3)))
    assert relative_error(y, expected) < TOLERANCE[form.points]


@pytest.mark.parametrize("taps", range(1, 8))
@pytest.mark.parametrize("points", [4, 6, 8])
def test_the_matrices_are_those_of_a_convolution(points, taps):
    """Exactly, in rational numbers: sums of products by Toom and Cook are those of the definition."""
    outputs = points - taps + 1
    if outputs < 1:
        return
    of = matrices(outputs, taps)
    assert [len(of.outputs), len(of.filters), len(of.data)] == [outputs, points, points]
    for tap in range(taps):
        for at in range(points):
            found = [sum(a * of.filters[i][tap] * of.data[i][at] for i, a in enumerate(row)) for row in of.outputs]
            assert found == [at == place + tap for place in range(outputs)]


def test_a_dimension_of_one_tap_is_not_transformed():
    assert matrices(1, 1).outputs == matrices(1, 1).filters == matrices(1, 1).data == ((1,),)
    for form in forms((1, 7)):
        assert (form.outputs, form.patch, form.products) == ((1, 2), (1, 8), 8)


def test_forms_are_for_several_taps_in_one_or_two_dimensions():
    assert [str(form) for form in forms((3, 3))] == ["2x2", "4x4", "6x6"]
    assert [str(form) for form in forms((5, 5))] == ["2x2", "4x4"]
    assert [str(form) for form in forms((3,))] == ["4", "6"]
    assert forms((1, 1)) == forms((3, 3, 3)) == forms((9, 9)) == ()
    assert {str(form) for taps in ((3, 3), (5, 5), (1, 3), (7, 1)) for form in forms(taps) if form.coarse} == {"6x6", "4x4"}


@pytest.mark.parametrize(("form", "dilations"), [(F4, (1, 1)), (F4, (2, 3)), (Form((5, 1), 6), (3, 1)), (Form((1, 3), 6), (1, 2))])
@pytest.mark.parametrize("cut", [False, True])
def test_the_epilogue_sees_every_output_once(form, dilations, cut, monkeypatch):
    memory = Memory()
    if cut:
        monkeypatch.setattr(winograd, "_STRIP_BYTES", 16 << 10)
        monkeypatch.setattr(winograd, "_ROW_BYTES", 16 << 10)
    x, pads = native(RNG.standard_normal((2, 16, 70, 60)).astype(np.float32)), [r // 2 * d for r, d in zip(form.taps, dilations)]
    w = RNG.standard_normal((16, 16, *form.taps)).astype(np.float32)
    y, counts = empty((2, 16, 70, 60), np.float32), np.zeros((2, 4200, 16), np.int32)
    args = block((y.ctypes.data, y.strides[0], y.strides[3], counts.ctypes.data, 4200, 16))
    epilogue = (address_of(KernelSpec("double", EPILOGUE)), memory.keep(args))
    weights = WinogradWeights(w.shape[:2], form, 1, memory.keep(pack_winograd(w, form)))
    launches = winograd.winograd(image(x), weights, image(y), pads, dilations, epilogue=epilogue, alloc=memory.alloc, threads=2)
    run(launches)
    assert (counts == 1).all()
    assert relative_error(y, 2 * convolution(x, w, ONE, dilations, pads, pads, 1)) < TOLERANCE[form.points]


@pytest.mark.parametrize(("form", "dilations"), [(F4, (1, 1)), (F2, (2, 3)), (Form((1, 3), 8), (1, 1)), (Form((1, 5), 6), (1, 4))])
def test_long_rows_are_cut_into_pieces(form, dilations, monkeypatch):
    """And the workspace does not grow with the row."""
    w = RNG.standard_normal((16, 16, *form.taps)).astype(np.float32)
    pads = [r // 2 * d for r, d in zip(form.taps, dilations)]
    monkeypatch.setattr(winograd, "_STRIP_BYTES", 64 << 10)
    monkeypatch.setattr(winograd, "_ROW_BYTES", 64 << 10)
    for batch, width in ((1, 311), (2, 623)):
        x = native(RNG.standard_normal((batch, 16, 3, width)).astype(np.float32))
        y, expected = result(x, w, pads, pads, form, dilations, threads=2)
        assert relative_error(y, expected) < TOLERANCE[form.points]
    sizes = []
    for width in (5000, 50_000):
        x, memory = image(empty((1, 16, 1, width), np.float32)), Memory()
        weights = WinogradWeights(w.shape[:2], form)
        winograd.winograd(x, weights, x, pads, dilations, alloc=lambda n, memory=memory: sizes.append(n) or memory.alloc(n))
    assert len(sizes) == 4
    assert max(sizes) < 1.3 * min(sizes) < 128 << 10


def test_kernels_are_compiled_for_points_alone():
    """Filters of as many points share the kernel that makes patches; sizes, borders, dilations and groups are arguments."""

    def kernels(taps, points, size=(9, 9), channels=16, dilations=ONE, groups=1):
        x = image(empty((1, channels, *size), np.float32))
        weights = WinogradWeights((channels, channels // groups), Form(taps, points), groups)
        pads = [r // 2 * d for r, d in zip(taps, dilations)]
        first, product, last, *_ = winograd.winograd(x, weights, x, pads, dilations, alloc=Memory().alloc)
        return first.kernel.key, product.kernel.key, last.kernel.key

    square, line = kernels((5, 5), 6), kernels((1, 3), 6)
    assert kernels((3, 3), 6)[:2] == square[:2]
    assert kernels((3, 3), 6)[2] != square[2]
    assert line[0] == kernels((1, 5), 6)[0] != square[0]
    assert line == kernels((3, 1), 6)
    assert square == kernels((5, 5), 6, (1, 3000)) == kernels((5, 5), 6, channels=48) == kernels((5, 5), 6, (7, 5), 32, (2, 3), 4)


def test_values_that_are_not_finite_stay_in_their_tile():
    x = native(RNG.standard_normal((1, 16, 12, 12)).astype(np.float32))
    w = RNG.standard_normal((16, 16, 5, 5)).astype(np.float32)
    x[0, 3, 6, 6] = np.nan
    y, expected = result(x, w, (2, 2), (2, 2), forms((5, 5))[0])
    wrong = np.isnan(y)
    assert wrong[np.isnan(expected)].all()
    assert not wrong[:, :, [0, 1, 2, 3, 10, 11]].any()
    assert not wrong[..., [0, 1, 2, 3, 10, 11]].any()


@pytest.mark.parametrize(
    ("x", "w", "groups", "y"),
    [
        ((1, 16, 8, 8), (10, 16), 1, (1, 10, 8, 8)),
        ((1, 16, 8, 8), (16, 16), 2, (1, 16, 8, 8)),
        ((1, 16, 8, 8), (16, 16), 1, (2, 16, 8, 8)),
    ],
)
def test_shapes_that_do_not_fit_are_errors(x, w, groups, y):
    with pytest.raises(ValueError, match="vectors of"):
        winograd.winograd(
            image(empty(x, np.float32)), WinogradWeights(w, F4, groups), image(empty(y, np.float32)), [1, 1, 1, 1],
            alloc=Memory().alloc,
        )  # fmt: skip


def test_three_dimensions_are_an_error():
    x = empty((1, 16, 2, 8, 8), np.float32)
    with pytest.raises(ValueError, match="three dimensions"):
        winograd.winograd(image(x), WinogradWeights((16, 16), F4), image(x), [1, 1], alloc=Memory().alloc)


@pytest.mark.parametrize("layer", LAYERS[1:], ids=str)
def test_errors_are_as_the_documents_say(layer):
    """The table of docs/performance.md, with room for other vector widths; what errs more is a coarse form."""
    found = {name: error for name, (error, _) in errors(layer).items()}
    assert found["direct"] < 4e-7
    for form in forms(layer.kernel):
        error = found[f"winograd {form}"]
        assert error < (8e-6 if form.coarse else 2e-6 if form.points > 4 else 8e-7)
        assert form.coarse == (error > 2e-6)
        assert form.points == 4 or 1.4 < error / found["direct"] < (40 if form.coarse else 8)
