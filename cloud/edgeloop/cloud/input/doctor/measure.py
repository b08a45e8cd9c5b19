"""Short runs of a training's own step, with and without its input."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgeloop.cloud.input.doctor.bound import Figures
from edgeloop.cloud.input.examples import Examples
from edgeloop.cloud.input.options import PipelineOptions
from edgeloop.cloud.input.pipeline import batches
from edgeloop.extras import need
from edgeloop.runtime.agent.machine.memory import ram

WARM_UP = 3  # batches before the clock starts: threads begin, buffers fill
LEAST_STEPS = 3
REPEATS = 3

TakeSteps = Callable[[Any, int], None]  # (iterator, n): n training steps, each on the iterator's next batch


def as_it_is(dataset: Any) -> Any:
    """The `place` of a step that takes a plain dataset."""
    return dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is measured.

    Attributes:
        examples: Without a cache.
        take_steps: Returns when all steps are computed.
        seconds: Of one run, about.
        accelerator: Whether steps run on a GPU or TPU.
        place: Makes of a dataset what `take_steps` takes, e.g. distributes it to devices.
    """

    examples: Examples
    take_steps: TakeSteps
    seconds: float
    accelerator: bool = False
    place: Callable[[Any], Any] = as_it_is


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """One run: seconds of each batch, and what the process used."""

    batch_s: float
    cpu_share: float
    faults_per_s: float


def read_only(iterator: Any, count: int) -> None:
    """A `TakeSteps` that computes nothing."""
    for _ in range(count):
        next(iterator)


def rate(dataset: Any, take_steps: TakeSteps, seconds: float) -> Rate:
    """Take steps for about so many seconds, on a new iterator; its threads end with it."""
    iterator = iter(dataset)
    take_steps(iterator, WARM_UP)
    began, cpu, faults = time.perf_counter(), time.process_time(), _faults()
    done, now, passed = 0, LEAST_STEPS, 0.0
    while passed < seconds or done == 0:
        take_steps(iterator, now)
        done, passed = done + now, time.perf_counter() - began
        now = max(1, min(done, int((seconds - passed) * done / max(passed, 1e-9))))  # what is left, no more than twice
    cores = len(os.sched_getaffinity(0))
    share = (time.process_time() - cpu) / (passed * cores)
    return Rate(batch_s=passed / done, cpu_share=min(1.0, share), faults_per_s=(_faults() - faults) / passed)


def both(subject: Subject, examples: Examples, options: PipelineOptions) -> Callable[[], float]:
    """Measures examples per second of steps with their input."""
    dataset = subject.place(batches(examples, options))
    return lambda: options.batch / rate(dataset, subject.take_steps, subject.seconds).batch_s


def figures(subject: Subject, examples: Examples, options: PipelineOptions) -> Figures:
    """Input alone, step alone and both, in turns; the run of the median speed of each."""
    dataset = batches(examples, options)
    one = dataset.take(1).cache().repeat()
    kinds = {
        "input": (dataset, read_only),
        "step": (subject.place(one), subject.take_steps),
        "both": (subject.place(dataset), subject.take_steps),
    }
    runs: dict[str, list[Rate]] = {name: [] for name in kinds}
    for _ in range(REPEATS):
        for name, (source, take) in kinds.items():
            runs[name].append(rate(source, take, subject.seconds))
    middle = {name: sorted(found, key=lambda run: run.batch_s)[REPEATS // 2] for name, found in runs.items()}
    memory = ram()
    cores = len(os.sched_getaffinity(0))
    total, left = memory["ram_total_bytes"], memory["ram_available_bytes"]
    return Figures(
        batch=options.batch,
        input_s=middle["input"].batch_s,
        step_s=middle["step"].batch_s,
        both_s=middle["both"].batch_s,
        input_cpu_share=middle["input"].cpu_share,
        cpu_share=middle["both"].cpu_share,
        faults_per_s=middle["both"].faults_per_s,
        memory_left_share=left / total if isinstance(left, int) and isinstance(total, int) else None,
        cores=cores,
        threads=cores if options.parallel_map == 0 else min(options.parallel_map, cores),
        accelerator=subject.accelerator,
    )


def accelerated() -> bool:
    """Whether TensorFlow finds a GPU or a TPU."""
    tf = need("tensorflow", extra="cloud")
    return bool(tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"))


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt
