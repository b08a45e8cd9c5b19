"""What the page costs beside the bare engine, and what the browser costs beside native. Ratios of one interleaved run.

    python benchmarks/browser.py [--only overhead,native,start,size]       writes benchmarks/results.json

Models: the digits CNN, and MobileNetV2 at 96x96 with random weights (seed 0); both in float32 and int8, as .tflite,
ONNX and TF.js, converted here. Headless Chromium, cross-origin isolated, one thread.

overhead  the fastest run of a block as the page times it over that of the tightest loop around LiteRT.js's own `run`,
          with the same copies, on a page that holds nothing else; blocks of both pages in turns
start     from navigation to the first answer that agrees with the source model: our page over that bare one
native    the page's own race: medians over those of the same variant on its runtime in Python; seconds of a race
size      gzip bytes of the page's own files, without engines
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import http.server
import json
import os
import platform
import socketserver
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

RESULTS = Path(__file__).with_name("results.json")
TIMEOUT_S = 900.0
PAIRS, BLOCK_S, FEWEST = 20, 0.15, 25  # pairs of blocks of the page and the bare engine; calls of a block
STARTS = 7
RACES = 3
MODELS = ("mobilenetv2", "digits")
READY = "body[data-state=ready]"
RACED = "#race-copy:not([disabled])"
ENGINE_FILES = ("litert", "tfjs", "ort", "licenses")  # beginnings of the names of what belongs to engines


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    found = dict(zip(("min", "p25", "p50", "p75"), np.percentile(values, [0, 25, 50, 75]), strict=True))
    return {name: round(float(value), digits) for name, value in found.items()}


# Models


def child_models(folder: Path) -> None:
    """Bundles mobilenetv2/ and digits/ in `folder`."""
    import keras
    from sklearn.datasets import load_digits

    from edgeloop.bundle import Format, Scheme
    from edgeloop.convert.convert import convert
    from edgeloop.convert.options import ConvertOptions

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    wide = rng.random((32, 96, 96, 3), np.float32) * 2 - 1
    network = keras.applications.MobileNetV2((96, 96, 3), weights=None, classifier_activation=None)
    for layer in network.layers:  # He's initialization: Keras's own lets activations vanish, and int8 with them
        kernel = getattr(layer, "kernel", None)
        if kernel is not None and len(kernel.shape) == 4:
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            fan_in = np.prod(kernel.shape[:2] if depthwise else kernel.shape[:3])
            kernel.assign(rng.normal(0, (2 / fan_in) ** 0.5, kernel.shape))
    images = (load_digits().images[..., None] / 16).astype("float32")
    labels = load_digits().target
    layers = keras.layers
    digits = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax", name="probabilities"),
        ]
    )
    digits.compile("adam", "sparse_categorical_crossentropy")
    digits.fit(images[:1400], labels[:1400], epochs=10, verbose=0)
    for name, model, samples in (("mobilenetv2", network, wide), ("digits", digits, images[:200])):
        model.save(folder / f"{name}.keras")
        np.savez(folder / f"{name}.npz", x=samples)
        options = ConvertOptions(
            calibration=folder / f"{name}.npz",
            to=(Format.TFLITE, Format.ONNX, Format.TFJS),
            schemes=(Scheme.FLOAT32, Scheme.INT8),
        )
        convert(folder / f"{name}.keras", folder / name, options)


# The bare engine: a page that holds LiteRT.js, one model and nothing else

BARE = """<!doctype html><meta charset="utf-8"><p>LiteRT.js</p><script type="importmap">
{"imports": {"@litertjs/wasm-utils": "/modules/@litertjs/wasm-utils/dist/index.js"}}</script><script type="module">
import { Tensor, loadAndCompile, loadLiteRt } from "/modules/@litertjs/core/dist/index.js";
const { shape, expected, tolerance } = await (await fetch("/reference.json")).json();
const x = new Float32Array(await (await fetch("/input.f32")).arrayBuffer());
await loadLiteRt("/modules/@litertjs/core/wasm/", { threads: false });
const model = await loadAndCompile("/model.tflite", { accelerator: "wasm" });
const once = async () => {
  const given = new Tensor(x, shape);
  const [result] = await model.run([given]);
  const values = Float32Array.from(result.toTypedArray());
  given.delete();
  result.delete();
  return values;
};
window.block = async (runs) => {
  const times = [];
  for (let i = 0; i < runs; i++) {
    const start = performance.now();
    await once();
    times.push(performance.now() - start);
  }
  return times;
};
const values = await once();
const off = Math.max(...expected.map((value, i) => Math.abs(value - values[i])));
document.body.dataset.state = off <= tolerance ? "ready" : "wrong";
</script>"""


def with_batch_of_one(model: bytes) -> bytes:
    """LiteRT.js by itself reads a free dimension as -1 and refuses every input; Model.subgraphs is field 2,
    SubGraph.tensors 0, Tensor.shape 0, Tensor.shape_signature 7."""
    from edgeloop.files.flatbuffer_table import FlatbufferTable

    reader, fixed = FlatbufferTable(model, {}), bytearray(model)

    def tables(at: int, slot: int) -> Iterator[int]:
        where = reader.field(at, slot)
        start, count = reader.vector(where, 4) if where is not None else (0, 0)
        yield from (reader.follow(start + 4 * i) for i in range(count))

    for graph in tables(reader.follow(0), 2):
        for tensor in tables(graph, 0):
            shape, signature = reader.field(tensor, 0), reader.field(tensor, 7)
            if shape is None or signature is None:
                continue
            (to, count), (of, signed) = reader.vector(signature, 4), reader.vector(shape, 4)
            if count == signed:
                fixed[to : to + 4 * count] = model[of : of + 4 * count]
    return bytes(fixed)


@contextlib.contextmanager
def bare_page(bundle: Path, file: str, tolerance: float) -> Iterator[str]:
    """The address of the bare page with this .tflite and the bundle's first reference input."""
    modules = Path(__file__).parent.parent / "browser" / "web" / "node_modules"
    reference = np.load(bundle / "reference.npz")
    x, y = (next(reference[name] for name in reference.files if name.startswith(side)) for side in ("in/", "out/"))
    answers = {
        "/": ("text/html; charset=utf-8", BARE.encode()),
        "/model.tflite": ("application/octet-stream", with_batch_of_one((bundle / file).read_bytes())),
        "/input.f32": ("application/octet-stream", np.ascontiguousarray(x[:1], "<f4").tobytes()),
        "/reference.json": (
            "application/json",
            json.dumps(
                {"shape": [1, *x.shape[1:]], "expected": y[0].ravel().tolist(), "tolerance": tolerance}
            ).encode(),
        ),
    }
    types = {".js": "text/javascript", ".wasm": "application/wasm"}

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = modules / self.path.removeprefix("/modules/")
            kind, body = answers.get(self.path, ("", b""))
            if not kind and self.path.startswith("/modules/@litertjs/") and path.is_file():
                kind, body = types.get(path.suffix, "application/octet-stream"), path.read_bytes()
            self.send_response(200 if kind else 404)
            headers = {
                "Content-Type": kind or "text/plain",
                "Content-Length": str(len(body)),
                "Cross-Origin-Opener-Policy": "same-origin",
                "Cross-Origin-Embedder-Policy": "require-corp",
            }
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            """The terminal belongs to the benchmark."""

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()


# Sections: each takes Chromium, a bundle and its name


def overhead(browser: Any, bundle: Path) -> dict[str, Any]:
    """The fastest run of a block over that of the bare engine: other programs only ever add to a run."""
    from edgeloop.browser.agent import _plain
    from edgeloop.browser.server import serve

    found = {}
    reference = np.load(bundle / "reference.npz")
    name = next(key for key in reference.files if key.startswith("in/"))
    inputs = {name.removeprefix("in/"): _plain(reference[name][:1].astype("float32"))}
    for scheme, tolerance in (("float32", 1e-4), ("int8", 1.0)):
        with bare_page(bundle, f"{scheme}.tflite", tolerance) as address, serve(bundle, mounts={}) as served:
            ours, bare = browser.new_page(), browser.new_page()
            ours.goto(served.url + "?threads=1#engine")
            ours.evaluate("file => edgeloop.openFile('litertjs-wasm', file, 1)", f"{scheme}.tflite")
            bare.goto(address)
            bare.wait_for_selector(READY)
            calls = max(FEWEST, int(1e3 * BLOCK_S / statistics.median(bare.evaluate("() => block(20)"))))
            ours_ms, bare_ms = [], []

            def measured(calls: int = calls, page: Any = ours) -> float:
                answer = page.evaluate("([inputs, runs]) => edgeloop.measure(inputs, 2, runs)", [inputs, calls])
                return min(answer["wall_ms"])

            def bare_measured(calls: int = calls, page: Any = bare) -> float:
                return min(page.evaluate("runs => block(runs)", calls))

            measured(), bare_measured()
            for k in range(PAIRS):
                pair = [measured(), bare_measured()] if k % 2 else [bare_measured(), measured()][::-1]
                ours_ms.append(pair[0])
                bare_ms.append(pair[1])
            ours.close()
            bare.close()
        found[scheme] = {
            **spread(np.divide(ours_ms, bare_ms)),
            "of_the_fastest": round(min(ours_ms) / min(bare_ms), 4),
            "bare_fastest_ms": round(min(bare_ms), 4),
            "calls_a_block": calls,
        }
    return {**found, "pairs": PAIRS}


def start(browser: Any, bundle: Path) -> dict[str, Any]:
    """Seconds from navigation to the first answer that agrees with the source model, caches empty."""
    from edgeloop.browser.server import serve

    seconds: dict[str, list[float]] = {"ours": [], "bare": []}
    with bare_page(bundle, "float32.tflite", 1e-4) as address, serve(bundle) as served:
        for k in range(STARTS + 1):  # the first fills the disk's cache
            for name, url, mark in (("ours", served.url, "#badge.good"), ("bare", address, READY)):
                context = browser.new_context()
                page = context.new_page()
                began = time.monotonic()
                page.goto(url, wait_until="commit")
                page.wait_for_selector(mark)
                if k:
                    seconds[name].append(time.monotonic() - began)
                context.close()
    ratios = [a / b for a, b in zip(seconds["ours"], seconds["bare"], strict=True)]
    return {**spread(ratios), "bare_p50_s": round(statistics.median(seconds["bare"]), 3), "starts": STARTS}


def races(browser: Any, bundle: Path) -> dict[str, Any]:
    """What the page's own race says, several times: medians over native, and how long it took."""
    from edgeloop.browser.server import serve

    documents = []
    with serve(bundle) as served:
        page = browser.new_page()
        page.goto(served.url + "#race")
        page.wait_for_selector(READY)
        page.wait_for_selector("#race-start")
        for _ in range(RACES):
            page.click("#race-start")
            page.wait_for_selector("#race-stop:not([disabled])")
            page.wait_for_selector(RACED, timeout=90_000)
            documents.append(json.loads(page.input_value("#race-json")))
        page.close()
    rows: dict[str, list[dict[str, Any]]] = {}
    for document in documents:
        for row in document["race"]:
            rows.setdefault(f"{row['variant']} on {row['engine']}", []).append(row)
    over = {
        name: spread([row["over_native"] for row in found], 2)
        for name, found in rows.items()
        if all("over_native" in row for row in found)
    }
    fastest = {
        name: min(row["min_ms"] for row in found) for name, found in rows.items() if all("min_ms" in r for r in found)
    }
    natively = {name: ms for name, ms in fastest.items() if name.endswith(" on native")}
    of_the_fastest = {
        name: round(ms / natively[f"{name.split(' on ')[0]} on native"], 2)
        for name, ms in fastest.items()
        if name not in natively and f"{name.split(' on ')[0]} on native" in natively
    }
    failed = {name: row["error"] for name, found in rows.items() for row in found if "error" in row}
    wrong = [
        name for name, found in rows.items() if any(not row.get("parity", {"passed": True})["passed"] for row in found)
    ]
    took = [document["duration_s"] for document in documents]
    return {
        "over_native": over,
        "of_the_fastest": of_the_fastest,
        "contenders": len(rows),
        "engines": len({row["engine"] for row in documents[0]["race"]} - {"native"}),
        "race_s": spread(took, 1),
        "ended": [document["end"] for document in documents],
        "failed": failed,
        "wrong": wrong,
        "median_ms": {
            name: round(statistics.median(r["median_ms"] for r in found), 4)
            for name, found in rows.items()
            if name not in failed
        },
        "memory_mb": {
            name: round(found[-1]["heap_bytes"] / 1e6, 1) for name, found in rows.items() if "heap_bytes" in found[-1]
        },
        "races": RACES,
    }


def size() -> dict[str, Any]:
    """Gzip kilobytes (10^3 bytes) of what index.html leads to, up to the files of engines."""
    from edgeloop.browser.assets import PAGE

    # what the build packed is there as NAME.gz or NAME.br alone
    files = {path.name.removesuffix(".gz"): path for path in PAGE.parent.rglob("*") if path.suffix != ".br"}
    files = {name: path for name, path in files.items() if name.endswith((".html", ".js", ".css", ".svg"))}
    text = {name: _unpacked(path).decode() for name, path in files.items()}
    seen: set[str] = set()
    waiting = [PAGE.name]
    while waiting:
        name = waiting.pop()
        if name in seen or name.startswith(ENGINE_FILES):
            continue
        seen.add(name)
        waiting += [other for other in files if name.endswith((".html", ".js")) and other in text[name]]
    packed = {name: len(gzip.compress(text[name].encode(), 9)) for name in sorted(seen)}
    first = sum(size for name, size in packed.items() if name == PAGE.name or name in text[PAGE.name])
    return {
        "own_gzip_kb": round(sum(packed.values()) / 1e3, 1),
        "first_paint_gzip_kb": round(first / 1e3, 1),
        "files": len(packed),
    }


def _unpacked(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--only",
        default="overhead,native,start,size",
        metavar="NAMES",
        help="Measure these sections, separated by commas; native holds the races.",
    )
    parser.add_argument("--models", metavar="DIR", help="Keep the converted models here, and take them from here.")
    parser.add_argument("--child", metavar="DIR")
    asked = parser.parse_args()
    if asked.child:
        child_models(Path(asked.child))
        return
    wanted = asked.only.split(",")
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    measured = results.setdefault("browser", {})
    with contextlib.ExitStack() as stack:
        folder = Path(asked.models or stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(exist_ok=True)
        if not (folder / "digits").is_dir():
            subprocess.run([sys.executable, __file__, "--child", folder], check=True, timeout=TIMEOUT_S)
        from playwright.sync_api import sync_playwright

        from edgeloop.browser.chromium import FLAGS, find_chromium

        driver = stack.enter_context(sync_playwright())
        flags = [*FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        browser = driver.chromium.launch(executable_path=str(find_chromium()), args=flags)
        stack.callback(browser.close)
        host = {"machine": platform.machine(), "python": platform.python_version(), "cpus": os.cpu_count()}
        measured["host"] = {**host, "chromium": browser.version}
        if "size" in wanted:
            measured["size"] = size()
        for section, measure in (("overhead", overhead), ("start", start), ("native", races)):
            for name in MODELS if section in wanted else ():
                found = {"load_before": round(os.getloadavg()[0], 1), **measure(browser, folder / name)}
                measured.setdefault(section, {})[name] = found
                print(f"{section} {name}: {json.dumps(found)}", file=sys.stderr, flush=True)
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    json.dump(measured, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
