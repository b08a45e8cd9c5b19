"""A source and samples in, what the source answers to them out: what every form is compared with."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgeloop.bundle import TensorSpec
from edgeloop.convert.calls import Arrays, NotBatchedError, Outputs, fixed_batch, in_batches
from edgeloop.convert.samples import FREE_SIZE, MADE_UP_VALUES, SPANS, SYNTHETIC, Samples, as_calls, synthetic
from edgeloop.convert.sources.source import Source
from edgeloop.errors import DataError, ModelError

QUIET = 1e-4  # the largest value of an output that says next to nothing
FREE_SIZES = (FREE_SIZE, 64, 128, 256, 512, 1024, 4096, 16384, 16, 8, 4, 2, 1)


def answers(source: Source, samples: Samples, sizes: Mapping[str, Sequence[int]] = {}) -> tuple[Samples, Outputs, int]:
    """The samples as the source was called with them, its answers {output: [n, ...]}, and their span if made up.

    Where an answer turns out to have no batch axis, or a size that depends on the values, samples are called one by
    one. Made-up samples are made up anew while an output is empty for all of them.

    Raises:
        ModelError: The source cannot be run.
        DataError: It answers NaN or infinity, or nothing at all.
    """
    for span in range(len(SPANS)):
        if span:
            samples = synthetic(source.inputs, whole=samples.whole, span=span, sizes=sizes, below=source.below)
        try:
            found = _called(source, samples)
        except NotBatchedError:
            samples = as_calls(samples, source.inputs)
            if not samples.real:
                samples = synthetic(source.inputs, whole=True, span=span, sizes=sizes, below=source.below)
            found = _called(source, samples)
        empty = [name for name, value in found.items() if not value.size]
        if not empty:
            return samples, found, span
        if samples.real:
            break
    what = "these inputs" if samples.real else "every generated input"
    raise DataError(
        f"the source model's output {empty[0]!r} is empty for {what}, so nothing can be compared",
        advice="Pass real inputs for which it is not, with --calibration or --eval.",
    )


def calls(source: Source, samples: Samples) -> Sequence[Arrays]:
    """The samples as the source is called with them."""
    fixed = fixed_batch(source.inputs)
    return list(samples.batches(fixed or len(samples), fill=fixed is not None))


def made_up_sizes(source: Source, *, whole: bool) -> Mapping[str, tuple[int, ...]]:
    """The shapes of one call of a made-up sample: of its own sizes, where it knows any, else the first that it runs at.

    A model that crops or convolves without padding answers nothing, or an error, to inputs that are too short.
    """
    shapes = [spec.shape if whole else spec.shape[1:] for spec in source.inputs]
    if not any(None in shape for shape in shapes):
        return {}
    if source.sizes and SYNTHETIC * sum(map(math.prod, source.sizes.values())) <= MADE_UP_VALUES:
        return source.sizes
    count = 1 if whole else fixed_batch(source.inputs) or 1
    for size in FREE_SIZES:
        values = sum(math.prod(size if d is None else d for d in shape) for shape in shapes)
        if values * SYNTHETIC > MADE_UP_VALUES:
            continue
        sizes = {spec.name: tuple(size if d is None else d for d in spec.shape) for spec in source.inputs}
        (made,) = synthetic(source.inputs, whole=whole, sizes=sizes, below=source.below, count=count).batches(count)
        with contextlib.suppress(ModelError):  # too small for this model, or no multiple of what it wants
            if all(np.size(value) for value in source.call(made).values()):
                return sizes
    return {}


def finite_answers(
    call: Callable[[Arrays], Arrays], samples: Samples, fixed: int | None, whose: str, option: str
) -> Outputs:
    """As `in_batches`, of a model that others are compared with: `whose` names it, `option` takes real inputs.

    Raises:
        DataError: It answers NaN or infinity.
        NotBatchedError: As `in_batches`.
    """
    what = "these inputs" if samples.real else "generated inputs between 0 and 1"
    do = "Check the model and the inputs." if samples.real else f"Pass real inputs with {option}."

    def checked(batch: Arrays) -> Arrays:
        answer = call(batch)
        for name, value in answer.items():
            if np.asarray(value).dtype.kind == "f" and not np.isfinite(value).all():
                raise DataError(
                    f"{whose} itself returns NaN or infinity in {name!r} for {what}, so nothing can be compared",
                    advice=do,
                )
        return answer

    return in_batches(checked, samples, fixed)


def _called(source: Source, samples: Samples) -> Outputs:
    return finite_answers(source.call, samples, fixed_batch(source.inputs), "the source model", "--calibration")


def one_call_each(inputs: Sequence[TensorSpec]) -> str:
    """What a user should know of a model without a batch axis."""
    sizes = {t.name: ["n", *("any" if d is None else str(d) for d in t.shape)] for t in inputs}
    shapes = " and ".join(f"{name} [{', '.join(each)}]" for name, each in sizes.items())
    return (
        "The model has no batch axis, so each sample is all that one call takes: "
        f"an .npz for --calibration and --eval holds {shapes}."
    )


def quiet_outputs(found: Outputs) -> str:
    """What a user should know where generated inputs prove little; empty where they do not."""
    quiet = [
        repr(name)
        for name, value in found.items()
        if value.dtype.kind == "f" and 0 < np.max(np.abs(value), initial=0.0) <= QUIET
    ]
    if not quiet:
        return ""
    which = f"outputs {' and '.join(quiet)} stay" if len(quiet) > 1 else f"output {quiet[0]} stays"
    return (
        f"For generated inputs the {which} below {QUIET:g}, so the check says little. "
        "Pass real inputs with --eval F.npz."
    )


def with_seen_shapes(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], answers: Mapping[str, np.ndarray], *, whole: bool
) -> tuple[TensorSpec, ...]:
    """The outputs with every size free that the source's answers show to be another than the file says."""
    made = []
    for spec in outputs:
        seen = answers[spec.name].shape[1:]
        first, said = ((), spec.shape) if whole else (inputs[0].shape[:1], spec.shape[1:])
        if len(said) == len(seen):
            spec = replace(spec, shape=(*first, *(d if d == s else None for d, s in zip(said, seen, strict=True))))
        made.append(spec)
    return tuple(made)
