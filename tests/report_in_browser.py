#!/usr/bin/env python3
"""Opens reports of some fixtures in headless Chromium, and fails if a page requests
anything but itself, logs a message, is wider than the window, or holds an element
that reports never contain, as it would if it took a name in a model for markup.

    cargo build
    tests/report_in_browser.py target/debug/acb-fuse SCREENSHOTS

Needs Python, and Chromium as `chromium` or $CHROMIUM; no packages, but the largest report
is left out without `onnx`. Screenshots (light, dark, narrow, printed as PDF) go into the
folder SCREENSHOTS, for people to look at. Not part of `cargo test`.
"""

import base64
import fcntl
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
NETWORK = "fixtures/networks/cifar_quick/torchscript_kept_static.onnx"
RESNET = "fixtures/networks/resnet18/torchscript_kept_static.onnx"
BLOCK = "fixtures/blocks/k3/torchscript_kept.onnx"

# Name, model, further arguments (OUT stands for an output file), expected exit code.
CASES = [
    ("verified", NETWORK, ["OUT"], 0),
    ("resnet18", RESNET, ["OUT"], 0),
    ("looked", RESNET, [], 0),
    ("unverified", NETWORK, ["OUT", "--no-verify"], 0),
    ("failed", NETWORK, ["OUT", "--tolerance", "0"], 3),
    ("unreadable", "no/such/file.onnx", [], 8),
    ("near_miss", "fixtures/wrong_files/crop_wider_than_tensor/model.onnx", ["OUT"], 0),
    ("dbb", "fixtures/relatives/dbb/torchscript_folded_static.onnx", ["OUT"], 0),
    ("large_kernel", "fixtures/blocks/k11_stride4_small_arms/torchscript.onnx", ["OUT"], 0),
    ("one_axis", "fixtures/blocks/one_axis/torchscript_kept.onnx", ["OUT"], 0),
    ("not_run", "fixtures/training_mode/dropout_behind_a_block/model.onnx", ["OUT", "--training-mode", "keep"], 0),
]


class Browser:
    """A headless Chromium, controlled through a pipe by its DevTools protocol."""

    def __init__(self, folder):
        to_read, self.to = os.pipe()
        self.back, to_write = os.pipe()
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (to_read, to_write)]

        def wire():
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self.process = subprocess.Popen(
            [
                os.environ.get("CHROMIUM", "chromium"),
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--remote-debugging-pipe",
                f"--user-data-dir={folder}",
            ],
            preexec_fn=wire,
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for fd in (to_read, to_write, *high):
            os.close(fd)
        self.rest, self.last, self.events = b"", 0, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Network", "Log", "Runtime", "Page"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self.last += 1
        message = {"id": self.last, "method": method, "params": parameters}
        if hasattr(self, "session"):
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.message()
            if answer.get("id") == self.last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def message(self):
        while b"\0" not in self.rest:
            more = os.read(self.back, 1 << 20)
            if not more:
                raise RuntimeError("Chromium is gone")
            self.rest += more
        message, self.rest = self.rest.split(b"\0", 1)
        message = json.loads(message)
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, url):
        self.events = []
        self.call("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.message()

    def value(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return result["result"].get("value")

    def look(self, path, scheme, width):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        height = min(self.value("document.documentElement.scrollHeight"), 6000)
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def problems(self, url):
        found = []
        for event in self.events:
            parameters = event["params"]
            if event["method"] == "Network.requestWillBeSent":
                asked = parameters["request"]["url"]
                if asked != url:
                    found.append(f"asks for {asked}")
            elif event["method"] == "Log.entryAdded":
                found.append(parameters["entry"]["text"])
            elif event["method"] in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
                found.append(json.dumps(parameters))
        wide = self.value("document.documentElement.scrollWidth - innerWidth")
        if wide > 0:
            found.append(f"is {wide} px wider than the window")
        if self.value("document.querySelectorAll('script,img,iframe,link,object,embed').length"):
            found.append("holds an element that it never makes")
        return found


def hostile(folder):
    """Writes a model whose names are markup, of the same length as the names they replace, and returns its path."""
    content = (ROOT / BLOCK).read_bytes()
    for name, evil in [(b"square", b"<svg/>"), (b"horizontal", b"<img src=q")]:
        assert name in content and len(name) == len(evil)
        content = content.replace(name, evil)
    path = folder / "<b onclick=alert(1)>&.onnx"
    path.write_bytes(content)
    return path


def many_blocks(folder):
    """Writes a model of 10,000 ACBs in a row and returns its path, or None without the `onnx` package."""
    try:
        import numpy
        import onnx
        from onnx import helper, numpy_helper
    except ImportError:
        return None
    nodes, weights, value = [], [], "x"
    random = numpy.random.default_rng(0)
    for block in range(10_000):
        arms = []
        for name, taps in [("square", (3, 3)), ("hor", (1, 3)), ("ver", (3, 1))]:
            weight, out = f"layer{block}.{name}.weight", f"layer{block}.{name}"
            kernel = random.standard_normal((2, 2, *taps)).astype(numpy.float32) / 4
            weights.append(numpy_helper.from_array(kernel, weight))
            pads = [taps[0] // 2, taps[1] // 2] * 2
            nodes.append(helper.make_node("Conv", [value, weight], [out], out, pads=pads))
            arms.append(out)
        nodes.append(helper.make_node("Sum", arms, [f"sum{block}"]))
        nodes.append(helper.make_node("Tanh", [f"sum{block}"], [f"tanh{block}"]))
        value = f"tanh{block}"
    float32 = onnx.TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(n, float32, [1, 2, 8, 8]) for n in ("x", value)]
    graph = helper.make_graph(nodes, "many", ends[:1], ends[1:], weights)
    path = folder / "many.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def main():
    tool, shots = (pathlib.Path(argument).resolve() for argument in sys.argv[1:])
    shots.mkdir(parents=True, exist_ok=True)
    failed = False
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        folder = pathlib.Path(folder)
        cases = [*CASES, ("hostile", hostile(folder), ["OUT"], 0)]
        many = many_blocks(folder)
        if many:
            cases.append(("many", many, ["OUT", "--no-verify"], 0))
        else:
            print("many: left out, there is no package onnx")
        browser = Browser(folder / "profile")
        for name, model, arguments, code in cases:
            page, out = folder / f"{name}.html", folder / f"{name}.onnx"
            arguments = [str(out) if argument == "OUT" else argument for argument in arguments]
            command = [tool, model, *arguments, "--report", page, "--quiet"]
            done = subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL)
            assert done.returncode == code, (name, done.returncode)
            browser.open(page.as_uri())
            browser.look(shots / f"{name}.png", "light", 1000)
            problems = browser.problems(page.as_uri())
            if name in ("verified", "dbb"):
                browser.look(shots / f"{name}_dark.png", "dark", 1000)
                browser.look(shots / f"{name}_narrow.png", "light", 390)
                problems += browser.problems(page.as_uri())
                printed = browser.call("Page.printToPDF", printBackground=False, preferCSSPageSize=True)
                (shots / f"{name}.pdf").write_bytes(base64.b64decode(printed["data"]))
            size = page.stat().st_size // 1024
            print(f"{name}: {size} KiB, {'; '.join(problems) or 'ok'}")
            failed |= bool(problems)
        # Several models: their index, and the page that its first link leads to.
        index = folder / "index.html"
        models = [NETWORK, hostile(folder), "no/such/file.onnx", "fixtures/networks/cifar_quick/plain.onnx"]
        command = [tool, "--out-dir", folder / "out", *models, "--report", index, "--quiet"]
        done = subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        assert done.returncode == 8, ("index", done.returncode)
        for name, width in [("index", 1000), ("index_narrow", 390)]:
            browser.open(index.as_uri())
            browser.look(shots / f"{name}.png", "light", width)
            problems = browser.problems(index.as_uri())
            print(f"{name}: {'; '.join(problems) or 'ok'}")
            failed |= bool(problems)
        link = browser.value("document.querySelector('td a').href")
        browser.open(link)
        problems = browser.problems(link)
        if browser.value("document.querySelector('h1').textContent") != NETWORK:
            problems.append("the index leads to another page")
        print(f"page of the index: {'; '.join(problems) or 'ok'}")
        failed |= bool(problems)
        browser.process.terminate()
        browser.process.wait()
    sys.exit(failed)


if __name__ == "__main__":
    main()
