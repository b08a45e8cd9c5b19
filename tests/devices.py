"""Devices for tests, each with an OpenSSH server, a folder and an address of its own, ended with the test.

    def test_x(ssh_device):          this machine behind ssh on loopback, as whoever runs the tests, root or not
    def test_y(new_ssh_device):      many of them: new_ssh_device("left"), new_ssh_device("right")
    def test_z(new_arm64_device):    emulated ones: new_arm64_device(cpu="cortex-a53", memory_mb=128)

What emulated devices compute counts, how long they take does not: functional only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from edgeloop.processes.children import owned
from edgeloop.runtime.agent.paths import HOME
from edgeloop.runtime.device import Device, parse_device
from edgeloop.runtime.ssh_login import CONFIG

LOOPBACK = "127.0.0.1"
START_TIMEOUT_S = 60.0
SSHD_CONFIG = """\
ListenAddress {address}
Port {port}
HostKey {keys}/host
AuthorizedKeysFile {keys}/client.pub
SetEnv "{home_name}={home}"
StrictModes no
UsePAM no
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
"""
CLIENT_CONFIG = """\
IdentityFile {keys}/client
IdentitiesOnly yes
UserKnownHostsFile {keys}/known_hosts
GlobalKnownHostsFile none
"""


@dataclass
class SshDevice:
    """A running sshd and what belongs to it.

    Attributes:
        home: What edgeloop keeps there, seen from here.
        keys: Folder of `host`, `client` (and .pub), `known_hosts`, and `config`, which EDGELOOP_SSH_CONFIG names.
        sshd: The server's process, or the script that owns the emulated device.
        log: What the server said.
    """

    device: Device
    port: int
    home: Path
    keys: Path
    sshd: subprocess.Popen
    log: Path

    def processes(self) -> list[int]:
        """Programs that run there now, those that lost their parent too; the server itself not counted."""
        found = {*descendants(self.sshd.pid), *with_environment(f"{HOME}={self.home}")}
        return sorted(pid for pid in found if not any(word in _command(pid) for word in (b"sshd", b"arm64-device")))


@pytest.fixture(scope="session")
def sshd_program() -> str:
    """The server's program."""
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None or shutil.which("ssh-keygen") is None:
        pytest.skip("no OpenSSH server. Run: sudo apt-get install openssh-server")
    return found


@pytest.fixture(scope="session")
def device_keys(tmp_path_factory) -> Path:
    """A folder of keys that every device shares, and a client's configuration that uses them and nothing else."""
    keys = tmp_path_factory.mktemp("ssh")
    make_keys(keys)
    return keys


@pytest.fixture
def ssh_keys(device_keys, monkeypatch) -> Path:
    """EDGELOOP_SSH_CONFIG names that configuration."""
    monkeypatch.setenv(CONFIG, str(device_keys / "config"))
    return device_keys


@pytest.fixture
def new_ssh_device(sshd_program, ssh_keys, tmp_path_factory, device_python) -> Iterator[Callable[..., SshDevice]]:
    """`new_ssh_device(name)`: another server, with another port and folder; `python`: another interpreter;
    `settings`: more of sshd's configuration."""
    with contextlib.ExitStack() as running:

        def new(name: str = "device", python: Path = device_python, settings: str = "") -> SshDevice:
            folder = tmp_path_factory.mktemp(name)
            return running.enter_context(serving(sshd_program, ssh_keys, folder, python, settings))

        yield new


@pytest.fixture
def ssh_device(new_ssh_device) -> SshDevice:
    """One device behind ssh: this machine, the environment without TensorFlow."""
    return new_ssh_device()


@pytest.fixture(scope="session")
def arm64_place(root) -> Path:
    """What scripts/setup made: the root folder that every emulated device starts from."""
    place = root / ".devices"
    if not (place / "root").is_dir():
        missing = place / "missing"
        pytest.skip(f"no emulated devices: {missing.read_text().strip() if missing.is_file() else 'run make setup'}")
    if os.geteuid() != 0:
        pytest.skip("no emulated devices: only root can start them")
    return place


@pytest.fixture
def new_arm64_device(arm64_place, root, ssh_keys, tmp_path_factory) -> Iterator[Callable[..., SshDevice]]:
    """`new_arm64_device(cpu=..., runtimes=..., memory_mb=..., rate_kbit=...)`: see scripts/arm64-device."""
    with contextlib.ExitStack() as running:

        def new(**settings: object) -> SshDevice:
            folder = tmp_path_factory.mktemp("arm64")
            return running.enter_context(arm64_device(root / "scripts" / "arm64-device", folder, ssh_keys, settings))

        yield new


@contextlib.contextmanager
def arm64_device(script: Path, folder: Path, keys: Path, settings: Mapping[str, object]) -> Iterator[SshDevice]:
    """An emulated machine for as long as the block runs. EDGELOOP_SSH_CONFIG is the caller's to set."""
    shutil.copy(keys / "client.pub", folder / "authorized_keys")
    shutil.copy(keys / "host", folder / "host_key")
    log, address = folder / "log", folder / "address"
    words = [f"{name}={value}" for name, value in settings.items()]
    command = [script, "run", folder, *words]
    with log.open("wb") as said, owned(command, stderr=said, grace_s=10.0) as process:
        eventually(lambda: address.exists() or process.poll() is not None, START_TIMEOUT_S)
        assert address.exists(), f"no emulated device: {log.read_text()}"
        host = address.read_text().strip()
        know(keys, host, 22)
        yield SshDevice(parse_device(f"ssh://root@{host}"), 22, folder / "home", keys, process, log)


def make_key(path: Path) -> None:
    """An ed25519 key without a passphrase at `path` and `path`.pub."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "edgeloop-test", "-f", path]
    subprocess.run(command, check=True, timeout=60)


def make_keys(folder: Path) -> None:
    """What `SshDevice.keys` names, in an empty folder."""
    for name in ("host", "client"):
        make_key(folder / name)
    (folder / "known_hosts").touch()
    (folder / "config").write_text(CLIENT_CONFIG.format(keys=folder))


def know(keys: Path, host: str, port: int) -> None:
    """Write the host's key into known_hosts, as somebody who has checked it would."""
    name = host if port == 22 else f"[{host}]:{port}"
    with (keys / "known_hosts").open("a") as known:
        known.write(f"{name} {(keys / 'host.pub').read_text()}")


def free_port() -> int:
    """One that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def eventually(holds: Callable[[], object], timeout_s: float = 60.0) -> bool:
    """Whether it holds within the bound."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def descendants(pid: int) -> list[int]:
    """Children of a process, their children, and so on."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(after_name[1]), []).append(int(entry.name))
    found = list(children.get(pid, ()))
    for child in found:  # grows while it is walked
        found += children.get(child, ())
    return found


def with_environment(setting: str) -> list[int]:
    """Processes with NAME=VALUE in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone meanwhile, or another user's
            if setting.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@contextlib.contextmanager
def serving(program: str, keys: Path, folder: Path, python: Path, settings: str = "") -> Iterator[SshDevice]:
    """A server for as long as the block runs, with `keys` of `make_keys`; its own files go to `folder`. `settings` are
    further lines of its configuration."""
    home, log = folder / "home", folder / "sshd.log"
    home.mkdir(mode=0o700)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # Debian makes it when the service starts, which it does not
    with contextlib.ExitStack() as running:
        port, process = _started(program, keys, folder, running, settings)
        know(keys, LOOPBACK, port)
        device = SshDevice(parse_device(f"ssh://{LOOPBACK}:{port}{python}"), port, home, keys, process, log)
        try:
            yield device
        finally:
            for pid in [*descendants(process.pid), *device.processes()]:  # each session left sshd's process group
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _started(
    program: str, keys: Path, folder: Path, running: contextlib.ExitStack, settings: str
) -> tuple[int, subprocess.Popen]:
    config, log = folder / "sshd_config", folder / "sshd.log"
    for _ in range(5):  # somebody else may take a free port before sshd does
        port = free_port()
        config.write_text(
            SSHD_CONFIG.format(address=LOOPBACK, port=port, keys=keys, home_name=HOME, home=folder / "home") + settings
        )
        with log.open("wb") as words, contextlib.ExitStack() as attempt:
            process = attempt.enter_context(owned([program, "-D", "-e", "-f", config], stderr=words))
            listens = partial(_says, log, f"Server listening on {LOOPBACK} port {port}")
            eventually(lambda p=process, listens=listens: p.poll() is not None or listens(), START_TIMEOUT_S)
            if listens():
                running.push(attempt.pop_all())
                return port, process
    raise AssertionError(f"sshd does not start: {log.read_text()}")


def _says(log: Path, line: str) -> bool:
    # not by connecting: newer servers hold connections without a login against the address they came from
    return line in log.read_text()
