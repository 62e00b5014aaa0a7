"""The description of one fused loop: its shape, operands and statements, and the layout of its argument block.

Five shapes of loop, all over vectors of LANES elements (`ops/kernels/simd.py`):

- ROW: rows (outer dimensions) are shared among tasks; lanes run along a row. Without reductions a row may be split
  among tasks too.
- COLUMN: the reduced dimension is not the innermost in memory: lanes run across neighbouring rows instead.
- TILE: an epilogue: the contraction states batch, rows and columns of its tile in the first words of its scratch.
- SCORES: work on a block of attention's scores that lies in the thread's own memory. The first words of the scratch are
  three coordinates of the head, the first key (a row) and the number of keys, the first query and the number of queries,
  and the block's address.
- SCORE_ROWS: the same of a few queries, whose scores are the rows of the block: queries and keys change places.

Sizes and strides are arguments, so a description holds structure alone, and equal structures share a kernel.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from ..ops.primitives import Fold

# functions worth keeping a result of, rather than computing it again in a later pass
_DEAR = re.compile(r"\b(exp\w*|log\w*|tanh|sigmoid|erf|gelu\w*|softplus|pow|sin|cos|tan|a?(sin|cos|tan)h?|sqrt|mish)\(|/")


SIZES_AT = 7  # the word of the first outer size


class Shape(enum.Enum):
    """The kind of loop (see the module's text)."""

    ROW = "row"
    COLUMN = "column"
    TILE = "tile"
    SCORES = "scores"
    SCORE_ROWS = "score_rows"


class Access(enum.Enum):
    """How an operand moves along the lanes."""

    UNIT = "unit"
    ZERO = "zero"
    STRIDED = "strided"


@dataclass(frozen=True)
class Operand:
    """Memory that the loop reads or writes.

    Attributes:
        row: it has one element a row (reduction results and what goes with them).
        local: it is the block of scores, which has room for whole vectors.
    """

    dtype: str
    access: Access
    row: bool = False
    local: bool = False


@dataclass(frozen=True)
class Statement:
    """``target = text(args)`` for every element (or once a row), or a fold of one argument over the row.

    Names: ``v<i>`` values, ``x<i>`` operands read, ``s<i>`` scalars.
    """

    target: str
    text: str
    args: tuple[str, ...]
    dtype: str
    row: bool = False
    fold: Fold | None = None


@dataclass(frozen=True)
class LoopCode:
    """Everything that decides the source.

    Attributes:
        rank: number of outer dimensions that are stepped through (3 or 7; unused ones have size 1; blocks: rows among them).
        operands: inputs and outputs; x<i> in statements. `stores`: (operand, value).
        scalars: register types of scalar arguments.
        staged: whether a row without reductions may be passed over more than once (`schedule`).
    """

    shape: Shape
    rank: int
    operands: tuple[Operand, ...]
    scalars: tuple[str, ...]
    statements: tuple[Statement, ...]
    stores: tuple[tuple[int, str], ...]
    staged: bool = False

    # -- the argument block's layout
    @property
    def header(self) -> int:
        """Words before the operands: inner chunks, rows, rows a task, inner size, chunk, fold size, far, outer sizes."""
        return 0 if self.blockwise else SIZES_AT + self.rank

    @property
    def operand_words(self) -> int:
        """Words an operand: address, outer strides, stride along the lanes, stride along the folded dimension."""
        return 2 + self.rank if self.blockwise else 3 + self.rank

    @property
    def blockwise(self) -> bool:
        """Whether a call works on a block of rows and columns that the scratch names."""
        return self.shape in (Shape.TILE, Shape.SCORES, Shape.SCORE_ROWS)

    def place(self, operand: int) -> int:
        """Index of an operand's first word."""
        return self.header + operand * self.operand_words

    def scalar_place(self, scalar: int) -> int:
        """Index of a scalar argument."""
        return self.place(len(self.operands)) + scalar


def is_dear(text: str) -> bool:
    """Whether an expression takes so long that its result is worth keeping."""
    return bool(_DEAR.search(text))


def register_of(dtype: str) -> str:
    """The type in registers of elements in memory."""
    return "f32" if dtype in ("f16", "bf16") else dtype


def size_of(dtype: str) -> int:
    """Bytes of an element in memory."""
    return 1 if dtype == "b1" else 2 if dtype in ("f16", "bf16") else int(dtype[1:]) // 8


def outer_rank(dims: int) -> int:
    """The rank class for a number of outer dimensions.

    Raises:
        ValueError: more than 7.
    """
    for rank in (3, 7):
        if dims <= rank:
            return rank
    raise ValueError(f"a loop over {dims} outer dimensions")
