"""The one table of operators: (domain, name, first opset) -> the function that lowers a node to primitives.

An operator is a plain function named in the schema's terms. It takes the builder, then the schema's inputs in order
(None for an absent optional one), then the schema's attributes as keyword-only arguments with the schema's defaults:

    @op("Softmax", since=13)
    def softmax(t, x, *, axis=-1): ...

and returns a Tensor or a tuple of them. An operator whose whole meaning is one scalar expression is one line:

    elementwise("HardSwish", "a * at_least(at_most(a / 6.0 + 0.5, 1.0), 0.0)", since=14)

Families register themselves when `load()` first imports them.
"""

from __future__ import annotations

import bisect
import enum
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from .builder import OperatorError

Lowering = Callable[..., object]
L = TypeVar("L", bound=Lowering)
MICROSOFT = "com.microsoft"
FAMILIES = (
    "elementwise", "cast", "shape", "movement", "reduce", "norm", "matmul", "conv", "pool", "gather", "scatter", "scan",
    "patches", "spectrum", "quant", "qlinear", "einsum", "gradient", "optimizers", "control", "sequence", "resize", "rnn", "random",
    "sort", "linalg", "detection", "contrib_fused", "contrib_attention", "contrib_decoding", "contrib_quant", "contrib_blockwise",
    "contrib_tensor", "contrib_text", "contrib_generation", "contrib_mixers", "linear_attention", "contrib_legacy", "text",
    "ngrams", "ml_features", "ml_labels", "ml_linear", "ml_trees",
)  # fmt: skip


class Takes(enum.Enum):
    """What inputs a lowering handles; a node with others goes to `ops.fallback`."""

    NATIVE = "native"  # tensors of the dtypes that kernels compute
    TENSORS = "tensors"  # tensors of any dtype
    VALUES = "values"  # anything, also sequences, optionals and tensors of unknown shape


@dataclass(frozen=True)
class Row:
    """One registered meaning of an operator, valid from opset `since` up to the next row's."""

    domain: str
    name: str
    since: int
    lower: Lowering
    takes: Takes = Takes.NATIVE
    text: str = ""
    host: bool = False  # Python computes it, whatever the inputs


_rows: dict[tuple[str, str], list[Row]] = {}


def op(name: str, since: int = 1, domain: str = "", takes: Takes = Takes.NATIVE, host: bool = False) -> Callable[[L], L]:
    """Register the decorated function as the operator's meaning from opset `since` on."""

    def register(function: L) -> L:
        _add(Row(domain, name, since, function, takes, host=host))
        return function

    return register


def contrib(name: str, takes: Takes = Takes.NATIVE, host: bool = False) -> Callable[[L], L]:
    """`op` of the domain com.microsoft, whose operators have one version."""
    return op(name, domain=MICROSOFT, takes=takes, host=host)


# numpy kinds of what an operator is defined for
FLOATS, NUMBERS, INTEGERS, ANY = "fV", "fViu", "iu", "fViub"


def elementwise(name: str, text: str, since: int = 1, domain: str = "", dtype: str | None = None, kinds: str = FLOATS) -> None:
    """Register an operator that is one scalar expression of its inputs a, b, c ... and of its attributes.

    An attribute stands in the text as ``{alpha=0.01}``, with the schema's default. `dtype` is the output's numpy
    dtype if it is not the first input's. All inputs have one dtype, of one of the `kinds` (bfloat16's is V).
    """
    template = _Template(text)

    def lower(t, *inputs, **attributes):
        unknown = attributes.keys() - template.names
        if unknown:
            raise OperatorError(f"unknown attribute {min(unknown)!r}")
        check_types(inputs, kinds)
        return t.map(template.fill(attributes), *inputs, dtype=dtype)

    lower.__name__ = name.lower()
    _add(Row(domain, name, since, lower, text=text))


def check_types(inputs, kinds: str = ANY) -> None:
    """Raises OperatorError unless the inputs have one dtype of one of the kinds."""
    dtypes = dict.fromkeys(x.dtype for x in inputs)
    if len(dtypes) > 1:
        raise OperatorError(f"the inputs must have one type, not {' and '.join(map(str, dtypes))}")
    for dtype in dtypes:
        if dtype.kind not in kinds:
            raise OperatorError(f"the operator is not defined for {dtype}")


def _add(row: Row) -> None:
    rows = _rows.setdefault((row.domain, row.name), [])
    if any(r.since == row.since for r in rows):
        raise ValueError(f"operator {row.domain}::{row.name} from opset {row.since} is registered twice")
    bisect.insort(rows, row, key=lambda r: r.since)


def replace(row: Row) -> None:
    """Put a user's meaning of an operator in place of ours (or add it)."""
    load()
    rows = _rows.setdefault((row.domain, row.name), [])
    rows[:] = [r for r in rows if r.since != row.since]
    bisect.insort(rows, row, key=lambda r: r.since)


def find(domain: str, name: str, version: int) -> Row | None:
    """The row that holds at an opset version, or None."""
    load()
    rows = _rows.get(("" if domain == "ai.onnx" else domain, name), [])
    index = bisect.bisect_right(rows, version, key=lambda r: r.since)
    return rows[index - 1] if index else None


def rows() -> list[Row]:
    """All rows, by domain, name and opset."""
    load()
    return [row for key in sorted(_rows) for row in _rows[key]]


@lru_cache(maxsize=1)
def load() -> None:
    """Import every family once."""
    for family in FAMILIES:
        importlib.import_module(f".{family}", __package__)


class _Template:
    """Text with ``{name=default}`` places for attributes."""

    def __init__(self, text: str) -> None:
        self.parts: list[tuple[str, str, float | None]] = []
        rest = text
        while "{" in rest:
            before, _, after = rest.partition("{")
            hole, _, rest = after.partition("}")
            name, _, default = hole.partition("=")
            self.parts.append((before, name, float(default)))
        self.tail = rest
        # consumed_inputs: what opset 1 said of memory
        self.names = {name for _, name, _ in self.parts} | {"consumed_inputs"}

    def fill(self, attributes: dict[str, object]) -> str:
        """The text with literals for attributes."""
        known = "".join(f"{before}({float(attributes.get(name, default))!r})" for before, name, default in self.parts)
        return known + self.tail
