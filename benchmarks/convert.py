"""Every form of a model: edgeloop against the raw converters called one after another.

    python benchmarks/convert.py [--repetitions 5] [--models resnet8,mobilenetv2]      writes benchmarks/results.json

resnet8       MLPerf Tiny's image classifier (.h5 below $EDGELOOP_DATA), 500 calibration samples of 32x32x3
mobilenetv2   MobileNetV2 at 224x224 with random weights (seed 0) and logits, 100 calibration samples

tflite   what a process spends on .tflite files after importing and loading: six from edgeloop's functions over five
         from TFLiteConverter (float32, float16, dynamic, int8, int16x8), which traces and calibrates for each
whole    CPU of whole processes: `edgeloop convert` into six .tflite, ONNX, int8 ONNX and TF.js, without proof, over
         three commands: those five conversions; tf2onnx; tensorflowjs from a SavedModel. `proved`: with its proof

A repetition runs every contender once, one after another; the ratio is taken within a repetition. CPU seconds, user and
system, of a process and its children (wait4).
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
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as edgeloop's worker has it
RESULTS = Path(__file__).with_name("results.json")
TIMEOUT_S = 900.0
SCHEMES = "float32,float16,dynamic,int8,int16x8"
EDGELOOP = ["-m", "edgeloop", "convert", "--schemes", SCHEMES, "--io", "float32,int8", "--no-cache", "--calibration"]


def raw_tflite(model: Any, samples: Any, out: Path) -> None:
    """The five schemes as the converter's guide has them, each from the Keras model."""
    import tensorflow as tf

    def convert(name: str, **settings: Any) -> None:
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        for key, value in settings.items():
            if key in ("supported_ops", "supported_types"):
                setattr(converter.target_spec, key, value)
            else:
                setattr(converter, key, value)
        (out / f"{name}.tflite").write_bytes(converter.convert())

    def representative() -> Any:
        for sample in samples:
            yield [sample[None]]

    default, ops = [tf.lite.Optimize.DEFAULT], tf.lite.OpsSet
    convert("float32")
    convert("float16", optimizations=default, supported_types=[tf.float16])
    convert("dynamic", optimizations=default)
    static = {"optimizations": default, "representative_dataset": representative}
    convert("int8", **static, supported_ops=[ops.TFLITE_BUILTINS_INT8])
    wide = [ops.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8]
    convert("int16x8", **static, supported_ops=wide)


def raw_onnx(model: Any, samples: Any, out: Path) -> None:
    import tensorflow as tf
    import tf2onnx

    specs = [tf.TensorSpec([None, *t.shape[1:]], t.dtype, name=t.name) for t in model.inputs]
    call = tf.function(lambda x: model(x, training=False), input_signature=specs)
    tf2onnx.convert.from_function(call, input_signature=specs, opset=18, output_path=str(out / "model.onnx"))


def raw_tfjs(model: Any, samples: Any, out: Path) -> None:
    from edgeloop.convert.forms.tfjs import load_converter  # tensorflowjs itself does not import beside TensorFlow 2.21

    converter = load_converter()
    model.export(str(out / "saved_model"), verbose=False)
    converter.convert_tf_saved_model(str(out / "saved_model"), str(out / "tfjs"))


def our_tflite(model: Any, samples: Any, out: Path) -> None:
    """The six files by the functions that `edgeloop convert` calls."""
    from edgeloop.bundle import Scheme
    from edgeloop.convert.forms import freeze, tflite
    from edgeloop.convert.options import MEASURED
    from edgeloop.convert.samples import Samples
    from edgeloop.convert.sources.source import functional, keras_source

    source = keras_source(out / "model.keras", functional(model))
    float32 = tflite.lower(freeze.freeze(source).functional, source)
    ranges = tflite.calibrate(float32, source, Samples(inputs={source.inputs[0].name: samples}))
    for scheme in map(Scheme, SCHEMES.split(",")):
        for io in tflite.Io if scheme is Scheme.INT8 else (tflite.Io.FLOAT32,):
            integers = tflite.to_integers(float32, scheme, ranges, io=io) if scheme in MEASURED else None
            data = integers.data if integers else tflite.quantize(float32, scheme, ranges, io=io)
            (out / f"{scheme.value}-{io.value}.tflite").write_bytes(data)


CHILDREN = {f.__name__: f for f in (raw_tflite, raw_onnx, raw_tfjs, our_tflite)}


def our_whole(model: Path, calibration: Path, out: Path) -> None:
    """All that `edgeloop convert` does up to the proof: its worker, which imports, loads and makes every form."""
    from edgeloop.bundle import Scheme
    from edgeloop.convert.build import ConversionJob
    from edgeloop.convert.convert import WORKER
    from edgeloop.convert.forms.recipes import Io
    from edgeloop.convert.options import ConvertOptions
    from edgeloop.convert.plan import WRITABLE
    from edgeloop.processes.job import run_job

    schemes = tuple(map(Scheme, SCHEMES.split(",")))
    options = ConvertOptions(schemes=schemes, io=tuple(Io), calibration=calibration)
    origin = {"file": model.name, "format": "keras", "sha256": ""}
    for folder in ("b", "scratch"):
        (out / folder).mkdir()
    job = ConversionJob(
        model=model,
        origin=origin,
        options=options,
        formats=WRITABLE,
        folder=out / "b",
        scratch=out / "scratch",
        out=out / "bundle",
    )
    run_job(WORKER, job, options.limits)


def child(what: str, model: Path, calibration: Path, out: Path) -> None:
    """One contender in this process; prints the CPU seconds after import and load."""
    if what == "our_whole":
        our_whole(model, calibration, out)
        return
    import keras
    import numpy as np

    if what == "our_tflite":
        import ai_edge_quantizer.quantizer  # noqa: F401  (imports are not what this figure is about)
    loaded, samples = keras.models.load_model(model, compile=False), np.load(calibration)["x"]
    start = time.process_time()
    CHILDREN[what](loaded, samples, out)
    print(json.dumps({"after_load_cpu_s": time.process_time() - start}))


def run(command: list[str]) -> tuple[float, str]:
    """CPU seconds of a process with all its children, and what it printed last on stdout."""
    with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryFile("w+") as log:
        started = subprocess.Popen(command, stdout=printed, stderr=log)
        deadline = time.monotonic() + TIMEOUT_S
        try:
            while (done := os.wait4(started.pid, os.WNOHANG))[0] == 0:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{command[:3]} did not end within {TIMEOUT_S:g} s")
                time.sleep(0.02)
        finally:
            started.kill() if started.returncode is None and done[0] == 0 else None
        started.returncode = os.waitstatus_to_exitcode(done[1])
        printed.seek(0)
        log.seek(0)
        if started.returncode:
            raise RuntimeError(f"{command[:4]} ended with {started.returncode}: {log.read()[-2000:]}")
        lines = printed.read().strip().splitlines()
        return done[2].ru_utime + done[2].ru_stime, lines[-1] if lines else ""


def repetition(model: Path, calibration: Path) -> dict[str, float]:
    """CPU seconds of every contender, one after another."""
    spent = {}
    for name in CHILDREN:
        with tempfile.TemporaryDirectory() as out:
            spent[name], last = run([sys.executable, __file__, "--child", name, str(model), str(calibration), out])
            spent[f"{name}_after_load"] = json.loads(last)["after_load_cpu_s"]
    files = [str(model), str(calibration)]
    with tempfile.TemporaryDirectory() as out:
        spent["our_whole"], _ = run([sys.executable, __file__, "--child", "our_whole", *files, out])
        spent["our_proved"], _ = run([sys.executable, *EDGELOOP, *reversed(files), "-o", f"{out}/b"])
    return spent


def figures(runs: list[dict[str, float]]) -> dict[str, Any]:
    """Ratios with their spread, and the CPU seconds behind them (medians)."""
    import numpy as np

    def raw(r: dict[str, float]) -> float:
        return r["raw_tflite"] + r["raw_onnx"] + r["raw_tfjs"]

    ratios = {
        "tflite_after_load": [r["our_tflite_after_load"] / r["raw_tflite_after_load"] for r in runs],
        "whole": [r["our_whole"] / raw(r) for r in runs],
        "whole_proved": [r["our_proved"] / raw(r) for r in runs],
    }
    spread = {
        n: dict(zip(("min", "p50", "max"), np.percentile(v, [0, 50, 100]), strict=True)) for n, v in ratios.items()
    }
    return {
        "ratio": {n: {k: round(float(x), 4) for k, x in v.items()} for n, v in spread.items()},
        "cpu_p50_s": {name: round(float(np.median([r[name] for r in runs])), 2) for name in runs[0]},
        "repetitions": len(runs),
    }


def prepare(name: str, folder: Path) -> tuple[Path, Path]:
    """The model file and its calibration data."""
    import numpy as np

    rng = np.random.default_rng(0)
    calibration = folder / f"{name}.npz"
    if name == "resnet8":
        model = folder / "resnet8.h5"
        shutil.copyfile(Path(os.environ["EDGELOOP_DATA"]) / "models" / "mlperf_tiny_ic" / "pretrainedResnet.h5", model)
        np.savez(calibration, x=crops(photographs(Path(os.environ["EDGELOOP_DATA"]) / "data" / "images"), 500, 32))
    else:
        import keras

        keras.utils.set_random_seed(0)
        model = folder / "mobilenetv2.keras"
        network = keras.applications.MobileNetV2(weights=None, classifier_activation=None)
        samples = rng.random((100, 224, 224, 3), np.float32) * 2 - 1
        # Batch norms that have seen data, and logits: a net as it was made answers 1e-12 everywhere, which no proof of
        # an int8 file can tell from nothing.
        norms = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
        for norm in norms:
            norm.momentum = 0.0
        network(samples[:16], training=True)
        network.save(model)
        np.savez(calibration, x=samples)
    return model, calibration


def photographs(folder: Path) -> list[Any]:
    """uint8 [height, width, 3] of every 24-bit .bmp in `folder`, whose rows go bottom up, blue first."""
    import numpy as np

    photos = []
    for file in sorted(folder.glob("*.bmp")):
        data = file.read_bytes()
        start, width, height = (int.from_bytes(data[i : i + 4], "little") for i in (10, 18, 22))
        row = (width * 3 + 3) // 4 * 4
        pixels = np.frombuffer(data, np.uint8, row * height, start).reshape(height, row)[::-1, : width * 3]
        photos.append(pixels.reshape(height, width, 3)[..., ::-1])
    return photos


def crops(photos: list[Any], count: int, size: int, seed: int = 0) -> Any:
    """float32 [count, size, size, 3] in 0..255: squares of every scale from the photographs."""
    import numpy as np

    rng = np.random.default_rng(seed)
    squares = []
    for i in range(count):
        photo = photos[i % len(photos)]
        # every other one as it is, else the mean of blocks of pixels, as a camera far away has it
        step = 1 if i // len(photos) % 2 == 0 else int(rng.integers(2, min(photo.shape[:2]) // size + 1))
        top, left = (int(rng.integers(0, n - size * step + 1)) for n in photo.shape[:2])
        square = photo[top : top + size * step, left : left + size * step]
        squares.append(square.reshape(size, step, size, step, 3).mean((1, 3)))
    return np.stack(squares).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--models", default="resnet8,mobilenetv2")
    parser.add_argument("--child", nargs=4, metavar=("WHAT", "MODEL", "CALIBRATION", "OUT"))
    asked = parser.parse_args()
    if asked.child:
        child(asked.child[0], *map(Path, asked.child[1:]))
        return
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    measured = results.setdefault("convert", {})
    measured["host"] = {"machine": platform.machine(), "python": platform.python_version(), "cpus": os.cpu_count()}
    for name in asked.models.split(","):
        if name == "resnet8" and "EDGELOOP_DATA" not in os.environ:
            print("resnet8 is left out: EDGELOOP_DATA names no folder with it", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as folder:
            files = prepare(name, Path(folder))
            runs = []
            for i in range(asked.repetitions):
                runs.append(repetition(*files))
                print(f"{name} {i + 1}/{asked.repetitions}: {runs[-1]}", file=sys.stderr, flush=True)
        measured[name] = figures(runs)
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    json.dump(measured, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
