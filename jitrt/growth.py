"""States that grow: how a body's plan whose sizes are open goes on from one iteration to the next.

If each iteration adds the same to the sizes of states, all sizes of many iterations are known before the first of them. A
`Stretch` is that many: the plan is bound once, with memory for the largest sizes, and a table says what changes in its words after
each iteration. Stretches are kept, so that a loop that begins with the same sizes again solves nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from .families import OpenSizes
from .fusion.bindings import Binding
from .fusion.plan import Tensor
from .ops.iteration import Roles

if TYPE_CHECKING:
    from .executor import Executor

_LEAST, _MOST = 64, 1024  # iterations of a stretch; between these sizes double
_KEPT = 64  # stretches


@dataclass(frozen=True)
class Stretch:
    """Iterations one after the other.

    Attributes:
        binding: of the first one, last: of the last one; the memory of either is enough for all.
        places: words of a context that change. changes: what is added to them after each iteration, a row for each, at `address`.
    """

    binding: Binding
    last: Binding
    places: np.ndarray
    changes: np.ndarray
    address: int

    def __len__(self) -> int:
        return len(self.changes)


@dataclass
class Growth:
    """What an iteration adds to each open size that stands for an input's (`steps`).

    Attributes:
        dims: for each state its shape, open sizes as None, and the symbols that these are.
    """

    executor: Executor
    steps: tuple[int, ...]
    dims: tuple[tuple[tuple[int | None, ...], tuple[int, ...]], ...]
    _stretches: OrderedDict[tuple[tuple[int, ...], int], Stretch | None] = field(default_factory=OrderedDict, repr=False)

    @staticmethod
    def of(
        executor: Executor, sizes: OpenSizes | None, inputs: Sequence[str], outputs: Mapping[str, int], roles: Roles, counted: bool
    ) -> Growth | None:  # fmt: skip
        """That of a body's plan; None: its states do not grow, or not by the same each time.

        Args:
            counted: tracing has read the iteration's number.
        """
        if sizes is None:
            return None
        plan, names = executor.plan, {name for name, _ in roles.states}
        symbols = {place: i for i, places in enumerate(sizes.places) for place in places}
        found: dict[int, set[object]] = {i: set() for i in range(len(sizes.places))}
        dims = []
        for name, result in roles.states:
            before, after = plan.inputs[inputs.index(name)], plan.outputs[outputs[result]]
            if not isinstance(before, Tensor) or not isinstance(after, Tensor) or len(before.shape) != len(after.shape):
                return None
            shape = sizes.shapes[name]
            for d, (n, m) in enumerate(zip(before.shape, after.shape)):
                step, symbol = m - n, symbols.get((name, d))
                if symbol is None and (type(step) is not int or step):
                    return None
                if symbol is not None:
                    found[symbol].add(step if type(step) is int else None)
            own = [symbols[name, d] for d in range(len(shape)) if (name, d) in symbols]
            dims.append((tuple(None if (name, d) in symbols else n for d, n in enumerate(shape)), tuple(own)))
        counter = sizes.place_of_content(roles.counter) if counted else -1
        if counter >= 0:
            found[counter].add(1)
        steps = tuple(next(iter(steps)) if len(steps) == 1 else None if steps else 0 for steps in found.values())
        others = [i for i, places in enumerate(sizes.places) if i != counter and any(name not in names for name, _ in places)]
        fits = None not in steps and not any(steps[i] for i in others) and (counter >= 0 or not counted)
        return Growth(executor, steps, tuple(dims)) if fits and any(s for i, s in enumerate(steps) if i != counter) else None

    def grows(self, k: int) -> bool:
        """Whether state k does."""
        return any(self.steps[i] for i in self.dims[k][1])

    def after(self, sizes: Sequence[int], count: int) -> tuple[int, ...]:
        """The symbols' values some iterations later."""
        return tuple(size + count * step for size, step in zip(sizes, self.steps))

    def shape(self, k: int, sizes: Sequence[int]) -> tuple[int, ...]:
        """That of state k."""
        shape, symbols = self.dims[k]
        mine = iter(symbols)
        return tuple(sizes[next(mine)] if n is None else n for n in shape)

    def stretch(self, sizes: tuple[int, ...], left: int) -> Stretch | None:
        """Iterations from these values of the symbols on, of which `left` are wanted; None: the plan is not for them."""
        count = min(_MOST, max(_LEAST, *sizes), 1 << max(left - 1, 0).bit_length())
        key = sizes, count
        if key not in self._stretches:
            self._stretches[key] = self._stretch([self.after(sizes, i) for i in range(count)])
            if len(self._stretches) > _KEPT:
                self._stretches.popitem(last=False)
        return self._stretches[key]

    def _stretch(self, several: Sequence[tuple[int, ...]]) -> Stretch | None:
        bound = self.executor.binder.bind_all(several)
        if bound is None:
            return None
        binding, values = bound
        places, of = (np.array(numbers, np.int64) for numbers in zip(*self.executor.words.places_of_sizes()))
        changes = np.diff(values[:, of], axis=0, append=values[-1:, of])
        moving = changes.any(axis=0)
        changes = np.ascontiguousarray(changes[:, moving])
        return Stretch(binding, replace(binding, values=values[-1]), places[moving], changes, changes.ctypes.data)
