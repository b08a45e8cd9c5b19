"""The shape of a Keras layer's output, as far as its configuration says it: None where it does not.

Keras computes shapes by building layers, which inspect never does. Layers whose output follows from one line are here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Shape = list[Any]
Layer = Mapping[str, Any]
DEPTH_LIMIT = 200

SAME = """
Activation ActivityRegularization AlphaDropout BatchNormalization Dropout ELU GaussianDropout GaussianNoise
GroupNormalization Identity InputLayer LayerNormalization LeakyReLU Masking PReLU ReLU Rescaling Softmax
SpatialDropout1D SpatialDropout2D UnitNormalization
"""


MERGES = "Add Average Maximum Minimum Multiply Subtract"


def _units(shape: Shape, config: Layer) -> Shape:
    return [*shape[:-1], config["units"]]


def _flat(shape: Shape, _: Layer) -> Shape:
    inner = shape[1:]
    return [shape[0], None if None in inner else math.prod(inner)]


def _pooled(shape: Shape, config: Layer) -> Shape:
    first = config.get("data_format") == "channels_first"
    channels, ones = shape[1] if first else shape[-1], [1] * (len(shape) - 2)
    if not config.get("keepdims"):
        return [shape[0], channels]
    return [shape[0], channels, *ones] if first else [shape[0], *ones, channels]


def _recurrent(shape: Shape, config: Layer) -> Shape:
    return [shape[0], shape[1], config["units"]] if config.get("return_sequences") else [shape[0], config["units"]]


def _windows(shape: Shape, config: Layer) -> Shape:
    """Of a convolution or a pooling, with the channels last as TFLite has them."""
    rank = len(shape) - 2
    channels = config.get(
        "filters", shape[-1] * config["depth_multiplier"] if "depth_multiplier" in config else shape[-1]
    )
    sizes, strides, dilations = (
        value if isinstance(value := config.get(name), (list, tuple)) else [value or 1] * rank
        for name in ("kernel_size" if "kernel_size" in config else "pool_size", "strides", "dilation_rate")
    )
    if config.get("data_format") == "channels_first":
        raise ValueError("channels first")
    axes = zip(shape[1:-1], sizes, strides, dilations, strict=True)
    same = config.get("padding") == "same"
    spatial = [None if d is None else -(-(d if same else d - (k - 1) * a) // s) for d, k, s, a in axes]
    return [shape[0], *spatial, channels]


TWO_DIMENSIONS = {"Flatten", *(f"Global{how}Pooling{n}D" for how in ("Average", "Max") for n in (1, 2, 3))}
RULES: dict[str, Callable[[Shape, Layer], Shape]] = {
    **dict.fromkeys([*SAME.split(), *MERGES.split()], lambda shape, _: shape),
    "Dense": _units,
    "Embedding": lambda shape, config: [*shape, config["output_dim"]],
    "Flatten": _flat,
    "Reshape": lambda shape, config: [shape[0], *(None if d == -1 else d for d in config["target_shape"])],
    **dict.fromkeys((f"Global{how}Pooling{n}D" for how in ("Average", "Max") for n in (1, 2, 3)), _pooled),
    **dict.fromkeys(("GRU", "LSTM", "SimpleRNN"), _recurrent),
    **dict.fromkeys((f"{how}{n}D" for how in ("Conv", "AveragePooling", "MaxPooling") for n in (1, 2, 3)), _windows),
    **dict.fromkeys(("DepthwiseConv2D", "SeparableConv2D"), _windows),
}


def output_shape(
    layers: Mapping[str, Layer], name: str, known: dict[str, Shape | None] | None = None, depth: int = 0
) -> Shape | None:
    """Of the layer of that name among those of one model; `known` holds the shapes found so far, each computed once."""
    known = {} if known is None else known
    if name not in known and depth <= DEPTH_LIMIT:
        known[name] = None  # a layer that takes its own output has no shape
        known[name] = _computed(layers, name, known, depth)
    return known.get(name)


def _computed(layers: Mapping[str, Layer], name: str, known: dict[str, Shape | None], depth: int) -> Shape | None:
    layer = layers[name]
    config, rule = layer["config"], RULES.get(layer["class_name"])
    if layer["class_name"] == "InputLayer":
        shape = config.get("batch_shape", config.get("batch_input_shape"))
        return shape if isinstance(shape, list) else None
    if rule is None:
        return None
    taken = [output_shape(layers, each, known, depth + 1) for each in sorted(_before(layers, name))]
    if len(taken) > 1:
        return _broadcast(taken) if layer["class_name"] in MERGES.split() else None
    built = (layer.get("build_config") or {}).get("input_shape") or config.get("batch_input_shape")
    taken += [built] if isinstance(built, list) and not any(isinstance(d, list) for d in built) else []
    shape = next((shape for shape in taken if shape is not None), None)
    if shape is None and layer["class_name"] in TWO_DIMENSIONS and not config.get("keepdims"):
        shape = [None, None]
    try:
        return None if shape is None else rule(shape, config)
    except (ValueError, TypeError, KeyError):  # options that the rule does not know
        return None


def _broadcast(shapes: list[Shape | None]) -> Shape | None:
    ranks = {None if shape is None else len(shape) for shape in shapes}
    if len(ranks) > 1 or None in ranks:
        return None
    known = [shape for shape in shapes if shape is not None]
    return [next((d for d in sizes if d != 1), 1) for sizes in zip(*known, strict=True)]


def _before(layers: Mapping[str, Layer], name: str) -> set[str]:
    """The layers whose outputs a layer takes: by its node, or in a Sequential the one before it."""
    nodes = layers[name].get("inbound_nodes")
    if nodes is None:
        names = list(layers)
        return set(names[: names.index(name)][-1:])
    return {maker for maker in _makers(nodes) if maker in layers}


def _makers(nodes: Any) -> list[str]:
    """Names of layers in nodes: Keras 3 writes a tensor's history, Keras 2 [[name, node, tensor, arguments], ...]."""
    found: list[str] = []
    left = [nodes]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            history = value.get("keras_history")
            found += history[:1] if isinstance(history, list) else []
            left += value.values()
        elif isinstance(value, list):
            if len(value) in (3, 4) and isinstance(value[0], str) and isinstance(value[1], int):
                found.append(value[0])
            else:
                left += value
    return found
