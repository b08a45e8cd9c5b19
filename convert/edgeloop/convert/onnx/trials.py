"""Made-up inputs of sensible sizes with ONNX Runtime's answers, at two sizes of every free dimension."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from edgeloop.convert.onnx.importer import Tensor
from edgeloop.convert.onnx.original import OriginalModel, TrialLimitError
from edgeloop.errors import ModelError

Two = tuple[int, int]  # a size for each of two trials; the same one twice for graphs that only call it free

BATCHES: tuple[Two, ...] = ((2, 3), (1, 2), (1, 1))
IMAGES: tuple[tuple[Two, Two], ...] = (  # heights and widths; readers of text take lines of one height
    *(((64, 96), (64, 96)), ((48, 48), (64, 96)), ((32, 32), (64, 96)), ((224, 256), (224, 256))),
    *(((320, 384), (320, 384)), ((224, 224), (224, 224)), ((640, 640), (640, 640))),
)
LENGTHS: tuple[Two, ...] = ((16, 24), (64, 96), (200, 256), (512, 640), (8, 8), (1, 1))
WAVES: tuple[Two, ...] = ((4000, 6000), (16000, 24000))  # of sound alone: a transformer compares all pairs
BELOW = (100, 10, 2)  # whole numbers; 2: indices into any table are in range
RATE_HZ = 16_000  # of a scalar input that is a sample rate
LIMIT_VALUES = 1 << 24  # of all inputs of a trial
LIMIT_TENSOR = 1 << 26  # elements: 268 MB, of which ONNX Runtime and TensorFlow hold a few at a time
LIMIT_CPU_S = 20.0  # for trying: on a busy machine no less is tried
LIMIT_RUN_CPU_S = 60.0  # of one run of one trial


@dataclass(frozen=True, slots=True)
class Recipe:
    """How inputs are made up: sizes of a free batch, of free heights of images, and of other free dimensions; whole
    numbers below `below`, floats of a normal distribution or between 0 and 1. `alone`: ONNX Runtime failed on more
    samples than one, all else equal."""

    batches: Two
    heights: Two
    sizes: Two
    below: int
    normal: bool
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Trial:
    """One call: inputs by ONNX's names, and ONNX Runtime's answers in the order of the outputs."""

    fed: Mapping[str, np.ndarray]
    answers: Sequence[np.ndarray]


def make_trials(original: OriginalModel, inputs: Sequence[Tensor]) -> tuple[list[Trial], Recipe]:
    """Two trials, or one where nothing is free, that ONNX Runtime answers with finite numbers; how they were made up.

    Raises:
        ModelError: It fails on everything that could be made up.
    """
    count = 2 if any(None in t.shape for t in inputs) else 1
    reason, end_cpu_s = "", time.process_time() + LIMIT_CPU_S
    limited = cache(original.limited)  # loads it, once
    refused: set[Recipe] = set()
    for recipe in _recipes(inputs):
        if time.process_time() > end_cpu_s:
            break
        rng = np.random.default_rng(0)
        trials: list[Trial] = []
        for k in range(count):
            fed = made_up(rng, inputs, recipe, k)
            if sum(array.size for array in fed.values()) > LIMIT_VALUES:
                reason = reason or f"its inputs are too large, at the sizes {_sizes(fed)}"
                break
            try:
                # of fixed sizes there are no smaller ones to try
                answers = original.run(fed) if count == 1 else _answers(original, limited, fed)
            except ModelError as e:
                reason = f"{e.found}, at the sizes {_sizes(fed)}"
                if not isinstance(e, TrialLimitError):
                    refused.add(recipe)
                break
            if not all(np.isfinite(a).all() for a in answers if a.dtype.kind == "f"):
                reason = reason or "its answers are not finite"
                break
            trials.append(Trial(fed, answers))
        if len(trials) == count:
            larger = {replace(recipe, batches=batches) for batches in BATCHES}
            return trials, replace(recipe, alone=max(recipe.batches) == 1 and bool(larger & refused))
    raise ModelError(
        f"no generated input can be used to check the conversion ({reason})",
        advice="Pass sizes with --shape NAME=SIZES, or convert the model that the .onnx was exported from.",
    )


def _answers(
    original: OriginalModel, limited: Callable[[], OriginalModel], fed: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """Those of the model, or of the limited one where not all sizes of its tensors can be told before.

    Raises:
        TrialLimitError: It takes too long, or a tensor is too large.
        ModelError: It cannot run.
    """
    name, elements, unknown = original.largest_tensor(fed)
    if elements > LIMIT_TENSOR:
        raise TrialLimitError(f"the tensor {name!r} has {elements} elements", advice="Pass smaller sizes with --shape.")
    return (limited() if unknown else original).run(fed, LIMIT_RUN_CPU_S)


def _sizes(fed: Mapping[str, np.ndarray]) -> str:
    return ", ".join(f"{name} {list(array.shape)}" for name, array in fed.items())


def made_up(rng: np.random.Generator, inputs: Sequence[Tensor], recipe: Recipe, trial: int) -> dict[str, np.ndarray]:
    """Inputs by ONNX's names for trial 0 or 1."""
    sizes = {"batch": recipe.batches[trial], "height": recipe.heights[trial]}
    other, names = recipe.sizes[trial], batch_names(inputs)
    fed = {}
    for t in inputs:
        axes = enumerate(t.shape)
        shape = [sizes.get(meaning(t, axis, names), other) if d is None else d for axis, d in axes]
        fed[t.name] = _values(rng, t, shape, recipe, other)
    return fed


def _values(rng: np.random.Generator, t: Tensor, shape: list[int], recipe: Recipe, size: int) -> np.ndarray:
    word, small = t.name.lower(), len(shape) <= 1
    if t.dtype.kind == "b":
        return rng.random(shape) < 0.5
    if t.dtype.kind in "iu":
        if small and ("rate" in word or word in ("sr", "fs")):
            return np.full(shape, RATE_HZ, t.dtype)
        if small and "len" in word:
            return np.full(shape, size, t.dtype)
        return rng.integers(0, recipe.below, shape).astype(t.dtype)
    values = rng.standard_normal(shape) if recipe.normal and shape else rng.random(shape)
    return np.asarray(values).astype(t.dtype)


def _recipes(inputs: Sequence[Tensor]) -> Iterator[Recipe]:
    """Those that differ for these inputs, the likely ones first."""
    names = batch_names(inputs)
    free = {meaning(t, axis, names) for t in inputs for axis, d in enumerate(t.shape) if d is None}
    lengths = (*LENGTHS, *(WAVES if any(map(_may_be_sound, inputs)) else ()))
    sizes = [(length, length) for length in (lengths if "length" in free else LENGTHS[:1])]
    if free & {"height", "width"}:
        sizes = [*IMAGES, *(sizes if "length" in free else ())]
    batches = BATCHES if "batch" in free else BATCHES[-1:]
    below = BELOW if any(t.dtype.kind in "iu" for t in inputs) else BELOW[:1]
    normal = (True, False) if any(t.dtype.kind not in "iub" for t in inputs) else (True,)
    for w, n, (height, size), b in itertools.product(below, normal, sizes, batches):
        yield Recipe(b, height, size, w, n)
    if "batch" in free:  # the first axis may be a length: [time, features]
        yield from (Recipe(s, s, s, w, n) for w, n, s in itertools.product(below, normal, LENGTHS))


def meaning(t: Tensor, axis: int, names: Collection[str]) -> str:
    """What a free axis of an input counts: "batch", "height", "width" or "length"; `names` as `batch_names`.

    A batch is the first axis, one of its name, or that of a state [layers, batch, units].
    """
    of_a_state = len(t.shape) == 3 and axis == 1 and None not in (t.shape[0], t.shape[2])
    if axis == 0 or t.names[axis] in names or of_a_state:
        return "batch"
    if len(t.shape) != 4:
        return "length"
    return "height" if axis == (1 if t.shape[3] is not None else 2) else "width"


def batch_names(inputs: Sequence[Tensor]) -> set[str]:
    """What free first axes are called."""
    return {t.names[0] for t in inputs if t.shape and t.shape[0] is None}


def with_batch_of_one(inputs: Sequence[Tensor]) -> dict[str, tuple[int | None, ...]]:
    """The shapes of those inputs that have a free batch, with one sample in it."""
    names = batch_names(inputs)
    return {
        t.name: tuple(1 if d is None and meaning(t, axis, names) == "batch" else d for axis, d in enumerate(t.shape))
        for t in inputs
        if any(d is None and meaning(t, axis, names) == "batch" for axis, d in enumerate(t.shape))
    }


def _may_be_sound(t: Tensor) -> bool:
    """[samples], [batch, samples] or [batch, 1, samples], in floats."""
    return t.dtype.kind not in "iub" and t.shape[-1:] == (None,) and t.shape[1:-1] in ((), (1,))
