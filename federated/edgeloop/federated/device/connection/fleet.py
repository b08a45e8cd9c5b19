"""One device's connection to a SuperLink, in this process: Flower's own client, messages and object transfer.

Flower's names below are internal; TESTED lists the versions that were tried. On others `join` starts Flower's own
SuperNode. Flower's `http_request_response` does the same and is not used: it swallows exceptions, ends the process
itself, and loads a web server (16 MB).

Source: flwr/supernode/fleet_http_connection.py of Flower 1.42
"""

from __future__ import annotations

import base64
import contextlib
import logging
import random
import threading
from typing import Any

import httpx
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, TIMESTAMP_HEADER
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
    UnregisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    pull_and_inflate_object_from_tree,
    push_objects,
)
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes, sign_message
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata
from flwr.supernode.fleet_http_client import FleetHttpClient

from edgeloop.federated.device.connection.link import Link
from edgeloop.federated.device.connection.node_file import read_node, write_node
from edgeloop.federated.device.connection.refusals import TRANSIENT

log = logging.getLogger(__name__)
PULL_S = 600.0  # for all parts of a message
BEAT_S = (15.0, 20.0)  # between two heartbeats; the server counts a node as away after 60 s
GOODBYE_S = 1.0  # for telling the server that the device leaves


class Fleet:
    """A node of a SuperLink. `node_id` is None until `connect`; not thread-safe but for its heartbeat.

    Args:
        node_file: Remembers the node id of a key, so that a device that was killed takes its own place again.
    """

    def __init__(self, link: Link, node_file: str) -> None:
        self.link, self.node_file = link, node_file
        self.registers_itself = link.key is None
        self._key = generate_key_pairs()[0] if link.key is None else link.private_key()
        self.public_key = public_key_to_bytes(self._key.public_key())
        self.node_id: int | None = None
        self._coming: tuple[ObjectTree, int] | None = None  # a message that is being pulled, and its run
        self._client = self._new_client()
        self._stop = threading.Event()

    def connect(self) -> None:
        """Take the place of this key in the fleet.

        Raises:
            httpx.HTTPError: The server cannot be reached, or refuses.
        """
        beats = SendNodeHeartbeatRequest(heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
        known = None if self.registers_itself else read_node(self.node_file, self.link.address, self.public_key)
        if known is not None:
            beats.node.node_id = known
            with contextlib.suppress(httpx.HTTPStatusError):  # not this server's node any more: activate it below
                if self._client.SendNodeHeartbeat(beats).success:
                    self._joined(known)
                    return
        if self.registers_itself:
            try:
                self._client.RegisterNode(RegisterNodeFleetRequest(public_key=self.public_key))
            except httpx.HTTPStatusError as e:
                if e.response.status_code != httpx.codes.CONFLICT:  # it has this key already
                    raise
        request = ActivateNodeRequest(public_key=self.public_key, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
        self._joined(self._client.ActivateNode(request).node_id)

    def receive(self) -> Message | None:
        """The next message for this node; None: there is none now, or its run has ended meanwhile. One whose parts did
        not all come through is continued by the next call.

        Raises:
            httpx.HTTPError: As `connect`.
        """
        if self._coming is None:
            found = self._client.PullMessages(PullMessagesRequest(node=self._node))
            if not found.messages_list:
                return None
            self._coming = found.message_object_trees[0], message_from_proto(found.messages_list[0]).metadata.run_id
        (tree, run_id), node, client, later = self._coming, self._node, self._client, False
        try:
            message = pull_and_inflate_object_from_tree(
                tree,
                make_pull_object_fn_protobuf(client.PullObject, node, run_id),
                make_confirm_message_received_fn_protobuf(client.ConfirmMessageReceived, node, run_id),
                return_type=Message,
                max_time=PULL_S,
            )
        except ObjectPullError as e:
            log.info("a message is gone before it was received: %s", e)
            return None
        except httpx.HTTPStatusError as e:
            later = e.response.is_server_error or e.response.status_code in TRANSIENT
            if e.response.status_code != httpx.codes.FORBIDDEN:
                raise
            return None
        except httpx.TransportError:
            later = True
            raise
        finally:  # the server counts the message as delivered and never offers it again
            self._coming = self._coming if later else None
        message.metadata.__dict__["_message_id"] = tree.object_id
        return message

    def reply(self, message: Message, seconds: float) -> None:
        """Send the answer to a message that took `seconds`.

        Raises:
            httpx.HTTPError: As `connect`.
        """
        message.metadata.__dict__["_message_id"] = message.object_id
        run_id = message.metadata.run_id
        with no_object_id_recompute():
            objects = get_all_nested_objects(message)
            pushed = self._client.PushMessages(
                PushMessagesRequest(
                    node=self._node,
                    messages_list=[message_to_proto(_head(message))],
                    message_object_trees=[get_object_tree(message)],
                    clientapp_runtime_list=[seconds],
                )
            )
            push = make_push_object_fn_protobuf(self._client.PushObject, self._node, run_id, pushed.session_id)
            push_objects(objects, push, object_ids_to_push=set(pushed.objects_to_push))

    def close(self) -> None:
        """Leave the fleet; a server that does not answer is not waited for."""
        self._stop.set()
        if self.node_id is not None:
            leaving = threading.Thread(target=self._leave, args=(self.node_id,), daemon=True)
            leaving.start()
            leaving.join(GOODBYE_S)
            self.node_id = None

    @property
    def _node(self) -> Node:
        return Node(node_id=self.node_id or 0)

    def _joined(self, node_id: int) -> None:
        if not self.registers_itself:
            write_node(self.node_file, self.link.address, self.public_key, node_id)
        self.node_id = node_id  # from here on nothing fails: a node without heartbeats would be lost after a minute
        self._stop.set()
        self._stop = threading.Event()
        threading.Thread(target=self._beat, args=(self._stop, node_id), name="heartbeat", daemon=True).start()

    def _beat(self, stop: threading.Event, node_id: int) -> None:
        """Say that the node lives, also while it trains. What fails here fails in `receive` too, which reports it."""
        request = SendNodeHeartbeatRequest(node=Node(node_id=node_id), heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
        while not stop.wait(random.uniform(*BEAT_S)):
            with contextlib.suppress(httpx.HTTPError, ValueError, RuntimeError):
                self._client.SendNodeHeartbeat(request)

    def _leave(self, node_id: int) -> None:
        with contextlib.suppress(httpx.HTTPError, ValueError, RuntimeError):
            self._client.DeactivateNode(DeactivateNodeRequest(node_id=node_id))
            if self.registers_itself:
                self._client.UnregisterNode(UnregisterNodeFleetRequest(node_id=node_id))

    def _new_client(self) -> FleetHttpClient:
        verify = self.link.root_certificates() or True
        scheme = "http" if self.link.insecure else "https"
        signed = _Signed(self._key, self.public_key)
        return FleetHttpClient(f"{scheme}://{self.link.address}", interceptors=[signed], verify=verify)


class _Signed:
    """Flower's two headers of a SuperNode: its version, and its key with a signature of the time."""

    def __init__(self, key: Any, public_key: bytes) -> None:
        self._key, self._public = key, base64.b64encode(public_key).decode()
        self._version = dict(RuntimeVersionMetadata.from_local_component("SuperNode").as_metadata())

    def intercept(self, context: Any, call_next: Any) -> httpx.Response:
        moment = now().isoformat()
        signature = sign_message(self._key, moment.encode("ascii"))
        context.request.headers.update(self._version)
        context.request.headers[FLEET_HTTP_PUBLIC_KEY_HEADER] = self._public
        context.request.headers[TIMESTAMP_HEADER] = moment
        context.request.headers[FLEET_HTTP_SIGNATURE_HEADER] = base64.b64encode(signature).decode("ascii")
        return call_next(context)


def _head(message: Message) -> Message:
    return remove_content_from_message(message) if message.has_content() else message
