"""A device or a bundle in, results out, as they come: the model runs there, and only results travel.

The device's program (on_device/serving/serve.py) does the work; here its input is passed on and its output is read.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Generator
from dataclasses import replace
from typing import IO, Any

from edgeloop.edge.on_device.serving.serve import FAILED, STARTED
from edgeloop.edge.run.location import run_location
from edgeloop.edge.run.options import RunOptions
from edgeloop.errors import DeviceError, error_from_json, last_line
from edgeloop.processes.exit_status import exit_status
from edgeloop.progress import Say
from edgeloop.runtime.connection import connect
from edgeloop.runtime.device import Device

MESSAGE, ERROR = "edgeloop: ", "edgeloop: error: "  # lines of the device's standard error begin so
END_S = 15.0  # for the device's program to end after its last answer
BLOCK = 1 << 16
DEFAULTS = RunOptions()


def run(
    target: str, options: RunOptions = DEFAULTS, stdin: int = 0, say: Say = lambda news: None
) -> Generator[dict[str, Any], None, None]:
    """Answer inputs with a deployed model, on the device; each answer is yielded as it comes.

    Args:
        target: A device, as `parse_device` reads it, or the folder of a bundle to run here.
        stdin: A file descriptor to read JSON lines from, where `options.input` is None or `-`.
        say: Told what the device reports beside its answers.

    Yields:
        One JSON object an input: the outputs by name, how long it took in milliseconds, which release answered.

    Raises:
        EdgeloopError: As `run_location`; what ended the program there, as the class it was there.
        DeviceError: The device cannot be reached, or its program died.

    Example:
        >>> for answer in run("ssh://pi@camera.local", RunOptions(input="camera", count=10)):
        ...     print(answer)
    """
    location = run_location(target, options)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(_DeviceLog(say))
        connection = stack.enter_context(connect(location.device))
        child = stack.enter_context(connection.start(["edge.on_device.serving.serve", *location.arguments], log.pipe))
        log.handed_over()
        assert child.stdin is not None
        assert child.stdout is not None
        if options.stdin:
            # the thread has an end of its own: whoever ends the child closes the other while it may be writing
            threading.Thread(target=_copy, args=(stdin, os.dup(child.stdin.fileno())), daemon=True).start()
            child.stdin.close()
        started, failed = child.stdout.readline(), None
        if started:
            _check_started(started, location.device)
        for line in child.stdout:
            document = _document(line, location.device)
            failed = document.get(FAILED)
            if failed is None:
                yield document
        _check_exit(child, log, location.device, failed)
        if not started:
            raise _not_edgeloop(location.device, "ended well without a word")


def ask(target: str, options: RunOptions, question: str) -> dict[str, Any]:
    """The one result of an option of the device's program, such as --service-location. Raises as `run`."""
    location = run_location(target, options)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(_DeviceLog(lambda line: None))
        connection = stack.enter_context(connect(location.device))
        child = stack.enter_context(
            connection.start(["edge.on_device.serving.serve", *location.arguments, question], log.pipe)
        )
        log.handed_over()
        try:
            said = child.communicate(timeout=options.timeout_s)[0]
        except subprocess.TimeoutExpired as e:
            raise DeviceError(
                f"{location.device.name} did not answer within {options.timeout_s:g} s",
                advice="Check that it is running.",
            ) from e
        started, _, answer = said.partition(b"\n")
        if started:
            _check_started(started, location.device)
        document = _document(answer, location.device) if answer else {}
        _check_exit(child, log, location.device, document.get(FAILED))
        if not document:
            raise _not_edgeloop(location.device, "ended well without an answer")
    return document


class _DeviceLog:
    """The device's standard error: its messages are passed on, its last line of anything else is kept."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self._last = ""
        read, write = os.pipe()
        self.pipe: IO[bytes] = os.fdopen(write, "wb")
        self._thread = threading.Thread(target=self._read, args=(read,), daemon=True)

    def __enter__(self) -> _DeviceLog:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.pipe.close()
        self._thread.join(END_S)

    def handed_over(self) -> None:
        """The child has its own copy of the writing end: ours must not keep the pipe open."""
        self.pipe.close()

    def last_log_line(self) -> str:
        """Once everything was read, the last line that is no message of ours."""
        self._thread.join(END_S)
        return last_line(self._last)

    def _read(self, pipe: int) -> None:
        with os.fdopen(pipe, "rb") as lines:
            for line in lines:
                text = line.decode(errors="replace").rstrip()
                if text.startswith(MESSAGE) and not text.startswith(ERROR):  # the error comes in the results, too
                    self.say(text[len(MESSAGE) :])
                elif text and not text.startswith(MESSAGE):
                    self._last = text


def _copy(source: int, sink: int) -> None:
    try:
        while block := os.read(source, BLOCK):
            rest = memoryview(block)
            while rest:
                rest = rest[os.write(sink, rest) :]
    except (BrokenPipeError, BlockingIOError):
        return  # the program there has ended, and says why itself; or it is being ended (children.py)
    finally:
        os.close(sink)


def _document(line: bytes, device: Device) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _not_edgeloop(device, f"answered {line[:60]!r}")
    return found


def _check_started(line: bytes, device: Device) -> None:
    if STARTED not in _document(line, device):
        raise _not_edgeloop(device, f"answered {line[:60]!r}")


def _not_edgeloop(device: Device, did: str) -> DeviceError:
    return DeviceError(
        f"the program there {did}",
        advice="Expected edgeloop's program: check what its Python starts.",
        where=device.name,
    )


def _check_exit(child: subprocess.Popen, log: _DeviceLog, device: Device, failed: object) -> None:
    status = exit_status(child, wait_s=END_S)
    if status.ok:
        return
    if status.code is None:
        found = f"edgeloop's program did not exit within {END_S:g} s and was killed"
    elif failed is not None:
        raise error_from_json(failed, where=device.name)
    else:
        found = f"edgeloop's program ended ({replace(status, last_words=log.last_log_line())})"
    raise DeviceError(found, advice=status.advice or "Run it again.", where=device.name)
