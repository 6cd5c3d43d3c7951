"""Prints how many nodes of each operator a model has, as JSON.

    python benches/operators.py MODEL
"""

import json
import sys
from collections import Counter

import onnx


def operators(path):
    return Counter(node.op_type for node in onnx.load(path, load_external_data=False).graph.node)


if __name__ == "__main__":
    print(json.dumps(operators(sys.argv[1])))
