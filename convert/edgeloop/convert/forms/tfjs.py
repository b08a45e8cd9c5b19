"""A frozen graph in, a TF.js graph model folder out, through tensorflowjs."""

from __future__ import annotations

import contextlib
import enum
import io
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeloop.bundle import TensorSpec
from edgeloop.convert.forms.freeze import FrozenGraph
from edgeloop.convert.forms.graph_nodes import change_advice
from edgeloop.convert.forms.tfjs_graph import for_tfjs, unfuse_tensors
from edgeloop.convert.forms.tfjs_loops import bring_into_loops
from edgeloop.convert.forms.tfjs_stubs import check_tensorflowjs, load_converter
from edgeloop.convert.sources.source import Source
from edgeloop.errors import ModelError, OptionsError, one_line


class Weights(enum.Enum):
    """How weights are stored; TF.js computes with float32 whatever they are."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    UINT8 = "uint8"


@dataclass(frozen=True, slots=True, kw_only=True)
class TfjsOptions:
    """How to write a graph model.

    Attributes:
        shard_bytes: Weights go into files of this size, the last one smaller.
    """

    weights: Weights = Weights.FLOAT32
    shard_bytes: int = 4 << 20

    def __post_init__(self) -> None:
        if self.shard_bytes < 1:
            raise OptionsError(f"shard_bytes is {self.shard_bytes}", advice="It must be 1 or more.")


def to_tfjs(frozen: FrozenGraph, source: Source, folder: Path, options: TfjsOptions = TfjsOptions()) -> None:
    """Write model.json and its shards into `folder`, with the source's signature.

    Raises:
        ModelError: tensorflowjs refuses the graph.
        MissingExtra: tensorflowjs is not installed.
    """
    converter = load_converter()
    quantized = {} if options.weights is Weights.FLOAT32 else {options.weights.value: True}
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(io.StringIO()):
        graph = Path(scratch) / "frozen.pb"
        graph.write_bytes(for_tfjs(frozen).SerializeToString(deterministic=True))
        try:
            converter.convert_tf_frozen_model(
                str(graph),
                ",".join(name.split(":")[0] for name in frozen.outputs),
                str(folder),
                quantization_dtype_map=quantized,
                weight_shard_size_bytes=options.shard_bytes,
            )
        except Exception as e:  # it raises ValueError, KeyError and TensorFlow's own
            raise ModelError(
                f"it cannot be converted to TF.js: {one_line(e)}",
                advice=change_advice(frozen.graph),
                where=str(source.path),
            ) from e
    _finish(folder / "model.json", frozen, source)


def _finish(path: Path, frozen: FrozenGraph, source: Source) -> None:
    """Sorted keys (protobuf maps come in any order) and the names that people know the tensors by."""
    model = json.loads(path.read_text())
    unfuse_tensors(model["modelTopology"])
    bring_into_loops(model["modelTopology"])
    model["signature"] = {
        "inputs": _tensors(source.inputs, frozen.inputs),
        "outputs": _tensors(source.outputs, frozen.outputs),
    }
    path.write_text(json.dumps(model, sort_keys=True, separators=(",", ":")))


def _tensors(specs: Sequence[TensorSpec], names: Sequence[str]) -> dict[str, Any]:
    return {
        spec.name: {
            "name": name,
            "dtype": f"DT_{'FLOAT' if spec.dtype == 'float32' else spec.dtype.upper()}",
            "tensorShape": {"dim": [{"size": str(-1 if d is None else d)} for d in spec.shape]},
        }
        for spec, name in zip(specs, names, strict=True)
    }


__all__ = ["TfjsOptions", "Weights", "check_tensorflowjs", "load_converter", "to_tfjs"]
