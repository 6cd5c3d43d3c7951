"""Decides whether two models compute the same: both run in ONNX Runtime without optimisations, and float64 judges.

The old model's outputs are right but for rounding, and the new one's must be, too. How much rounding is allowed is
not guessed: where the two differ by more than a few units in the last place of the largest output, the old model is
computed once more in float64 (by onnx's reference evaluator: ONNX Runtime has no float64 convolution). The new
outputs must then be as near to the float64 ones as the old outputs are, within a factor of 4, or within 4 times the
effect of changing all weights in their last bit.
"""

from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

onnxruntime.set_default_logger_severity(4)

# Largest difference that needs no comparison with float64, in units in the last place of the largest output.
CLOSE = {np.dtype(np.float32): 24, np.dtype(np.float16): 1.5, np.dtype(np.float64): 24}
# Upper bound on the new error, as a multiple of the old error or of the effect of the last bit of the weights.
FACTOR = 4
# Relative error of the old outputs above which the reference and ONNX Runtime must compute different things, so that
# float64 is no judge.
ESTRANGED = {np.dtype(np.float32): 1e-3, np.dtype(np.float16): 0.1, np.dtype(np.float64): 1e-6}


class Difference(NamedTuple):
    """How the new model differs from the old one; `runs` is false if the new model fails where the old one runs."""
    runs: bool
    why: str


class NotRun(Exception):
    """Raised if ONNX Runtime does not load or run a model."""


# --- running -------------------------------------------------------------------------------

class Runner:
    """A model in ONNX Runtime, run exactly as the file defines it: without optimisations."""

    def __init__(self, model):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise NotRun(str(error)) from error
        self.inputs = {value.name for value in self.session.get_inputs()}
        self.outputs = [value.name for value in self.session.get_outputs()]

    def __call__(self, feeds):
        try:
            return self.session.run(None, {name: value for name, value in feeds.items() if name in self.inputs})
        except Exception as error:
            raise NotRun(str(error)) from error


# --- what a file means ----------------------------------------------------------------------

def nested(node):
    return [attribute.g for attribute in node.attribute if attribute.type == AttributeProto.GRAPH]


def every_node(model):
    """Yields all nodes of a model, including those of bodies and functions."""
    waiting = [model.graph.node, *(function.node for function in model.functions)]
    while waiting:
        for node in waiting.pop():
            yield node
            waiting.extend(graph.node for graph in nested(node))


def without_node_names(model):
    """Removes all node names: they mean nothing, but ONNX Runtime rejects equal ones."""
    for node in every_node(model):
        node.ClearField("name")
    return model


def opset_of(model):
    return next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def trains(node, opset):
    """Returns whether a norm or dropout is in training mode, judged by its node alone."""
    match node.op_type:
        case "BatchNormalization" if opset >= 14:
            return any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
        case "BatchNormalization":
            return sum(map(bool, node.output)) > 1
        case "Dropout":
            return opset >= 12 and len(node.input) > 2 and bool(node.input[2])
    return False


def at_inference(node):
    """Turns a norm or dropout in training mode into its inference form."""
    if node.op_type == "BatchNormalization":
        del node.output[1:]
        kept = [attribute for attribute in node.attribute if attribute.name != "training_mode"]
        del node.attribute[:]
        node.attribute.extend(kept)
    else:
        del node.input[2:]


def without_dropout(model):
    """Turns dropouts in training mode into their inference form, since random zeros cannot be compared."""
    opset = opset_of(model)
    for node in every_node(model):
        if node.op_type == "Dropout" and trains(node, opset):
            at_inference(node)
    return model


def deploy_form(model):
    """Turns the old model into what `--training-mode auto` takes it for, in place, and returns it.

    A norm in training mode uses its stored statistics if its input depends on a graph input, the statistics are
    constants, they are not placeholders (all means 0 and all variances 1), and nothing reads its other outputs.
    Otherwise it keeps using the statistics of its batch.
    """
    opset = opset_of(model)
    read = {name for node in every_node(model) for name in node.input}
    read |= {output.name for output in model.graph.output}

    def visit(nodes, depends, values):
        for node in nodes:
            for graph in nested(node):
                inner = dict(values) | {tensor.name: tensor for tensor in graph.initializer}
                visit(graph.node, depends | {value.name for value in graph.input}, inner)
            if node.op_type == "Constant":
                values.update((node.output[0], attribute.t) for attribute in node.attribute if attribute.name == "value")
            if node.op_type == "BatchNormalization" and trains(node, opset):
                is_stored = all(name in values for name in node.input[3:5])
                is_used = any(name in read for name in node.output[1:])
                if node.input[0] in depends and is_stored and not is_used and not placeholders(node, values):
                    at_inference(node)
            if depends & {*node.input, *captured(node)}:
                depends.update(node.output)

    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    # The non-zero values of a sparse one suffice here: zeros fit placeholder means, and no variance is zero.
    initializers |= {sparse.values.name: sparse.values for sparse in model.graph.sparse_initializer}
    visit(model.graph.node, {value.name for value in model.graph.input} - set(initializers), initializers)
    for function in model.functions:
        visit(function.node, set(function.input), {})
    return without_dropout(model)


def captured(node):
    """Yields the names that the bodies of a node read."""
    for graph in nested(node):
        for inner in graph.node:
            yield from inner.input
            yield from captured(inner)


def placeholders(node, values):
    mean, var = (numpy_helper.to_array(values[name]) for name in node.input[3:5])
    return bool(np.all(mean == 0) and np.all(var == 1))


# --- float64 ---------------------------------------------------------------------------------

def in_float64(model, element_type, perturbation=None):
    """Returns a copy whose tensors of type `element_type` are float64; `perturbation`, if given, maps its weights."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)

    def widened(tensor):
        if tensor.data_type != element_type:
            return
        values = numpy_helper.to_array(tensor).astype(np.float64)
        if perturbation is not None:
            values = perturbation(values)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    def widen_type(info):
        if info.type.tensor_type.elem_type == element_type:
            info.type.tensor_type.elem_type = TensorProto.DOUBLE

    def widen_nodes(nodes):
        for node in nodes:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.TENSOR:
                    widened(attribute.t)
                elif attribute.type == AttributeProto.GRAPH:
                    widen_graph(attribute.g)
                elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == element_type:
                    attribute.i = TensorProto.DOUBLE

    def widen_graph(graph):
        for tensor in graph.initializer:
            widened(tensor)
        for sparse in graph.sparse_initializer:
            widened(sparse.values)
        for info in (*graph.input, *graph.output):
            widen_type(info)
        del graph.value_info[:]
        widen_nodes(graph.node)

    widen_graph(copy.graph)
    for function in copy.functions:
        widen_nodes(function.node)
    return copy


class Judge:
    """The old model in float64, once as it is and twice with its weights changed in their last bit."""

    def __init__(self, model, dtype):
        self.dtype = np.dtype(dtype)
        element_type = helper.np_dtype_to_tensor_dtype(self.dtype)
        rng, eps = np.random.default_rng(0), float(np.finfo(dtype).eps)
        self.problem = None

        def changed(values):
            return values * (1 + eps * rng.choice([-1.0, 1.0], size=values.shape))

        try:
            self.exact = ReferenceEvaluator(in_float64(model, element_type))
            self.changed = [ReferenceEvaluator(in_float64(model, element_type, changed)) for _ in range(2)]
        except Exception as error:
            self.problem = str(error)

    def opinion(self, feeds):
        """Returns the float64 outputs, how far the weights' last bit moves each, and the largest value on the way.

        Returns None if the reference evaluator fails.
        """
        if self.problem:
            return None
        wide = {name: value.astype(np.float64) if value.dtype == self.dtype else value for name, value in feeds.items()}
        try:
            with np.errstate(all="ignore"):
                values = self.exact.run(None, wide, intermediate=True)
                others = [other.run(None, wide) for other in self.changed]
        except Exception:
            return None
        exact = [np.asarray(values[name]) for name in self.exact.output_names]
        if any(other.shape != right.shape for run in others for other, right in zip(run, exact)):
            return None
        moves = [max(largest(other[i] - right) for other in others) for i, right in enumerate(exact)]
        floats = [value for value in values.values() if isinstance(value, np.ndarray) and value.dtype == np.float64]
        return exact, moves, max(map(largest, floats), default=0.0)


def largest(values):
    """Returns the largest finite magnitude, or 0 if there is none."""
    values = np.abs(np.asarray(values, np.float64))
    values = values[np.isfinite(values)]
    return float(values.max()) if values.size else 0.0


# --- comparing ----------------------------------------------------------------------------------

def difference(old, new, feeds, judge):
    """Returns how the outputs of two runners differ, or None. Raises NotRun if the old model does not run."""
    right = old(feeds)
    try:
        ours = new(feeds)
    except NotRun as error:
        return Difference(False, f"it no longer runs: {error}")
    if old.outputs != new.outputs:
        return Difference(True, f"its outputs are {new.outputs}, not {old.outputs}")
    opinion = None
    for i, (name, a, b) in enumerate(zip(old.outputs, right, ours)):
        if a.shape != b.shape or a.dtype != b.dtype:
            return Difference(True, f"{name!r} is {b.dtype}{b.shape}, not {a.dtype}{a.shape}")
        if a.dtype.kind != "f":
            if not np.array_equal(a, b):
                return Difference(True, f"{name!r} differs")
            continue
        # Where the old model overflows, the new one may or may not.
        finite = np.isfinite(a)
        if not np.isfinite(b[finite]).all():
            return Difference(True, f"{name!r} is not finite where it was")
        a, b = a.astype(np.float64)[finite], b.astype(np.float64)[finite]
        off, eps = largest(a - b), float(np.finfo(right[i].dtype).eps)
        if off <= CLOSE[right[i].dtype] * eps * largest(a) and not loses_precision(a):
            continue
        if off == 0:
            continue
        opinion = opinion or judge().opinion(feeds) or without_float64(feeds)
        why = verdict(a, b, off, eps, opinion, i, finite, right[i].dtype)
        if why:
            return Difference(True, f"{name!r} {why}")
    return None


def without_float64(feeds):
    """Returns what replaces `Judge.opinion` if the evaluator fails: the largest input bounds what may cancel."""
    return None, None, max((largest(value) for value in feeds.values() if value.dtype.kind == "f"), default=0.0)


def loses_precision(values):
    """Returns whether outputs are so small that a unit in the last place is no measure of error."""
    return 0 < largest(values) < 1e-3


def verdict(a, b, off, eps, opinion, output, finite, dtype):
    """Returns why `b`, the new output, is further off than rounding explains, or None if it is not.

    `a` is the old output, at its `finite` elements; `off` is its distance from `b`, and `output` its number.
    """
    scale = largest(a)
    step = float(np.finfo(dtype).smallest_subnormal)
    relative = f"differs by {off:.3g}, where the largest value is {scale:.3g}"
    exact, moves, way = opinion
    if exact is None or exact[output].shape != finite.shape:
        return relative if off > 200 * eps * max(scale, way) + step else None
    right = exact[output][finite]
    old_error, new_error = largest(a - right), largest(b - right)
    if old_error > ESTRANGED[dtype] * max(scale, largest(right)) + 2 * step:
        # The largest intermediate value bounds what may cancel.
        return relative if off > 100 * eps * max(scale, min(way, 1e3 * scale)) + step else None
    allowed = max(FACTOR * old_error, FACTOR * moves[output], 8 * eps * scale, 2 * step)
    if dtype != np.float16:
        allowed = max(allowed, 2 * eps * way if way < 1e6 * scale or scale == 0 else 0)
    if new_error <= allowed:
        return None
    return (f"differs by {new_error:.3g} from what float64 gives, the old one by {old_error:.3g}, where the largest "
            f"value is {scale:.3g}, on the way {way:.3g}, and the last bit of the weights moves it by {moves[output]:.3g}")
