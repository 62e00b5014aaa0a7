"""The walk over the rows of a generated loop: where the row of each operand begins. Imports numba.

The state is memory of the kernel's frame that is only touched at constant places, so LLVM keeps it in registers; as
two calls in the source it costs numba little, however many operands and dimensions there are.
"""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import signature
from numba.extending import intrinsic

_WORD = ir.IntType(64)


@dataclass(frozen=True)
class _State:
    """Words: the operands' addresses; for each operand its step at each dimension; indices; sizes."""

    builder: ir.IRBuilder
    words: ir.Value
    operands: int
    rank: int

    def _place(self, i: int) -> ir.Value:
        return self.builder.gep(self.words, [ir.Constant(_WORD, i)])

    def get(self, i: int) -> ir.Value:
        return self.builder.load(self._place(i))

    def put(self, i: int, value: ir.Value) -> None:
        self.builder.store(value, self._place(i))

    def add(self, i: int, value: ir.Value) -> ir.Value:
        total = self.builder.add(self.get(i), value)
        self.put(i, total)
        return total

    def step(self, operand: int, d: int) -> int:
        return self.operands + operand * self.rank + d

    def index(self, d: int) -> int:
        return self.operands * (1 + self.rank) + d

    def size(self, d: int) -> int:
        return self.index(self.rank + d)


@intrinsic(prefer_literal=True)
def walk_from(typingctx, args, row, rank, sizes, operands, first, words):
    """The walk from row number `row` on; element i of the result is the address of operand i's row.

    Args:
        args: the argument block. At `sizes` it has the `rank` outer sizes, from `first` on every `words` an operand:
            address, then a stride for each outer dimension.
    """
    numbers = [x.literal_value for x in (rank, sizes, operands, first, words)]

    def generate(context, builder, sig, values):
        block, number = values[:2]
        rank, sizes, operands, first, words = numbers
        kept = cgutils.alloca_once(builder, ir.ArrayType(_WORD, operands * (1 + rank) + 2 * rank))
        state = _State(builder, builder.bitcast(kept, _WORD.as_pointer()), operands, rank)

        def argument(i: int) -> ir.Value:
            return builder.load(builder.gep(block, [ir.Constant(_WORD, i)]))

        rest, indices, counts = number, {}, [argument(sizes + d) for d in range(rank)]
        for d in range(rank - 1, 0, -1):
            indices[d], rest = builder.srem(rest, counts[d]), builder.sdiv(rest, counts[d])
        indices[0] = rest
        for d in range(rank):
            state.put(state.index(d), indices[d])
            state.put(state.size(d), counts[d])
        for i in range(operands):
            at = first + i * words
            address, strides = argument(at), [argument(at + 1 + d) for d in range(rank)]
            for d, stride in enumerate(strides):
                address = builder.add(address, builder.mul(indices[d], stride))
                # a step at d comes after the one at d + 1, which has gone through that dimension to its end
                back = builder.mul(counts[d + 1], strides[d + 1]) if d + 1 < rank else ir.Constant(_WORD, 0)
                state.put(state.step(i, d), builder.sub(stride, back))
            state.put(i, address)
        return state.words

    literals = (rank, sizes, operands, first, words)
    return signature(types.CPointer(types.int64), args, types.int64, *literals), generate


@intrinsic(prefer_literal=True)
def walk_on(typingctx, walk, rank, operands):
    """To the next row."""
    numbers = rank.literal_value, operands.literal_value

    def generate(context, builder, sig, values):
        rank, operands = numbers
        state = _State(builder, values[0], operands, rank)

        def advance(d: int) -> None:
            for i in range(operands):
                state.add(i, state.get(state.step(i, d)))
            if d:
                index = state.add(state.index(d), ir.Constant(_WORD, 1))
                with cgutils.if_unlikely(builder, builder.icmp_signed("==", index, state.get(state.size(d)))):
                    state.put(state.index(d), ir.Constant(_WORD, 0))
                    advance(d - 1)

        advance(rank - 1)
        return context.get_dummy_value()

    return signature(types.void, walk, rank, operands), generate
