"""Every other layer with gradients of its own: dense, normalization, dropout, activation, embedding, recurrent."""

from __future__ import annotations

from typing import Any

from edgeloop.convert.training.activations import ACTIVATIONS, leaky_relu, relu, relu6
from edgeloop.convert.training.convolutions import dense
from edgeloop.convert.training.layer_refusal import layer_refusal
from edgeloop.convert.training.recurrent import gru_step, lstm_step, unroll
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")
keras: Any = need("keras", extra="convert")
L: Any = keras.layers


class Dense(L.Dense):
    def call(self, x: Any, training: bool = False) -> Any:
        y = dense(x, tf.convert_to_tensor(self.kernel))
        return self.activation(y + self.bias if self.use_bias else y)


class Embedding(L.Embedding):
    """`one_hot(x) @ table`: a gather's gradient needs Flex. Memory and time grow with the vocabulary."""

    @staticmethod
    def check(layer: Any) -> None:
        if layer.mask_zero:
            raise layer_refusal(layer, "masks zeros", "Use mask_zero=False.")

    def call(self, x: Any) -> Any:
        chosen = tf.one_hot(tf.cast(x, tf.int32), self.input_dim)
        return dense(chosen, tf.convert_to_tensor(self.embeddings))


class BatchNormalization(L.BatchNormalization):
    """Ioffe and Szegedy 2015 (arXiv:1502.03167), with Keras's moving averages of the biased variance."""

    @staticmethod
    def check(layer: Any) -> None:
        if layer.axis not in (-1, layer.input_spec.ndim - 1):
            raise layer_refusal(layer, f"normalizes axis {layer.axis}", "Use the last axis.")

    def call(self, x: Any, training: bool = False, mask: Any = None) -> Any:
        if training and self.trainable:
            axes = list(range(len(x.shape) - 1))
            mean = tf.reduce_mean(x, axes)
            variance = tf.reduce_mean(tf.square(x - mean), axes)
            for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving.assign(moving.value * self.momentum + batch * (1.0 - self.momentum))
        else:
            mean, variance = tf.convert_to_tensor(self.moving_mean), tf.convert_to_tensor(self.moving_variance)
        y = (x - mean) * tf.math.rsqrt(variance + self.epsilon)
        y = y * self.gamma if self.scale else y
        return y + self.beta if self.center else y


class LayerNormalization(L.LayerNormalization):
    """Ba, Kiros and Hinton 2016 (arXiv:1607.06450), over the last axes."""

    @staticmethod
    def check(layer: Any) -> None:
        # build has made `axis` a list of positive numbers, whose weights broadcast only where they are the last ones
        axes, rank = layer.axis if isinstance(layer.axis, list) else [layer.axis], len(layer.input.shape)
        if sorted(a % rank for a in axes) != list(range(rank - len(axes), rank)):
            raise layer_refusal(layer, f"normalizes the axes {axes} of {rank}", "Use the last ones.")
        if layer.rms_scaling:
            raise layer_refusal(layer, "scales by the root mean square", "Use rms_scaling=False.")

    def call(self, x: Any) -> Any:
        axes = self.axis if isinstance(self.axis, list) else [self.axis]
        centred = x - tf.reduce_mean(x, axes, keepdims=True)
        y = centred * tf.math.rsqrt(tf.reduce_mean(tf.square(centred), axes, keepdims=True) + self.epsilon)
        y = y * self.gamma if self.scale else y
        return y + self.beta if self.center else y


class Dropout(L.Dropout):
    @staticmethod
    def check(layer: Any) -> None:
        if layer.noise_shape is not None:
            raise layer_refusal(layer, f"has the noise_shape {layer.noise_shape}", "Use a plain Dropout.")

    def call(self, x: Any, training: bool = False) -> Any:
        return tf.nn.dropout(x, self.rate) if training and self.trainable and self.rate else x


class ReLU(L.ReLU):
    @staticmethod
    def check(layer: Any) -> None:
        if layer.max_value not in (None, 6) or layer.threshold or (layer.max_value and layer.negative_slope):
            raise layer_refusal(layer, "is neither ReLU, ReLU6 nor leaky", "Use ReLU(), ReLU(6) or LeakyReLU().")

    def call(self, x: Any) -> Any:
        if self.negative_slope:
            return leaky_relu(x, float(self.negative_slope))
        return relu(x) if self.max_value is None else relu6(x)


class LeakyReLU(L.LeakyReLU):
    def call(self, x: Any) -> Any:
        return leaky_relu(x, float(self.negative_slope))


class Softmax(L.Softmax):
    """`activation` is softmax, and replaced where the loss takes logits."""

    @staticmethod
    def check(layer: Any) -> None:
        if layer.axis not in (-1, len(layer.input.shape) - 1):
            raise layer_refusal(layer, f"is over axis {layer.axis}", "Use the last axis.")

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.activation = keras.activations.softmax

    def call(self, x: Any, mask: Any = None) -> Any:
        return self.activation(x)


class _Recurrent:
    """What LSTM and GRU share. `make_step` comes from recurrent.py."""

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
        step = self.make_step(cell, ACTIVATIONS[cell.activation], ACTIVATIONS[cell.recurrent_activation])
        backwards = self.go_backwards
        outputs = unroll(sequences, tf.convert_to_tensor(cell.kernel), bias, step, state, backwards=backwards)
        return tf.stack(outputs, axis=1) if self.return_sequences else outputs[-1]


class LSTM(_Recurrent, L.LSTM):
    make_step = staticmethod(lstm_step)


class GRU(_Recurrent, L.GRU):
    make_step = staticmethod(gru_step)
