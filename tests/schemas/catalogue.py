"""What can be compared: operators in the versions of their schemas, with the types for which onnxruntime has CPU kernels."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import ml_dtypes
import numpy as np
import onnxruntime.capi.onnxruntime_pybind11_state as native
from onnx import ModelProto, TensorProto, ValueInfoProto, defs, helper, numpy_helper

from .draw import Draw, Values

Input = np.ndarray | list | None
MICROSOFT = "com.microsoft"
OLD = 16  # the last opset in which onnxruntime has operators of its own in onnx's domain
DOMAINS = ("", "ai.onnx.ml", MICROSOFT)
NEWEST = {"": defs.onnx_opset_version(), "ai.onnx.ml": 5, MICROSOFT: 1}
_TYPES = {
    **{name: np.dtype(name) for name in ("float16", "bool")},
    **{f"{sign}int{bits}": np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "float": np.dtype(np.float32), "double": np.dtype(np.float64), "string": np.dtype(object),
    **{name: np.dtype(getattr(ml_dtypes, name)) for name in ("bfloat16", "float8_e4m3fn", "int4", "uint4")},
    **{f"float8{a}": np.dtype(getattr(ml_dtypes, f"float8_{a}")) for a in ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz")},
}  # fmt: skip


class Sums:
    """Tolerance classes: how the error of an element grows. UNIT: as that of a number near 1; STEP: one of an integer."""

    EXACT, ROUNDING, UNIT, SUMS, STEP = "exact", "rounding", "unit", "sums", "step"


@dataclass
class Case:
    """A model of one node, with inputs.

    Attributes:
        name: ``Add-14#3``: operator, version, number of the draw.
        opset: of the operator's domain.
        inputs: None is absent.
        constant: the inputs that are initializers of the model.
        outputs: whether each is asked for.
        tolerance: one of `Sums`.
    """

    name: str
    domain: str
    op: str
    opset: int
    inputs: list[Input]
    attributes: dict[str, object] = field(default_factory=dict)
    outputs: Sequence[bool] = (True,)
    constant: frozenset[int] = frozenset()
    tolerance: str = Sums.ROUNDING

    def key(self) -> tuple:
        """What makes a case another one: types, shapes, attributes, and the content of small integer inputs."""
        kinds = [
            None if x is None else (x.dtype.name, x.shape, i in self.constant, x.tobytes() if _is_parameter(x) else b"")
            if isinstance(x, np.ndarray) else repr([(v.dtype.name, v.shape) for v in x])
            for i, x in enumerate(self.inputs)
        ]  # fmt: skip
        attributes = sorted((name, repr(value)) for name, value in self.attributes.items())
        return (self.domain, self.op, self.opset, tuple(attributes), tuple(kinds), tuple(self.outputs))

    def model(self, constant: frozenset[int] | None = None, widened: frozenset[int] = frozenset()) -> ModelProto:
        """The model; the outputs in `widened` are given as float32, by a Cast."""
        constant = self.constant if constant is None else constant
        names = [f"x{i}" if x is not None else "" for i, x in enumerate(self.inputs)]
        made = [f"y{i}" if asked else "" for i, asked in enumerate(self.outputs)]
        attributes = {name: value for name, value in self.attributes.items() if value is not None}
        nodes = [helper.make_node(self.op, names, made, "n", domain=self.domain, **attributes)]
        nodes += [helper.make_node("Cast", [made[i]], [f"{made[i]}_wide"], to=TensorProto.FLOAT) for i in sorted(widened)]
        results = [f"{name}_wide" if i in widened else name for i, name in enumerate(made)]
        weights = [_tensor(x, names[i]) for i, x in enumerate(self.inputs) if i in constant]
        infos = [_info(x, names[i]) for i, x in enumerate(self.inputs) if x is not None and i not in constant]
        graph = helper.make_graph(nodes, "one", infos, [ValueInfoProto(name=name) for name in results if name], weights)
        imports = [helper.make_opsetid("", 21 if self.domain else self.opset)]
        imports += [helper.make_opsetid(self.domain, self.opset)] if self.domain else []
        return helper.make_model(graph, opset_imports=imports, ir_version=10)

    def __str__(self) -> str:
        kinds = ", ".join("_" if x is None else f"{x.dtype}{list(x.shape)}{'=' * (i in self.constant)}" if isinstance(x, np.ndarray)
                          else f"{len(x)} tensors" for i, x in enumerate(self.inputs))  # fmt: skip
        attributes = " ".join(f"{name}={_short(value)}" for name, value in self.attributes.items() if value is not None)
        return f"{self.name} {self.domain}({kinds}) {attributes}"


def _short(value: object) -> str:
    return f"tensor {numpy_helper.to_array(value).tolist()}" if isinstance(value, TensorProto) else str(value)


def _is_parameter(x: np.ndarray) -> bool:
    return x.dtype in (np.int32, np.int64, np.dtype(bool)) and x.size <= 16


def _tensor(x: np.ndarray, name: str) -> TensorProto:
    if x.dtype.kind == "O":
        return helper.make_tensor(name, TensorProto.STRING, x.shape, [str(v).encode() for v in x.reshape(-1)])
    return numpy_helper.from_array(x, name)


def _element(x: np.ndarray) -> int:
    return TensorProto.STRING if x.dtype.kind == "O" else helper.np_dtype_to_tensor_dtype(x.dtype)


def _info(x: Input, name: str) -> ValueInfoProto:
    if isinstance(x, list):
        return helper.make_tensor_sequence_value_info(name, _element(x[0]), None)
    return helper.make_tensor_value_info(name, _element(x), [None] * x.ndim)


@dataclass(frozen=True)
class Signature:
    """An operator in a version: its attributes and the type bindings of onnxruntime's kernels; `opset`: of its models."""

    domain: str
    op: str
    version: int
    attributes: frozenset[str]
    required: int
    kernels: tuple[dict[str, tuple[str, ...]], ...]
    opset: int

    @property
    def name(self) -> str:
        """``Add-14``."""
        return f"{self.op}-{self.version}"


class Node:
    """A node that is being drawn. A rule sets attributes and gives its inputs to `case`."""

    def __init__(self, signature: Signature, draw: Draw, name: str) -> None:
        self.op, self.version, self.signature, self.draw, self.name = signature.op, signature.version, signature, draw, name
        self.kernel = draw.choice(signature.kernels)
        self.attributes: dict[str, object] = {}
        self._types: dict[str, np.dtype] = {}

    def type(self, parameter: str, among: str = "") -> np.dtype:
        """The dtype that a type parameter stands for in this node; `among`: names separated by blanks."""
        if parameter not in self._types:
            known = [t for t in self.kernel[parameter] if t in _TYPES and (not among or t in among.split())]
            if not known:
                raise Undrawable
            self._types[parameter] = _TYPES[self.draw.choice(known)]
        return self._types[parameter]

    def bind(self, parameter: str, dtype: np.dtype) -> None:
        """Let a type parameter stand for a dtype: onnxruntime mixes no types where a schema would."""
        self._types[parameter] = dtype

    def has(self, attribute: str) -> bool:
        """Whether the version has an attribute."""
        return attribute in self.signature.attributes

    def set(self, name: str, *options: object) -> object:
        """One of the options as an attribute, if the version has it; None leaves it out."""
        value = self.draw.choice(options)
        if value is not None and self.has(name):
            self.attributes[name] = value
        return value if self.has(name) else None

    def values(self, parameter: str, shape: Sequence[int] = (), kind: Values = Values.ANY) -> np.ndarray:
        """An array of the parameter's type."""
        return self.draw.values(self.type(parameter), shape, kind)

    def case(
        self, *inputs: Input, outputs: int | Sequence[bool] = 1, tolerance: str = Sums.ROUNDING, constant: Sequence[int] = (),
        maybe: Sequence[int] = (),
    ) -> Case:  # fmt: skip
        """The case; inputs in `maybe` are constant in half of the cases, any input in a few."""
        fixed = {i for i in maybe if self.draw.chance(50)} | set(constant)
        if self.draw.chance(10):
            fixed |= {i for i in range(len(inputs)) if self.draw.chance(50)}
        kept = [np.asarray(x) if isinstance(x, np.generic) else x for x in inputs]
        while kept and kept[-1] is None:
            kept.pop()
        fixed = {i for i in fixed if i < len(kept) and isinstance(kept[i], np.ndarray)}
        asked = (True,) * outputs if isinstance(outputs, int) else tuple(outputs)
        s = self.signature
        return Case(self.name, s.domain, s.op, s.opset, kept, self.attributes, asked, frozenset(fixed), tolerance)


class Undrawable(Exception):
    """The choices so far allow no valid node."""


Rule = Callable[[Node, Draw], Case]
RULES: dict[tuple[str, str], Rule] = {}


def rule(*names: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Register how operators are drawn."""

    def register(function: Rule) -> Rule:
        RULES.update(((domain, name), function) for name in names)
        return function

    return register


@lru_cache(maxsize=1)
def signatures() -> tuple[Signature, ...]:
    """Everything with a rule and a kernel, in a stable order."""
    from . import (  # noqa: F401
        attention,
        contractions,
        contrib,
        elementwise,
        fewbits,
        images,
        indexing,
        legacy,
        mixers,
        ml,
        movement,
        quantised,
        reductions,
        sequences,
    )  # fmt: skip

    bindings = defaultdict(list)
    for kernel in kernels():
        kinds = {name: tuple(t[7:-1] for t in types if t.startswith("tensor(")) for name, types in kernel.type_constraints.items()}
        bindings[kernel.domain, kernel.op_name].append((*kernel.version_range, kinds))
    found = []
    for schema, entered in schemas():
        ranges = bindings[schema.domain, schema.name]
        fitting = [_allowed(schema, kinds) for first, last, kinds in ranges if first <= schema.since_version <= last]
        fitting = [kinds for kinds in fitting if kinds is not None]
        if fitting and (schema.domain, schema.name) in RULES:
            names, order = frozenset(schema.attributes), sorted(fitting, key=repr)
            version = schema.since_version
            opset = min(entered - 1, OLD) if not schema.domain and version < entered else version
            found.append(Signature(schema.domain, schema.name, version, names, schema.min_input, tuple(order), opset))
    return tuple(sorted(found, key=lambda s: (s.domain, s.op, s.version)))


def _allowed(schema: object, kinds: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]] | None:
    """A kernel's types without those that the schema forbids; None if it forbids all of a parameter's."""
    allowed = {c.type_param_str: {t[7:-1] for t in c.allowed_type_strs if t.startswith("tensor(")} for c in schema.type_constraints}
    left = {name: tuple(t for t in types if t in allowed.get(name, types)) for name, types in kinds.items()}
    return left if all(left[name] or not types for name, types in kinds.items()) else None


def kernels() -> list:
    """The kernels of onnxruntime's CPU provider."""
    return [kernel for kernel in native.get_all_opkernel_def() if kernel.provider == "CPUExecutionProvider"]


@lru_cache(maxsize=1)
def schemas() -> list[tuple[object, int]]:
    """The schemas of onnx, and of onnxruntime those that onnx lacks, each with the first opset in which onnx has the operator."""
    every = [s for s in defs.get_all_schemas_with_history() if s.domain in DOMAINS]
    theirs = [s for s in native.get_all_operator_schema() if s.domain in DOMAINS]
    entered: dict[tuple[str, str], int] = {}
    for s in [*every, *(s for s in theirs if s.deprecated)]:
        entered[s.domain, s.name] = min(s.since_version, entered.get((s.domain, s.name), 1 << 30))
    names = {(s.domain, s.name, s.since_version) for s in every}
    kept = [s for s in every if not s.deprecated]
    kept += [s for s in theirs if not s.deprecated and (s.domain, s.name, s.since_version) not in names]
    return [(s, entered.get((s.domain, s.name), 1 << 30)) for s in kept]


def draw_case(signature: Signature, number: int) -> Case | None:
    """The case of a number; None if its choices allow no valid node."""
    return drawn(
        signature, Draw(random.Random(f"{signature.domain}/{signature.name}/{number}").randrange), f"{signature.name}#{number}"
    )


def drawn(signature: Signature, draw: Draw, name: str) -> Case | None:
    """A case by the choices of `draw`."""
    try:
        return RULES[signature.domain, signature.op](Node(signature, draw, name), draw)
    except Undrawable:
        return None


def named(name: str) -> Case:
    """The case with a name (``Add-14#3``, ``com.microsoft:Pad-1#3``)."""
    operator, _, number = name.partition("#")
    domain, _, operator = operator.rpartition(":")
    found = [s for s in signatures() if s.name == operator and (not domain or s.domain == domain)]
    case = draw_case(found[0], int(number)) if found else None
    if case is None:
        raise SystemExit(f"no case is called {name}")
    return case
