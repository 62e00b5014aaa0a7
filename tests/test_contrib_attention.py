"""com.microsoft's attention in all its forms, against onnxruntime or, where that has no kernel, against numpy."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from contrib_nodes import Numbers, assert_close, assert_same_node, f32, i32, kept, node_model, rng, run, run_both
from reference import skip_where_old

import jitrt

Array = np.ndarray
B, S, T, N, H = 2, 5, 7, 3, 4
D = N * H
FLOAT = np.float32
own = Numbers()


def attended(q: Array, k: Array, v: Array, scale: float | None = None, seen: Array | None = None) -> Array:
    """Attention of [B, N, S, H] in float64 as [B, S, N * H]."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    scores = q @ k.transpose(0, 1, 3, 2) * (scale or q.shape[-1] ** -0.5)
    scores = scores if seen is None else np.where(seen, scores, -np.inf)
    grown = np.exp(scores - scores.max(-1, keepdims=True))
    y = grown / grown.sum(-1, keepdims=True) @ v
    return y.transpose(0, 2, 1, 3).reshape(q.shape[0], q.shape[2], -1).astype(FLOAT)


def first(x: Array, heads: int = N) -> Array:
    """[B, S, N * H] as [B, N, S, H]."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


# -- Attention
MASKS = {
    "none": None, "ends": i32(3, 5), "an empty sequence": i32(0, 5), "ends and starts": i32(4, 5, 1, 0), "raw": own.kept(B, S),
    "offsets": i32(3, 5, 0, 3, 8, 0, 3, 8), "raw per query": own.kept(B, S, S),
}  # fmt: skip


@pytest.mark.parametrize("unidirectional", [0, 1])
@pytest.mark.parametrize("mask", MASKS)
def test_attention_reads_masks_of_every_form(mask: str, unidirectional: int) -> None:
    inputs = [f32(B, S, D), f32(D, 3 * D), f32(3 * D), MASKS[mask]]
    assert_same_node("Attention", inputs, num_heads=N, unidirectional=unidirectional)


def test_attention_takes_its_scale_filler_sizes_and_bias() -> None:
    x, weights, bias, mask = f32(B, S, D), f32(D, 3 * D), f32(3 * D), MASKS["raw"].copy()
    mask[:, 0] = 1  # where a row sees nothing, float32 near -10,000 leaves three digits of its scores
    assert_same_node("Attention", [x, weights, bias, mask], num_heads=N, scale=0.2, mask_filter_value=-1.0)
    assert_same_node("Attention", [x, f32(D, 42), f32(42), mask], num_heads=N, qkv_hidden_sizes=[12, 12, 18])
    assert_same_node("Attention", [x, weights, bias, mask, None, f32(B, 1, S, S)], num_heads=N, unidirectional=1)
    assert_same_node("Attention", [x, weights, bias, None, None, f32(1, N, S, S)], num_heads=N)


def test_attention_without_a_bias_adds_nothing() -> None:  # an old onnxruntime crashes: microsoft/onnxruntime#25005
    x, weights = f32(B, S, D), f32(D, 3 * D)
    with_zeros = run("Attention", [x, weights, np.zeros(3 * D, FLOAT)], num_heads=N)
    assert_close(run("Attention", [x, weights, None], num_heads=N), with_zeros)


@pytest.mark.parametrize("unidirectional", [0, 1])
@pytest.mark.parametrize("new", [1, 5])
def test_attention_continues_a_past(new: int, unidirectional: int) -> None:
    x, weights, bias, past = f32(B, new, D), f32(D, 3 * D), f32(3 * D), f32(2, B, N, 3, H)
    for mask in (None, kept(B, 3 + new), i32(3 + new, 2), kept(B, new, 3 + new)):
        inputs = [x, weights, bias, mask, past]
        assert_same_node("Attention", inputs, [FLOAT, FLOAT], num_heads=N, unidirectional=unidirectional)
    assert_same_node("Attention", [x, weights, bias], [FLOAT, FLOAT], num_heads=N, unidirectional=unidirectional)


def test_attention_in_a_shared_buffer_writes_at_the_end_of_the_past() -> None:
    x, weights, bias, buffer = f32(B, 1, D), f32(D, 3 * D), f32(3 * D), f32(2, B, N, 8, H)
    plain, present = run("Attention", [x, weights, bias, None, buffer[:, :, :, :3]], [FLOAT, FLOAT], num_heads=N, unidirectional=1)
    inputs = [x, weights, bias, None, buffer, None, i32(3)]
    y, written = run("Attention", inputs, [FLOAT, FLOAT], num_heads=N, unidirectional=1, past_present_share_buffer=1)
    assert_close([y, written[:, :, :, :4], written[:, :, :, 4:]], [plain, present, buffer[:, :, :, 4:]])


def test_attention_takes_the_mask_of_the_longest_sequence() -> None:
    x, weights, past = f32(B, 2, D), f32(D, 3 * D), f32(2, B, N, 3, H)
    mask = kept(B, 1, 9, 9)
    three = np.ascontiguousarray(mask[:, 0, 3:5, :5])
    results = [run("Attention", [x, weights, None, m, past], [FLOAT], num_heads=N) for m in (mask, three)]
    assert_close(*results)


# -- MultiHeadAttention
def test_multi_head_attention_is_onnxruntimes_with_every_mask() -> None:
    q, k, v, bias = f32(B, S, D), f32(B, T, D), f32(B, T, 18), f32(42)
    outputs = [FLOAT] * 4
    assert_same_node("MultiHeadAttention", [q, k, v], num_heads=N, scale=0.3)
    for mask in (None, i32(3, 7), kept(B, T), kept(B, S, T), i32(3, 5, 0, 5, 10, 0, 3, 8)):
        # scores next to -10000 have few digits
        got, expected = run_both("MultiHeadAttention", [q, k, v, bias, mask], outputs, num_heads=N)
        assert_close(got, expected, rtol=1e-5, atol=2e-5)
    assert_same_node("MultiHeadAttention", [q, k, v, bias, None, f32(1, 1, S, T)], outputs, num_heads=N)


def test_multi_head_attention_continues_a_past() -> None:
    q, k, v, past = f32(B, S, D), f32(B, S, D), f32(B, S, D), [f32(B, N, 3, H), f32(B, N, 3, H)]
    assert_same_node("MultiHeadAttention", [q, k, v], num_heads=N, unidirectional=1)
    assert_same_node("MultiHeadAttention", [q, k, v, None, None, None, *past], [FLOAT] * 4, num_heads=N)
    inputs = [q, k, v, f32(3 * D), kept(B, 8), f32(B, N, S, 8), *past]
    assert_same_node("MultiHeadAttention", inputs, [FLOAT] * 3, num_heads=N, unidirectional=1)


def test_multi_head_attention_reads_an_encoders_keys_as_they_are() -> None:
    q, k, v = f32(B, S, D), f32(B, N, T, H), f32(B, N, T, H)
    assert_same_node("MultiHeadAttention", [q, k, v], num_heads=N)
    assert_same_node("MultiHeadAttention", [q, k, v, f32(3 * D)], num_heads=N)


def test_multi_head_attention_unpacks_queries_keys_and_values() -> None:
    q, k, v, bias = f32(B, S, D), f32(B, S, D), f32(B, S, D), f32(3 * D)
    expected = run("MultiHeadAttention", [q, k, v, bias], num_heads=N)
    apart = [x.reshape(B, S, N, 1, H) for x in (q, k, v)]
    assert_close(run("MultiHeadAttention", [np.concatenate(apart, 3), None, None, bias], num_heads=N), expected)
    assert_close(run("MultiHeadAttention", [q, np.concatenate(apart[1:], 3), None, bias], num_heads=N), expected)
    y = attended(*(first(x + b) for x, b in zip((q, k, v), bias.reshape(3, D))))
    assert_close(expected, [y])


# -- decoding with one query
def test_decoder_masked_attention_is_onnxruntimes() -> None:
    name, q, k, v, cache = "DecoderMaskedMultiHeadAttention", f32(B, 1, D), f32(B, 1, D), f32(B, 1, D), [f32(B, N, 8, H)] * 2
    assert_same_node(name, [q, f32(B, N, T, H), f32(B, N, T, H)], num_heads=N)
    outputs = [FLOAT, None, None, FLOAT]
    assert_same_node(name, [q, f32(B, N, T, H), f32(B, N, T, H), kept(B, T)], outputs, num_heads=N, output_qk=1)
    how = {"num_heads": N, "past_present_share_buffer": 1}
    assert_same_node(name, [q, k, v, None, None, *cache, i32(3)], [FLOAT] * 3, **how)
    inputs = [q, k, v, kept(B, 4), f32(1, N, 1, 4), *cache, i32(3), None, None, f32(3 * D)]
    assert_same_node(name, inputs, [FLOAT] * 3, **how)
    packed = np.concatenate([q, k, v], 2)
    parts = run(name, [q, k, v, None, None, *cache, i32(3)], [FLOAT] * 3, **how)
    assert_close(run(name, [packed, None, None, None, None, *cache, i32(3)], [FLOAT] * 3, **how), parts)


def test_beams_read_the_keys_of_the_beams_that_they_come_from() -> None:
    q, k, v, source = f32(4, 1, D), f32(4, 1, D), f32(4, 1, D), rng.integers(0, 2, (2, 2, 8)).astype(np.int32)
    inputs = [q, k, v, np.ones((4, 4), np.int32), f32(1, N, 1, 4), f32(4, N, 8, H), f32(4, N, 8, H), i32(3), i32(2), source]
    name = "DecoderMaskedMultiHeadAttention"
    assert_same_node(name, inputs, [FLOAT] * 3, num_heads=N, past_present_share_buffer=1)


# -- rotary positions
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotary_embedding_is_onnxruntimes(interleaved: int, dtype: type) -> None:
    positions, size = rng.integers(0, 20, (B, S)), 8
    x, cos, sin = (a.astype(dtype) for a in (f32(B, S, N * size), f32(20, size // 2), f32(20, size // 2)))
    how = {"interleaved": interleaved}
    assert_same_node("RotaryEmbedding", [x, positions, cos, sin], [dtype], **how)
    assert_same_node("RotaryEmbedding", [x, np.array([3]), cos, sin], [dtype], **how)
    assert_same_node("RotaryEmbedding", [np.ascontiguousarray(first(x)), positions, cos, sin], [dtype], **how)
    partial = {"num_heads": N, "rotary_embedding_dim": 4, **how}
    assert_same_node("RotaryEmbedding", [x, positions, cos[:, :2].copy(), sin[:, :2].copy()], [dtype], **partial)


# -- grouped queries
Q, G, SIZE = 4, 2, 16
COS, SIN = own.f32(24, SIZE // 2), own.f32(24, SIZE // 2)
# batch, new tokens, length of the past (None: no past), the largest total, totals - 1, attributes and what else
GROUPED = {
    "a prompt without a cache": (1, 5, None, 5, [4], {}),
    "a prompt": (2, 5, 0, 5, [4, 4], {"do_rotary": 1}),
    "a prompt with neighbours turned": (2, 5, 0, 5, [4, 4], {"do_rotary": 1, "rotary_interleaved": 1}),
    "a prompt packed": (2, 5, 0, 5, [4, 4], {"do_rotary": 1, "packed": True}),
    "a padded prompt": (2, 5, 0, 5, [4, 2], {}),
    "a prompt in a long buffer": (1, 5, 9, 5, [4], {"do_rotary": 1}),
    "a window": (1, 5, 0, 5, [4], {"local_window_size": 2}),
    "a soft cap": (1, 5, 0, 5, [4], {"softcap": 0.7}),
    "a soft cap and a bias": (1, 5, 0, 5, [4], {"softcap": 1.5, "bias": (1, 1, 5, 5)}),
    "a smooth softmax": (1, 5, 0, 5, [4], {"smooth_softmax": 1}),
    "sinks": (1, 5, 0, 5, [4], {"sink": True}),
    "all keys": (2, 5, 0, 5, [4, 4], {"causal": 0}),
    "a scale and heads of their own": (1, 5, 0, 5, [4], {"scale": 0.1, "groups": 4}),
    "positions of a prompt": (2, 5, 0, 5, [4, 4], {"do_rotary": 1, "positions": [[3, 4, 5, 6, 7], [0, 1, 2, 3, 4]]}),
    "positions": (2, 1, 6, 7, [6, 6], {"do_rotary": 1, "positions": [[3], [6]]}),
    "a token": (1, 1, 6, 7, [6], {"do_rotary": 1}),
    "a token in a window": (1, 1, 6, 7, [6], {"local_window_size": 3}),
    "tokens of different sequences": (3, 1, 6, 7, [6, 6, 3], {"do_rotary": 1, "local_window_size": 2, "smooth_softmax": 1}),
    "a token in a long buffer": (1, 1, 9, 7, [6], {"do_rotary": 1}),
    "tokens in long buffers": (2, 1, 9, 7, [6, 4], {"do_rotary": 1}),
    "a second part of a prompt": (1, 3, 6, 9, [8], {"do_rotary": 1, "local_window_size": 4}),
    "half precision": (2, 1, 6, 7, [6, 4], {"do_rotary": 1, "softcap": 2.0, "dtype": np.float16}),
    "scores": (1, 5, 0, 5, [4], {"qk_output": 1, "softcap": 1.0}),
    "probabilities": (1, 1, 6, 7, [6], {"qk_output": 2, "bias": (1, 1, 1, 7)}),
}  # fmt: skip


def grouped_inputs(batch: int, new: int, past: int | None, total: int, lengths: list[int], how: dict) -> list[Array | None]:
    """The inputs that `GROUPED` describes."""
    dtype, groups = how.pop("dtype", FLOAT), how.setdefault("kv_num_heads", how.pop("groups", G))
    q, k, v = (f32(batch, new, heads * SIZE) for heads in (Q, groups, groups))
    given = [np.concatenate([q, k, v], 2), None, None] if how.pop("packed", False) else [q, k, v]
    cache = [None, None] if past is None else [f32(batch, groups, past, SIZE), f32(batch, groups, past, SIZE)]
    table = [COS, SIN] if how.get("do_rotary") else [None, None]
    positions, bias, sink = how.pop("positions", None), how.pop("bias", None), how.pop("sink", False)
    rest = [None if positions is None else np.array(positions), f32(*bias) if bias else None, f32(Q) if sink else None]
    inputs = [*given, *cache, i32(*lengths), np.array(total, np.int32), *table, *rest]
    return [x.astype(dtype) if x is not None and x.dtype == FLOAT else x for x in inputs]


@pytest.mark.parametrize("case", GROUPED)
def test_grouped_queries_are_onnxruntimes(case: str) -> None:
    batch, new, past, total, lengths, how = GROUPED[case]
    if "local_window_size" in how:
        skip_where_old("leaves the token itself out of a window's size (microsoft/onnxruntime#25927)")
    if "causal" in how:
        skip_where_old("knows no GroupQueryAttention that is not causal")
    how = {"num_heads": Q, **how}
    inputs = grouped_inputs(batch, new, past, total, lengths, how)
    outputs = [inputs[0].dtype.type] * (4 if "qk_output" in how else 3)
    got, expected = run_both("GroupQueryAttention", inputs, outputs, **how)
    for b, last in enumerate(lengths):  # what lies after a sequence's end is not defined
        rows = slice(0, last + 1 if new == total else new)
        assert_close([got[0][b, rows]], [expected[0][b, rows]])
        assert_close(*([x[b, :, : last + 1] for x in results[1:3]] for results in (got, expected)))
    assert_close(got[3:], expected[3:])


def test_queries_and_keys_may_be_normalised_before_they_turn() -> None:
    q, k, v = (f32(B, S, heads * SIZE) for heads in (Q, G, G))
    weights = [f32(SIZE), f32(SIZE)]

    def normalised(x: Array, weight: Array) -> Array:
        heads = x.reshape(B, S, -1, SIZE)
        return (heads / np.sqrt((heads**2).mean(-1, keepdims=True) + 0.01) * weight).reshape(x.shape)

    how = {"num_heads": Q, "kv_num_heads": G, "do_rotary": 1}
    tail = [None, None, i32(4, 4), np.array(5, np.int32), COS, SIN]
    inputs = [q, k, v, *tail, None, None, None, None, None, *weights]
    expected = run("GroupQueryAttention", [normalised(q, weights[0]), normalised(k, weights[1]), v, *tail], **how)
    assert_close(run("GroupQueryAttention", inputs, qk_norm_epsilon=0.01, **how), expected)


def test_a_padded_part_of_a_prompt_counts_its_own_tokens() -> None:
    q, k, v = (f32(B, 3, heads * SIZE) for heads in (Q, G, G))
    cache, counts, totals = [f32(B, G, 12, SIZE), f32(B, G, 12, SIZE)], i32(3, 2), i32(8, 5)
    how = {"num_heads": Q, "kv_num_heads": G, "do_rotary": 1}
    tail = [totals - 1, np.array(8, np.int32), COS, SIN]
    y, keys, _ = run("GroupQueryAttention", [q, k, v, *cache, *tail, *[None] * 7, counts], [FLOAT] * 3, **how)
    for b in range(B):
        rows, end = slice(0, counts[b]), totals[b]
        alone = [x[b : b + 1, rows] for x in (q, k, v)] + [x[b : b + 1, :, : end - counts[b]] for x in cache]
        tail = [totals[b : b + 1] - 1, np.array(end, np.int32), COS, SIN]
        expected = run("GroupQueryAttention", [*alone, *tail], [FLOAT] * 3, **how)
        assert_close([y[b : b + 1, rows], keys[b : b + 1, :, :end]], expected[:2])


# -- blocks of keys
ROWS = np.array([[0, 1, 3, 5, 8], [0, 1, 3, 6, 9]], np.int32)
COLUMNS = np.array([[0, 0, 1, 1, 2, 1, 2, 3, -1], [0, 0, 1, 0, 1, 2, 0, 2, 3]], np.int32)
LAYOUTS = np.array(
    [[[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 1]], [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 1, 1]]]
)


def sparse_inputs(batch: int, new: int, total: int, totals: list[int], rotary: bool) -> list[Array | None]:
    """Inputs of SparseAttention with blocks of 16 keys and a buffer of 64."""
    heads = [f32(batch, new, n * SIZE) for n in (Q, G, G)]
    cache, table = [f32(batch, G, 64, SIZE), f32(batch, G, 64, SIZE)], [f32(64, SIZE // 2), f32(64, SIZE // 2)]
    return [*heads, *cache, ROWS, COLUMNS, i32(total), i32(*totals), *(table if rotary else [None, None])]


@pytest.mark.parametrize(("new", "total"), [(50, 50), (1, 41)])
def test_sparse_attention_is_onnxruntimes(new: int, total: int) -> None:
    inputs = sparse_inputs(B, new, total, [total] * B, rotary=True)
    how = {"num_heads": Q, "kv_num_heads": G, "sparse_block_size": 16, "do_rotary": 1}
    model = node_model("SparseAttention", inputs, [FLOAT] * 3, attributes=how).SerializeToString()
    feeds = {f"x{i}": x for i, x in enumerate(inputs)}
    got = jitrt.InferenceSession(model).run(None, feeds)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    binding = session.io_binding()  # onnxruntime wants past and present to be the same memory
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(x.copy()) for name, x in feeds.items()}
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    binding.bind_output("y0")
    binding.bind_ortvalue_output("y1", values["x3"])
    binding.bind_ortvalue_output("y2", values["x4"])
    session.run_with_iobinding(binding)
    assert_close(got, [x.numpy() for x in binding.get_outputs()])


def test_sparse_attention_of_sequences_of_different_lengths_is_its_definition() -> None:
    totals = [63, 20]
    inputs = sparse_inputs(B, 1, 63, totals, rotary=False)
    y, keys, values = run(
        "SparseAttention", inputs, [FLOAT] * 3, num_heads=Q, kv_num_heads=G, sparse_block_size=16
    )  # fmt: skip
    for b, total in enumerate(totals):
        k, v = (np.repeat(x[b : b + 1, :, :total], Q // G, 1) for x in (keys, values))
        seen = np.tile(np.repeat(LAYOUTS[:, (total - 1) // 16], 16, 1)[:, :total], (Q // 2, 1)) > 0
        expected = attended(first(inputs[0][b : b + 1], Q), k, v, seen=seen[None, :, None])
        assert_close([y[b : b + 1], keys[b, :, total - 1]], [expected, inputs[1][b].reshape(G, SIZE)])
