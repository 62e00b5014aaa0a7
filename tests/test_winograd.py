"""Winograd convolution against float64: borders, remainders of the tile, several strips and images, tails."""

import numpy as np
import pytest
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
from jitrt.ops.kernels import winograd
from jitrt.ops.kernels.spec import KernelSpec
from jitrt.ops.kernels.winograd import WinogradWeights, pack_winograd

ONE = (1, 1)
RNG = np.random.default_rng(3)
STATED = {"direct": 4e-7, "winograd2": 8e-7, "winograd4": 2e-6, "winograd6": 8e-6}  # of root mean squares; see docs/performance.md
TOLERANCE = {2: 3e-6, 4: 5e-6, 6: 2e-5}  # of the largest output


@pytest.mark.parametrize(("tile", "threads"), [(2, 1), (2, 2), (4, 1), (4, 2), (6, 2)])
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
def test_results_agree_with_float64(batch, channels, outputs, size, begin, end, tile, threads):
    memory = Memory()
    x = native(RNG.standard_normal((batch, channels, *size)).astype(np.float32))
    w = RNG.standard_normal((outputs, channels, 3, 3)).astype(np.float32)
    bias = RNG.standard_normal(outputs).astype(np.float32)
    y = empty(output_shape(x.shape, w.shape, ONE, ONE, begin, end), np.float32)
    other = native(RNG.standard_normal(y.shape).astype(np.float32))
    weights = WinogradWeights(w.shape[:2], tile, memory.keep(pack_winograd(w, tile)))
    run(
        winograd.winograd(
            image(x), weights, image(y), [*begin, *end], bias=memory.keep(bias), residual=image(other), low=-2.0,
            alloc=memory.alloc, threads=threads,
        )
    )  # fmt: skip
    expected = convolution(x, w, ONE, ONE, begin, end, 1) + bias.reshape(1, -1, 1, 1) + other
    assert relative_error(y, np.maximum(expected, -2.0)) < TOLERANCE[tile]


def test_the_epilogue_sees_every_output_once():
    memory = Memory()
    x, w = native(RNG.standard_normal((2, 16, 70, 60)).astype(np.float32)), RNG.standard_normal((16, 16, 3, 3)).astype(np.float32)
    y, counts = empty((2, 16, 70, 60), np.float32), np.zeros((2, 4200, 16), np.int32)
    args = block((y.ctypes.data, y.strides[0], y.strides[3], counts.ctypes.data, 4200, 16))
    epilogue = (address_of(KernelSpec("double", EPILOGUE)), memory.keep(args))
    weights = WinogradWeights(w.shape[:2], 4, memory.keep(pack_winograd(w, 4)))
    run(winograd.winograd(image(x), weights, image(y), [1, 1, 1, 1], epilogue=epilogue, alloc=memory.alloc, threads=2))
    assert (counts == 1).all()
    assert relative_error(y, 2 * convolution(x, w, ONE, ONE, ONE, ONE, 1)) < TOLERANCE[4]


def test_shapes_that_do_not_fit_are_errors():
    x, y = empty((1, 16, 8, 8), np.float32), empty((1, 12, 8, 8), np.float32)
    with pytest.raises(ValueError, match="vectors of"):
        winograd.winograd(image(x), WinogradWeights((12, 16), 4), image(y), [1, 1, 1, 1], alloc=Memory().alloc)


@pytest.mark.parametrize("layer", LAYERS[1:], ids=str)
def test_errors_are_as_the_documents_say(layer):
    """The table of docs/performance.md, with room for other vector widths."""
    found = errors(layer)
    assert {name: found[name][0] for name in STATED if found[name][0] > STATED[name]} == {}
    assert 1.5 < found["winograd4"][0] / found["direct"][0] < 8
