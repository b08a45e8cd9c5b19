"""Run as a program by `teachers.py`: one teacher answers every example, in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.errors import DataError

if TYPE_CHECKING:
    from edgeloop.bundle import TensorSpec
    from edgeloop.cloud.train.distill.teachers import TeacherJob
    from edgeloop.processes.job_child import Events

BATCH = 64


def answer(job: TeacherJob, events: Events) -> dict[str, Any]:
    """See `TeacherJob`; returns {examples}."""
    from edgeloop.cloud.input.options import PipelineOptions
    from edgeloop.cloud.input.pipeline import evaluation_batches
    from edgeloop.cloud.input.readers import open_examples
    from edgeloop.convert.calls import fixed_batch
    from edgeloop.convert.same.runnable import open_runnable

    with open_runnable(job.teacher) as teacher:
        events.read()
        examples = open_examples(job.data)
        fixed = fixed_batch(teacher.inputs)
        parts: list[np.ndarray] = []
        done = 0
        for features, *_ in evaluation_batches(examples, PipelineOptions(batch=fixed or BATCH)).as_numpy_iterator():
            given = matched(features, teacher.inputs)
            count = len(next(iter(given.values())))
            answers = teacher.call(_filled(given, fixed or count))
            parts.append(np.asarray(answers[teacher.outputs[0].name])[:count])
            done += count
            events.progress(f"ask {job.teacher.name}", done, examples.count or done)
    np.save(job.answers, np.concatenate(parts))
    return {"examples": done}


def matched(features: Any, inputs: Sequence[TensorSpec]) -> dict[str, np.ndarray]:
    """The features by the names of the model's inputs: by name where all agree, else in their order.

    Raises:
        DataError: Another number of features than of inputs.
    """
    arrays: Mapping[str, np.ndarray] = features if isinstance(features, Mapping) else {"x": features}
    if len(arrays) != len(inputs):
        raise DataError(
            f"the data has the features {', '.join(arrays)}, and the teacher takes {len(inputs)} inputs",
            advice="Name the features that the teacher takes in [data] features.",
        )
    named = {spec.name for spec in inputs} == set(arrays)
    values = [arrays[spec.name] for spec in inputs] if named else list(arrays.values())
    return {spec.name: np.asarray(value, spec.dtype) for spec, value in zip(inputs, values, strict=True)}


def _filled(given: Mapping[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """The last sample again until a fixed batch is full."""
    return {name: np.concatenate([array, *[array[-1:]] * (size - len(array))]) for name, array in given.items()}


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

    from edgeloop.processes.job_child import serve

    serve(answer)
