"""How texts and sequences are drawn."""

from __future__ import annotations

import numpy as np

from .catalogue import Case, Node, rule
from .draw import Draw

OBJECT, INT64 = np.dtype(object), np.int64


@rule("StringConcat")
def string_concat(n: Node, d: Draw) -> Case:
    a, b = d.operand_shapes(2, 3)
    return n.case(d.values(OBJECT, a), d.values(OBJECT, b))


@rule("StringSplit")
def string_split(n: Node, d: Draw) -> Case:
    n.set("delimiter", None, ",", "", "b")
    n.set("maxsplit", None, 1, 2)
    return n.case(d.values(OBJECT, d.shape(1, 2, least=1)), outputs=2)


@rule("RegexFullMatch")
def regex(n: Node, d: Draw) -> Case:
    n.set("pattern", "[a-z]+", ".*", "-?[0-9.]+", "a|B", "")
    return n.case(d.values(OBJECT, d.shape(0, 2)))


@rule("StringNormalizer")
def normalizer(n: Node, d: Draw) -> Case:
    n.set("case_change_action", None, "LOWER", "UPPER", "NONE")
    n.set("is_case_sensitive", None, 0, 1)
    n.set("stopwords", None, ["a", "12"], ["ABC"])
    return n.case(d.values(OBJECT, (d.size(1),)))


@rule("TfIdfVectorizer")
def tfidf(n: Node, d: Draw) -> Case:
    n.set("mode", "TF", "IDF", "TFIDF")
    n.set("min_gram_length", 1)
    n.set("max_gram_length", 2)
    n.set("max_skip_count", 0, 1, 2)
    n.set("ngram_counts", [0, 3])
    n.set("ngram_indexes", [0, 1, 2, 3, 4])
    n.set("weights", None, [0.5, 1.0, 2.0, 3.0, 4.0])
    shape = d.choice([(d.size(1),), (d.integer(1, 3), d.size(1))])
    if d.chance(50):
        n.set("pool_strings", ["a", "B", "ab", "a", "B", "0", "a"])
        return n.case(d.values(OBJECT, shape))
    n.set("pool_int64s", [1, 2, 3, 1, 2, 2, 3])
    return n.case(d.indices(shape, 4, d.choice([np.int32, INT64]), negative=False))


def _sequence(d: Draw, count: int) -> list[np.ndarray]:
    dtype = d.choice([np.float32, np.int64, np.float64, np.uint8])
    return [d.values(dtype, d.shape(0, 3)) for _ in range(count)]


@rule("SequenceAt", "SequenceErase")
def sequence_at(n: Node, d: Draw) -> Case:
    tensors = _sequence(d, d.integer(1, 4))
    position = np.array(d.integer(-len(tensors), len(tensors) - 1), d.choice([np.int32, INT64]))
    return n.case(tensors, None if n.op == "SequenceErase" and d.chance(30) else position)


@rule("SequenceInsert")
def sequence_insert(n: Node, d: Draw) -> Case:
    tensors = _sequence(d, d.integer(1, 4))
    new = d.values(tensors[0].dtype, d.shape(0, 3))
    position = None if d.chance(30) else np.array(d.integer(-len(tensors), len(tensors)), d.choice([np.int32, INT64]))
    return n.case(tensors, new, position)


@rule("SequenceLength")
def sequence_length(n: Node, d: Draw) -> Case:
    return n.case(_sequence(d, d.integer(1, 4)))


@rule("SequenceConstruct")
def sequence_construct(n: Node, d: Draw) -> Case:
    return n.case(*_sequence(d, d.integer(1, 4)))


@rule("ConcatFromSequence")
def concat_from_sequence(n: Node, d: Draw) -> Case:
    shape, new = d.shape(1, 3), n.set("new_axis", None, 0, 1)
    n.set("axis", d.integer(-len(shape) - (new or 0), len(shape) - 1 + (new or 0)))
    return n.case([d.values(np.float32, shape) for _ in range(d.integer(1, 3))])


@rule("SplitToSequence")
def split_to_sequence(n: Node, d: Draw) -> Case:
    shape = d.shape(1, 3, least=1)
    axis = d.axis(len(shape))
    n.set("axis", axis)
    n.set("keepdims", None, 0, 1)
    x = n.values("T", shape)
    if d.chance(40):
        return n.case(x)
    size = d.integer(1, shape[axis])
    sizes = np.array(size, INT64) if d.chance(50) else np.array([size, shape[axis] - size], INT64)
    return n.case(x, sizes)
