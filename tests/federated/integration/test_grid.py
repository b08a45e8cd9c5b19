"""A round's rule, on Flower's own messages and a network that the test plays."""

import json

import numpy as np
import pytest

from edgeloop.errors import DataError, DeviceError
from edgeloop.federated.rounds.records import ClientRecord

pytest.importorskip("flwr")

SHAPES = {"w000": (2,)}


@pytest.fixture(autouse=True)
def _of_a_run(monkeypatch):
    """Flower's messages are made inside a task of a run."""
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


class PlayedNetwork:
    """Hands out the replies it was given, one per pull."""

    def __init__(self, *replies):
        self.replies = list(replies)

    def push_messages(self, messages):
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, message_ids):
        assert message_ids, "nobody is waited for"
        return [self.replies.pop(0)] if self.replies else []


def sent(number: int):
    from flwr.app import Message, RecordDict

    message = Message(RecordDict(), dst_node_id=number + 1, message_type="train")
    message.metadata.__dict__["_message_id"] = str(number)
    return message


def reply(number: int, device: int, value: float = 1.0):
    from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

    arrays = ArrayRecord({"w000": Array(np.full(2, value, np.float32))})
    metrics = MetricRecord({"num-examples": 5, "train_loss": 0.5, "seconds": 0.1, "device": device})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=sent(number))


def round_of(*replies, timeout: float = 5.0):
    from edgeloop.federated.rounds.grid import CheckedGrid

    grid = CheckedGrid(PlayedNetwork(*replies), SHAPES, devices=2)
    answers = grid.send_and_receive([sent(0), sent(1)], timeout=timeout)
    return grid, [answer.content["metrics"]["device"] for answer in answers]


def test_replies_come_in_the_order_of_the_devices_whoever_was_first():
    grid, devices = round_of(reply(1, device=1), reply(0, device=0))
    assert devices == [0, 1]
    assert grid.clients == (ClientRecord(0, 5, 0.5, 0.1), ClientRecord(1, 5, 0.5, 0.1))


def test_a_device_that_does_not_answer_ends_the_round():
    with pytest.raises(DeviceError, match=r"1 of 2 devices answered within 0.3 s"):
        round_of(reply(0, device=0), timeout=0.3)


def test_two_replies_of_one_device_end_the_round():
    with pytest.raises(DeviceError, match=r"devices \[0, 0\], expected each of 0 to 1"):
        round_of(reply(0, device=0), reply(1, device=0))


def test_a_reply_with_nan_ends_the_round():
    with pytest.raises(DeviceError, match="device 1 sent NaN or infinity in w000"):
        round_of(reply(0, device=0), reply(1, device=1, value=float("nan")))


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("<class 'ValueError'>:<'a bug'>", "a device failed: <class 'ValueError'>:<'a bug'>. Check its environment"),
        ("the node is gone", "a device failed: the node is gone. Check its environment"),
    ],
)
def test_an_error_reply_ends_the_round_in_its_own_words(reason, says):
    from flwr.app import Error, Message

    with pytest.raises(DeviceError, match=says):
        round_of(Message(Error(code=3, reason=reason), reply_to=sent(0)))


def failed(document: object, device: str = "1"):
    from flwr.app import ConfigRecord, Message, RecordDict

    return Message(RecordDict({"error": ConfigRecord({"error": document, "device": device})}), reply_to=sent(0))


def test_an_error_of_a_device_keeps_its_class_and_its_advice():
    document = DataError("labels run from 0 to 3", advice="Use labels 0 to 2.", where="a.npz").to_json()
    with pytest.raises(DataError, match=r"^device 1: a\.npz: labels run from 0 to 3\. Use labels 0 to 2\.$") as raised:
        round_of(failed(json.dumps(document)))
    assert raised.value.advice == "Use labels 0 to 2."


@pytest.mark.parametrize(
    "document", ["", "[" * 100_000, "5", 5, "{}", json.dumps({"type": "__class__", "found": "x"}), b"\xff"]
)
def test_an_error_that_is_none_of_ours_is_a_device_error(document):
    with pytest.raises(DeviceError, match=r"^device 1: the training failed with"):
        round_of(failed(document))


def test_a_reply_without_arrays_ends_the_round():
    from flwr.app import Message, RecordDict

    with pytest.raises(DeviceError, match=r"a reply holds \[\], expected arrays and metrics"):
        round_of(Message(RecordDict(), reply_to=sent(0)))
