"""What the launch, the kernel and the tile of products by pairs agree on: the words of the argument block, and their scratch."""

from __future__ import annotations

# addresses and the tail
X, Y, B, BIAS, RESIDUAL, LOW, HIGH, EPILOGUE, EPILOGUE_BLOCK = range(9)
# bytes from one row to the next: of A, C, the residual; then rows, columns of C, K
X_ROW, Y_ROW, R_ROW, ROWS, COLUMNS, DEPTH = range(9, 15)
# K steps of a K block; rows of a task; panels of a task, and tasks side by side
STEPS, OWN_ROWS, OWN_PANELS, PANEL_TASKS = range(15, 19)
WORDS = 19

TURN = 12  # K steps of four triples: of three steps two make a pair and the third is multiplied as it is
MOST_STEPS = 768  # of a K block
ROW_BYTES = 4 * MOST_STEPS + 64  # of a row of A in scratch: an odd number of cache lines, so that rows spread over L1
# floats that say of a row in scratch: what takes away that its pairs add too much, the inverse of its factor, whether it is odd
PAIRS, INVERSE, ODD = range(3)
INFO_BYTES = 16
