"""Tests examples/convert_on_ray.py on a Ray cluster of two nodes, on this machine.

    python tests/python/ray_example.py

Needs an environment of its own (tests/ray_example.sh makes one): during the tests, the tool in it is replaced by one
that fails as machines do.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory

from ray.cluster_utils import Cluster

import acb_fuse

ROOT = Path(__file__).parents[2]
NETWORKS = ROOT / "fixtures/networks"
RETRIES = 2

# Logs its calls, fails as the name of its last argument demands, and otherwise runs the tool.
FAILING_TOOL = """#!/bin/sh
for output; do :; done
name=$(basename "$(dirname "$output")")
echo "$name" >> {state}/calls
case $name in
disk_fails_once) mkdir {state}/disk 2> /dev/null && trap '' XFSZ && ulimit -f 0 ;;
disk_is_full) trap '' XFSZ && ulimit -f 0 ;;
worker_dies_once) mkdir {state}/worker 2> /dev/null && kill -KILL $PPID ;;
esac
exec {tool} "$@"
"""


class OnACluster(unittest.TestCase):
    def setUp(self) -> None:
        # The path has to be short, since Ray's sockets are below it.
        folder = TemporaryDirectory(prefix="acb")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.models, self.results, self.state = (self.folder / name for name in ("models", "results", "state"))
        self.state.mkdir()
        self.make_the_tool_fail()
        self.cluster = start_cluster(self.folder / "ray")
        self.addCleanup(self.cluster.shutdown)

    def make_the_tool_fail(self) -> None:
        installed = acb_fuse.find_binary()
        tool = self.state / "acb-fuse"
        shutil.move(installed, tool)
        self.addCleanup(shutil.move, tool, installed)
        installed.write_text(FAILING_TOOL.format(state=self.state, tool=tool))
        installed.chmod(0o755)

    def add(self, name: str, source: Path | None) -> None:
        path = self.models / name / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes(source.read_bytes() if source else b"not a model")

    def run_example(self) -> tuple[int, list[str]]:
        """Runs the example; returns its exit code and its lines, of which the last is the summary."""
        command = [sys.executable, ROOT / "examples/convert_on_ray.py", self.models, self.results, "--cpus=1",
                   f"--address={self.cluster.address}", f"--retries={RETRIES}", '--options={"require_run": true}']
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, cwd=self.folder, timeout=300)
        print(done.stdout)
        return done.returncode, done.stdout.splitlines()

    def report(self, name: str) -> dict[str, object]:
        return json.loads((self.results / name / "model.onnx.report.json").read_text())

    def test_machines_that_fail(self) -> None:
        acnet = NETWORKS / "cifar_quick/torchscript_kept_static.onnx"
        self.add("acnet", acnet)
        self.add("deep/resnet", NETWORKS / "resnet18/torchscript_kept_static.onnx")
        self.add("plain", NETWORKS / "cifar_quick/plain.onnx")
        self.add("disk_fails_once", acnet)
        self.add("worker_dies_once", acnet)
        self.add("broken", None)
        self.add("disk_is_full", acnet)

        exit_code, lines = self.run_example()

        self.assertEqual(exit_code, 1)
        outcomes = {line.split()[1].removesuffix("/model.onnx"): line.split()[0] for line in lines[:-1]}
        fused = dict.fromkeys(("acnet", "deep/resnet", "disk_fails_once", "worker_dies_once"), "fused")
        failed = dict.fromkeys(("broken", "disk_is_full"), "failed")
        self.assertEqual(outcomes, {**fused, "plain": "unchanged", **failed})
        self.assertEqual(lines[-1], "7 models: 2 failed, 4 fused, 1 unchanged")

        expected = acb_fuse.fuse(acnet.read_bytes()).model
        for name in ("acnet", "disk_fails_once", "worker_dies_once"):
            self.assertEqual((self.results / name / "model.onnx").read_bytes(), expected)
        for name in fused:
            self.assertEqual(self.report(name)["outcome"], "written")
        for name in failed:
            self.assertEqual(self.report(name)["outcome"], "failed")
            self.assertFalse((self.results / name / "model.onnx").exists())

        calls = (self.state / "calls").read_text().splitlines()
        for name, times in {"acnet": 1, "broken": 1, "disk_fails_once": 2, "worker_dies_once": 2,
                            "disk_is_full": 1 + RETRIES}.items():
            self.assertEqual(calls.count(name), times, name)

        for name in failed:
            shutil.rmtree(self.models / name)
        exit_code, lines = self.run_example()
        self.assertEqual((exit_code, lines[-1]), (0, "5 models: 4 fused, 1 unchanged"))


def start_cluster(folder: Path) -> Cluster:
    """Starts a cluster of two nodes with one processor each."""
    folder.mkdir()
    os.environ.update(RAY_TMPDIR=str(folder), RAY_USAGE_STATS_ENABLED="0")
    node = {"num_cpus": 1, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    cluster.add_node(**node)
    cluster.wait_for_nodes()
    return cluster


if __name__ == "__main__":
    unittest.main()
