"""Devices that follow a registry: under load, behind a server that dies, many at once."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import matrix_bundles
import numpy as np
import pytest
from devices import eventually, free_port, make_key
from matrix_bundles import Deployer, slot, write_bundle
from pulling import file_server
from releases import NAME, release
from serving import program
from sweeps import swept

from edgeloop.bundle import SIGNATURE, read_bundle
from edgeloop.edge.on_device.pull.pull_record import read_record
from edgeloop.edge.on_device.releases.store import Slot, read_state
from edgeloop.edge.on_device.releases.trust import enroll
from edgeloop.processes.children import owned
from edgeloop.registry.publish import publish
from edgeloop.registry.signatures.sign import sign_bundle
from edgeloop.runtime.agent.paths import HOME

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen: install openssh-client")
SAMPLE = {"instances": [[0.1, 0.2, 0.3, 0.4]]}


@pytest.fixture(scope="module")
def key(tmp_path_factory) -> Path:
    make_key(tmp_path_factory.mktemp("key") / "key")
    return tmp_path_factory.getbasetemp() / "key0" / "key"


@pytest.fixture
def signers(key) -> bytes:
    return f"release@example.com {' '.join(key.with_name('key.pub').read_text().split()[:2])}\n".encode()


@pytest.fixture
def published(tmp_path, key):
    """`published(version, ...)`: a signed version of a classifier in the registry `tmp_path/registry`."""

    def make(version, **options):
        bundle = release(tmp_path / "bundles", version, proved=True, **options)
        sign_bundle(read_bundle(bundle), key)
        publish(bundle, tmp_path / "registry")

    return make


class Load:
    """Two clients that send requests all the time. `answered`: releases, `by_client`: of each in order; `failed`: what
    went wrong."""

    def __init__(self, port: int) -> None:
        self.port, self.answered, self.failed, self.by_client = port, [], [], ([], [])
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(own,)) for own in self.by_client]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self._stop.set()
        for thread in self._threads:
            thread.join(120)

    def _ask(self, own):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=180)
        with contextlib.closing(connection):
            while not self._stop.is_set():
                try:
                    connection.request("POST", "/v1/predict", json.dumps(SAMPLE))
                    response = connection.getresponse()
                    body = json.loads(response.read())
                    assert response.status == 200, body
                    own.append(int(response.headers["X-Edgeloop-Release"]))
                    self.answered.append(own[-1])
                except Exception as e:
                    self.failed.append(repr(e))
                    return
                time.sleep(0.005)


@pytest.fixture
def device(tmp_path, device_python, signers, monkeypatch):
    """`with device(source, ...) as log`: a program of the device that follows `source` and serves."""
    monkeypatch.setenv(HOME, str(tmp_path / "home"))
    enroll(str(tmp_path / "home"), signers)

    @contextlib.contextmanager
    def start(source, *arguments):
        log = tmp_path / "log"
        own = (f"--follow={source}", "--poll-s=0.3", "--http=0", "--variant=int8", "--runtime=litert", *arguments)
        with program(device_python, log, *own) as child:
            line = child.stdout.readline()
            assert line, log.read_text()
            with Load(int(json.loads(line)["http"].rpartition(":")[2])) as load:
                yield load
            os.kill(child.pid, signal.SIGTERM)
            child.wait(60)

    return start


def test_a_device_follows_a_folder_and_then_a_server_without_a_failed_request(device, published, tmp_path):
    """A release that computes something wrong is tried once, and one that is too slow is rolled back."""
    installed = Slot(str(tmp_path / "home"), NAME)

    def runs(version):
        return eventually(
            lambda: read_state(installed).current.version == version and load.answered[-1:] == [version], 120
        )

    def refused(version):
        return eventually(lambda: f"release {version} failed" in read_record(installed).reason, 120)

    published(1)
    with device(tmp_path / "registry" / NAME) as load:
        assert runs(1)
        published(2)
        assert runs(2), (tmp_path / "log").read_text()
    assert not load.failed and set(load.answered) == {1, 2}
    with file_server(tmp_path / "registry") as web, device(f"{web.url}/{NAME}") as load:
        published(3)
        assert runs(3)
        published(4, wrong=True)
        assert refused(4)
        polls = len(web.asked)
        assert eventually(lambda: len(web.asked) >= polls + 4)
        assert set(web.paths()[polls:]) == {f"/{NAME}/index.json"}
    assert not load.failed and set(load.answered) == {2, 3}
    assert all(one == sorted(one) for one in load.by_client)
    with device(tmp_path / "registry" / NAME, "--p90-budget-ms=0.000001") as load:
        published(5)
        assert refused(5)
        assert eventually(lambda: load.answered[-1] == 3)
    assert not load.failed
    assert "above the budget" in read_record(installed).reason
    assert (read_state(installed).current.version, read_state(installed).floor) == (3, 3)


def test_a_service_waits_for_its_first_release_and_ends_when_told(device_python, tmp_path, signers, monkeypatch):
    monkeypatch.setenv(HOME, str(tmp_path / "home"))
    enroll(str(tmp_path / "home"), signers)
    with program(device_python, tmp_path / "log", f"--follow={tmp_path}/{NAME}", "--http=0") as child:
        assert eventually(lambda: "waiting for the first release" in (tmp_path / "log").read_text())
        assert eventually(lambda: read_record(Slot(str(tmp_path / "home"), NAME)))
        child.terminate()
        assert child.wait(60) == 0
    assert "index.json cannot be read" in (tmp_path / "log").read_text()


@contextlib.contextmanager
def web_server(folder, port):
    """Python's own, as a process that can be killed."""
    with owned([sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "-d", folder]) as child:
        assert eventually(lambda: _answers(port))
        yield child


def _answers(port):
    with (
        contextlib.suppress(OSError),
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as c,
    ):
        c.request("GET", "/")
        return c.getresponse().status == 200
    return False


@swept("count", 5, 50, pytest.mark.soak)
def test_many_devices_behind_a_server_that_is_killed_end_on_the_newest_release(count, root, key, signers, tmp_path):
    """The models cost nothing (following_fleet.py); the releases, signatures and the server are real."""
    homes = [tmp_path / f"home-{i}" for i in range(count)]
    for home in homes:
        Deployer(home).ask("enroll", signers)
    registry, port = tmp_path / "registry", free_port()

    def publish_version(version):
        noise = np.random.default_rng(version).bytes(2_000_000)
        bundle = write_bundle(tmp_path / "bundles" / str(version), version, labels=noise)
        sign_bundle(read_bundle(bundle), key)
        publish(bundle, registry)
        assert (bundle / SIGNATURE).is_file()

    def versions():
        """What each device runs, every hash checked and the model asked."""
        return {home: matrix_bundles.running(home) for home in homes}

    def all_run(version):
        current = [read_state(slot(home)).current for home in homes]
        return all(one is not None and one.version == version for one in current)

    publish_version(1)
    source = f"http://127.0.0.1:{port}/{matrix_bundles.NAME}"
    command = [sys.executable, root / "tests" / "following_fleet.py", source, *homes]
    environment = {**os.environ, "PYTHONPATH": str(root / "tests"), "OPENBLAS_NUM_THREADS": "1"}
    with owned(command, stdin=subprocess.PIPE, stderr=None, env=environment):
        with web_server(registry, port) as server:
            assert eventually(lambda: all_run(1), 240)
            publish_version(2)
            # as soon as the first device fetches it, in the middle of the others
            assert eventually(lambda: any((home / "slots/tiny/staging").exists() for home in homes), 120)
            server.kill()
        assert set(versions().values()) <= {1, 2}
        publish_version(3)
        time.sleep(1.0)  # polls fail meanwhile
        with web_server(registry, port):
            assert eventually(lambda: all_run(3), 240)
    assert set(versions().values()) == {3}
    assert not [home for home in homes if (home / "slots/tiny/staging").exists()]
