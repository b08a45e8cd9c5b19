"""How tasks are, in; which of them was lost and why, out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeloop.cloud.train.cluster.cluster import Role
from edgeloop.cloud.train.cluster.fork_server import TaskState
from edgeloop.cloud.train.cluster.launching import Task
from edgeloop.errors import INTERRUPTED, DeviceError, EdgeloopError
from edgeloop.processes.exit_status import ExitStatus, signal_of
from edgeloop.processes.job import WorkerBug
from edgeloop.quantities import above_zero, at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisionOptions:
    """When tasks count as lost, and how often they start again.

    Attributes:
        restarts: How often in all; the next loss after that ends the training. The evaluator's are counted apart: after
            as many it stays away.
        wait_s: Before the first restart; twice as long before each further one, at most 30 s.
        hang_timeout_s: Without a step of any task for so long, all of them start again.
        start_timeout_s: The same before the first step, which takes longer: TensorFlow traces and compiles it.
    """

    restarts: int = 10
    wait_s: float = 0.2
    hang_timeout_s: float = 300.0
    start_timeout_s: float = 600.0

    def __post_init__(self) -> None:
        at_least(self.restarts, 0, "restarts")
        for name in ("wait_s", "hang_timeout_s", "start_timeout_s"):
            above_zero(getattr(self, name), name)


@dataclass(frozen=True, slots=True)
class Loss:
    """What was lost, and why: `worker 1 was ended by signal SIGKILL at step 57`.

    Attributes:
        task: None: it is not known which one hangs.
    """

    task: Task | None
    what: str


def find_loss(
    states: Mapping[Task, TaskState],
    failures: Mapping[Task, EdgeloopError | WorkerBug],
    quiet_s: float,
    options: SupervisionOptions,
    coordinator: Task | None,
) -> Loss | None:
    """The task that is to blame, where one ended badly or none takes a step any more.

    Args:
        failures: What tasks raised.
        quiet_s: How long no task has given a sign of life.
        coordinator: Of parameter servers; None: there are none.

    Raises:
        EdgeloopError, WorkerBug: A task raised it, and another attempt would raise it again. Without its evaluator a
            training goes on.
    """
    step = max((state.step for state in states.values()), default=-1)
    at = f" at step {step}" if step >= 0 else " before its first step"
    ended = {task: state for task, state in states.items() if state.code not in (None, 0)}
    for task, state in ended.items():
        if state.code == INTERRUPTED:
            return Loss(task, f"{task.name} was asked to end{at}")
    for task, state in ended.items():
        if signal_of(state.code):
            return Loss(task, f"{task.name} was ended by {_how(state)}{at}")
    for task in ended:
        failure = failures.get(task)
        if failure is not None and task.role != Role.EVALUATOR and not _another_attempt_helps(failure):
            raise failure
    for task, state in ended.items():
        failure = failures.get(task)
        why = failure.found if isinstance(failure, EdgeloopError) else _how(state)
        # a coordinator that is well itself tells of a task that hangs: which one, nobody knows
        hangs = task == coordinator and isinstance(failure, DeviceError)
        return Loss(None if hangs else task, f"{task.name} failed{at}: {why}")
    limit_s = options.hang_timeout_s if step >= 0 else options.start_timeout_s
    return Loss(None, f"no task took a step for {limit_s:g} s{at}") if quiet_s > limit_s else None


def _another_attempt_helps(failure: EdgeloopError | WorkerBug) -> bool:
    """Lost processes, servers and connections may come back; wrong options, data and code do not change."""
    return isinstance(failure, DeviceError)


def _how(state: TaskState) -> str:
    return ExitStatus(state.code, signal_of(state.code)).how
