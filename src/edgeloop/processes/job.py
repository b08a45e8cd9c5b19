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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeloop.errors import ModelError, error_from_json, one_line
from edgeloop.leftovers import log_file
from edgeloop.processes.children import owned
from edgeloop.processes.exit_status import ExitStatus, exit_status
from edgeloop.processes.sandbox import LOOK_EVERY_S, Limits, Sandbox, unwatched
from edgeloop.progress import Progress, silent

LINE_LIMIT_BYTES = 16 << 20
REFUSED = "The model is refused: convert another one, or try again if it is your own."
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
    work: str = "converting",
    crashed: Callable[[ExitStatus], None] = lambda status: None,
) -> dict[str, Any]:
    """Run `python PROGRAM` (which calls `job_child.serve`) on `job` and return its result: one JSON object.

    The child is isolated as `python -I` isolates it, and hashes text the same way in every process.

    The job is pickled for the child only; what comes back is JSON, for the child has met the model. `say` also hears
    where this system cannot watch the child's memory. `work` says for messages what is done to the model. `crashed`
    hears how the child ended, where it ended by itself and without a result.

    Raises:
        ModelError: The child went over a limit, crashed, or sent what is no event.
        EdgeloopError: Whatever the child raised of our own tree.
        WorkerBug: It raised anything else.
        OSError: `python` does not start.
    """
    if unwatched():
        say(unwatched())
    with log_file() as log, log_file() as given:
        pickle.dump(job, given)
        given.seek(0)
        command, pipe = [python, "-s", *program], subprocess.PIPE
        with owned(command, stdin=given, stdout=pipe, stderr=log, env=_isolated(), cwd=cwd) as child:
            sandbox = Sandbox(child.pid, limits, work)
            for event in _events(child, sandbox):
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
            crashed(status)
            raise ModelError(f"the process that was {sandbox.doing} the model crashed ({status})", advice=REFUSED)


def _isolated() -> dict[str, str]:
    """The environment that, with -s, does what -I does; -I would ignore the seed. Libraries iterate sets of names, and
    what they write follows that order."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**own, "PYTHONSAFEPATH": "1", "PYTHONHASHSEED": "0"}


def _events(child: subprocess.Popen, sandbox: Sandbox) -> Iterator[dict[str, Any]]:
    assert child.stdout is not None
    pipe, buffer = child.stdout.fileno(), b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            resident = sandbox.look()
            if selector.select(LOOK_EVERY_S):  # it may say that the model is read
                block = os.read(pipe, 1 << 20)
                if not block:
                    return
                if len(buffer) > LINE_LIMIT_BYTES:
                    raise _no_event(sandbox, f"a line of more than {LINE_LIMIT_BYTES / 1e6:.0f} MB")
                *lines, buffer = (buffer + block).split(b"\n")
                for line in lines:
                    event = _event(line, sandbox)
                    if READ in event:
                        sandbox.model_is_read()
                    yield event
            sandbox.check(resident)


def _event(line: bytes, sandbox: Sandbox) -> dict[str, Any]:
    """One event of a child that has met the model, and may be in its hands."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError) as e:
        raise _no_event(sandbox, f"a line that is not JSON ({one_line(e, 80)})") from e
    if not isinstance(event, dict):
        raise _no_event(sandbox, f"the JSON value {one_line(event, 80)}")
    progress = event.get("progress", ["", 0, 0])
    if not isinstance(progress, list) or list(map(type, progress)) != [str, int, int]:
        raise _no_event(sandbox, f"the progress {one_line(progress, 80)}")
    if not isinstance(event.get("done", {}), dict):
        raise _no_event(sandbox, f"the result {one_line(event['done'], 80)}")
    return event


def _no_event(sandbox: Sandbox, found: str) -> ModelError:
    return ModelError(f"the process that was {sandbox.doing} the model sent {found}, expected an event", advice=REFUSED)
