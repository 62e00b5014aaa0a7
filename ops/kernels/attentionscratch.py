"""What a task of `attention` has in its scratch, and the words there that its subroutines agree on.

In this order: a block for the kernel that works on scores; the task's words; for each panel the keys from which to which it is to
look; a panel's scores of a block of keys; for each panel its state, its queries and its result so far; some lines of the task's
own; a record, unless all are made before.
"""

from __future__ import annotations

from .attentionwords import LINE, lines
from .attentionwords import STATE as STATE_ROWS

TASK_AT = LINE  # bytes: the words that follow
# of its head: the number in each dimension, the addresses of keys and values, and of records that are made before
HEAD, KEYS, VALUES, RECORDS = 0, 3, 4, 5
# the first of its queries, and how many panels of them; addresses of spans, scores, states, queries and results
FIRST, PANELS, SPANS, SCORES, STATES, TURNED, RESULTS = range(6, 13)
# addresses of its lines: what is found out of weights (to be taken away, and squares), of the first keys (how long queries are to
# be made) and of the first values (what levels are lowered by, and a mean square, see `attentionrecord`); of the present record
OF_WEIGHTS, WEIGHT_SQUARES, REFERENCE, LIFTED, LIKE, RECORD = range(13, 19)
# the keys that any panel looks at: from which to which
BEGIN, END = 19, 20
# a block of keys: its first one, that of the block that a record was made for last, and how many there are; the number of the word
# that says how they are cut into tiles; where they are, and their distance; where the values are; triples of K that may go by pairs
KEY, RECORDED, ROWS, TILES, K_BLOCK, K_PITCH, V_BLOCK, K_TRIPLES, V_TRIPLES = range(21, 30)
# rows that the next block will read: where they are, their distance and how many there are; of keys, and of values
NEXT_KEYS, NEXT_VALUES = 30, 33
# a panel: which one, the first of its queries, how many there are, and vectors of them; its state; keys that it has looked at; for
# this block, whether scores become weights in their tiles, and the triples of weights and values that go by pairs
PANEL, QUERY, QUERIES, VECTORS, STATE, LATER, WEIGHED, TRIPLES = range(36, 44)
SPANS_AT = TASK_AT + lines(8 * 44)
SPAN = 16  # bytes
_OWN_LINES = 7


def scores_at(panels: int) -> int:
    """Where the scores are."""
    return SPANS_AT + lines(SPAN * panels)


def scratch_bytes(row: int, panels: int, keys: int, head: int, value: int) -> int:
    """Bytes of scratch without a record; `row`: bytes of a row of a panel; `keys`: of a block."""
    return scores_at(panels) + row * (keys + panels * (head + value + STATE_ROWS)) + _OWN_LINES * LINE
