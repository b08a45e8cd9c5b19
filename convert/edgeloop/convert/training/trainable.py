"""Keras model in, ONE .tflite out that a device can train, evaluate, run, read and write: builtin ops only.

The five signatures are specified in docs/trainable.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeloop.bundle import TensorSpec, Weight
from edgeloop.convert.sources.names import arguments, identifiers
from edgeloop.convert.sources.source import functional
from edgeloop.convert.training.frozen import trained_ids
from edgeloop.convert.training.losses import Loss, objective
from edgeloop.convert.training.optimizers import RULES, Optimizer
from edgeloop.convert.training.update_order import in_training_order
from edgeloop.errors import ModelError, OptionsError, one_line
from edgeloop.extras import need

if TYPE_CHECKING:
    from edgeloop.convert.training.trainable_copy import TrainableModel

RESERVED = frozenset({"y", "lr", "dummy"})

Tensors = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainableOptions:
    """How a device trains.

    Attributes:
        batch: Samples of one step. Static: a free batch would need Flex's BroadcastGradientArgs.
        optimizer: Its state lies in the file's variables and is zero after set_weights.
        loss: None: binary for an output that ends in a sigmoid, sparse for any other of several units, else mse.
        train_last: How many of the last layers with weights learn; those before run in inference mode. None: all.
    """

    batch: int = 16
    optimizer: Optimizer = Optimizer.SGD
    loss: Loss | None = None
    train_last: int | None = None

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise OptionsError(f"--train-batch is {self.batch}", advice="It must be 1 or more.")
        if self.train_last is not None and self.train_last < 1:
            raise OptionsError(f"--train-last is {self.train_last}", advice="It must be 1 or more.")


def weight_table(model: Any, train_last: int | None = None) -> tuple[Weight, ...]:
    """The arrays of a Keras model in `get_weights` order, by the names the signatures use.

    Raises:
        OptionsError: The model has fewer than `train_last` layers with weights.
    """
    trained = trained_ids(model, train_last)
    return tuple(
        Weight(f"w{i:03d}", v.path, tuple(int(d) for d in v.shape), str(v.dtype), id(v) in trained)
        for i, v in enumerate(model.weights)
    )


def to_trainable(
    model: Any,
    options: TrainableOptions = TrainableOptions(),
    *,
    preprocess: Callable[[Tensors], Tensors] | None = None,
    inputs: Sequence[TensorSpec] | None = None,
) -> bytes:
    """A flatbuffer with the signatures train, evaluate, infer, get_weights and set_weights.

    `model` is a Keras 3 model with one output. `preprocess` turns what devices have, named tensors of the shapes and
    dtypes in `inputs` (None: the model's own), into the model's inputs by name; it is traced first in train,
    evaluate and infer, and must lower to builtin ops.

    Raises:
        ModelError: A layer without device gradients, an output the loss does not fit, a free dimension beside the
            batch, an op that needs Flex.
        OptionsError: `train_last` or `batch` does not fit the model.
    """
    tensorflow = need("tensorflow", extra="convert")
    from edgeloop.convert.training.trainable_copy import trainable_copy

    model = functional(model)
    names = arguments([t.name for t in model.inputs])
    if inputs is None:
        inputs = [TensorSpec(n, tuple(t.shape), str(t.dtype)) for n, t in zip(names, model.inputs, strict=True)]
    _check_inputs(inputs, options.batch)
    given = {t.name: tensorflow.TensorSpec([options.batch, *t.shape[1:]], t.dtype) for t in inputs}
    copy = trainable_copy(model, options.loss, options.train_last, options.batch)
    module, signatures = _module(tensorflow, model, copy, options, given, preprocess or (lambda x: x))
    with tempfile.TemporaryDirectory() as folder:
        # train holds its gradients already: tracing those of every custom gradient again took most of the time
        save = tensorflow.saved_model.SaveOptions(experimental_custom_gradients=False)
        tensorflow.saved_model.save(module, folder, signatures=signatures, options=save)
        converter = tensorflow.lite.TFLiteConverter.from_saved_model(folder)
        converter.experimental_enable_resource_variables = True
        converter.target_spec.supported_ops = [tensorflow.lite.OpsSet.TFLITE_BUILTINS]
        try:
            blob = converter.convert()
        except Exception as e:  # the converter's own error type is private to it
            reason = one_line(e)
            raise ModelError(
                f"the training step cannot be lowered to builtin operators: {reason}",
                advice="Train fewer layers with --train-last N, or leave --trainable out.",
            ) from e
    return in_training_order(blob)


def check_options(model: Any, options: TrainableOptions, inputs: Sequence[TensorSpec]) -> tuple[str, ...]:
    """What `to_trainable` refuses of `model` and of `options`, before anything is built.

    Returns:
        The names of layers that act in Keras's training, and on the device do what they do at inference.

    Raises:
        ModelError, OptionsError: As `to_trainable`; what cannot be lowered shows later.
    """
    from edgeloop.convert.training.trainable_copy import check_trainable, idle_layers

    model = functional(model)
    _check_inputs(inputs, options.batch)
    check_trainable(model, options.loss, options.train_last)
    return idle_layers(model, options.train_last)


def _check_inputs(inputs: Sequence[TensorSpec], batch: int) -> None:
    for t in inputs:
        if t.name in RESERVED:
            raise ModelError(f"the training signature uses the name {t.name!r} itself", advice="Rename the input.")
        if None in t.shape[1:]:
            raise ModelError(
                f"input {t.name!r} has the shape {list(t.shape)}",
                advice="Give every dimension but the batch a fixed size.",
            )
        if t.shape[0] not in (None, batch):
            raise OptionsError(
                f"input {t.name!r} has the fixed batch {t.shape[0]}", advice=f"Pass --train-batch {t.shape[0]}."
            )


def _module(
    tf: Any, model: Any, copy: TrainableModel, options: TrainableOptions, given: Tensors, preprocess: Callable
) -> tuple[Any, dict[str, Any]]:
    """A tf.Module that owns the weights, and its five concrete functions by name."""
    from edgeloop.convert.training.windows import joined

    names, table = arguments([t.name for t in model.inputs]), weight_table(model)
    (output,) = identifiers(model.output_names)
    answer = {"softmax": tf.nn.softmax, "sigmoid": tf.sigmoid, "": tf.identity}[copy.end]
    goal = objective(copy.loss, (options.batch, *model.outputs[0].shape[1:]))
    trained = copy.trained
    rule = RULES[options.optimizer](trained)

    def outcome(x: Tensors, training: bool) -> Any:
        x = preprocess(x)
        return copy.run([x[n] for n in names], training)

    def train(y: Any, lr: Any, **x: Any) -> Tensors:
        with tf.GradientTape(watch_accessed_variables=False) as tape:  # what precedes the first trained has none
            tape.watch(trained)
            z = outcome(x, training=True)
            value = goal.value(z, y)
        # zero: a recurrent kernel that sees a single time step has no part in the loss
        zero, scale = tf.UnconnectedGradients.ZERO, lr if rule.scaled else None
        rule.apply(tape.gradient(value, trained, output_gradients=scale, unconnected_gradients=zero), lr)
        return {"loss": value, **goal.trained(z, y)}

    def evaluate(y: Any, **x: Any) -> Tensors:
        z = outcome(x, training=False)
        return {"loss": goal.value(z, y), **goal.evaluated(z, y)}

    def infer(**x: Any) -> Tensors:
        return {output: answer(outcome(x, training=False))}

    def get_weights(dummy: Any) -> Tensors:  # some runtimes cannot call a signature without an input
        arrays = [joined([part.read_value() for part in parts], 0) for parts in copy.weights]
        return {w.name: tf.cast(value, tf.float32) + 0.0 * dummy for w, value in zip(table, arrays, strict=True)}

    def set_weights(**w: Any) -> Tensors:
        for entry, parts in zip(table, copy.weights, strict=True):
            for part, rows in zip(parts, _rows(tf, w[entry.name], parts), strict=True):
                part.assign(tf.cast(rows, part.dtype))
        total = tf.reduce_sum(w[table[0].name])
        zero = tf.cast(total > float("inf"), tf.float32)  # known only to the device: constants would double the file
        for slot in rule.state:
            slot.assign(tf.fill(slot.shape, zero))
        return {"ok": total}

    module = tf.Module()
    # Keras 3 variables are invisible to tf.saved_model.save: without this the weights are NaN
    module.kept = [*(part for parts in copy.weights for part in parts), *copy.kept, *rule.state]

    def concrete(f: Any, /, **specs: Any) -> Any:  # a model's input may be named f
        return tf.function(f, autograph=False).get_concrete_function(**specs)

    number = tf.TensorSpec([], tf.float32)
    return module, {
        "train": concrete(train, **given, y=goal.y, lr=number),
        "evaluate": concrete(evaluate, **given, y=goal.y),
        "infer": concrete(infer, **given),
        "get_weights": concrete(get_weights, dummy=number),
        "set_weights": concrete(set_weights, **{w.name: tf.TensorSpec(w.shape, tf.float32) for w in table}),
    }


def _rows(tf: Any, array: Any, parts: Sequence[Any]) -> list[Any]:
    """The rows of an array that each of the variables holds."""
    return [array] if len(parts) == 1 else tf.split(array, [int(part.shape[0]) for part in parts], 0)
