"""Where a model can run: this interpreter, another one on this machine, a machine behind ssh.

local                           the interpreter that runs edgeloop
local:PYTHON                    another interpreter, with other packages
browser                         a page in headless Chromium on this machine; where `BROWSER` is listed, in `bench` alone
ssh://[USER@]HOST[:PORT][/PYTHON]   a machine that OpenSSH reaches without a password; PYTHON: its interpreter's path

A path that begins with ~/ lies in the home folder there: local:~/edge/bin/python, ssh://pi@camera/~/edge/bin/python.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from edgeloop.errors import DeviceError, MissingExtra, OptionsError
from edgeloop.runtime.environment import environment_folder, is_complete

ENVIRONMENT_MARKS = "pyvenv.cfg", "conda-meta"  # lie in an environment that has a name of its own
DEVICE_PYTHON = "EDGELOOP_DEVICE_PYTHON"
DEVICE_FORMS = "local, local:PYTHON (another interpreter) or ssh://[USER@]HOST[:PORT][/PATH/TO/PYTHON]"
EXPECTED = "Expected local, local:PYTHON or ssh://[USER@]HOST[:PORT][/PATH/TO/PYTHON]."
# no name begins with a dash, or ssh would take it for an option; what else a name may be, ssh itself decides
SSH = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z_][\w.-]*)@)?(?P<host>[A-Za-z0-9][\w.-]*|\[[0-9a-fA-F:.]+(?:%[\w.-]+)?\])"
    r"(?::(?P<port>\d{1,5}))?(?P<python>/(?:~/)?[\w./+-]+)?/?",
    re.ASCII,
)


@dataclass(frozen=True)
class Host:
    """A machine behind ssh; None: what the user's ssh_config says."""

    host: str
    user: str | None = None
    port: int | None = None


@dataclass(frozen=True)
class Device:
    """A place to run an agent. `name` is what the user wrote; `python` lies on the device; `alias` is what a fleet file
    calls it."""

    name: str
    python: Path
    ssh: Host | None = None
    alias: str = field(default="", compare=False)

    @property
    def display_name(self) -> str:
        """For who named it: what a fleet file calls it, else its address."""
        return self.alias or self.name

    @property
    def label(self) -> str:
        """For records that others read: which machine or environment, not who or where on a disk."""
        if self.alias:
            return self.alias
        if self.ssh is not None:
            return f"ssh:{self.ssh.host}" + (f":{self.ssh.port}" if self.ssh.port else "")
        if self.name in ("local", BROWSER.name):
            return self.name
        environment = self.python.parent.parent
        if any((environment / mark).exists() for mark in ENVIRONMENT_MARKS):
            return f"local:{environment.name}"
        parts = 3 if self.python.parent.name == "bin" else 2  # usr/bin/python3.9, pypy/python
        return f"local:{'/'.join(self.python.parts[-parts:]).lstrip('/')}"


BROWSER = Device("browser", Path(sys.executable))  # that interpreter drives Chromium


def parse_device(text: str) -> Device:
    """Read a device's name as the user writes it.

    Raises:
        OptionsError: Another form.
        DeviceError: No such interpreter on this machine.

    Example:
        >>> parse_device("ssh://pi@camera.local/home/pi/edge/bin/python").label
        'ssh:camera.local'
    """
    if text.startswith("ssh:"):
        return _behind_ssh(text)
    kind, _, python = text.partition(":")
    if kind != "local" or (":" in text and not python):
        raise OptionsError(f"{text!r} is not a device", advice=EXPECTED)
    if not python:
        return Device("local", Path(sys.executable))
    found = shutil.which(Path(python).expanduser())  # a shell expands ~ at the beginning of a word alone
    if found is None:
        raise DeviceError(f"{text}: {python} is not a program", advice="Name an existing Python: local:PYTHON")
    return Device(text, Path(found).absolute())


def _behind_ssh(text: str) -> Device:
    if re.match(r"ssh:[^@]*[^@/]:.*@", text, re.DOTALL):  # no message repeats it: messages are kept in logs
        raise OptionsError(
            "the name of a device holds a password", advice=f"Leave it out: ssh logs in with a key. {EXPECTED}"
        )
    match = SSH.fullmatch(text)
    port = int(match["port"]) if match and match["port"] else None
    if match is None or (port is not None and not 0 < port < 65536):
        raise OptionsError(f"{text!r} is not a device", advice=EXPECTED)
    host = Host(match["host"].strip("[]"), match["user"], port)
    return Device(text, Path(match["python"] or "python3"), host)


def device_environment() -> Device:
    """The environment without TensorFlow that `edgeloop setup device` makes; $EDGELOOP_DEVICE_PYTHON names another.

    Raises:
        MissingExtra: It is not there.
    """
    named, folder = os.environ.get(DEVICE_PYTHON), environment_folder("device")
    python = Path(named) if named else folder / "bin" / "python"
    if not (python.is_file() if named else is_complete(folder)):
        raise MissingExtra(
            f"there is no device environment at {python}",
            advice=f"Run: edgeloop setup device, or name its Python in {DEVICE_PYTHON}.",
        )
    return Device(f"local:{python}", python)
