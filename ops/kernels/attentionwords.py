"""What the launch, the kernel and the subroutines of `attention` agree on.

The words of the argument block, the rows of a panel's state, and what is said of a block of keys and its values in a record.
"""

from __future__ import annotations

# addresses; then for each matrix the bytes between heads, in each dimension of those, from one row and from one column to the next
Q, K, V, Y = range(4)
Q_LEADS, Q_ROW, Q_COLUMN = 4, 7, 8
K_LEADS, K_ROW, K_COLUMN = 9, 12, 13
V_LEADS, V_ROW, V_COLUMN = 14, 17, 18
Y_LEADS, Y_ROW = 19, 22
LEADS = 23  # how many heads there are in each dimension
QUERIES, KEYS, HEAD, VALUE, SCALE, SCORES, SCORES_BLOCK, BACK, AHEAD, LOWEST = range(26, 36)
# so far the words are those of `attentionfew`, too. Panels of a task, tasks of a head, keys of a block
EACH, TASKS, STEP = range(36, 39)
# a height, how many tiles have it, and the same of others: of a block of keys, of the last block, of values
K_TILES, K_LAST_TILES, V_TILES = 39, 43, 47
# whether keys and values are copied to records; where a record has them, and the sums of values; its bytes
K_COPIED, V_COPIED, K_AT, V_AT, OF_VALUES_AT, RECORD_BYTES = range(51, 57)
# records made before: their address, bytes between those of heads in each dimension, and how many heads have their own
RECORDS, RECORD_LEADS, RECORD_HEADS = 57, 58, 61
MAKES_RECORDS = 64  # whether tasks make these

# rows of a panel's state: levels, sums of weights, factors of what came before, lengths of queries; if products go by pairs the
# inverses of queries' factors, and what is to be taken away from their pairs
LEVEL, SUM, FACTOR, LENGTH, INVERSE, PAIRS = range(6)
STATE = 6

# a record: what no key is longer than; of the squares of channels' lengths the smallest, the largest and the sum; then what is to
# be taken away from pairs of keys, and of values; keys, and values
LINE = 64  # bytes, of a cache line
LONGEST_AT, LEAST_AT, MOST_AT, TOTAL_AT, OF_KEYS_AT = (LINE * i for i in range(5))


def lines(size: int) -> int:
    """So many bytes, and those up to the end of a cache line."""
    return (size + LINE - 1) // LINE * LINE
