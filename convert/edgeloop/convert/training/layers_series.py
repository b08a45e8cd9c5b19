"""Layers of series [batch, time, channels] on device gradients, as images one pixel wide; and layers over time."""

from __future__ import annotations

from typing import Any

from edgeloop.convert.training.convolutions import conv2d, conv2d_transpose, depthwise_conv2d
from edgeloop.convert.training.layer_refusal import layer_refusal, only_last_channels
from edgeloop.convert.training.pooling import average_pool, max_pool
from edgeloop.convert.training.slicing import take
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")
L: Any = need("keras", extra="convert").layers

Tensor = Any


def _image(x: Tensor) -> Tensor:
    """[batch, time, channels] to [batch, time, 1, channels]."""
    return tf.reshape(x, [-1, x.shape[1], 1, x.shape[2]])


def _series(x: Tensor) -> Tensor:
    return tf.reshape(x, [-1, x.shape[1], x.shape[3]])


def _kernel(w: Any) -> Tensor:
    """[window, in, out] to [window, 1, in, out]."""
    w = tf.convert_to_tensor(w)
    return tf.reshape(w, [w.shape[0], 1, *w.shape[1:]])


def _check_convolution(layer: Any) -> None:
    only_last_channels(layer)
    if getattr(layer, "groups", 1) != 1:
        raise layer_refusal(layer, f"has {layer.groups} groups", "Use groups=1, or a DepthwiseConv1D.")


def _options(layer: Any) -> tuple[tuple[int, int], str, tuple[int, int]]:
    """Stride, padding and dilation of the same convolution of an image one pixel wide."""
    return (layer.strides[0], 1), layer.padding, (layer.dilation_rate[0], 1)


class Conv1D(L.Conv1D):
    check = staticmethod(_check_convolution)

    def call(self, x: Any) -> Any:
        stride, padding, dilation = _options(self)
        if padding == "causal":
            x, padding = tf.pad(x, [[0, 0], [(self.kernel_size[0] - 1) * dilation[0], 0], [0, 0]]), "valid"
        y = _series(conv2d(_image(x), _kernel(self.kernel), stride, padding, dilation))
        return self.activation(y + self.bias if self.use_bias else y)


class DepthwiseConv1D(L.DepthwiseConv1D):
    check = staticmethod(_check_convolution)

    def call(self, x: Any) -> Any:
        y = _series(depthwise_conv2d(_image(x), _kernel(self.kernel), *_options(self)))
        return self.activation(y + self.bias if self.use_bias else y)


class SeparableConv1D(L.SeparableConv1D):
    check = staticmethod(_check_convolution)

    def call(self, x: Any) -> Any:
        y = depthwise_conv2d(_image(x), _kernel(self.depthwise_kernel), *_options(self))
        y = _series(conv2d(y, _kernel(self.pointwise_kernel), (1, 1), "valid"))
        return self.activation(y + self.bias if self.use_bias else y)


class Conv1DTranspose(L.Conv1DTranspose):
    check = staticmethod(only_last_channels)

    def call(self, x: Any) -> Any:
        stride, padding, dilation = _options(self)
        size = (self.compute_output_shape(x.shape)[1], 1)
        y = _series(conv2d_transpose(_image(x), _kernel(self.kernel), size, stride, padding, dilation))
        return self.activation(y + self.bias if self.use_bias else y)


class MaxPooling1D(L.MaxPooling1D):
    check = staticmethod(only_last_channels)

    def call(self, x: Any) -> Any:
        return _series(max_pool(_image(x), (self.pool_size[0], 1), (self.strides[0], 1), self.padding))


class AveragePooling1D(L.AveragePooling1D):
    check = staticmethod(only_last_channels)

    def call(self, x: Any) -> Any:
        return _series(average_pool(_image(x), (self.pool_size[0], 1), (self.strides[0], 1), self.padding))


class UpSampling1D(L.UpSampling1D):
    def call(self, x: Any) -> Any:
        _, steps, channels = x.shape
        return tf.reshape(tf.concat([_image(x)] * self.size, 2), [-1, steps * self.size, channels])


class RepeatVector(L.RepeatVector):
    def call(self, x: Any) -> Any:
        return tf.stack([x] * self.n, 1)


class Cropping1D(L.Cropping1D):
    def call(self, x: Any) -> Any:
        return take(x, (slice(None), slice(self.cropping[0], x.shape[1] - self.cropping[1])))


class TimeDistributed(L.TimeDistributed):
    """The layer on all time steps at once, as one batch."""

    @staticmethod
    def check(layer: Any) -> None:
        from edgeloop.convert.training.layers import check_layer

        inner = layer.layer
        if isinstance(inner, (L.BatchNormalization, L.Dropout, L.TimeDistributed)):
            raise layer_refusal(layer, f"holds a {type(inner).__name__}", "Use one that computes each sample alone.")
        check_layer(inner)

    @classmethod
    def of(cls, layer: Any) -> Any:
        from edgeloop.convert.training.layers import trainable_layer

        return cls(trainable_layer(layer.layer), name=layer.name, trainable=layer.trainable)

    def call(self, x: Any, training: bool = False, mask: Any = None) -> Any:
        batch, steps = x.shape[:2]
        y = self.layer(tf.reshape(x, [batch * steps, *x.shape[2:]]))
        return tf.reshape(y, [batch, steps, *y.shape[1:]])
