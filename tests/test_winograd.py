"""Winograd convolution against float64: all forms, borders, remainders of the tile, several strips and images, tails."""

from dataclasses import replace

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
from jitrt.ops.kernels import target, winograd, winogradgroups
from jitrt.ops.kernels.launch import Address
from jitrt.ops.kernels.spec import KernelSpec
from jitrt.ops.kernels.winograd import WinogradWeights, pack_winograd
from jitrt.ops.kernels.winogradforms import DIFFERENCE, Form, divisor, forms, matrices

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
        (1, 24, 40, (9, 7), (1, 1), (1, 1)),
        (2, 12, 20, (6, 11), (1, 1), (1, 1)),
        (1, 4, 8, (7, 5), (1, 1), (1, 1)),
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
    """Images smaller than the filters, channels and groups that are no multiple of a vector or a panel, any borders."""
    form = data.draw(st.sampled_from([form for form in forms(taps) if taps in ((3, 3), (5, 5)) or not form.coarse]))
    least = data.draw(st.sampled_from([4, target.current().lanes]))
    each, outputs = (least * data.draw(st.integers(1, 3)) // np.gcd(least, groups) for _ in "co")
    size = tuple(max(n, (r - 1) * d + 1 - b - e) for n, r, d, b, e in zip(size, taps, dilations, begin, end))
    x = native(RNG.standard_normal((data.draw(st.integers(1, 2)), each * groups, *size)).astype(np.float32))
    w = RNG.standard_normal((outputs * groups, each, *taps)).astype(np.float32)
    y, expected = result(x, w, begin, end, form, dilations, groups, data.draw(st.integers(1, 3)))
    assert relative_error(y, expected) < TOLERANCE[form.points]


@pytest.mark.parametrize("taps", range(1, 8))
@pytest.mark.parametrize(("points", "whole"), [(4, False), (6, False), (8, False), (4, True), (6, True)])
def test_the_matrices_are_those_of_a_convolution(points, whole, taps):
    """Exactly, in rational numbers: sums of products by Toom and Cook are those of the definition."""
    outputs = points - taps + 1
    if outputs < 1:
        return
    of = matrices(outputs, taps, whole)
    assert [len(of.outputs), len(of.filters), len(of.data)] == [outputs, points, points]
    for tap in range(taps):
        for at in range(points):
            found = [sum(a * of.filters[i][tap] * of.data[i][at] for i, a in enumerate(row)) for row in of.outputs]
            assert found == [of.divisor * (at == place + tap) for place in range(outputs)]
    assert not whole or all(x.denominator == 1 for matrix in (of.outputs, of.filters, of.data) for row in matrix for x in row)


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
@pytest.mark.parametrize(("cut", "groups"), [(False, 1), (True, 1), (False, 2), (True, 4)])
def test_the_epilogue_sees_every_output_once(form, dilations, cut, groups, monkeypatch):
    memory = Memory()
    if cut:
        monkeypatch.setattr(winogradgroups, "_STRIP_BYTES", 16 << 10)
        monkeypatch.setattr(winograd, "_STRIP_BYTES", 16 << 10)
        monkeypatch.setattr(winograd, "_ROW_BYTES", 16 << 10)
    x, pads = native(RNG.standard_normal((2, 16, 70, 60)).astype(np.float32)), [r // 2 * d for r, d in zip(form.taps, dilations)]
    w = RNG.standard_normal((16, 16 // groups, *form.taps)).astype(np.float32)
    y, counts = empty((2, 16, 70, 60), np.float32), np.zeros((2, 4200, 16), np.int32)
    args = block((y.ctypes.data, y.strides[0], y.strides[3], counts.ctypes.data, 4200, 16))
    epilogue = (address_of(KernelSpec("double", EPILOGUE)), memory.keep(args))
    weights = WinogradWeights(w.shape[:2], form, groups, memory.keep(pack_winograd(w, form, groups)))
    launches = winograd.winograd(image(x), weights, image(y), pads, dilations, epilogue=epilogue, alloc=memory.alloc, threads=2)
    run(launches)
    assert (counts == 1).all()
    assert relative_error(y, 2 * convolution(x, w, ONE, dilations, pads, pads, groups)) < TOLERANCE[form.points]


@pytest.mark.parametrize(("form", "dilations"), [(F4, (1, 1)), (F2, (2, 3)), (Form((1, 3), 8), (1, 1)), (Form((1, 5), 6), (1, 4))])
def test_long_rows_are_cut_into_pieces(form, dilations, monkeypatch):
    """And the workspace does not grow with the row."""
    w = RNG.standard_normal((16, 16, *form.taps)).astype(np.float32)
    pads = [r // 2 * d for r, d in zip(form.taps, dilations)]
    monkeypatch.setattr(winograd, "_STRIP_BYTES", 64 << 10)
    monkeypatch.setattr(winograd, "_ROW_BYTES", 64 << 10)
    monkeypatch.setattr(winogradgroups, "_STRIP_BYTES", 64 << 10)
    for batch, width, groups in ((1, 311, 1), (2, 623, 1), (1, 623, 4)):
        x = native(RNG.standard_normal((batch, 16, 3, width)).astype(np.float32))
        y, expected = result(x, w[:, : 16 // groups], pads, pads, form, dilations, groups, threads=2)
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
    assert square == kernels((5, 5), 6, (1, 3000)) == kernels((5, 5), 6, channels=48) == kernels((5, 5), 6, (7, 5), 512, (2, 3), 4)


def test_small_groups_are_one_launch_of_the_same_kernels_for_patches_and_outputs():
    def launches(groups, size=(9, 9)):
        x = image(empty((1, 64, *size), np.float32))
        return winograd.winograd(x, WinogradWeights((64, 64 // groups), F4, groups), x, [1, 1], alloc=Memory().alloc)

    patches, _, outputs = launches(1)
    (small,), (large,) = launches(4), launches(4, (70, 90))
    assert [arg.kernel.key for arg in small.args if isinstance(arg, Address)] == [patches.kernel.key, outputs.kernel.key]
    assert small.kernel == large.kernel
    assert large.scratch < 512 << 10


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
    with pytest.raises(ValueError, match="weights"):
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


# -- whole forms: integers, exactly
WHOLE = [form for taps in ((3, 3), (2, 2), (1, 3), (5, 1), (4, 3)) for form in forms(taps, whole=True)]


def whole_result(x, w, begin, end, form, dilations=ONE, groups=1):
    """The convolution of native int16 images by a whole form, with bias and residual, and its definition."""
    memory, pairs = Memory(), image(x)
    pairs = replace(pairs, shape=(len(x), x.shape[1] // 2, *x.shape[2:]), strides=(x.strides[0], 4, *x.strides[2:]))
    bias = RNG.integers(-9999, 9999, len(w)).astype(np.int32)
    y = empty(output_shape(x.shape, w.shape, ONE, dilations, begin, end), np.int32)
    other = native(RNG.integers(-9999, 9999, y.shape).astype(np.int32))
    weights = WinogradWeights(w.shape[:2], form, groups, memory.keep(pack_winograd(w, form, groups)))
    run(
        winograd.winograd(
            pairs, weights, image(y), [*begin, *end], dilations, bias=memory.keep(bias), residual=image(other), alloc=memory.alloc,
            threads=2,
        )
    )  # fmt: skip
    total = np.rint(convolution(x, w, ONE, dilations, begin, end, groups)).astype(np.int64)
    return y, total + bias.reshape(1, -1, 1, 1) + other


def test_whole_forms_are_those_whose_factors_fit_in_int16():
    assert [str(form) for form in forms((3, 3), whole=True)] == ["2x2", "4x4"]
    assert [str(form) for form in forms((5,), whole=True)] == ["2"]
    assert forms((5, 5), whole=True) == forms((1, 7), whole=True) == forms((1, 1), whole=True) == ()
    assert [form.sum_bits for form in forms((3, 3), whole=True)] == [30, 26]
    assert [form.sum_bits for form in forms((3, 3))] == [32] * 3


@pytest.mark.parametrize("total", [1, 4, 24, 576, 3 << 20])
def test_multiplications_are_undone_modulo_a_power_of_two(total):
    factor, bits = divisor(total)
    for value in (0, 1, -1, 777, (1 << 31 - bits) - 1, -(1 << 31 - bits)):
        product = np.array(value * total * factor % (1 << 32), np.uint32).astype(np.int32)
        assert product >> bits == value


@settings(max_examples=40, deadline=None)
@given(
    form=st.sampled_from(WHOLE),
    size=st.tuples(st.integers(1, 17), st.integers(1, 17)),
    begin=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    end=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilations=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    groups=st.integers(1, 4),
    data=st.data(),
)
def test_whole_forms_are_exact(form, size, begin, end, dilations, groups, data):
    lanes = target.current().lanes
    each = 2 * lanes * data.draw(st.integers(1, 2)) // np.gcd(lanes, groups)
    outputs = lanes * data.draw(st.integers(1, 3)) // np.gcd(lanes, groups)
    size = tuple(max(n, (r - 1) * d + 1 - b - e) for n, r, d, b, e in zip(size, form.taps, dilations, begin, end))
    x = native(RNG.integers(-DIFFERENCE, DIFFERENCE + 1, (2, each * groups, *size)).astype(np.int16))
    w = RNG.integers(-DIFFERENCE, DIFFERENCE + 1, (outputs * groups, each, *form.taps)).astype(np.int16)
    np.testing.assert_array_equal(*whole_result(x, w, begin, end, form, dilations, groups))


@pytest.mark.parametrize("form", WHOLE, ids=str)
def test_whole_forms_are_exact_at_the_ends_of_their_range(form):
    """Patches and filters of the largest magnitude with the signs of each row of the transforms, and their sums."""
    lanes = 2 * target.current().lanes

    def largest(matrices):
        rows = [np.sign(np.array([[float(x) for x in row] for row in matrix])) for matrix in matrices]
        signs = [np.where(np.multiply.outer(a, b) < 0, -1, 1) for a in rows[0] for b in rows[1]]
        return DIFFERENCE * np.stack([signs[i % len(signs)] for i in range(lanes)]).astype(np.int16)

    x = native(largest([of.data for of in form.matrices])[None])
    w = np.broadcast_to(largest([of.filters for of in form.matrices]), (lanes, lanes, *form.taps))
    for sign in (1, -1):
        np.testing.assert_array_equal(*whole_result(x, sign * w, (0, 0), (0, 0), form))
    limit = (1 << form.sum_bits - 1) - 30_000  # bias and residual come after the sum
    channels = limit // (DIFFERENCE**2 * np.prod(form.taps)) // lanes * lanes
    if channels > 2000:
        return
    x, w = native(np.full((1, channels, 5, 6), -DIFFERENCE, np.int16)), np.full((lanes, channels, *form.taps), DIFFERENCE, np.int16)
    np.testing.assert_array_equal(*whole_result(x, w, (0, 0), (0, 0), form))
