"""A foreign command run to its end: bounded in time, owned, and with one word on how it ended. Python 3.9 syntax."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeloop.errors import EdgeloopError, last_line
from edgeloop.leftovers import log_file
from edgeloop.processes.children import owned
from edgeloop.processes.exit_status import ExitStatus, exit_status, last_words


@dataclass(frozen=True)
class CommandOutput:
    """What a command wrote, and how it ended."""

    status: ExitStatus
    out: bytes
    err: bytes

    @property
    def last_words(self) -> str:
        """The last line of its standard error, else of its output, else how it ended."""
        return last_line(self.err) or last_line(self.out) or self.status.how


def run_program(
    command: Sequence[str | os.PathLike[str]], failed: type[EdgeloopError], *, timeout_s: float, advice: str
) -> str:
    """What a command printed that must succeed.

    Raises:
        EdgeloopError: Of the class `failed`: it did not start, failed, or took too long; with its last words.
    """
    named = " ".join(map(str, command[:4]))
    try:
        done = run_command(command, timeout_s=timeout_s)
    except (OSError, TimeoutError) as e:
        raise failed(f"{named} … failed: {e}", advice=advice) from e
    if not done.status.ok:
        raise failed(f"{named} … failed ({done.status.how}): {done.last_words}", advice=advice)
    return done.out.decode(errors="replace")


def run_command(
    command: Sequence[str | os.PathLike[str]],
    data: bytes = b"",
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> CommandOutput:
    """Run `command` with `data` as its standard input. One that fails is no error here: its status says so.

    Raises:
        OSError: The program cannot be started.
        TimeoutError: It did not end within `timeout_s`, and was ended with all that it started.
    """
    pipe = subprocess.PIPE
    # a file, not a pipe: what a command leaves behind in the background may hold its standard error open
    with log_file() as log, owned(command, stdin=pipe, stdout=pipe, stderr=log, env=env, cwd=cwd) as child:
        try:
            out, _ = child.communicate(data, timeout_s)
        except subprocess.TimeoutExpired as e:
            said = last_words(log)
            ended = f"{command[0]} did not end within {timeout_s:g} s"
            raise TimeoutError(f"{ended}; its last words: {said}" if said else ended) from e
        status = exit_status(child, log)
        log.seek(0)
        return CommandOutput(status, out, log.read())
