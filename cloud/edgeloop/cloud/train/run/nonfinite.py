"""Where a training's numbers stopped being finite: its last steps once more, with every value looked at.

Nothing is looked at while all goes well. When a loss is NaN or infinite and the engine is repeatable, the values of the
last good state are put back and the steps since are repeated, which come to the same numbers, for data and random
numbers follow from seed and step. Of any other engine only the step is told at which it was found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgeloop.cloud.train.config.tables import Precision
from edgeloop.cloud.train.parallel.partition import nodes_in_order
from edgeloop.cloud.train.step.memory import computing_in
from edgeloop.convert.sources.keras_source import functional
from edgeloop.errors import ModelError
from edgeloop.extras import need

if TYPE_CHECKING:
    from edgeloop.cloud.train.prepare import Prepared


class Origin(NamedTuple):
    """`what` is like `the output of layer dense`; `step` counts from 1."""

    step: int
    what: str


def host_copy(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The values of TensorFlow's variables, also of those that lie on several devices."""
    tf = need("tensorflow", extra="cloud")
    return {name: tf.convert_to_tensor(variable).numpy() for name, variable in variables.items()}


def put_back(variables: Mapping[str, Any], values: Mapping[str, np.ndarray]) -> None:
    for name, value in values.items():
        variables[name].assign(value)


def all_finite(variables: Mapping[str, Any]) -> bool:
    tf = need("tensorflow", extra="cloud")
    floats = [tf.convert_to_tensor(one) for one in variables.values() if one.dtype.is_floating]
    return all(bool(tf.reduce_all(tf.math.is_finite(one))) for one in floats)


def not_finite(prepared: Prepared, what: str, good: int, step: int, out: Path, best: bool) -> ModelError:
    """`what` was found at `step`; of a repeatable engine, whose values are those of step `good`, also where it began.

    Args:
        good: The step of the newest checkpoint. 0: there is none.
        best: Whether there is a best epoch.
    """
    origin = find_origin(prepared, good, step) if prepared.engine.repeatable else None
    place = f" at step {step} (epoch {(step - 1) // prepared.steps + 1})"
    began = "" if origin is None else f", and it began at step {origin.step} in {origin.what}"
    state = f"The state of step {good}"
    states = f"{state} and the model of the best epoch are" if best else f"{state} is"
    kept = f" {states} kept in {out}." if good else ""
    return ModelError(
        what + place + began,
        advice=f"Lower [optimizer] learning-rate, or set its options.clipnorm = 1.0, in a new run.{kept}",
    )


def find_origin(prepared: Prepared, done: int, last: int) -> Origin | None:
    """Repeat the steps after `done` up to and including `last`; the first value of them that is not finite.

    None: all are finite this time. The engine is repeatable.
    """
    tf = need("tensorflow", extra="cloud")
    names, look = _watched(prepared)
    counts = tf.function(lambda item: prepared.strategy.reduce("SUM", prepared.strategy.run(look, args=(item,)), None))
    batches = prepared.engine.batches(done, last - done)
    for step in range(done + 1, last + 1):
        found = np.flatnonzero(counts(next(batches)).numpy())
        if len(found):
            return Origin(step, names[found[0]])
    return None


def _watched(prepared: Prepared) -> tuple[Sequence[str], Callable[[Any], Any]]:
    """Names of what a step computes, in order, and a step that counts the values of each that are not finite."""
    tf = need("tensorflow", extra="cloud")
    model, optimizer = prepared.model, prepared.optimizer
    layers, run = _layers(model)
    variables = model.trainable_variables
    backward = range(len(variables) - 1, -1, -1)  # the order in which gradients are computed
    scaled = prepared.memory.precision == Precision.FLOAT16  # whose gradients may overflow: the step is left out then
    names = [
        *(f"the output of layer {name}" for name in layers),
        "the loss",
        *(f"the gradient of {_of_layer(variables[k])}" for k in backward if not scaled),
        *(f"{_of_layer(variable)} after the update" for variable in variables),
    ]

    def bad(value: Any) -> Any:
        finite = tf.math.is_finite(tf.cast(value, tf.float32))
        return tf.reduce_sum(tf.cast(~finite, tf.int32))

    def look(item: tuple[Any, Any]) -> Any:
        features, labels = item
        with tf.GradientTape() as tape, computing_in(model, prepared.memory.precision):
            outputs = run(features)
            losses = prepared.objective.losses(labels, outputs[-1])
            loss = tf.nn.compute_average_loss(losses, global_batch_size=prepared.batch)
            if model.losses:
                loss += tf.nn.scale_regularization_loss(tf.add_n(model.losses))
            target = optimizer.scale_loss(loss) if scaled else loss
        gradients = tape.gradient(target, [variable.value for variable in variables])
        found = [bad(one) for one in (*outputs[: len(layers)], losses)]
        if not scaled:
            found += [tf.constant(0) if gradients[k] is None else bad(gradients[k]) for k in backward]
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return tf.stack([*found, *(bad(variable.value) for variable in variables)])

    return names, look


def _of_layer(variable: Any) -> str:
    """`dense/kernel`, without the models that the layer lies in."""
    return "/".join(variable.path.split("/")[-2:])


def _layers(model: Any) -> tuple[Sequence[str], Callable[[Any], list[Any]]]:
    """Names of the layers, and a function of features to their outputs, the model's own last; without a graph of
    layers only the latter."""
    keras = need("keras", extra="cloud")
    graph = functional(model)
    if not hasattr(graph, "operations"):
        return (), lambda features: [model(features, training=True)]
    made = [(node.operation.name, tensor) for node in nodes_in_order(graph) for tensor in node.output_tensors]
    made = [(name, tensor) for name, tensor in made if "float" in str(tensor.dtype)]
    probe = keras.Model(graph.inputs, [*(tensor for _, tensor in made), graph.outputs[0]])
    return [name for name, _ in made], lambda features: probe(features, training=True)
