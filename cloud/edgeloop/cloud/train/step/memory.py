"""What makes a training step smaller: layers that compute in 16 bits, and activations that are computed again.

Source of recomputation: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

from edgeloop.cloud.train.checkpoints.checkpoint_files import reason_of
from edgeloop.cloud.train.config.tables import MemoryConfig, Precision
from edgeloop.cloud.train.parallel.partition import crossing_tensors, nodes_in_order
from edgeloop.convert.sources.keras_source import functional
from edgeloop.errors import OptionsError, TargetError
from edgeloop.extras import need


@contextlib.contextmanager
def computing_in(model: Any, precision: Precision) -> Iterator[None]:
    """Let the layers compute in 16 bits while the block runs; weights and the layers that end the model stay float32.

    A traced function keeps what held when it was traced: outside of the block the model is float32 for every reader.
    """
    if precision == Precision.FLOAT32:
        yield
        return
    last = {id(tensor._keras_history.operation) for tensor in model.outputs}
    inputs = need("keras", extra="cloud").layers.InputLayer
    every = model._flatten_layers(include_self=False)
    inner = [layer for layer in every if id(layer) not in last and not isinstance(layer, inputs)]
    before = [layer.dtype_policy for layer in inner]
    try:
        for layer in inner:
            layer.dtype_policy = f"mixed_{precision.value}"
        yield
    finally:
        for layer, policy in zip(inner, before, strict=True):
            layer.dtype_policy = policy


@contextlib.contextmanager
def lack_named() -> Iterator[None]:
    """Say in one line what helps where TensorFlow ran out of memory.

    Raises:
        TargetError: It did in the block.
    """
    errors = need("tensorflow", extra="cloud").errors
    try:
        yield
    except errors.ResourceExhaustedError as e:
        raise TargetError(
            f"there is not enough memory for this training ({reason_of(e)})",
            advice="Choose a smaller [pipeline] batch, or [memory] accumulate = 4, recompute = true or precision = "
            '"bfloat16", or a smaller model; with several devices [strategy] name = "pipeline".',
        ) from e


def forward_pass(model: Any, memory: MemoryConfig) -> Callable[[Any], Any]:
    """A function of features to outputs in training, as `memory` says.

    With `recompute` it keeps the ends of blocks of layers only; the backward pass computes what lies between again.

    Raises:
        OptionsError: `recompute`, and the model has no graph of layers.
    """

    def whole(features: Any) -> Any:
        with computing_in(model, memory.precision):
            return model(features, training=True)

    if not memory.recompute:
        return whole
    keras = need("keras", extra="cloud")
    blocks = [_block(keras.Model(*ends), memory.precision, model, again) for *ends, again in blocks_of(model)]

    def forward(features: Any) -> Any:
        for block in blocks:
            features = block(features)
        return features

    return forward


def _block(part: Any, precision: Precision, model: Any, again: bool) -> Callable[[Any], Any]:
    def run(features: Any) -> Any:
        with computing_in(model, precision):  # here, for the backward pass calls it too
            return part(features, training=True)

    return need("tensorflow", extra="cloud").recompute_grad(run) if again else run


def blocks_of(model: Any) -> list[tuple[Any, Any, bool]]:
    """(inputs, outputs, whether to compute again) of parts of the model, one behind the other.

    A part that keeps a state (BatchNormalization's statistics, Dropout's random numbers) is never computed again: it
    would change that state twice in a step. The others are joined, as many as the square root of their number.
    """
    parts = _parts(model)
    longest = math.isqrt(max(1, sum(again for *_, again in parts)))
    joined: list[tuple[Any, Any, bool]] = []
    length = 0
    for inputs, outputs, again in parts:
        length = length + 1 if joined and joined[-1][2] and again else 1
        if length > 1 and length <= longest:
            joined[-1] = (joined[-1][0], outputs, True)
        else:
            joined.append((inputs, outputs, again))
            length = 1
    return joined


def _parts(model: Any) -> list[tuple[Any, Any, bool]]:
    """The smallest parts between places where a single tensor crosses."""
    model = functional(model)
    if not hasattr(model, "operations"):
        raise OptionsError(
            f"{type(model).__name__} has no graph of layers, which [memory] recompute needs",
            advice="Use a Sequential or functional model, or set recompute = false.",
        )
    nodes, given = nodes_in_order(model), {id(tensor) for tensor in model.inputs}
    crossing = {k: crossing_tensors(nodes, k, model.outputs) for k in range(1, len(nodes))}
    single = {k: tensors[0] for k, tensors in crossing.items() if len(tensors) == 1 and id(tensors[0]) not in given}
    parts, begin, inputs = [], 0, model.inputs
    for k in [*single, len(nodes)]:
        outputs = single[k] if k in single else model.outputs if len(model.outputs) > 1 else model.outputs[0]
        parts.append((inputs, outputs, not any(_has_state(node.operation) for node in nodes[begin:k])))
        begin, inputs = k, outputs
    return parts


def _has_state(operation: Any) -> bool:
    variables = getattr(operation, "variables", [])
    trained = {id(variable) for variable in getattr(operation, "trainable_variables", [])}
    return any(id(variable) not in trained for variable in variables)
