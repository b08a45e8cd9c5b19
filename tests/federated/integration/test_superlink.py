"""Flower's SuperLink for devices of other machines: what the network reaches, and whose keys count."""

import asyncio
import json

import pytest

pytest.importorskip("flwr")
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.constant import NodeStatus
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.superlink.federation import NoOpFederationManager
from joining import new_key

from edgeloop.errors import DataError
from edgeloop.federated.network import superlink
from edgeloop.federated.network.device_keys import read_device_keys


async def asked(app, path: str, *bodies: bytes, kind: str = "http") -> list:
    """What the app sends in answer to a request with these parts of a body."""
    parts, sent = list(bodies), []

    async def receive():
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message):
        sent.append(message)

    await app({"type": kind, "path": path}, receive, send)
    return sent


def test_the_network_reaches_paths_of_devices_alone():
    reached = []

    async def flower(scope, receive, send):
        reached.append(scope["path"])

    app = superlink.FleetOnly(flower)
    for path in ("/v1/control/start-run", "/v1/runtime/acquire-task", "/", "/v1/fleet", "//v1/fleet/", "/V1/fleet/x"):
        assert [message.get("status") for message in asyncio.run(asked(app, path))] == [404, None]
    assert asyncio.run(asked(app, "/v1/fleet/x", kind="websocket")) == []
    asyncio.run(asked(app, "/v1/fleet/pull-messages"))
    assert reached == ["/v1/fleet/pull-messages"]


def test_a_request_that_is_too_large_is_cut_off(monkeypatch):
    monkeypatch.setattr(superlink, "BODY_BYTES", 10)
    received = []

    async def flower(scope, receive, send):
        for _ in range(3):
            received.append((await receive())["type"])

    asyncio.run(asked(superlink.FleetOnly(flower), "/v1/fleet/push-object", b"12345", b"12345", b"6"))
    assert received == ["http.request", "http.request", "http.disconnect"]


class Registered:
    """Flower's state, as far as keys go."""

    def __init__(self) -> None:
        self.keys = {}

    def create_node(self, aid, account, key, heartbeat, name):
        self.keys[len(self.keys) + 1] = name
        return len(self.keys)

    def activate_node(self, node, heartbeat):
        return True

    def delete_node(self, aid, node):
        del self.keys[node]

    def get_node_info(self, statuses):
        return []


def test_a_folder_of_keys_that_is_unreadable_or_empty_for_a_moment_revokes_nobody(tmp_path, monkeypatch):
    keys = tmp_path / "keys"
    keys.mkdir()
    public = new_key(keys / "a").with_name("a.pub")
    fleet = superlink.Fleet(Registered(), tmp_path / "connected.json")
    fleet.look(keys)

    def refused(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    with monkeypatch.context() as patch:
        patch.setattr("edgeloop.federated.network.device_keys.os.scandir", refused)
        for _ in range(superlink.EMPTY_LOOKS):
            fleet.look(keys)
        with pytest.raises(DataError, match=r"the folder of device keys \S+ cannot be read"):
            read_device_keys(keys)
    (said,) = json.loads((tmp_path / "connected.json").read_bytes())["wrong"]
    assert "cannot be read" in said and fleet.state.keys == {1: "a"}
    text = public.read_bytes()
    for _ in range(2):  # empty looks count in a row
        public.unlink()
        for _ in range(superlink.EMPTY_LOOKS - 1):
            fleet.look(keys)
        public.write_bytes(text)
        fleet.look(keys)
    assert fleet.state.keys == {1: "a"}
    public.unlink()
    for _ in range(superlink.EMPTY_LOOKS):
        fleet.look(keys)
    assert fleet.state.keys == {}


def test_a_look_that_fails_is_logged_once_and_keys_are_revoked_afterwards(tmp_path, monkeypatch, capfd):
    keys = tmp_path / "keys"
    keys.mkdir()
    for name in ("a", "b"):
        new_key(keys / name)
    fleet = superlink.Fleet(Registered(), tmp_path / "connected.json")

    def full(path, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(superlink, "write_file", full)
        for _ in range(3):
            fleet.look_again(keys)
    assert capfd.readouterr().err.count("No space left on device") == 1
    (keys / "b.pub").unlink()
    fleet.look_again(keys)
    assert list(fleet.state.keys.values()) == ["a"]
    assert json.loads((tmp_path / "connected.json").read_bytes()) == {"connected": 0, "wrong": []}


def test_a_key_counts_while_its_file_is_there_and_is_revoked_for_good(tmp_path):
    federation = NoOpFederationManager(simulation=False)
    state = LinkStateFactory(":flwr-in-memory:", federation, ObjectStoreFactory(":flwr-in-memory:")).state()
    keys = tmp_path / "keys"
    keys.mkdir()
    public = {name: new_key(keys / name).with_name(f"{name}.pub") for name in ("a", "b", "c")}
    known = {name: key for key, name in read_device_keys(keys).items()}
    fleet = superlink.Fleet(state, tmp_path / "connected.json")

    def look() -> tuple[dict, list[str]]:
        fleet.look(keys)
        nodes = {name: state.get_node_id_by_public_key(key) for name, key in known.items()}
        return json.loads((tmp_path / "connected.json").read_bytes()), [n for n, node in nodes.items() if node]

    assert look() == ({"connected": 0, "wrong": []}, ["a", "b", "c"])
    assert state.activate_node(state.get_node_id_by_public_key(known["a"]), 30)
    text = public["b"].read_bytes()
    public["b"].write_bytes(text[:20])  # it is being copied
    found, there = look()
    assert found["connected"] == 1 and "b.pub is no public key" in found["wrong"][0] and there == ["a", "b", "c"]
    for name in ("a", "c"):  # one that has joined, one that never did
        public[name].unlink()
    public["b"].write_bytes(text)
    assert look() == ({"connected": 0, "wrong": []}, ["b"])
    assert state.get_node_info(statuses=[NodeStatus.REGISTERED])[0].name == "b"
    public["c"].write_bytes(text)
    assert look()[1] == ["b"], "the same key under two names is one device"
    keys.rename(tmp_path / "away")
    assert look()[1] == ["b"], "a folder that is away for a moment revokes nobody"
