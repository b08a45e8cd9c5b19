"""Keras model in, ONE .tflite out that a device can train, evaluate, run, read and write: builtin ops only.

The five signatures are specified in docs/trainable.md.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import Any

from edgeloop.bundle import Weight
from edgeloop.convert.source import functional, identifiers
from edgeloop.errors import ModelError, OptionsError
from edgeloop.extras import need

RESERVED = frozenset({"y", "lr", "dummy"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainableOptions:
    """How a device trains.

    Attributes:
        batch: Samples of one step. Static: a free batch would need Flex's BroadcastGradientArgs.
    """

    batch: int = 16

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise OptionsError(f"a training batch of {self.batch} is no batch. Expected at least 1.")


def weight_table(model: Any) -> tuple[Weight, ...]:
    """The arrays of a Keras model in `get_weights` order, by the names the signatures use."""
    trained = {id(v) for v in model.trainable_variables}
    return tuple(
        Weight(f"w{i:03d}", v.path, tuple(int(d) for d in v.shape), str(v.dtype), id(v) in trained)
        for i, v in enumerate(model.weights)
    )


def to_trainable(model: Any, options: TrainableOptions = TrainableOptions()) -> bytes:
    """A flatbuffer with the signatures train, evaluate, infer, get_weights and set_weights.

    `model` is a Keras 3 classifier with one output [batch, classes]: probabilities when its last activation is
    softmax, else logits. Training is plain SGD on sparse cross entropy.

    Raises:
        ModelError: A layer without device gradients, another kind of output, an op that needs Flex.
    """
    tensorflow = need("tensorflow", extra="convert")
    module, signatures = _module(tensorflow, functional(model), options.batch)
    with tempfile.TemporaryDirectory() as folder:
        tensorflow.saved_model.save(module, folder, signatures=signatures)
        converter = tensorflow.lite.TFLiteConverter.from_saved_model(folder)
        converter.experimental_enable_resource_variables = True
        converter.target_spec.supported_ops = [tensorflow.lite.OpsSet.TFLITE_BUILTINS]
        try:
            return converter.convert()
        except Exception as e:  # the converter's own error type is private to it
            reason = " ".join(str(e).split())[:300]
            raise ModelError(f"the training step does not lower to builtin ops: {reason}") from e


def _twin(model: Any) -> tuple[Any, bool]:
    """The model on device layers, ending in logits, and whether its own output is their softmax."""
    keras = need("keras", extra="convert")
    from edgeloop.convert.layers import ACTIVATIONS, trainable_layer

    if len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        shapes = [tuple(o.shape) for o in model.outputs]
        raise ModelError(f"outputs {shapes}: a trainable model has one output [batch, classes].")
    clash = sorted(RESERVED & set(identifiers([t.name for t in model.inputs])))
    if clash:
        raise ModelError(f"an input named {clash[0]!r} collides with the training signature. Rename the input.")
    twin = keras.models.clone_model(model, clone_function=trainable_layer)
    twin.set_weights(model.get_weights())
    name = model.output_names[0]
    last, ends = twin.get_layer(name), twin.outputs[0]
    softmax = isinstance(last, keras.layers.Softmax)
    if softmax:
        ends = last.input
    elif getattr(getattr(model.get_layer(name), "activation", None), "__name__", "") == "softmax":
        softmax = True
        last.activation = ACTIVATIONS["linear"]
    return keras.Model(twin.inputs, ends), softmax


def _module(tf: Any, model: Any, batch: int) -> tuple[Any, dict[str, Any]]:
    """A tf.Module that owns the weights, and its five concrete functions by name."""
    twin, softmax = _twin(model)
    names, classes = identifiers([t.name for t in model.inputs]), model.outputs[0].shape[-1]
    (output,) = identifiers(model.output_names)
    weights = [v.value for v in twin.weights]
    trained = [v.value for v in twin.trainable_variables]
    table = weight_table(model)
    inputs = {n: tf.TensorSpec([batch, *t.shape[1:]], t.dtype) for n, t in zip(names, model.inputs, strict=True)}
    labels, number = tf.TensorSpec([batch], tf.int32), tf.TensorSpec([], tf.float32)
    arrays = {w.name: tf.TensorSpec(w.shape, w.dtype) for w in table}

    def logits(x: dict, training: bool) -> Any:
        return twin([x[n] for n in names], training=training)

    def loss(z: Any, y: Any) -> Any:
        return -tf.reduce_mean(tf.reduce_sum(tf.one_hot(y, classes) * tf.nn.log_softmax(z), -1))

    def correct(z: Any, y: Any) -> Any:
        return tf.reduce_sum(tf.cast(tf.equal(tf.argmax(z, -1, output_type=tf.int32), y), tf.float32))

    def train(y: Any, lr: Any, **x: Any) -> dict:
        with tf.GradientTape() as tape:
            z = logits(x, training=True)
            value = loss(z, y)
        for variable, slope in zip(trained, tape.gradient(value, trained), strict=True):
            variable.assign(variable - lr * slope)
        return {"loss": value, "accuracy": correct(z, y) / batch}

    def evaluate(y: Any, **x: Any) -> dict:
        z = logits(x, training=False)
        return {"loss": loss(z, y), "correct": correct(z, y)}

    def infer(**x: Any) -> dict:
        z = logits(x, training=False)
        return {output: tf.nn.softmax(z) if softmax else z}

    def get_weights(dummy: Any) -> dict:  # some runtimes cannot call a signature without an input
        return {w.name: value + 0.0 * dummy for w, value in zip(table, weights, strict=True)}

    def set_weights(**w: Any) -> dict:
        for entry, variable in zip(table, weights, strict=True):
            variable.assign(w[entry.name])
        return {"ok": tf.reduce_sum(w[table[0].name])}

    module = tf.Module()
    module.kept = weights  # Keras 3 variables are invisible to tf.saved_model.save: without this the weights are NaN

    def concrete(f: Any, **specs: Any) -> Any:
        return tf.function(f, autograph=False).get_concrete_function(**specs)

    return module, {
        "train": concrete(train, **inputs, y=labels, lr=number),
        "evaluate": concrete(evaluate, **inputs, y=labels),
        "infer": concrete(infer, **inputs),
        "get_weights": concrete(get_weights, dummy=number),
        "set_weights": concrete(set_weights, **arrays),
    }
