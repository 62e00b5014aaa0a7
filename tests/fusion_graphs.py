"""Random graphs for the tests of fusion: elementwise work, reductions, views, contractions, of awkward shapes.

Each value carries what is known of it: an interval, and whether it is exact (small whole numbers, which floats hold
without rounding). Operators that jump (comparisons, casts to integers, argmax) are drawn for exact values only, so
that a graph's result never hangs on the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from hypothesis import strategies as st

from jitrt.fusion.graph import Graph, Node

SIZES = (0, 1, 1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 31, 33)
DTYPES = ("float32", "float32", "float32", "float64", "float16", "int32", "int64", "int8", "uint8", "bool")
MOST = 6000  # elements of one value
EXACT = {"float16": 2.0**11, "float32": 2.0**24, "float64": 2.0**53}


@dataclass(frozen=True)
class Known:
    """A value: `coarse` if float16 rounding is anywhere behind it."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    low: float = -3
    high: float = 3
    exact: bool = True
    coarse: bool = False

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def is_float(self) -> bool:
        return self.dtype.kind == "f"

    @property
    def scale(self) -> float:
        return max(abs(self.low), abs(self.high), 1.0)


@dataclass
class Problem:
    """A graph with its inputs."""

    graph: Graph
    feeds: dict[str, np.ndarray]
    known: dict[str, Known]

    def __repr__(self) -> str:
        constants = [
            f"  {n} = {a.dtype}{list(a.shape)}" for n, a in self.graph.constants.items() if a.dtype.kind != "i" or a.ndim != 1
        ]
        feeds = [f"  {n}: {a.dtype}{list(a.shape)}" for n, a in self.feeds.items()]
        return "\n".join(["Problem", *feeds, *constants, str(self.graph)])


@dataclass
class Drawing:
    draw: Callable
    rng: np.random.Generator
    values: list[Known] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    feeds: dict[str, np.ndarray] = field(default_factory=dict)
    count: int = 0

    def problem(self, count: int) -> Problem:
        """A graph of about `count` operators."""
        for _ in range(count):
            getattr(self, self.pick(_ACTIONS))()
        if not self.values:
            self.leaf("float32", (3,), constant=False)
        made = [x.name for x in self.values]
        wanted = [*(self.pick(made) for _ in range(self.integer(0, 3))), made[-1]]
        inputs, outputs = list(self.feeds), list(dict.fromkeys(wanted))
        graph = Graph(inputs, outputs, self.nodes, self.constants, opsets={"": 20}, name="random")
        return Problem(graph, self.feeds, {x.name: x for x in self.values})

    # -- choices
    def pick(self, options: Sequence):
        return self.draw(st.sampled_from(options))

    def integer(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def maybe(self) -> bool:
        return self.draw(st.booleans())

    def shuffled(self, count: int) -> list[int]:
        return self.draw(st.permutations(range(count)))

    def axes(self, rank: int, least: int = 1) -> list[int]:
        chosen = [d for d in range(rank) if self.maybe()]
        while len(chosen) < min(least, rank):
            chosen = sorted({*chosen, self.integer(0, rank - 1)})
        return chosen

    # -- values
    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"

    def leaf(self, dtype: str, shape: Sequence[int], constant: bool | None = None, low: int = -3, high: int = 3) -> Known:
        """A new input or constant of small whole numbers, or (floats) of any numbers between."""
        dtype = np.dtype(dtype)
        exact = dtype.kind != "f" or self.maybe()
        if dtype.kind in "ub":
            low, high = max(low, 0), 1 if dtype.kind == "b" else high
        shape = tuple(shape)
        array = self.rng.integers(low, high, shape, endpoint=True) if exact else self.rng.uniform(low, high, shape)
        constant = self.integer(0, 2) == 0 if constant is None else constant
        name = self.name("c" if constant else "x")
        (self.constants if constant else self.feeds)[name] = np.asarray(array).astype(dtype)
        found = Known(name, dtype, shape, low, high, exact, dtype == np.float16 and not exact)
        if not constant:
            self.values.append(found)
        return found

    def any_value(self, test: Callable[[Known], bool] = lambda x: True) -> Known:
        """An earlier value that passes, rather a late one; a new leaf if none does."""
        fit = [x for x in self.values if test(x)]
        if fit and self.integer(0, 5):
            return fit[max(len(fit) - 1 - self.integer(0, 4), 0)] if self.maybe() else self.pick(fit)
        dtypes = [d for d in DTYPES if test(Known("", np.dtype(d), (2, 3)))] or ["float32"]
        rank = self.integer(0, 4)
        while True:
            shape = [self.pick(SIZES) for _ in range(rank)]
            if math.prod(shape) <= MOST:
                return self.leaf(self.pick(dtypes), shape)
            rank -= 1

    def ints(self, values: Sequence[int]) -> str:
        name = self.name("n")
        self.constants[name] = np.array(values, np.int64)
        return name

    def add(self, op: str, inputs: Sequence[Known | str], like: Known, shape: Sequence[int] | None = None, **attributes) -> Known:
        """A node; `like` says what is known of its result."""
        of = [x for x in inputs if isinstance(x, Known)]
        name = self.name("v")
        self.nodes.append(
            Node(op, [x.name if isinstance(x, Known) else x for x in inputs], [name], attributes, name=f"{op}_{name}")
        )
        coarse = like.coarse or any(x.coarse for x in of)
        if like.dtype == np.float16 and not like.exact:
            coarse = True
        made = replace(like, name=name, shape=tuple(like.shape if shape is None else shape), coarse=coarse)
        self.values.append(self.bounded(made))
        return self.values[-1]

    def bounded(self, x: Known) -> Known:
        """Integers wrap; floats stop being exact beyond what they hold."""
        if x.dtype.kind in "iu":
            info = np.iinfo(x.dtype)
            inside = x.low >= info.min and x.high <= info.max
            return x if inside else replace(x, low=info.min, high=info.max)
        if x.is_float and not x.scale <= EXACT[x.dtype.name]:
            return replace(x, exact=False)
        return x

    def small(self, x: Known, most: float = 50) -> Known:
        """x, clipped if it has become large."""
        if x.scale <= most or x.dtype.kind == "b":
            return x
        if x.dtype.kind != "f":
            limits = [self.leaf(x.dtype.name, (), constant=True, low=v, high=v) for v in (0, 3)]
            return self.add("Clip", [x, *limits], replace(x, low=0, high=3))
        return self.add("Clip", [x, *(self.number(v, x) for v in (-3, 3))], replace(x, low=-3, high=3))

    def number(self, value: float, like: Known) -> str:
        name = self.name("s")
        self.constants[name] = np.array(value, like.dtype)
        return name

    def partner(self, x: Known, **limits: int) -> Known:
        """A value of x's type that broadcasts with it."""
        fit = [y for y in self.values if y.dtype == x.dtype and _common(x.shape, y.shape) is not None and not limits]
        if fit and self.maybe():
            return self.pick(fit)
        form = self.integer(0, 4)
        shape = list(x.shape)
        if form == 0:
            shape = []
        elif form == 1:
            shape = [n if self.maybe() else 1 for n in shape]
        elif form == 2:
            shape = shape[self.integer(0, len(shape)) :]
        elif form == 3:
            grown = [self.pick((2, 3, 5)) if n == 1 and self.maybe() else n for n in shape]
            grown = [self.pick((1, 2, 3)), *grown] if len(grown) < 4 and self.maybe() else grown
            shape = grown if math.prod(grown) <= MOST else shape
        return self.leaf(x.dtype.name, shape, **limits)

    # -- elementwise
    def unary(self) -> None:
        x = self.any_value(lambda x: x.dtype.kind in "fi")
        if not x.is_float:
            op = self.pick(("Neg", "Abs", "Sign"))
            high = max(-x.low, x.high)
            self.add(op, [x], replace(x, low=-high, high=high) if op != "Sign" else replace(x, low=-1, high=1))
            return
        x = self.small(x)
        kept = {
            "Neg": (-x.high, -x.low),
            "Abs": (0, x.scale),
            "Relu": (0, max(x.high, 0)),
            "Sign": (-1, 1),
            "Floor": (x.low, x.high),
        }
        smooth = {
            "Tanh": (-1, 1), "Sigmoid": (0, 1), "Erf": (-1, 1), "Softplus": (0, x.scale + 1), "Sin": (-1, 1),
            "Gelu": (-1, x.scale), "HardSwish": (-1, x.scale), "Elu": (-1, x.scale), "Atan": (-2, 2),
        }  # fmt: skip
        if x.high <= 4:
            smooth["Exp"] = (0, 55)
        if x.low >= 0.5:
            smooth["Sqrt"] = smooth["Reciprocal"] = (0, x.scale)
        if not x.exact:
            del kept["Sign"], kept["Floor"]
        op = self.pick([*kept, *smooth])
        low, high = {**kept, **smooth}[op]
        self.add(op, [x], replace(x, low=low, high=high, exact=x.exact and op in kept))

    def binary(self) -> None:
        x = self.small(self.any_value(lambda x: x.dtype.kind != "b"))
        op = self.pick(("Add", "Sub", "Mul", "Max", "Min", "Div") if x.dtype != np.uint8 else ("Add", "Mul", "Max", "Min"))
        y = self.partner(x, low=1, high=3) if op == "Div" else self.small(self.partner(x))
        pair = [y, x] if op != "Div" and self.maybe() else [x, y]
        shape = _common(x.shape, y.shape)
        if shape is None or math.prod(shape) > MOST:
            return
        reach = x.scale * y.scale if op in ("Mul", "Div") else x.scale + y.scale
        exact = x.exact and y.exact and not (op == "Div" and x.is_float)
        self.add(op, pair, replace(x, low=-reach, high=reach, exact=exact), shape)

    def compare(self) -> None:
        x = self.any_value(lambda x: x.exact and x.dtype.kind != "b")
        y = self.partner(x)
        shape = _common(x.shape, y.shape)
        if y.exact and shape is not None and math.prod(shape) <= MOST:
            self.add(self.pick(("Less", "Greater", "Equal", "GreaterOrEqual")), [x, y], _flag(x), shape)

    def logic(self) -> None:
        x = self.any_value(lambda x: x.dtype.kind == "b")
        if self.maybe():
            self.add("Not", [x], x)
            return
        y = self.partner(x)
        shape = _common(x.shape, y.shape)
        if shape is not None and math.prod(shape) <= MOST:
            self.add(self.pick(("And", "Or", "Xor")), [x, y], x, shape)

    def where(self) -> None:
        c = self.any_value(lambda x: x.dtype.kind == "b")
        like = self.any_value()
        x = self.leaf(like.dtype.name, c.shape if self.maybe() else ()) if _common(c.shape, like.shape) is None else like
        y = self.partner(x)
        shape = _common(_common(c.shape, x.shape) or (), y.shape)
        if _common(c.shape, x.shape) is not None and shape is not None and math.prod(shape) <= MOST:
            low, high = min(x.low, y.low), max(x.high, y.high)
            self.add("Where", [c, x, y], replace(x, low=low, high=high, exact=x.exact and y.exact), shape)

    def cast(self) -> None:
        x = self.any_value()
        target = np.dtype(self.pick(DTYPES))
        if not x.exact and target.kind != "f":
            target = np.dtype(self.pick(("float32", "float64", "float16")))
        if target.kind in "iu" and x.is_float:
            x = self.small(x)
            if target.kind == "u" and x.low < 0:
                x = self.add("Abs", [x], replace(x, low=0, high=x.scale))
        x = self.small(x) if target == np.float16 else x
        like = replace(_flag(x) if target.kind == "b" else x, dtype=target)
        self.add("Cast", [x], like, to=_ONNX[target.name])

    # -- reductions
    def reduce(self) -> None:
        x = self.any_value(lambda x: x.dtype.name in ("float32", "float64", "float16", "int32", "int64"))
        x = self.small(x)
        axes = self.axes(len(x.shape), 0)
        count = math.prod(x.shape[d] for d in axes) if axes else x.size
        ops = ["ReduceSum", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceSumSquare", "ReduceL1"]
        ops += ["ReduceMean", "ReduceL2"] if x.is_float and count else []
        ops = ops if count else ["ReduceSum"]
        op = self.pick(ops)
        keep = self.integer(0, 1)
        reach = {"ReduceSum": count, "ReduceL1": count, "ReduceSumSquare": count * x.scale, "ReduceL2": count}.get(op, 1) * x.scale
        gone = axes or range(len(x.shape))
        shape = [1 if d in gone else n for d, n in enumerate(x.shape) if d not in gone or keep]
        exact = x.exact and op not in ("ReduceMean", "ReduceL2")
        signed = [a - len(x.shape) if self.maybe() else a for a in axes]
        like = replace(x, low=-reach, high=reach, exact=exact)
        self.add(op, [x, *([self.ints(signed)] if axes else [])], like, shape, keepdims=keep)

    def arg(self) -> None:
        x = self.any_value(lambda x: x.exact and x.dtype.kind in "fi" and len(x.shape) > 0 and x.size > 0)
        if not x.exact or not x.shape or not x.size:
            return
        axis, keep = self.integer(0, len(x.shape) - 1), self.integer(0, 1)
        shape = [1 if d == axis else n for d, n in enumerate(x.shape) if d != axis or keep]
        like = Known("", np.dtype(np.int64), tuple(shape), 0, x.shape[axis])
        last = self.integer(0, 1)
        self.add(self.pick(("ArgMax", "ArgMin")), [x], like, axis=axis, keepdims=keep, select_last_index=last)

    def normalise(self) -> None:
        x = self.small(self.any_value(lambda x: x.is_float and len(x.shape) > 0))
        if not x.is_float or not x.shape:
            return
        axis = self.integer(0, len(x.shape) - 1)
        op = self.pick(("Softmax", "LogSoftmax", "LayerNormalization", "LayerNormalization", "InstanceNormalization"))
        like = replace(x, low=-2 * x.scale - 9, high=9, exact=False)
        if op in ("Softmax", "LogSoftmax"):
            self.add(op, [x], replace(like, low=0, high=1) if op == "Softmax" else like, axis=axis)
        elif op == "InstanceNormalization":
            if len(x.shape) > 2 and x.size:
                scale, bias = (self.leaf(x.dtype.name, x.shape[1:2]) for _ in range(2))
                self.add(op, [x, scale, bias], replace(like, low=-99, high=99), epsilon=0.1)
        elif x.size:
            more = [self.leaf(x.dtype.name, x.shape[axis:]) for _ in range(self.integer(1, 2))]
            self.add(op, [x, *more], replace(like, low=-99, high=99), axis=axis, epsilon=0.1)

    # -- views
    def reshape(self) -> None:
        x = self.any_value()
        if self.maybe():
            shape = [n for n in x.shape if n != 1 or self.maybe()]
            shape.insert(self.integer(0, len(shape)), 1)
        else:
            shape = self._factors(x.size)
        if len(shape) <= 6:
            self.add("Reshape", [x, self.ints(shape)], x, shape, allowzero=1)

    def _factors(self, size: int) -> list[int]:
        if size == 0:
            shape = [self.pick((1, 2, 3)) for _ in range(self.integer(0, 2))]
            shape.insert(self.integer(0, len(shape)), 0)
            return shape
        shape: list[int] = []
        while size > 1 and len(shape) < 4:
            divisors = [k for k in range(2, size + 1) if size % k == 0]
            shape.append(self.pick(divisors[:4] + divisors[-1:]))
            size //= shape[-1]
        return [*shape, size] if size > 1 else shape

    def transpose(self) -> None:
        x = self.any_value(lambda x: len(x.shape) > 1)
        perm = self.shuffled(len(x.shape))
        self.add("Transpose", [x], x, [x.shape[d] for d in perm], perm=list(perm))

    def slice(self) -> None:
        x = self.any_value(lambda x: len(x.shape) > 0)
        axes = self.axes(len(x.shape))
        starts, ends, steps, shape = [], [], [], list(x.shape)
        for d in axes:
            n, step = x.shape[d], self.pick((1, 1, 2, 3, -1, -1, -2))
            start, end = self.integer(0, max(n - 1, 0)), self.integer(0, n)
            if step < 0:
                start, end = n - 1 - start, -n - 1 if self.maybe() else end
            stop = -1 if end < 0 else end
            shape[d] = len(range(start, stop, step)) if n else 0
            starts, ends, steps = [*starts, start], [*ends, end], [*steps, step]
        self.add("Slice", [x, *map(self.ints, (starts, ends, axes, steps))], x, shape)

    def expand(self) -> None:
        x = self.any_value()
        shape = [self.pick((1, 2, 3, 5)) if n == 1 else n for n in x.shape]
        shape = [self.pick((1, 2, 3)), *shape] if len(shape) < 5 and self.maybe() else shape
        if math.prod(shape) <= MOST:
            self.add("Expand", [x, self.ints(shape)], x, shape)

    def split(self) -> None:
        x = self.any_value(lambda x: len(x.shape) > 0)
        if not x.shape:
            return
        axis = self.integer(0, len(x.shape) - 1)
        cut = self.integer(0, x.shape[axis])
        parts = [cut, x.shape[axis] - cut]
        names = [self.name("v") for _ in parts]
        self.nodes.append(Node("Split", [x.name, self.ints(parts)], names, {"axis": axis}, name=f"Split_{names[0]}"))
        for name, n in zip(names, parts):
            self.values.append(replace(x, name=name, shape=(*x.shape[:axis], n, *x.shape[axis + 1 :])))

    def squeeze(self) -> None:
        x = self.any_value(lambda x: 1 in x.shape)
        axes = [d for d, n in enumerate(x.shape) if n == 1]
        if axes:
            self.add("Squeeze", [x, self.ints(axes)], x, [n for n in x.shape if n != 1])

    def concat(self) -> None:
        x = self.any_value(lambda x: len(x.shape) > 0)
        if not x.shape:
            return
        axis = self.integer(0, len(x.shape) - 1)
        rest = lambda y: (len(y.shape), y.shape[:axis], y.shape[axis + 1 :], y.dtype)  # noqa: E731
        fit = [y for y in self.values if len(y.shape) > axis and rest(y) == rest(x)]
        parts = [x, *(self.pick(fit) if fit and self.maybe() else self._beside(x, axis) for _ in range(self.integer(1, 2)))]
        if self.maybe():
            parts.reverse()
        total = sum(y.shape[axis] for y in parts)
        shape = (*x.shape[:axis], total, *x.shape[axis + 1 :])
        if math.prod(shape) <= MOST:
            low, high = min(y.low for y in parts), max(y.high for y in parts)
            like = replace(x, low=low, high=high, exact=all(y.exact for y in parts))
            self.add("Concat", parts, like, shape, axis=axis)

    def _beside(self, x: Known, axis: int) -> Known:
        return self.leaf(x.dtype.name, (*x.shape[:axis], self.pick((0, 1, 2, 5)), *x.shape[axis + 1 :]))

    def pad(self) -> None:
        x = self.any_value(lambda x: len(x.shape) > 0 and x.dtype.kind in "fi")
        pads = [self.pick((0, 0, 1, 2, -1)) for _ in range(2 * len(x.shape))]
        rank = len(x.shape)
        shape = [n + pads[d] + pads[rank + d] for d, n in enumerate(x.shape)]
        kept = [n + min(pads[d], 0) + min(pads[rank + d], 0) for d, n in enumerate(x.shape)]
        if rank and min(kept) >= 0 and math.prod(shape) <= MOST:
            fill = self.integer(-2, 2)
            like = replace(x, low=min(x.low, fill), high=max(x.high, fill))
            self.add("Pad", [x, self.ints(pads), self.number(fill, x)], like, shape)

    # -- contractions
    def matmul(self) -> None:
        x = self.small(self.any_value(lambda x: x.dtype.name in ("float32", "float64") and len(x.shape) > 0))
        if not x.is_float or not x.shape:
            return
        k, n = x.shape[-1], self.pick(SIZES)
        lead = [m if self.maybe() else 1 for m in x.shape[:-2]] if self.maybe() else []
        y = self.leaf(x.dtype.name, (*lead, k, n))
        left, right = x, y
        if self.maybe() and len(x.shape) > 1:
            left, right = self.add("Transpose", [y], y, _swapped(y.shape), perm=_swap(len(y.shape))), self.add(
                "Transpose", [x], x, _swapped(x.shape), perm=_swap(len(x.shape)))  # fmt: skip
        rows = left.shape[-2:-1] if len(left.shape) > 1 else ()
        columns = right.shape[-1:] if len(right.shape) > 1 else ()
        shape = (*_common(left.shape[:-2], right.shape[:-2]), *rows, *columns)
        if math.prod(shape) <= MOST:
            reach = max(k, 1) * x.scale * y.scale
            self.add("MatMul", [left, right], replace(x, low=-reach, high=reach, exact=x.exact and y.exact), shape)

    def gemm(self) -> None:
        x = self.small(self.any_value(lambda x: x.dtype.name in ("float32", "float64") and len(x.shape) == 2))
        if not x.is_float or len(x.shape) != 2:
            return
        ta, tb = self.integer(0, 1), self.integer(0, 1)
        (m, k), n = (x.shape[::-1] if ta else x.shape), self.pick(SIZES)
        y = self.leaf(x.dtype.name, (n, k) if tb else (k, n))
        c = self.leaf(x.dtype.name, self.pick([(m, n), (n,), (m, 1), (1, n), ()]))
        reach = max(k, 1) * x.scale * y.scale * 2 + c.scale
        like = replace(x, low=-reach, high=reach, exact=x.exact and y.exact and c.exact)
        self.add("Gemm", [x, y, c], like, (m, n), transA=ta, transB=tb, alpha=self.pick((1.0, 2.0)), beta=self.pick((1.0, -1.0)))

    def conv(self) -> None:
        x = self.small(self.any_value(lambda x: x.dtype.name in ("float32", "float64") and len(x.shape) in (3, 4) and x.size > 0))
        if len(x.shape) not in (3, 4) or not x.size or not x.is_float:
            return
        spatial = len(x.shape) - 2
        c = x.shape[1]
        group = self.pick([g for g in (1, 1, c) if c % g == 0])
        kernel = [self.integer(1, min(3, n)) for n in x.shape[2:]]
        stride, border = [self.integer(1, 2) for _ in kernel], [self.integer(0, 1) for _ in range(2 * spatial)]
        o = group * self.pick((1, 2, 5)) if group > 1 else self.pick((1, 3, 8, 17))
        weights = self.leaf(x.dtype.name, (o, c // group, *kernel))
        bias = [self.leaf(x.dtype.name, (o,))] if self.maybe() else []
        size = [(n + border[d] + border[d + spatial] - kernel[d]) // stride[d] + 1 for d, n in enumerate(x.shape[2:])]
        reach = (c // group) * math.prod(kernel) * x.scale * weights.scale + 3
        exact = all(y.exact for y in (x, weights, *bias))
        like = replace(x, low=-reach, high=reach, exact=exact)
        if math.prod((x.shape[0], o, *size)) <= MOST:
            made = self.add("Conv", [x, weights, *bias], like, (x.shape[0], o, *size), strides=stride, pads=border, group=group)
            if self.maybe():
                parts = [self.leaf(x.dtype.name, (o,), low=1, high=3) for _ in range(4)]
                self.add("BatchNormalization", [made, *parts], replace(made, low=-9 * reach, high=9 * reach, exact=False))


_ONNX = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10, "float64": 11}
_WEIGHTS = {
    "unary": 3, "binary": 6, "compare": 1, "logic": 1, "where": 1, "cast": 1, "reduce": 3, "arg": 1, "normalise": 2, "reshape": 2,
    "transpose": 2, "slice": 2, "expand": 1, "split": 1, "squeeze": 1, "concat": 2, "pad": 1, "matmul": 2, "gemm": 1, "conv": 1,
}  # fmt: skip
_ACTIONS = [name for name, weight in _WEIGHTS.items() for _ in range(weight)]


@st.composite
def problems(draw, most: int = 10) -> Problem:
    """A graph of up to about `most` operators, with inputs."""
    drawing = Drawing(draw, np.random.default_rng(draw(st.integers(0, 1 << 16))))
    return drawing.problem(draw(st.integers(1, most)))


def _flag(x: Known) -> Known:
    return replace(x, dtype=np.dtype(bool), low=0, high=1, exact=True)


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    try:
        return np.broadcast_shapes(a, b)
    except ValueError:
        return None


def _swap(rank: int) -> list[int]:
    return [*range(rank - 2), rank - 1, rank - 2]


def _swapped(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-2], shape[-1], shape[-2])
