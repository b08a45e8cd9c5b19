"""A machine behind OpenSSH: one login to it, over which every program and file goes."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import select
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from edgeloop.errors import DeviceError, WriteError, last_line
from edgeloop.processes.children import owned
from edgeloop.processes.command import CommandOutput, run_command
from edgeloop.runtime.agent.paths import DEFAULT_HOME, HOME
from edgeloop.runtime.device import Host
from edgeloop.runtime.program import ISOLATED, program, program_name
from edgeloop.runtime.ssh_login import logged_in, ssh_env, ssh_words

logger = logging.getLogger(__name__)
COMMAND_TIMEOUT_S = 60.0
FOLDER = f'"${{{HOME}:-{DEFAULT_HOME.replace("~", "$HOME")}}}"'
AT_HOME = f"cd {FOLDER}"
# programs that an upload left half done: the number in the name is that of its shell
SWEEP = 'for old in agent-*.pyz.[0-9]*.*; do pid=${old#*.pyz.}; kill -0 "${pid%%.*}" 2>/dev/null || rm -f "$old"; done'
CANNOT_WRITE = 73  # EX_CANTCREAT of sysexits.h
REFUSED = (  # says where it was to be written, and what is free there
    f'[ -z "${{new-}}" ] || rm -f "$new"; at={FOLDER}; printf "%s\\n" "$at"; '
    'while [ ! -d "$at" ]; do at=$(dirname "$at"); done; '
    f'df -Pk "$at" 2>/dev/null | tail -n 1; exit {CANNOT_WRITE}'
)
MARK = b"\x1eedgeloop\n"  # printed before anything of ours
MARKED = r"printf '\036edgeloop\n'"
GREETING_LIMIT_BYTES = 1 << 20

_shared: dict[Host, _SharedConnection] = {}
_lock = threading.Lock()  # of the table alone: one host that hangs keeps no other waiting


@dataclass
class _SharedConnection:
    """A line that several use at once, in as many threads."""

    users: int = 0
    socket: Path | None = None
    has_program: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    close: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


@dataclass
class SshConnection:
    """A connection to a host and port that other ssh commands use, until its last user closes it.

    Attributes:
        timeout_s: For each command, and for the login shell before a program starts.
        greeting: What the login shell printed before the last command.
    """

    host: Host
    python: Path
    shared: _SharedConnection
    timeout_s: float = COMMAND_TIMEOUT_S
    greeting: bytes = b""
    remote = True

    @contextlib.contextmanager
    def start(self, arguments: Sequence[str], log: IO[bytes]) -> Iterator[subprocess.Popen]:
        """As `Connection.start`. A death by signal comes back as 128 + its number: the remote shell says so."""
        self._bring_program()
        python = _shell_path(str(self.python))
        words = shlex.join([*ISOLATED, program_name(), *arguments])
        missing = shlex.quote(f"no Python at {self.python}. Name one: ssh://HOST/PATH/TO/PYTHON")
        # `exit $?`: a shell that ends with its last command makes way for it, and then nobody says which signal it was
        # first of all a mark: before it comes what the login shell prints, a greeting or the echo of a ~/.bashrc
        check = f"{MARKED}; command -v {python} >/dev/null || {{ echo {missing} >&2; exit 127; }}"
        command = f"{check}; {AT_HOME} && {HOME}=$PWD {python} {words}; exit $?"
        pipe = subprocess.PIPE
        with owned(self._ssh(command), stdin=pipe, stdout=pipe, stderr=log, env=ssh_env()) as child:
            self._skip_greeting(child)
            yield child

    def _skip_greeting(self, child: subprocess.Popen) -> None:
        """Read up to the mark. Where the output ends before, the next who reads finds that end, and says why."""
        assert child.stdout is not None
        pipe, seen, deadline = child.stdout.fileno(), b"", time.monotonic() + self.timeout_s
        while not seen.endswith(MARK):
            ready = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]
            if not ready or len(seen) > GREETING_LIMIT_BYTES:
                within = "" if ready else f" in {self.timeout_s:g} s"
                raise DeviceError(
                    f"its login shell ran no command{within} ({len(seen)} bytes came, the last line: "
                    f"{last_line(seen) or 'none'})",
                    advice="Check with: ssh HOST true",
                    where=f"ssh {self.host.host}",
                )
            byte = os.read(pipe, 1)  # one at a time: what follows the mark belongs to whoever reads next
            if not byte:
                return
            seen += byte

    def run(self, command: str, data: bytes = b"") -> bytes:
        """What a POSIX shell command printed on the device.

        Raises:
            DeviceError: It failed, with its last words, or took longer than `timeout_s`.
        """
        return self._checked(*self._answer(command, data))

    def _checked(self, done: CommandOutput, out: bytes) -> bytes:
        if not done.status.ok:
            raise DeviceError(
                done.status.last_words or done.status.how,
                advice="Correct that and try again.",
                where=f"ssh {self.host.host}",
            )
        return out

    def _answer(self, command: str, data: bytes = b"") -> tuple[CommandOutput, bytes]:
        """How a command ended, and what it printed after the mark."""
        where = f"ssh {self.host.host}"
        try:
            done = run_command(self._ssh(f"{MARKED}; {command}"), data, timeout_s=self.timeout_s, env=ssh_env())
        except TimeoutError as e:
            raise DeviceError(
                f"no answer in {self.timeout_s:g} s", advice="Check that it is running.", where=where
            ) from e
        greeting, mark, out = done.out.partition(MARK)
        self.greeting = greeting
        if not mark:  # an account without a shell says so on its output: nologin, sftp only
            said = done.status.last_words or last_line(greeting) or done.status.how
            raise DeviceError(
                f"its login shell does not run commands ({said})",
                advice="Check with: ssh HOST true; log in as a user who has a shell.",
                where=where,
            )
        return done, out

    def _bring_program(self) -> None:
        """Put this edgeloop's program there unless it is: its name is its content's hash."""
        if self.shared.has_program:
            return
        name, size = shlex.quote(program_name()), len(program())
        whole = f"[ -f {name} ] && [ $(wc -c <{name}) -eq {size} ]"
        said = self._write(f"mkdir -p -m 700 {FOLDER} && {AT_HOME} && if {whole}; then echo here; fi")
        if said != b"here\n":
            # under a name of its own, and counted: the end of a broken upload looks like the end of a whole one
            new = f"new=$(mktemp {name}.$$.XXXXXX) && trap 'rm -f \"$new\"' EXIT"
            keep = (
                f'{{ [ $(wc -c <"$new") -eq {size} ] || exit 1; }} && {{ sync "$new" || sync; }} && mv -f "$new" {name}'
            )
            self._write(f'{AT_HOME} && {{ {SWEEP}; }} && {new} && cat >"$new" && {keep}', program())
            logger.info("sent %s to %s, %d bytes", name, self.host.host, size)
        self.shared.has_program = True

    def _write(self, command: str, data: bytes = b"") -> bytes:
        """As `run`, of a command that writes to edgeloop's folder there.

        Raises:
            WriteError: It failed; with its last words and what is free there.
            DeviceError: As `run`.
        """
        done, out = self._answer(f"{{ {command}; }} || {{ {REFUSED}; }}", data)
        if done.status.code != CANNOT_WRITE:
            return self._checked(done, out)
        folder, _, disk = out.decode(errors="replace").partition("\n")
        free, needed_kb, room = re.search(r"(\d+)\s+\d+%", disk), len(program()) // 1000 + 1, ""
        if free and int(free[1]) < needed_kb:
            room = f"; {free[1]} kB are free there, and {needed_kb} are needed"
        raise WriteError(
            f"cannot write {folder} ({done.status.last_words or 'no reason given'}){room}",
            advice=f"Make room for it there, make it writable, or set {HOME} there to another folder.",
            where=f"ssh {self.host.host}",
        )

    def _ssh(self, command: str) -> list[str]:
        # `sh -c`: the login shell may be none that knows this syntax
        assert self.shared.socket is not None  # from the moment that the connection is open
        words = ssh_words(self.host, self.shared.socket)
        return [*words, "-T", "--", self.host.host, f"sh -c {shlex.quote(command)}"]


@contextlib.contextmanager
def connect_ssh(host: Host, python: Path, timeout_s: float) -> Iterator[SshConnection]:
    """A line to the host; the first to come opens it, the last to leave closes it. Safe from several threads.
    `timeout_s`: as SshConnection.

    Raises:
        MissingExtra: No ssh on this machine.
        DeviceError: The host cannot be reached or refuses us.
    """
    with _lock:
        shared = _shared.setdefault(host, _SharedConnection())
        shared.users += 1
    try:
        with shared.lock:
            if shared.socket is None:
                shared.socket = shared.close.enter_context(logged_in(host))
        yield SshConnection(host, python, shared, timeout_s)
    finally:
        with _lock:
            shared.users -= 1
            last = shared.users == 0
            if last:
                del _shared[host]
        if last:
            shared.close.close()


def _shell_path(path: str) -> str:
    """A path as a word of the device's shell, which knows the home folder."""
    return f'"$HOME"/{shlex.quote(path[3:])}' if path.startswith("/~/") else shlex.quote(path)
