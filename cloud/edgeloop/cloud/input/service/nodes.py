"""The process that runs a tf.data service on loopback: TensorFlow is imported once, then each server is a fork.

    python -m edgeloop.cloud.input.service.nodes WORKERS FOLDER

A server that dies is started again on its port: a worker, because a reader otherwise waits without end for what that
worker had; the dispatcher, which reads in FOLDER what it had given out. Each line of the output is a JSON document:
`{"dispatcher": PORT, "workers": [PORT, ...], "pids": {NAME: PID}}` when all servers answer, then one for each restart.

Source: https://www.tensorflow.org/api_docs/python/tf/data/experimental/service
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from edgeloop.extras import need
from edgeloop.processes.children import end_with_parent
from edgeloop.processes.ports import LOOPBACK, free_ports, wait_until_all_accept

START_S = 60.0  # until a server answers
LOOK_S = 0.1  # between two looks at the servers
HEARTBEAT_MS = 500
WORKER_TIMEOUT_MS = 4000  # a worker that is silent for so long counts as gone


def main(workers: int, folder: str) -> None:
    """Run until SIGTERM."""
    # before any fork, and without an operation before the last one: only so may TensorFlow be forked
    tf = need("tensorflow", extra="cloud")

    ports = free_ports(1 + workers)
    serving = {"dispatcher": lambda: dispatcher(tf, ports[0], folder)}
    serving |= {f"worker {k}": worker_on(tf, ports[0], port) for k, port in enumerate(ports[1:])}
    pids: dict[str, int] = {}
    for name, port in zip(serving, ports, strict=True):
        pids[name] = forked(serving[name])
        if wait_until_all_accept([f"{LOOPBACK}:{port}"], START_S):
            raise TimeoutError(f"{name} did not answer on port {port} within {START_S:g} s")
    say({"dispatcher": ports[0], "workers": ports[1:], "pids": pids})
    while True:
        ended, _ = os.waitpid(-1, os.WNOHANG)
        for name in [name for name, pid in pids.items() if pid == ended]:
            pids[name] = forked(serving[name])
            say({"restarted": name, "pid": pids[name]})
        time.sleep(LOOK_S)


def dispatcher(tf: Any, port: int, folder: str) -> Any:
    """A server that hands out work and remembers it in `folder`."""
    service = tf.data.experimental.service
    return service.DispatchServer(
        service.DispatcherConfig(
            port=port,
            work_dir=folder,
            fault_tolerant_mode=True,
            job_gc_check_interval_ms=1000,
            job_gc_timeout_ms=10_000,
            worker_timeout_ms=WORKER_TIMEOUT_MS,
        )
    )


def worker_on(tf: Any, dispatcher_port: int, port: int) -> Callable[[], Any]:
    """Starts a server that makes batches."""
    service = tf.data.experimental.service
    config = service.WorkerConfig(
        dispatcher_address=f"{LOOPBACK}:{dispatcher_port}",
        worker_address=f"{LOOPBACK}:{port}",
        port=port,
        heartbeat_interval_ms=HEARTBEAT_MS,
    )
    return lambda: service.WorkerServer(config)


def forked(start: Callable[[], Any]) -> int:
    """A child that serves until it is ended."""
    owner = os.getpid()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            end_with_parent(owner)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            start().join()
            code = 0
        finally:
            os._exit(code)
    return pid


def say(document: dict[str, Any]) -> None:
    """One line of the output."""
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
