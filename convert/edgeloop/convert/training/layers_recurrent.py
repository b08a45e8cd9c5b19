"""Recurrent layers on device gradients, unrolled."""

from __future__ import annotations

from typing import Any

from edgeloop.convert.training.activations import ACTIVATIONS
from edgeloop.convert.training.layer_refusal import layer_refusal
from edgeloop.convert.training.recurrent import gru_step, lstm_step, simple_step, unroll
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")
L: Any = need("keras", extra="convert").layers


class _Recurrent:
    """What recurrent layers share. `make_step` comes from recurrent.py."""

    make_step: Any

    @staticmethod
    def check(layer: Any) -> None:
        for option in ("return_state", "stateful", "dropout", "recurrent_dropout"):
            if getattr(layer, option):
                raise layer_refusal(layer, f"uses {option}", "Leave it out; a Dropout layer is supported.")

    def call(
        self: Any, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> Any:  # Keras looks these names up when it builds the layer
        cell, state = self.cell, initial_state
        if state is not None:
            state = tuple(state) if isinstance(state, (list, tuple)) else (state,)
        bias = None
        if cell.use_bias:
            bias = tf.convert_to_tensor(cell.bias)
            bias = tf.unstack(bias)[0] if len(bias.shape) == 2 else bias
        gate = ACTIVATIONS[getattr(cell, "recurrent_activation", cell.activation)]
        step = self.make_step(cell, ACTIVATIONS[cell.activation], gate)
        backwards = self.go_backwards
        outputs = unroll(sequences, tf.convert_to_tensor(cell.kernel), bias, step, state, backwards=backwards)
        return tf.stack(outputs, axis=1) if self.return_sequences else outputs[-1]


class LSTM(_Recurrent, L.LSTM):
    make_step = staticmethod(lstm_step)


class GRU(_Recurrent, L.GRU):
    make_step = staticmethod(gru_step)


class SimpleRNN(_Recurrent, L.SimpleRNN):
    make_step = staticmethod(simple_step)


class Bidirectional(L.Layer):
    """One recurrent layer forward in time and one backward, whose sequence is then reversed."""

    @staticmethod
    def check(layer: Any) -> None:
        from edgeloop.convert.training.layers import check_layer

        for inner in (layer.forward_layer, layer.backward_layer):
            check_layer(inner)

    @classmethod
    def of(cls, layer: Any) -> Any:
        from edgeloop.convert.training.layers import trainable_layer

        made = cls(name=layer.name, trainable=layer.trainable)
        made.forward_layer, made.backward_layer = map(trainable_layer, (layer.forward_layer, layer.backward_layer))
        made.merge_mode, made.return_sequences = layer.merge_mode, layer.return_sequences
        return made

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:
        self.forward_layer.build(sequences_shape)
        self.backward_layer.build(sequences_shape)
        self.built = True

    def call(
        self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> Any:  # Keras looks these names up when it builds the layer
        merge: Any = MERGES[self.merge_mode]
        half = len(initial_state or ()) // 2  # the first of them are of the layer that goes forward
        states = (initial_state[:half], initial_state[half:]) if initial_state else (None, None)
        y, back = (
            layer(sequences, initial_state=state)
            for layer, state in zip((self.forward_layer, self.backward_layer), states, strict=True)
        )
        if self.return_sequences:
            back = tf.reverse(back, [1])
        return merge(y, back)


MERGES = {
    "concat": lambda a, b: tf.concat([a, b], -1),
    "sum": lambda a, b: a + b,
    "ave": lambda a, b: (a + b) / 2.0,
    "mul": lambda a, b: a * b,
    None: lambda a, b: [a, b],
}
