"""`edgeloop federate join` and a real SuperLink with TLS and node keys: who is let in, and what a device survives."""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edgeloop.federated.network.processes import environment
from edgeloop.processes.children import owned
from edgeloop.processes.ports import free_ports

pytest.importorskip("flwr")
from joining import WAIT_S, Authority, Joined, new_key

BIN = Path(sys.executable).parent


class Server:
    """A SuperLink with TLS, node keys and a database that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder, (self.port,) = folder, free_ports(1)
        self.authority = Authority(folder, "authority")
        self.certificate, self.key = self.authority.server("server", 90)
        self.environment = environment(Path(sys.executable), folder)
        (folder / "config.toml").write_text(
            f'[superlink]\ndefault = "tls"\n[superlink.tls]\naddress = "127.0.0.1:{self.port}"\n'
            f'root-certificates = "{self.authority.root}"\n'
        )
        self.running = contextlib.ExitStack()

    def start(self) -> None:
        command = [BIN / "flower-superlink", "--host", "127.0.0.1", "--port", self.port, "--isolation", "process"]
        command += ["--ssl-ca-certfile", self.authority.root, "--ssl-certfile", self.certificate]
        command += ["--ssl-keyfile", self.key, "--enable-supernode-auth", "--database", self.folder / "state.db"]
        command += ["--disable-runtime-dependency-installation"]
        log = self.running.enter_context((self.folder / "superlink.log").open("ab"))
        child = owned(list(map(str, command)), stdout=log, stderr=log, env=self.environment, grace_s=0.2)
        self.child = self.running.enter_context(child)
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.2)
        raise AssertionError((self.folder / "superlink.log").read_text()[-2000:])

    def flwr(self, *arguments: str) -> str:
        done = subprocess.run(
            [BIN / "flwr", *arguments], env=self.environment, capture_output=True, text=True, timeout=WAIT_S
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def new_key(self, name: str) -> Path:
        return new_key(self.folder / name)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("superlink"))
    with server.running:
        server.start()
        yield server


@pytest.fixture
def join(tmp_path):
    """Start a device; all have ended after the test."""
    started = []

    def start(*arguments: object) -> Joined:
        started.append(Joined(tmp_path, *arguments))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()


@contextlib.contextmanager
def tls_server(certificate: Path, key: Path):
    """A port that shows this certificate and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True):
                    continue

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def test_a_device_that_the_server_does_not_know_is_refused_in_one_line(server, join, tmp_path):
    root, stranger = server.authority.root, Authority(tmp_path, "stranger").root
    with tls_server(*server.authority.server("expired", -1)) as expired:
        refused = [
            (join("no-key", server.port, "--root-certificate", root), "takes registered keys only", 8),
            (
                join("unregistered", server.port, "--root-certificate", root, "--key", server.new_key("unknown")),
                "does not take the key",
                8,
            ),
            (
                join("wrong-ca", server.port, "--root-certificate", stranger, "--key", server.new_key("known")),
                "is refused: unable to get local issuer certificate",
                9,
            ),
            (
                join("expired", expired, "--root-certificate", root, "--key", server.new_key("other")),
                "is refused: certificate has expired",
                9,
            ),
        ]
        for device, says, code in refused:
            assert device.ends(says) == code


def test_a_device_outlives_the_server_and_its_own_death_and_ends_when_its_key_is_revoked(server, join):
    key = server.new_key("device")
    server.flwr("supernode", "register", f"{key}.pub", "tls")
    own = ("device", server.port, "--root-certificate", server.authority.root, "--key", key)
    first = join(*own)
    node = first.says("connected as node").split()[-1]
    os.kill(server.child.pid, signal.SIGKILL)
    first.says("cannot be reached")
    server.start()
    assert '"online"' in wait_for_online(server, node)
    first.process.kill()  # and at once, though the server still counts it as connected for a minute
    second = join(*own)
    assert second.says("connected as node").split()[-1] == node
    second.process.send_signal(signal.SIGINT)
    assert second.process.wait(WAIT_S) == 130
    third = join(*own)
    assert third.says("connected as node").split()[-1] == node
    server.flwr("supernode", "unregister", node, "tls")
    assert third.ends("no longer takes the key") == 8


def wait_for_online(server: Server, node: str) -> str:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        listed = server.flwr("supernode", "list", "tls", "--format", "json")
        if node in listed and '"online"' in listed:
            return listed
        time.sleep(1)
    raise AssertionError(listed)
