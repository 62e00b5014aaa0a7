"""Runs on threads: concurrent runs, forks, exits, faults, idle helpers, and memory that outputs are made in."""

import gc
import os
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import onnx.parser
import pytest

import jitrt as ort
from jitrt.memory import LARGE, Arena, Arenas, Recycler, Slabs
from jitrt.ops.pages import HUGE_PAGE, Growing, aligned, lasting


def session(text: str, threads: int = 2) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]>{text}'), options)


WORK = "g (float[N, M] x, float[M, M] w) => (float[N, M] y) { h = MatMul (x, w) t = Tanh (h) s = Softmax (t) y = Add (s, x) }"


def work_feeds(rows: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"x": rng.standard_normal((rows, 96), np.float32), "w": rng.standard_normal((96, 96), np.float32) / 10}


def work_expected(feeds: dict[str, np.ndarray]) -> np.ndarray:
    t = np.tanh(feeds["x"].astype(np.float64) @ feeds["w"])
    e = np.exp(t - t.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True) + feeds["x"]


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_any_number_of_threads_gives_the_same_result(threads):
    feeds = work_feeds(513, 0)
    (y,) = session(WORK, threads).run(None, feeds)
    np.testing.assert_allclose(y, work_expected(feeds), rtol=1e-5, atol=1e-5)


def test_many_threads_run_one_session_and_several():
    sessions = [session(WORK) for _ in range(3)]
    cases = [(work_feeds(rows, rows), rows) for rows in (1, 37, 300, 512)]
    expected = [work_expected(feeds) for feeds, _ in cases]
    wrong: list[object] = []

    def hammer(k: int) -> None:
        try:
            for i in range(40):
                number = (i + k) % len(cases)
                (y,) = sessions[(i * 7 + k) % len(sessions)].run(None, cases[number][0])
                if not np.allclose(y, expected[number], 1e-5, 1e-5):
                    wrong.append((k, i))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=hammer, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_sleeping_helpers_wake_for_every_run():
    one, feeds = session(WORK), work_feeds(400, 3)
    expected = work_expected(feeds)
    for pause in (0, 0, 1e-5, 1e-4, 2e-4, 1e-3, 5e-3) * 20:
        time.sleep(pause)
        (y,) = one.run(None, feeds)
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_dropped_plans_leave_no_helper_in_freed_memory():
    for seed in range(60):
        feeds = work_feeds(200 + seed % 3, seed)
        (y,) = session(WORK).run(None, feeds)
        gc.collect()
        np.testing.assert_allclose(y, work_expected(feeds), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_runs_with_helpers_of_its_own():
    one, feeds = session(WORK), work_feeds(400, 5)
    one.run(None, feeds)
    child = os.fork()
    if child == 0:
        (y,) = one.run(None, feeds)
        os._exit(0 if np.allclose(y, work_expected(feeds), 1e-5, 1e-5) else 1)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.01)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the child hung")
    assert status == 0
    (y,) = one.run(None, feeds)
    np.testing.assert_allclose(y, work_expected(feeds), rtol=1e-5, atol=1e-5)


SCRIPT = """
    import os, threading, time
    import numpy as np, onnx.parser, jitrt
    model = onnx.parser.parse_model('''<ir_version: 10, opset_import: ["": 20]>
        g (float[N, M] x) => (float[N, M] y) { t = Tanh (x) y = Exp (t) }''')
    options = jitrt.SessionOptions()
    options.intra_op_num_threads = 2
    session = jitrt.InferenceSession(model, options)
    x = np.ones((300, 300), np.float32)
    session.run(None, {"x": x})
"""


def run_script(more: str) -> subprocess.CompletedProcess:
    text = textwrap.dedent(SCRIPT) + textwrap.dedent(more)
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120)


def test_the_process_ends_while_threads_run():
    done = run_script("""
        def forever():
            while True:
                session.run(None, {"x": x})
        threading.Thread(target=forever, daemon=True).start()
        time.sleep(0.2)
        print("end")
    """)
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr


def test_an_idle_process_uses_no_cpu():
    # the process's own CPU time, whatever others use. A busy machine may delay a helper on its way to sleep: one quiet
    # second is enough, as helpers that spin or poll are never quiet
    done = run_script("""
        for attempt in range(6):
            before = time.process_time()
            time.sleep(1.0)
            used = time.process_time() - before
            if used < 0.01:
                break
        print(used)
    """)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.01


def test_a_fault_names_its_node_and_later_runs_are_right():
    one = session("g (float[5] x, int64[K] i) => (float[K] y) { [pick] y = Gather <axis = 0> (x, i) }")
    x = np.arange(5, dtype=np.float32)
    for _ in range(3):
        with pytest.raises(ort.InvalidArgument, match="pick"):
            one.run(None, {"x": x, "i": np.array([1, 7])})
        np.testing.assert_array_equal(one.run(None, {"x": x, "i": np.array([1, -1])})[0], [1, 4])


def test_a_failing_host_step_leaves_the_session_usable():
    one = session("g (float[N] x, int64[K] s) => (float[?] y) { t = Relu (x) y = Reshape (t, s) }")
    x = np.arange(6, dtype=np.float32)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="Reshape"):
            one.run(None, {"x": x, "s": np.array([4, 2])})
        assert one.run(None, {"x": x, "s": np.array([3, 2])})[0].shape == (3, 2)


# -- memory
@pytest.mark.parametrize("nbytes", [1, 63, LARGE, HUGE_PAGE + 5])
@pytest.mark.parametrize("allocate", [aligned, lasting])
def test_blocks_are_aligned(nbytes, allocate):
    block = allocate(nbytes)
    assert block.nbytes == nbytes
    assert block.ctypes.data % 64 == 0
    block[:] = 1


@pytest.mark.parametrize("room", [1, 100, HUGE_PAGE - 1, 3 * HUGE_PAGE + 5])
def test_growing_memory_stays_where_it_is_and_keeps_what_is_in_it(room):
    memory = Growing(room)
    start = memory.bytes.ctypes.data
    assert memory.bytes.nbytes == memory.room == room
    assert start % 64 == 0
    for used in (0, room // 3, room // 2, room):
        memory.use(used)
        assert memory.bytes[: room // 3].all() or used <= room // 3
        memory.bytes[:used] = 1
    assert memory.bytes.all()
    assert memory.bytes.ctypes.data == start


def test_an_arena_moves_only_when_it_has_no_room():
    arena = Arena()
    arena.grow(10_000)
    at = arena.address
    for nbytes in (1, 20_000, 10_000, arena.room):
        arena.grow(nbytes)
        assert arena.address == at
    arena.grow(arena.room + 1)
    assert arena.room > 80_000
    assert arena.bytes.ctypes.data == arena.address


def test_an_arena_falls_back_to_what_is_needed_where_addresses_are_scarce(monkeypatch):
    def scarce(room):
        if room > 5000:
            raise OSError
        return Growing(room)

    monkeypatch.setattr("jitrt.memory.Growing", scarce)
    arena = Arena()
    arena.grow(5000)
    assert arena.room == 5000


def test_an_arena_is_one_run_at_a_time():
    arenas = Arenas()
    first = arenas.take(Arena())
    second = arenas.take(first)
    assert first is not second
    arenas.give(first)
    arenas.give(second)
    assert arenas.take(first) is first
    assert arenas.take(first) is second


def test_plans_of_a_session_share_their_arena():
    one = session(WORK, threads=1)
    for rows in (8, 3, 400, 8, 2000, 3):
        feeds = work_feeds(rows, rows)
        assert np.allclose(one.run(None, feeds)[0], work_expected(feeds), 1e-4, 1e-5)
    assert len(one._engine.shared.arenas._free) == 1


def test_a_block_is_reused_only_when_every_view_is_gone():
    recycler, shape, size = Recycler(), (1000, 100), 400_000
    first = recycler.empty(shape, np.dtype(np.float32), size)
    view, where = first[3:, ::2].T, first.ctypes.data
    del first
    second = recycler.empty(shape, np.dtype(np.float32), size)
    assert second.ctypes.data != where
    shared = memoryview(view)
    del view
    third = recycler.empty(shape, np.dtype(np.float32), size)
    assert third.ctypes.data != where
    del shared
    assert recycler.empty(shape, np.dtype(np.float32), size).ctypes.data == where


def test_a_free_block_serves_outputs_of_half_its_size_and_more():
    recycler, kind = Recycler(), np.dtype(np.uint8)

    def made(n: int) -> np.ndarray:
        return recycler.empty((n * LARGE,), kind, n * LARGE)

    def place(n: int) -> int:
        return made(n).ctypes.data

    first, second = made(8), made(6)
    of_first, of_second = first.ctypes.data, second.ctypes.data
    assert of_first != of_second
    del first
    assert {place(n) for n in range(4, 9)} == {of_first}
    del second
    assert {place(n) for n in range(3, 7)} == {of_second}
    taken = made(6)
    assert place(9) != of_second  # which is taken: it takes the place of the first one
    assert recycler.held == (9 + 6) * LARGE
    assert place(5) != of_second
    assert recycler.held == (9 + 6) * LARGE
    del taken
    place(2)
    assert recycler.held == (9 + 6 + 2) * LARGE


def test_outputs_of_many_sizes_share_few_blocks():
    recycler, kind = Recycler(), np.dtype(np.uint8)
    for n in np.random.default_rng(0).integers(LARGE, 64 * LARGE, 1000):
        recycler.empty((int(n),), kind, int(n))
    assert recycler.held <= 2 * 64 * LARGE


def test_pieces_of_slabs_are_aligned_and_apart():
    slabs = Slabs(size=10 * LARGE)
    sizes = [1, LARGE - 1, LARGE, LARGE + 1, 3 * LARGE, 9 * LARGE + 13, 11 * LARGE, LARGE]
    pieces = [slabs.allocate(n) for n in sizes]
    for number, piece in enumerate(pieces):
        piece[:] = number
    for number, (piece, n) in enumerate(zip(pieces, sizes)):
        assert piece.nbytes == n
        assert piece.ctypes.data % 64 == 0
        assert (piece == number).all()


def test_remembered_memory_is_bounded():
    recycler = Recycler(limit=10 * LARGE)
    kept = [recycler.empty((LARGE + 64 * i,), np.dtype(np.uint8), LARGE + 64 * i) for i in range(40)]
    assert recycler.held <= recycler.limit
    assert len({a.ctypes.data for a in kept}) == 40


def test_outputs_of_earlier_runs_stay_as_they_were():
    one = session("g (float[N] x) => (float[N] y, float[N] z) { y = Neg (x) z = Identity (x) }")
    x = np.arange(100_000, dtype=np.float32)
    results = [one.run(None, {"x": x + k}) for k in range(6)]
    for k, (y, z) in enumerate(results):
        np.testing.assert_array_equal(y, -(x + k))
        np.testing.assert_array_equal(z, x + k)
    assert not any(np.shares_memory(z, x) for _, z in results)
