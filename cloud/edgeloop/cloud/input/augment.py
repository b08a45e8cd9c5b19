"""Augmentation of training batches. Each step's draws derive from (seed, step), so a resumed training repeats them.

An augmentation is a function `(features, labels, seed) -> (features, labels)` of a whole batch; `seed` is an int64 [2]
tensor for TensorFlow's stateless random functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgeloop.cloud.input.order import unconverted
from edgeloop.cloud.input.seeds import Purpose, seed_of
from edgeloop.cloud.input.user_function import function_of
from edgeloop.errors import OptionsError
from edgeloop.extras import need
from edgeloop.settings import suggestion

Augmentation = Callable[[Any, Any, Any], tuple[Any, Any]]
SHIFT = 0.1  # of height and of width, at most
BRIGHTNESS = 0.2  # added at most; images are in 0..1


def flip(features: Any, labels: Any, seed: Any) -> tuple[Any, Any]:
    """Mirror half of the images [b, h, w, c] left to right."""
    tf = need("tensorflow", extra="cloud")
    mirrored = tf.random.stateless_uniform([tf.shape(features)[0], 1, 1, 1], seed) < 0.5
    return tf.where(mirrored, tf.reverse(features, [2]), features), labels


def shift(features: Any, labels: Any, seed: Any) -> tuple[Any, Any]:
    """Move each image [b, h, w, c] by up to a tenth of its size; its edge fills what becomes free."""
    tf = need("tensorflow", extra="cloud")
    batch = tf.shape(features)[0]
    for axis in (1, 2):
        size = features.shape[axis]
        most = int(size * SHIFT)
        by = tf.random.stateless_uniform([batch, 1], seed + axis, -most, most + 1, dtype=tf.int64)
        rows = tf.clip_by_value(tf.range(size, dtype=tf.int64)[None] + by, 0, size - 1)
        features = tf.gather(features, rows, axis=axis, batch_dims=1)
    return features, labels


def brightness(features: Any, labels: Any, seed: Any) -> tuple[Any, Any]:
    """Make each image [b, h, w, c] in 0..1 brighter or darker by up to 0.2."""
    tf = need("tensorflow", extra="cloud")
    by = tf.random.stateless_uniform([tf.shape(features)[0], 1, 1, 1], seed, -BRIGHTNESS, BRIGHTNESS)
    return tf.clip_by_value(features + tf.cast(by, features.dtype), 0, 1), labels


AUGMENTATIONS: Mapping[str, Augmentation] = {"flip": flip, "shift": shift, "brightness": brightness}


def augmentation(names: Sequence[str], seed: int) -> Callable[[Any, Any, Any], tuple[Any, Any]] | None:
    """`(features, labels, step)` -> the batch after all of these, one after another; None: there are none.

    Raises:
        OptionsError: A name that is neither in AUGMENTATIONS nor a function that can be imported.
    """
    if not names:
        return None
    functions = [_function(name) for name in names]
    tf = need("tensorflow", extra="cloud")

    def augment(features: Any, labels: Any, step: Any) -> tuple[Any, Any]:
        for place, function in enumerate(functions):
            key = tf.constant(seed_of(seed + place, Purpose.AUGMENT), tf.int64)
            features, labels = function(features, labels, tf.stack([key, step]))
        return features, labels

    return augment


def _function(name: str) -> Augmentation:
    if name in AUGMENTATIONS:
        return unconverted(AUGMENTATIONS[name])
    if ":" not in name:
        advice = f"{suggestion(name, AUGMENTATIONS)} A function of your own is package.module:function."
        raise OptionsError(f"augment {name!r} is not known", advice=advice)
    return function_of(name)
