"""Random models of the kinds that a fuser can get wrong, each a pure function of its seed.

    python fuzz/random_models.py SEED FILE

writes one. A model is a sequence of pieces; PIECES is the table of their kinds. A piece takes a tensor and returns
another one, or raises Unfit. What the file says around the nodes (outputs, value_info, ...) is decided at the end.
No node behind what can be fused rounds or compares, since this would turn a rounding difference into a large one.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from graph_builder import (ASSIGNMENTS, FLOATS, Builder, Tensor, Unfit, broadcast, clip, crop, dropout, fixed, pad,
                           piece_of, reduce, skipped, split, squeeze, taken, transpose, unsqueeze, with_axes)
from neutral_nodes import neutral

SPATIAL = (1, 2, 3, 3, *(4, 5, 6, 7, 8, 9) * 2, 11, 12)
MOST_CHANNELS = 8
# Names of open dimensions. They promise nothing, whatever they look like.
BATCH_NAMES = ("N", "batch", "n", "1", "2", "")
SIZE_NAMES = ("h", "w", "s", "8", "6", "7", "64", "5", "h+1", "2*w", "(h)", "h/2", "-1", "s-s", "height of x", "", "",
              "(" * 40 + "h" + ")" * 40)


class Case(NamedTuple):
    """A model, its inputs under each assignment of the open sizes, and the kinds of its pieces."""
    seed: int
    model: onnx.ModelProto
    feeds: list
    kinds: list
    # Whether its weights are in a side file; whether its value_info is wrong.
    is_beside: bool
    lies: bool

    def save(self, path):
        if self.is_beside:
            # onnx.save moves the weights out of the model that it is given.
            copy = onnx.ModelProto()
            copy.CopyFrom(self.model)
            onnx.save(copy, path, save_as_external_data=True, location=Path(path).name + ".data", size_threshold=64)
        else:
            Path(path).write_bytes(self.model.SerializeToString())


# --- convolutions and what stands behind them ------------------------------------------

def kernel(m, outputs, inputs, taps, gain=1.0):
    scale = gain / np.sqrt(max(1, inputs * int(np.prod(taps))))
    return m.normal(outputs, inputs, *taps, scale=scale)


def divisors(a, b):
    return [n for n in range(1, min(a, b) + 1) if a % n == 0 and b % n == 0]


def conv(m, x, outputs, taps, pads=None, strides=None, dilations=None, groups=None, weights=None, bias=None,
         auto_pad=None):
    """A Conv of a tensor N, C, ...; random weights unless given; `pads` are (begin, end) per spatial axis."""
    inputs, axes = fixed(x, 1), x.rank - 2
    pads = pads or [(0, 0)] * axes
    strides, dilations = strides or [1] * axes, dilations or [1] * axes
    if groups is None:
        groups = m.pick([1, 1, 1, m.pick(divisors(inputs, outputs))])
    if any(amount < 0 for pair in pads for amount in pair):
        raise Unfit("negative pads")

    def shape(sizes):
        spatial = []
        for size, k, (a, b), stride, dilation in zip(sizes[2:], taps, pads, strides, dilations):
            if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
                spatial.append(-(-size // stride))
            else:
                spatial.append((size + a + b - dilation * (k - 1) - 1) // stride + 1)
        return [sizes[0], outputs, *spatial]

    if weights is None:
        weights = m.const(kernel(m, outputs, inputs // groups, taps), shareable=True)
    given = [x, weights]
    if bias is None and m.chance(0.4):
        bias = zero_bias(m, x, weights) if m.opset >= 15 and m.chance(0.1) else m.const(m.normal(outputs))
    if bias:
        given.append(bias)
    elif m.chance(0.05):
        given.append("")
    explicit = m.chance(0.6)
    attributes = {
        "kernel_shape": list(taps) if explicit else None,
        "strides": list(strides) if explicit or any(s != 1 for s in strides) else None,
        "dilations": list(dilations) if explicit or any(d != 1 for d in dilations) else None,
        "group": groups if explicit or groups != 1 else None,
        "auto_pad": auto_pad,
    }
    if not auto_pad and (explicit or any(amount for pair in pads for amount in pair)):
        attributes["pads"] = [a for a, _ in pads] + [b for _, b in pads]
    return m.op("Conv", given, shape, **attributes)


def zero_bias(m, x, weights):
    """A bias of zeros as dynamo writes it where there is none: it reads x for its type alone."""
    zero = m.raw("CastLike", [m.stored(np.array(0, np.float32)), x])
    return m.raw("Expand", [zero, m.raw("Shape", [weights], start=0, end=1)])


def norm(m, x, training=False, statistics=None):
    """A BatchNormalization, in training mode if asked for."""
    channels = fixed(x, 1)
    gamma = m.const(m.normal(channels) * m.dtype.type(0.3) + m.dtype.type(1))
    beta = m.const(m.normal(channels))
    statistics = statistics or m.pick(["real"] * 5 + (["placeholders", "mean 0"] if training else ["real"]))
    mean = m.normal(channels) if statistics == "real" else np.zeros(channels, m.dtype)
    var = (0.3 + 1.7 * m.rng.random(channels)).astype(m.dtype)
    if statistics == "placeholders":
        var = np.ones(channels, m.dtype)
    # In training mode, they are neither shared nor computed: the rule of training mode looks at their values.
    place = m.stored if training else m.const
    given = [x, gamma, beta, place(mean), place(var)]
    outputs, attributes = 1, {"epsilon": m.pick([None, 1e-3, 1e-5])}
    if training:
        if m.opset >= 14:
            attributes["training_mode"], outputs = 1, 3
        else:
            outputs = 5
    elif m.opset >= 14 and m.chance(0.2):
        attributes["training_mode"] = 0
    if m.opset < 9 and m.chance(0.3):
        attributes["spatial"] = 1
    return m.op("BatchNormalization", given, outputs=outputs, **attributes)


def per_channel(m, values, rank, axis=1):
    """A constant with values along one axis, with leading axes or without, or now and then a single number."""
    if m.chance(0.15):
        return m.const(values.reshape(-1)[0].reshape(m.pick([(), (1,), (1,) * rank])))
    shape = [1] * rank
    shape[axis] = -1
    values = values.reshape(shape)
    if m.chance(0.5):
        values = values.reshape(values.shape[axis:])
    return m.const(values, shareable=True)


def arithmetic(m, op, x, constant, order=None):
    """`x op constant`, or, if `order` is set or now and then where `op` commutes, `constant op x`."""
    given = [x, constant]
    if order or (op in ("Add", "Mul") and m.chance(0.3)):
        given = [constant, x]
    return m.op(op, given)


def written_norm(m, x, axis=1):
    """A norm as other exporters write it: a few of Sub, Mul, Div and Add."""
    channels = fixed(x, axis)
    positive = (0.5 + m.rng.random(channels)).astype(m.dtype)
    ways = [["Mul", "Add"], ["Sub", "Mul", "Add"], ["Sub", "Div", "Mul", "Add"], ["Mul"], ["Add"], ["Div", "Sub"]]
    for op in m.pick(ways):
        values = positive if op in ("Div", "Mul") else m.normal(channels)
        x = arithmetic(m, op, x, per_channel(m, values, x.rank, axis))
    return x


def decorated(m, x):
    """x behind up to two linear nodes, of those that may follow any linear node."""
    for _ in range(m.pick([0, 0, 1, 1, 2])):
        match m.pick(["norm"] * 8 + ["written"] * 4 + ["neg", "cast", "identity", "dropout", "factor", "minus"] * 2
                     + ["along any axis", "neutral", "order"]):
            case "along any axis":
                x = along_any_axis(m, x)
            case "neutral":
                x = shape_kept(m, x, neutral)
            case "order":
                x = shape_kept(m, x, lambda m, y: channels_picked(m, y, another_order(m, fixed(y, 1))))
            case "norm":
                x = norm(m, x)
            case "written":
                x = written_norm(m, x)
            case "neg":
                x = m.op("Neg", [x])
            case "cast":
                x = m.op("Cast", [x], to=FLOATS[m.dtype])
            case "identity":
                x = m.op("Identity", [x])
            case "dropout":
                x = dropout(m, x)
            case "factor":
                x = arithmetic(m, m.pick(["Mul", "Div", "Add"]), x, m.const(np.array(m.pick([2, -0.5, 1]), m.dtype)))
            case "minus":
                x = arithmetic(m, "Sub", x, per_channel(m, m.normal(fixed(x, 1)), x.rank), order=m.chance(0.7))
    return x


def shape_kept(m, x, piece):
    """x behind a piece, if that fits and keeps the shape; x itself otherwise."""
    try:
        with m.attempt():
            y = piece(m, x)
            if y.shapes != x.shapes:
                raise Unfit("another shape")
            return y
    except Unfit:
        return x


def another_order(m, size):
    """All indices below `size`, reversed or in a random order."""
    return m.pick([list(range(size))[::-1], [int(i) for i in m.rng.permutation(size)]])


def channels_picked(m, x, picks, axis=1):
    """The channels at the indices `picks`, by a Gather; all of them from back to front also by a Slice."""
    size = fixed(x, axis)
    if picks == list(range(size))[::-1] and m.opset >= 10 and m.chance(0.6):
        return skipped(m, x, [axis], [m.pick([-1, -1, size - 1, 2**31 - 1])], [None], [-1])
    return taken(m, x, axis, [i - size if m.chance(0.1) else i for i in picks])


def along_any_axis(m, x):
    """x scaled or shifted by a constant along any axes, which is no number per channel even where its size fits."""
    axes = [axis for axis in range(x.rank) if len({shape[axis] for shape in x.shapes}) == 1 and m.chance(0.5)]
    if not axes:
        return x
    shape = [x.shapes[0][axis] if axis in axes else 1 for axis in range(x.rank)]
    shape = shape[axes[0]:]
    return m.op(m.pick(["Mul", "Add", "Sub"]), [x, m.const(m.normal(*shape))])


def activation(m, x):
    match m.pick(["Relu"] * 4 + ["quotient", "LeakyRelu", "Sigmoid", "Tanh", "clip", "HardSwish", "PRelu", "Elu"]):
        case "clip":
            return clip(m, x, -1.0, 3.0)
        case "quotient":
            # A constant divided by a tensor is not linear.
            divisor = m.op("Add", [m.op("Sigmoid", [x]), m.const(np.array(1, m.dtype))])
            return m.op("Div", [m.const(np.array(2, m.dtype)), divisor])
        case "HardSwish" if m.opset < 14:
            return m.op("Relu", [x])
        case "PRelu" if m.opset < 9:
            return m.op("Relu", [x])
        case "PRelu":
            return m.op("PRelu", [x, m.const(np.array([0.25], m.dtype))])
        case op:
            return m.op(op, [x])


# --- one branch of a block ---------------------------------------------------------------

class Frame(NamedTuple):
    """What all branches share: the output channels, and floor((n + growth) / stride) + 1 positions along each axis."""
    outputs: int
    growths: list
    strides: list


def frame(m, x):
    axes = x.rank - 2
    if axes < 1:
        raise Unfit("no spatial axes")
    stride = m.pick([1, 1, 1, 1, 2, 2, 3])
    strides = [stride] * axes if m.chance(0.8) else [m.pick([1, 2]) for _ in range(axes)]
    growths = [m.pick([-1] * 6 + [-3, -3, -2, 0, 1, -5]) for _ in range(axes)]
    if m.chance(0.5):
        growths = [growths[0]] * axes
    outputs = fixed(x, 1) if m.chance(0.6) else m.between(1, MOST_CHANNELS)
    return Frame(outputs, growths, strides)


def placed(m, x, total, mode):
    """Makes each spatial axis of x longer by its element of `total`, by nodes or by pads for the convolution.

    Returns x and the pads that are left to the convolution.
    """
    axes = x.rank - 2
    begins, ends = [], []
    for amount in total:
        begin = amount // 2
        if m.chance(0.3):
            # Shifted. Beyond the amount, one end is padded and the other one is cropped.
            further = m.pick([0, 0, 2])
            begin = m.between(min(amount, 0) - further, max(amount, 0) + further)
        begins.append(begin)
        ends.append(amount - begin)
    whole = list(zip(begins, ends))
    if mode == "pad and crop":
        return padded_and_cropped(m, x, begins, ends), [(0, 0)] * axes
    if mode in ("reflect", "edge", "wrap", "circular", "pad"):
        if mode == "pad":
            value = m.pick([0.0] * 7 + [1.5])
            return pad(m, x, [0, 0, *begins], [0, 0, *ends], value=value), [(0, 0)] * axes
        if any(amount < 0 for pair in whole for amount in pair):
            raise Unfit("crop")
        if mode == "circular":
            return circular(m, x, begins, ends), [(0, 0)] * axes
        return pad(m, x, [0, 0, *begins], [0, 0, *ends], mode), [(0, 0)] * axes
    cropped = [(axis + 2, -min(a, 0), -min(b, 0)) for axis, (a, b) in enumerate(whole) if a < 0 or b < 0]
    if cropped:
        x = crop(m, x, *(list(column) for column in zip(*cropped)))
    return x, [(max(a, 0), max(b, 0)) for a, b in whole]


def padded_and_cropped(m, x, begins, ends):
    """A Pad by more than is asked for, and a Slice that takes the rest away."""
    more = [(m.pick([0, 1]) - min(a, 0), m.pick([0, 1]) - min(b, 0)) for a, b in zip(begins, ends)]
    x = pad(m, x, [0, 0, *(a + extra for a, (extra, _) in zip(begins, more))],
            [0, 0, *(b + extra for b, (_, extra) in zip(ends, more))])
    cut = [(axis, a, b) for axis, (a, b) in enumerate(more, 2) if a or b]
    return crop(m, x, *(list(column) for column in zip(*cut))) if cut else x


def circular(m, x, begins, ends):
    """Circular padding as TorchScript writes it: Slice and Concat, axis by axis."""
    for axis, (before, behind) in enumerate(zip(begins, ends), 2):
        if any(shape[axis] < max(before, behind) for shape in x.shapes) and m.chance(0.5):
            # If the tensor is smaller than the Slices, these yield less than circular padding would.
            raise Unfit("circular")
        parts = [x]
        if before:
            parts.insert(0, piece_of(m, x, axis, -before, m.pick([2**31 - 1, 2**63 - 1])))
        if behind:
            parts.append(piece_of(m, x, axis, 0, behind))
        if len(parts) > 1:
            x = m.op("Concat", parts, lambda *s: [sum(size[i] for size in s) if i == axis else n
                                                  for i, n in enumerate(s[0])], axis=axis)
    return x


def branch(m, x, common, mode):
    """One linear branch from x into the common frame."""
    axes = x.rank - 2
    same = fixed(x, 1) == common.outputs
    identity = same and all(growth == -1 for growth in common.growths) and set(common.strides) == {1}
    kinds = ["conv"] * 6 + ["pointwise first", "pointwise behind", "norm first", "depthwise", "mean"]
    if identity:
        kinds += ["identity"] * 3
    kind = m.pick(kinds)
    if kind == "identity":
        return decorated(m, x)
    taps = [m.pick([1, 1, 2, 3, 3, 3, 4, 5]) for _ in range(axes)]
    dilations = [m.pick([1, 1, 1, 1, 2, 3]) for _ in range(axes)]
    if m.chance(0.4):
        taps, dilations = [taps[0]] * axes, [dilations[0]] * axes
    if axes == 3:
        taps = [min(k, 3) for k in taps]
    if m.dtype == np.float16:
        taps = [min(k, 3) for k in taps]
    total = [growth + dilation * (k - 1) + 1 for growth, dilation, k in zip(common.growths, dilations, taps)]
    if kind == "norm first":
        x = m.pick([norm, written_norm])(m, x)
        if m.chance(0.7):
            total = [min(amount, 0) for amount in total]
            taps = [1 if growth >= -1 else -growth for growth in common.growths]
            dilations = [1] * axes
            total = [growth + k for growth, k in zip(common.growths, taps)]
    if kind == "pointwise first":
        x = decorated(m, conv(m, x, m.between(1, MOST_CHANNELS), [1] * axes))
    x, pads = placed(m, x, total, mode)
    if kind == "mean":
        x = mean(m, x, taps, pads, common.strides, averaging(m)) if set(dilations) == {1} else conv(
            m, x, fixed(x, 1), taps, pads, common.strides, dilations)
        return decorated(m, x if same and m.chance(0.5) else conv(m, x, common.outputs, [1] * axes))
    if kind == "depthwise" and common.outputs % fixed(x, 1) == 0:
        return decorated(m, conv(m, x, common.outputs, taps, pads, common.strides, dilations, groups=fixed(x, 1)))
    if kind == "pointwise behind":
        x = decorated(m, conv(m, x, m.between(1, MOST_CHANNELS), taps, pads, common.strides, dilations))
        return decorated(m, conv(m, x, common.outputs, [1] * axes))
    return decorated(m, conv(m, x, common.outputs, taps, pads, common.strides, dilations))


class Averaging(NamedTuple):
    """How a mean treats the border: count_include_pad and ceil_mode."""
    counts_pads: int
    ceil: bool


def averaging(m):
    ceil = m.opset >= 10 and m.chance(0.1)
    return Averaging(m.pick([0, 1, 1]), ceil)


def mean(m, x, taps, pads, strides, how):
    ceil = how.ceil

    def shape(sizes):
        return [*sizes[:2], *((size + a + b - k + (stride - 1 if ceil else 0)) // stride + 1
                              for size, k, (a, b), stride in zip(sizes[2:], taps, pads, strides))]

    if any(a >= k or b >= k for k, (a, b) in zip(taps, pads)):
        raise Unfit("pads of a pool")
    return m.op("AveragePool", [x], shape, kernel_shape=list(taps), strides=list(strides),
                pads=[a for a, _ in pads] + [b for _, b in pads], count_include_pad=how.counts_pads,
                ceil_mode=1 if ceil else None)


def total(m, terms):
    """Adds tensors of one shape, in one of the ways in which exporters or people would write it.

    Now and then, one is subtracted or read twice, or a narrower term is broadcast.
    """
    if m.chance(0.15):
        terms = [*terms, m.pick(terms)]
    if m.chance(0.04) and terms[0].rank > 2:
        return m.op("Add", [total(m, terms), narrow_term(m, m.pick(terms))], lambda a, b: broadcast(a, b))
    if len(terms) > 1 and m.opset >= 8 and m.chance(0.15):
        return m.op("Sum", terms)
    if m.chance(0.08):
        axis = m.between(0, terms[0].rank)
        parts = [unsqueeze(m, term, axis) for term in terms]
        stacked = m.op("Concat", parts, lambda *s: [len(s) if i == axis else n for i, n in enumerate(s[0])],
                       axis=axis)
        return reduce(m, stacked, [axis], False, "ReduceSum")
    if m.chance(0.1):
        terms = [m.op("Add", [m.const(np.array(0, m.dtype)), terms[0]]), *terms[1:]]
    terms = list(terms)
    while len(terms) > 1:
        right = terms.pop(m.between(1, len(terms) - 1))
        left = terms.pop(0 if m.chance(0.7) else m.between(0, len(terms) - 1))
        sum_ = m.op("Sub" if m.chance(0.12) else "Add", [left, right])
        if m.chance(0.05):
            sum_ = m.op("Add", [sum_, sum_])
        if m.chance(0.06):
            m.watch(sum_)
        terms.insert(0, sum_)
    return terms[0]


def narrow_term(m, x):
    """A linear function of x with one channel or one position, to be broadcast."""
    axes = x.rank - 2
    if m.chance(0.5):
        return conv(m, x, 1, [1] * axes, groups=1)
    x = m.op("GlobalAveragePool", [x], lambda s: [*s[:2], *[1] * axes])
    return decorated(m, conv(m, x, fixed(x, 1), [1] * axes))


# --- the pieces ---------------------------------------------------------------------------

def block(m, x, modes=("", "", "", "", "pad", "pad and crop")):
    """A sum of branches of one tensor, one of which may also be read elsewhere."""
    common = frame(m, x)
    arms = []
    for _ in range(m.pick([1, 2, 2, 3, 3, 4])):
        arms.append(branch(m, x, common, m.pick(modes)))
    if m.chance(0.06):
        m.watch(m.pick(arms))
    y = total(m, arms)
    return decorated(m, y) if m.chance(0.4) else y


def padded_block(m, x):
    """A block padded by any mode of Pad or by circular padding, in all branches or only in some."""
    mode = m.pick(["reflect", "edge", "wrap", "circular", "circular", "pad"])
    return block(m, x, [mode] if m.chance(0.8) else [mode, ""])


def cropped_arms(m, x):
    """Arms of few taps that read different crops: no single kernel is cheaper than these, so the crops stay."""
    axes = x.rank - 2
    if axes < 2:
        raise Unfit("one axis")
    common = Frame(m.between(1, 4), [m.pick([-1, -2, -3, -4]) for _ in range(axes)], [1] * axes)
    arms = []
    for long in (0, 1, None):
        taps = [m.pick([2, 3, 3]) if axis == long else 1 for axis in range(axes)]
        total_ = [growth + k for growth, k in zip(common.growths, taps)]
        y, pads = placed(m, x, total_, m.pick(["", "pad and crop", "pad and crop", "pad"]))
        arms.append(decorated(m, conv(m, y, common.outputs, taps, pads, groups=1)))
    return total(m, arms)


def sequence(m, x):
    """Linear nodes in a row."""
    axes = x.rank - 2
    if axes < 1:
        raise Unfit("no spatial axes")
    for _ in range(m.between(1, 3)):
        taps = [m.pick([1, 1, 3])] * axes
        edge = m.pick([0, 0, taps[0] // 2])
        x = decorated(m, conv(m, x, m.between(1, MOST_CHANNELS), taps, [(edge, edge)] * axes))
    return x


def residual(m, x):
    """x + f(x), with or without an activation inside f."""
    if x.rank < 3:
        raise Unfit("no spatial axes")
    channels, axes = fixed(x, 1), x.rank - 2
    y = decorated(m, conv(m, x, channels, [3] * axes, [(1, 1)] * axes))
    if m.chance(0.5):
        y = activation(m, y)
    if m.chance(0.5):
        y = decorated(m, conv(m, y, channels, [1] * axes))
    return m.op(m.pick(["Add", "Add", "Sub"]), m.pick([[x, y], [y, x]]))


def transposed(m, x):
    """Branches that are ConvTranspose."""
    axes = x.rank - 2
    if axes < 1:
        raise Unfit("no spatial axes")
    inputs, outputs = fixed(x, 1), m.between(1, MOST_CHANNELS)
    stride = m.pick([1, 2, 2, 3])
    growth = m.pick([0, 0, 1])

    def arm(y):
        k = m.pick([stride, stride, stride + 1, stride + 2, 3])
        dilation = m.pick([1, 1, 2])
        extent = dilation * (k - 1) + 1
        # Each arm has (n − 1)·stride + extent − pads + output_padding positions: the same number for all.
        cut = extent - stride - growth
        if cut < 0 or growth >= max(stride, dilation):
            raise Unfit("transposed")
        begin = m.pick([cut // 2, cut - cut // 2])
        groups = m.pick([1, 1, m.pick(divisors(inputs, outputs))])
        weights = m.const(m.normal(inputs, outputs // groups, *[k] * axes, scale=0.4))
        given = [y, weights] + ([m.const(m.normal(outputs))] if m.chance(0.4) else [])

        def shape(sizes):
            return [sizes[0], outputs, *((n - 1) * stride + stride + growth + (growth if growth else 0)
                                         for n in sizes[2:])]

        return m.op("ConvTranspose", given, shape, strides=[stride] * axes, dilations=[dilation] * axes,
                    pads=[begin] * axes + [cut - begin] * axes, group=groups,
                    output_padding=[growth] * axes if growth else None)

    x = norm(m, x) if m.chance(0.25) else x
    arms = [decorated(m, arm(x)) for _ in range(m.pick([1, 2, 2, 3]))]
    return decorated(m, total(m, arms))


def same_padding(m, x):
    """Branches with auto_pad and strides, whose pads depend on sizes that may be open."""
    axes = x.rank - 2
    if axes < 1:
        raise Unfit("no spatial axes")
    auto_pad = m.pick(["SAME_UPPER", "SAME_UPPER", "SAME_LOWER", "VALID"])
    stride = m.pick([1, 2, 2, 2, 3])
    outputs = m.between(1, MOST_CHANNELS)
    k = m.between(1, 4)
    arms = []
    for _ in range(m.pick([1, 2, 2, 3])):
        taps = [k if auto_pad == "VALID" else m.between(1, 4) for _ in range(axes)]
        dilations = None if m.chance(0.85) or stride > 1 or auto_pad == "VALID" else [2] * axes
        arms.append(decorated(m, conv(m, x, outputs, taps, strides=[stride] * axes, dilations=dilations,
                                      auto_pad=auto_pad)))
    return total(m, arms)


def pool(m, x):
    """A pool or another node between blocks that is not linear or changes the sizes."""
    axes = x.rank - 2
    if axes < 1:
        raise Unfit("no spatial axes")
    stride = m.pick([1, 2])
    shape = lambda s: [*s[:2], *((n - 2) // stride + 1 for n in s[2:])]
    if x.rank == 4 and m.chance(0.3):
        return other_positions(m, x)
    if m.chance(0.3):
        return m.op("GlobalAveragePool", [x], lambda s: [*s[:2], *[1] * axes])
    return m.op(m.pick(["MaxPool", "AveragePool"]), [x], shape, kernel_shape=[2] * axes, strides=[stride] * axes)


def other_positions(m, x):
    """A node that moves elements to other places (DepthToSpace, SpaceToDepth, Resize), often behind a block."""
    x = simple_block(m, x, 4) if m.chance(0.6) else x
    if m.opset >= 13 and m.chance(0.4):
        scales = m.stored(np.array([1, 1, 2, 2], np.float32))
        return m.op("Resize", [x, "", scales], lambda s: [*s[:2], 2 * s[2], 2 * s[3]], mode="nearest",
                    coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    if fixed(x, 1) % 4 == 0:
        return m.op("DepthToSpace", [x], lambda s: [s[0], s[1] // 4, 2 * s[2], 2 * s[3]], blocksize=2)
    if any(size % 2 for shape in x.shapes for size in shape[2:]):
        raise Unfit("odd")
    return m.op("SpaceToDepth", [x], lambda s: [s[0], 4 * s[1], s[2] // 2, s[3] // 2], blocksize=2)


def bounded(m, x):
    """A Slice of a few positions, or of all where there are fewer, and a block behind it."""
    if x.rank < 3:
        raise Unfit("no spatial axes")
    axis = m.between(2, x.rank - 1)
    start = m.pick([0, 0, 1])
    x = piece_of(m, x, axis, start, start + m.between(2, 7))
    return block(m, x)


def widened(m, x):
    """A convolution with one output channel, which a constant broadcasts to several."""
    if x.rank < 3:
        raise Unfit("no spatial axes")
    axes, outputs = x.rank - 2, m.between(2, 5)
    y = decorated(m, conv(m, x, 1, [m.pick([1, 3])] * axes, groups=1))
    constant = m.const(m.normal(*m.pick([(1, outputs), (outputs,)]), *[1] * axes))
    y = m.op(m.pick(["Mul", "Add", "Sub"]), [y, constant], lambda s: [s[0], outputs, *s[2:]])
    return conv(m, y, m.between(1, 4), [1] * axes) if m.chance(0.5) else decorated(m, y)


def channels_last(m, x):
    """A block in NHWC, as tf2onnx and Keras write it: Transposes around each convolution."""
    rank, axes = x.rank, x.rank - 2
    if axes < 1:
        raise Unfit("no spatial axes")
    to_last, to_first = [0, *range(2, rank), 1], [0, rank - 1, *range(1, rank - 1)]
    last = transpose(m, x, to_last)
    outputs, k = m.between(1, MOST_CHANNELS), m.pick([1, 3, 3])
    way = m.pick(["keras", "keras", "once", "sliced"])
    first = transpose(m, last, to_first) if way == "once" else None

    def arm():
        taps = [k if m.chance(0.6) else 1 for _ in range(axes)]
        source = last
        cut = [0] * axes
        if way == "sliced":
            cut = [(k - t) // 2 for t in taps]
            if any(cut):
                source = crop(m, last, list(range(1, rank - 1)), cut, cut)
            pads = [(0, 0)] * axes
        else:
            pads = [(t // 2, t // 2) for t in taps]
        y = first if first is not None else transpose(m, source, to_first)
        y = conv(m, y, outputs, taps, pads)
        if first is not None:
            return decorated(m, y)
        y = transpose(m, y, to_last)
        return written_norm(m, y, rank - 1) if m.chance(0.5) else y

    y = total(m, [arm() for _ in range(m.pick([1, 2, 3]))])
    if first is not None:
        return y
    if m.chance(0.3):
        y = written_norm(m, y, rank - 1)
    return transpose(m, y, to_first)


def border_values(m, bias, differs):
    return bias + m.dtype.type(0.5) if differs else bias


def filled_border(m, x):
    """A convolution and zero padding, whose border ScatterND fills with what the convolution yields for zeros.

    The indices are right for every input, for one batch only, or for one size only. Now and then, the values differ.
    """
    if x.rank != 4 or m.opset < 11:
        raise Unfit("a border is filled in images")
    channels = m.between(1, 4)
    bias = m.normal(channels)
    t = conv(m, x, channels, [1, 1], bias=m.stored(bias), groups=1)
    padded = pad(m, t, [0, 0, 1, 1], [0, 0, 1, 1])
    values = border_values(m, bias, m.chance(0.1))
    way = m.pick(["elements", "elements", "rows", "rows", "rows of a batch", "grid", "grid"])
    if way == "elements":
        y = border_by_elements(m, padded, values)
    elif way == "grid":
        y = border_by_grids(m, padded, values)
    else:
        y = border_by_rows(m, padded, values, way == "rows of a batch")
    outputs = m.between(1, MOST_CHANNELS)
    arms = [conv(m, y, outputs, [3, 3])]
    if m.chance(0.7):
        arms.append(decorated(m, conv(m, x, outputs, [3, 3], [(1, 1)] * 2)))
    return total(m, arms)


def border_by_elements(m, x, values):
    """A ScatterND with an index for each element, for the batch and sizes of one assignment, chosen at random."""
    batch, channels, height, width = x.shapes[m.between(0, ASSIGNMENTS - 1)]
    if m.chance(0.3):
        batch = 1
    if any(shape[0] < batch or shape[2] < height or shape[3] < width for shape in x.shapes):
        raise Unfit("out of range")
    edge = [(i, j) for i in range(height) for j in range(width) if i in (0, height - 1) or j in (0, width - 1)]
    index = np.array([(n, c, i, j) for n in range(batch) for c in range(channels) for i, j in edge], np.int64)
    return m.op("ScatterND", [x, m.stored(index), m.stored(values[index[:, 1]])])


def border_by_grids(m, x, values):
    """`y[:, :, row] = v` as TorchScript writes it: indices are grids of Ranges over sizes, which may be baked in."""
    baked = [None] * 4
    for axis in (0, 2, 3):
        if m.chance(0.4):
            baked[axis] = x.shapes[m.between(0, ASSIGNMENTS - 1)][axis]
            if any(shape[axis] < baked[axis] for shape in x.shapes):
                raise Unfit("out of range")
    for axis in (2, 3):
        for is_last in (False, True):
            sizes = m.raw("Shape", [x])

            def size(of):
                if baked[of] is not None:
                    return m.ints(baked[of])
                return m.raw("Gather", [sizes, m.ints(of)], axis=0)

            def along(of):
                count = m.raw("Reshape", [size(of), m.stored(np.zeros(0, np.int64))])
                steps = m.raw("Range", [m.stored(np.int64(0)), count, m.stored(np.int64(1))])
                if of == axis:
                    one = m.raw("Sub", [size(of), m.ints(1)]) if is_last else m.ints(0)
                    steps = m.raw("Identity", [one])
                return m.raw("Reshape", [steps, m.ints(*[-1 if other == of else 1 for other in range(4)])])

            counts = [m.ints(1) if of == axis else size(of) for of in range(4)]
            shape = m.raw("Concat", counts, axis=0)
            grids = [m.raw("Expand", [along(of), shape]) for of in range(4)]
            grids = [m.raw("Reshape", [grid, m.raw("Concat", [shape, m.ints(1)], axis=0)]) for grid in grids]
            index = m.raw("Concat", grids, axis=-1)
            updates = m.raw("Expand", [m.stored(values.reshape(1, -1, 1, 1)), shape])
            x = m.op("ScatterND", [x, index, updates])
    return x


def border_by_rows(m, x, values, of_one_batch):
    """`y[:, :, 0] = v` as dynamo writes it: Transpose, ScatterND of whole rows, Transpose back."""
    for axis in (2, 3):
        perm = [axis, *(other for other in range(4) if other != axis)]
        back = [perm.index(other) for other in range(4)]
        y = transpose(m, x, perm)
        for row in (0, -1):
            if any(shape[axis] != x.shapes[0][axis] for shape in x.shapes) and row == -1 and m.chance(0.5):
                raise Unfit("the last row is not known")
            number = row if row == 0 or m.chance(0.3) else x.shapes[0][axis] - 1
            if any(number >= shape[axis] for shape in x.shapes):
                raise Unfit("out of range")
            index = m.stored(np.array([[number]], np.int64))
            column = values.reshape(1, 1, -1, 1)
            if of_one_batch or all(shape[0] == 1 for shape in x.shapes):
                size = fixed(y, 3)
                batch = fixed(y, 1) if not of_one_batch else None
                if of_one_batch:
                    # y[row, 0]: the first batch element alone.
                    index = m.stored(np.array([[number, 0]], np.int64))
                    updates = m.stored(np.broadcast_to(values.reshape(1, -1, 1), (1, len(values), size)).copy())
                else:
                    updates = m.stored(np.broadcast_to(column, (1, batch, len(values), size)).copy())
            else:
                row_shape = m.raw("Shape", [y])
                row_shape = m.raw("Concat", [m.ints(1), piece_of_shape(m, row_shape, 1, 4)], axis=0)
                updates = m.raw("Expand", [m.stored(column), row_shape])
            y = m.op("ScatterND", [y, index, updates])
        x = transpose(m, y, back)
    return x


def piece_of_shape(m, shape, start, stop):
    if m.opset < 10:
        return m.raw("Slice", [shape], starts=[start], ends=[stop], axes=[0])
    return m.raw("Slice", [shape, m.ints(start), m.ints(stop)])


# --- products, ranks and shapes ---------------------------------------------------------------

def another_input(m, sizes, dims=None):
    """A further graph input, whose sizes are the same under all assignments."""
    return m.input([[size] * ASSIGNMENTS for size in sizes], dims or list(sizes))


def product(m, x):
    """A MatMul or Gemm with a constant, which may be a vector, and scales of this or a higher rank behind it."""
    if x.rank < 1:
        raise Unfit("a number")
    width = fixed(x, x.rank - 1)
    outputs = m.between(1, MOST_CHANNELS)
    if x.rank == 2 and m.chance(0.5):
        x = gemm(m, x, width, outputs)
    elif m.chance(0.25):
        x = m.op("MatMul", [x, m.const(m.normal(width))], lambda s: s[:-1])
        if x.rank and m.chance(0.6):
            # The next product reads a tensor whose rank is lower by one.
            weights = m.const(m.normal(fixed(x, x.rank - 1), outputs, scale=0.5))
            x = m.op("MatMul", [x, weights], lambda s: [*s[:-1], outputs])
    elif x.rank >= 2 and m.chance(0.1):
        rows = fixed(x, x.rank - 2)
        x = m.op("MatMul", [m.const(m.normal(rows)), x], lambda s: [*s[:-2], s[-1]])
    else:
        weights = m.normal(width, outputs, scale=0.5)
        if m.chance(0.1):
            weights = weights.reshape(1, width, outputs)
            x = m.op("MatMul", [x, m.const(weights)], lambda s: [*([1] if len(s) == 2 else s[:-2]), s[-2], outputs]
                     if len(s) > 1 else [1, outputs])
        else:
            x = m.op("MatMul", [x, m.const(weights, shareable=True)], lambda s: [*s[:-1], outputs])
    for _ in range(m.pick([0, 1, 1, 2])):
        x = scaled(m, x)
    return x


def gemm(m, x, width, outputs):
    transposes = m.chance(0.4)
    weights = m.normal(*((outputs, width) if transposes else (width, outputs)), scale=0.5)
    given = [x, m.const(weights, shareable=True)]
    bias = m.pick(["none", "row", "row", "number", "matrix", "column"]) if m.opset >= 11 else "row"
    if bias != "none":
        rows = {shape[0] for shape in x.shapes}
        shape = {"row": (outputs,), "number": (), "matrix": (1, outputs)}.get(bias)
        if bias == "column":
            shape = (rows.pop(), 1) if len(rows) == 1 else (1,)
        given.append(m.const(m.normal(*shape)))
    alpha, beta = (m.pick([None, None, 0.5]), m.pick([None, None, 2.0]))
    return m.op("Gemm", given, lambda s: [s[0], outputs], alpha=alpha, beta=beta,
                transB=int(transposes) if transposes or m.chance(0.3) else None)


def scaled(m, x):
    """A norm, or a scale or shift along some axis by a constant of any rank that broadcasts with x."""
    if x.rank >= 2 and m.chance(0.35):
        return norm(m, x)
    if x.rank == 0:
        raise Unfit("a number")
    axis = m.pick([x.rank - 1, x.rank - 1, 1 if x.rank > 1 else 0, m.between(0, x.rank - 1)])
    size = fixed(x, axis)
    shape = [size] + [1] * (x.rank - 1 - axis)
    if m.chance(0.7):
        # Often one axis more than x has, which the result then has, too.
        more = m.pick([x.rank + 1, x.rank + 1, m.between(1, 5)]) - len(shape)
        shape = [1] * min(more, 5 - len(shape)) + shape
    constant = m.const(m.normal(*shape))
    op = m.pick(["Mul", "Mul", "Add", "Sub"])
    return m.op(op, [x, constant], lambda s: broadcast(s, tuple(shape)))


def scaled_by_any(m, x):
    return scaled(m, scaled(m, x))


def cast_of(m, sizes):
    """Integers, now and then cast to another type and back, which keeps their values."""
    if m.chance(0.4):
        sizes = m.raw("Cast", [sizes], to=m.pick([TensorProto.INT32, TensorProto.FLOAT]))
        sizes = m.raw("Cast", [sizes], to=TensorProto.INT64)
    return sizes


def shape_of(m, x, start, stop):
    """The sizes of the axes from `start` to before `stop`, as a tensor of integers."""
    if m.opset >= 15 and m.chance(0.6):
        start, stop = ((start - x.rank) if start and m.chance(0.3) else start), (None if stop == x.rank else stop)
        return cast_of(m, m.raw("Shape", [x], start=start or None, end=stop))
    whole = m.raw("Shape", [x])
    if m.chance(0.5):
        return cast_of(m, piece_of_shape(m, whole, start, stop))
    return cast_of(m, m.raw("Gather", [whole, m.ints(*range(start, stop))], axis=0))


def expanded(m, x):
    """A small input that is expanded to a part of x's shape, and a product with a constant behind it."""
    if m.opset < 8 or x.rank < 2:
        raise Unfit("Expand")
    start = m.between(0, x.rank - 1)
    stop = x.rank if m.chance(0.8) else m.between(start + 1, x.rank)
    lasts = {shape[stop - 1] for shape in x.shapes}
    width = lasts.pop() if len(lasts) == 1 else m.pick([1])
    z = another_input(m, [1] * m.between(0, 1) + [width])
    sizes = shape_of(m, x, start, stop)
    shapes = tuple(tuple(broadcast(z.shapes[i], x.shapes[i][start:stop])) for i in range(ASSIGNMENTS))
    t = Tensor(m.raw("Expand", [z, sizes]), shapes)
    return product(m, t)


def reshaped(m, x):
    """A Reshape by constants, with 0 and -1, or by computed sizes; or a Flatten or Unsqueeze."""
    if x.rank < 2:
        raise Unfit("a vector")
    flat = int(np.prod(x.shapes[0][1:]))
    is_fixed = all(int(np.prod(shape[1:])) == flat for shape in x.shapes)
    way = m.pick(["flatten", "zero", "computed", "computed", "unsqueezed", "columns"])
    if way == "flatten":
        return m.op("Flatten", [x], lambda s: [s[0], int(np.prod(s[1:]))], axis=m.pick([1, 1, None]))
    if way == "zero" and m.chance(0.3):
        # The batch of one assignment is baked in.
        batch = x.shapes[m.between(0, ASSIGNMENTS - 1)][0]
        if any(int(np.prod(shape)) % batch for shape in x.shapes):
            raise Unfit("batch")
        return m.op("Reshape", [x, m.ints(batch, -1)], lambda s: [batch, int(np.prod(s)) // batch])
    if way == "zero" and is_fixed:
        return m.op("Reshape", [x, m.ints(0, m.pick([-1, flat]))], lambda s: [s[0], flat])
    if way == "columns" and x.rank > 2:
        return m.op("Reshape", [x, m.ints(0, 0, -1)], lambda s: [s[0], s[1], int(np.prod(s[2:]))])
    if way == "unsqueezed":
        return unsqueeze(m, x, m.between(1, x.rank))
    target = m.raw("Concat", [shape_of(m, x, 0, 1), m.ints(-1)], axis=0)
    if m.opset >= 9 and m.chance(0.3):
        target = m.raw("Cast", [m.raw("Cast", [target], to=TensorProto.INT32)], to=TensorProto.INT64)
    return m.op("Reshape", [x, target], lambda s: [s[0], int(np.prod(s[1:]))])


def fewer_axes(m, x):
    """A node that removes or reorders axes: a reduction, a Gather of one index, a Squeeze or a Transpose."""
    if x.rank < 2:
        raise Unfit("a vector")
    axis = m.between(0, x.rank - 1)
    match m.pick(["reduce", "reduce", "gather", "transpose", "squeeze", "max"]):
        case "reduce":
            return reduce(m, x, [axis], m.chance(0.3))
        case "max":
            return with_axes(m, "ReduceMax", x, [axis], lambda s: [n for i, n in enumerate(s) if i != axis], 18,
                             keepdims=0)
        case "gather":
            return m.op("Gather", [x, m.stored(np.int64(m.pick([0, -1])))],
                        lambda s: [n for i, n in enumerate(s) if i != axis], axis=axis)
        case "transpose":
            return transpose(m, x, [int(i) for i in m.rng.permutation(x.rank)])
        case _:
            return squeeze(m, x, axis)


def sum_of_ranks(m, x):
    """A sum or difference of a convolution and a product of lower rank, and a norm or scale behind it."""
    if x.rank < 3:
        raise Unfit("no lower rank")
    width, inner = fixed(x, x.rank - 1), m.between(2, 5)
    rows = m.pick([1, fixed(x, x.rank - 2) if len({shape[-2] for shape in x.shapes}) == 1 else 1])
    z = another_input(m, [rows, inner])
    if m.chance(0.5):
        t = m.op("MatMul", [z, m.const(m.normal(inner, width))], lambda s: [rows, width])
    else:
        t = m.op("Gemm", [z, m.const(m.normal(inner, width)), m.const(m.normal(width))], lambda s: [rows, width])
    c = conv(m, x, fixed(x, 1), [1] * (x.rank - 2))
    y = m.op(m.pick(["Add", "Sub"]), [c, t], lambda s, _: s)
    return m.pick([norm, scaled, written_norm])(m, y)


def statistics_from_shapes(m, x):
    """A norm whose scale and shift are Expand(c, Shape(conv)[1:2]), as dynamo writes norms without affine."""
    if x.rank < 3 or m.opset < 15:
        raise Unfit("Shape with a start")
    y = conv(m, x, m.between(1, MOST_CHANNELS), [1] * (x.rank - 2))
    channels = fixed(y, 1)
    one = m.raw("Expand", [m.stored(np.array([1.25], m.dtype)), m.raw("Shape", [y], start=1, end=2)])
    zero = m.raw("Expand", [m.stored(np.array([0.5], m.dtype)), m.raw("Shape", [y], start=1, end=2)])
    var = m.stored((0.5 + m.rng.random(channels)).astype(m.dtype))
    return m.op("BatchNormalization", [y, one, zero, m.stored(m.normal(channels)), var])


# --- numbers ---------------------------------------------------------------------------------

NARROW = (np.uint8, np.uint8, np.int8, np.int8, np.int16, np.uint16, np.int32)


def narrow(m, values):
    """A constant of integers, stored or cast from a type that holds them, too."""
    if m.chance(0.4):
        return m.stored(values)
    wide = values.astype(m.pick([np.float32, np.float32, np.int32, np.int64]))
    return m.raw("Cast", [m.stored(wide)], to=helper.np_dtype_to_tensor_dtype(values.dtype))


def wrapping_constant(m, x):
    """A convolution whose kernel and bias are computed from integers that wrap around in their type."""
    if x.rank < 3 or m.opset < 14:
        raise Unfit("narrow integers")
    dtype = np.dtype(m.pick(NARROW))
    outputs, inputs = m.between(1, 5), fixed(x, 1)
    taps = [m.pick([1, 3])] * (x.rank - 2)
    bounds = np.iinfo(dtype)

    def wrapped(*shape):
        a = m.rng.integers(bounds.min, bounds.max, size=shape, endpoint=True).astype(dtype)
        b = np.array(m.between(2, min(bounds.max, 90)), dtype)
        value = narrow(m, a)
        for _ in range(m.pick([1, 1, 2])):
            value = m.raw(m.pick(["Add", "Mul", "Sub"]), [value, m.pick([value, narrow(m, b)])])
        value = m.raw("Cast", [value], to=FLOATS[m.dtype])
        return m.raw("Mul", [value, m.stored(np.array(1 / bounds.max, m.dtype))])

    edge = taps[0] // 2
    weights = wrapped(outputs, inputs, *taps)
    bias = wrapped(outputs) if m.chance(0.4) else m.stored(m.normal(outputs))
    y = conv(m, x, outputs, taps, [(edge, edge)] * len(taps), groups=1, weights=weights, bias=bias)
    arms = [decorated(m, y)]
    if m.chance(0.6):
        arms.append(decorated(m, conv(m, x, outputs, taps, [(edge, edge)] * len(taps))))
    return total(m, arms)


def casting_constant(m, x):
    """A convolution whose kernel is cast through a type that its values may not fit."""
    if x.rank < 3:
        raise Unfit("no spatial axes")
    outputs, inputs = m.between(1, 5), fixed(x, 1)
    through = m.pick([np.uint8, np.int8, np.int16, np.int32, np.float16])
    values = m.normal(outputs, inputs, *[1] * (x.rank - 2)).astype(np.float32)
    limit = float(np.finfo(through).max) if through is np.float16 else float(np.iinfo(through).max)
    source = m.pick([np.float32, np.int64]) if through is not np.float16 else np.float32
    stored = m.stored((values * limit * m.pick([0.3, 1.5])).astype(source))
    kernel_ = m.raw("Cast", [stored], to=helper.np_dtype_to_tensor_dtype(np.dtype(through)))
    kernel_ = m.raw("Cast", [kernel_], to=FLOATS[m.dtype])
    kernel_ = m.raw("Mul", [kernel_, m.stored(np.array(1 / limit, m.dtype))])
    y = conv(m, x, outputs, [1] * (x.rank - 2), groups=1, weights=kernel_)
    return norm(m, y) if m.chance(0.5) else written_norm(m, y)


def extreme_scale(m, x):
    """A kernel and a scale whose product leaves the range of the type, or its precision."""
    if x.rank < 3:
        raise Unfit("no spatial axes")
    if m.dtype == np.float16:
        gain, scale = m.pick([(1e-1, 1e-6), (1e-2, 1e-4), (1e-4, 1e-3), (1e2, 1e3), (3e2, 3e2), (1e-3, 1e-4), (1e-5, 1e3)])
    else:
        gain, scale = m.pick([(1e-20, 1e-20), (1e-25, 1e-18), (1e-10, 1e-30), (1e25, 1e15), (1e20, 1e-20)])
    outputs, axes = m.between(1, 5), x.rank - 2
    with np.errstate(over="ignore"):
        weights = m.stored(kernel(m, outputs, fixed(x, 1), [3] * axes, gain))
        y = conv(m, x, outputs, [3] * axes, [(1, 1)] * axes, groups=1, weights=weights,
                 bias=m.stored(m.normal(outputs, scale=gain)))
        factors = ((1 + m.rng.random(outputs)) * scale).astype(m.dtype)
    y = arithmetic(m, "Mul", y, m.stored(factors.reshape(-1, *[1] * axes)))
    if m.chance(0.4):
        other = conv(m, x, outputs, [3] * axes, [(1, 1)] * axes, groups=1)
        y = m.op("Add", [y, other])
    return y


def quantized(m, x):
    """Convolutions with dequantized kernels, and QuantizeLinear and DequantizeLinear of weights and graph inputs."""
    if x.rank < 3 or m.opset < 13 or m.dtype != np.float32:
        raise Unfit("quantized")
    outputs, inputs, axes = m.between(1, 6), fixed(x, 1), x.rank - 2

    def arm(y):
        per_axis = m.chance(0.6)
        shape = (outputs, inputs, *[3] * axes)
        scales = m.stored(((1 + m.rng.random(outputs)) / 200).astype(np.float32) if per_axis else np.float32(0.007))
        zeros = m.stored(np.zeros(outputs if per_axis else (), np.int8))
        axis = 0 if per_axis else None
        if m.chance(0.4):
            weights = m.raw("QuantizeLinear", [m.stored(m.normal(*shape, scale=0.3)), scales, zeros], axis=axis)
        else:
            weights = m.stored(m.rng.integers(-127, 128, size=shape).astype(np.int8))
        weights = m.raw("DequantizeLinear", [weights, scales, zeros], axis=axis)
        return decorated(m, conv(m, y, outputs, [3] * axes, [(1, 1)] * axes, groups=1, weights=weights))

    if x.name in m.feeds[0] and m.chance(0.5):
        scale, zero = m.stored(np.float32(0.05)), m.stored(np.int8(3))
        x = m.op("DequantizeLinear", [m.op("QuantizeLinear", [x, scale, zero]), scale, zero])
    arms = [arm(x)]
    if m.chance(0.6):
        arms.append(decorated(m, conv(m, x, outputs, [1] * axes)) if m.chance(0.5) else arm(x))
    return total(m, arms)


# --- training mode ------------------------------------------------------------------------------

def training_norm(m, x):
    """A block whose norms are in training mode, with statistics or placeholders; now and then behind such a norm."""
    if x.rank < 3:
        raise Unfit("no spatial axes")
    axes, outputs = x.rank - 2, m.between(1, MOST_CHANNELS)
    if m.chance(0.15):
        x = norm(m, x, training=True)
    arms = []
    for _ in range(m.pick([1, 1, 2, 3])):
        k = m.pick([1, 3])
        y = conv(m, x, outputs, [k] * axes, [(k // 2, k // 2)] * axes)
        y = norm(m, y, training=m.chance(0.8))
        if m.opset >= 12 and m.chance(0.15):
            y = dropout(m, y, trains=True)
        arms.append(y)
    return total(m, arms)


def training_norm_of_constant(m, x):
    """A kernel that a norm in training mode standardizes, with statistics that are placeholders or not."""
    if x.rank < 3:
        raise Unfit("no spatial axes")
    outputs, inputs, axes = m.between(2, 5), fixed(x, 1), x.rank - 2
    weights = m.normal(outputs, inputs, *[3] * axes) + m.dtype.type(0.5)
    flat = Tensor(m.raw("Reshape", [m.stored(weights), m.ints(1, outputs, -1)]),
                  ((1, outputs, inputs * 3 ** axes),) * ASSIGNMENTS)
    flat = norm(m, flat, training=True, statistics=m.pick(["placeholders", "placeholders", "real"]))
    weights = m.raw("Reshape", [flat, m.ints(outputs, inputs, *[3] * axes)])
    y = conv(m, x, outputs, [3] * axes, [(1, 1)] * axes, groups=1, weights=weights)
    arms = [decorated(m, y)]
    if m.chance(0.4):
        arms.append(conv(m, x, outputs, [1] * axes))
    return total(m, arms)


def instance_norm(m, x):
    """An InstanceNorm written as Reshape, a norm in training mode with placeholders, and Reshape."""
    if x.rank < 3:
        raise Unfit("no spatial axes")
    axes = x.rank - 2
    y = conv(m, x, m.between(1, 5), [3] * axes, [(1, 1)] * axes)
    batch, channels = fixed(y, 0), fixed(y, 1)
    if batch == 1 or len(set(y.shapes)) > 1:
        y = norm(m, y, training=True, statistics="placeholders")
    else:
        shape = y.shapes[0]
        y = m.op("Reshape", [y, m.ints(1, batch * channels, *shape[2:])], lambda s: [1, batch * channels, *s[2:]])
        y = norm(m, y, training=True, statistics="placeholders")
        y = m.op("Reshape", [y, m.ints(*shape)], lambda s: shape)
    return conv(m, y, m.between(1, 5), [1] * axes) if m.chance(0.5) else y


# --- graphs inside graphs -------------------------------------------------------------------------

def simple_block(m, x, outputs=None):
    """A block that keeps all sizes, and the number of channels unless told otherwise."""
    if x.rank < 3:
        raise Unfit("no spatial axes")
    axes, outputs = x.rank - 2, outputs or fixed(x, 1)
    arms = [decorated(m, conv(m, x, outputs, [k] * axes, [(k // 2, k // 2)] * axes))
            for k in m.pick([[3], [1, 3], [3, 3, 1]])]
    return total(m, arms)


def float_info(m, name, rank=None):
    return helper.make_tensor_value_info(name, FLOATS[m.dtype], None if rank is None else [None] * rank)


def condition(m, x):
    match m.pick(["constant", "size", "size", "input"]):
        case "constant":
            return m.stored(np.array(m.chance(0.5)))
        case "input":
            return m.input([], [], lambda _: np.array(m.chance(0.5)), np.bool_).name
    size = m.raw("Gather", [m.raw("Shape", [x]), m.stored(np.int64(m.between(0, x.rank - 1)))], axis=0)
    return m.raw("Equal", [size, m.stored(np.int64(m.pick([1, x.shapes[1][0]])))])


def branches_of_if(m, x):
    """An If with a block in each body, which may read tensors from outside."""
    if m.opset < 11:
        raise Unfit("If")
    outputs = m.between(1, MOST_CHANNELS)
    captured = conv(m, x, outputs, [1] * (x.rank - 2)) if x.rank > 2 else None
    if captured is None:
        raise Unfit("no spatial axes")
    decision = condition(m, x)
    graphs = []
    for name in ("then_branch", "else_branch"):
        with m.body() as scope:
            y = simple_block(m, x, outputs)
            if m.chance(0.5):
                y = m.op("Add", [y, captured])
            y = decorated(m, y)
        graphs.append(m.graph_of(scope, name, [], [float_info(m, y.name)]))
    result = Tensor(m.raw("If", [decision], then_branch=graphs[0], else_branch=graphs[1]), y.shapes)
    return m.op("Add", [result, captured]) if m.chance(0.3) else result


def iterations_of_loop(m, x):
    """A Loop that applies a block once or twice."""
    if m.opset < 11 or x.rank < 3:
        raise Unfit("Loop")
    number, going, state = m.name("i"), m.name("cond"), m.name("state")
    with m.body() as scope:
        y = simple_block(m, Tensor(state, x.shapes))
        y = m.op("Tanh", [y])
        still = m.raw("Identity", [going])
    infos = [helper.make_tensor_value_info(number, TensorProto.INT64, []),
             helper.make_tensor_value_info(going, TensorProto.BOOL, []), float_info(m, state)]
    body = m.graph_of(scope, "body", infos, [helper.make_tensor_value_info(still, TensorProto.BOOL, []),
                                             float_info(m, y.name)])
    count = m.stored(np.int64(m.between(1, 2)))
    return Tensor(m.raw("Loop", [count, m.stored(np.array(True)), x.name], body=body), x.shapes)


def steps_of_scan(m, x):
    """A Scan over x and its negative, with a block inside, whose results are added."""
    if m.opset < 11 or x.rank < 3:
        raise Unfit("Scan")
    twice = [unsqueeze(m, part, 0) for part in (x, m.op("Neg", [x]))]
    both = m.op("Concat", twice, lambda a, b: [2, *a[1:]], axis=0)
    part = m.name("part")
    with m.body() as scope:
        y = simple_block(m, Tensor(part, x.shapes))
    body = m.graph_of(scope, "body", [float_info(m, part, x.rank)], [float_info(m, y.name, x.rank)])
    shapes = tuple((2, *shape) for shape in y.shapes)
    result = Tensor(m.raw("Scan", [both], body=body, num_scan_inputs=1), shapes)
    return reduce(m, result, [0], False, "ReduceSum")


def local_function(m, x):
    """A block in a local function that is called once or twice; its weights are inside, or one is an argument."""
    if m.opset < 11 or x.rank < 3:
        raise Unfit("functions")
    axes, outputs = x.rank - 2, fixed(x, 1)
    formal, passed, shape = m.name("arg"), m.name("w"), (outputs, outputs, *[3] * axes)
    is_argument = m.chance(0.5)
    # It may have the name of an operator, but with as many inputs: otherwise, ONNX Runtime ends the process.
    name = m.pick(["Block", "Block", "Conv" if is_argument else "Relu"]) + str(len(m.functions) or "")
    with m.body(stores_constants=False) as scope:
        inside = Tensor(formal, x.shapes)
        weights = passed if is_argument else None
        arms = [conv(m, inside, outputs, [3] * axes, [(1, 1)] * axes, groups=1, weights=weights),
                decorated(m, conv(m, inside, outputs, [1] * axes))]
        y = total(m, arms)
        if m.chance(0.3):
            y = activation(m, y)
    inputs = [formal, passed] if is_argument else [formal]
    attributes = {"border": [1, 1] * axes} if m.chance(0.4) else {}
    if attributes:
        refer(scope.nodes, "pads", "border")
    opset = m.opset if m.chance(0.9) else max(m.opset - 1, 11)
    m.functions.append(helper.make_function("local", name, inputs, [y.name], scope.nodes,
                                            [helper.make_opsetid("", opset)],
                                            attributes=list(attributes)))
    for _ in range(m.pick([1, 1, 2])):
        given = [x] + ([m.const(kernel(m, outputs, outputs, [3] * axes), shareable=True)] if is_argument else [])
        x = Tensor(m.raw(name, given, domain="local", **attributes), x.shapes)
        assert shape[0] == fixed(x, 1)
    return x


def refer(nodes, name, formal):
    """Makes the attribute `name` of the first convolution refer to the function's attribute `formal`."""
    node = next(node for node in nodes if node.op_type == "Conv")
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.append(AttributeProto(name=name, type=AttributeProto.INTS, ref_attr_name=formal))


# --- kernels of another type, kernels with several readers -------------------------------------------

def kernel_of_other_type(m, x):
    """A block with an invalid convolution: the kernel's type is not that of the input."""
    if x.rank < 3 or m.dtype != np.float32 or m.chance(0.7):
        raise Unfit("rare")
    outputs, axes = m.between(1, 5), x.rank - 2
    other = kernel(m, outputs, fixed(x, 1), [3] * axes).astype(m.pick([np.float16, np.float64]))
    y = conv(m, x, outputs, [3] * axes, [(1, 1)] * axes, groups=1, weights=m.stored(other), bias="")
    return total(m, [norm(m, y), conv(m, x, outputs, [1] * axes)])


def shared_kernel(m, x):
    """Two convolutions that share a kernel, with norms of their own."""
    if x.rank < 3:
        raise Unfit("no spatial axes")
    axes, outputs = x.rank - 2, m.between(1, 6)
    weights = m.const(kernel(m, outputs, fixed(x, 1), [3] * axes))
    other = activation(m, x) if m.chance(0.5) else x
    arms = [decorated(m, conv(m, y, outputs, [3] * axes, [(1, 1)] * axes, groups=1, weights=weights))
            for y in (x, other)]
    return total(m, arms)


def joined(m, x):
    """A Concat of blocks, with another Concat inside now and then, or a sum of two Concats."""
    if x.rank < 3:
        raise Unfit("no spatial axes")
    axis = m.pick([1, 1, 1 - x.rank])

    def row(parts):
        return m.op("Concat", parts, lambda *s: [s[0][0], sum(size[1] for size in s), *s[0][2:]], axis=axis)

    widths = [m.between(1, 4) for _ in range(2)]
    parts = [simple_block(m, x, width) for width in widths]
    if m.chance(0.3):
        parts.append(row([simple_block(m, x, 1), m.pick([x, simple_block(m, x, 2)])]))
    y = row(parts)
    if m.chance(0.2):
        y = m.op("Add", [y, row([simple_block(m, x, fixed(part, 1)) for part in parts])])
    return decorated(m, y)


def side_by_side(m, x):
    """A Concat of convolutions with the same window: of one tensor, or of its parts, which Split or Slices yield.

    The channels are second or last. Now and then, parts have another order or other sizes, and a convolution has
    another window or is read elsewhere.
    """
    if x.rank < 3:
        raise Unfit("no spatial axes")
    axes, channels, count = x.rank - 2, fixed(x, 1), m.pick([2, 2, 3, 4])
    last = m.chance(0.3)
    into, back = [0, x.rank - 1, *range(1, x.rank - 1)], [0, *range(2, x.rank), 1]
    of_parts = m.chance(0.6) and channels >= count
    y = transpose(m, x, back) if last else x
    axis = x.rank - 1 if last else 1
    if of_parts:
        each = channels // count
        sizes = [each] * (count - 1) + [channels - each * (count - 1)]
        if m.chance(0.1):
            m.rng.shuffle(sizes)
        if m.chance(0.6):
            parts = split(m, y, m.pick([axis, axis - x.rank]), sizes)
        else:
            ends = [sum(sizes[:at + 1]) for at in range(count)]
            stops = [end if at + 1 < count or m.chance(0.5) else 2**31 - 1 for at, end in enumerate(ends)]
            parts = [piece_of(m, y, axis, end - size, stop) for end, size, stop in zip(ends, sizes, stops)]
        if m.chance(0.1):
            parts = [parts[int(at)] for at in m.rng.permutation(count)]
    else:
        parts = [y] * count
    taps, strides = [m.pick([1, 3, 3, 2]) for _ in range(axes)], [m.pick([1, 1, 2])] * axes
    pads = [(k // 2, (k - 1) // 2) for k in taps]
    width = m.between(1, 3)
    made = []
    for part in parts:
        part = transpose(m, part, into) if last else part
        inputs = fixed(part, 1)
        width = m.between(1, 3) if not of_parts or m.chance(0.05) else width
        groups = m.pick(divisors(inputs, width)) if m.chance(0.15) else 1
        own, own_pads = (taps, pads) if m.chance(0.95) else ([1] * axes, [(0, 0)] * axes)
        z = decorated(m, conv(m, part, width, own, own_pads, strides, groups=groups))
        if m.chance(0.15):
            z = total(m, [z, conv(m, part, fixed(z, 1), [1] * axes, None, strides, groups=1)])
        if m.chance(0.05):
            m.watch(z)
        made.append(transpose(m, z, back) if last else z)
    if len({tuple(shape[:axis] + shape[axis + 1:] for shape in z.shapes) for z in made}) > 1:
        raise Unfit("other sizes")

    def row(*sizes):
        return [sum(size[axis] for size in sizes) if at == axis else n for at, n in enumerate(sizes[0])]

    y = m.op("Concat", made, row, axis=m.pick([axis, axis - x.rank]))
    return decorated(m, transpose(m, y, into) if last else y)


def rows_and_back(m, x):
    """A product whose axes but the last are merged into rows for a norm, and as a rule are separate again behind it."""
    if x.rank < 2:
        raise Unfit("a vector")
    outputs, width = m.between(1, 5), fixed(x, x.rank - 1)
    y = m.op("MatMul", [x, m.const(m.normal(width, outputs))], lambda s: [*s[:-1], outputs])
    shape = m.raw("Shape", [y])
    rows = m.ints(-1, outputs)
    if m.chance(0.5):
        rows = m.raw("Concat", [m.ints(-1), m.raw("Gather", [shape, m.ints(y.rank - 1)], axis=0)], axis=0)
    z = decorated(m, m.op("Reshape", [y, rows], lambda s: [int(np.prod(s[:-1])), s[-1]]))
    return z if m.chance(0.2) else Tensor(m.raw("Reshape", [z, shape]), y.shapes)


def resampled(m, x):
    """Branches whose blocks each have a global mean or a pixel shuffle behind them, and a norm; or a pixel unshuffle
    between a norm and a block."""
    if x.rank != 4:
        raise Unfit("not four axes")
    way = m.pick(["mean", "mean", "shuffle", "shuffle", "unshuffle"])
    outputs = m.between(1, 2) * (4 if way == "shuffle" else 1)
    if way == "mean":
        def view(y):
            return m.op("GlobalAveragePool", [y], lambda s: [*s[:2], 1, 1])
    elif way == "shuffle":
        mode = {"mode": m.pick(["DCR", "CRD"])} if m.opset >= 11 and m.chance(0.7) else {}

        def view(y):
            return m.op("DepthToSpace", [y], lambda s: [s[0], s[1] // 4, s[2] * 2, s[3] * 2], blocksize=2, **mode)
    else:
        if any(size % 2 for shape in x.shapes for size in shape[2:]):
            raise Unfit("odd sizes")
        x = norm(m, x)

        def view(y):
            return m.op("SpaceToDepth", [y], lambda s: [s[0], s[1] * 4, s[2] // 2, s[3] // 2], blocksize=2)
        return decorated(m, simple_block(m, view(x), outputs))
    arms = [decorated(m, view(simple_block(m, x, outputs))) for _ in range(m.pick([1, 2, 2]))]
    return decorated(m, total(m, arms))


def resize_view(m, axes):
    """Returns a function that adds the same Resize behind any tensor."""
    by = [m.pick([1.0, 2.0, 2.0, 3.0, 0.5, 1.7]) for _ in range(axes)]
    word = dict(mode=m.pick(["nearest", "nearest", "linear", "cubic"]),
                coordinate_transformation_mode=m.pick(["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric",
                                                       "tf_half_pixel_for_nn"]))
    if word["mode"] == "nearest":
        word["nearest_mode"] = m.pick(["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
    elif word["coordinate_transformation_mode"] == "tf_half_pixel_for_nn" or (word["mode"] == "cubic" and axes != 2):
        raise Unfit("engines differ")
    told = m.stored(np.array([1, 1, *by], np.float32))
    shape = lambda s: [*s[:2], *(int(np.floor(np.float32(n) * np.float32(f))) for n, f in zip(s[2:], by))]
    return lambda y: m.op("Resize", [y, "", told], shape, **word)


def between(m, x):
    """Blocks with a mean or Resize behind each; behind their sum, a norm, a kernel of one tap or a product of rows."""
    axes = x.rank - 2
    if axes not in (1, 2):
        raise Unfit("one or two spatial axes")
    if m.opset >= 13 and m.chance(0.5):
        view = resize_view(m, axes)
    else:
        taps, strides = [m.between(1, 3) for _ in range(axes)], [m.between(1, 3) for _ in range(axes)]
        pads = [(m.between(0, k - 1), m.between(0, k - 1)) if m.chance(0.3) else (0, 0) for k in taps]
        how = averaging(m)
        view = lambda y: mean(m, y, taps, pads, strides, how)
    if m.chance(0.2):
        return conv(m, view(norm(m, x)), m.between(1, MOST_CHANNELS), [m.pick([1, 1, 3])] * axes)
    outputs = m.between(1, MOST_CHANNELS)
    arms = [view(simple_block(m, x, outputs)) for _ in range(m.pick([1, 1, 2]))]
    if m.chance(0.3):
        arms.append(simple_block(m, view(x), outputs))
    y = total(m, arms)
    way = m.pick(["norm", "norm", "tap", "rows", "plain"])
    if way == "norm":
        return decorated(m, y)
    if way == "tap":
        return decorated(m, conv(m, y, m.between(1, MOST_CHANNELS), [1] * axes))
    if way == "rows":
        y = m.op("Reshape", [y, m.ints(0, outputs, -1)], lambda s: [*s[:2], int(np.prod(s[2:]))])
        y = transpose(m, y, [0, 2, 1])
        width = m.between(1, MOST_CHANNELS)
        y = m.op("MatMul", [y, m.const(m.normal(outputs, width))], lambda s: [*s[:-1], width])
    return y


def cut_into_squares(m, x):
    """A node or nodes that turn each square of elements into channels.

    These are Slices and a Concat, a SpaceToDepth, or Reshapes around a Transpose.
    """
    axes = x.rank - 2
    if axes < 1:
        raise Unfit("no spatial axes")
    way = m.pick(["slices"] * 4 + ["operator"] * 2 + ["reshapes"] * 4)
    if way == "slices" and (m.opset >= 10 or axes < 3):
        return row_of_slices(m, x)
    sides = [m.pick([2, 2, 2, 3, 1]) for _ in range(axes)] if m.chance(0.4) else [m.pick([2, 2, 2, 3, 4])] * axes
    if any(size % side for shape in x.shapes for size, side in zip(shape[2:], sides)):
        raise Unfit("no whole squares")
    if way == "operator" and axes == 2:
        side = sides[0] = sides[1]
        return m.op("SpaceToDepth", [x], lambda s: [s[0], s[1] * side**2, s[2] // side, s[3] // side], blocksize=side)
    return squares_by_reshapes(m, x, sides)


def row_of_slices(m, x):
    """A Focus layer: Slices that skip elements of a tensor, and a Concat of these along the channels."""
    axes = x.rank - 2
    side = m.pick([2, 2, 2, 2, 3])
    places = [[(number // side**axis) % side for axis in range(axes)] for number in range(side**axes)]
    if m.chance(0.3):
        # Some places are missing, some occur twice, some are those of another square.
        places = [m.pick(places) for _ in range(m.between(1, 5))]
        if m.chance(0.3):
            places[0] = [start + m.pick([0, side, 1]) for start in places[0]]
    if m.chance(0.4):
        places = [places[int(i)] for i in m.rng.permutation(len(places))]
    if len(places) * fixed(x, 1) > 40:
        raise Unfit("too many channels")
    axis_by_axis, rows = m.chance(0.4), {}
    last = m.pick([None, None, None, -1])

    def skipping(y, along, starts, ends):
        if m.opset < 10 or m.chance(0.05):
            cut = [(axis, start) for axis, start in zip(along, starts) if start]
            if cut:
                y = crop(m, y, *(list(column) for column in zip(*cut)), [0] * len(cut))
            steps = [side if axis + 2 in along else 1 for axis in range(axes)]
            return every_other_by_pool(m, y, steps)
        return skipped(m, y, along, starts, ends, [side] * len(along))

    def part(place):
        y = x
        if axis_by_axis:
            # A Slice of the first axis is read by several Slices of the second one, or added once more.
            for axis, start in enumerate(place, 2):
                key = (y.name, axis, start)
                if key not in rows or m.chance(0.1):
                    rows[key] = skipping(y, [axis], [start], [last if axis == 2 else None])
                y = rows[key]
        else:
            y = skipping(y, list(range(2, x.rank)), place, [last] + [None] * (axes - 1))
        return decorated(m, y) if m.chance(0.08) else y

    parts = [part(place) for place in places]
    if len({shape.shapes for shape in parts}) > 1:
        raise Unfit("other sizes")
    if m.chance(0.06):
        parts[m.between(0, len(parts) - 1)] = m.pick([m.op("Neg", [parts[0]]), conv(m, parts[0], fixed(x, 1), [1] * axes)])
    if m.chance(0.05):
        m.watch(m.pick(parts))
    return m.op("Concat", parts, lambda *s: [s[0][0], sum(size[1] for size in s), *s[0][2:]],
                axis=m.pick([1, 1, 1 - x.rank]) if m.opset >= 11 else 1)


def every_other_by_pool(m, x, steps):
    """A MaxPool with windows of one element, which keeps one element per step."""
    return m.op("MaxPool", [x], lambda s: [*s[:2], *((n - 1) // step + 1 for n, step in zip(s[2:], steps))],
                kernel_shape=[1] * len(steps), strides=steps)


def squares_by_reshapes(m, x, sides):
    """PyTorch's pixel_unshuffle, or one with its channels in another order; now and then, other axes move as well."""
    axes = x.rank - 2
    if axes > 2:
        raise Unfit("more axes")
    split_sizes = lambda s: [s[0], s[1], *(n for size, side in zip(s[2:], sides) for n in (size // side, side))]
    numbering = [1, *range(3, 3 + 2 * axes, 2)]
    if m.chance(0.6):
        numbering = [numbering[int(i)] for i in m.rng.permutation(len(numbering))]
    positions = [2 + 2 * axis for axis in range(axes)]
    if m.chance(0.05):
        positions.reverse()
    order = [0, *numbering, *positions]
    if m.chance(0.03):
        order = [int(i) for i in m.rng.permutation(len(order))]
    y = reshaped_to(m, x, split_sizes)
    y = transpose(m, y, order)
    many = len(numbering)
    return reshaped_to(m, y, lambda s: [s[0], int(np.prod(s[1:1 + many])), *s[1 + many:]])


def reshaped_to(m, x, sizes):
    """A Reshape to these sizes: as a rule by a constant if at most one has to be inferred, else by computed sizes."""
    shapes = [list(sizes(shape)) for shape in x.shapes]
    open_axes = [axis for axis, column in enumerate(zip(*shapes)) if len(set(column)) > 1]
    target = list(shapes[0])
    for axis in open_axes:
        if axis < x.rank and all(shape[axis] == of[axis] for shape, of in zip(shapes, x.shapes)):
            target[axis] = 0
    unknown = [axis for axis in open_axes if target[axis]]
    if len(unknown) < 2 and m.chance(0.8):
        if unknown or m.chance(0.3):
            target[unknown[0] if unknown else m.between(0, len(target) - 1)] = -1
        return m.op("Reshape", [x, m.ints(*target)], sizes)
    whole = m.raw("Shape", [x])
    parts = []
    for axis, column in enumerate(zip(*shapes)):
        parts.append(m.ints(column[0]) if axis not in open_axes else size_that_is(m, whole, x, column))
    return m.op("Reshape", [x, m.raw("Concat", parts, axis=0)], sizes)


def size_that_is(m, whole, x, column):
    """Nodes that compute a size, given under each assignment, as that of an axis of x, or a fraction of it."""
    for divisor in (1, 2, 3, 4):
        for axis in range(x.rank):
            if all(shape[axis] == size * divisor for shape, size in zip(x.shapes, column)):
                size = m.raw("Gather", [whole, m.ints(axis)], axis=0)
                return m.raw("Div", [size, m.ints(divisor)]) if divisor > 1 else size
    raise Unfit("a size that is no part of another one")


def tried(m, piece, x, times=8):
    """A piece that fits few tensors: up to `times` of its random variants are tried."""
    for _ in range(times - 1):
        try:
            with m.attempt():
                return piece(m, x)
        except Unfit:
            pass
    return piece(m, x)


def squares(m, x):
    """A stem that turns squares into channels for its convolutions, with a norm or scale before or between them."""
    if x.rank < 3:
        raise Unfit("no spatial axes")
    if m.chance(0.25):
        x = m.pick([norm, written_norm, neutral, simple_block])(m, x)
    y = tried(m, cut_into_squares, x)
    axes = y.rank - 2
    if m.chance(0.3):
        y = m.pick([norm, written_norm, neutral, some_picked, decorated])(m, y)
    if m.chance(0.05):
        m.watch(y)
    if m.chance(0.1):
        return decorated(m, y)
    outputs = m.between(1, MOST_CHANNELS)
    stride, reach = m.pick([1, 1, 1, 2]), m.pick([-1, -1, -1, -3, 0])
    arms = []
    for _ in range(m.pick([1, 1, 2])):
        taps = [m.pick([1, 2, 3, 3])] * axes
        grown = [reach + k for k in taps]
        z, pads = placed(m, y, grown, m.pick(["", "", "", "pad"]))
        arms.append(decorated(m, conv(m, z, outputs, taps, pads, [stride] * axes, groups=m.pick([1, 1, 1, None]))))
    if m.chance(0.15):
        # A convolution of the uncut tensor, at the same positions.
        arms.append(conv(m, some_skipped(m, x), outputs, [1] * axes))
        if len({arm.shapes for arm in arms}) > 1:
            raise Unfit("other sizes")
    y = total(m, arms)
    return decorated(m, y) if m.chance(0.4) else y


def some_picked(m, x):
    """Channels in another order, some of them, or some twice; now and then, another axis is picked from."""
    if x.rank < 2:
        raise Unfit("a vector")
    axis = 1 if m.chance(0.85) else m.between(0, x.rank - 1)
    size = fixed(x, axis)
    match m.pick(["order"] * 4 + ["some"] * 2 + ["slice", "one", "behind each other"]):
        case "order":
            picks = another_order(m, size)
        case "some":
            picks = [m.between(0, size - 1) for _ in range(m.between(1, min(size + 1, MOST_CHANNELS)))]
        case "slice":
            # Every other one, all but one, or these from back to front.
            start, end, step = m.pick([(0, None, 2), (1, None, 2), (-1, None, -2), (-2, None, -1), (0, -1, 1), (-1, 0, -1)])
            return skipped(m, x, [axis], [start], [end], [step])
        case "one":
            # A list of one index keeps the axis with one element; a scalar index removes it.
            if m.chance(0.8):
                picks = [m.between(0, size - 1)]
            else:
                y = m.op("Gather", [x, m.stored(np.int64(m.between(0, size - 1)))],
                         lambda s: [n for at, n in enumerate(s) if at != axis], axis=axis)
                return unsqueeze(m, y, axis)
        case _:
            first = channels_picked(m, x, another_order(m, size), axis)
            return channels_picked(m, first, another_order(m, size), axis)
    return channels_picked(m, x, picks, axis)


def some_skipped(m, x):
    """Every second or third element along spatial axes, by a Slice with steps or a MaxPool with windows of one."""
    axes = x.rank - 2
    if axes < 1:
        raise Unfit("no spatial axes")
    step = m.pick([2, 2, 2, 3])
    steps = [step] * axes if m.chance(0.7) else [m.pick([1, 2, 3]) for _ in range(axes)]
    if m.opset < 10 or m.chance(0.3):
        return every_other_by_pool(m, x, steps)
    starts = [m.pick([0, 0, 0, 1, -3 if m.chance(0.3) else 2]) for _ in range(axes)]
    ends = [m.pick([None, None, None, -1, 4 if m.chance(0.3) else None]) for _ in range(axes)]
    if m.chance(0.05):
        steps[0], starts[0], ends[0] = -m.pick([1, 2]), m.pick([-1, -2]), None
    return skipped(m, x, list(range(2, x.rank)), starts, ends, steps)


def picked(m, x):
    """Picked channels before or behind a convolution or product, between two of these, or in branches of a sum."""
    if x.rank < 3 or m.chance(0.15):
        return picked_columns(m, x)
    axes = x.rank - 2
    way = m.pick(["before", "behind", "between", "arms", "arms", "shuffle"])
    if way == "shuffle":
        return picked_in_groups(m, x)
    if way == "arms":
        common = frame(m, x)
        arms = [branch(m, x, common, "")]
        for _ in range(m.pick([1, 1, 2])):
            own = some_picked(m, x) if m.chance(0.6) else x
            arm = branch(m, own, common, "")
            arms.append(channels_picked(m, arm, another_order(m, common.outputs)) if m.chance(0.5) else arm)
        if len({arm.shapes for arm in arms}) > 1:
            raise Unfit("other sizes")
        y = total(m, arms)
        return some_picked(m, decorated(m, y)) if m.chance(0.3) else decorated(m, y)
    taps = m.pick([1, 3])
    small = lambda y: decorated(m, conv(m, y, m.between(1, MOST_CHANNELS), [taps] * axes, [(taps // 2, taps // 2)] * axes))
    if way != "before":
        x = small(x)
    x = decorated(m, some_picked(m, x))
    if m.chance(0.08):
        m.watch(x)
    return x if way == "behind" else small(x)


def picked_in_groups(m, x):
    """A channel shuffle, by Reshape, Transpose and Reshape or by a Gather, between convolutions with groups."""
    groups, each = m.pick([(2, 2), (2, 3), (3, 2), (2, 4), (4, 2)])
    outputs, axes = groups * each, x.rank - 2
    y = decorated(m, conv(m, x, outputs, [1] * axes, groups=m.pick([1, None])))
    if m.chance(0.5):
        y = channels_picked(m, y, [i * each + j for j in range(each) for i in range(groups)])
    else:
        y = reshaped_to(m, y, lambda s: [s[0], groups, each, *s[2:]])
        y = transpose(m, y, [0, 2, 1, *range(3, y.rank)])
        y = reshaped_to(m, y, lambda s: [s[0], outputs, *s[3:]])
    return decorated(m, conv(m, decorated(m, y), outputs, [3] * axes, [(1, 1)] * axes, groups=m.pick([1, groups, outputs])))


def picked_columns(m, x):
    """A product with elements of the last axis picked before or behind it."""
    if x.rank < 2:
        raise Unfit("a vector")
    axis, width = x.rank - 1, fixed(x, x.rank - 1)
    if m.chance(0.6):
        x = channels_picked(m, x, another_order(m, width), axis)
    if m.chance(0.3):
        x = scaled(m, x)
    width, outputs = fixed(x, x.rank - 1), m.between(1, MOST_CHANNELS)
    last = x.rank - 1
    x = m.op("MatMul", [x, m.const(m.normal(width, outputs, scale=0.5))], lambda s: [*s[:-1], outputs])
    if m.chance(0.6):
        x = channels_picked(m, x, another_order(m, outputs), last)
    return scaled(m, x) if m.chance(0.5) else x


def skipping(m, x):
    """A sum of branches with a stride: that of a convolution, or of a Slice or MaxPool (of one) before or behind it."""
    axes = x.rank - 2
    if axes < 1:
        raise Unfit("no spatial axes")
    step, outputs = m.pick([2, 2, 3]), m.pick([fixed(x, 1), m.between(1, MOST_CHANNELS)])

    def leave(y):
        if m.opset < 10 or m.chance(0.3):
            return every_other_by_pool(m, y, [step] * axes)
        start = 0 if m.chance(0.9) else m.between(1, step)
        return skipped(m, y, list(range(2, y.rank)), [start] * axes, [None] * axes, [step] * axes)

    def arm():
        k = m.pick([1, 1, 3])
        pads = [(k // 2, k // 2)] * axes
        match m.pick(["stride", "before", "behind", "alone"]):
            case "stride":
                return conv(m, x, outputs, [k] * axes, pads, [step] * axes)
            case "before":
                return conv(m, decorated(m, leave(x)), outputs, [1] * axes)
            case "behind":
                return leave(decorated(m, conv(m, x, outputs, [k] * axes, pads)))
            case _ if fixed(x, 1) == outputs:
                return leave(x)
        return leave(conv(m, leave(x), outputs, [k] * axes, pads)) if m.chance(0.1) else conv(m, leave(x), outputs, [1] * axes)

    arms = [decorated(m, arm()) for _ in range(m.pick([1, 2, 2, 3]))]
    if len({arm.shapes for arm in arms}) > 1:
        raise Unfit("other sizes")
    if m.chance(0.06):
        m.watch(m.pick(arms))
    y = decorated(m, total(m, arms))
    return conv(m, y, m.between(1, MOST_CHANNELS), [m.pick([1, 2])] * axes) if m.chance(0.4) else y


def doing_nothing(m, x):
    """Convolutions or products, nodes of neutral_nodes.py, norms and scales in a row."""
    y = x
    for _ in range(m.between(2, 4)):
        match m.pick(["kernel"] * 3 + ["neutral"] * 4 + ["norm", "scale"]):
            case "kernel" if y.rank >= 3:
                k = m.pick([1, 3])
                y = conv(m, y, m.between(1, MOST_CHANNELS), [k] * (y.rank - 2), [(k // 2, k // 2)] * (y.rank - 2))
            case "norm" if y.rank >= 2:
                y = norm(m, y)
            case "scale" if y.rank >= 2:
                y = written_norm(m, y)
            case "kernel" if y.rank == 2:
                y = product(m, y)
            case _:
                y = neutral(m, y)
    return y


def mixed(m, x):
    """Convolutions, squares, picks, skips, neutral nodes, norms and sums in a row; earlier tensors are read again."""
    if x.rank < 3:
        raise Unfit("no spatial axes")
    earlier = [x]
    for _ in range(m.between(3, 7)):
        y = earlier[-1]
        if m.chance(0.12):
            y = m.pick(earlier)
        axes = y.rank - 2
        if axes < 1:
            raise Unfit("no spatial axes")
        match m.pick(["kernel"] * 4 + ["squares", "picked", "picked", "skipped", "neutral", "neutral", "norm", "norm", "crop",
                                       "sum", "sum", "row", "mean"]):
            case "kernel":
                k = m.pick([1, 1, 2, 3])
                y = conv(m, y, m.between(1, MOST_CHANNELS), [k] * axes, [(m.between(0, k - 1), m.between(0, k - 1))] * axes,
                         [m.pick([1, 1, 1, 2])] * axes)
            case "squares":
                y = cut_into_squares(m, y)
            case "picked":
                y = some_picked(m, y)
            case "skipped":
                y = some_skipped(m, y)
            case "neutral":
                y = neutral(m, y)
            case "norm":
                y = m.pick([norm, written_norm])(m, y)
            case "crop":
                y = crop(m, y, [m.between(2, y.rank - 1)], *m.pick([([1], [0]), ([0], [1])]))
            case "sum":
                y = total(m, [y, m.pick([tensor for tensor in earlier if tensor.shapes == y.shapes] or [y])])
            case "row":
                fitting = [tensor for tensor in earlier if all(a[2:] == b[2:] and a[0] == b[0] and len(a) == len(b)
                                                               for a, b in zip(tensor.shapes, y.shapes))]
                y = m.op("Concat", [m.pick(fitting or [y]), y], lambda a, b: [a[0], a[1] + b[1], *a[2:]], axis=1)
            case _:
                y = mean(m, y, [2] * axes, [(0, 0)] * axes, [m.pick([1, 2])] * axes, averaging(m))
        if fixed(y, 1) > 4 * MOST_CHANNELS:
            raise Unfit("too many channels")
        earlier.append(y)
    if m.chance(0.1):
        m.watch(m.pick(earlier[1:]))
    return earlier[-1]


def gate(m, x):
    """Squeeze and excitation: a product of two tensors that depend on x."""
    if x.rank < 3:
        raise Unfit("no spatial axes")
    axes = x.rank - 2
    g = m.op("GlobalAveragePool", [x], lambda s: [*s[:2], *[1] * axes])
    g = decorated(m, conv(m, g, fixed(x, 1), [1] * axes))
    return m.op("Mul", [simple_block(m, x), m.op("Sigmoid", [g])])


# Kind of piece, relative frequency, and the function that makes it.
PIECES = [
    ("block", 22, block),
    ("padded block", 7, padded_block),
    ("cropped arms", 6, cropped_arms),
    ("sequence", 5, sequence),
    ("residual", 4, residual),
    ("transposed", 4, transposed),
    ("same padding", 8, same_padding),
    ("pool", 4, pool),
    ("bounded", 2, bounded),
    ("widened", 2, widened),
    ("channels last", 6, channels_last),
    ("filled border", 6, filled_border),
    ("product", 9, product),
    ("scaled", 4, scaled_by_any),
    ("expanded", 4, expanded),
    ("reshaped", 5, reshaped),
    ("rows and back", 3, rows_and_back),
    ("fewer axes", 5, fewer_axes),
    ("sum of ranks", 4, sum_of_ranks),
    ("statistics from shapes", 2, statistics_from_shapes),
    ("wrapping constant", 3, wrapping_constant),
    ("casting constant", 3, casting_constant),
    ("extreme scale", 3, extreme_scale),
    ("quantized", 4, quantized),
    ("training norm", 4, training_norm),
    ("training norm of constant", 2, training_norm_of_constant),
    ("instance norm", 3, instance_norm),
    ("if", 3, branches_of_if),
    ("loop", 2, iterations_of_loop),
    ("scan", 2, steps_of_scan),
    ("function", 3, local_function),
    ("kernel of other type", 2, kernel_of_other_type),
    ("shared kernel", 3, shared_kernel),
    ("joined", 5, joined),
    ("side by side", 5, side_by_side),
    ("resampled", 5, resampled),
    ("between", 5, between),
    ("gate", 2, gate),
    ("squares", 24, squares),
    ("picked", 9, picked),
    ("skipping", 7, skipping),
    ("doing nothing", 7, doing_nothing),
    ("mixed", 14, mixed),
]
WEIGHTS = np.array([weight for _, weight, _ in PIECES], float)
# Float16 models are there for the range of the type: extreme scales are 15 times as frequent in them.
FLOAT16_WEIGHTS = np.where([piece is extreme_scale for *_, piece in PIECES], 15 * WEIGHTS, WEIGHTS)


# --- a whole model -----------------------------------------------------------------------------------

def main_input(m):
    """Adds the first input, of a random rank and with random open sizes and names of these."""
    rank = m.pick([4] * 12 + [3] * 3 + [5, 2, 2])
    most = 12 if rank == 4 else 20 if rank == 3 else 6
    spatial = [size for size in SPATIAL if size <= most]
    sizes = [[1, m.between(2, 3), 2], [m.between(1, 6)] * ASSIGNMENTS]
    if m.chance(0.4):
        sizes[0] = [m.pick([1, 1, 2])] * ASSIGNMENTS
    dims = [m.pick(BATCH_NAMES) if len(set(sizes[0])) > 1 else sizes[0][0], sizes[1][0]]
    if m.chance(0.03) and rank > 2:
        # The kernel fixes the number of channels, whatever the dimension is called.
        dims[1] = m.pick(["C", "3", ""])
    is_open = m.chance(0.55)
    if m.chance(0.45):
        # Sizes that consist of whole squares under every assignment.
        side = m.pick([2, 2, 2, 3, 4])
        spatial = [size for size in spatial if size % side == 0] or [side]
    name = m.pick(SIZE_NAMES)
    for _ in range(rank - 2):
        if is_open and m.chance(0.9):
            sizes.append([m.pick(spatial) for _ in range(ASSIGNMENTS)])
            # Equal names promise nothing.
            dims.append(name if m.chance(0.5) else m.pick(SIZE_NAMES))
        else:
            sizes.append([m.pick(spatial)] * ASSIGNMENTS)
            dims.append(sizes[-1][0])
    return m.input(sizes, [dim if dim != "" else None for dim in dims])


def random_model(seed):
    """Returns the model of a seed."""
    rng = np.random.default_rng([seed, 14])
    # Slice, Pad and others changed with operator sets 10 and 11.
    opset = int(rng.choice([7, 8, 9, 10, 10, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23]))
    dtype = np.float16 if rng.random() < 0.07 else np.float32
    m = Builder(rng, opset, dtype)
    x = main_input(m)
    for _ in range(m.pick([1, 1, 2, 2, 3])):
        x = next_piece(m, x)
        if m.chance(0.5):
            x = activation(m, x)
        if m.chance(0.05):
            m.watch(x)
    return finished(m, x, seed)


def next_piece(m, x):
    """x behind a random piece that fits, or behind an Identity if 30 of them do not."""
    weights = FLOAT16_WEIGHTS if m.dtype == np.float16 else WEIGHTS
    for _ in range(30):
        kind, _, piece = PIECES[m.rng.choice(len(PIECES), p=weights / weights.sum())]
        try:
            with m.attempt():
                m.kinds.append(kind)
                return piece(m, x)
        except Unfit:
            pass
    return m.op("Identity", [x])


def finished(m, x, seed):
    """Returns the whole model: adds the outputs and all that a file says beside its nodes."""
    declared = []
    for tensor in dict.fromkeys([x, *m.watched]):
        name = m.name("y")
        m.raw("Identity", [tensor], [name]) if tensor.name in m.feeds[0] or m.chance(0.5) else rename(m, tensor.name, name)
        declared.append(helper.make_tensor_value_info(name, FLOATS[m.dtype], None))
    if m.chance(0.15):
        dead_nodes(m, x)
    graph = helper.make_graph(m.main.nodes, "g", m.inputs, declared, m.main.initializers)
    ir_version = m.pick([8, 8, 9, 10]) if m.functions or m.opset > 11 else m.pick([4, 6, 7, 8])
    if m.chance(0.12):
        list_initializers(m, graph)
    if m.chance(0.05):
        make_sparse(m, graph)
    opsets = [helper.make_opsetid("", m.opset)]
    if m.functions:
        opsets.append(helper.make_opsetid("local", 1))
    if m.chance(0.03):
        # The same domain under its other name.
        opsets[0].domain = "ai.onnx"
        for node in graph.node:
            node.domain = node.domain or m.pick(["ai.onnx", ""])
    model = helper.make_model(graph, opset_imports=opsets, functions=m.functions, ir_version=ir_version)
    lies = m.chance(0.04)
    if lies or m.chance(0.15):
        add_value_info(m, model, lies)
    return Case(seed, model, m.feeds, m.kinds, m.chance(0.03), lies)


def rename(m, old, new):
    """Renames a tensor in the graph and in all bodies."""
    def in_nodes(nodes):
        for node in nodes:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    if name == old:
                        names[i] = new
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    in_nodes(attribute.g.node)
                    for info in attribute.g.output:
                        if info.name == old:
                            info.name = new

    in_nodes(m.main.nodes)
    m.watched = [Tensor(new, tensor.shapes) if tensor.name == old else tensor for tensor in m.watched]


def dead_nodes(m, x):
    """Adds a node without readers, which reads the output of a convolution."""
    produced = [name for node in m.main.nodes for name in node.output if node.op_type == "Conv"]
    if produced:
        m.raw("Relu", [m.pick(produced)])


def list_initializers(m, graph):
    """Lists most initializers as graph inputs, too; some exporters list all of them."""
    for tensor in graph.initializer:
        if m.chance(0.8):
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def make_sparse(m, graph):
    """Makes some initializers sparse."""
    dense = list(graph.initializer)
    inputs = {info.name for info in graph.input}
    del graph.initializer[:]
    for tensor in dense:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.ndim < 1 or tensor.name in inputs or not m.chance(0.5):
            graph.initializer.append(tensor)
            continue
        places = np.flatnonzero(values)
        sparse = helper.make_sparse_tensor(numpy_helper.from_array(values.reshape(-1)[places], tensor.name),
                                           numpy_helper.from_array(places.astype(np.int64)), list(values.shape))
        graph.sparse_initializer.append(sparse)


def add_value_info(m, model, lies):
    """Adds the value_info that onnx infers; if `lies`, some of it wrong, as exporters write it."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    except Exception:
        return
    for info in inferred:
        if not info.type.tensor_type.elem_type:
            continue
        dims = info.type.tensor_type.shape.dim
        if lies and len(dims) == 4 and m.chance(0.5):
            # An NHWC shape on an NCHW tensor.
            order = [dims[0], dims[2], dims[3], dims[1]]
            copies = [helper.make_tensor_value_info("d", 1, [None]).type.tensor_type.shape.dim[0] for _ in order]
            for copy, dim in zip(copies, order):
                copy.CopyFrom(dim)
            del dims[:]
            dims.extend(copies)
        model.graph.value_info.append(info)


if __name__ == "__main__":
    case = random_model(int(sys.argv[1]))
    case.save(sys.argv[2])
    print(", ".join(case.kinds))
