"""`federate run` with [network], and devices that join it with TLS and keys: one run, through its faults."""

import contextlib
import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeloop.federated.network.certificates import write_certificates
from edgeloop.processes.ports import free_ports

pytest.importorskip("flwr")
from joining import WAIT_S, Joined, new_key
from tiny_bundle import write_tiny_bundle

ROUNDS = 12  # of the resumed run: a device asks once a second, so that a key is revoked before the last one
FILE = """[model]
bundle = "{bundle}"
[rounds]
count = 1000
epochs = 20
quorum = 0.5
deadline-s = 10
[network]
listen = "127.0.0.1:{port}"
devices = 2
certificate = "certificates/server.pem"
key = "certificates/server.key"
root-certificate = "certificates/ca.pem"
device-keys = "keys"
"""


class Server:
    """`federate run` in a folder of its own."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        self.folder, self.out, (self.port,) = folder, folder / "run", free_ports(1)
        self.root = write_certificates(folder / "certificates", ["127.0.0.1"], 30)[0]
        (folder / "keys").mkdir()
        (folder / "f.toml").write_text(FILE.format(bundle=bundle, port=self.port))

    def start(self, *options: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "edgeloop", "federate", "run", "f.toml", "-o", "run", "--json", *options]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            stdout=(self.folder / "answer.json").open("wb"),
            stderr=(self.folder / "said.txt").open("wb"),
            env={**os.environ, "TMPDIR": str(self.folder)},
        )

    def said(self) -> str:
        return (self.folder / "said.txt").read_text()

    def rounds(self) -> int:
        return len(list(self.out.glob("rounds/round-*.npz")))

    def asked_from_outside(self, path: str) -> int:
        """The HTTP status of a POST by whoever has the root certificate."""
        context = ssl.create_default_context(cafile=str(self.root))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=30)
        with contextlib.closing(connection):
            connection.request("POST", path, b"", {"content-type": "application/protobuf"})
            return connection.getresponse().status


def wait_until(holds, running: subprocess.Popen, server: Server) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert running.poll() is None and time.monotonic() < deadline, server.said()
        time.sleep(0.1)


@pytest.mark.timeout(1500)  # two starts of Flower's processes, on a busy machine
def test_devices_of_other_machines_finish_a_run_whose_server_was_killed(made_once, tmp_path):
    folders = [tmp_path / name for name in ("server", "pi-1", "pi-2", "stranger")]
    for folder in folders:
        folder.mkdir()
    server = Server(folders[0], made_once("tiny-bundle-of-8", lambda folder: write_tiny_bundle(folder, 8)))
    with contextlib.ExitStack() as stack:

        def join(folder: Path, *options: object) -> Joined:
            device = Joined(folder, "state", server.port, "--root-certificate", server.root, *options)
            stack.callback(device.process.wait)
            stack.callback(device.process.kill)
            return device

        keys = [new_key(folder / "device-key") for folder in folders[1:]]
        for key in keys[:2]:
            (folders[0] / "keys" / f"{key.parent.name}.pub").write_bytes(Path(f"{key}.pub").read_bytes())
        devices = [join(key.parent, "--key", key) for key in keys[:2]]  # before there is a server
        running = server.start()
        stack.callback(running.kill)
        wait_until(lambda: server.rounds() >= 2, running, server)
        assert (
            f"edgeloop federate join https://127.0.0.1:{server.port} --data DATA --root-certificate ca.pem --key "
            in (server.said())
        )
        assert "2 of 2 devices are connected" in server.said()
        # what devices need is there; Flower's commands, which run code on the server, are not
        assert server.asked_from_outside("/v1/fleet/pull-messages") == 401
        for path in ("/v1/control/start-run", "/v1/control/register-node", "/v1/runtime/acquire-task", "/docs"):
            assert server.asked_from_outside(path) == 404
        assert join(folders[3], "--key", keys[2]).ends("does not take the key") == 8

        running.kill()  # as if the machine had lost its power
        assert running.wait(WAIT_S) == -signal.SIGKILL
        os.kill(devices[1].process.pid, signal.SIGSTOP)  # it sleeps while the server comes back
        done = server.rounds()
        running = server.start("--resume", "--rounds", str(done + ROUNDS))
        stack.callback(running.kill)
        wait_until(lambda: "1 of 2 devices are connected" in server.said(), running, server)
        os.kill(devices[1].process.pid, signal.SIGCONT)
        wait_until(lambda: server.rounds() >= done + 2, running, server)
        (folders[0] / "keys" / "pi-1.pub").unlink()
        assert devices[0].ends("no longer takes the key") == 8
        assert running.wait(WAIT_S) == 0, server.said()
    document = json.loads((server.folder / "answer.json").read_bytes())
    counted = [[client["examples"] for client in record["clients"]] for record in document["rounds"]]
    assert counted[: done + 2] == [[4, 4]] * (done + 2) and document["state"] == "finished"
    assert counted[-1] == [4] and len(counted) == done + ROUNDS
