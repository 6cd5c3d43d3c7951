"""Nodes that change nothing because of their parameters, and nodes that look much like them but do change something.

Each function takes a tensor and returns another one, or raises Unfit. Those in NEUTRAL keep every element; those in
NEARLY change some elements, or the shape, or are not known to keep them.
"""

import numpy as np
from onnx import TensorProto

from graph_builder import (FLOATS, Unfit, broadcast, crop, dropout, fixed, pad, reduce, skipped, split, squeeze, taken,
                           transpose, unsqueeze)

LEAST, MOST = float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)
INFINITY = float("inf")


def neutral(m, x):
    """Adds one or two nodes that change nothing; now and then one is from NEARLY instead."""
    if x.rank < 1:
        raise Unfit("a number")
    for _ in range(m.pick([1, 1, 2])):
        x = m.pick(NEARLY if m.chance(0.15) else NEUTRAL)(m, x)
    return x


def only_float32(m):
    """Raises Unfit for other types than float32, for which ONNX Runtime lacks some operators."""
    if m.dtype != np.float32:
        raise Unfit("another type")


def since(m, opset):
    if m.opset < opset:
        raise Unfit("an older operator set")


def number(m, value):
    return m.const(np.array(value, m.dtype).reshape(m.pick([(), (1,)])))


# --- nothing changes -------------------------------------------------------------------------

def clipped_by_nothing(m, x):
    only_float32(m)
    if m.opset < 11:
        return m.op("Clip", [x], min=m.pick([None, LEAST, -INFINITY]), max=m.pick([None, MOST, INFINITY]))
    bound = lambda *values: m.pick(["", *(m.stored(np.float32(value)) for value in values)])
    return m.op("Clip", [x, bound(LEAST, -INFINITY), bound(MOST, INFINITY)])


def straight(m, x):
    """A LeakyRelu or PRelu whose slopes are 1."""
    if m.opset < 9 or m.chance(0.4):
        return m.op("LeakyRelu", [x], alpha=1.0)
    return m.op("PRelu", [x, m.const(np.ones(slopes_shape(m, x), m.dtype))])


def slopes_shape(m, x):
    if x.rank < 2 or m.chance(0.4):
        return (1,)
    return (fixed(x, 1), *[1] * (x.rank - 2))


def to_the_power_of(m, x, exponent=1):
    only_float32(m)
    if m.opset >= 12 and m.chance(0.3):
        return m.op("Pow", [x, m.stored(np.array(exponent, m.pick([np.int64, np.int32])))])
    return m.op("Pow", [x, number(m, exponent)])


def chosen_from_one(m, x):
    """A Max or Min of x, alone or with a bound that no number exceeds; or a Mean or Sum of x alone."""
    since(m, 8)
    op = m.pick(["Max", "Min", "Mean", "Sum"])
    beside = []
    if op in ("Max", "Min") and m.chance(0.7):
        beside = [number(m, m.pick([LEAST, -INFINITY] if op == "Max" else [MOST, INFINITY]))
                  if m.dtype != np.float16 else number(m, -INFINITY if op == "Max" else INFINITY)]
    given = [x, *beside]
    return m.op(op, given if m.chance(0.6) else given[::-1])


def repeated_once(m, x):
    return m.op("Tile", [x, m.ints(*[1] * x.rank)])


def cast_to_itself(m, x):
    if m.opset >= 15 and m.chance(0.7):
        return m.op("CastLike", [x, m.pick([x, m.stored(np.zeros(3, m.dtype))])])
    return m.op("Cast", [x], to=FLOATS[m.dtype])


def split_into_one(m, x):
    axis = m.between(0, x.rank - 1)
    if m.opset >= 18 and m.chance(0.5):
        return m.op("Split", [x], axis=axis, num_outputs=1)
    if m.opset < 18 and m.chance(0.4):
        return m.op("Split", [x], axis=axis)
    return split(m, x, axis, [fixed(x, axis)])[0]


def pooled_alone(m, x):
    """A pool with windows of one element."""
    only_float32(m)
    if x.rank < 3:
        raise Unfit("no spatial axes")
    axes = x.rank - 2
    return m.op(m.pick(["MaxPool", "MaxPool", "AveragePool"]), [x], kernel_shape=[1] * axes,
                strides=m.pick([None, [1] * axes]))


def resized_by(m, x, factor=1.0):
    """A Resize or Upsample by `factor` along the last axis, and by 1 along the others."""
    only_float32(m)
    if x.rank != 4:
        raise Unfit("not four axes")
    shape = lambda s: [*s[:3], int(np.floor(np.float32(s[3]) * np.float32(factor)))]
    factors = [1.0, 1.0, 1.0, factor]
    mode = m.pick(["nearest", "linear"])
    if m.opset < 9:
        return m.op("Upsample", [x], shape, mode=mode, scales=factors)
    if m.opset < 11:
        return m.op("Upsample" if m.opset < 10 else "Resize", [x, m.stored(np.array(factors, np.float32))], shape, mode=mode)
    if factor == 1.0 and m.chance(0.3):
        return m.op("Resize", [x, "", "", m.raw("Shape", [x])] if m.opset >= 13 else
                    [x, m.stored(np.zeros(0, np.float32)), m.stored(np.zeros(0, np.float32)), m.raw("Shape", [x])],
                    mode=mode)
    roi = "" if m.opset >= 13 else m.stored(np.zeros(0, np.float32))
    way = m.pick(["half_pixel", "asymmetric", "align_corners"])
    return m.op("Resize", [x, roi, m.stored(np.array(factors, np.float32))], shape, mode=mode,
                coordinate_transformation_mode=way)


def same_shape(m, x):
    """A Reshape or Expand to the shape that x has already."""
    is_fixed = len(set(x.shapes)) == 1
    if m.opset >= 8 and m.chance(0.3):
        return m.op("Expand", [x, m.pick([m.raw("Shape", [x]), m.ints(*[1] * m.between(1, x.rank))])])
    if m.chance(0.3):
        return m.op("Reshape", [x, m.raw("Shape", [x])])
    sizes = list(x.shapes[0]) if is_fixed and m.chance(0.5) else [0] * x.rank
    if m.chance(0.5):
        sizes[m.between(0, x.rank - 1)] = -1
    return m.op("Reshape", [x, m.ints(*sizes)])


def nothing_moved(m, x):
    """A node that moves no element: a Slice or Pad by nothing, a Transpose, Gather or Concat that is the identity,
    an Unsqueeze that is squeezed again, a DepthToSpace or SpaceToDepth of blocks of one; or a Dropout."""
    axis = m.between(0, x.rank - 1)
    match m.pick(["crop", "pad", "transpose", "concat", "gather", "steps", "unsqueeze", "blocks"]):
        case "crop":
            return crop(m, x, [axis], [0], [0])
        case "pad":
            return pad(m, x, [0] * x.rank, [0] * x.rank)
        case "transpose":
            return transpose(m, x, list(range(x.rank)))
        case "concat":
            return m.op("Concat", [x], axis=axis)
        case "gather":
            size = fixed(x, axis)
            return taken(m, x, axis, [i - size if m.chance(0.2) else i for i in range(size)])
        case "steps":
            return skipped(m, x, [axis], [0], [None], [1])
        case "unsqueeze":
            return squeeze(m, unsqueeze(m, x, axis), axis)
        case _ if x.rank == 4:
            return m.op(m.pick(["DepthToSpace", "SpaceToDepth"]), [x], blocksize=1)
    return dropout(m, x)


def by_arithmetic(m, x):
    match m.pick(["zero", "one", "twice"]):
        case "zero":
            return m.op(m.pick(["Add", "Sub"]), [x, number(m, 0)])
        case "one":
            return m.op(m.pick(["Mul", "Div"]), [x, number(m, 1)])
    return m.op("Neg", [m.op("Neg", [x])])


NEUTRAL = [clipped_by_nothing, straight, to_the_power_of, chosen_from_one, repeated_once, cast_to_itself,
           split_into_one, pooled_alone, resized_by, same_shape, nothing_moved, by_arithmetic]


# --- something changes ------------------------------------------------------------------------

def clipped(m, x):
    """A Clip with a bound that elements reach, on one side or both."""
    only_float32(m)
    low, high = m.pick([(0.0, MOST), (LEAST, 1.0), (-0.5, 0.5), (0.0, None), (None, 2.0)])
    if m.opset < 11:
        return m.op("Clip", [x], min=low, max=high)
    return m.op("Clip", [x, *("" if bound is None else m.stored(np.float32(bound)) for bound in (low, high))])


def bent(m, x):
    """A LeakyRelu or PRelu with one slope or all slopes other than 1, or with a slope that is a graph input (of 1)."""
    if m.opset < 9 or m.chance(0.3):
        return m.op("LeakyRelu", [x], alpha=m.pick([0.5, 0.9, None]))
    slopes = np.ones(slopes_shape(m, x), m.dtype)
    if m.scope is m.main and m.chance(0.2):
        return m.op("PRelu", [x, m.input([[1] * 3], [1], np.ones)])
    slopes.reshape(-1)[m.between(0, slopes.size - 1)] = m.pick([0.5, -1, 0])
    return m.op("PRelu", [x, m.const(slopes)])


def squared(m, x):
    return to_the_power_of(m, x, 2)


def chosen(m, x):
    """A Max or Min of x and a number that some elements exceed, or a constant that broadcasts x to another shape."""
    since(m, 8)
    op = m.pick(["Max", "Min"])
    if m.chance(0.5):
        return m.op(op, [x, number(m, m.pick([0, 0.5]))])
    beyond = np.array(-INFINITY if op == "Max" else INFINITY, m.dtype)
    if x.rank > 4:
        raise Unfit("more axes")
    shape = m.pick([(1,) * (x.rank + 1), (2, *[1] * (x.rank - 1)) if x.rank else (2,)])
    return m.op(op, [x, m.const(np.broadcast_to(beyond, shape).copy())], lambda s: broadcast(s, shape))


def averaged_with_itself(m, x):
    """A Mean of two tensors: x, and x itself, its negative or its hyperbolic tangent."""
    since(m, 8)
    return m.op("Mean", [x, m.pick([x, m.op("Neg", [x]), m.op("Tanh", [x])])])


def repeated_twice(m, x):
    axis = m.between(1 if x.rank > 1 else 0, x.rank - 1)
    times = [2 if at == axis else 1 for at in range(x.rank)]
    return m.op("Tile", [x, m.ints(*times)], lambda s: [n * by for n, by in zip(s, times)])


def cast_there_and_back(m, x):
    only_float32(m)
    wide = m.raw("Cast", [x], to=TensorProto.DOUBLE)
    back = m.raw("Cast", [wide], to=TensorProto.FLOAT)
    return m.op("Identity", [x._replace(name=back)])


def part_of_a_split(m, x):
    axis = m.between(0, x.rank - 1)
    size = fixed(x, axis)
    if size < 2:
        raise Unfit("one")
    first = m.between(1, size - 1)
    return m.pick(split(m, x, axis, [first, size - first]))


def pooled(m, x):
    """A MaxPool with windows of two elements, or with the indices as a second output, or with ceil_mode and strides."""
    only_float32(m)
    if x.rank < 3:
        raise Unfit("no spatial axes")
    axes = x.rank - 2
    match m.pick(["two", "indices", "up"]):
        case "two":
            return m.op("MaxPool", [x], lambda s: [*s[:2], *(n - 1 for n in s[2:])], kernel_shape=[2] * axes)
        case "indices" if m.opset >= 8:
            return m.op("MaxPool", [x], outputs=2, kernel_shape=[1] * axes)
        case _ if m.opset >= 10:
            return m.op("MaxPool", [x], lambda s: [*s[:2], *((n + 1) // 2 for n in s[2:])],
                        kernel_shape=[1] * axes, strides=[2] * axes, ceil_mode=1)
    raise Unfit("an older operator set")


def resized_a_little(m, x):
    """A Resize by 1.05, which keeps small sizes but samples other positions, or by 2."""
    since(m, 11)
    return resized_by(m, x, m.pick([1.05, 2.0]))


def mean_of_one_axis(m, x):
    axis = m.between(0, x.rank - 1)
    return reduce(m, x, [axis], True, m.pick(["ReduceMean", "ReduceSum"]))


NEARLY = [clipped, bent, squared, chosen, averaged_with_itself, repeated_twice, cast_there_and_back, part_of_a_split,
          pooled, resized_a_little, mean_of_one_axis]
