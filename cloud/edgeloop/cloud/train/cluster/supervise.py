"""Tasks of a training that start again when one is lost: after the last checkpoint, a bounded number of times.

Synchronous workers need each other: when one is lost all of them start again, on new ports. With parameter servers
only what was lost does, on its old port: a worker alone; a parameter server together with the coordinator, which gives
it back its variables; the coordinator alone.
"""

from __future__ import annotations

import itertools
import signal
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from edgeloop.cloud.train.cluster.cluster import Role
from edgeloop.cloud.train.cluster.fork_server import TaskState
from edgeloop.cloud.train.cluster.launching import Task, addresses
from edgeloop.cloud.train.cluster.losses import Loss, SupervisionOptions, find_loss
from edgeloop.cloud.train.cluster.preemption import asked_to_stop
from edgeloop.errors import DeviceError, EdgeloopError, error_from_json
from edgeloop.processes.job import WorkerBug
from edgeloop.progress import Progress, Say

LOOK_S = 0.02
LONGEST_WAIT_S = 30.0
END_S = 10.0  # for tasks that may still write, after another was lost or all is done


class Starter(Protocol):
    """What starts tasks: `launching.ForkServer`."""

    def start(self, task: Task, cluster: Mapping[Role, list[str]], attempt: int) -> None: ...

    def signal(self, task: Task, number: int) -> None: ...

    def poll(self) -> Mapping[str, TaskState]: ...


class Supervisor:
    """One training of several tasks, to its end.

    Args:
        tasks: How many of each role.
        say: Told of each loss in one line, and what the leading task says.
        progress: What the leading task tells.
    """

    def __init__(
        self, server: Starter, tasks: Mapping[Role, int], options: SupervisionOptions, say: Say, progress: Progress
    ) -> None:
        self.server, self.options, self.say, self.progress = server, options, say, progress
        self.tasks = [Task(role, index) for role, count in tasks.items() for index in range(count)]
        self.leader = Task(Role.CHIEF if Role.CHIEF in tasks else Role.WORKER, 0)
        self.parameter_servers = Role.PS in tasks
        self._coordinator = self.leader if self.parameter_servers else None
        self._tasks_by_role = dict(tasks)
        self._cluster: dict[Role, list[str]] = {}
        self._attempts = itertools.count(1)
        self._losses = Counter[Role]()  # of the evaluator, and of all others under the leader's role
        self._given_up: set[Task] = set()
        self._failures: dict[Task, EdgeloopError | WorkerBug] = {}
        self._result: dict[str, Any] | None = None
        self._beats, self._quiet_since = 0, 0.0

    def run(self) -> dict[str, Any]:
        """What the leading task returned.

        Raises:
            EdgeloopError: A task raised one that another attempt would raise again; or DeviceError: too many losses.
            WorkerBug: A task raised anything else.
            KeyboardInterrupt: The owner was asked to end; the tasks had time to write a checkpoint.
        """
        with asked_to_stop() as asked:  # no signal comes between a request to the server and its answer
            self._start_all()
            try:
                while not asked.asked:
                    states = self._look()
                    if self._result is not None and states[self.leader].code == 0:
                        self._wait([t for t in self.tasks if t.role == Role.EVALUATOR], self.options.hang_timeout_s)
                        self._end(self.tasks, grace_s=END_S)
                        return self._result
                    current = {task: state for task, state in states.items() if task not in self._given_up}
                    quiet_s = time.monotonic() - self._quiet_since
                    lost = find_loss(current, self._failures, quiet_s, self.options, self._coordinator)
                    if lost is not None:
                        self._recover(lost)
                    time.sleep(LOOK_S)
            except (EdgeloopError, WorkerBug):
                self._end(self.tasks, grace_s=0.0)
                raise
            self._end(self.tasks, number=signal.SIGTERM, grace_s=self.options.hang_timeout_s)  # a checkpoint is written
            raise KeyboardInterrupt

    def _start_all(self) -> None:
        self._cluster = addresses(self._tasks_by_role)
        self._start(self.tasks)

    def _start(self, tasks: list[Task]) -> None:
        attempt = next(self._attempts)
        for task in tasks:
            self._failures.pop(task, None)
            self._given_up.discard(task)
            self.server.start(task, self._cluster, attempt)
        self._quiet_since, self._beats = time.monotonic(), -1

    def _look(self) -> dict[Task, TaskState]:
        """How all tasks are; what they told is passed on."""
        by_name = self.server.poll()
        states = {task: by_name[task.name] for task in self.tasks}
        for task, state in states.items():
            for event in state.events:
                self._hear(task, event)
        beats = sum(state.beats for state in states.values())
        if beats != self._beats:
            self._beats, self._quiet_since = beats, time.monotonic()
        return states

    def _hear(self, task: Task, event: Mapping[str, Any]) -> None:
        if "error" in event:
            self._failures[task] = error_from_json(event["error"], where=task.name)
        elif "bug" in event:
            self._failures[task] = WorkerBug(f"{task.name}: {event['bug']}")
        elif task == self.leader or task.role == Role.EVALUATOR:
            if "done" in event and task == self.leader:
                self._result = event["done"]
            elif "say" in event:
                self.say(event["say"])
            elif "progress" in event:
                self.progress(*event["progress"])

    def _recover(self, lost: Loss) -> None:
        measures = lost.task is not None and lost.task.role == Role.EVALUATOR
        role = Role.EVALUATOR if measures else self.leader.role
        self._losses[role] += 1
        losses = self._losses[role]
        if lost.task is not None and measures and losses > self.options.restarts:  # no training ends for want of it
            self.say(f"Lost: {lost.what}. It is not started again, and training goes on without it.")
            self._given_up.add(lost.task)
            return
        if losses > self.options.restarts:
            raise DeviceError(
                f"{lost.what}, and the tasks were started again {self.options.restarts} times already",
                advice="Read the logs of the tasks in the run folder, and run the same command again to go on.",
            )
        again = self._again(lost)
        names = "all tasks start" if again == self.tasks else f"{_names(again)} {'start' if again[1:] else 'starts'}"
        self.say(f"Lost: {lost.what}. Now {names} again ({losses} of at most {self.options.restarts} restarts).")
        # a checkpoint may still be being written: a task that notices the loss waits for it, then ends
        self._end(again, grace_s=END_S if lost.task is not None else 0.0)
        time.sleep(min(self.options.wait_s * 2 ** (losses - 1), LONGEST_WAIT_S))
        if again == self.tasks:
            self._start_all()
        else:
            self._start(again)

    def _again(self, lost: Loss) -> list[Task]:
        """Which tasks have to start again."""
        if lost.task is None:
            return self.tasks
        if lost.task.role == Role.EVALUATOR or (self.parameter_servers and lost.task.role != Role.PS):
            return [lost.task]
        if self.parameter_servers:
            return [lost.task, self.leader]
        return self.tasks

    def _end(self, tasks: list[Task], *, number: int = 0, grace_s: float) -> None:
        """Wait until the tasks have ended by themselves, `number` being sent first; after `grace_s` kill them."""
        started = self.server.poll()
        alive = [task for task in tasks if task.name in started]
        acting = [task for task in alive if not self._serves(task)]  # the others are needed until these have ended
        for task in acting if number else []:
            self.server.signal(task, number)
        self._wait(acting, grace_s)
        for task in alive:
            self.server.signal(task, signal.SIGKILL)
        self._wait(alive, END_S)

    def _serves(self, task: Task) -> bool:
        """Whether it only answers others, and never ends by itself."""
        return task.role == Role.PS or (self.parameter_servers and task.role == Role.WORKER)

    def _wait(self, tasks: list[Task], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            states = self._look()
            if all(states[task].code is not None or is_stopped(states[task].pid) for task in tasks):
                return
            time.sleep(LOOK_S)


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped (SIGSTOP): it ends by itself no more, and only SIGKILL reaches it.

    Source: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html, field 3
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:  # it is gone, or this is no Linux
        return False


def _names(tasks: list[Task]) -> str:
    return " and ".join(task.name for task in tasks)
