"""GPipe's schedule: all micro-batches forward through the stages, then backward, one thread for each stage.

Source: Huang et al., GPipe, https://arxiv.org/abs/1811.06965, section 2.3 and figure 2c.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol

TIMEOUT_S = 600.0  # of one micro-batch in the stage before, its compilation included


class Runs(Protocol):
    """What the schedule asks of a stage; a last stage computes its forward pass within `backward`."""

    forward: Callable[[Sequence[Any], Any], list[Any]]
    backward: Callable[[Sequence[Any], Any, Any], tuple[list[Any], list[Any], list[Any], Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRun:
    """What one stage made of one batch.

    Attributes:
        gradients: Of its trainable weights, summed over the micro-batches.
        statistics: Of its other weights, summed over the micro-batches.
        loss: Sum over the micro-batches; of the last stage alone.
        busy_s: Time in which it computed.
    """

    gradients: list[Any]
    statistics: list[Any]
    loss: float
    busy_s: float


class StageFailed(Exception):
    """A neighbour failed; its own error says why."""


def run_pipeline(
    stages: Sequence[Runs],
    batches: Sequence[Sequence[Any]],
    labels: Sequence[Any],
    index: Callable[[int], Any],
    pool: Executor,
) -> tuple[list[StageRun], float]:
    """One batch through all stages.

    Args:
        batches: Micro-batches, each the inputs of the first stage.
        labels: For each micro-batch what the last stage's `backward` takes.
        index: Turns the number of a micro-batch into what the stages take.
        pool: With a free thread for every stage.

    Returns:
        What each stage made, and the seconds from the first forward to the last backward.
    """
    ahead: list[queue.Queue] = [queue.Queue() for _ in range(len(stages) + 1)]
    behind: list[queue.Queue] = [queue.Queue() for _ in range(len(stages) + 1)]
    for batch in batches:
        ahead[0].put(batch)
    for label in labels:
        behind[-1].put(label)
    start = time.perf_counter()
    work = [
        pool.submit(_run_stage, stage, k == len(stages) - 1, len(batches), index, ahead[k : k + 2], behind[k : k + 2])
        for k, stage in enumerate(stages)
    ]
    try:
        errors = [error for error in (future.exception() for future in work) if error is not None]
    except BaseException as e:  # Ctrl-C: the threads must not go on waiting for each other
        for waiting in (*ahead, *behind):
            waiting.put(StageFailed(str(e)))
        raise
    for error in sorted(errors, key=lambda e: isinstance(e, StageFailed)):
        raise error
    return [future.result() for future in work], time.perf_counter() - start


def _run_stage(
    stage: Runs,
    last: bool,
    count: int,
    index: Callable[[int], Any],
    ahead: list[queue.Queue],
    behind: list[queue.Queue],
) -> StageRun:
    busy_s = loss = 0.0
    gradients: list[Any] = []
    statistics: list[Any] = []
    kept = []
    try:
        for i in range(0 if last else count):
            kept.append(_take(ahead[0]))
            start = time.perf_counter()
            outputs = stage.forward(kept[i], index(i))
            _finish(outputs)
            busy_s += time.perf_counter() - start
            ahead[1].put(outputs)
        for i in range(count):
            if (
                last
            ):  # begins with the first micro-batch that arrives, not with all: 0.35 of the time was lost otherwise
                kept.append(_take(ahead[0]))
            outgoing = _take(behind[1])
            start = time.perf_counter()
            incoming, weights, state, total = stage.backward(kept[i], outgoing, index(i))
            kept[i] = None
            gradients = _sum(gradients, weights)
            statistics = _sum(statistics, state)
            loss += float(total)
            busy_s += time.perf_counter() - start
            behind[0].put(incoming)
    except BaseException as e:
        failed = StageFailed(str(e))
        ahead[1].put(failed)
        behind[0].put(failed)
        raise
    return StageRun(gradients=gradients, statistics=statistics, loss=loss, busy_s=busy_s)


def _take(source: queue.Queue) -> Any:
    value = source.get(timeout=TIMEOUT_S)
    if isinstance(value, StageFailed):
        raise value
    return value


def _sum(total: list[Any], more: list[Any]) -> list[Any]:
    return [a + b for a, b in zip(total, more, strict=True)] if total else list(more)


def _finish(outputs: Sequence[Any]) -> None:
    """Wait for the values: TensorFlow may hand out tensors that a GPU still computes."""
    for tensor in outputs[:1]:
        if hasattr(tensor, "numpy"):
            tensor[..., :0].numpy() if tensor.shape.rank else tensor.numpy()
