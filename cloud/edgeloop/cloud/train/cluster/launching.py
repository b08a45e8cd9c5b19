"""The tasks of a training, started on this machine: as a cluster manager does it on several, with TF_CONFIG set.

--launch 2               two workers (MultiWorkerMirrored)
--launch ps=2,worker=2   a coordinator (chief), two parameter servers, two workers
--launch worker=2,evaluator=1
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeloop.cloud.train.cluster.cluster import TF_CONFIG, Role
from edgeloop.cloud.train.cluster.fork_server import PollTasks, SignalTask, StartTask, TaskState
from edgeloop.errors import OptionsError
from edgeloop.processes.children import owned
from edgeloop.processes.conversation import Conversation
from edgeloop.processes.ports import LOOPBACK, free_ports
from edgeloop.settings import suggestion

IMPORT_TIMEOUT_S = 180.0  # for TensorFlow and Keras: 8 s on two idle cores
FRAMEWORKS = ("tensorflow", "keras")
QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "GRPC_FAIL_FAST": "use_caller",  # a lost parameter server is an error, not a wait
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",  # gRPC would send loopback through a proxy of the environment
    "no_grpc_proxy": "127.0.0.1",
}


def parse_tasks(text: str) -> dict[Role, int]:
    """How many tasks of each role `--launch` names; with parameter servers the coordinator is added.

    Raises:
        OptionsError: Another form, an unknown role, or roles that make no cluster.
    """
    known = [role.value for role in Role]
    found: dict[Role, int] = {}
    for part in (f"worker={text}" if text.isdecimal() else text).split(","):
        name, _, count = part.strip().partition("=")
        if name not in known:
            raise OptionsError(f"--launch has the task {name!r}", advice=suggestion(name, known))
        if not count.isdecimal() or not 0 < int(count) <= 64 or Role(name) in found:
            raise OptionsError(
                f"--launch is {text!r}", advice="Write a number of workers, or ROLE=COUNT once a role: ps=2,worker=2."
            )
        found[Role(name)] = int(count)
    if Role.PS in found:
        found.setdefault(Role.CHIEF, 1)
    if found.get(Role.CHIEF, 1) > 1 or found.get(Role.EVALUATOR, 1) > 1:
        raise OptionsError(f"--launch is {text!r}", advice="A cluster has at most one chief and one evaluator.")
    if Role.WORKER not in found and (Role.PS in found or Role.CHIEF not in found):
        raise OptionsError(f"--launch is {text!r}", advice="Add workers, e.g. worker=2.")
    return {role: found[role] for role in Role if role in found}


@dataclass(frozen=True, slots=True)
class Task:
    """One process of a cluster."""

    role: Role
    index: int

    @property
    def name(self) -> str:
        return f"{self.role.value} {self.index}"


def addresses(tasks: Mapping[Role, int]) -> dict[Role, list[str]]:
    """A free port of loopback for every task that others speak with; the evaluator speaks with none."""
    spoken = {role: count for role, count in tasks.items() if role != Role.EVALUATOR}
    ports = iter(free_ports(sum(spoken.values())))
    return {role: [f"{LOOPBACK}:{next(ports)}" for _ in range(count)] for role, count in spoken.items()}


def tf_config(task: Task, cluster: Mapping[Role, Sequence[str]]) -> str:
    """The value of TF_CONFIG for one task."""
    listed = {role.value: list(one) for role, one in cluster.items()}
    return json.dumps({"cluster": listed, "task": {"type": task.role.value, "index": task.index}})


class ForkServer:
    """The tasks of this machine, each forked from one process that has imported TensorFlow."""

    def __init__(self, conversation: Conversation, program: str, arguments: Mapping[str, Any], logs: Path) -> None:
        self._conversation, self.program, self.arguments, self.logs = conversation, program, arguments, logs

    def running(self, program: str, arguments: Mapping[str, Any], logs: Path) -> ForkServer:
        """The same server for the tasks of another training; what it imported is there already."""
        logs.mkdir(parents=True, exist_ok=True)
        return ForkServer(self._conversation, program, arguments, logs)

    def start(self, task: Task, cluster: Mapping[Role, Sequence[str]], attempt: int) -> None:
        """Begin a task; what it prints is added to its log."""
        environment = {TF_CONFIG: tf_config(task, cluster)}
        arguments = {**self.arguments, "attempt": attempt}
        log = str(self.logs / f"{task.role.value}-{task.index}.log")
        self._conversation.request(StartTask(task.name, self.program, arguments, environment, log))

    def signal(self, task: Task, number: int) -> None:
        self._conversation.request(SignalTask(task.name, number))

    def poll(self) -> Mapping[str, TaskState]:
        """How every task is, by name."""
        return self._conversation.request(PollTasks())[0].tasks


@contextlib.contextmanager
def fork_server(
    program: str, arguments: Mapping[str, Any], logs: Path, modules: Sequence[str] = FRAMEWORKS
) -> Iterator[ForkServer]:
    """A server for tasks that run `program`; the tasks end with the block.

    Raises:
        DeviceError: It does not start, or ended.
    """
    logs.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **QUIET, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    environment.pop(TF_CONFIG, None)
    command = [sys.executable, "-W", "ignore", "-m", "edgeloop.cloud.train.cluster.fork_server", *modules]
    pipe = -1  # subprocess.PIPE
    with (
        tempfile.TemporaryFile() as log,
        owned(command, stdin=pipe, stdout=pipe, stderr=log, env=environment, grace_s=0.2) as child,
    ):
        yield ForkServer(Conversation(child, "the fork server", IMPORT_TIMEOUT_S, log), program, arguments, logs)
