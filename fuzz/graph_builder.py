"""A graph under construction: nodes, constants and names, as different exporters would write them.

The builder knows the shape of every tensor under several assignments of the open sizes, so that the graph is valid
under all of them. It knows nothing of blocks, which are in random_models.py.
"""

import math
from contextlib import contextmanager
from typing import NamedTuple

import ml_dtypes
import numpy as np
from onnx import AttributeProto, TensorProto, helper, numpy_helper

# Number of assignments; each gives every open dimension a size.
ASSIGNMENTS = 3

FLOATS = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.float16): TensorProto.FLOAT16,
          np.dtype(np.float64): TensorProto.DOUBLE}


class Unfit(Exception):
    """Raised if a piece does not fit its tensor; another piece is then tried."""


class Tensor(NamedTuple):
    """A tensor of the graph, and its shape under each assignment."""
    name: str
    shapes: tuple

    @property
    def rank(self):
        return len(self.shapes[0])

    @property
    def is_empty_somewhere(self):
        return any(size < 1 for shape in self.shapes for size in shape)


class Scope:
    """Nodes and initializers of one graph or function body."""

    def __init__(self, stores_constants=True):
        self.nodes, self.initializers = [], []
        self.stores_constants = stores_constants


class Builder:
    def __init__(self, rng, opset, dtype=np.float32):
        self.rng, self.opset, self.dtype = rng, opset, np.dtype(dtype)
        self.main = Scope()
        self.scopes = [self.main]
        self.inputs, self.feeds = [], [{} for _ in range(ASSIGNMENTS)]
        self.functions, self.watched, self.kinds = [], [], []
        self.count = 0
        self.naming = self.pick(["plain"] * 4 + ["path", "keras", "odd", "long"])
        self.node_naming = self.pick(["unique", "unique", "none", "equal"])
        # Probability that a constant is computed by nodes.
        self.computed = self.pick([0, 0, 0.1, 0.5])
        self.unpaired = self.pick([0, 0, 0.3])
        self.shared = {}

    # --- chance ---------------------------------------------------------------

    def pick(self, options):
        return options[int(self.rng.integers(len(options)))]

    def chance(self, probability):
        return self.rng.random() < probability

    def between(self, low, high):
        """Returns a random integer from `low` to `high`, both included."""
        return int(self.rng.integers(low, high + 1))

    def normal(self, *shape, scale=1.0):
        return (self.rng.standard_normal(shape) * scale).astype(self.dtype)

    # --- names ----------------------------------------------------------------

    def name(self, hint="t"):
        self.count += 1
        number = self.count
        match self.naming:
            case "path":
                return f"/m/branches.{number % 4}/{hint}_{number}_output_0"
            case "keras":
                return f"model/{hint}__{number}:0"
            case "odd":
                return self.pick(["a b{}", "t\n{}", "π{}", "'{}\"", "-{}", "{}", "x=1,{}", "<{}&", "{{}}{}", "\\{}"]).replace("{}", str(number))
            case "long":
                return f"{hint}_{number}_" + "x" * 120
        return f"{hint}{number}"

    def node_name(self, op):
        match self.node_naming:
            case "none":
                return ""
            case "equal":
                return op
        self.count += 1
        return f"{op}_{self.count}"

    # --- nodes ----------------------------------------------------------------

    @property
    def scope(self):
        return self.scopes[-1]

    def raw(self, op, inputs, outputs=1, domain="", **attributes):
        """Adds a node and returns the name of its first output."""
        outputs = [self.name(op.lower()) for _ in range(outputs)] if isinstance(outputs, int) else list(outputs)
        inputs = [value.name if isinstance(value, Tensor) else value for value in inputs]
        while inputs and not inputs[-1]:
            inputs.pop()
        attributes = {name: value for name, value in attributes.items() if value is not None}
        node = helper.make_node(op, inputs, outputs, name=self.node_name(op), domain=domain, **attributes)
        self.scope.nodes.append(node)
        return outputs[0]

    def op(self, op, inputs, shape=None, **attributes):
        """Adds a node and returns its first output.

        Its shape is that of the first tensor in `inputs`, or what `shape` returns for the shapes of all of them.
        """
        tensors = [value for value in inputs if isinstance(value, Tensor)]
        if shape is None:
            shapes = tensors[0].shapes
        else:
            shapes = tuple(tuple(shape(*shapes)) for shapes in zip(*(tensor.shapes for tensor in tensors)))
        result = Tensor("", shapes)
        if result.is_empty_somewhere or any(math.prod(shape) > 20000 for shape in shapes):
            raise Unfit(op)
        return Tensor(self.raw(op, inputs, **attributes), shapes)

    @contextmanager
    def attempt(self):
        """Takes back everything that was added in this context if a piece raises Unfit."""
        depth = len(self.scopes)
        lengths = [(len(scope.nodes), len(scope.initializers)) for scope in self.scopes]
        inputs, watched, functions = len(self.inputs), len(self.watched), len(self.functions)
        shared = {key: list(names) for key, names in self.shared.items()}
        kinds = len(self.kinds)
        try:
            yield
        except Unfit:
            del self.scopes[depth:]
            for scope, (nodes, initializers) in zip(self.scopes, lengths):
                del scope.nodes[nodes:]
                del scope.initializers[initializers:]
            for info in self.inputs[inputs:]:
                for feed in self.feeds:
                    feed.pop(info.name, None)
            del self.inputs[inputs:]
            del self.watched[watched:], self.functions[functions:], self.kinds[kinds:]
            self.shared = shared
            raise

    @contextmanager
    def body(self, stores_constants=True):
        """Yields a new scope, into which everything goes that is added in this context."""
        scope = Scope(stores_constants)
        self.scopes.append(scope)
        outer_shared, self.shared = self.shared, {}
        yield scope
        self.shared = outer_shared
        self.scopes.pop()

    def watch(self, tensor):
        """Makes a tensor of the main graph an output of the model too."""
        if self.scope is self.main:
            self.watched.append(tensor)

    def graph_of(self, scope, name, inputs, outputs):
        return helper.make_graph(scope.nodes, name, inputs, outputs, scope.initializers)

    # --- inputs ---------------------------------------------------------------

    def input(self, sizes, dims, values=None, dtype=None):
        """Adds a graph input: `sizes` has, per axis, a size for each assignment; `dims` is what the file declares."""
        dtype = self.dtype if dtype is None else np.dtype(dtype)
        name = self.name("x")
        shapes = tuple(tuple(size[i] for size in sizes) for i in range(ASSIGNMENTS))
        info = helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), dims)
        self.inputs.append(info)
        for feed, shape in zip(self.feeds, shapes):
            data = self.rng.standard_normal(shape) if values is None else values(shape)
            if dtype == np.float16 and feed is self.feeds[-1]:
                # Only large inputs show that a value underflowed.
                data *= 30
            feed[name] = np.asarray(data).astype(dtype)
        return Tensor(name, shapes)

    # --- constants ------------------------------------------------------------

    def stored(self, array, name=None):
        """Adds an initializer or a Constant node and returns its name."""
        array = np.asarray(array)
        name = name or self.name("c")
        if not self.scope.stores_constants or self.chance(self.unpaired):
            self.raw("Constant", [], [name], value=numpy_helper.from_array(array, name))
        else:
            self.scope.initializers.append(numpy_helper.from_array(array, name))
        return name

    def const(self, array, shareable=False):
        """Returns the name of a constant: stored, computed by a few nodes, or another one of its shape and type."""
        array = np.asarray(array)
        key = array.shape, array.dtype.str
        if shareable and self.shared.get(key) and self.chance(0.1):
            return self.pick(self.shared[key])
        is_float = array.dtype.kind == "f"
        name = self.computed_const(array) if is_float and self.chance(self.computed) else self.stored(array)
        if shareable:
            self.shared.setdefault(key, []).append(name)
        return name

    def computed_const(self, array):
        """Adds nodes that compute a constant of this shape, and of these or similar values."""
        return self.pick(CONSTANTS)(self, array)

    def ints(self, *values, dtype=np.int64):
        return self.stored(np.array(values, dtype=dtype))


# --- constants that are computed ---------------------------------------------------

def identity(m, array):
    return m.raw("Identity", [m.stored(array)])


def reshaped(m, array):
    return m.raw("Reshape", [m.stored(array.reshape(-1)), m.ints(*array.shape)])


def transposed(m, array):
    if array.ndim < 2:
        return identity(m, array)
    perm = [int(axis) for axis in m.rng.permutation(array.ndim)]
    return m.raw("Transpose", [m.stored(np.ascontiguousarray(np.transpose(array, perm)))],
                 perm=[int(axis) for axis in np.argsort(perm)])


def scaled(m, array):
    return m.raw("Mul", [m.stored(array), m.stored(np.array(m.pick([0.5, 1.5, 2, 1]), array.dtype))])


def summed(m, array):
    part = (array * array.dtype.type(0.375)).astype(array.dtype)
    return m.raw("Add", [m.stored(part), m.stored((array - part).astype(array.dtype))])


def joined(m, array):
    if array.ndim < 1 or array.shape[0] < 2:
        return identity(m, array)
    return m.raw("Concat", [m.stored(array[:1]), m.stored(array[1:])], axis=0)


def from_bfloat16(m, array):
    if m.opset < 13:
        return identity(m, array)
    return m.raw("Cast", [m.stored(array.astype(ml_dtypes.bfloat16))], to=FLOATS[array.dtype])


def from_float16(m, array):
    return m.raw("Cast", [m.stored(array.astype(np.float16))], to=FLOATS[array.dtype])


def of_shape(m, array):
    if m.opset < 9 or array.ndim < 1:
        return identity(m, array)
    value = numpy_helper.from_array(np.abs(array.reshape(-1)[:1]))
    return m.raw("ConstantOfShape", [m.ints(*array.shape)], value=value)


def expanded(m, array):
    if m.opset < 8 or array.ndim < 1:
        return identity(m, array)
    return m.raw("Expand", [m.stored(array[..., :1]), m.ints(*array.shape)])


def dequantized(m, array):
    if m.opset < 13 or array.dtype != np.float32 or array.ndim < 1:
        return identity(m, array)
    limit = float(np.abs(array).max()) or 1.0
    stored = np.clip(np.round(array / limit * 127), -127, 127).astype(np.int8)
    if np.any(stored == 0) and array.ndim == 1:
        return identity(m, array)
    return m.raw("DequantizeLinear", [m.stored(stored), m.stored(np.float32(limit / 127)), m.stored(np.int8(0))])


def gathered(m, array):
    if array.ndim < 1:
        return identity(m, array)
    order = m.rng.permutation(array.shape[0])
    return m.raw("Gather", [m.stored(array[order]), m.ints(*np.argsort(order))], axis=0)


def sliced(m, array):
    if array.ndim < 1 or m.opset < 10:
        return identity(m, array)
    longer = np.concatenate([array, array[:1]])
    return m.raw("Slice", [m.stored(longer), m.ints(0), m.ints(-1), m.ints(0)])


def rooted(m, array):
    """1 / sqrt(v + ε), as Keras writes the scale of a norm; all values are positive."""
    with np.errstate(all="ignore"):
        var = np.clip(1 / np.maximum(np.square(array.astype(np.float64)), 1e-4), 1e-3, 1e3).astype(array.dtype)
    root = m.raw("Sqrt", [m.raw("Add", [m.stored(var), m.stored(np.array(1e-3, array.dtype))])])
    return m.raw("Div", [m.stored(np.array(1, array.dtype)), root])


CONSTANTS = [rooted, identity, reshaped, transposed, scaled, summed, joined, from_bfloat16, from_float16, of_shape, expanded,
             dequantized, gathered, sliced]


# --- operators by operator set ------------------------------------------------------

def pad(m, x, begins, ends, mode="constant", value=0.0):
    """Adds a Pad with an amount per axis; negative amounts crop."""
    if mode == "wrap" and m.opset < 19:
        raise Unfit("wrap")
    if mode in ("reflect", "edge", "wrap"):
        room = 1 if mode == "reflect" else 0
        for shape in x.shapes:
            if any(max(a, b) > size - room for a, b, size in zip(begins, ends, shape)):
                raise Unfit("pad")

    def shape(sizes):
        return [size + a + b for size, a, b in zip(sizes, begins, ends)]

    pads = [*begins, *ends]
    mode_name = mode if mode != "constant" or m.chance(0.5) else None
    if m.opset < 11:
        return m.op("Pad", [x], shape, pads=pads, mode=mode_name, value=value if mode == "constant" else None)
    given = m.stored(np.array(value, m.dtype)) if value or m.chance(0.5) else ""
    if m.opset >= 18 and m.chance(0.2):
        axes = [axis for axis, amounts in enumerate(zip(begins, ends)) if any(amounts)] or [x.rank - 1]
        listed = [begins[axis] for axis in axes] + [ends[axis] for axis in axes]
        axes = [axis - x.rank if m.chance(0.3) else axis for axis in axes]
        return m.op("Pad", [x, m.ints(*listed), given, m.ints(*axes)], shape, mode=mode_name)
    pads = torchscript_pads(m, begins, ends) if m.chance(0.15) else m.ints(*pads)
    return m.op("Pad", [x, pads, given], shape, mode=mode_name)


def torchscript_pads(m, begins, ends):
    """Adds TorchScript's nodes that compute the pads of all axes from torch's list, which begins with the last axis."""
    pairs = [amount for pair in zip(reversed(begins), reversed(ends)) for amount in pair]
    kept = m.pick([2, 4, len(pairs)])
    while kept < len(pairs) and any(pairs[kept:]):
        kept += 2
    zeros = m.raw("ConstantOfShape", [m.ints(len(pairs) - kept)],
                  value=numpy_helper.from_array(np.zeros(1, np.int64))) if kept < len(pairs) else None
    listed = m.raw("Concat", [m.ints(*pairs[:kept]), *([zeros] if zeros else [])], axis=0)
    rows = m.raw("Reshape", [listed, m.ints(-1, 2)])
    rows = m.raw("Slice", [rows, m.ints(-1), m.ints(-2**63 + 1), m.ints(0), m.ints(-1)])
    columns = m.raw("Transpose", [rows], perm=[1, 0])
    return m.raw("Cast", [m.raw("Reshape", [columns, m.ints(-1)])], to=TensorProto.INT64)


def crop(m, x, axes, starts, ends):
    """Adds a Slice that cuts `starts` elements off the start and `ends` off the end of each axis."""
    def shape(sizes):
        result = list(sizes)
        for axis, a, b in zip(axes, starts, ends):
            result[axis] -= a + b
        return result

    stops = [-b if b else m.pick([2**31 - 1, 2**63 - 1]) for b in ends]
    if m.opset < 10:
        return m.op("Slice", [x], shape, axes=list(axes), starts=list(starts), ends=stops)
    given = [m.ints(*starts), m.ints(*stops), m.ints(*axes)]
    if m.chance(0.5):
        given.append(m.ints(*[1] * len(axes)))
    return m.op("Slice", [x, *given], shape)


def piece_of(m, x, axis, start, stop):
    """Adds a Slice: x[start:stop] along one axis, with bounds as Slice defines them."""
    def shape(sizes):
        result = list(sizes)
        result[axis] = len(range(sizes[axis])[start:stop])
        return result

    if m.opset < 10:
        return m.op("Slice", [x], shape, axes=[axis], starts=[start], ends=[stop])
    return m.op("Slice", [x, m.ints(start), m.ints(stop), m.ints(axis)], shape)


def skipped(m, x, axes, starts, ends, steps):
    """Adds a Slice with steps: x[start:end:step] along each axis; an end of None is beyond all elements."""
    if m.opset < 10:
        raise Unfit("steps")

    def shape(sizes):
        result = list(sizes)
        for axis, start, end, step in zip(axes, starts, ends, steps):
            result[axis] = len(range(sizes[axis])[start:end:step])
        return result

    beyond = lambda step: m.pick([2**31 - 1, 2**63 - 1] if step > 0 else [-2**31, -2**63 + 1])
    ends_given = [beyond(step) if end is None else end for end, step in zip(ends, steps)]
    listed = [axis - x.rank if m.chance(0.2) else axis for axis in axes]
    given = [m.ints(*values) for values in (starts, ends_given, listed, steps)]
    return m.op("Slice", [x, *given], shape)


def taken(m, x, axis, indices):
    """Adds a Gather with a constant list of indices along one axis."""
    def shape(sizes):
        return [len(indices) if at == axis else n for at, n in enumerate(sizes)]

    listed = m.ints(*indices, dtype=m.pick([np.int64, np.int64, np.int32]))
    return m.op("Gather", [x, listed], shape, axis=axis - x.rank if m.opset >= 11 and m.chance(0.2) else axis)


def split(m, x, axis, sizes):
    """Adds a Split into parts of these sizes along one axis."""
    names = [m.name("part") for _ in sizes]
    if m.opset < 13:
        m.raw("Split", [x], names, axis=axis, split=list(sizes))
    else:
        m.raw("Split", [x, m.ints(*sizes)], names, axis=axis)
    at = axis % x.rank
    shapes = [tuple((*shape[:at], size, *shape[at + 1:]) for shape in x.shapes) for size in sizes]
    return [Tensor(name, shape) for name, shape in zip(names, shapes)]


def with_axes(m, op, x, axes, shape, since=13, **attributes):
    """Adds a Squeeze, Unsqueeze or reduction, whose axes are an input from operator set `since` on."""
    if m.opset < since:
        return m.op(op, [x], shape, axes=list(axes), **attributes)
    return m.op(op, [x, m.ints(*axes)], shape, **attributes)


def squeeze(m, x, axis):
    if any(shape[axis] != 1 for shape in x.shapes):
        raise Unfit("squeeze")
    return with_axes(m, "Squeeze", x, [axis], lambda s: [*s[:axis], *s[axis + 1:]])


def unsqueeze(m, x, axis):
    return with_axes(m, "Unsqueeze", x, [axis], lambda s: [*s[:axis], 1, *s[axis:]])


def reduce(m, x, axes, keepdims, op="ReduceMean"):
    def shape(sizes):
        if keepdims:
            return [1 if axis in axes else size for axis, size in enumerate(sizes)]
        return [size for axis, size in enumerate(sizes) if axis not in axes]

    return with_axes(m, op, x, axes, shape, 13 if op == "ReduceSum" else 18, keepdims=int(keepdims))


def transpose(m, x, perm):
    return m.op("Transpose", [x], lambda s: [s[axis] for axis in perm], perm=list(perm))


def dropout(m, x, trains=False):
    if m.opset < 12:
        return m.op("Dropout", [x], ratio=m.pick([None, 0.1]))
    if trains:
        return m.op("Dropout", [x, m.stored(np.float32(0.3)), m.stored(np.array(True))])
    return m.op("Dropout", m.pick([[x], [x, m.stored(np.float32(0.3))],
                                   [x, m.stored(np.float32(0.3)), m.stored(np.array(False))]]))


def clip(m, x, low, high):
    if m.opset < 11:
        return m.op("Clip", [x], min=low, max=high)
    return m.op("Clip", [x, m.stored(np.array(low, m.dtype)), m.stored(np.array(high, m.dtype))])


def broadcast(a, b):
    try:
        return np.broadcast_shapes(a, b)
    except ValueError as error:
        raise Unfit("broadcast") from error


def fixed(x, axis):
    """Returns the size of an axis that has the same one under all assignments; raises Unfit otherwise."""
    sizes = {shape[axis] for shape in x.shapes}
    if len(sizes) != 1:
        raise Unfit("open size")
    return sizes.pop()


def nested_graphs(node):
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
