"""com.microsoft: what stands around linear attention in models: causal convolutions with a state, gates, gated normalisations."""

from __future__ import annotations

from math import prod

import numpy as np

from .builder import Builder, OperatorError
from .cast import widened
from .conv import conv
from .primitives import Tensor
from .reduce import fold_mean
from .registry import FLOATS, check_types, contrib

_SILU = ("silu", "swish")


@contrib("CausalConvWithState")
def causal_conv_with_state(
    t: Builder, x, weight, bias=None, past_state=None, *, ndim=1, activation="none", dilation=1, channels_last=0, state_window=0,
    state_update_capacity=0, state_channels_last=-1, state_length=0, input_channel_offset=0, input_channels=0,
):  # fmt: skip
    """A depthwise convolution [B, C, L] that looks at earlier places only, of which those before the first are the state.

    With `channels_last` all is [B, L, ...]; also the state for what comes next.
    """
    if ndim != 1 or state_window or state_update_capacity or state_channels_last != -1 or state_length or input_channels:
        raise OperatorError(
            "only ndim=1 is supported, and no windows or updates of states or slices of channels, which GPUs alone have"
        )
    if activation not in ("none", *_SILU):
        raise OperatorError(f"activation must be none, silu or swish, not {activation!r}")
    channels, before = weight.shape[0], (weight.shape[2] - 1) * dilation
    image = _channels_second(t, x, channels) if channels_last else x
    batch = image.shape[0]
    if past_state is None:
        past = t.constant(np.zeros((batch, channels, before), np.float32), x.dtype)
    else:
        past = _channels_second(t, past_state, channels) if channels_last else past_state
    both = t.concat([past, image], 2)
    y = conv(t, both, weight, bias, group=channels, dilations=[dilation])
    y = t.map("a * sigmoid(a)", y) if activation in _SILU else y
    present = t.take(both, 2, image.shape[2], both.shape[2])
    if not channels_last:
        return y, present
    return tuple(t.reshape(t.transpose(v, (0, 2, 1)), (batch, v.shape[2], *x.shape[2:])) for v in (y, present))


def _channels_second(t: Builder, x: Tensor, channels: int) -> Tensor:
    """[B, L, ...] as [B, C, L]."""
    if prod(x.shape[2:]) != channels:
        raise OperatorError(f"{list(x.shape)} does not have {channels} channels")
    return t.transpose(t.reshape(x, (*x.shape[:2], channels)), (0, 2, 1))


@contrib("LinearAttentionGate")
def linear_attention_gate(t: Builder, a, dt_bias, decay_scale, b=None):
    """decay_scale * softplus(a + dt_bias), and sigmoid(b), both of float32 throughout."""
    decay = t.map("c * softplus(a + b)", widened(t, a), dt_bias, decay_scale)
    decay = t.cast(decay, a.dtype)
    return decay if b is None else (decay, t.cast(t.map("sigmoid(a)", widened(t, b)), b.dtype))


@contrib("GatedRMSNorm")
def gated_rms_norm(t: Builder, x, scale, gate, *, epsilon=1e-5, activation="silu"):
    """Groups of as many channels as `scale` has by their root mean square, times the scale and the activated gate."""
    if activation not in ("sigmoid", *_SILU):
        raise OperatorError(f"activation must be silu, swish or sigmoid, not {activation!r}")
    if x.shape[-1] % scale.size or gate.shape != x.shape:
        raise OperatorError(f"a scale {list(scale.shape)} and a gate {list(gate.shape)} do not fit {list(x.shape)}")
    grouped = (*x.shape[:-1], x.shape[-1] // scale.size, scale.size)
    wide, opened = (t.reshape(widened(t, v), grouped) for v in (x, gate))
    text = "d * sigmoid(d)" if activation in _SILU else "sigmoid(d)"
    y = t.map(f"a / sqrt(b + {float(epsilon)!r}) * c * {text}", wide, _mean_square(t, wide), widened(t, scale), opened)
    return t.cast(t.reshape(y, x.shape), x.dtype)


def _mean_square(t: Builder, x: Tensor) -> Tensor:
    return fold_mean(t, t.map("a * a", x), [x.rank - 1])


@contrib("BranchwiseRMSNorm")
def branchwise_rms_norm(t: Builder, x, scale=None, *, num_branches=0, epsilon=1e-5):
    """Each branch [..., branches, H], or of flat [..., branches * H], by its root mean square, times the scale."""
    branches = num_branches or x.shape[-2]
    grouped = t.reshape(widened(t, x), (*x.shape[:-1], branches, x.shape[-1] // branches) if num_branches else x.shape)
    y = t.map(f"a / sqrt(b + {float(epsilon)!r})", grouped, _mean_square(t, grouped))
    if scale is not None:
        whole = scale.size == branches * grouped.shape[-1]
        y = t.map("a * b", y, t.reshape(t.cast(scale, np.float32), (branches if whole else 1, grouped.shape[-1])))
    return t.cast(t.reshape(y, x.shape), x.dtype)


@contrib("ScaledSiLU")
def scaled_silu(t: Builder, x, scale=None, *, alpha=1.0):
    """SiLU of x times a factor; each step is rounded to the type of x."""
    check_types((x,), FLOATS)
    factor = t.constant(alpha, np.float32) if scale is None else t.reshape(t.cast(scale, np.float32), ())
    scaled = t.cast(t.map("a * b", t.cast(x, np.float32), factor), x.dtype)
    return t.map("a * b", scaled, t.map("sigmoid(a)", scaled))


@contrib("GatedAdd")
def gated_add(t: Builder, x, y, gate, gate_weight=None):
    """x + y times a gate, one for each row."""
    if gate_weight is not None:
        raise OperatorError("gate_weight is supported by GPUs alone")
    check_types((x, y, gate), FLOATS)
    return t.map("a + b", x, t.map("a * b", y, gate))
