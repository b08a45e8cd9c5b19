"""A .tflite that edgeloop makes of an .onnx file, beside that of onnx2tf: time of a call, and TRANSPOSE operators.

    python benchmarks/onnx_import.py --onnx2tf PYTHON [FILE.onnx ...]       writes benchmarks/results.json

PYTHON is the interpreter of an environment with onnx2tf (`uv venv E; uv pip install --python E/bin/python onnx2tf`);
without it nothing is measured. Three nets with random weights are made here; FILEs, whose inputs must have sizes, are
measured beside them. Both files of a net run in LiteRT, float32, one thread, in one process, in blocks that alternate.
Both files take and give what the .onnx does: onnx2tf is told to keep the order of axes (-kat), as ours does by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import numpy as np

RESULTS = Path(__file__).with_name("results.json")
PAIRS, BLOCK_S = 60, 0.05
LIMIT_S = 600.0


def nets(folder: Path) -> list[Path]:
    import onnx
    from onnx_exports import detector, mobile_net, residual

    blocks = ((24, 2), (24, 1), (32, 2), (32, 1), (64, 2), (64, 1), (96, 1), (96, 1))
    made = {"residual": residual(56, 32, 4, 1), "mobile_net": mobile_net(192, blocks), "detector": detector(80, 32, 1)}
    for name, (model, _) in made.items():
        for value in model.graph.input:
            value.type.tensor_type.shape.dim[0].dim_value = 1
        onnx.save(model, folder / f"{name}.onnx")
    return [folder / f"{name}.onnx" for name in made]


def ours(path: Path, folder: Path) -> Path:
    from edgeloop.bundle import Format, Scheme
    from edgeloop.convert.convert import convert
    from edgeloop.convert.options import ConvertOptions

    convert(path, folder, ConvertOptions(to=(Format.TFLITE,), schemes=(Scheme.FLOAT32,), cache=False))
    return folder / "float32.tflite"


def theirs(python: Path, path: Path, folder: Path) -> Path:
    import onnx

    path = Path(shutil.copy(path, folder.with_suffix(".onnx")))  # onnx2tf overwrites the file that it is given
    graph = onnx.load(path, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in constants]
    command = [python, "-m", "onnx2tf", "-i", path, "-o", folder, "-kat", *inputs]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    files = sorted(folder.glob("*_float32.tflite"))
    if not files:
        raise SystemExit(f"onnx2tf writes no file for {path}: {(done.stdout + done.stderr)[-500:]}")
    return files[0]


def caller(path: Path) -> Any:
    """A function that runs the file once, on the same values in its own order of axes."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    for detail in interpreter.get_input_details():
        interpreter.resize_tensor_input(detail["index"], [max(1, size) for size in detail["shape_signature"]])
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        values = np.random.default_rng(0).random(detail["shape"]).astype(detail["dtype"])
        interpreter.set_tensor(detail["index"], values)
    return interpreter.invoke


def transposes(path: Path) -> int:
    from edgeloop.files.flatbuffer import read_tflite

    graphs = read_tflite(path.read_bytes(), str(path)).graphs
    return Counter(operator.name for graph in graphs for operator in graph.operators)["TRANSPOSE"]


def measured(files: dict[str, Path]) -> dict[str, Any]:
    """CPU milliseconds of a call, and the ratio of ours to theirs over alternating blocks."""
    calls = {name: caller(path) for name, path in files.items()}
    counts = {name: rounds(call) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for pair in range(PAIRS):
        for name in sorted(calls, reverse=bool(pair % 2)):
            start = time.process_time()
            for _ in range(counts[name]):
                calls[name]()
            times[name].append((time.process_time() - start) / counts[name] * 1e3)
    ratios = np.array(times["ours"]) / np.array(times["theirs"])
    low, middle, high = (round(float(p), 3) for p in np.percentile(ratios, [25, 50, 75]))
    return {
        "cpu_p50_ms": {name: round(float(np.median(values)), 3) for name, values in times.items()},
        "ratio": {"p25": low, "p50": middle, "p75": high},
        "transposes": {name: transposes(path) for name, path in files.items()},
        "bytes": {name: path.stat().st_size for name, path in files.items()},
    }


def rounds(call: Any) -> int:
    """Calls of a block; warms up."""
    for _ in range(3):
        call()
    start = time.process_time()
    call()
    return max(1, int(BLOCK_S / (time.process_time() - start)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--onnx2tf", type=Path, metavar="PYTHON")
    parser.add_argument("files", nargs="*", type=Path)
    arguments = parser.parse_args()
    if arguments.onnx2tf is None:
        print("onnx_import: left out. Pass --onnx2tf PYTHON, the interpreter of an environment with onnx2tf.")
        return
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in [*nets(Path(folder)), *arguments.files]:
            place = Path(folder) / f"of-{len(found)}"
            files = {"ours": ours(path, place / "ours"), "theirs": theirs(arguments.onnx2tf, path, place / "theirs")}
            found[path.stem] = measured(files)
            print(path.stem, json.dumps(found[path.stem]), flush=True)
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    version = [arguments.onnx2tf, "-c", "from importlib.metadata import version; print(version('onnx2tf'))"]
    results["onnx_import"] = {
        "what": f"CPU of a call, LiteRT, float32, one thread: ours over theirs, {PAIRS} pairs of blocks of {BLOCK_S} s",
        "host": {"machine": platform.machine(), "cpus": os.cpu_count(), "python": platform.python_version()},
        "onnx2tf": subprocess.run(version, capture_output=True, text=True, check=True).stdout.strip(),
        "nets": found,
    }
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
