"""Kernels that change an input: where it lies if nobody reads it later, else in a copy."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnxruntime
import pytest
from kernel_problems import Memory, run

import jitrt
from jitrt.fusion.plan import Plan
from jitrt.ops.kernels.append import append_rows

CONSTANTS = """zero = Constant <value_ints = [0]> () one = Constant <value_ints = [1]> () three = Constant <value_ints = [3]> ()
    wide = Constant <value_ints = [2, 5]> ()"""
# what is scattered into, what is, what else becomes of it; how many copies of all of it are needed
SCATTERED = {
    "what dies": ("d = Exp (x) s = ScatterND (d, i, u) y = Neg (s)", 0),
    "what becomes an output": ("d = Exp (x) y = ScatterND (d, i, u)", 1),
    "an input": ("y = ScatterND (x, i, u)", 1),
    "what is read later": ("d = Exp (x) s = ScatterND (d, i, u) y = Add (s, d)", 1),
    "what is read in another shape": ("d = Exp (x) t = Transpose (d) s = ScatterND (d, i, u) r = Transpose (t) y = Mul (s, r)", 1),
    "rows of its own": ("d = Exp (x) h = Slice (d, one, three, zero) y = ScatterND (d, i, h)", 1),
    "several times": ("d = Exp (x) s = ScatterND (d, i, u) t = ScatterND <reduction = \"add\"> (s, i, u) y = Neg (t)", 0),
    "elements": ("d = Exp (x) j = Expand (i, wide) s = ScatterElements <axis = 0> (d, j, u) y = Neg (s)", 0),
}  # fmt: skip


def copied(plan: Plan) -> list[int]:
    """The bytes that each copy of a whole array takes over."""
    return [int(step.shape.split()[0]) for step in plan.steps if step.kernel.name == "copy" and step.shape.endswith(" bytes")]


@pytest.mark.parametrize("name", SCATTERED)
def test_scattering_copies_only_what_is_needed_otherwise(name: str) -> None:
    text, copies = SCATTERED[name]
    proto = onnx.parser.parse_model(f"""<ir_version: 9, opset_import: ["": 18]>
        g (float[7,5] x, int64[2,1] i, float[2,5] u) => (float[A,B] y) {{ {CONSTANTS} {text} }}""").SerializeToString()
    rng = np.random.default_rng(0)
    feeds = {"x": rng.standard_normal((7, 5), np.float32), "i": np.array([[6], [-7]]), "u": rng.standard_normal((2, 5), np.float32)}
    session = jitrt.InferenceSession(proto)
    (expected,) = onnxruntime.InferenceSession(proto).run(None, feeds)
    np.testing.assert_allclose(session.run(None, feeds)[0], expected, rtol=1e-5)
    assert copied(session.get_plan(feeds)).count(7 * 5 * 4) == copies


@pytest.mark.parametrize("op", ["TensorScatter <axis = 1> (past, x, at)", "ScatterElements <axis = 1> (past, places, x)"])
def test_an_output_on_the_input_that_it_changes_is_written_there(op: str) -> None:
    proto = onnx.parser.parse_model(f"""<ir_version: 11, opset_import: ["": 24]>
        g (float[3,9,4] past, float[3,2,4] x, int64[3] at, int64[3,2,4] places) => (float[3,9,4] present, float[3,4] z) {{
        present = {op} one = Constant <value_ints = [1]> () z = ReduceSum <keepdims = 0> (present, one) }}""").SerializeToString()
    rng, at = np.random.default_rng(0), np.array([0, 7, 3])
    past, x = rng.standard_normal((3, 9, 4), np.float32), rng.standard_normal((3, 2, 4), np.float32)
    feeds = {
        "past": past.copy(),
        "x": x,
        "at": at,
        "places": np.broadcast_to((at[:, None] + np.arange(2))[..., None], (3, 2, 4)).copy(),
    }
    expected = past.copy()
    for b, first in enumerate(at):
        expected[b, first : first + 2] = x[b]
    session = jitrt.InferenceSession(proto)
    binding = session.io_binding()
    for name in (each.name for each in session.get_inputs()):
        binding.bind_cpu_input(name, feeds[name])
    binding.bind_ortvalue_output("present", jitrt.OrtValue.ortvalue_from_numpy(feeds["past"]))
    binding.bind_output("z")
    binding.run()
    np.testing.assert_array_equal(feeds["past"], expected)
    np.testing.assert_allclose(binding.get_outputs()[1].numpy(), expected.sum(1), rtol=1e-5)
    assert 3 * 9 * 4 * 4 not in copied(binding.get_plan())


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (2, 3, 1, 5), (3, 2, 4, 64), (5, 1, 300, 7), (2, 0, 3, 4), (0, 2, 3, 4)])
@pytest.mark.parametrize("itemsize", [1, 2, 4, 8])
def test_rows_go_to_their_places_and_those_without_one_nowhere(sizes: tuple[int, ...], itemsize: int) -> None:
    batch, heads, rows, head = sizes
    memory, rng, room = Memory(), np.random.default_rng(0), 6
    # the rows of all heads of a token lie side by side
    x = memory.array((batch, rows, heads, head * itemsize), np.uint8)
    out = memory.array((batch, heads, room, head * itemsize), np.uint8)
    first = memory.array((batch,), np.int32)
    x[...], out[...], first[...] = rng.integers(0, 256, x.shape), 7, rng.integers(-3, room + 3, batch)
    expected = out.copy()
    for b in range(batch):
        for s in range(rows):
            if 0 <= first[b] + s < room:
                expected[b, :, first[b] + s] = x[b, s]
    strides = (x.strides[0], x.strides[2], x.strides[1])
    where = (memory.keep(array) for array in (x, first, out))
    run(append_rows(*where, sizes, strides, room, itemsize))
    np.testing.assert_array_equal(out, expected)
