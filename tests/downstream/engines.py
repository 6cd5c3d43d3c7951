"""Loads an ONNX file in each engine: one function per engine, which returns a function that runs the model.

An engine is imported in its own function, since each has an environment of its own. All run on one thread and in
float32: the outputs of an engine that rounds to 16 bits by itself would say nothing about a file.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Tensor = npt.NDArray[Any]
Tensors = dict[str, Tensor]
Run = Callable[[], list[Tensor]]

THREADS = 1


def onnxruntime(model: Path, inputs: Tensors) -> Run:
    return session(model, inputs, optimize=True)


def reference(model: Path, inputs: Tensors) -> Run:
    """Loads a model in ONNX Runtime without optimisations, which computes what the file defines."""
    return session(model, inputs, optimize=False)


def session(model: Path, inputs: Tensors, optimize: bool) -> Run:
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 4
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    made = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return lambda: list(made.run(None, inputs))


def openvino(model: Path, inputs: Tensors) -> Run:
    import openvino as ov
    core = ov.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": THREADS}
    compiled = core.compile_model(core.read_model(model), "CPU", options)
    request = compiled.create_infer_request()
    return lambda: [np.array(tensor) for tensor in request.infer(inputs).values()]


def opencv(model: Path, inputs: Tensors) -> Run:
    """Loads a model in the engine of OpenCV 5."""
    import cv2
    return opencv_network(model, inputs, cv2.dnn.ENGINE_NEW)


def opencv_classic(model: Path, inputs: Tensors) -> Run:
    """Loads a model in the engine of OpenCV 4, which OpenCV 5 still has."""
    import cv2
    return opencv_network(model, inputs, cv2.dnn.ENGINE_CLASSIC)


def opencv_network(model: Path, inputs: Tensors, engine: int) -> Run:
    import cv2
    cv2.setNumThreads(THREADS)
    network = cv2.dnn.readNetFromONNX(str(model), engine)
    names = network.getUnconnectedOutLayersNames()

    def run() -> list[Tensor]:
        for name, tensor in inputs.items():
            network.setInput(tensor, name)
        return list(network.forward(names))
    return run


# Python code in place of the program `mnnconvert`, which installs a package on each run, to report its use.
MNNCONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv)"


def mnn(model: Path, inputs: Tensors) -> Run:
    import MNN
    folder = scratch()
    converted = folder / "model.mnn"
    command([sys.executable, "-c", MNNCONVERT, "-f", "ONNX", "--modelFile", model, "--MNNModel", converted,
             "--bizCode", "x"])
    if not converted.exists():
        raise RuntimeError("mnnconvert writes nothing")
    runtime = MNN.nn.create_runtime_manager(({"backend": "CPU", "precision": "high", "numThread": THREADS},))
    network = MNN.nn.load_module_from_file(str(converted), list(inputs), [], runtime_manager=runtime)
    # MNN has no float16 inputs.
    kinds = {"float32": MNN.numpy.float32, "int32": MNN.numpy.int32}
    tensors = [tensor.astype(np.float32) if tensor.dtype == np.float16 else tensor for tensor in inputs.values()]

    def run() -> list[Tensor]:
        given = [MNN.expr.placeholder(x.shape, MNN.expr.NCHW, kinds[x.dtype.name]) for x in tensors]
        for variable, tensor in zip(given, tensors):
            variable.write(np.ascontiguousarray(tensor))
        outputs = network.forward(given)
        return [np.array(MNN.expr.convert(y, MNN.expr.NCHW).read()) for y in outputs]
    return run


def ncnn(model: Path, inputs: Tensors) -> Run:
    """Loads what pnnx writes in ncnn: it has no batch axis, so that images run one after the other."""
    import ncnn as engine
    folder = scratch()
    copied = shutil.copy(model, folder / "model.onnx")
    shapes = ",".join(str(list(tensor.shape)).replace(" ", "") for tensor in inputs.values())
    command([pnnx(), copied, f"inputshape={shapes}", "fp16=0"])
    network = engine.Net()
    network.opt.num_threads = THREADS
    network.opt.use_fp16_packed = network.opt.use_fp16_storage = network.opt.use_fp16_arithmetic = False
    if network.load_param(str(folder / "model.ncnn.param")) or network.load_model(str(folder / "model.ncnn.bin")):
        raise RuntimeError("ncnn does not load what pnnx writes")

    def run_one(image: int) -> list[Tensor]:
        with network.create_extractor() as extractor:
            for name, tensor in zip(network.input_names(), inputs.values()):
                extractor.input(name, engine.Mat(np.ascontiguousarray(tensor[image])).clone())
            return [np.array(extracted(extractor, name)) for name in network.output_names()]

    images = range(min(len(tensor) for tensor in inputs.values()))
    return lambda: [np.stack(outputs) for outputs in zip(*map(run_one, images))]


def pnnx() -> Path:
    """Returns the path of the converter itself: the script of this name first imports PyTorch, which takes seconds."""
    package = importlib.util.find_spec("pnnx")
    if package is None or package.origin is None:
        raise RuntimeError("pnnx is not installed")
    return Path(package.origin).parent / "pnnx"


def extracted(extractor: Any, name: str) -> Any:
    code, found = extractor.extract(name)
    if code:
        raise RuntimeError(f"ncnn cannot extract {name}: {code}")
    return found


# onnx2tf tries networks that take images on samples, which it downloads unless the working folder has this file.
SAMPLE = "calibration_image_sample_data_20x128x128x3_float32.npy"


def onnx2tf(model: Path, inputs: Tensors) -> Run:
    """Loads what onnx2tf writes in LiteRT: its inputs have their channels last, and its outputs may."""
    from ai_edge_litert.interpreter import Interpreter
    folder = scratch()
    np.save(folder / SAMPLE, np.random.default_rng(0).random((20, 128, 128, 3), np.float32))
    shapes = [f"{name}:{','.join(map(str, tensor.shape))}" for name, tensor in inputs.items()]
    # onnx2tf simplifies its input file in place.
    copied = shutil.copy(model, folder / "model.onnx")
    command([program("onnx2tf"), "-i", copied, "-o", folder / "tf", "-ois", *shapes, "-n"], folder)
    interpreter = Interpreter(str(next(folder.glob("tf/*float32.tflite"))), num_threads=THREADS)
    given = {detail["index"]: np.moveaxis(tensor, 1, -1) if tensor.ndim > 2 else tensor
             for detail, tensor in zip(interpreter.get_input_details(), inputs.values())}
    for index, tensor in given.items():
        interpreter.resize_tensor_input(index, tensor.shape)
    interpreter.allocate_tensors()

    def run() -> list[Tensor]:
        for index, tensor in given.items():
            interpreter.set_tensor(index, tensor)
        interpreter.invoke()
        return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
    return run


def onnx2torch(model: Path, inputs: Tensors) -> Run:
    import torch
    from onnx2torch import convert
    torch.set_num_threads(THREADS)
    network = convert(str(model)).eval()
    given = [torch.from_numpy(tensor) for tensor in inputs.values()]

    def run() -> list[Tensor]:
        with torch.inference_mode():
            found = network(*given)
        return [y.numpy() for y in (found if isinstance(found, (list, tuple)) else [found])]
    return run


def tvm(model: Path, inputs: Tensors) -> Run:
    import onnx
    import tvm as engine
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx
    module = from_onnx(onnx.load(model), {name: list(tensor.shape) for name, tensor in inputs.items()})
    module = relax.transform.DecomposeOpsForInference()(module)
    machine = relax.VirtualMachine(engine.compile(module, "llvm"), engine.cpu())
    given = [engine.runtime.tensor(tensor) for tensor in inputs.values()]

    def run() -> list[Tensor]:
        found = machine["main"](*given)
        return [y.numpy() for y in ([found] if hasattr(found, "numpy") else found)]
    return run


def onnxsim(model: Path, inputs: Tensors) -> Run:
    return simplified("onnxsim", model, inputs)


def onnxslim(model: Path, inputs: Tensors) -> Run:
    return simplified("onnxslim", model, inputs)


def simplified(simplifier: str, model: Path, inputs: Tensors) -> Run:
    """Loads what a simplifier writes in ONNX Runtime."""
    result = scratch() / "model.onnx"
    simplify(simplifier, model, result)
    return session(result, inputs, optimize=True)


def simplify(simplifier: str, model: Path, result: Path) -> None:
    command([program(simplifier), model, result])
    if not result.exists():
        raise RuntimeError(f"{simplifier} writes nothing")


def scratch() -> Path:
    return Path(tempfile.mkdtemp(prefix="downstream"))


def program(name: str) -> Path:
    """Returns the path of a program of the environment in which this runs."""
    return Path(sys.prefix) / "bin" / name


def command(words: list[Any], folder: Path | None = None) -> None:
    """Runs a converter in a folder; if it fails, raises an error with the last line that it printed."""
    child = subprocess.run([str(word) for word in words], cwd=folder, capture_output=True, text=True)
    if child.returncode < 0:
        raise RuntimeError(f"{Path(words[0]).name} crashes with signal {-child.returncode}")
    if child.returncode:
        lines = (child.stdout + child.stderr).strip().splitlines() or [f"exit code {child.returncode}"]
        raise RuntimeError(lines[-1])


ENGINES = {function.__name__: function for function in (
    reference, onnxruntime, openvino, opencv, opencv_classic, mnn, ncnn, onnx2tf, onnx2torch, tvm, onnxsim, onnxslim)}
