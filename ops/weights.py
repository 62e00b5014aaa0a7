"""Large constants whose content is held in one form: as the model has it, or as a kernel reads it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from . import evaluate
from .kernels import halves
from .pages import give_back
from .primitives import Movement, Permute, Reshape, Shape

_Step = Movement | np.dtype  # a view, or a conversion


class Weight:
    """A constant, or what views and conversions make of one. Nothing is computed before `array` is asked for.

    As long as a packed array holds all values, the weight itself need not (`release`): who asks for its array then gets
    a new one, which lives as long as it is used.
    """

    def __init__(self, content: np.ndarray | Weight, step: _Step | None = None, shape: Shape | None = None) -> None:
        self.shape: Shape = content.shape if shape is None else shape
        self.dtype: np.dtype = step if isinstance(step, np.dtype) else content.dtype
        self._parent, self._step = (content, step) if isinstance(content, Weight) else (None, None)
        self._array: np.ndarray | None = None if isinstance(content, Weight) else content
        self._restore: Callable[[], np.ndarray] | None = None  # makes what is not held
        self._restored: Callable[[], np.ndarray | None] = lambda: None  # a weak reference
        self._look: Callable[[], np.ndarray] | None = None
        self._computed: dict[object, Weight] = {}
        self._fitting: tuple[str, ...] | None = None  # once it is known
        self._parts: Sequence[np.ndarray | Weight] = ()
        self._packed = self._rounded = False  # whether a packed array holds all values; whether they may have been rounded

    @staticmethod
    def made_by(
        make: Callable[[], np.ndarray], dtype: np.dtype, shape: Shape, look: Callable[[], np.ndarray] | None = None,
        parts: Sequence[np.ndarray | Weight] = (),
    ) -> Weight:  # fmt: skip
        """A constant that ``make()`` gives when it is asked for.

        Args:
            look: gives an array that is good for reading once, soon (in a mapped file, say); `keep` then ends that state.
            parts: constants of which it has all values and no others, if it is made so.
        """
        made = Weight(np.broadcast_to(np.zeros((), dtype), shape))
        made._array, made._restore, made._look, made._parts = None, make, look, parts
        return made

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return self.size * self.dtype.itemsize

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for the same views and conversions of the same constant (not of equal ones)."""
        return (id(self),) if self._parent is None else (*self._parent.key, self._step)

    @property
    def root(self) -> Weight:
        """The constant that this is made of."""
        return self if self._parent is None else self._parent.root

    @property
    def rounded(self) -> bool:
        """Whether the content may have come from a packed array that holds it with rounding errors."""
        return self.root._rounded

    @property
    def half(self) -> str:
        """The 16-bit type that it may be held in without a loss (see `halves`); "": there is none, or it is not known."""
        return next(iter(self.fitting), "")

    @property
    def fitting(self) -> tuple[str, ...]:
        """The 16-bit types that have all its values.

        Known are those of constants of float32 that are read, or made of such constants, and of what is converted from 16 bits.
        """
        if self.dtype.name in halves.TYPES:
            half = halves.TYPES[self.dtype.name]
            return (half,) if halves.is_fast(half) else ()
        if self.dtype != np.float32:
            return ()
        if self._parent is not None:
            return self._parent.fitting
        if self._fitting is None and self._parts:
            each = [fitting(part) for part in self._parts]
            self._fitting = tuple(half for half in each[0] if all(half in one for one in each))
        elif self._fitting is None and (self._array is not None or self._look is not None):
            source = self.source()
            self._fitting = halves.holding(source)
            give_back(source)
        return self._fitting or ()

    def view(self, how: Movement, shape: Shape) -> Weight:
        """Moved elements."""
        return Weight(self, how, shape)

    def cast(self, dtype: np.dtype) -> Weight:
        """Converted elements."""
        return Weight(self, np.dtype(dtype))

    def computed(self, key: object, make: Callable[[], np.ndarray], dtype: np.dtype, shape: Shape) -> Weight:
        """What ``make()`` computes of this constant, a constant of its own: one for each key, whatever asks for it."""
        known = self._computed.get(key)
        return known if known is not None else self._computed.setdefault(key, Weight.made_by(make, dtype, shape))

    def array(self) -> np.ndarray:
        """The content."""
        if self._parent is not None:
            return self._derived(self._parent.array())
        # in this order: another thread may be in `release`
        found = self._array
        if found is None:
            found = self._restored()
        if found is None:
            found = self._restore()
            self._restored = weakref.ref(found)
        return found

    def source(self) -> np.ndarray:
        """The content for reading once, now."""
        if self._parent is not None:
            return self._derived(self._parent.source())
        return self.array() if self._look is None else self._look()

    @property
    def passes(self) -> bool:
        """Whether its source is one for now only, until `keep`."""
        return self.root._look is not None

    def keep(self) -> None:
        """Hold the content from now on if it has only been to be read so far."""
        if self._look is not None:
            self._array, self._look, self._restore = self.array(), None, None  # the file may go now

    def _derived(self, origin: np.ndarray) -> np.ndarray:
        return evaluate.cast(origin, self._step) if isinstance(self._step, np.dtype) else evaluate.move(self._step, origin)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.array(), dtype) if copy else np.asarray(self.array(), dtype)

    def release(self, restore: Callable[[], np.ndarray], nearly: bool = False) -> None:
        """Hold the content no longer: ``restore()`` gives it, `nearly`: with rounding errors.

        Without effect if the constant does not follow from it, or if it is known better.
        """
        if self._parent is None:
            if nearly and self._packed:
                return
            self._packed, self._rounded = True, nearly or self._rounded
            array, self._restore = self._array, restore
            if array is not None:
                self._restored = weakref.ref(array)
            self._array, self._look, self._parts = None, None, ()
        elif isinstance(self._step, Permute):
            axes = self._step.axes
            self._parent.release(lambda: restore().transpose([axes.index(d) for d in range(len(axes))]), nearly)
        elif isinstance(self._step, Reshape):
            shape = self._parent.shape
            self._parent.release(lambda: restore().reshape(shape), nearly)
        elif _widens(self._parent.dtype, self.dtype) and not (nearly and self._parent.dtype.kind in "iu"):
            dtype = self._parent.dtype  # 8-bit integers as int16, float16 as float32
            self._parent.release(lambda: restore().astype(dtype), nearly)

    def __repr__(self) -> str:
        return f"<weight {self.dtype}[{','.join(map(str, self.shape))}]>"


def fitting(x: np.ndarray | Weight) -> tuple[str, ...]:
    """`Weight.fitting` of a constant."""
    return x.fitting if isinstance(x, Weight) else halves.holding(x)


def _widens(narrow: np.dtype, wide: np.dtype) -> bool:
    """Whether a conversion can be undone."""
    return narrow.name in halves.TYPES or (narrow.kind in "iu" and np.can_cast(narrow, wide))


def content(x: np.ndarray | Weight) -> np.ndarray:
    """The array of a constant."""
    return x.array() if isinstance(x, Weight) else x
