"""Support for the tests of the Python package: models, a temporary folder, and skips for missing packages."""

from __future__ import annotations

import hashlib
import importlib.util
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory

SOURCE = Path(__file__).resolve().parents[2]
FIXTURES = SOURCE / "fixtures"
ACNET = FIXTURES / "networks/cifar_quick/torchscript_kept_static.onnx"
PLAIN = FIXTURES / "networks/cifar_quick/plain.onnx"
NOT_RUN = FIXTURES / "bad_input/near_misses/nan_weight.onnx"
BESIDE = FIXTURES / "blocks/weights_beside/model.onnx"
BROKEN = FIXTURES / "bad_input/errors/empty.onnx"
BLOCKS = 3


class Test(unittest.TestCase):
    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.output = self.folder / "out.onnx"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def needs(*packages: str) -> object:
    """Skips a test where one of these packages is not installed."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return unittest.skipIf(bool(missing), f"{', '.join(missing)} not installed")
