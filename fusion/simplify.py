"""Rewrites of a trace before it is grouped; each is a function Trace -> Trace, applied in the order of `PASSES`.

1. `prune`: primitives that no output needs go.
2. `compose_moves`: a view of a view is one view; a view that changes nothing is its input.
3. `share`: primitives of the same kind on the same inputs are computed once.
4. `stack_joins`: a join that another one takes in with more dimensions of size 1 is made with these.
5. `merge_scales`: numbers by which a value is multiplied or divided, one after the other, are one factor.
6. `recognise_gelu`: GELU in words is one function.
7. `hoist_scales`: a number by which an operand of a product is multiplied multiplies the product instead.
8. `fuse_attention`: two products and the softmax between them are one kernel.
9. `merge_pieces`: pieces of a join that are neighbouring slices of one value are one piece.
10. `split_joins`: elementwise work on a join of pieces that have to be computed is done on each piece.
11. `sink_views`: elementwise work on a view of a contraction is done before the view, in the contraction's tail.
12. `fold_views`: a view of an elementwise result that nobody else reads is taken of its inputs instead, so that the
   elementwise work can be fused with what reads the view.
"""

from __future__ import annotations

from collections.abc import Callable

from ..ops.primitives import Trace
from .attention import fuse_attention
from .gelu import recognise_gelu
from .products import hoist_scales
from .scales import merge_scales
from .stacks import stack_joins
from .tidy import compose_moves, prune, share
from .views import fold_views, merge_pieces, sink_views, split_joins

PASSES: tuple[Callable[[Trace], Trace], ...] = (
    prune, compose_moves, share, stack_joins, merge_scales, recognise_gelu, hoist_scales, fuse_attention, merge_pieces, split_joins,
    sink_views, fold_views, share,
)  # fmt: skip


def simplify(trace: Trace) -> Trace:
    """All passes in order."""
    for each in PASSES:
        trace = each(trace)
    return trace
