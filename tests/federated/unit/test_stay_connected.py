"""A device that nobody looks after: it goes on after any failure, and ends only where the server refuses it."""

import pytest

from edgeloop.errors import DeviceError, WriteError
from edgeloop.federated.device.connection.supervise import Waits, serve


class HttpError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.response = type("Response", (), {"status_code": status})()


class Script:
    """A connection whose calls do what a list says: raise an exception, or return a value."""

    def __init__(self, **calls) -> None:
        self.calls, self.node_id, self.made = {name: list(steps) for name, steps in calls.items()}, None, []

    def _next(self, name, *arguments):
        self.made.append((name, *arguments))
        steps = self.calls.get(name)
        if steps is None:
            return None
        if not steps:
            raise KeyboardInterrupt
        step = steps.pop(0)
        if isinstance(step, BaseException):
            raise step
        return step

    def connect(self):
        self._next("connect")
        self.node_id = 7

    def receive(self):
        return self._next("receive")

    def reply(self, message, seconds):
        assert seconds >= 0
        self._next("reply", message)

    def close(self):
        self._next("close")


def run(script, *, answer=str.upper, refuses=lambda error: False):
    """Serve until the script ends; what was said, and how long each wait was."""
    said, slept = [], []

    def refusal(error, joined):
        return DeviceError(f"refused, joined {joined}", advice="Register.") if refuses(error) else None

    with pytest.raises((KeyboardInterrupt, DeviceError)) as raised:
        serve(script, answer, refusal, str, said.append, Waits(poll=9.0), slept.append)
    return raised.value, said, slept


def test_each_message_is_answered_once_and_an_idle_device_waits():
    script = Script(receive=["a", None, "b"])
    _, said, slept = run(script)
    assert [call for call in script.made if call[0] == "reply"] == [("reply", "A"), ("reply", "B")]
    assert slept == [9.0] and said == ["connected as node 7"]
    assert script.made[-1] == ("close",), "Ctrl-C leaves the fleet"


def test_a_lost_connection_is_said_once_and_tried_with_growing_jittered_waits():
    script = Script(receive=[OSError("network is down")] * 6 + ["a"])
    _, said, slept = run(script)
    assert said == ["connected as node 7", "the server cannot be reached (network is down); trying again"]
    assert ("reply", "A") in script.made
    for number, wait in enumerate(slept, start=1):  # 0.5 s doubled after each failure, times 0.5 to 1
        assert 0.25 * 2**number <= wait <= 0.5 * 2**number
    assert [name for name, *_ in script.made].count("connect") == 1, "the place in the fleet is kept"


def test_a_reply_that_was_lost_is_sent_again_without_a_second_training():
    trained = []
    script = Script(receive=["a"], reply=[ConnectionError("reset"), ConnectionError("reset"), None])
    run(script, answer=lambda message: trained.append(message) or "A")
    assert trained == ["a"]
    assert [call for call in script.made if call[0] == "reply"] == [("reply", "A")] * 3


def test_a_reply_that_the_server_refuses_is_dropped():
    script = Script(receive=["a", "b"], reply=[HttpError(403), None])
    run(script)
    assert [call[1] for call in script.made if call[0] == "reply"] == ["A", "B"]


def test_a_server_that_does_not_know_the_node_any_more_is_joined_again():
    script = Script(receive=[HttpError(401), "a"], connect=[None, None])
    run(script)
    assert [name for name, *_ in script.made].count("connect") == 2


@pytest.mark.parametrize(
    ("calls", "joined"), [({"connect": [HttpError(412)]}, False), ({"receive": [HttpError(412)]}, True)]
)
def test_a_refused_device_ends_with_the_reason(calls, joined):
    error, _, slept = run(Script(**calls), refuses=lambda error: error.response.status_code == 412)
    assert isinstance(error, DeviceError) and error.found == f"refused, joined {joined}"
    assert slept == []


def test_a_device_that_cannot_write_its_own_folder_ends():
    with pytest.raises(WriteError, match="full"):
        serve(Script(connect=[WriteError("the disk is full")]), str, lambda *_: None, str, print, sleep=lambda _: None)


def test_waits_never_exceed_the_longest():
    assert all(0.5 * 60 <= Waits().after(failures) <= 60 for failures in (8, 100, 10_000))
