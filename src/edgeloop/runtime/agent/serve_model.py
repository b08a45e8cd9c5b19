"""Runs a model on a device: the standard library, NumPy and one runtime. Python 3.9 syntax.

    agent RUNTIME ROOT        RUNTIME: a name of runtime_table.RUNTIMES; models are opened below ROOT

It answers frames (frames.py); payloads are a NumPy .npz of named arrays, or nothing. It ends when stdin does.

    probe       -> {python, runtime, version, machine, cpus, tensorflow, capabilities} (capabilities.py)
    push        {path, size, sha256, offset} + bytes -> {have, done}: a file below ROOT (receive.py)
    prepare     {path, threads, keep, delegate: {library, options, allow_cpu_ops} | null}
                -> {import_ms, load_ms, arena_bytes, delegated, signatures: {name: {inputs, outputs:
                    {tensor: {shape, dtype}}}}}
    run         {signature, warmup, runs} + npz -> {wall_ms: [...], cpu_ms: [...], started_s: [...],
                    involuntary_switches, rss_bytes, rss_peak_bytes} + npz of the last run
    conditions  -> {governor, frequency_mhz, temperature_c, throttled, ...} (conditions.py)
    profile     {signature, runs, xnnpack} + npz -> {ops: [...], ...} (profiler.py)
    loadgen     {signature, scenario, queries, samples, calls} + npz -> {version, results} + npz of times (loadgen.py)
    tensors     {signature, graph, indices} + npz -> npz of those tensors after a run, by index (a .tflite with `keep`)
    close

What a time is: one invoke of the runtime, its inputs in place before and its outputs copied out after. wall_ms is
elapsed, cpu_ms is what all threads of the agent together have used; started_s counts from the agent's first run.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from edgeloop.processes.frames import Header, pack, serve, unpack
from edgeloop.runtime.agent.machine.memory import own_bytes
from edgeloop.runtime.agent.paths import confined, resolved

OPERATIONS = ("probe", "push", "prepare", "run", "conditions", "profile", "loadgen", "tensors")
RUNS_LIMIT = 10_000  # of one question: their times go into a frame's header, which has at most 1 MiB


class ModelOperations:
    """One runtime and the model it has loaded; what it is asked, by name."""

    def __init__(self, runtime: str, root: str) -> None:
        self.name, self.root = runtime, root
        self.runtime: Any = None
        self.import_ms = 0.0
        self.first_ns: int | None = None
        self.weather: Any = None

    def _runtime(self) -> Any:
        if self.runtime is None:
            start = time.perf_counter()
            from edgeloop.runtime.agent.runtimes import LOADERS

            self.runtime = LOADERS[self.name]()
            self.import_ms = (time.perf_counter() - start) * 1e3
        return self.runtime

    def probe(self, header: Header, payload: bytes) -> tuple[dict[str, Any], bytes]:
        from edgeloop.runtime.agent.machine.capabilities import capabilities

        version = self._runtime().version
        return {
            "python": platform.python_version(),
            "runtime": self.name,
            "version": version,
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "tensorflow": "tensorflow" in sys.modules,
            "capabilities": capabilities(),
        }, b""

    def push(self, header: Header, payload: bytes) -> tuple[dict[str, Any], bytes]:
        from edgeloop.runtime.agent.receive import receive  # with hashlib, and that with OpenSSL: 4 MB

        return receive(self.root, header, payload), b""

    def prepare(self, header: Header, payload: bytes) -> tuple[dict[str, Any], bytes]:
        path = confined(self.root, header["path"])
        runtime = self._runtime()
        threads, keep = int(header.get("threads", 1)), bool(header.get("keep"))
        start = time.perf_counter()
        signatures = runtime.load(path, threads, keep, header.get("delegate"))
        load_ms = (time.perf_counter() - start) * 1e3
        answer = {"import_ms": self.import_ms, "load_ms": load_ms, "signatures": signatures}
        return dict(answer, arena_bytes=runtime.arena_bytes(), delegated=runtime.delegated), b""

    def run(self, header: Header, payload: bytes) -> tuple[dict[str, Any], bytes]:
        warmup, runs = int(header.get("warmup", 0)), runs_of(header)
        call = self.runtime.ready(header.get("signature") or "", unpack(payload))
        switches = involuntary_switches()
        for _ in range(warmup):
            call.invoke()
        started, wall, cpu = timed(call.invoke, runs)
        first_ns = self.first_ns = started[0] if self.first_ns is None else self.first_ns
        return {
            "wall_ms": [ns / 1e6 for ns in wall],
            "cpu_ms": [ns / 1e6 for ns in cpu],
            "started_s": [(ns - first_ns) / 1e9 for ns in started],
            "involuntary_switches": involuntary_switches() - switches,
            **own_bytes(),
        }, pack(call.outputs())

    def conditions(self, header: Header, payload: bytes) -> tuple[dict[str, Any], bytes]:
        if self.weather is None:
            from edgeloop.runtime.agent.machine.conditions import ConditionReader

            self.weather = ConditionReader()
        return self.weather.read(), b""

    def profile(self, header: Header, payload: bytes) -> tuple[dict[str, Any], bytes]:
        runs = runs_of(header)
        return self.runtime.profile(
            header.get("signature") or "", unpack(payload), runs, bool(header.get("xnnpack", True))
        ), b""

    def loadgen(self, header: Header, payload: bytes) -> tuple[dict[str, Any], bytes]:
        from edgeloop.runtime.agent.loadgen import drive

        call = self.runtime.ready(header.get("signature") or "", unpack(payload))
        queries, samples, calls = (int(header[name]) for name in ("queries", "samples", "calls"))
        answer, times = drive(call.invoke, header["scenario"], queries, samples, calls)
        return answer, pack(times)

    def tensors(self, header: Header, payload: bytes) -> tuple[dict[str, Any], bytes]:
        indices = [int(i) for i in header["indices"]]
        found = self.runtime.tensors(header.get("signature") or "", unpack(payload), int(header["graph"]), indices)
        return {}, pack(found)


def runs_of(header: Header) -> int:
    runs = int(header.get("runs", 1))
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
    serve({name: getattr(agent, name) for name in OPERATIONS})
