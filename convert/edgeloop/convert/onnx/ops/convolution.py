"""Convolutions and their transposes, channels last; over one spatial axis as over an image of height 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.ops.padding import Pads, padded
from edgeloop.convert.onnx.ops.windows import Windows, windows
from edgeloop.convert.onnx.value import AtRunTime, Unsupported, Value, channels_last, shape_of, size
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")


def conv(n: Node, x: Value, w: Value, b: Value | None = None) -> Value:
    """Conv (ONNX 1, 11, 22). SAME equals ONNX's pads for stride 1 and sizes that fit; else PAD and VALID."""
    window, groups = windows(n, w.dims[2:], x.dims[2:]), n.attr("group", 1)
    t, filters = x.last(), filters_last(w)
    if len(window.kernel) == 1:
        t, filters, window = tf.expand_dims(t, 1), filters[None], window.with_height()
    if window.how == "VALID":
        t = padded(t, window.around_image())
    if w.dims[1] is not None and t.shape[-1] is None:  # set_shape alone is forgotten by TensorFlow's converter
        t = tf.reshape(t, shape_of([*(size(t, axis) for axis in range(t.shape.rank - 1)), groups * w.dims[1]]))
    y = convolved(t, filters, window, groups)
    if b is not None:
        y = tf.nn.bias_add(y, b.onnx())
    return Value(tf.squeeze(y, 1) if x.rank == 3 else y, x.dtype, channels_last(x.rank))


def filters_last(w: Value) -> Any:
    """Weights as TensorFlow has them: ONNX's (output, input, spatial ...) as (spatial ..., input, output)."""
    return w.to((*range(2, w.rank), 1, 0))


def convolved(t: Any, filters: Any, window: Windows, groups: int) -> Any:
    """Three spatial axes group by group; one channel a group as a depthwise convolution; other groups as one CONV_2D.

    Output channels lie (input channel, multiplier) in ONNX and TensorFlow. A depthwise convolution takes equal strides,
    and no strides with holes in the kernel.
    """
    how, strides, dilations = window.how, list(window.strides), list(window.dilations)
    if len(strides) == 3:
        return by_group(
            lambda a, f: tf.nn.conv3d(a, f, [1, *strides, 1], how, dilations=[1, *dilations, 1]), t, filters, groups
        )
    stride, flat = strides[-1], window.kernel[0] == 1 and t.shape[1] == 1  # along a height of 1 any stride is the same
    holes = any(d != 1 for d in dilations)
    if groups > 1 and groups == t.shape[-1] and (strides[0] == stride or flat) and not (holes and stride > 1):
        filters = tf.reshape(filters, [*filters.shape[:2], groups, -1])
        return tf.nn.depthwise_conv2d(t, filters, [1, stride, stride, 1], how, dilations=dilations)
    return tf.nn.conv2d(t, filters, strides, how, dilations=dilations)


def by_group(function: Callable[..., Any], t: Any, filters: Any, groups: int) -> Any:
    """`function(part of t, part of the filters)` for each group, side by side."""
    if groups == 1:
        return function(t, filters)
    parts = zip(tf.split(t, groups, -1), tf.split(filters, groups, -1), strict=True)
    return tf.concat([function(*part) for part in parts], -1)


def conv_transpose(n: Node, x: Value, w: Value, b: Value | None = None) -> Value:
    """ConvTranspose (ONNX 1, 11, 22).

    TRANSPOSE_CONV's VALID is the whole, of max(kernel, stride) for every element: what is over is cut, what lacks is
    zero. SAME is used where it cuts the same. One channel a group: see `stuffed`.
    """
    w, groups, rank = with_holes(n, w), n.attr("group", 1), w.rank - 2
    kernel, strides = [int(k or 0) for k in w.dims[2:]], list(n.attr("strides", [1] * rank))
    if not all(kernel) or not 0 < rank < 4:
        raise Unsupported(f"a transposed convolution with weights of the sizes {w.dims}")
    cuts, extra = overlap(n, x.dims[2:], kernel, strides)
    t, filters = x.last(), filters_last(w)
    if rank == 1:
        t, filters = tf.expand_dims(t, 1), filters[None]
        kernel, strides, cuts, extra = [1, *kernel], [1, *strides], [(0, 0), *cuts], [0, *extra]
    if groups > 1 and groups == x.dims[1] and rank < 3:
        y = stuffed(t, filters, strides, cuts, extra)
    else:
        y = transposed_convolution(t, filters, groups, strides, cuts, extra)
    if b is not None:
        y = tf.nn.bias_add(y, b.onnx())
    return Value(tf.squeeze(y, 1) if rank == 1 else y, x.dtype, channels_last(x.rank))


def with_holes(n: Node, w: Value) -> Value:
    """Weights of a dilated kernel, with the zeros between."""
    dilations = n.attr("dilations", [1] * (w.rank - 2))
    if all(d == 1 for d in dilations):
        return w
    if w.const is None:
        raise Unsupported("dilated weights that are computed at run time")
    sizes = ((k - 1) * d + 1 for k, d in zip(w.const.shape[2:], dilations, strict=True))
    spread = np.zeros((*w.const.shape[:2], *sizes), w.dtype)
    spread[(slice(None), slice(None), *(slice(None, None, d) for d in dilations))] = w.const
    return Value(const=spread)


def overlap(
    n: Node, dims: Sequence[int | None], kernel: Sequence[int], strides: Sequence[int]
) -> tuple[list[tuple[int, int]], list[int]]:
    """What is cut off before and behind the whole of stride * (size - 1) + kernel elements, and how many zeros follow.

    From pads and output_padding; or from output_shape or auto_pad, which share the difference between both sides.
    """
    pads, goal, mode = n.attr("pads", [0] * 2 * len(kernel)), n.attr("output_shape"), n.attr("auto_pad", "NOTSET")
    extra, cuts = list(n.attr("output_padding", [0] * len(kernel))), []
    for i, (d, k, s) in enumerate(zip(dims, kernel, strides, strict=True)):
        if goal is None and not mode.startswith("SAME"):
            cuts.append((pads[i], pads[i + len(kernel)]) if mode != "VALID" else (0, 0))
            continue
        if d is None and goal is not None:
            raise AtRunTime("output_shape of a free size")
        # for SAME the size itself drops out: stride * (size - 1) + kernel - stride * size
        total = extra[i] + k - s if goal is None or d is None else s * (d - 1) + extra[i] + k - goal[i - len(kernel)]
        if total < 0:
            cuts.append((0, 0))
            extra[i] -= total
            continue
        half = total // 2
        cuts.append((half, total - half) if mode == "SAME_UPPER" else (total - half, half))
    return cuts, extra


def transposed_convolution(
    t: Any, filters: Any, groups: int, strides: Sequence[int], cuts: Pads, extra: Sequence[int]
) -> Any:
    """Channels last, group by group; `filters` are (spatial ..., output of a group, input)."""
    kernel = filters.shape[: len(strides)].as_list()
    function = tf.nn.conv3d_transpose if len(kernel) == 3 else tf.nn.conv2d_transpose
    axes = list(zip(cuts, extra, kernel, strides, strict=True))
    fits = all(a + c - e == k - s and a == (k - s) // 2 and k >= s for (a, c), e, k, s in axes)
    sizes = [size(t, i + 1) for i in range(len(kernel))]
    outs = [i * s if fits else i * s - s + max(k, s) for i, s, k in zip(sizes, strides, kernel, strict=True)]
    shape = shape_of([size(t, 0), *outs, filters.shape[-2]])
    how = "SAME" if fits else "VALID"
    y = by_group(lambda part, f: function(part, f, shape, list(strides), how), t, filters, groups)
    if fits:
        return y
    return padded(y, [(0, 0), *[(-a, -c + e - (max(k, s) - k)) for (a, c), e, k, s in axes], (0, 0)])


def stuffed(t: Any, filters: Any, strides: Sequence[int], cuts: Pads, extra: Sequence[int]) -> Any:
    """One channel a group: a depthwise convolution of the image with stride - 1 zeros behind every element.

    One operator instead of a TRANSPOSE_CONV for each channel. `filters` are (height, width, multiplier, channel).
    """
    batch, height, width, channels = size(t, 0), size(t, 1), size(t, 2), t.shape[3]
    if strides[1] > 1:
        t = tf.reshape(t, shape_of([batch, height * width, 1, channels]))
        t = tf.pad(t, [[0, 0], [0, 0], [0, strides[1] - 1], [0, 0]])
        width *= strides[1]
        t = tf.reshape(t, shape_of([batch, height, width, channels]))
    if strides[0] > 1:
        t = tf.reshape(t, shape_of([batch, height, 1, width * channels]))
        t = tf.pad(t, [[0, 0], [0, 0], [0, strides[0] - 1], [0, 0]])
        t = tf.reshape(t, shape_of([batch, height * strides[0], width, channels]))
    kernel = filters.shape[:2].as_list()
    pads = [(k - 1 - a, k - 1 - c + e - (s - 1)) for (a, c), e, k, s in zip(cuts, extra, kernel, strides, strict=True)]
    turned = tf.transpose(filters[::-1, ::-1], (0, 1, 3, 2))
    return tf.nn.depthwise_conv2d(padded(t, [(0, 0), *pads, (0, 0)]), turned, [1, 1, 1, 1], "VALID")


OPS: dict[str, Callable[..., Any]] = {"Conv": conv, "ConvTranspose": conv_transpose}
