"""Layers of images on device gradients. Images are [batch, height, width, channels]."""

from __future__ import annotations

from typing import Any

from edgeloop.convert.training.convolutions import conv2d, conv2d_transpose, depthwise_conv2d
from edgeloop.convert.training.layer_refusal import layer_refusal, only_last_channels
from edgeloop.convert.training.pooling import average_pool, max_pool
from edgeloop.convert.training.resampling import resize
from edgeloop.convert.training.slicing import take
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")
L: Any = need("keras", extra="convert").layers


def _check_convolution(layer: Any) -> None:
    only_last_channels(layer)
    if getattr(layer, "groups", 1) != 1:
        raise layer_refusal(layer, f"has {layer.groups} groups", "Use groups=1, or a DepthwiseConv2D.")


class Conv2D(L.Conv2D):
    check = staticmethod(_check_convolution)

    def call(self, x: Any) -> Any:
        kernel = tf.convert_to_tensor(self.kernel)
        y = conv2d(x, kernel, tuple(self.strides), self.padding, tuple(self.dilation_rate))
        return self.activation(y + self.bias if self.use_bias else y)


class DepthwiseConv2D(L.DepthwiseConv2D):
    check = staticmethod(_check_convolution)

    def call(self, x: Any) -> Any:
        kernel = tf.convert_to_tensor(self.kernel)
        y = depthwise_conv2d(x, kernel, tuple(self.strides), self.padding, tuple(self.dilation_rate))
        return self.activation(y + self.bias if self.use_bias else y)


class SeparableConv2D(L.SeparableConv2D):
    """A depthwise convolution, then one of 1x1 (Chollet 2017, arXiv:1610.02357)."""

    check = staticmethod(_check_convolution)

    def call(self, x: Any) -> Any:
        kernel = tf.convert_to_tensor(self.depthwise_kernel)
        y = depthwise_conv2d(x, kernel, tuple(self.strides), self.padding, tuple(self.dilation_rate))
        y = conv2d(y, tf.convert_to_tensor(self.pointwise_kernel), (1, 1), "valid")
        return self.activation(y + self.bias if self.use_bias else y)


class Conv2DTranspose(L.Conv2DTranspose):
    check = staticmethod(only_last_channels)

    def call(self, x: Any) -> Any:
        kernel, size = tf.convert_to_tensor(self.kernel), self.compute_output_shape(x.shape)[1:3]
        y = conv2d_transpose(x, kernel, size, tuple(self.strides), self.padding, tuple(self.dilation_rate))
        return self.activation(y + self.bias if self.use_bias else y)


class MaxPooling2D(L.MaxPooling2D):
    check = staticmethod(only_last_channels)

    def call(self, x: Any) -> Any:
        return max_pool(x, tuple(self.pool_size), tuple(self.strides), self.padding)


class AveragePooling2D(L.AveragePooling2D):
    check = staticmethod(only_last_channels)

    def call(self, x: Any) -> Any:
        return average_pool(x, tuple(self.pool_size), tuple(self.strides), self.padding)


class UpSampling2D(L.UpSampling2D):
    @staticmethod
    def check(layer: Any) -> None:
        only_last_channels(layer)
        if layer.interpolation not in ("nearest", "bilinear"):
            raise layer_refusal(layer, f"interpolates by {layer.interpolation}", "Use nearest or bilinear.")

    def call(self, x: Any) -> Any:
        _, height, width, _ = x.shape
        return resize(x, (height * self.size[0], width * self.size[1]), self.interpolation)


class Cropping2D(L.Cropping2D):
    check = staticmethod(only_last_channels)

    def call(self, x: Any) -> Any:
        rows, cols = (
            slice(first, size - last) for size, (first, last) in zip(x.shape[1:3], self.cropping, strict=True)
        )
        return take(x, (slice(None), rows, cols))
