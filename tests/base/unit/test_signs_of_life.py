"""A child whose asking end falls silent ends by itself; one that only has nothing to say is not taken for dead."""

import subprocess
import sys
import threading
import time

import pytest

from edgeloop.processes.conversation import Conversation
from edgeloop.processes.signs_of_life import sending_signs

WAIT_S = 60
CHILD = """
import sys, time
from edgeloop.processes import signs_of_life
signs_of_life.SILENCE_S, signs_of_life.LOOK_S = float(sys.argv[1]), 0.1
from edgeloop.processes.frames import serve
def nap(header, payload):
    time.sleep(header["s"])
    return {"slept": header["s"], "got": len(payload)}, b""
serve({"nap": nap})
"""


@pytest.fixture
def silence_s():
    """After which the child ends."""
    return 1.0


@pytest.fixture
def child(tmp_path, silence_s):
    pipe = subprocess.PIPE
    with (
        (tmp_path / "log").open("w+b") as log,
        subprocess.Popen([sys.executable, "-c", CHILD, str(silence_s)], stdin=pipe, stdout=pipe, stderr=log) as process,
    ):
        yield Conversation(process, "child", WAIT_S, log)
        process.kill()


def test_without_a_first_sign_silence_means_nothing(child):
    child.ask("nap", {"s": 0})
    time.sleep(1.5)
    assert child.ask("nap", {"s": 0})[0] == {"slept": 0, "got": 0}


@pytest.mark.parametrize("doing", ["nothing", "an operation", "half a payload"])
def test_a_child_ends_a_while_after_the_last_sign_whatever_it_does(child, doing):
    child._sign()
    if doing == "an operation":
        child._send(b'{"id": 1, "op": "nap", "s": 60, "bytes": 0}\n', time.monotonic() + WAIT_S, "nap")
    if doing == "half a payload":
        child._send(b'{"id": 1, "op": "nap", "s": 60, "bytes": 1000}\n12345', time.monotonic() + WAIT_S, "nap")
    assert child.child.wait(WAIT_S) == 1
    child.log.seek(0)
    assert b"nothing came from the host for 1 s" in child.log.read()


@pytest.mark.parametrize("silence_s", [3.0])  # many signs long: on a busy machine some come late
def test_signs_keep_a_child_that_works_or_waits_alive(child, silence_s, monkeypatch):
    monkeypatch.setattr("edgeloop.processes.signs_of_life.EVERY_S", 0.1)
    with child.signs_of_life():
        assert child.ask("nap", {"s": 3.5}, b"xyz")[0] == {"slept": 3.5, "got": 3}
        time.sleep(3.5)
        assert child.ask("nap", {"s": 0})[0]["slept"] == 0
    assert child.child.wait(WAIT_S) == 1


def test_a_sign_never_lands_in_a_frame(child, monkeypatch):
    monkeypatch.setattr("edgeloop.processes.signs_of_life.EVERY_S", 0.0)  # as often as it can
    with child.signs_of_life():
        for size in (0, 1, 1 << 16, 3 << 20):
            assert child.ask("nap", {"s": 0}, bytes(size))[0]["got"] == size


def test_signs_stop_with_their_block_and_where_the_other_end_is_gone(monkeypatch):
    monkeypatch.setattr("edgeloop.processes.signs_of_life.EVERY_S", 0.01)
    before, sent = threading.active_count(), []
    with sending_signs(lambda: sent.append(1)):
        while len(sent) < 3:
            time.sleep(0.01)
    assert threading.active_count() == before

    def gone():
        sent.clear()
        raise BrokenPipeError

    with sending_signs(gone):
        while threading.active_count() > before:
            time.sleep(0.01)
    assert sent == []
