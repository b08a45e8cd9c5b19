"""A float32 .tflite and ranges in, what TFLiteConverter's own quantizer makes of them out.

It has rules for operators that ai-edge-quantizer leaves in float. It works in a child process: a net that it does not
understand ends the process that it runs in. The child loads it without the rest of TensorFlow, in 0.4 CPU seconds.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeloop.bundle import Scheme
from edgeloop.convert.forms.flatbuffer_tree import read_tree, write_tree
from edgeloop.convert.forms.recipes import Io
from edgeloop.errors import ModelError
from edgeloop.extras import need
from edgeloop.processes.job import run_job
from edgeloop.processes.sandbox import Limits

NAME = "TFLiteConverter"
CHILD = ("-m", "edgeloop.convert.forms.second_quantizer_child")
LIMITS = Limits(read_s=120.0)  # of work too: it never says that it has read the model
ADVICE = "Use another scheme, such as dynamic."
Ranges = Mapping[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondQuantizerJob:
    """`float32` is a flatbuffer whose tensors carry their ranges; the child writes the result to `out`."""

    float32: bytes
    out: Path
    scheme: Scheme
    io: Io


def quantize_otherwise(float32: bytes, ranges: Ranges, scheme: Scheme, io: Io) -> bytes:
    """`float32` in int8 or int16x8; operators without an integer kernel stay in float, but those of int16x8 may not.

    Raises:
        ModelError: The quantizer refuses the model, or ended its process.
    """
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "quantized.tflite"
        job = SecondQuantizerJob(float32=_ranged(float32, ranges), out=out, scheme=scheme, io=io)
        run_job(CHILD, job, LIMITS, python=sys.executable)
        if not out.is_file():
            raise ModelError(f"the quantizer of {NAME} wrote nothing", advice=ADVICE)
        return out.read_bytes()


def _ranged(float32: bytes, ranges: Ranges) -> bytes:
    schema = need("ai_edge_litert.schema_py_generated", extra="convert")
    tree = read_tree(float32)
    for graph in tree.subgraphs:
        for tensor in graph.tensors:
            both = ranges.get(tensor.name.decode()) if tensor.type == schema.TensorType.FLOAT32 else None
            if both is not None:
                tensor.quantization = schema.QuantizationParametersT(
                    min=np.ravel(both["min"]).astype(np.float32), max=np.ravel(both["max"]).astype(np.float32)
                )
    return write_tree(tree)
