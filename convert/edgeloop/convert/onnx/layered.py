"""An imported ONNX model as a Keras model that devices can train: its last fully connected layers, behind one layer
without weights that computes everything before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeloop.convert.onnx.dense_tail import DenseTail
from edgeloop.convert.onnx.importer import OnnxFunction
from edgeloop.convert.sources.names import identifiers
from edgeloop.errors import ModelError
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")
keras: Any = need("keras", extra="convert")


class Body(keras.Layer):
    """Everything before the layers that train: `start`, computed from the model's inputs in their order."""

    def __init__(self, function: OnnxFunction, start: str, name: str):
        super().__init__(trainable=False, name=name)
        self._function, self._start = function, start
        traced = tf.function(lambda *x: self.call(x), input_signature=function.specs(), autograph=False)
        self._sizes = traced.get_concrete_function().structured_outputs.shape[1:]

    def call(self, inputs: Any) -> Any:
        return self._function.tensors(inputs, [self._start])[0]

    def compute_output_spec(self, inputs: Any) -> Any:
        return keras.KerasTensor((inputs[0].shape[0], *self._sizes), "float32")


def layered(function: OnnxFunction, inputs: Sequence[str], output: str) -> Any:
    """The Keras model, with inputs and an output of these names.

    Raises:
        ModelError: The model has several outputs, does not end in a fully connected layer, or its batch is fixed.
    """
    if len(function.outputs) != 1:
        raise ModelError(
            f"the model has {len(function.outputs)} outputs, and a model that trains on a device has one",
            advice="Export the model with the output to train, and no other.",
        )
    tail = function.dense_tail()
    if not tail.layers:
        raise ModelError(
            "the model does not end in a fully connected layer (Gemm, or MatMul and Add), the only kind of layer of an "
            ".onnx that trains on a device",
            advice="Convert the model that the .onnx was exported from.",
        )
    fixed = [t.name for t in function.inputs if not t.shape or t.shape[0] is not None]
    if fixed:
        raise ModelError(f"the batch of {', '.join(fixed)} is fixed", advice="Export the model with a free batch.")
    return _model(function, tail, inputs, output)


def _model(function: OnnxFunction, tail: DenseTail, names: Sequence[str], output: str) -> Any:
    specs = function.specs(names)
    inputs = [keras.Input(s.shape.as_list()[1:], dtype=s.dtype.name, name=s.name) for s in specs]
    last, *unique = identifiers([output, "body", *(layer.name for layer in tail.layers[:-1])])
    y = Body(function, tail.start, unique[0])(inputs)
    made = []
    for layer, name in zip(tail.layers, (*unique[1:], last), strict=True):  # Keras names an output after its layer
        units, bias = layer.kernel.shape[1], layer.bias is not None
        made.append(keras.layers.Dense(units, layer.activation or None, use_bias=bias, name=name))
        y = made[-1](y)
    for dense, layer in zip(made, tail.layers, strict=True):
        dense.set_weights([layer.kernel] if layer.bias is None else [layer.kernel, layer.bias])
    return keras.Model(inputs, y)


__all__ = ["DenseTail", "layered"]
