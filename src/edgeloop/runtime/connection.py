"""A device in, a way to start edgeloop's program there out. What differs between this machine and another ends here."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Protocol

from edgeloop.errors import DeviceError
from edgeloop.processes.children import owned
from edgeloop.runtime.device import Device
from edgeloop.runtime.program import ISOLATED, local_program
from edgeloop.runtime.ssh import COMMAND_TIMEOUT_S, connect_ssh


class Connection(Protocol):
    """A device that can be reached.

    Attributes:
        remote: Its files are not this machine's: what a program there opens must be pushed first.
    """

    remote: bool

    def start(self, arguments: Sequence[str], log: IO[bytes]) -> AbstractContextManager[subprocess.Popen]:
        """`python edgeloop-agent.pyz ARGUMENTS` on the device: stdin and stdout piped, stderr to `log`, ended with the
        block.

        Raises:
            DeviceError: The interpreter does not start, or the program cannot be put there.
        """


class LocalConnection:
    """This machine, with one of its interpreters. ISOLATED keeps PYTHONPATH and the user's own packages out."""

    remote = False

    def __init__(self, python: Path) -> None:
        self.python = python

    @contextlib.contextmanager
    def start(self, arguments: Sequence[str], log: IO[bytes]) -> Iterator[subprocess.Popen]:
        command = [str(self.python), *ISOLATED, str(local_program()), *arguments]
        with contextlib.ExitStack() as stack:
            try:
                process = owned(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
                child = stack.enter_context(process)
            except FileNotFoundError as e:
                raise DeviceError(
                    f"no Python at {self.python}", advice="Name an interpreter that exists: local:PYTHON."
                ) from e
            except OSError as e:
                raise DeviceError(
                    f"{self.python} does not start ({e.strerror})", advice="Name a Python: local:PYTHON."
                ) from e
            yield child


@contextlib.contextmanager
def connect(device: Device, timeout_s: float = COMMAND_TIMEOUT_S) -> Iterator[Connection]:
    """Reach a device for as long as the block runs. Within it, further connects to the same device share the line.

    `timeout_s` is for each thing that is needed to start a program there; a login has its own, of 20 s.

    Raises:
        DeviceError: It cannot be reached; with ssh's own reason.
    """
    if device.ssh is None:
        yield LocalConnection(device.python)
    else:
        with connect_ssh(device.ssh, device.python, timeout_s) as connection:
            yield connection
