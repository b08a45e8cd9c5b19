"""Keras layers rebuilt on `gradients.py`: the same weights, the same numbers, a gradient a device can run.

`LAYERS` says which Keras layer becomes which; a layer that is not there is refused by its path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeloop.convert import gradients as g
from edgeloop.errors import ModelError
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")
L: Any = need("keras", extra="convert").layers

ACTIVATIONS: dict[str, Callable] = {
    "linear": lambda x: x,
    "relu": g.relu,
    "relu6": g.relu6,
    "sigmoid": tf.sigmoid,
    "tanh": tf.tanh,
    "softmax": tf.nn.softmax,
}


def trainable_layer(layer: Any) -> Any:
    """A layer with the config of `layer` and device gradients.

    Raises:
        ModelError: Its kind, activation or an option of it is not supported; names the layer and what is.
    """
    kind = LAYERS.get(type(layer))
    if kind is None:
        supported = ", ".join(sorted(k.__name__ for k in LAYERS))
        raise _refused(layer, f"is a {type(layer).__name__}, which has no device gradient", f"Supported: {supported}.")
    activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise _refused(layer, f"uses the activation {activation}, which has no device gradient", f"Supported: {known}.")
    twin = kind.from_config(layer.get_config())
    if hasattr(twin, "check"):
        twin.check()
    if getattr(twin, "activation", None) is not None:
        twin.activation = ACTIVATIONS[activation]
    return twin


def _refused(layer: Any, found: str, advice: str) -> ModelError:
    return ModelError(f"layer {layer.path or layer.name!r} {found}. {advice} Or convert without --trainable.")


class Dense(L.Dense):
    def call(self, x: Any, training: bool = False) -> Any:
        if len(x.shape) != 2:
            raise _refused(self, f"sees an input of rank {len(x.shape)}; Dense trains on rank 2", "Flatten first.")
        y = g.dense(x, tf.convert_to_tensor(self.kernel))
        return self.activation(y + self.bias if self.use_bias else y)


class Conv2D(L.Conv2D):
    def check(self) -> None:
        if self.groups != 1 or tuple(self.dilation_rate) != (1, 1) or self.data_format != "channels_last":
            raise _refused(self, "uses groups, dilation or channels_first", "Use plain channels_last convolutions.")

    def call(self, x: Any) -> Any:
        y = g.conv2d(x, tf.convert_to_tensor(self.kernel), tuple(self.strides), self.padding)
        return self.activation(y + self.bias if self.use_bias else y)


class DepthwiseConv2D(L.DepthwiseConv2D):
    def check(self) -> None:
        if self.depth_multiplier != 1 or tuple(self.dilation_rate) != (1, 1) or self.data_format != "channels_last":
            raise _refused(self, "uses depth_multiplier, dilation or channels_first", "Use depth_multiplier=1.")

    def call(self, x: Any) -> Any:
        y = g.depthwise_conv2d(x, tf.convert_to_tensor(self.kernel), tuple(self.strides), self.padding)
        return self.activation(y + self.bias if self.use_bias else y)


class BatchNormalization(L.BatchNormalization):
    """Ioffe and Szegedy 2015 (arXiv:1502.03167), with Keras's moving averages of the biased variance."""

    def check(self) -> None:
        if self.axis not in (-1, 3):
            raise _refused(self, f"normalizes axis {self.axis}", "Use the last axis.")

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


class ReLU(L.ReLU):
    def check(self) -> None:
        if self.max_value not in (None, 6, 6.0) or self.negative_slope or self.threshold:
            raise _refused(self, "is neither ReLU nor ReLU6", "Use ReLU() or ReLU(6).")

    def call(self, x: Any) -> Any:
        return g.relu(x) if self.max_value is None else g.relu6(x)


class Dropout(L.Dropout):
    def call(self, x: Any, training: bool = False) -> Any:
        return tf.nn.dropout(x, self.rate) if training and self.rate else x


class _Pooling:
    """Windows that neither overlap nor leave a rest, where the two paddings are the same."""

    def check(self: Any) -> None:
        if tuple(self.pool_size) != tuple(self.strides) or self.data_format != "channels_last":
            raise _refused(self, f"has pool_size {self.pool_size} and strides {self.strides}", "Make them equal.")

    def window(self: Any, x: Any) -> tuple[int, int]:
        if x.shape[1] % self.pool_size[0] or x.shape[2] % self.pool_size[1]:
            raise _refused(self, f"pools {x.shape[1]}x{x.shape[2]} by {self.pool_size}", "Pad to a multiple first.")
        return tuple(self.pool_size)


class MaxPooling2D(_Pooling, L.MaxPooling2D):
    def call(self, x: Any) -> Any:
        return g.max_pool(x, self.window(x))


class AveragePooling2D(_Pooling, L.AveragePooling2D):
    def call(self, x: Any) -> Any:
        return g.average_pool(x, self.window(x))


LAYERS: dict[type, Any] = {
    L.InputLayer: L.InputLayer,
    L.Flatten: L.Flatten,
    L.Reshape: L.Reshape,
    L.Add: L.Add,
    L.Concatenate: L.Concatenate,
    L.GlobalAveragePooling2D: L.GlobalAveragePooling2D,
    L.Activation: L.Activation,
    L.Softmax: L.Softmax,
    L.Dense: Dense,
    L.Conv2D: Conv2D,
    L.DepthwiseConv2D: DepthwiseConv2D,
    L.BatchNormalization: BatchNormalization,
    L.ReLU: ReLU,
    L.Dropout: Dropout,
    L.MaxPooling2D: MaxPooling2D,
    L.AveragePooling2D: AveragePooling2D,
}
