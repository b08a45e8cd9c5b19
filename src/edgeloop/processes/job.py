"""A job in, its events out, its result at the end: a child process for one piece of work, in a sandbox.

One JSON object a line comes back: {"progress": [what, done, total]}, {"say": line}, {"read": true} once the model is
read, and last {"done": result}, {"error": `errors.error_to_json`} or {"bug": traceback}.
"""

from __future__ import annotations

import json
import os
import pickle
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeloop.errors import ModelError, error_from_json
from edgeloop.processes.children import owned
from edgeloop.processes.exit_status import exit_status
from edgeloop.processes.sandbox import LOOK_EVERY_S, Limits, Sandbox, unwatched
from edgeloop.progress import Progress, silent

LINE_LIMIT_BYTES = 16 << 20
READ = "read"  # the event that ends reading and starts work


class WorkerBug(RuntimeError):
    """A traceback that is ours, from the other process."""


def run_job(
    program: Sequence[str | os.PathLike[str]],
    job: Any,
    limits: Limits,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda line: None,
    python: str | os.PathLike[str] = sys.executable,
    cwd: Path | None = None,
) -> dict[str, Any]:
    """Run `python -I PROGRAM` (which calls `job_child.serve`) on `job` and return its result: one JSON object.

    The job is pickled for the child only; what comes back is JSON, for the child has met the model. `say` also hears
    where this system cannot watch the child's memory.

    Raises:
        ModelError: The child went over a limit, or crashed.
        EdgeloopError: Whatever the child raised of our own tree.
        WorkerBug: It raised anything else.
        OSError: `python` does not start.
    """
    if unwatched():
        say(unwatched())
    with tempfile.TemporaryFile() as log, tempfile.TemporaryFile() as work:
        pickle.dump(job, work)
        work.seek(0)
        with owned([python, "-I", *program], stdin=work, stdout=subprocess.PIPE, stderr=log, cwd=cwd) as child:
            for event in _events(child, limits):
                if "done" in event:
                    return event["done"]
                if "error" in event:
                    raise error_from_json(event["error"], ModelError)
                if "bug" in event:
                    raise WorkerBug(event["bug"])
                if "say" in event:
                    say(str(event["say"]))
                if "progress" in event:
                    progress(*event["progress"])
            status = exit_status(child, log)
            raise ModelError(f"the process that read and converted the model crashed ({status}): the model is refused.")


def _events(child: subprocess.Popen, limits: Limits) -> Iterator[dict[str, Any]]:
    assert child.stdout is not None
    pipe, buffer, sandbox = child.stdout.fileno(), b"", Sandbox(child.pid, limits)
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if selector.select(LOOK_EVERY_S):  # first: it may say that the model is read
                block = os.read(pipe, 1 << 20)
                if not block or len(buffer) > LINE_LIMIT_BYTES:
                    return
                *lines, buffer = (buffer + block).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if READ in event:
                        sandbox.model_is_read()
                    yield event
            sandbox.check()
