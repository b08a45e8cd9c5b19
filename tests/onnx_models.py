"""ONNX models made in a test, imported, converted with LiteRT's builtins, run there and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FEWER_BITS = ("float16", "bfloat16")


def make_model(
    nodes: Sequence[Any],
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    constants: Mapping[str, np.ndarray] | None = None,
    opset: int = 17,
    **more: Any,
) -> Any:
    """A ModelProto. A tensor is described by its shape (float32), by (shape, type), or by None: neither is said."""
    import onnx

    def values(specs: Mapping[str, Any]) -> list[Any]:
        made = []
        for name, spec in specs.items():
            shape, kind = spec if isinstance(spec, tuple) else (spec, onnx.TensorProto.FLOAT)
            info = onnx.helper.make_tensor_value_info(name, kind, shape)
            made.append(onnx.ValueInfoProto(name=name) if spec is None else info)
        return made

    tensors = [onnx.numpy_helper.from_array(np.asarray(a), name) for name, a in (constants or {}).items()]
    graph = onnx.helper.make_graph(list(nodes), "g", values(inputs), values(outputs), tensors)
    opsets = [onnx.helper.make_opsetid("", opset), *more.pop("opset_imports", [])]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10, **more)


def answers(model: Any, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """ONNX Runtime's; `model` is a ModelProto, or the path of a file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    given = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def to_tflite(model: Any, sizes: Mapping[str, Sequence[int | None]] | None = None) -> bytes:
    """With builtins alone. Raises Unsupported for what the importer refuses."""
    import tensorflow as tf

    from edgeloop.convert.onnx.importer import import_onnx

    module = tf.Module()  # without one the file has no signature
    module.serve = import_onnx(model, sizes).traced()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.serve], module)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    return converter.convert()


def run_tflite(data: bytes, feeds: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs in ONNX's order; `feeds` too."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=data, num_threads=1).get_signature_runner()
    names = runner.get_input_details()  # one that nothing depends on may be gone
    found = runner(**{name: feeds[int(name.removeprefix("input_"))] for name in names})
    return [found[name] for name in sorted(found, key=lambda name: int(name.removeprefix("output_")))]


def check(
    model: Any,
    feeds: Mapping[str, np.ndarray],
    expected: Sequence[np.ndarray] | None = None,
    sizes: Mapping[str, Sequence[int | None]] | None = None,
    tolerance: float = 1e-4,
) -> bytes:
    """The .tflite answers as ONNX Runtime does, or as `expected`; its bytes.

    Shapes and types are the same, whole numbers exactly; floats within `tolerance` of the largest value (0.002 where
    ONNX computes in 16 bits: half a step of float16 is 0.0005 of a value, and a few of them add up).
    """
    expected = answers(model, feeds) if expected is None else expected
    data = to_tflite(model, sizes)
    found = run_tflite(data, [feeds[v.name] for v in model.graph.input if v.name in feeds])
    assert len(found) == len(expected)
    for i, (e, f) in enumerate(zip(expected, found, strict=True)):
        e = np.asarray(e)
        assert (f.shape, f.dtype) == (e.shape, e.dtype), (i, f.shape, f.dtype, e.shape, e.dtype)
        bound = (2e-3 if e.dtype.name in FEWER_BITS else tolerance) if e.dtype.kind in "fV" else 0
        assert difference(e, f) <= bound, (i, difference(e, f))
    return data


def difference(expected: np.ndarray, found: np.ndarray) -> float:
    """The largest error, in parts of the largest value; infinite where one alone is infinite or no number."""
    e, f = expected.astype(np.float64).ravel(), found.astype(np.float64).ravel()
    usual = np.isfinite(e) & np.isfinite(f)
    if not np.array_equal(e[~usual], f[~usual], equal_nan=True):
        return float("inf")
    e, f = e[usual], f[usual]
    return float(np.abs(e - f).max() / max(np.abs(e).max(), 1e-6)) if e.size else 0.0
