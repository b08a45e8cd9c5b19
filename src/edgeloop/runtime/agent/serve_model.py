"""Runs a model on a device: the standard library, NumPy and one runtime. Python 3.9 syntax.

    agent-HASH.pyz runtime.agent.serve_model RUNTIME ROOT

RUNTIME is a name of runtime_table.RUNTIMES; models are opened below ROOT.

It answers the requests of protocol.py, each by the method of its name, and ends when stdin does or at `close`.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from edgeloop.disk_errors import writing
from edgeloop.processes.frames import pack, serve, unpack
from edgeloop.processes.messages import EmptyReply, answering
from edgeloop.runtime.agent.machine.memory import own_bytes
from edgeloop.runtime.agent.paths import confined, resolved
from edgeloop.runtime.agent.protocol import (
    REQUESTS,
    ConditionsReply,
    ConditionsRequest,
    LoadgenReply,
    LoadgenRequest,
    PrepareReply,
    PrepareRequest,
    ProbeReply,
    ProbeRequest,
    ProfileReply,
    ProfileRequest,
    RunReply,
    RunRequest,
    SelfCheckReply,
    SelfCheckRequest,
    TensorsRequest,
)
from edgeloop.runtime.agent.push import PushReply, PushRequest

RUNS_LIMIT = 10_000  # of one question: their times go into a frame's header, which has at most 1 MiB


class ModelOperations:
    """One runtime and the model it has loaded; what it is asked, by name."""

    def __init__(self, runtime: str, root: str) -> None:
        self.name, self.root = runtime, root
        self.runtime: Any = None
        self.import_ms = 0.0
        self.first_ns: int | None = None
        self.condition_reader: Any = None
        self.signatures: Mapping[str, Any] = {}
        self.reference_runs: Any = None

    def _runtime(self) -> Any:
        if self.runtime is None:
            start = time.perf_counter()
            from edgeloop.runtime.agent.runtimes import LOADERS

            self.runtime = LOADERS[self.name]()
            self.import_ms = (time.perf_counter() - start) * 1e3
        return self.runtime

    def probe(self, asked: ProbeRequest, payload: bytes) -> ProbeReply:
        from edgeloop.runtime.agent.machine.capabilities import capabilities

        version = self._runtime().version
        return ProbeReply(
            runtime=self.name,
            version=version,
            python=platform.python_version(),
            machine=platform.machine(),
            cpus=os.cpu_count(),
            tensorflow="tensorflow" in sys.modules,
            capabilities=capabilities(),
        )

    def push(self, asked: PushRequest, payload: bytes) -> PushReply:
        from edgeloop.runtime.agent.receive import receive  # with hashlib, and that with OpenSSL: 4 MB

        with writing(self.root):
            return receive(self.root, asked, payload)

    def prepare(self, asked: PrepareRequest, payload: bytes) -> PrepareReply:
        path = confined(self.root, asked.path)
        runtime = self._runtime()
        start = time.perf_counter()
        signatures = runtime.load(path, asked.threads, asked.keep, asked.delegate)
        load_ms = (time.perf_counter() - start) * 1e3
        self.signatures, self.reference_runs = signatures, None
        return PrepareReply(load_ms, self.import_ms, signatures, runtime.arena_bytes(), runtime.delegated)

    def run(self, asked: RunRequest, payload: bytes) -> tuple[RunReply, bytes]:
        runs = checked(asked.runs)
        call = self.runtime.ready(asked.signature or "", unpack(payload))
        switches = involuntary_switches()
        for _ in range(asked.warmup):
            call.invoke()
        started, wall, cpu = timed(call.invoke, runs)
        first_ns = self.first_ns = started[0] if self.first_ns is None else self.first_ns
        reply = RunReply(
            wall_ms=[ns / 1e6 for ns in wall],
            cpu_ms=[ns / 1e6 for ns in cpu],
            started_s=[(ns - first_ns) / 1e9 for ns in started],
            involuntary_switches=involuntary_switches() - switches,
            **own_bytes(),
        )
        return reply, pack(call.outputs())

    def self_check(self, asked: SelfCheckRequest, payload: bytes) -> SelfCheckReply:
        if self.reference_runs is None:
            from edgeloop.runtime.agent.own_model import OwnModel  # with all that compares outputs
            from edgeloop.runtime.parity.compare import RunContext
            from edgeloop.runtime.parity.reference_runs import ReferenceRuns

            where = RunContext(asked.variant, self.name, self._runtime().version)
            self.reference_runs = ReferenceRuns(OwnModel(self.runtime), self.signatures, self.root, where)
        done = self.reference_runs.first() if asked.first else self.reference_runs.check()
        parity = [asdict(row) for row in done.parity]
        return SelfCheckReply(parity, done.wrong, done.wall_ms, own_bytes()["rss_peak_bytes"])

    def conditions(self, asked: ConditionsRequest, payload: bytes) -> ConditionsReply:
        if self.condition_reader is None:
            from edgeloop.runtime.agent.machine.conditions import ConditionReader

            self.condition_reader = ConditionReader()
        return ConditionsReply(self.condition_reader.read())

    def profile(self, asked: ProfileRequest, payload: bytes) -> ProfileReply:
        runs = checked(asked.runs)
        return ProfileReply(**self.runtime.profile(asked.signature or "", unpack(payload), runs, asked.xnnpack))

    def loadgen(self, asked: LoadgenRequest, payload: bytes) -> tuple[LoadgenReply, bytes]:
        from edgeloop.runtime.agent.loadgen import drive

        call = self.runtime.ready(asked.signature or "", unpack(payload))
        answer, times = drive(call.invoke, asked.scenario, asked.queries, asked.samples, asked.calls)
        return LoadgenReply(**answer), pack(times)

    def tensors(self, asked: TensorsRequest, payload: bytes) -> tuple[EmptyReply, bytes]:
        found = self.runtime.tensors(asked.signature or "", unpack(payload), asked.graph, list(asked.indices))
        return EmptyReply(), pack(found)


def checked(runs: int) -> int:
    if not 0 < runs <= RUNS_LIMIT:
        raise ValueError(f"{runs} runs at a time. Expected 1 to {RUNS_LIMIT}")
    return runs


def timed(invoke: Callable[[], object], runs: int) -> tuple[list[int], list[int], list[int]]:
    """Nanoseconds of `runs` calls, each: when it began (perf_counter), wall, CPU.

    The wall clock is read inside of the CPU clock: that one is a system call, and no part of a run.
    """
    wall_now, cpu_now = time.perf_counter_ns, time.process_time_ns
    started: list[int] = []
    wall: list[int] = []
    cpu: list[int] = []
    for _ in range(runs):
        cpu_start = cpu_now()
        start = wall_now()
        invoke()
        end = wall_now()
        cpu.append(cpu_now() - cpu_start)
        wall.append(end - start)
        started.append(start)
    return started, wall, cpu


def involuntary_switches() -> int:
    """How often the kernel has taken the CPU away from this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def main(arguments: list[str]) -> None:
    runtime, root = arguments
    agent = ModelOperations(runtime, resolved(root))
    serve({kind.OP: answering(kind, getattr(agent, kind.OP)) for kind in REQUESTS})
