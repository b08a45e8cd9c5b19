"""One holder at a time, and a bound on waiting for it."""

import subprocess
import sys

import pytest

from edgeloop.edge.deploy import known_devices
from edgeloop.errors import WriteError
from edgeloop.processes.file_lock import exclusive
from edgeloop.runtime.device import parse_device

HOLD = """
import sys
from edgeloop.processes.file_lock import exclusive
with exclusive(sys.argv[1], 1):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """`holder(mark)`: another process that holds it until it is killed."""
    children = []

    def hold(mark):
        child = subprocess.Popen([sys.executable, "-c", HOLD, mark], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        children.append(child)
        assert child.stdout.readline() == b"held\n"
        return child

    yield hold
    for child in children:
        child.kill()
        child.communicate(timeout=180)


def test_what_another_process_holds_is_waited_for_and_no_longer_than_said(tmp_path, holder):
    holder(tmp_path / "lock")
    with pytest.raises(TimeoutError, match=r"lock was held for 0\.2 s"), exclusive(tmp_path / "lock", 0.2):
        pass


def test_a_process_that_is_killed_lets_go(tmp_path, holder):
    child = holder(tmp_path / "lock")
    child.kill()
    with exclusive(tmp_path / "lock", 10):
        pass


def test_a_list_of_devices_that_another_edgeloop_holds_is_an_error_in_the_end(tmp_path, holder, monkeypatch):
    monkeypatch.setenv(known_devices.FLEET, str(tmp_path / "fleet.json"))
    monkeypatch.setattr(known_devices, "LOCK_S", 0.2)
    holder(tmp_path / "fleet.json.lock")
    with pytest.raises(WriteError, match=r"fleet\.json\.lock was held for 0\.2 s, by another edgeloop"):
        known_devices.add_devices([parse_device("local")])
    assert not (tmp_path / "fleet.json").exists()
