"""Where onnxruntime and jitrt rightly differ: which cases, and why. Every entry has to be needed, or it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .catalogue import Case

POOLS = "MaxPool AveragePool LpPool NhwcMaxPool"
COORDINATES = "coordinate_transformation_mode"
REDUCTIONS = "ReduceMax ReduceMin ReduceLogSumExp ReduceLogSum"


@dataclass(frozen=True)
class Explanation:
    """Operators (separated by blanks), a condition on cases, and the reason that they differ."""

    operators: str
    holds: Callable[[Case], bool]
    why: str

    def explains(self, case: Case) -> bool:
        """Whether it is about the case."""
        return case.op in self.operators.split() and self.holds(case)


def explanation(case: Case) -> Explanation | None:
    """The first that is about a case."""
    return next((e for e in EXPLANATIONS if e.explains(case)), None)


def _inputs(case: Case) -> Iterator[np.ndarray]:
    return (x for x in case.inputs if isinstance(x, np.ndarray))


def _holds_nan(case: Case) -> bool:
    return any(x.dtype.kind in "fV" and np.isnan(x.astype(np.float64)).any() for x in _inputs(case))


def _is_same(case: Case) -> bool:
    return str(case.attributes.get("auto_pad", "")).startswith("SAME")


def _is_dilated(case: Case) -> bool:
    return max(case.attributes.get("dilations", [1])) > 1


def _skips(case: Case) -> bool:
    """Whether strides leave pixels out between windows, so that SAME would pad by less than nothing."""
    steps, kernel = case.attributes.get("strides", []), case.attributes["kernel_shape"]
    return _is_same(case) and any(s > k for s, k in zip(steps, kernel))


def _is_unsure(case: Case) -> bool:
    """Whether a row may reach leaves that do not speak of every class or target."""
    a, said = case.attributes, "target" if case.op.endswith("Regressor") else "class"
    trees, ids = np.array(a[f"{said}_treeids"]), np.array(a[f"{said}_ids"])
    count = a.get("n_targets") or len(a.get("classlabels_int64s") or a["classlabels_strings"])
    return not all(any((ids[trees == t] == c).all() for t in set(trees)) for c in range(count))


def _labels(case: Case) -> int:
    return next(len(labels) for name, labels in case.attributes.items() if name.startswith("classlabels_"))


def _has_base_values(case: Case) -> bool:
    return not case.attributes.keys().isdisjoint(("base_values", "base_values_as_tensor"))


def _has_fractional_size(case: Case) -> bool:
    """Whether a size times its scale is no integer."""
    scales = case.inputs[1 if case.opset < 11 else 2]
    if scales is None or scales.size == 0:
        return False
    sizes = np.array(case.inputs[0].shape[-len(scales) :])
    return bool((np.rint(sizes * scales) != (sizes * scales).astype(np.float32)).any())


EXPLANATIONS = (
    # -- what the standard says and onnxruntime does not do
    Explanation("NonZero", lambda c: c.inputs[0].ndim == 0,
                "ONNX: of a scalar the output has shape (0, N); onnxruntime gives it one dimension"),
    Explanation("Dropout", lambda c: c.opset == 10,
                "ONNX: nothing is dropped at inference, so the mask is true, as it is in later versions of onnxruntime"),
    Explanation("SplitToSequence", lambda c: c.attributes.get("keepdims") == 0 and len(c.inputs) > 1,
                "ONNX: keepdims is ignored where `split` is given; onnxruntime tries to drop the dimension"),
    Explanation("StringSplit", lambda c: "" in c.inputs[0] and bool(c.attributes.get("delimiter")),
                "with a delimiter an empty text is one part, as in Python and in ONNX's reference; onnxruntime counts none"),
    Explanation("Slice", lambda c: len(c.inputs) > 4 and min(c.inputs[4]) < 0 and 2**31 - 1 in c.inputs[2],
                "ONNX: 'to the end' is INT_MIN for negative steps; onnxruntime takes INT_MAX for it too"),
    Explanation("TreeEnsemble", lambda c: c.attributes.get("post_transform") in (1, 2),
                "ONNX numbers SOFTMAX 1 and LOGISTIC 2; onnxruntime's own numbers are the other way round"),
    Explanation("LinearClassifier", lambda c: "intercepts" not in c.attributes, "ONNX: intercepts are optional"),
    Explanation("TreeEnsembleClassifier", lambda c: _labels(c) == 2 and _has_base_values(c),
                "ONNX: each class has the votes for it and its base value; of two classes onnxruntime takes the first one's votes"
                " for the second one's, and forgets a base value"),
    Explanation("LayerNormalization", lambda c: c.opset < 17 and c.inputs[0].dtype == np.float64 and c.attributes.get("axis") == 0,
                "of all dimensions at once onnxruntime gives statistics without dimensions, for float64 alone"),
    Explanation("SVMClassifier", lambda c: c.attributes.get("post_transform") == "PROBIT" and _labels(c) == 2,
                "onnxruntime gives 0 for the second of two classes"),
    Explanation("TreeEnsemble", lambda c: c.attributes.get("post_transform") == 3 and c.inputs[0].dtype == np.float64,
                "onnxruntime computes float64's SOFTMAX_ZERO in float32"),
    Explanation("Resize", lambda c: c.attributes.get(COORDINATES) == "align_corners" and _has_fractional_size(c),
                "ONNX's reference takes size * scale unrounded for the resized length, onnxruntime the rounded one"),
    Explanation("Col2Im", lambda c: _is_dilated(c), "onnxruntime differs from ONNX's reference where it dilates"),
    Explanation("QuantizeLinear", lambda c: c.inputs[0].dtype == np.float16,
                "ONNX: the division has the precision of the scale; onnxruntime's has it for some integers, float32's for others"),
    Explanation("QuantizeLinear DequantizeLinear", lambda c: bool(c.attributes.get("block_size")) and c.inputs[1].size == 1,
                "onnxruntime takes a single scale for one of the whole tensor, and refuses its block size"),
    Explanation("Pad", lambda c: len(c.inputs) > 3 and c.inputs[3] is not None and c.inputs[3].dtype == np.int32,
                "ONNX allows int32 axes; the shape inference that onnxruntime runs reads int64 alone"),
    Explanation(POOLS, lambda c: _is_same(c) and _is_dilated(c),
                "ONNX: with SAME the output has ceil(size / stride) elements; onnxruntime forgets the dilation when it pads"),
    Explanation(POOLS, _skips, "nothing can be cut off by padding; onnxruntime refuses negative pads, or shifts the image by them"),
    # -- what is left open
    Explanation(REDUCTIONS, _holds_nan, "IEEE 754: NaN propagates; onnxruntime's vectorised extremes lose it in some layouts"),
    Explanation("Sign", _holds_nan, "NaN stays NaN, as in numpy; onnxruntime gives 0 for the 16-bit types"),
    Explanation("Gelu BiasGelu FastGelu QuickGelu", lambda c: any(np.isinf(x).any() for x in _inputs(c)),
                "the limit at -infinity is 0; onnxruntime multiplies -infinity by 0"),
    Explanation("ReduceMean", lambda c: c.inputs[0].size == 0, "the mean of nothing is NaN, as in numpy; onnxruntime gives 0"),
    Explanation("ReduceLogSumExp ReduceLogSum", lambda c: c.inputs[0].dtype.kind == "i",
                "of integers onnxruntime rounds every exponential; jitrt the result alone"),
    Explanation("Cast", lambda c: c.attributes["to"] == 8 and c.inputs[0].dtype.kind in "fV",
                "several texts say the same number (1.0 and 1)"),
    Explanation("Cast", lambda c: c.attributes["to"] in (21, 22) and c.inputs[0].dtype.kind in "fV",
                "a fraction is cut off, as for the other integers; onnxruntime rounds it for those of 4 bits"),
    Explanation("LabelEncoder", lambda c: c.opset == 2 and any(k != k for k in c.attributes.get("keys_floats", [])),
                "a NaN among the keys is found, as opset 4 has it; onnxruntime finds it from opset 4 on"),
    Explanation("Binarizer", _holds_nan, "NaN exceeds no threshold; onnxruntime refuses it"),
    Explanation("TreeEnsembleClassifier TreeEnsembleRegressor", _is_unsure,
                "ONNX adds base values to every sum, and compares all classes; to onnxruntime a class or target that no leaf of a"
                " row names has no score, not even its base value"),
    Explanation("LinearClassifier SVMClassifier", lambda c: not np.isfinite(c.inputs[0].astype(np.float64)).all(),
                "which class wins where scores are NaN (infinity less infinity) is not said"),
    Explanation("MultiHeadAttention", lambda c: len(c.inputs) > 4 and c.inputs[4] is not None and not c.inputs[4].any(1).all(),
                "a row of masked keys alone: -10000 added to each score rounds them, in different places"),
    Explanation("MatMulNBits", lambda c: c.attributes.get("accuracy_level") == 4,
                "level 4 allows activations of 8 bits; jitrt keeps float32"),
    # -- faults
    Explanation("MatMulNBits", lambda c: len(c.inputs) > 4 and c.inputs[3] is not None and c.inputs[4] is not None,
                "with groups onnxruntime forgets the zero points"),
    Explanation("Shrink", lambda c: c.inputs[0].dtype == np.float64, "onnxruntime computes float64 in float32"),
    Explanation("Gather", lambda c: c.inputs[0].dtype.kind == "O", "onnxruntime copies one text of each slice"),
    Explanation("DFT", lambda c: c.inputs[0].dtype == np.float64, "onnxruntime's inverse transform of float64 has float32's error"),
)  # fmt: skip
