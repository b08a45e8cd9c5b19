"""A device's place in a fleet, with a played server: no message is lost, and no node is left without heartbeats."""

import pytest

from edgeloop.errors import WriteError
from edgeloop.federated.device.connection.link import Link

pytest.importorskip("flwr")
import httpx
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import ActivateNodeResponse, PullMessagesResponse
from flwr.proto.message_pb2 import PullObjectResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.task_identity import TaskIdentity

from edgeloop.federated.device.connection import fleet as module
from edgeloop.federated.device.connection.fleet import Fleet


def refused(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://h")
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(status, request=request))


class Server:
    """Offers one message once, as a SuperLink does; pulls of its parts fail with `failures` first."""

    def __init__(self, message: Message, failures: list[Exception]) -> None:
        self.parts = {id: part.deflate() for id, part in get_all_nested_objects(message).items()}
        head, tree = message_to_proto(remove_content_from_message(message)), get_object_tree(message)
        self.offers = [PullMessagesResponse(messages_list=[head], message_object_trees=[tree])]
        self.failures, self.confirmed = failures, []

    def PullMessages(self, request):
        return self.offers.pop() if self.offers else PullMessagesResponse()

    def PullObject(self, request):
        if self.failures:
            raise self.failures.pop()
        return PullObjectResponse(
            object_found=True, object_available=True, object_content=self.parts[request.object_id]
        )

    def ConfirmMessageReceived(self, request):
        self.confirmed.append(request.message_object_id)

    def ActivateNode(self, request):
        return ActivateNodeResponse(node_id=7)


@pytest.fixture
def played(tmp_path, monkeypatch):
    """A fleet and its server, which fails as told."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    message = Message(RecordDict({"config": ConfigRecord({"lr": 0.5})}), dst_node_id=7, message_type="train")
    message.metadata.__dict__["_message_id"] = message.object_id

    def play(*failures: Exception) -> tuple[Fleet, Server]:
        fleet = Fleet(Link("h:1", insecure=True), str(tmp_path / "node.json"))
        fleet._client, fleet.node_id = Server(message, list(failures)), 7
        return fleet, fleet._client

    return play


@pytest.mark.parametrize(
    "failure", [httpx.ReadError("reset"), httpx.ConnectTimeout("slow"), refused(503), refused(429)]
)
def test_a_message_whose_parts_did_not_all_come_is_continued(played, failure):
    fleet, server = played(failure)
    with pytest.raises(type(failure)):
        fleet.receive()
    assert server.confirmed == []
    message = fleet.receive()
    assert message.content["config"]["lr"] == 0.5 and len(server.confirmed) == 1
    assert fleet.receive() is None, "once"


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_message_that_the_server_refuses_is_given_up(played, status):
    fleet, server = played(refused(status))
    if status == 403:  # its run has ended
        assert fleet.receive() is None
    else:
        with pytest.raises(httpx.HTTPStatusError):
            fleet.receive()
    assert fleet.receive() is None and server.confirmed == []


def test_a_device_that_cannot_remember_its_node_is_not_connected(played, monkeypatch):
    fleet, _ = played()
    fleet.node_id, fleet.registers_itself = None, False

    def full(*_):
        raise WriteError("the disk is full", advice="Free some space.")

    monkeypatch.setattr(module, "write_node", full)
    with pytest.raises(WriteError, match="full"):
        fleet.connect()
    assert fleet.node_id is None
