"""Layers of vectors with gradients of their own: dense, normalization, dropout, activation, embedding, merging."""

from __future__ import annotations

from functools import reduce
from typing import Any

from edgeloop.convert.training.activations import above, elu, leaky_relu, relu, relu6
from edgeloop.convert.training.batch_norm import normalized
from edgeloop.convert.training.layer_refusal import layer_refusal, only_last_channels
from edgeloop.convert.training.operations import larger, smaller
from edgeloop.convert.training.products import dense, split_rows
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")
keras: Any = need("keras", extra="convert")
L: Any = keras.layers


class Dense(L.Dense):
    """Large kernels are spread over several variables by their rows, once `split` was called."""

    parts: Any = ()

    def split(self) -> list[Any]:
        """The variables that now hold the kernel; none if its own does still."""
        parts = split_rows(self.kernel.value)
        self.parts = tuple(parts) if len(parts) > 1 else ()
        return list(self.parts)

    def call(self, x: Any, training: bool = False) -> Any:
        y = dense(x, *([part.read_value() for part in self.parts] or [tf.convert_to_tensor(self.kernel)]))
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
            y, mean, variance = normalized(x, self.epsilon)
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


class GroupNormalization(L.GroupNormalization):
    """Wu and He 2018 (arXiv:1803.08494), as Keras computes it."""

    @staticmethod
    def check(layer: Any) -> None:
        if layer.axis not in (-1, len(layer.input.shape) - 1):
            raise layer_refusal(layer, f"normalizes groups of axis {layer.axis}", "Use the last axis.")


class _Attention:
    """As Keras computes it; a mask of the attention itself is no mask of its inputs."""

    @staticmethod
    def check(layer: Any) -> None:
        dropout = getattr(layer, "dropout", 0.0) or getattr(layer, "_dropout", 0.0)
        if dropout:
            raise layer_refusal(layer, f"has the dropout {dropout}", "Leave it out; a Dropout layer is supported.")


class Attention(_Attention, L.Attention):
    pass


class MultiHeadAttention(_Attention, L.MultiHeadAttention):
    pass


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


class SpatialDropout1D(L.SpatialDropout1D):
    def call(self, x: Any, training: bool = False) -> Any:
        on = training and self.trainable and self.rate
        return tf.nn.dropout(x, self.rate, noise_shape=[x.shape[0], 1, x.shape[2]]) if on else x


class SpatialDropout2D(L.SpatialDropout2D):
    check = staticmethod(only_last_channels)

    def call(self, x: Any, training: bool = False) -> Any:
        on = training and self.trainable and self.rate
        return tf.nn.dropout(x, self.rate, noise_shape=[x.shape[0], 1, 1, x.shape[3]]) if on else x


class Normalization(L.Normalization):
    """With the mean and variance of the variables, which set_weights can replace."""

    def call(self, x: Any) -> Any:
        mean, variance = self.mean, self.variance
        if self.input_mean is None:
            mean, variance = (tf.reshape(v, self._broadcast_shape) for v in (self.adapt_mean, self.adapt_variance))
        x, scale = tf.cast(x, tf.float32), larger(tf.sqrt(variance), keras.config.epsilon())
        return mean + x * scale if self.invert else (x - mean) / scale


class Maximum(L.Maximum):
    def call(self, values: Any) -> Any:
        return reduce(larger, values)


class Minimum(L.Minimum):
    def call(self, values: Any) -> Any:
        return reduce(smaller, values)


class PReLU(L.PReLU):
    """x where positive, alpha * x where negative, with a trained alpha (He et al. 2015, arXiv:1502.01852)."""

    def call(self, x: Any) -> Any:
        return x * (above(x) + self.alpha * above(-x))


class ELU(L.ELU):
    def call(self, x: Any) -> Any:
        return elu(x, float(self.alpha))


class Unchanged(L.Layer):
    """An augmentation: on a device it does in training what it does at inference."""

    idle = True

    @classmethod
    def of(cls, layer: Any) -> Any:
        return cls(name=layer.name)

    def call(self, x: Any) -> Any:
        return tf.cast(x, tf.float32)
