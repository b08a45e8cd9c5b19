"""What every device would have to do to an input, made part of the model: resize, range, mean and standard deviation.

    what the device gives -> [resize] -> x * scale + shift -> what the model was trained on

Range, mean and standard deviation are one multiplication and one addition of constants, so that no more than two ops
of int8 rounding come before the model's first layer; either is left out where it would change nothing.

Sources
    the ops  https://www.tensorflow.org/api_docs/python/tf/raw_ops/ResizeBilinear (half-pixel centres, as
             tf.image.resize), https://ai.google.dev/edge/litert/models/quantization_spec (MUL, ADD, RESIZE_BILINEAR)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeloop.bundle import Kind, TensorSpec
from edgeloop.convert.sources.source_value import Arrays, Source
from edgeloop.errors import OptionsError
from edgeloop.extras import need


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """From what a device gives to what the model takes, in this order.

    Attributes:
        resize: Height and width in pixels of what the device gives; resized to the model's own, bilinear without
            antialiasing: an image more than twice as large loses detail that a camera's own scaler would keep.
        input_range: Lowest and highest value of what the device gives, mapped to 0 and 1.
        mean, std: (x - mean) / std of what `input_range` left, one number or one a channel (the last axis).
        input: Which input. None: the only image, else the only input.
    """

    input_range: tuple[float, float] | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    resize: tuple[int, int] | None = None
    input: str | None = None

    def __post_init__(self) -> None:
        if self.input_range is not None:
            low, high = self.input_range
            if not -math.inf < low < high < math.inf:
                raise OptionsError(
                    f"--input-range is {low:g},{high:g}",
                    advice="Pass two finite numbers, the lower one first, e.g. 0,255.",
                )
            if not all(0 <= m <= 1 for m in self.mean):
                raise OptionsError(
                    f"--mean {_list(self.mean)} is outside 0..1, the range that --input-range maps to",
                    advice="Pass mean and std of values between 0 and 1, or leave --input-range out.",
                )
        if len(self.mean) != len(self.std) and 1 not in (len(self.mean), len(self.std)):
            raise OptionsError(
                f"--mean has {len(self.mean)} numbers and --std {len(self.std)}",
                advice="Pass one number, or one per channel, in both.",
            )
        if not self.mean or not self.std or not all(map(math.isfinite, self.mean)) or not all(s > 0 for s in self.std):
            raise OptionsError(
                f"--mean is {_list(self.mean)} and --std is {_list(self.std)}",
                advice="Pass finite numbers, and a std above 0.",
            )
        scale, shift = self.affine
        if not (np.isfinite(scale).all() and np.isfinite(shift).all() and scale.all()):
            raise OptionsError(
                f"--mean {_list(self.mean)} and --std {_list(self.std)} do not fit float32",
                advice="Pass the mean and the standard deviation of the inputs themselves.",
            )
        if self.resize is not None and min(self.resize) < 1:
            raise OptionsError(
                f"--resize is {_list(self.resize)}", advice="Pass height and width in pixels, e.g. 480,640."
            )
        if self.resize is None and (scale == 1).all() and (shift == 0).all():
            raise OptionsError(
                "this preprocessing would change nothing", advice="Pass --input-range, --mean, --std or --resize."
            )

    @property
    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """`scale` and `shift` (float32, [1] or [channels]): x * scale + shift is range, mean and std in one."""
        low, high = self.input_range or (0.0, 1.0)
        mean, std = np.asarray(self.mean, np.float64), np.asarray(self.std, np.float64)
        with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):  # looked for by the caller
            scale = 1 / ((high - low) * std)
            shift = -(low / (high - low) + mean) / std
            return scale.astype(np.float32), shift.astype(np.float32)


def with_preprocessing(source: Source, p: Preprocessing) -> Source:
    """`source` as devices call it: float32 as they have it in, the model's own outputs out.

    `model` stays the model as it was trained; whoever traces it instead of `graph` applies `preprocess_tensors` first.

    Raises:
        OptionsError: The source is a .tflite, or `p` does not fit its inputs.
    """
    graph, own, original, judge = source.graph, source.inputs, source.call, source.judge
    if graph is None:
        raise OptionsError(
            f"{source.path} is a .tflite file, into which preprocessing cannot be built",
            advice="Convert the Keras model instead.",
        )
    target = _target(p, own)
    _check(p, target)

    def call(arrays: Arrays) -> dict[str, np.ndarray]:
        return original({name: np.asarray(value) for name, value in preprocess_tensors(p, arrays, own).items()})

    def judged(calls: Sequence[Arrays]) -> None:
        assert judge is not None  # or this is not called
        judge([{n: np.asarray(v) for n, v in preprocess_tensors(p, arrays, own).items()} for arrays in calls])

    def traced(**given: Any) -> list[Any]:
        return graph(**preprocess_tensors(p, given, own))

    raw = replace(target, range=p.input_range)
    if p.resize is not None:
        batch, _, _, channels = target.shape
        raw = replace(raw, shape=(batch, *p.resize, channels))
    inputs = tuple(raw if t is target else t for t in own)
    return replace(source, inputs=inputs, call=call, graph=traced, judge=judged if judge is not None else None)


def preprocess_tensors(p: Preprocessing, given: Mapping[str, Any], inputs: Sequence[TensorSpec]) -> dict[str, Any]:
    """Named tensors as devices have them in, as the model takes them out; other inputs pass through.

    `inputs` are the model's own, from before `with_preprocessing`. Works on tensors being traced and on arrays.

    Raises:
        OptionsError: `p` does not fit `inputs`.
    """
    tf = need("tensorflow", extra="convert")
    target = _target(p, inputs)
    value = tf.convert_to_tensor(given[target.name], tf.float32)
    if p.resize is not None and p.resize != target.shape[1:3]:
        value = tf.raw_ops.ResizeBilinear(images=value, size=list(target.shape[1:3]), half_pixel_centers=True)
    scale, shift = p.affine
    if (scale != 1).any():
        value = value * scale
    if (shift != 0).any():
        value = value + shift
    return {**given, target.name: value}


def _target(p: Preprocessing, inputs: Sequence[TensorSpec]) -> TensorSpec:
    """The input that `p` is about."""
    names = ", ".join(t.name for t in inputs)
    if p.input is not None:
        found = [t for t in inputs if t.name == p.input]
        if not found:
            raise OptionsError(f"the model has no input {p.input!r} to preprocess", advice=f"It has: {names}.")
        return found[0]
    images = [t for t in inputs if t.kind is Kind.IMAGE]
    candidates = images or list(inputs)
    if len(candidates) != 1:
        raise OptionsError(
            f"the model has the inputs {names}", advice="Name the one to preprocess in Preprocessing(input=...)."
        )
    return candidates[0]


def _check(p: Preprocessing, target: TensorSpec) -> None:
    if target.dtype != "float32":
        raise OptionsError(
            f"the input {target.name!r} is {target.dtype}, and preprocessing produces float32",
            advice="Choose a float32 input, or leave the preprocessing out.",
        )
    numbers, channels = max(len(p.mean), len(p.std)), target.shape[-1] if len(target.shape) > 1 else 1
    if numbers > 1 and numbers != channels:
        raise OptionsError(
            f"--mean and --std have {numbers} numbers, the input {target.name!r} {channels or 'any number of'} "
            "channels",
            advice="Pass one number, or one per channel.",
        )
    if p.resize is None:
        return
    size = "[" + ", ".join("any" if d is None else str(d) for d in target.shape) + "]"
    if target.kind is not Kind.IMAGE or len(target.shape) != 4 or target.layout not in (None, "NHWC"):
        raise OptionsError(
            f"--resize applies to images, and the input {target.name!r} is {size}", advice="Leave --resize out."
        )
    if None in target.shape[1:3]:
        raise OptionsError(f"the input {target.name!r} {size} accepts every size already", advice="Leave --resize out.")


def _list(numbers: Sequence[float]) -> str:
    return ",".join(f"{n:g}" for n in numbers)
