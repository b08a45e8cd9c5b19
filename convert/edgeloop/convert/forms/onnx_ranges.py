"""A float32 ONNX graph and samples in, what spans its values, and the mean input of its weights, out.

Minima, maxima and means are computed inside the graph, so that a run answers three numbers a value: ONNX Runtime's own
calibration keeps those of every batch, and takes twice the time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from edgeloop.convert.forms.onnx_graph import OnnxGraph
from edgeloop.convert.samples import Samples
from edgeloop.extras import need

BATCH, BATCH_BYTES = 16, 1 << 20  # a calibration batch: as many samples, but no more bytes
ENDS = ("ReduceMin", "ReduceMax")


def measure(
    graph: OnnxGraph, samples: Samples, fixed: int | None, values: Collection[str], means: Mapping[str, int]
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, np.ndarray]]:
    """{value: (least, largest)}, float32 [], of `values`; and {value: mean of each channel}, float64, of `means`, which
    says of each its axis of channels.

    Args:
        fixed: The model's own batch, where it is not free.
    """
    onnxruntime = need("onnxruntime", extra="convert")
    if not values:
        return {}, {}
    outputs, model = _watching(graph, values, means)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = 1  # two take twice the CPU of one to wait for each other
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    sample_bytes = sum(array[:1].nbytes for array in samples.inputs.values())
    size = samples.at_once(fixed or max(1, min(BATCH, BATCH_BYTES // sample_bytes)))
    ranges: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    sums: dict[str, np.ndarray] = {}
    count = 0
    for batch in samples.batches(size, fill=fixed is not None):
        found = dict(zip(outputs, session.run(list(outputs), batch), strict=True))
        count += size
        for name in values:
            least, most = (found[f"{name}/{end}"] for end in ENDS)
            if least.size:  # a detector may keep nothing of an image
                low, high = ranges.get(name, (np.float32(np.inf), np.float32(-np.inf)))
                ranges[name] = np.asarray(min(low, least.min())), np.asarray(max(high, most.max()))
        for name in means:
            sums[name] = sums.get(name, 0) + size * found[f"{name}/ReduceMean"].astype(np.float64)
    return ranges, {name: total / count for name, total in sums.items()}


def _watching(graph: OnnxGraph, values: Collection[str], means: Mapping[str, int]) -> tuple[list[str], bytes]:
    """The graph with an output for each of what is measured, and their names."""
    onnx = need("onnx", extra="convert")
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    version = max(opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx"))
    wanted: list[tuple[str, Any, tuple[int, ...] | None]] = [(end, n, None) for n in values for end in ENDS]
    for name, axis in means.items():
        wanted.append(("ReduceMean", name, tuple(i for i in range(graph.ranks[name]) if i != axis)))
    outputs = []
    for kind, name, axes in wanted:
        out, given = f"{name}/{kind}", [name]
        options: dict[str, Any] = {"keepdims": 1 if axes is None else 0}
        if axes is not None and version >= 18:
            given.append(f"{out}/axes")
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(axes, np.int64), given[1]))
        elif axes is not None:
            options["axes"] = axes
        model.graph.node.append(onnx.helper.make_node(kind, given, [out], name=out, **options))
        model.graph.output.append(onnx.helper.make_tensor_value_info(out, onnx.TensorProto.FLOAT, None))
        outputs.append(out)
    return outputs, model.SerializeToString()
