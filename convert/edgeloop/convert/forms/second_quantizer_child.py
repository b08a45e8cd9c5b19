"""Run as a program by `second_quantizer.py`: TFLiteConverter's quantizer on one flatbuffer with ranges."""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.bundle import Scheme
from edgeloop.convert.forms.recipes import Io
from edgeloop.convert.forms.second_quantizer import ADVICE, NAME, SecondQuantizerJob
from edgeloop.errors import ModelError, one_line
from edgeloop.extras import need
from edgeloop.processes.job_child import Events, serve


def work(job: SecondQuantizerJob, events: Events) -> dict[str, Any]:
    _load_libraries_alone()
    events.read()
    make = _int8 if job.scheme is Scheme.INT8 else _int16x8
    try:
        data = make(job)
    except (RuntimeError, ValueError) as e:  # each of the two raises its own
        raise ModelError(f"the quantizer of {NAME} fails on the model ({one_line(e, 200)})", advice=ADVICE) from e
    job.out.write_bytes(data)
    return {}


def _load_libraries_alone() -> None:
    """Let `import tensorflow.x.y` find its modules without running tensorflow/__init__.py, which takes 4 seconds."""
    found = importlib.util.find_spec("tensorflow")
    assert found is not None and found.origin is not None  # whoever starts this has lowered a graph with it
    package = types.ModuleType("tensorflow")
    package.__path__ = [str(Path(found.origin).parent)]
    sys.modules["tensorflow"] = package
    need("tensorflow.python.pywrap_tensorflow", extra="convert")


def _int8(job: SecondQuantizerJob) -> bytes:
    quantizer = need("tensorflow.compiler.mlir.lite.python._pywrap_converter_api", extra="convert")
    types_ = need("tensorflow.compiler.mlir.lite.types_pb2", extra="convert")
    ends = types_.INT8 if job.io is Io.INT8 else types_.FLOAT
    data = quantizer.ExperimentalMlirQuantizeModel(
        job.float32,
        False,  # scales per tensor
        False,  # quantize the ends too: `ends` says it
        types_.QUANTIZED_INT8,
        ends,
        ends,
        False,  # verify each operator
        False,  # verify the whole model
        None,  # operators to leave out
        None,  # layers to leave out
        False,  # quantize variables
        False,  # scales per tensor in dense layers
        "",
    )
    return bytes(data)


def _int16x8(job: SecondQuantizerJob) -> bytes:
    quantizer = need("tensorflow.lite.python.optimize._pywrap_tensorflow_lite_calibration_wrapper", extra="convert")
    number = {name: np.dtype(name).num for name in ("float32", "int16", "int64")}
    ends = number["float32"]
    model = quantizer.CalibrationWrapper(job.float32, [], [])
    # no operator may stay in float; scales per channel, in dense layers too
    data = model.QuantizeModel(ends, ends, False, number["int16"], number["int64"], False, False)
    return bytes(data)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    serve(work)
