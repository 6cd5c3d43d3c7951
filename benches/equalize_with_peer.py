"""Equalizes the channels of a float model for quantization by one of the peers that can, and writes the result.

    python benches/equalize_with_peer.py PEER IN OUT

runs in an environment with the peer: requirements.txt for onnxsim, requirements-aimet.txt and requirements-quark.txt
for the others. All are called with their defaults. None of them takes calibration inputs.
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
    # On its first import, Quark compiles its operators, with the ninja of its environment.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    from quark.onnx.algorithm.interface import apply_CLE
    return apply_CLE(model, op_types_to_quantize=["Conv", "Gemm"])


PEERS = {peer.__name__: peer for peer in (onnxsim, aimet, quark)}

if __name__ == "__main__":
    peer, path, equalized = sys.argv[1:]
    onnx.save(PEERS[peer](onnx.load(path)), equalized)
