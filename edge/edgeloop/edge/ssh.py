"""A machine behind OpenSSH: one line to it, over which every program and file goes.

The user's own ssh does it, so keys, agents, jump hosts and known_hosts are what `ssh HOST` uses; it is never asked for
a password. EDGELOOP_SSH_CONFIG names another configuration file than the user's (`ssh -F`).

Source: https://man.openbsd.org/ssh_config (ControlMaster, ControlPath, BatchMode)
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgeloop.edge.device import Host
from edgeloop.edge.on_device.places import DEFAULT_HOME, HOME
from edgeloop.edge.process import owned
from edgeloop.edge.program import program, program_name
from edgeloop.errors import DeviceError, MissingExtra

CONFIG = "EDGELOOP_SSH_CONFIG"
CONNECT_TIMEOUT_S = 20
COMMAND_TIMEOUT_S = 60.0
# never a prompt; a line that is dead for 15 s is over
OPTIONS = ("BatchMode=yes", f"ConnectTimeout={CONNECT_TIMEOUT_S}", "ServerAliveInterval=5", "ServerAliveCountMax=3")
FOLDER = f'"${{{HOME}:-{DEFAULT_HOME.replace("~", "$HOME")}}}"'

_lines: dict[Host, _Shared] = {}
_lock = threading.Lock()


@dataclass
class Line:
    """A connection to a host and port that other ssh commands use, until its owner closes it."""

    host: Host
    python: Path
    socket: Path
    remote = True

    @contextlib.contextmanager
    def start(self, arguments: Sequence[str], log: IO[bytes]) -> Iterator[subprocess.Popen]:
        """As `Connection.start`. A death by signal comes back as 128 + its number: the remote shell says so."""
        self._bring_program()
        command = f"{_at_home()} && {shlex.join([str(self.python), '-I', program_name(), *arguments])}; exit $?"
        with owned(self._ssh(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log) as child:
            yield child

    def run(self, command: str, data: bytes = b"", timeout_s: float = COMMAND_TIMEOUT_S) -> bytes:
        """What a POSIX shell command printed on the device.

        Raises:
            DeviceError: It failed, with its last words, or took longer than `timeout_s`.
        """
        pipe = subprocess.PIPE
        with owned(self._ssh(command), stdin=pipe, stdout=pipe, stderr=pipe) as child:
            try:
                out, words = child.communicate(data, timeout_s)
            except subprocess.TimeoutExpired as e:
                raise DeviceError(f"ssh {self.host.host}: no answer in {timeout_s:g} s. Is the device alive?") from e
            if child.returncode:
                raise DeviceError(f"ssh {self.host.host}: {_last(words) or f'exit code {child.returncode}'}.")
            return out

    def _bring_program(self) -> None:
        """Put this edgeloop's program there unless it is: its name is its content's hash."""
        name, size = shlex.quote(program_name()), len(program())
        whole = f"[ -f {name} ] && [ $(wc -c <{name}) -eq {size} ]"
        if self.run(f"mkdir -p -m 700 {FOLDER} && {_at_home()} && if {whole}; then echo here; fi").strip() == b"here":
            return
        # under a name of its own, and counted: the end of a broken upload looks like the end of a whole one
        bring = f'new=$(mktemp {name}.XXXXXX) && cat >"$new" && [ $(wc -c <"$new") -eq {size} ] && mv -f "$new" {name}'
        self.run(f"{_at_home()} && {bring}", program())

    def _ssh(self, command: str) -> list[str]:
        # `sh -c`: the login shell may be none that knows this syntax
        return [*_ssh(self.host), "-S", str(self.socket), "-T", "--", self.host.host, f"sh -c {shlex.quote(command)}"]


@dataclass
class _Shared:
    line: Line
    users: int
    close: contextlib.ExitStack


@contextlib.contextmanager
def connect_ssh(host: Host, python: Path) -> Iterator[Line]:
    """A line to the host; the first to come opens it, the last to leave closes it.

    Raises:
        MissingExtra: No ssh on this machine.
        DeviceError: The host cannot be reached or refuses us.
    """
    with _lock:
        shared = _lines.get(host)
        if shared is None:
            close = contextlib.ExitStack()
            shared = _lines[host] = _Shared(close.enter_context(_opened(host, python)), 0, close)
        shared.users += 1
    try:
        yield Line(host, python, shared.line.socket)
    finally:
        with _lock:
            shared.users -= 1
            if not shared.users:
                del _lines[host]
                shared.close.close()


@contextlib.contextmanager
def _opened(host: Host, python: Path) -> Iterator[Line]:
    # a socket's path has 108 bytes at most, so not below a temporary folder that may lie deep
    with tempfile.TemporaryDirectory(prefix="edgeloop-", dir=_short()) as folder, tempfile.TemporaryFile() as log:
        socket = Path(folder) / "line"
        command = [*_ssh(host), "-M", "-N", "-S", str(socket), "--", host.host]
        with owned(command, stderr=log) as master:
            deadline = time.monotonic() + CONNECT_TIMEOUT_S
            while not socket.exists():
                ended = master.poll() is not None
                if ended or time.monotonic() > deadline:
                    log.seek(0)
                    reason = _last(log.read()) or f"no connection in {CONNECT_TIMEOUT_S} s"
                    raise DeviceError(f"cannot reach {host.host}: {reason}. {_advice(reason, host)}")
                time.sleep(0.005)
            yield Line(host, python, socket)


def _ssh(host: Host) -> list[str]:
    program = shutil.which("ssh")
    if program is None:
        raise MissingExtra("OpenSSH's client is not installed. Run: apt-get install openssh-client")
    config = os.environ.get(CONFIG)
    words = [program, *(["-F", config] if config else [])]
    words += [word for option in OPTIONS for word in ("-o", option)]
    words += ["-p", str(host.port)] if host.port else []
    return [*words, *(["-l", host.user] if host.user else [])]


def _at_home() -> str:
    return f"cd {FOLDER}"


def _short() -> str | None:
    temporary = tempfile.gettempdir()
    return temporary if len(temporary) < 60 else "/tmp"


def _last(words: bytes) -> str:
    lines = words.decode(errors="replace").strip().splitlines()
    return lines[-1].strip().rstrip(".") if lines else ""


def _advice(reason: str, host: Host) -> str:
    at = f"{host.user}@{host.host}" if host.user else host.host
    port = f" -p {host.port}" if host.port else ""
    if "Host key verification" in reason or "Permission denied" in reason:
        return f"Try by hand once: ssh{port} {at}. edgeloop uses your keys and known_hosts and asks for no password"
    return "Is the device on, and does sshd listen there?"
