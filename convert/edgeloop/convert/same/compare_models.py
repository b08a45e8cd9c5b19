"""Two models in, how far their answers differ out. Runs in the limited child: the models are read here."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.bundle import Scheme, TensorSpec
from edgeloop.convert.answers import finite_answers
from edgeloop.convert.calls import NotBatchedError, Outputs, first_axes_agree, fixed_batch, in_batches
from edgeloop.convert.look_up import look_up
from edgeloop.convert.proof.worst_layer import layer_snr
from edgeloop.convert.read_samples import LabelPolicy, read_samples
from edgeloop.convert.same.matching import Match, match_tensors
from edgeloop.convert.same.runnable import Runnable, open_runnable
from edgeloop.convert.samples import Samples, as_calls, synthetic
from edgeloop.convert.sources.custom_objects import import_layers
from edgeloop.errors import EdgeloopError
from edgeloop.processes.job_child import Events
from edgeloop.runtime.parity.compare import FLOORS, Floor, RunContext, classifies, compare, snr_db

LAYER_SAMPLES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SameJob:
    """What the parent asks for: `first` is the reference. `min_snr_db` None: the floor of the coarser scheme."""

    first: Path
    second: Path
    evaluation: Path | None
    signature: str | None
    min_snr_db: float | None
    allow_unsafe: bool
    imports: tuple[Path, ...] = ()


def compare_models(job: SameJob, events: Events) -> dict[str, Any]:
    """{first, second, samples, real, rows, matches, first_difference, notes}.

    Raises:
        ModelError: One of them cannot be read or run.
        DataError: The evaluation data does not fit the first model.
        ParityError: Their inputs or outputs do not match, so there is nothing to compare.
    """
    events.progress("compare", 0, 3)
    imported = [import_layers(file) for file in job.imports]
    unsafe = job.allow_unsafe or bool(job.imports)
    with (
        open_runnable(job.first, job.signature, allow_unsafe=unsafe) as first,
        open_runnable(job.second, job.signature, allow_unsafe=unsafe) as second,
    ):
        events.read()
        inputs = match_tensors(first.inputs, second.inputs, "inputs")
        samples = _samples(job, first, second, inputs)
        try:
            expected, got = _both(first, second, samples, inputs, events)
        except NotBatchedError:  # of a size that depends on the values, or not of the samples at all
            samples = as_calls(samples, first.inputs)
            expected, got = _both(first, second, samples, inputs, events)
        outputs = _match_outputs(expected, got)
        answered = {match.first: match.to_first(got[match.second]) for match in outputs}
        floor = floor_between(first.scheme, second.scheme, job.min_snr_db)
        where = RunContext(job.second.name, second.runtime)
        classifier = classifies(expected, samples.labels)
        rows = compare(
            where,
            floor,
            expected,
            answered,
            samples.labels,
            label_output=samples.label_output,
            classifier=classifier,
        )
        blame = None if all(row.passed for row in rows) else first_difference(first, second, samples, floor, inputs)
    events.progress("compare", 3, 3)
    return {
        "first": _described(first),
        "second": _described(second),
        "samples": len(samples),
        "real": samples.real,
        "matches": [asdict(match) for match in (*inputs, *outputs)],
        "rows": [asdict(row) for row in rows],
        "first_difference": blame,
        "notes": [*imported, *first.notes, *second.notes],
    }


def floor_between(first: Scheme, second: Scheme, min_snr_db: float | None) -> Floor:
    """What two models of these schemes must reach together: the lower of their floors, or `min_snr_db`."""
    floor = min((FLOORS[first], FLOORS[second]), key=lambda floor: floor.snr_db)
    return floor if min_snr_db is None else replace(floor, snr_db=min_snr_db, max_abs=None)


def first_difference(
    first: Runnable, second: Runnable, samples: Samples, floor: Floor, inputs: Sequence[Match]
) -> str | None:
    """The first layer, in the order of execution, whose output differs; None where layers cannot be matched."""
    a, b = first.source, second.source
    if a is None or b is None:
        return None
    if a.flatbuffer is not None and b.flatbuffer is not None:
        if a.signature != b.signature or any(match.first != match.second or match.axes for match in inputs):
            return None  # layer_snr is for files of one model
        try:
            rows = layer_snr(a.flatbuffer, b.flatbuffer, samples, a.signature)
        except EdgeloopError:  # it says more of two files of one model; these may be of two
            return None
        return next((row.text for row in rows if row.snr_db < floor.snr_db), None)
    if a.model is None or b.model is None:
        return None
    fixed = fixed_batch(first.inputs) or fixed_batch(second.inputs)
    batch = next(samples.batches(fixed or LAYER_SAMPLES, fill=fixed is not None))
    given = {match.second: match.to_second(batch[match.first]) for match in inputs}
    sides = [[values[spec.name] for spec in m.inputs] for m, values in ((first, batch), (second, given))]
    return _first_layer(a.model, b.model, sides[0], sides[1], floor)


def _first_layer(a: Any, b: Any, for_a: list[np.ndarray], for_b: list[np.ndarray], floor: Floor) -> str | None:
    """Of two Keras models, matched by the names of their layers."""
    import keras

    named = {layer.name: layer for layer in b.layers}
    for layer in a.layers:
        twin = named.get(layer.name)
        if twin is None or not layer.weights or not hasattr(layer, "output"):
            continue
        sides = ((a, layer, for_a), (b, twin, for_b))
        left, right = (np.asarray(keras.Model(m.inputs, one.output)(values)) for m, one, values in sides)
        if left.shape != right.shape:
            return f"{layer.name}: {list(left.shape)} and {list(right.shape)}"
        snr = snr_db(float(np.sum(np.square(left))), float(np.sum(np.square(left - right))))
        if snr is not None and snr < floor.snr_db:
            return f"{layer.name}, {snr:.1f} dB"
    return None


def _both(
    first: Runnable, second: Runnable, samples: Samples, inputs: Sequence[Match], events: Events
) -> tuple[Outputs, Outputs]:
    expected = finite_answers(first.call, samples, fixed_batch(first.inputs), str(first.path), "--eval")
    events.progress("compare", 1, 3)
    got = _answers(second, samples, inputs)
    events.progress("compare", 2, 3)
    return expected, got


def _samples(job: SameJob, first: Runnable, second: Runnable, inputs: Sequence[Match]) -> Samples:
    """The user's inputs, or made-up ones in sizes that both models take."""
    specs = {spec.name: spec for spec in second.inputs}
    joint = []
    for spec, match in zip(first.inputs, inputs, strict=True):
        shape = specs[match.second].shape
        back = shape if match.axes is None else tuple(shape[i] for i in np.argsort(match.axes))
        joint.append(
            replace(spec, shape=tuple(a if a is not None else b for a, b in zip(spec.shape, back, strict=True)))
        )
    whole = not (first_axes_agree(first.inputs) and first_axes_agree(second.inputs))
    if job.evaluation is None:
        return synthetic(joint, whole=whole)
    with tempfile.TemporaryDirectory() as scratch:
        path = job.evaluation if first.source is None else look_up(job.evaluation, first.source, Path(scratch) / "eval")
        # what is read of a file that is gone stays mapped
        return read_samples(path, first.inputs, labels=LabelPolicy.IF_ANY, whole=whole)


def _answers(second: Runnable, samples: Samples, inputs: Sequence[Match]) -> Outputs:
    dtypes = {spec.name: spec.dtype for spec in second.inputs}

    def call(batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        given = {match.second: match.to_second(batch[match.first]) for match in inputs}
        return second.call({n: np.ascontiguousarray(a, dtypes[n]) for n, a in given.items()})

    return in_batches(call, samples, fixed_batch(second.inputs))


def _match_outputs(expected: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray]) -> list[Match]:
    """By the sizes of the answers, which are known now though a file may leave them free."""
    sides = [[TensorSpec(n, value.shape, str(value.dtype)) for n, value in side.items()] for side in (expected, got)]
    return match_tensors(sides[0], sides[1], "outputs")


def _described(model: Runnable) -> dict[str, Any]:
    return {"model": str(model.path), "runtime": model.runtime, "scheme": model.scheme.value}
