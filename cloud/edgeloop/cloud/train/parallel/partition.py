"""A Keras model in, parts of consecutive operations out, whose measured costs are about equal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeloop.cloud.train.parallel.balance import choose_cuts
from edgeloop.errors import ModelError
from edgeloop.extras import need

REPEATS = 15  # the least of 7 moved the cut in one run of seven on a busy machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Consecutive operations of a model.

    Attributes:
        nodes: Keras's nodes, each the call of one operation, in an order in which they can run.
        inputs: Keras tensors that the operations take from before, in the order in which they are handed on.
        outputs: Keras tensors that the next part takes, or the outputs of the model.
        cost_ms: Measured forward and backward time of the operations on one micro-batch, the least of several runs.
    """

    nodes: tuple[Any, ...]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    cost_ms: float


def split_model(model: Any, stages: int, features: Sequence[Any]) -> tuple[Part, ...]:
    """Divide a Sequential or functional model at places where its parts cost about the same.

    Any number of tensors may cross from one part to the next, so that a cut may lie within a residual block. A layer
    that is called several times stays within one part, as do the parts of a model inside the model.

    Args:
        model: A built Keras 3 model.
        features: One micro-batch, a tensor for each of the model's inputs, in their order.

    Raises:
        ModelError: A subclassed model: its operations are not known.
        OptionsError: The model has fewer places to cut than the stages need.
    """
    keras = need("keras", extra="cloud")
    if not getattr(model, "inputs", None):
        raise ModelError(
            f"{model.name} is a subclassed model, whose operations are not known before it runs",
            advice="Build the model by keras.Sequential or the functional API to divide it into stages.",
        )
    whole = keras.Model(model.inputs, model.outputs)  # a Sequential has no nodes of its own
    nodes = nodes_in_order(whole)
    crossing = {
        k: crossing_tensors(nodes, k, whole.outputs) for k in range(1, len(nodes)) if not _divides_a_layer(nodes, k)
    }
    costs = _measure(nodes, whole.inputs, features)
    cuts = choose_cuts(costs, stages, {k: len(tensors) for k, tensors in crossing.items()})
    borders = [tuple(whole.inputs), *(crossing[k] for k in cuts), tuple(whole.outputs)]
    ends = [0, *cuts, len(nodes)]
    return tuple(
        Part(
            nodes=tuple(nodes[ends[k] : ends[k + 1]]),
            inputs=borders[k],
            outputs=borders[k + 1],
            cost_ms=1e3 * sum(costs[ends[k] : ends[k + 1]]),
        )
        for k in range(stages)
    )


def copy_part(part: Part, device: str) -> tuple[Any, tuple[tuple[Any, Any], ...]]:
    """A Keras model of the same layers and weights, its variables on `device`, and pairs of (layer, its copy)."""
    tf, keras = need("tensorflow", extra="cloud"), need("keras", extra="cloud")
    copies: dict[int, tuple[Any, Any]] = {}
    with tf.device(device):
        given = [keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype) for tensor in part.inputs]
        values = dict(zip(map(id, part.inputs), given, strict=True))
        for node in part.nodes:
            layer = node.operation
            if isinstance(layer, keras.Layer) and id(layer) not in copies:
                copies[id(layer)] = (layer, type(layer).from_config(layer.get_config()))
            made = _call(copies.get(id(layer), (layer, layer))[1], node, values)
            values.update(zip(map(id, node.output_tensors), tf.nest.flatten(made), strict=True))
        for layer, copy in copies.values():
            copy.set_weights(layer.get_weights())
        return keras.Model(given, [values[id(tensor)] for tensor in part.outputs]), tuple(copies.values())


def nodes_in_order(model: Any) -> list[Any]:
    """Keras's nodes of a functional model in an order in which they can run, without its inputs."""
    by_depth = model._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth] if not node.is_input]


def crossing_tensors(nodes: Sequence[Any], k: int, outputs: Sequence[Any]) -> tuple[Any, ...]:
    """Tensors that `nodes[k:]` or the outputs of the model take from before `nodes[k]`, in the order of their use."""
    made_later = {id(tensor) for node in nodes[k:] for tensor in node.output_tensors}
    used = [tensor for node in nodes[k:] for tensor in node.input_tensors] + list(outputs)
    return tuple({id(tensor): tensor for tensor in used if id(tensor) not in made_later}.values())


def _divides_a_layer(nodes: Sequence[Any], k: int) -> bool:
    """Whether some layer with weights is called both before and after a cut at `k`: it cannot lie on two devices."""
    before = {id(node.operation) for node in nodes[:k] if getattr(node.operation, "variables", None)}
    return not before.isdisjoint(id(node.operation) for node in nodes[k:])


def _call(operation: Any, node: Any, values: dict[int, Any], **more: Any) -> Any:
    args, kwargs = node.arguments.fill_in(values)
    return operation(*args, **kwargs, **more)


def _measure(nodes: Sequence[Any], inputs: Sequence[Any], features: Sequence[Any]) -> list[float]:
    """Seconds of forward and backward of each call on one micro-batch, the least of `REPEATS`."""
    values = dict(zip(map(id, inputs), features, strict=True))
    seconds = []
    for node in nodes:
        given = {id(tensor): values[id(tensor)] for tensor in node.input_tensors}
        run = _forward_and_backward(node, list(given))
        made = run(list(given.values()))
        values.update(zip(map(id, node.output_tensors), made, strict=True))
        seconds.append(min(_seconds(run, list(given.values())) for _ in range(REPEATS)))
    return seconds


def _forward_and_backward(node: Any, tensors: Sequence[int]) -> Any:
    tf, keras = need("tensorflow", extra="cloud"), need("keras", extra="cloud")

    @tf.function(autograph=False)
    def run(given: list[Any]) -> list[Any]:
        floats = [tensor for tensor in given if tensor.dtype.is_floating]
        # stateless: measuring moves no statistics of batch normalization
        with keras.StatelessScope(), tf.GradientTape() as tape:
            tape.watch(floats)
            made = tf.nest.flatten(_call(node.operation, node, dict(zip(tensors, given, strict=True))))
        weights = [v.value for v in getattr(node.operation, "trainable_variables", ())]
        gradients = tape.gradient([tensor for tensor in made if tensor.dtype.is_floating], floats + weights)
        with tf.control_dependencies([g for g in gradients if g is not None]):
            return [tf.identity(tensor) for tensor in made]

    return run


def _seconds(run: Any, given: list[Any]) -> float:
    start = time.perf_counter()
    run(given)
    return time.perf_counter() - start
