"""Log in to a machine with the user's own ssh, once, and leave a control socket that other ssh commands go through.

Keys, agents, jump hosts and known_hosts are what `ssh HOST` uses; nobody is ever asked for a password.
EDGELOOP_SSH_CONFIG names another configuration file than the user's (`ssh -F`).

Source: https://man.openbsd.org/ssh_config (ControlMaster, ControlPath, BatchMode)
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from edgeloop.errors import DeviceError, MissingExtra, last_line
from edgeloop.leftovers import log_file, temporary_folder
from edgeloop.processes.children import owned
from edgeloop.runtime.device import Host

logger = logging.getLogger(__name__)
CONFIG = "EDGELOOP_SSH_CONFIG"
CONNECT_TIMEOUT_S = 20.0  # ssh's own, of which it gives the reason, ends earlier
# Never a prompt; a line that is dead for 15 s is over. What a user's ssh_config may say of his own sessions (another
# command, ports to forward, a master that stays) is not meant for ours; ERROR leaves banners out of the reason.
OPTIONS = (
    "BatchMode=yes",
    "ConnectTimeout=15",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "LogLevel=ERROR",
    "RemoteCommand=none",
    "ClearAllForwardings=yes",  # of ports
    "ForwardAgent=no",  # a device that was taken over could sign bundles with the user's keys
    "ForwardX11=no",
    "ControlMaster=no",
    "ControlPersist=no",
)


@contextlib.contextmanager
def logged_in(host: Host) -> Iterator[Path]:
    """The control socket of a login that lasts as long as the block.

    Raises:
        MissingExtra: No ssh on this machine.
        DeviceError: The host cannot be reached or refuses us.
    """
    # a socket's path has 108 bytes at most, so not below a temporary folder that may lie deep
    with temporary_folder(_short()) as folder, log_file() as log:
        socket = Path(folder) / "line"
        with owned([*ssh_words(host, socket), "-M", "-N", "--", host.host], stderr=log, env=ssh_env()) as master:
            deadline = time.monotonic() + CONNECT_TIMEOUT_S
            while not socket.exists():
                ended = master.poll() is not None
                if ended or time.monotonic() > deadline:
                    log.seek(0)
                    said = log.read()
                    reason = last_line(said) or f"no connection in {CONNECT_TIMEOUT_S:g} s"
                    raise DeviceError(f"cannot reach {host.host}: {reason}", advice=_advice(said, host))
                time.sleep(0.005)
            logger.info("connected to %s", host.host)
            yield socket
        logger.info("disconnected from %s", host.host)


def ssh_words(host: Host, socket: Path) -> list[str]:
    """An ssh command line up to its host; `ssh_env()` goes with it."""
    program = shutil.which("ssh")
    if program is None:
        raise MissingExtra("OpenSSH's client is not installed", advice="Run: apt-get install openssh-client")
    config = os.environ.get(CONFIG)
    words = [program, *(["-F", config] if config else [])]
    words += [word for option in OPTIONS for word in ("-o", option)]
    words += ["-S", str(socket).replace("%", "%%")]  # ssh replaces %h and the like
    words += ["-p", str(host.port)] if host.port else []
    return [*words, *(["-l", host.user] if host.user else [])]


def ssh_env() -> dict[str, str]:
    """BatchMode holds for one ssh; the ones it starts for its jump hosts would open a window and ask."""
    return {**os.environ, "SSH_ASKPASS_REQUIRE": "never"}


def _short() -> str | None:
    """Where temporary files go, unless that lies deep; None: nowhere, which `temporary_folder` says."""
    with contextlib.suppress(OSError):
        temporary = tempfile.gettempdir()
        return temporary if len(temporary) < 60 else "/tmp"
    return None


def _advice(said: bytes, host: Host) -> str:
    at = f"{host.user}@{host.host}" if host.user else host.host
    port = f" -p {host.port}" if host.port else ""
    if b"IDENTIFICATION HAS CHANGED" in said:
        name = f"[{host.host}]:{host.port}" if host.port else host.host
        return f"Its key is not the one in known_hosts: if it should be, ssh-keygen -R {shlex.quote(name)}."
    if b"Host key verification" in said or b"Permission denied" in said:
        return f"Try by hand once: ssh{port} {at}. edgeloop uses your keys and known_hosts and asks for no password."
    return "Is the device on, and does sshd listen there?"
