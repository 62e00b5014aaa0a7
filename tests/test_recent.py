"""Runs that are like the one before take a short way, which gives the same results and refuses the same inputs."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from onnx.parser import parse_model
from small_model import MODEL, WRONG, K, X, raised

import jitrt

HEADER = '<ir_version: 10, opset_import: ["": 20]> g '
ADD = f"{HEADER}(float[N,M] x, float[N,M] y) => (float[N,M] s, float[N,M] d) {{ s = Add (x, y) d = Sub (x, y) }}"
RESHAPE = f"{HEADER}(float[N] x, int64[2] shape) => (float[A,B] y) {{ y = Reshape (x, shape) }}"


@pytest.fixture
def adding() -> jitrt.InferenceSession:
    return jitrt.InferenceSession(parse_model(ADD))


def _is_short(session: jitrt.InferenceSession, names: object, feeds: object) -> bool:
    return session._recent is not None and session._recent.is_like(names, feeds)


def test_other_numbers_of_the_same_shape_take_the_short_way(adding):
    rng = np.random.default_rng(0)
    for i in range(4):
        x, y = rng.standard_normal((2, 3, 5), np.float32)
        assert _is_short(adding, None, {"x": x, "y": y}) == (i > 0)
        s, d = adding.run(None, {"y": y, "x": x} if i % 2 else {"x": x, "y": y})
        np.testing.assert_array_equal(s, x + y)
        np.testing.assert_array_equal(d, x - y)
        assert not np.shares_memory(s, x)


def test_other_shapes_orders_outputs_and_layouts_are_right(adding):
    rng = np.random.default_rng(0)
    for names in (None, ["s", "d"], ["d"], ["d", "s"], [], ("s",), None):
        for shape in ((3, 5), (5, 3), (1, 1), (0, 4), (3, 5)):
            x, y = rng.standard_normal((2, *shape), np.float32)
            expected = {"s": x + y, "d": x - y}
            adding.run(names, {"x": x, "y": y})
            strided, readonly = np.asfortranarray(x), y.copy()
            readonly.flags.writeable = False
            for feeds in ({"x": x, "y": y}, {"x": strided, "y": readonly}, {"x": x.tolist() if x.size else x, "y": y}):
                got = adding.run(names, feeds)
                for name, value in zip(names or ["s", "d"], got, strict=True):
                    np.testing.assert_array_equal(value, expected[name])


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_refused_after_a_run_that_was_right(case):
    session = jitrt.InferenceSession(MODEL)
    feeds, names, said = WRONG[case]
    expected = session.run(None, {"x": X, "k": K})
    for _ in range(2):
        assert said in str(raised(lambda: session.run(names, feeds)))
        for a, b in zip(session.run(None, {"x": X, "k": K}), expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_where_contents_decide_there_is_no_short_way():
    session = jitrt.InferenceSession(parse_model(RESHAPE))
    x = np.arange(6, dtype=np.float32)
    for shape in ((2, 3), (3, 2), (3, 2), (1, 6)):
        (y,) = session.run(None, {"x": x, "shape": np.array(shape)})
        np.testing.assert_array_equal(y, x.reshape(shape))
        assert not _is_short(session, None, {"x": x, "shape": np.array(shape)})


def test_names_that_are_no_texts_are_refused_after_a_run_that_was_right(adding):
    x = np.ones((2, 2), np.float32)
    adding.run(["s"], {"x": x, "y": x})
    with pytest.raises(TypeError, match="an output's name is a string"):
        adding.run([np.array(["s", "d"])], {"x": x, "y": x})


def test_threads_of_different_shapes_do_not_mix(adding):
    problems: list[object] = []

    def work(rows: int) -> None:
        rng = np.random.default_rng(rows)
        for _ in range(200):
            x, y = rng.standard_normal((2, rows, 7), np.float32)
            s, d = adding.run(None, {"x": x, "y": y})
            if not (np.array_equal(s, x + y) and np.array_equal(d, x - y)):
                problems.append(rows)

    threads = [threading.Thread(target=work, args=(rows,)) for rows in (1, 3, 3, 8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not problems


# -- bound runs
JOIN = f"""{HEADER}(float[2,N,3] past, float[2,M,3] x) => (float[2,K,3] present, float[2,K,3] y) {{
    present = Concat <axis=1> (past, x) y = Neg (present)
}}"""


def _bound(session: jitrt.InferenceSession, **inputs: np.ndarray) -> jitrt.IOBinding:
    binding = session.io_binding()
    for name, x in inputs.items():
        binding.bind_cpu_input(name, x)
    return binding


def _comes_again(binding: jitrt.IOBinding) -> bool:
    return binding._again is not None and binding._again.is_like(binding._inputs, binding._outputs, binding._caches)


def test_a_bound_run_is_made_again_on_other_numbers_and_on_other_arrays(adding):
    x, y, place = np.ones((2, 3), np.float32), np.ones((2, 3), np.float32), np.zeros((2, 3), np.float32)
    binding = _bound(adding, x=x, y=y)
    binding.bind_output("s")
    binding.bind_ortvalue_output("d", jitrt.OrtValue.ortvalue_from_numpy(place))
    kept = []
    for i in range(5):
        x += i
        assert _comes_again(binding) == (i > 1)
        adding.run_with_iobinding(binding)
        kept.append((binding.get_outputs()[0].numpy(), x + y))
        np.testing.assert_array_equal(place, x - y)
    for got, expected in kept:
        np.testing.assert_array_equal(got, expected)
    other = np.full((2, 3), 7, np.float32)
    binding.bind_cpu_input("y", other)
    assert not _comes_again(binding)
    adding.run_with_iobinding(binding)
    np.testing.assert_array_equal(place, x - other)


def test_a_bound_array_that_was_given_another_shape_is_seen(adding):
    x, y = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((2, 3), np.float32)
    binding = _bound(adding, x=x, y=y)
    binding.bind_output("s")
    for _ in range(3):
        adding.run_with_iobinding(binding)
    assert _comes_again(binding)
    x.shape = y.shape = (3, 2)
    assert not _comes_again(binding)
    adding.run_with_iobinding(binding)
    np.testing.assert_array_equal(binding.get_outputs()[0].numpy(), x + y)
    y.shape = (2, 3)
    with pytest.raises(Exception, match="Add"):
        adding.run_with_iobinding(binding)


def test_a_bound_run_whose_caches_went_back_is_made_again():
    session, x = jitrt.InferenceSession(parse_model(JOIN)), np.zeros((2, 1, 3), np.float32)
    first = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    binding = _bound(session, x=x)
    cache = binding.bind_cache("past", "present", first, 8)
    binding.bind_output("y")
    for i in range(4):
        x[:], cache.rows = i, 2
        assert _comes_again(binding) == (i > 1)
        session.run_with_iobinding(binding)
        expected = np.concatenate([first, x], 1)
        np.testing.assert_array_equal(cache.numpy(), expected)
        np.testing.assert_array_equal(binding.get_outputs()[0].numpy(), -expected)
    assert not _comes_again(binding)  # the cache has grown
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(cache.numpy(), np.concatenate([expected, x], 1))
    cache.rows = 2
    cache.reserve(20)
    assert not _comes_again(binding)
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(cache.numpy(), np.concatenate([first, x], 1))
