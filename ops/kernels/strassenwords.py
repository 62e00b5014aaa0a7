"""What the launch and the kernel of Strassen's products agree on: the words of the argument block in their order."""

from __future__ import annotations

from . import convwords

# addresses and the tail; the register tile looks for LOW, HIGH and X_PIXEL where convolution has them
X, Y, B, BIAS, RESIDUAL, LOW, HIGH, EPILOGUE, EPILOGUE_BLOCK = range(9)
# bytes from one row to the next: of A, C, the residual; then of a row of operands; rows, columns of C, K
X_ROW, Y_ROW, R_ROW, OPERAND_ROW, ROWS, COLUMNS, DEPTH = range(9, 16)
# rows of half a block; K steps of half a K block, K blocks
HALF, STEPS, K_BLOCKS = range(16, 19)
# how half a block is cut into tiles (`split_row`)
FIRST, COUNT, SECOND, SECONDS = range(19, 23)
# blocks of rows in all and of a task; pairs of panels in all, of a task, and tasks side by side
BLOCKS, OWN_BLOCKS, PAIRS, OWN_PAIRS, PAIR_TASKS = range(23, 28)
HELD = 28  # how B is held: a number of `halves.KINDS`
WORDS = 29
assert (LOW, HIGH, OPERAND_ROW) == (convwords.LOW, convwords.HIGH, convwords.X_PIXEL)

# what products are made of, in the order in which it lies: sums of A and, where rows are missing, its quarters; sums of B
S1, S2, S3, S4, A11, A12, A21, A22 = range(8)
A_OPERANDS = 8
T1, T2, T3, T4 = range(4)
B_SUMS = 4
PRODUCTS = 7
PAGE = 4096  # bytes, by which addresses are told apart last (L1's sets, loads from stores)
TODO = 4  # words of an entry in the list of products, of which there are eight at the most, behind their number
TODO_BYTES = 64 + 8 * TODO * 8
