"""A float and a quantized .tflite of one model in, the SNR of every operator's output out: where the error enters.

Both run without delegates in children of their own, every tensor kept; this process loads no model. Tensors are
matched by name: the quantizer keeps the float file's names and marks its conversions by a suffix.

Source: AI Edge's own comparison works the same way,
https://github.com/google-ai-edge/ai-edge-quantizer/blob/main/ai_edge_quantizer/model_validator.py
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeloop.bundle import Weight
from edgeloop.convert.samples import Samples
from edgeloop.errors import ModelError
from edgeloop.files.flatbuffer import Graph, Operator, Tensor, TfliteSignature, read_tflite
from edgeloop.runtime.client import agent
from edgeloop.runtime.device import Device, parse_device
from edgeloop.runtime.parity.compare import LIMIT_DB, snr_db
from edgeloop.runtime.parity.quantization import to_real, to_stored
from edgeloop.runtime_table import LITERT

SAMPLES = 2  # each sends every activation through a pipe: 27 MB for MobileNetV2-224, whose SNRs 8 moved by 0.3 dB
NUMBER = re.compile(r"_\d+$")
SUFFIX = re.compile(r"(_quantized|_requantized|_dequant)+$")
# Above 40 dB (1% of the amplitude) no operator is to blame for a variant below its floor; below 0 dB an output is all
# error, and what later operators make of that is not theirs.
BLAME_DB = (0.0, 40.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSnr:
    """The output `tensor` of one operator against the float model's, in the order of execution.

    Attributes:
        layer: The layer's path in the graph, as a tensor's name tells it: `block/conv2d`; empty where none does.
        snr_db: 10 log10(sum ref^2 / sum (ref - out)^2), between -200 and 200.
        input_snr_db: That of the operator's worst input; 200 where every input is exact.
    """

    tensor: str
    op: str
    layer: str
    snr_db: float
    input_snr_db: float

    @property
    def drop_db(self) -> float:
        """How much of the SNR this operator itself loses, 0 to 40."""
        before, after = (float(np.clip(value, *BLAME_DB)) for value in (self.input_snr_db, self.snr_db))
        return max(0.0, before - after)

    @property
    def text(self) -> str:
        """`CONV_2D stem/conv, 38.4 dB in, 0.6 dB out`."""
        before = "exact" if self.input_snr_db == LIMIT_DB else f"{self.input_snr_db:.1f} dB"
        return f"{self.op} {self.layer or self.tensor}, {before} in, {self.snr_db:.1f} dB out"


def layer_snr(
    float32: bytes,
    quantized: bytes,
    samples: Samples,
    signature: str,
    *,
    runtime: str = LITERT.name,
    device: Device | None = None,
    layers: Collection[str] = (),
    timeout_s: float = 120.0,
) -> list[LayerSnr]:
    """Compare two files of one model operator by operator on the first 2 of `samples`, float values.

    `quantized` runs on `runtime` of `device`, `float32` on LiteRT here. `layers` are the Keras model's own names, which
    tracing wrote into the file with a number behind each. Operators whose outputs have no float
    counterpart are left out, so files with no names in common give an empty list.

    Raises:
        ModelError: A flatbuffer is damaged or has no such signature.
        TargetError: A runtime refuses its file.
        DeviceError: A runtime died or did not answer in time.
    """
    (ours, graph), (theirs, reference) = _graph(quantized, signature), _graph(float32, signature)
    pairs = _pairs(graph, reference)
    if not pairs:
        return []
    noise, power = dict.fromkeys(pairs, 0.0), dict.fromkeys(pairs, 0.0)
    here = parse_device("local")
    with tempfile.TemporaryDirectory() as folder:
        for name, data in (("float.tflite", float32), ("quantized.tflite", quantized)):
            (Path(folder) / name).write_bytes(data)
        with (
            agent(here, LITERT.name, folder, timeout_s) as left,
            agent(device or here, runtime, folder, timeout_s) as right,
        ):
            left.prepare("float.tflite", keep=True)
            right.prepare("quantized.tflite", keep=True)
            fixed = (reference.tensors[next(iter(theirs.inputs.values()))].shape[:1] or (None,))[0]
            for batch in samples.take(SAMPLES).batches(fixed or 1, fill=fixed is not None):
                expected = left.tensors(batch, sorted(set(pairs.values())), theirs.graph, signature)
                given = {n: _stored(a, graph.tensors[ours.inputs[n]]) for n, a in batch.items()}
                got = right.tensors(given, sorted(pairs), ours.graph, signature)
                for index, twin in pairs.items():
                    n, p = _noise(expected[twin], _real(got[index], graph.tensors[index]))
                    noise[index] += n
                    power[index] += p
    numbered = _numbered(graph, frozenset(layers))
    snr = {index: _db(power[index], noise[index]) for index in pairs}
    return [_row(op, index, graph, snr, numbered) for op in graph.operators for index in op.outputs if index in pairs]


def layer_names(weights: Sequence[Weight]) -> frozenset[str]:
    """Names of the layers that the weights of a manifest belong to."""
    return frozenset(part for weight in weights for part in weight.keras_path.split("/")[:-1])


def worst(layers: Sequence[LayerSnr]) -> LayerSnr | None:
    """The operator that loses most of the SNR; where none loses any, the one with the lowest. None of none."""
    if not layers:
        return None
    if any(layer.drop_db for layer in layers):
        return max(layers, key=lambda layer: layer.drop_db)
    return min(layers, key=lambda layer: layer.snr_db)


def _graph(data: bytes, signature: str) -> tuple[TfliteSignature, Graph]:
    model = read_tflite(data)
    for found in model.signatures:
        if found.name == signature:
            return found, model.graphs[found.graph]
    raise ModelError(
        f"the .tflite has no signature {signature!r}", advice=f"It has: {[s.name for s in model.signatures]}."
    )


def _pairs(graph: Graph, reference: Graph) -> dict[int, int]:
    """Tensors that operators of `graph` write, to those of the float graph with their name."""
    written: dict[str, int] = {}
    for index in (*reference.inputs, *(i for op in reference.operators for i in op.outputs)):
        written.setdefault(reference.tensors[index].name, index)
    outputs = [index for op in graph.operators for index in op.outputs]
    names = {index: SUFFIX.sub("", graph.tensors[index].name) for index in outputs}
    return {index: written[name] for index, name in names.items() if name in written}


def _row(op: Operator, index: int, graph: Graph, snr: Mapping[int, float], numbered: bool) -> LayerSnr:
    before = [snr[i] for i in op.inputs if i in snr]
    scopes = _scopes([graph.tensors[i] for i in op.inputs if i not in snr], graph.tensors[index])
    return LayerSnr(
        tensor=graph.tensors[index].name,
        op=op.name,
        layer="/".join(NUMBER.sub("", scope) if numbered else scope for scope in scopes),
        snr_db=snr[index],
        input_snr_db=min(before, default=LIMIT_DB),
    )


def _scopes(kernels: Sequence[Tensor], output: Tensor) -> list[str]:
    """From `model/block/conv2d/Conv2D` the path between the model and the graph's own op.

    A kernel names its layer better than an output, which carries the names of all that was fused into it.
    """
    paths = [_path(tensor.name) for tensor in kernels if len(tensor.shape) > 1] + [_path(output.name)]
    return next((path for path in paths if path), [])


def _path(name: str) -> list[str]:
    return name.split(";")[0].split("/")[1:-1]


def _numbered(graph: Graph, layers: frozenset[str]) -> bool:
    """Whether TensorFlow put a number behind every scope, as it does tracing a Keras model: `conv2d_1` is `conv2d`."""
    scopes = {scope for tensor in graph.tensors for scope in _path(tensor.name)}
    return any(scope not in layers and NUMBER.sub("", scope) in layers for scope in scopes)


def _stored(values: np.ndarray, tensor: Tensor) -> np.ndarray:
    return to_stored(values, tensor.dtype, *_scale(tensor))


def _real(stored: np.ndarray, tensor: Tensor) -> np.ndarray:
    return to_real(stored, *_scale(tensor))


def _scale(tensor: Tensor) -> tuple[float, int]:
    """An activation has one scale; several, one a channel, are for constants alone (the int8 specification)."""
    return (tensor.scale[0], tensor.zero_point[0] if tensor.zero_point else 0) if len(tensor.scale) == 1 else (0.0, 0)


def _noise(reference: np.ndarray, value: np.ndarray) -> tuple[float, float]:
    r, v = reference.astype(np.float64), value.astype(np.float64)
    if r.shape != v.shape:
        return float(np.inf), 0.0
    return float(np.sum(np.square(r - v))), float(np.sum(np.square(r)))


def _db(power: float, noise: float) -> float:
    found = snr_db(power, noise if np.isfinite(noise) else float(np.finfo(np.float64).max))
    return LIMIT_DB if found is None else found
