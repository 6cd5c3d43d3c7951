"""Runs a peer without a usable command line: each reads a model, optimises it and writes the result.

    python benches/peers.py PEER IN OUT [--external-data]

With --external-data, the weights of the result go into one file beside it.
"""

import sys
from pathlib import Path


def onnxoptimizer(path, optimised, external_data):
    """Runs all passes that fuse or eliminate, as its command line does by default."""
    import onnx
    import onnxoptimizer
    model = onnxoptimizer.optimize(onnx.load(path), onnxoptimizer.get_fuse_and_elimination_passes())
    onnx.save(model, optimised, save_as_external_data=external_data, location=beside(optimised))


def onnxscript(path, optimised, external_data):
    import onnx_ir
    from onnxscript.optimizer import optimize
    model = optimize(onnx_ir.load(path))
    onnx_ir.save(model, optimised, external_data=beside(optimised) if external_data else None)


def onnxruntime(path, optimised, external_data):
    """Optimises offline at the highest level whose result is not bound to this machine's instruction set."""
    from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions
    options = SessionOptions()
    options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = optimised
    if external_data:
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", beside(optimised))
    InferenceSession(path, options, providers=["CPUExecutionProvider"])


def beside(path):
    return f"{Path(path).name}.data"


PEERS = {peer.__name__: peer for peer in (onnxoptimizer, onnxscript, onnxruntime)}

if __name__ == "__main__":
    peer, path, optimised, *flags = sys.argv[1:]
    PEERS[peer](path, optimised, "--external-data" in flags)
