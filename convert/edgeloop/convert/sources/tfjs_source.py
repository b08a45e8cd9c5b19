"""A TF.js graph model or layers model as a source: model.json with its weight files beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.convert.sources.identify import SourceKind, source_digest
from edgeloop.convert.sources.names import arguments, identifiers
from edgeloop.convert.sources.source_value import INFER, Arrays, Shape, Source, tensor_specs
from edgeloop.convert.sources.tfjs_files import read_model, read_weights
from edgeloop.convert.sources.tfjs_graph import graph_def
from edgeloop.convert.sources.tfjs_layers import layers_model
from edgeloop.errors import ModelError, one_line
from edgeloop.extras import need

Ends = dict[str, str]  # name to tensor, as "x:0"
SIDES = ("inputs", "outputs")


def open_tfjs(path: Path, signature: str | None, allow_unsafe: bool = False) -> Source:
    """Load a model that `safety.check` has looked at.

    Args:
        allow_unsafe: Changes nothing here; every opener takes it.

    Raises:
        ModelError: TensorFlow or Keras cannot load it, or it keeps a table.
    """
    if signature not in (None, INFER):
        raise ModelError(
            f"{path} is a TF.js model, whose only signature is {INFER!r}; --signature is {signature!r}",
            advice="Leave --signature out.",
        )
    model = read_model(path)
    weights = read_weights(path, model)
    try:
        source = _graph_model(path, model, weights) if _is_graph(model) else layers_model(path, model, weights)
    except ModelError:
        raise
    except Exception as e:  # of TensorFlow, Keras and protobuf: each means that the model cannot be loaded
        raise ModelError(
            f"{path} cannot be loaded ({type(e).__name__}: {one_line(e)})",
            advice="Convert the model to TF.js again, or convert the model it was made from.",
        ) from e
    return replace(source, path=path, kind=SourceKind.TFJS, sha256=source_digest(path))


def _is_graph(model: Mapping[str, Any]) -> bool:
    return "node" in model["modelTopology"]


def _graph_model(path: Path, model: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> Source:
    tf = need("tensorflow", extra="convert")
    # its fused convolutions end the process with a fault of TensorFlow 2.21 on BlazeFace
    tf.config.optimizer.set_experimental_options({"remapping": False})
    if model.get("modelInitializer"):
        raise ModelError(
            f"{path} keeps a lookup table, and stateful models are not converted",
            advice="Look words up before the model.",
        )
    definition = graph_def(model["modelTopology"], weights)
    ends = _ends(model, definition)
    given, answers = (list(side.values()) for side in ends)
    wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(definition, name=""), []).prune(given, answers)
    in_names, out_names = arguments(list(ends[0])), identifiers(list(ends[1]))
    # a loop of TensorFlow 1 cannot be traced into a function; a call of one that holds it can
    loops = any(node.op == "Enter" for node in definition.node)

    def graph(**tensors: Any) -> list[Any]:
        values = [tensors[name] for name in in_names]
        if loops:
            return list(wrapped(*values))
        fed = dict(zip(given, values, strict=True))
        return list(tf.import_graph_def(definition, input_map=fed, return_elements=answers, name=""))

    def call(arrays: Arrays) -> dict[str, np.ndarray]:
        values = wrapped(*(tf.convert_to_tensor(arrays[name]) for name in in_names))
        return dict(zip(out_names, (np.asarray(v) for v in values), strict=True))

    sides = [
        [(_shape(model, side, key, t), t.dtype.name) for key, t in zip(names, tensors, strict=True)]
        for side, names, tensors in zip(SIDES, ends, (wrapped.inputs, wrapped.outputs), strict=True)
    ]
    return Source(
        path=path,
        kind=SourceKind.TFJS,
        sha256="",
        signature=INFER,
        inputs=tensor_specs(in_names, sides[0]),
        outputs=tensor_specs(out_names, sides[1]),
        call=call,
        graph=graph,
    )


def _ends(model: Mapping[str, Any], definition: Any) -> tuple[Ends, Ends]:
    """Inputs and outputs by the signature; without one, the placeholders, and what nothing else reads."""
    signature = _signature(model)
    placeholders = {node.name: f"{node.name}:0" for node in definition.node if node.op == "Placeholder"}
    read = {name.lstrip("^").split(":")[0] for node in definition.node for name in node.input}
    last = {node.name: f"{node.name}:0" for node in definition.node if node.name not in read and node.op != "Const"}
    sides = [
        {key: _tensor(entry["name"]) for key, entry in sorted((signature.get(side) or {}).items())} or own
        for side, own in zip(SIDES, (placeholders, last), strict=True)
    ]
    return sides[0], sides[1]


def _tensor(name: str) -> str:
    return name if ":" in name else f"{name}:0"


def _signature(model: Mapping[str, Any]) -> Mapping[str, Any]:
    return model.get("signature") or (model.get("userDefinedMetadata") or {}).get("signature") or {}


def _shape(model: Mapping[str, Any], side: str, key: str, tensor: Any) -> Shape:
    """What the graph says, and what it leaves free as the signature says it."""
    entry = (_signature(model).get(side) or {}).get(key) or {}
    shape = entry.get("tensorShape")
    said: Shape | None = None
    if shape is not None and not shape.get("unknownRank"):
        sizes = [int(d.get("size", -1)) for d in shape.get("dim", ())]
        said = tuple(None if size < 0 else size for size in sizes)
    if tensor.shape.rank is None:
        if said is None:
            raise ValueError(f"the tensor {key!r} of its {side} has no rank")
        return said
    own = tuple(tensor.shape.as_list())
    if said is None or len(said) != len(own):
        return own
    return tuple(b if a is None else a for a, b in zip(own, said, strict=True))
