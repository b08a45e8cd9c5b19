"""A device or a bundle in, its answers out, as they come: the model runs there, and only results travel.

The device's program (on_device/answers/answer.py) does the work; here its input is handed on and its words are read.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from edgeloop import errors
from edgeloop.bundle import Bundle, Variant, is_bundle, read_bundle
from edgeloop.edge.run.options import RunOptions
from edgeloop.errors import DeviceError, EdgeloopError, MissingExtra, OptionsError
from edgeloop.runtime.connection import connect
from edgeloop.runtime.device import EXPECTED, Device, parse_device
from edgeloop.runtime.runners import AgentRunner, runners

NEWS, REASON = "edgeloop: ", "edgeloop: error: "  # how lines of the device's standard error begin
END_S = 15.0  # for the device's program to end after its last answer
BLOCK = 1 << 16
Say = Callable[[str], None]


@dataclass(frozen=True)
class RunLocation:
    """Where it runs, and the arguments of the device's program."""

    device: Device
    arguments: tuple[str, ...]


def place(target: str, options: RunOptions) -> RunLocation:
    """What the user named: a device, which answers with what was deployed on it, or a bundle's folder, run here.

    Raises:
        OptionsError: Neither; or options that this one has no use for.
        ModelError, IntegrityError: The bundle is none, or damaged; no such variant.
        MissingExtra: Nothing here runs the bundle.
    """
    if target.startswith("ssh:") or target.partition(":")[0] == "local":
        device = parse_device(target)
        if device.ssh is not None and options.folder and not options.folder.startswith("/"):
            raise OptionsError(f"--input {options.folder} is on the device, and its path there starts with a slash.")
        return RunLocation(device, tuple(_absolute(options, device).arguments()))
    if not is_bundle(target):
        raise OptionsError(f"{target} holds no bundle and names no device. {EXPECTED[:-1]}, or a bundle's folder.")
    if options.slot:
        raise OptionsError("--slot is about what is deployed on a device, and a bundle's folder is run. Drop --slot.")
    bundle = read_bundle(target)
    variant, runner = _runs_here(bundle, options)
    device = runner.device()
    named = replace(_absolute(options, device), variant=variant.id, runtime=runner.name)
    return RunLocation(device, (f"--bundle={bundle.path.absolute()}", *named.arguments()))


def run(target: str, options: RunOptions, stdin: int, say: Say) -> Generator[dict[str, Any], None, None]:
    """Answers, as they come. `stdin`: a file descriptor to read questions from; `say` is told news of the device.

    Raises:
        EdgeloopError: As `place`; what ended the program there, as the class it was there.
        DeviceError: The device cannot be reached, or its program died.
    """
    where = place(target, options)
    with contextlib.ExitStack() as stack:
        words = stack.enter_context(_Words(say))
        connection = stack.enter_context(connect(where.device))
        child = stack.enter_context(connection.start(["edge.on_device.serving.serve", *where.arguments], words.log))
        words.handed_over()
        assert child.stdin is not None
        assert child.stdout is not None
        if options.stdin:
            # the thread has an end of its own: whoever ends the child closes the other while it may be writing
            threading.Thread(target=_hand_on, args=(stdin, os.dup(child.stdin.fileno())), daemon=True).start()
            child.stdin.close()
        for line in child.stdout:
            yield _document(line, where.device)
        _ended(child, words, where.device)


def ask(target: str, options: RunOptions, question: str) -> dict[str, Any]:
    """What the device's program says to a question that has one answer, such as --where. Raises as `run`."""
    where = place(target, options)
    with contextlib.ExitStack() as stack:
        words = stack.enter_context(_Words(lambda news: None))
        connection = stack.enter_context(connect(where.device))
        child = stack.enter_context(
            connection.start(["edge.on_device.serving.serve", *where.arguments, question], words.log)
        )
        words.handed_over()
        try:
            said = child.communicate(timeout=options.timeout_s)[0]
        except subprocess.TimeoutExpired as e:
            raise DeviceError(f"{where.device.name} gave no answer in {options.timeout_s:g} s. Is it alive?") from e
        _ended(child, words, where.device)
    return _document(said.partition(b"\n")[0], where.device)


def _runs_here(bundle: Bundle, options: RunOptions) -> tuple[Variant, AgentRunner]:
    """The first variant with a runtime that it was proved on and that is here, in the order of the manifest."""
    if options.variant:
        bundle.variant(options.variant)
    wanted = [v for v in bundle.variants if options.variant in ("", v.id)]
    known = [r for r in runners().values() if isinstance(r, AgentRunner) and options.runtime in ("", r.name)]
    if not known:
        raise OptionsError(f"no runtime {options.runtime!r}. Choose from {', '.join(runners())}.")
    for variant in wanted:
        for runner in known:
            if variant.format not in runner.formats or runner.name not in (*variant.requires.runtimes, options.runtime):
                continue
            with contextlib.suppress(MissingExtra):
                runner.device()
                return variant, runner
    ids = ", ".join(v.id for v in wanted) or "no variant that is here"
    raise MissingExtra(
        f"{bundle.path} holds {ids}, and no runtime for it is installed here. Run: pip install 'edgeloop[edge]'"
    )


def _absolute(options: RunOptions, device: Device) -> RunOptions:
    if device.ssh is not None or not options.folder:
        return options
    return replace(options, input=str(Path(options.folder).absolute()))


class _Words:
    """The device's standard error: its news are said, and the reason of its end and its last words are kept."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self.reason = ""
        self.last: deque[str] = deque(maxlen=3)
        read, write = os.pipe()
        self.log: IO[bytes] = os.fdopen(write, "wb")
        self._thread = threading.Thread(target=self._read, args=(read,), daemon=True)

    def __enter__(self) -> _Words:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.log.close()
        self._thread.join(END_S)

    def handed_over(self) -> None:
        """The child has its own copy of the writing end: ours must not keep the pipe open."""
        self.log.close()

    def all(self) -> str:
        """Once everything was read: the reason, else the last words."""
        self._thread.join(END_S)
        return self.reason or (self.last[-1] if self.last else "")

    def _read(self, pipe: int) -> None:
        with os.fdopen(pipe, "rb") as lines:
            for line in lines:
                text = line.decode(errors="replace").rstrip()
                if text.startswith(REASON):
                    self.reason = text[len(REASON) :]
                elif text.startswith(NEWS):
                    self.say(text[len(NEWS) :])
                elif text:
                    self.last.append(text)


def _hand_on(source: int, sink: int) -> None:
    try:
        while block := os.read(source, BLOCK):
            rest = memoryview(block)
            while rest:
                rest = rest[os.write(sink, rest) :]
    except (BrokenPipeError, BlockingIOError):
        return  # the program there has ended, and says why itself; or it is being ended (process.py)
    finally:
        os.close(sink)


def _document(line: bytes, device: Device) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise DeviceError(f"{device.name} answered {line[:60]!r}. Expected edgeloop's program: a Python that runs it.")
    return found


def _ended(child: subprocess.Popen, words: _Words, device: Device) -> None:
    try:
        code = child.wait(END_S)
    except subprocess.TimeoutExpired as e:
        raise DeviceError(f"{device.name}: the program there did not end in {END_S:g} s. It was ended.") from e
    if code == 0:
        return
    last = words.all()
    known = {c.exit_code: c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, EdgeloopError)}
    if words.reason and code in known:
        raise known[code](f"{device.name}: {last}")
    raise DeviceError(f"{device.name}: the program there ended with exit code {code}: {last or 'no last words'}.")
