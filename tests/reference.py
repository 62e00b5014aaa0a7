"""Where the onnxruntime that there is to compare with is too old for a comparison.

Python 3.10 has none newer than 1.23. A test says what that one lacks or does wrong, and is skipped there for this case only.
"""

from __future__ import annotations

import onnxruntime
import pytest

IS_NEW = tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 24)
# the operators of com.microsoft that onnxruntime has no schema of
ABSENT: frozenset[str] = frozenset(
    () if IS_NEW else (
        "BranchwiseRMSNorm", "CausalConvWithState", "GatedAdd", "GatedRMSNorm", "LinearAttention", "LinearAttentionGate",
        "MRotaryEmbedding", "ScaledSiLU",
    )
)  # fmt: skip


def skip_where_old(fault: str) -> None:
    """Skips the test that runs where onnxruntime is so old that it has a fault.

    Args:
        fault: what onnxruntime does, with its name left out.
    """
    if not IS_NEW:
        pytest.skip(f"onnxruntime {onnxruntime.__version__} {fault}")
