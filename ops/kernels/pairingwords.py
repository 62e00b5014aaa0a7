"""What the launch, the kernel and the tile of products by pairs agree on: the words of the argument block, and their scratch."""

from __future__ import annotations

# addresses and the tail
X, Y, B, BIAS, RESIDUAL, LOW, HIGH, EPILOGUE, EPILOGUE_BLOCK = range(9)
# bytes from one row to the next: of A, C, the residual; then rows, columns of C, K
X_ROW, Y_ROW, R_ROW, ROWS, COLUMNS, DEPTH = range(9, 15)
# K steps of a K block; rows of a task; panels of a task, and tasks side by side
STEPS, OWN_ROWS, OWN_PANELS, PANEL_TASKS = range(15, 19)
HELD = 19  # how B is held: a number of `halves.KINDS`
WORDS = 20

TURN = 12  # K steps of four triples: of three steps two make a pair and the third is multiplied as it is
LINE, LINES = 64, 6  # bytes of a cache line, and how many of the next panel a turn asks for, or twice as many
MOST_STEPS = 768  # of a K block
ROW_BYTES = 4 * MOST_STEPS + 64  # of a row of A in scratch: an odd number of cache lines, so that rows spread over L1
# floats that say of a row in scratch: what takes away that its pairs add too much, the inverse of its factor, whether it is odd
PAIRS, INVERSE, ODD = range(3)
INFO_BYTES = 16

HEIGHTS = (8, 7, 6, 5, 4, 2, 1)  # of tiles: with more accumulators, beside six vectors of a panel and sums, LLVM spills some
PAGE = 4096  # bytes, by which addresses are told apart last (L1's sets, loads from stores)
_PANEL_ROW = 128  # bytes: two vectors
SAMPLE_BYTES = 16  # of a step of K by which a panel is judged: bytes to it from the panel's K block, and its weight
# scratch: a block for the epilogue, the arguments once more, zeros, the squares of columns' lengths, what is said of a panel
# and of a K block, a panel's pairs; those of A's columns, samples of them; what is said of
# rows; a panel's K block if it has to be widened; rows
BLOCK_AT = 64
ZEROS_AT = BLOCK_AT + (8 * WORDS + LINE - 1) // LINE * LINE
SQUARES_AT = ZEROS_AT + _PANEL_ROW
SOUND_AT, ALIKE_AT, LEAST_AT, REFERENCE_AT = (SQUARES_AT + _PANEL_ROW + LINE * i for i in range(4))
PAIRS_AT = REFERENCE_AT + LINE
FEATURES_AT = PAIRS_AT + _PANEL_ROW
SAMPLES_AT = FEATURES_AT + 4 * MOST_STEPS + LINE
INFO_AT = SAMPLES_AT + MOST_STEPS // 4 * SAMPLE_BYTES
WIDE_BYTES = MOST_STEPS * _PANEL_ROW
