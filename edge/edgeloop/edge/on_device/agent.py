"""Runs a model on a device: the standard library, NumPy and one runtime. Python 3.9 syntax.

    agent RUNTIME ROOT        RUNTIME: litert | tflite-runtime | onnxruntime; models are opened below ROOT

It answers frames (frames.py); payloads are a NumPy .npz of named arrays, or nothing. It ends when stdin does.

    probe    -> {python, runtime, version, machine, cpus}
    push     {path, size, sha256, offset} + bytes -> {have, done}: a file below ROOT (receive.py)
    prepare  {path, threads, keep}
             -> {import_ms, load_ms, signatures: {name: {inputs, outputs: {tensor: {shape, dtype}}}}}
    run      {signature, warmup, runs} + npz -> {wall_ms: [...], cpu_ms: [...], rss_peak_bytes} + npz of the last run
    tensors  {signature, graph, indices} + npz -> npz of those tensors after a run, by index (a .tflite with `keep`)
    close
"""

from __future__ import annotations

import os
import platform
import sys
import time

from edgeloop.edge.on_device.frames import pack, serve, unpack
from edgeloop.edge.on_device.places import confined, resolved
from edgeloop.edge.on_device.receive import receive
from edgeloop.edge.on_device.runtimes import RUNTIMES


class Agent:
    def __init__(self, runtime, root):
        self.name, self.root, self.runtime = runtime, root, None
        self.import_ms = 0.0

    def _runtime(self):
        if self.runtime is None:
            start = time.perf_counter()
            self.runtime = RUNTIMES[self.name]()
            self.import_ms = (time.perf_counter() - start) * 1e3
        return self.runtime

    def probe(self, header, payload):
        return {
            "python": platform.python_version(),
            "runtime": self.name,
            "version": self._runtime().version,
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "tensorflow": "tensorflow" in sys.modules,
        }, b""

    def push(self, header, payload):
        return receive(self.root, header, payload), b""

    def prepare(self, header, payload):
        path = confined(self.root, header["path"])
        runtime = self._runtime()
        start = time.perf_counter()
        signatures = runtime.load(path, int(header.get("threads", 1)), bool(header.get("keep")))
        load_ms = (time.perf_counter() - start) * 1e3
        return {"import_ms": self.import_ms, "load_ms": load_ms, "signatures": signatures}, b""

    def run(self, header, payload):
        inputs = unpack(payload)
        signature, outputs = header.get("signature") or "", {}
        for _ in range(int(header.get("warmup", 0))):
            outputs = self.runtime.call(signature, inputs)
        wall_ms, cpu_ms = [], []
        for _ in range(int(header.get("runs", 1))):
            wall, cpu = time.perf_counter_ns(), time.process_time_ns()
            outputs = self.runtime.call(signature, inputs)
            cpu_ms.append((time.process_time_ns() - cpu) / 1e6)
            wall_ms.append((time.perf_counter_ns() - wall) / 1e6)
        return {"wall_ms": wall_ms, "cpu_ms": cpu_ms, "rss_peak_bytes": rss_peak_bytes()}, pack(outputs)

    def tensors(self, header, payload):
        indices = [int(i) for i in header["indices"]]
        found = self.runtime.tensors(header.get("signature") or "", unpack(payload), int(header["graph"]), indices)
        return {}, pack(found)


def rss_peak_bytes():
    """This process's own peak. getrusage's ru_maxrss survives exec and would report the parent's; VmHWM does not."""
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:  # no procfs on this system: unknown, and said so
        return None
    return None


def main(arguments):
    runtime, root = arguments
    agent = Agent(runtime, resolved(root))
    serve({name: getattr(agent, name) for name in ("probe", "push", "prepare", "run", "tensors")})
