"""The peers that scale the channels of a float model for its quantization: each reads a model and writes the result.

    python benches/equalize_with_peer.py PEER IN OUT

runs in an environment with the peer: requirements.txt for onnxsim, requirements-aimet.txt and requirements-quark.txt.
All are called with their defaults. None takes inputs.
"""

import os
import sys
from pathlib import Path

import onnx


def onnxsim(model):
    from onnxsim import cross_layer_equalize
    return cross_layer_equalize(model)


def aimet(model):
    from aimet_onnx.cross_layer_equalization import equalize_model
    equalize_model(model)
    return model


def quark(model):
    # When it is first imported, it compiles its operators, with the ninja of its environment.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    from quark.onnx.algorithm.interface import apply_CLE
    return apply_CLE(model, op_types_to_quantize=["Conv", "Gemm"])


PEERS = {peer.__name__: peer for peer in (onnxsim, aimet, quark)}

if __name__ == "__main__":
    peer, path, equalized = sys.argv[1:]
    onnx.save(PEERS[peer](onnx.load(path)), equalized)
