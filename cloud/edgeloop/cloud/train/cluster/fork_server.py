"""A program that imports TensorFlow once and forks one process per task of a cluster.

Five processes that import TensorFlow at once took 35 s to their last step on two cores, five forks of one 14 s. A fork
is sound as long as the server has made no tensor and asked for no device: it imports, and does nothing else.

The tasks end with the server (prctl PR_SET_PDEATHSIG), and the server with the process that owns it.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import mmap
import os
import signal
import struct
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from edgeloop.cloud.train.run.beat import Beat
from edgeloop.errors import INTERRUPTED, EdgeloopError
from edgeloop.processes.children import end_with_parent
from edgeloop.processes.frames import serve
from edgeloop.processes.job_child import Events
from edgeloop.processes.messages import EmptyReply, Request, answering, by_name

SLOT = struct.Struct("qq")  # the last step of one task, and how often it told of one
TASKS = 256  # of one server in all


@dataclass(frozen=True)
class StartTask(Request["EmptyReply"]):
    """Fork one task: `program` ("module:function") is called with its arguments (JSON), `Events` and a `Beat`."""

    OP: ClassVar[str] = "start"
    REPLY: ClassVar[type] = EmptyReply
    name: str
    program: str
    arguments: Mapping[str, Any]
    environment: Mapping[str, str]
    log: str


@dataclass(frozen=True)
class SignalTask(Request["EmptyReply"]):
    """Send a signal to a task that still runs."""

    OP: ClassVar[str] = "signal"
    REPLY: ClassVar[type] = EmptyReply
    name: str
    number: int


@dataclass(frozen=True)
class TaskState:
    """What is known of a task.

    Attributes:
        code: As `subprocess` has it: -N for signal N. None: it still runs.
        step: Steps it has done; -1: it has told of none.
        beats: How often it has told of its step; one that does no longer hangs.
        events: What it sent since the last poll, one JSON object each: say, progress, and done, error or bug last.
    """

    pid: int
    code: int | None = None
    step: int = -1
    beats: int = 0
    events: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Tasks:
    """Every task that was started, by name."""

    tasks: Mapping[str, TaskState] = field(default_factory=dict, metadata=by_name(TaskState))


@dataclass(frozen=True)
class PollTasks(Request["Tasks"]):
    """How all tasks are."""

    OP: ClassVar[str] = "poll"
    REPLY: ClassVar[type] = Tasks


class _Forked:
    """One task on the server's side."""

    def __init__(self, pid: int, slot: int, events: int) -> None:
        self.pid, self.slot, self.events = pid, slot, events
        self.code: int | None = None
        self.rest = b""
        os.set_blocking(events, False)

    def state(self, steps: mmap.mmap) -> TaskState:
        if self.code is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.code = os.waitstatus_to_exitcode(status)
        told = []
        with contextlib.suppress(BlockingIOError):  # nothing more now
            while block := os.read(self.events, 1 << 16):
                *lines, self.rest = (self.rest + block).split(b"\n")
                told += [json.loads(line) for line in lines]
        step, beats = SLOT.unpack_from(steps, self.slot * SLOT.size)
        return TaskState(self.pid, self.code, step, beats, tuple(told))


class Server:
    """Starts tasks and answers how they are."""

    def __init__(self) -> None:
        self.steps = mmap.mmap(-1, TASKS * SLOT.size)  # anonymous and shared: a task writes, the server reads
        self.tasks: dict[str, _Forked] = {}
        self.started = 0

    def start(self, request: StartTask, payload: bytes) -> EmptyReply:
        slot, self.started = self.started % TASKS, self.started + 1
        SLOT.pack_into(self.steps, slot * SLOT.size, -1, 0)
        read, write = os.pipe()
        server, pid = os.getpid(), os.fork()
        if not pid:
            _become(request, write, self._beat(slot), server)
        os.close(write)
        self.tasks[request.name] = _Forked(pid, slot, read)
        return EmptyReply()

    def signal(self, request: SignalTask, payload: bytes) -> EmptyReply:
        task = self.tasks[request.name]
        if task.code is None:
            os.kill(task.pid, request.number)  # it is not reaped yet: the number is still its own
        return EmptyReply()

    def poll(self, request: PollTasks, payload: bytes) -> Tasks:
        return Tasks({name: task.state(self.steps) for name, task in self.tasks.items()})

    def _beat(self, slot: int) -> Beat:
        count = itertools.count(1)
        return lambda step: SLOT.pack_into(self.steps, slot * SLOT.size, step, next(count))


def _become(request: StartTask, events: int, beat: Beat, server: int) -> None:
    """The fork becomes the task; it never returns."""
    try:
        end_with_parent(server)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        log = os.open(request.log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (events, 1), (log, 2)):
            os.dup2(source, target)
        os.environ.update(request.environment)
        told = Events()
    except BaseException:  # before it can tell of itself; the server must not answer twice
        os._exit(1)
    code = 0
    try:
        module, _, name = request.program.partition(":")
        program = getattr(importlib.import_module(module), name)
        told.send(done=program(dict(request.arguments), told, beat))
    except EdgeloopError as e:
        print(f"edgeloop: {e}", file=sys.stderr)
        told.send(error=e.to_json())
        code = e.exit_code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BaseException:  # the launcher reports it as a bug
        traceback.print_exc()
        told.send(bug=traceback.format_exc())
        code = 1
    sys.stderr.flush()
    os._exit(code)  # a clean exit of TensorFlow waits for peers that may be gone


def main(modules: list[str]) -> None:
    """Import, say so by answering, and serve until the owner closes."""
    for module in modules:
        importlib.import_module(module)
    server = Server()
    serve(
        {
            StartTask.OP: answering(StartTask, server.start),
            SignalTask.OP: answering(SignalTask, server.signal),
            PollTasks.OP: answering(PollTasks, server.poll),
        },
        end_with_host=False,  # its thread would be one at every fork
    )


if __name__ == "__main__":
    main(sys.argv[1:])
