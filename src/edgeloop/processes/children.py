"""Child processes that cannot outlive the work they were started for."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from edgeloop.processes.exit_status import exit_status

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

log = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # loaded before any fork: the child may only call, not load
_running: set[subprocess.Popen] = set()


@contextlib.contextmanager
def owned(
    command: Sequence[str | os.PathLike[str]],
    *,
    stdin: int | IO | None = subprocess.DEVNULL,
    stdout: int | IO | None = subprocess.DEVNULL,
    stderr: int | IO | None = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    grace_s: float = 3.0,
) -> Iterator[subprocess.Popen]:
    """Run `command` in a process group of its own and end the whole group when the block ends, however it ends.

    The group does not see the terminal's Ctrl-C, so that the owner decides the order of the end: SIGTERM, `grace_s`
    seconds, SIGKILL. If the owner itself is killed, Linux sends the child SIGKILL (prctl PR_SET_PDEATHSIG).

    Raises:
        OSError: The program cannot be started.
    """
    start = partial(
        subprocess.Popen,
        [os.fspath(part) for part in command],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=None if env is None else dict(env),
        cwd=cwd,
        start_new_session=True,
        preexec_fn=partial(end_with_parent, os.getpid()),
    )
    # "parent" is the THREAD that forks: a child that another thread goes on using must not end with a worker of a pool
    main = threading.current_thread() is threading.main_thread()
    child = start() if main else _lasting_thread(os.getpid()).submit(start).result()
    _running.add(child)
    began_s = time.monotonic()
    try:
        log.info("process %d started: %s", child.pid, " ".join(map(str, command)))
        yield child
    finally:
        _running.discard(child)
        end(child, grace_s)
        log.info("process %d ended: %s, after %.1f s", child.pid, exit_status(child).how, time.monotonic() - began_s)


def interrupt_children() -> None:
    """SIGTERM to every child that a block of some thread owns. Only the main thread sees Ctrl-C: this way the others
    see their children end, leave their blocks and clean up."""
    for child in tuple(_running):
        _signal_group(child.pid, signal.SIGTERM)


def end(child: subprocess.Popen, grace_s: float = 3.0) -> None:
    """End the child and everything in its group; returns when all are gone. A second Ctrl-C cuts the grace short."""
    try:
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None and not pipe.closed:
                os.set_blocking(pipe.fileno(), False)  # closing flushes, and nobody may be reading
                with contextlib.suppress(OSError):  # of what is flushed then, none is wanted
                    pipe.close()
        _signal_group(child.pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while time.monotonic() < deadline:
            child.poll()  # reap the leader, or it would count as alive
            if not _group_alive(child.pid):
                break
            time.sleep(0.02)
    finally:
        _signal_group(child.pid, signal.SIGKILL)
        child.wait()


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def _group_alive(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


@cache
def _lasting_thread(process: int) -> ThreadPoolExecutor:
    """One thread that lives as long as this process; a fork has none, hence the parameter."""
    from concurrent.futures import ThreadPoolExecutor  # few need it, and devices load this module too

    return ThreadPoolExecutor(1, "edgeloop-start")


def end_with_parent(parent: int) -> None:
    """Linux sends this process SIGKILL when the thread that forked it ends.

    Args:
        parent: The process that forked this one, as it named itself before: it may have ended since, and Linux signals
            later ends alone.
    """
    if hasattr(_LIBC, "prctl"):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
