"""Tabs behind a gateway: who is admitted, what a round gives them, and what becomes of one whose tab goes."""

import contextlib
import io
import json
import queue
import threading
import time
from email.message import Message as Headers

import numpy as np
import pytest

from edgeloop.bundle import Manifest, Weight
from edgeloop.errors import ModelError, OptionsError
from edgeloop.federated.device.connection.link import Link
from edgeloop.federated.gateway import gateway as gateway_module
from edgeloop.federated.gateway.desk import AWAY_S, Answer, Desk, Work
from edgeloop.federated.gateway.gateway import Gateway
from edgeloop.federated.gateway.options import GatewayOptions
from edgeloop.federated.gateway.tab_requests import HEAD_BYTES, TabRequests
from edgeloop.federated.gateway.tab_trainer import ShownModel
from edgeloop.hashes import digest_of
from edgeloop.http.base_server import BODIES_BYTES
from edgeloop.http.routes import Request
from edgeloop.processes.frames import read_frame, write_frame

pytest.importorskip("flwr")
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

WAIT_S = 60.0
W = np.array([[1.0, -2.0], [0.5, 4.0]], np.float32)
B = np.array([0.25, -1.0], np.float32)
ROW = np.concatenate([W.reshape(-1), B])
SHA = "a" * 64
MANIFEST = Manifest(
    "m", 1, {}, {}, {}, (), (Weight("w000", "k", (2, 2), "float32", True), Weight("w001", "b", (2,), "float32", True))
)


class SuperLink:
    """The nodes' connections of a gateway: each gets what `ask` leaves for it, and keeps what it replies."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.changed = threading.Condition()

    @contextlib.contextmanager
    def connect(self, link):
        node = Node()
        with self.changed:
            self.nodes.append(node)
            self.changed.notify_all()
        yield node

    def node(self, number):
        """The node of the tab that was admitted as that one."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.nodes) > number, WAIT_S)
        return self.nodes[number]


class Node:
    def __init__(self) -> None:
        self.node_id, self.asked, self.replies = None, queue.Queue(), queue.Queue()
        self.closed = threading.Event()

    def connect(self):
        self.node_id = 7

    def receive(self):
        with contextlib.suppress(queue.Empty):
            return self.asked.get(timeout=0.01)

    def reply(self, message, seconds):
        self.replies.put(message.content)

    def close(self):
        self.closed.set()

    def ask(self, kind="train", sha256=SHA, **config):
        record = {"lr": 0.1, "epochs": 2, "seed": 0, "server-round": 3, "sha256": sha256, **config}
        arrays = ArrayRecord({"w000": Array(W), "w001": Array(B)})
        content = RecordDict({"config": ConfigRecord(record), "arrays": arrays})
        message = Message(RecordDict() if kind == "query" else content, dst_node_id=1, message_type=kind)
        message.metadata.__dict__["_message_id"] = "1"
        self.asked.put(message)


@pytest.fixture
def link():
    return SuperLink()


@pytest.fixture
def tabs(link, monkeypatch):
    """The requests of a gateway with two places."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    monkeypatch.setattr(gateway_module, "FREED_S", WAIT_S)
    behind = Gateway((Link("h:1"), Link("h:1")), ShownModel(SHA, MANIFEST), link.connect)
    yield TabRequests(behind)
    behind.close()


def ask(tabs, path, body):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return tabs.answer(Request("POST", path, {}, Headers(), data))


def post(tabs, path, **body):
    answer = ask(tabs, path, body)
    return answer.status, json.loads(answer.body)


def join(tabs, client="one", model=SHA):
    return post(tabs, "join", client=client, cores=4, model=model)


def joined(tabs, client="one"):
    status, found = join(tabs, client)
    assert status == 200, found
    return found["tab"]


def refused(tabs, client):
    """The answer to a tab that gets no place; no place is waited for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gateway_module, "FREED_S", 0.0)
        return join(tabs, client)


def polled(tabs, tab):
    """The work that a tab gets: header and weights."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        answer = ask(tabs, "poll", {"tab": tab})
        if answer.content_type == "application/octet-stream":
            header, payload = read_frame(io.BytesIO(answer.body))
            return header, np.frombuffer(payload, "<f4")
    raise AssertionError(answer)


def replied(tabs, tab, work, row=None, **numbers):
    framed = io.BytesIO()
    head = {"tab": tab, **{name: work[name] for name in ("work", "base", "kind")}, **numbers}
    write_frame(framed, head, b"" if row is None else row.astype("<f4").tobytes())
    answer = ask(tabs, "reply", framed.getvalue())
    return answer.status, json.loads(answer.body)


def test_a_round_goes_to_the_tab_and_its_weights_come_back_as_a_devices(tabs, link):
    tab = joined(tabs)
    link.node(0).ask()
    work, row = polled(tabs, tab)
    np.testing.assert_array_equal(row, ROW)
    assert (work["kind"], work["epochs"], work["lr"], work["round"], work["seed"]) == ("train", 2, 0.1, 3, [0, 3, 0])
    assert work["base"] == digest_of(ROW.tobytes())
    trained = ROW + np.float32(0.5)
    assert replied(tabs, tab, work, trained, loss=0.25, steps=4, examples=9, seconds=1.5) == (200, {"counted": True})
    content = link.node(0).replies.get(timeout=WAIT_S)
    np.testing.assert_array_equal(content["arrays"]["w000"].numpy(), W + 0.5)
    np.testing.assert_array_equal(content["arrays"]["w001"].numpy(), B + 0.5)
    assert dict(content["metrics"]) == {"num-examples": 9, "train_loss": 0.25, "seconds": 1.5, "device": 0}


def test_a_tab_measures_and_says_what_it_is(tabs, link):
    tab = joined(tabs)
    link.node(0).ask("evaluate")
    work, _ = polled(tabs, tab)
    assert work["kind"] == "evaluate"
    replied(tabs, tab, work, loss=0.5, examples=4, accuracy=0.75)
    found = dict(link.node(0).replies.get(timeout=WAIT_S)["metrics"])
    assert found == {"num-examples": 4, "device": 0, "loss": 0.5, "accuracy": 0.75}
    link.node(0).ask("query")
    described = dict(link.node(0).replies.get(timeout=WAIT_S)["device"])
    assert (described["machine"], described["cores"], described["models"]) == ("browser", 4, [SHA])


def test_an_answer_to_other_weights_or_of_another_size_is_not_counted(tabs, link):
    tab = joined(tabs)
    link.node(0).ask()
    work, _ = polled(tabs, tab)
    good = {"loss": 1, "steps": 1, "examples": 1, "seconds": 1}
    assert replied(tabs, tab, {**work, "base": "0" * 64}, ROW, **good)[1] == {"counted": False}
    assert replied(tabs, tab, {**work, "work": "0"}, ROW, **good)[1] == {"counted": False}
    assert replied(tabs, tab, work, ROW[:-1], **good)[1] == {"counted": True}  # heard, and refused
    assert "error" in link.node(0).replies.get(timeout=WAIT_S).config_records


def test_a_strategy_that_corrects_steps_and_another_model_are_refused(tabs, link):
    joined(tabs)
    link.node(0).ask(**{"proximal-mu": 0.5})
    link.node(0).ask(sha256="b" * 64)
    kinds = []
    for _ in range(2):
        error = link.node(0).replies.get(timeout=WAIT_S)["error"]
        kinds.append((json.loads(error["error"])["type"], error.get("lacks")))
    assert kinds == [("OptionsError", None), ("ModelError", "b" * 64)]


def test_two_tabs_of_one_browser_are_one_vote_and_more_tabs_than_keys_are_refused(tabs, link):
    first = joined(tabs, "one")
    assert refused(tabs, "one")[1]["code"] == "twice"
    link.node(0)
    joined(tabs, "two")
    link.node(1)
    status, found = refused(tabs, "three")
    assert (status, found["code"]) == (409, "full")
    assert found["error"] == "All 2 places of this page are taken."
    post(tabs, "leave", tab=first)
    joined(tabs, "three")
    assert [link.node(n).closed.is_set() for n in range(3)] == [True, False, False]


def test_a_page_that_shows_another_file_than_the_gateway_trains_gets_no_place(tabs, link):
    status, found = join(tabs, model="b" * 64)
    assert (status, found["code"]) == (409, "model")
    assert "has the model bbbbbbbbbbbb…, and this server's tabs train aaaaaaaaaaaa…" in found["error"]
    assert link.nodes == []


def test_a_tab_that_goes_amid_its_training_ends_the_round_for_itself_alone(tabs, link):
    tab = joined(tabs)
    link.node(0).ask()
    polled(tabs, tab)
    post(tabs, "leave", tab=tab)
    assert "error" in link.node(0).replies.get(timeout=WAIT_S).config_records
    assert link.node(0).closed.wait(WAIT_S)
    status, found = post(tabs, "poll", tab=tab)
    assert (status, found["final"]) == (410, False)
    again = joined(tabs)
    link.node(1).ask()
    assert polled(tabs, again)[0]["round"] == 3


def test_a_tab_that_sleeps_has_left_and_one_that_trains_says_that_it_lives():
    now = [0.0]
    desk = Desk(lambda: now[0])
    now[0] = AWAY_S - 1
    desk.hear("work")
    now[0] = 2 * AWAY_S - 2
    assert desk.left == ""
    now[0] = 3 * AWAY_S
    assert desk.left == f"the tab was not heard of for {AWAY_S:g} s"


def test_work_that_is_answered_is_not_given_again_and_the_same_answer_may_be_repeated():
    desk, made = Desk(), []
    work = Work("train", {}, "base", b"")
    waiting = threading.Thread(target=lambda: made.append(desk.ask(work)))
    waiting.start()
    assert desk.next_work(WAIT_S) == work
    assert desk.hear(work.id)
    assert desk.give(work.id, "base", Answer({}, b"1"))
    assert desk.next_work(0) is None
    assert desk.give(work.id, "base", Answer({}, b"2"))
    assert not desk.hear(work.id)
    waiting.join(WAIT_S)
    assert [one.row for one in made] == [b"1"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("join", b"[]", 400),
        ("join", b"{", 400),
        ("join", b"[" * 4000, 400),
        ("join", b'{"client": ""}', 400),
        ("join", b'{"client": "a", "cores": 0}', 400),
        ("join", b'{"client": "a", "cores": 1}', 400),
        ("join", b'{"client": "' + b"a" * 5000 + b'"}', 413),
        ("poll", b'{"tab": "unknown"}', 410),
        ("poll", b'{"tab": 3}', 400),
        ("reply", b"", 400),
        ("reply", b'{"tab": "unknown", "bytes": 0}\n', 410),
        ("reply", b'{"bytes": 5}\n', 400),
        ("../join", b"{}", 404),
    ],
)
def test_a_request_that_is_none_is_refused_in_words(tabs, path, body, status):
    answer = ask(tabs, path, body)
    assert answer.status == status
    assert json.loads(answer.body)["error"]


@pytest.mark.parametrize("wrong", [{"loss": "1"}, {"loss": -1}, {"examples": 0}, {"steps": True}, {"seconds": 10**400}])
def test_numbers_that_are_none_are_refused(tabs, link, wrong):
    tab = joined(tabs)
    link.node(0).ask()
    work, _ = polled(tabs, tab)
    status, _ = replied(tabs, tab, work, ROW, **{"loss": 1, "steps": 1, "examples": 1, "seconds": 1, **wrong})
    assert status == 400


def test_a_body_is_as_long_as_the_models_weights_at_most(tabs):
    assert tabs.requires_token
    assert tabs.limits_bytes == {"POST": ROW.nbytes + HEAD_BYTES}


@pytest.mark.parametrize(("weights", "fits"), [((BODIES_BYTES - HEAD_BYTES) // 4, True), (BODIES_BYTES // 4, False)])
def test_a_model_whose_reply_the_server_would_not_read_is_refused_at_the_start(link, weights, fits):
    listed = (Weight("w000", "k", (weights,), "float32", True),)
    behind = Gateway((), ShownModel(SHA, Manifest("m", 1, {}, {}, {}, (), listed)), link.connect)
    with contextlib.nullcontext() if fits else pytest.raises(ModelError, match="a tab's reply has"):
        TabRequests(behind)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "needs a key for each tab"),
        ({"keys": ("a",), "tabs": 2}, "is given, and so are 1 keys"),
        ({"keys": ("a", "a")}, "a key is given twice"),
        ({"tabs": 17}, "17 tabs are to take part"),
        ({"tabs": 0}, "0 tabs are to take part"),
    ],
)
def test_options_that_contradict_each_other_are_refused(given, says):
    with pytest.raises(OptionsError, match=says):
        GatewayOptions(url="h:1", **given)


def test_each_tab_has_a_way_of_its_own_to_the_server():
    links = GatewayOptions(url="h:1", insecure=True, tabs=3).links()
    assert links == (Link("h:1", True),) * 3
