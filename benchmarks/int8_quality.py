"""How far int8 is from its source: edgeloop beside the raw quantizers, on photographs outside calibration.

    python benchmarks/int8_quality.py [--calibrations 3] [--samples 1000]       writes benchmarks/results.json

MLPerf Tiny's ResNet8 (.h5 below $EDGELOOP_DATA), calibrated on 500 crops of the two photographs there, once for each
choice of crops; judged on other crops of them and on crops of two photographs that no calibration saw (scikit-learn's).
Of each: top-1 agreement with the .h5, and output SNR in dB, 10 log10(sum ref^2 / sum (ref - out)^2).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from convert import RESULTS, crops, photographs

CROP, CALIBRATION_CROPS = 32, 500
EVALUATION_SEED = 1000  # calibrations have the seeds from 0


def tflite_converter(model: Any, samples: Any) -> bytes:
    """Full-integer kernels with float ends, as the converter's guide has it."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample[None]] for sample in samples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return converter.convert()


def ai_edge_quantizer(model: Any, samples: Any) -> bytes:
    """Its own static recipe, as it comes, on the float32 file of TFLiteConverter."""
    import tensorflow as tf
    from ai_edge_quantizer import quantizer, recipe

    float32 = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float32.tflite"
        path.write_bytes(float32)
        work = quantizer.Quantizer(str(path), recipe.static_wi8_ai8())
        key = next(iter(tf.lite.Interpreter(model_content=float32).get_signature_list()))
        name = next(iter(tf.lite.Interpreter(model_content=float32).get_signature_runner(key).get_input_details()))
        ranges = work.calibrate({key: [{name: sample[None]} for sample in samples]})
        return bytes(work.quantize(ranges).quantized_model)


def edgeloop(model: Any, samples: Any) -> bytes:
    """The functions that `edgeloop convert` calls."""
    from edgeloop.bundle import Scheme
    from edgeloop.convert.forms import freeze, tflite
    from edgeloop.convert.samples import Samples
    from edgeloop.convert.sources.source import functional, keras_source

    source = keras_source(Path("model.keras"), functional(model))
    float32 = tflite.lower(freeze.freeze(source).functional, source)
    ranges = tflite.calibrate(float32, source, Samples(inputs={source.inputs[0].name: samples}))
    return tflite.to_integers(float32, Scheme.INT8, ranges).data


CONTENDERS = {f.__name__: f for f in (tflite_converter, ai_edge_quantizer, edgeloop)}


def answers(data: bytes, images: Any) -> Any:
    """float32 [n, classes] of a .tflite in LiteRT, one image at a time; a file may have integer ends."""
    from ai_edge_litert.interpreter import Interpreter

    from edgeloop.bundle import Quantization
    from edgeloop.runtime.parity.quantization import from_io, to_io

    interpreter = Interpreter(model_content=data)
    run = interpreter.get_signature_runner(next(iter(interpreter.get_signature_list())))
    ends = {**run.get_input_details(), **run.get_output_details()}
    io = {n: Quantization(np.dtype(d["dtype"]).name, *d["quantization"]) for n, d in ends.items()}
    (name,) = run.get_input_details()
    return np.concatenate([next(iter(from_io(run(**to_io({name: image[None]}, io)), io).values())) for image in images])


def judged(reference: Any, got: Any) -> dict[str, float]:
    power = 10 * np.log10((reference**2).sum() / ((reference - got) ** 2).sum())
    agreement = (reference.argmax(1) == got.argmax(1)).mean()
    return {"agreement": round(float(agreement), 4), "snr_db": round(float(power), 2)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calibrations", type=int, default=3)
    parser.add_argument("--samples", type=int, default=1000)
    asked = parser.parse_args()
    if "EDGELOOP_DATA" not in os.environ:
        print("int8_quality is left out: EDGELOOP_DATA names no folder with the model", file=sys.stderr)
        return
    import keras
    from sklearn.datasets import load_sample_images

    data = Path(os.environ["EDGELOOP_DATA"])
    model = keras.models.load_model(data / "models" / "mlperf_tiny_ic" / "pretrainedResnet.h5", compile=False)
    ours = photographs(data / "data" / "images")
    held = {"same photographs": ours, "two others": list(load_sample_images().images)}
    sets = {name: crops(photos, asked.samples, CROP, EVALUATION_SEED) for name, photos in held.items()}
    references = {name: model.predict(images, verbose=0) for name, images in sets.items()}
    rows = []
    for seed in range(asked.calibrations):
        samples = crops(ours, CALIBRATION_CROPS, CROP, seed)
        for name, quantize in CONTENDERS.items():
            file = quantize(model, samples)
            for held_name, images in sets.items():
                row = {"tool": name, "calibration": seed, "on": held_name, "bytes": len(file)}
                rows.append({**row, **judged(references[held_name], answers(file, images))})
                print(rows[-1], file=sys.stderr, flush=True)
    means = {
        name: {
            held_name: {
                figure: round(float(np.mean([r[figure] for r in rows if (r["tool"], r["on"]) == (name, held_name)])), 4)
                for figure in ("agreement", "snr_db")
            }
            for held_name in sets
        }
        for name in CONTENDERS
    }
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    host = {"machine": platform.machine(), "python": platform.python_version()}
    results["int8_quality"] = {"host": host, "model": "resnet8", "samples": asked.samples, "means": means, "rows": rows}
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    json.dump(means, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
