"""Rounds in simulated time over a played engine: who answers when is the seed's choice, not this machine's."""

import time

import numpy as np
import pytest
from played_grid import PlayedGrid, honest, reply_of, zeros

from edgeloop.errors import DeviceError
from edgeloop.federated.rounds.quorum_options import QuorumOptions
from edgeloop.federated.rounds.records import read_rounds, read_weights
from edgeloop.federated.simulation.options import SimulationOptions
from edgeloop.federated.simulation.population import Population

pytest.importorskip("flwr")

NODES = 30
SEED = 1  # its first draw at 0.5 leaves 14 of 30 devices, its second 20


@pytest.fixture(autouse=True)
def _of_a_run(monkeypatch):
    """Flower's messages are made inside a task of a run."""
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


class Engine(PlayedGrid):
    """Counts the most messages that waited at a time."""

    most = 0

    def push_messages(self, messages):
        ids = super().push_messages(messages)
        self.most = max(self.most, len(self.waiting))
        return ids


def play(out, *, arrival=0, rounds=2, deadline_s=10.0, quorum=None, **simulation):
    """A run in which a device of 100 samples takes a second for its epoch. Returns the engine and the records."""
    from edgeloop.federated.rounds.round_loop import LoopOptions, RoundLoop
    from edgeloop.federated.simulation.simulated_grid import SimulatedGrid

    engine = Engine({101 + n: honest(n + 1) for n in range(NODES)}, arrival)
    options = SimulationOptions(**{"data": "data.npz", "nodes": NODES, **simulation})
    grid = SimulatedGrid(engine, Population(options, np.full(NODES, 100)), deadline_s, workers=1)
    asked = QuorumOptions(**{"deadline_s": 30.0, "wait_s": 0.1, **(quorum or {})})
    RoundLoop(grid, LoopOptions(rounds=rounds, devices=NODES, quorum=asked, train={"epochs": 1}), out, zeros()).run()
    return engine, read_rounds(out)


def test_equal_seeds_give_equal_runs_whatever_the_order_of_the_engine(tmp_path):
    given = {"dropout": 0.2, "slow_share": 0.3, "quorum": {"fraction": 0.4, "over_select": 1.5}}
    found = [play(tmp_path / str(arrival), arrival=arrival, **given)[1] for arrival in range(3)]
    assert found[0] == found[1] == found[2]
    first, second = (read_weights(tmp_path / str(n) / "rounds" / "round-2.npz") for n in (0, 1))
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    other = play(tmp_path / "other", seed=1, **given)[1]
    assert [c.node for c in other[0].clients] != [c.node for c in found[0][0].clients]


def test_the_fast_devices_end_a_round(tmp_path):
    # 30 are asked for 15; the 15 that are not slow are there after 1 s, the others after 5
    quorum = {"fraction": 0.5, "over_select": 2.0}
    _, (record,) = play(tmp_path, rounds=1, slow_share=0.5, slow_factor=5.0, quorum=quorum)
    assert len(record.clients) == 15 and {client.seconds for client in record.clients} == {1.0}
    assert not record.refused


def test_a_device_that_is_late_or_drops_out_is_not_trained_and_the_report_says_why(tmp_path):
    given = {"slow_share": 0.2, "slow_factor": 20.0, "dropout": 0.1, "quorum": {"quorum": 0.3}}
    engine, (record,) = play(tmp_path, rounds=1, **given)
    details = [reply.detail for reply in record.refused]
    assert sum("not done at the deadline, after 10 of 20 simulated seconds" in text for text in details) > 0
    assert sum("it dropped out" in text for text in details) > 0
    assert len(record.clients) + len(details) == NODES == record.selected
    assert len(engine.pushed) == len(record.clients)


def test_dropouts_cost_a_round_its_quorum(tmp_path):
    with pytest.raises(DeviceError, match=r"no quorum after 2 attempts.*it dropped out"):
        play(tmp_path, dropout=0.9, quorum={"quorum": 0.5, "attempts": 2})


def test_a_resumed_run_does_not_draw_the_dropouts_that_cost_it_its_quorum_again(tmp_path):
    given = {"dropout": 0.5, "rounds": 1, "quorum": {"quorum": 0.5, "attempts": 1}}
    population = Population(
        SimulationOptions(data="data.npz", nodes=NODES, dropout=0.5, seed=SEED), np.full(NODES, 100)
    )
    there = [sum(not population.fate(device, 1, attempt, 1).drops_out for device in range(NODES)) for attempt in (1, 2)]
    assert there[0] < NODES / 2 <= there[1]
    with pytest.raises(DeviceError, match="no quorum"):
        play(tmp_path, seed=SEED, **given)
    _, (record,) = play(tmp_path, seed=SEED, **given)
    assert (record.attempt, len(record.clients)) == (2, there[1])


def test_the_engine_never_has_more_messages_than_it_can_train_soon(tmp_path):
    engine, (record,) = play(tmp_path, rounds=1)
    assert len(record.clients) == NODES and engine.most <= 8


def test_a_query_and_a_message_sent_again_join_the_round(tmp_path):
    from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

    from edgeloop.federated.simulation.simulated_grid import SimulatedGrid

    def message(node, number):
        config = ConfigRecord({"server-round": number, "epochs": 1} if number else {})
        return Message(RecordDict({"arrays": ArrayRecord(), "config": config}), dst_node_id=node, message_type="train")

    def whole(asked):  # a query has no round, and `honest` draws by it
        return reply_of({}, device=asked.metadata.dst_node_id)

    options = SimulationOptions(data="data.npz", nodes=2, dropout=0.0)
    grid = SimulatedGrid(Engine({1: whole, 2: whole}), Population(options, np.array([100, 200])), 10.0, workers=1)
    list(grid.get_node_ids())
    first = list(grid.push_messages([message(1, 1), message(2, 1)]))
    (query,) = grid.push_messages([message(2, 0)])
    (reply,) = grid.pull_messages([query])
    assert reply.metadata.reply_to_message_id == query
    grid.pull_messages(first[:1])
    (again,) = grid.push_messages([message(1, 1)])  # its second training ends after a second, as the first did
    deadline, found = time.monotonic() + 5, list[str]()
    while len(found) < 2 and time.monotonic() < deadline:
        found += [reply.metadata.reply_to_message_id for reply in grid.pull_messages([*first[1:], again])]
    assert found == [again, first[1]]


def test_flowers_own_send_and_receive_gets_every_reply(tmp_path):
    from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

    from edgeloop.federated.simulation.simulated_grid import SimulatedGrid

    engine = Engine({n: honest(n) for n in (11, 12, 13)})
    options = SimulationOptions(data="data.npz", nodes=3)
    grid = SimulatedGrid(engine, Population(options, np.array([300, 100, 200])), 10.0, workers=1)
    nodes = list(grid.get_node_ids())
    config = ConfigRecord({"server-round": 1, "epochs": 1})
    content = RecordDict({"arrays": ArrayRecord(), "config": config})
    replies = list(grid.send_and_receive([Message(content, dst_node_id=n, message_type="train") for n in nodes]))
    assert [reply.metadata.src_node_id for reply in replies] == [2, 3, 1]  # by their samples


class Asking:
    """A device that says what it is, and the codecs that it knows."""

    def __init__(self, node: int, codecs=("int8",)) -> None:
        self.train, self.codecs = honest(node), list(codecs)

    def __call__(self, message):
        from flwr.app import ConfigRecord, RecordDict

        if message.metadata.message_type == "query":
            return RecordDict({"device": ConfigRecord({"codecs": self.codecs, "models": [], "battery": False})})
        return self.train(message)


def test_a_round_of_eighty_devices_that_are_asked_what_they_are_has_all_of_them(tmp_path, monkeypatch):
    """More than are answered one at a time within the wait for queries, which is none here."""
    from edgeloop.federated.device.compression.codec import Codec
    from edgeloop.federated.rounds.compression_options import CompressionOptions
    from edgeloop.federated.rounds.negotiation import negotiated_grid
    from edgeloop.federated.rounds.negotiation.selection_options import SelectionOptions
    from edgeloop.federated.rounds.round_loop import LoopOptions, RoundLoop
    from edgeloop.federated.simulation.simulated_grid import SimulatedGrid

    monkeypatch.setattr(negotiated_grid, "QUERY_S", 0.0)
    count = 80
    engine = Engine({n: Asking(n) for n in range(1, count + 1)})
    options = SimulationOptions(data="data.npz", nodes=count)
    grid = SimulatedGrid(engine, Population(options, np.full(count, 100)), 10.0, workers=1)
    asked = QuorumOptions(deadline_s=10.0, wait_s=0.1, attempts=1)
    given = {"compression": CompressionOptions(upload=Codec.INT8), "selection": SelectionOptions(min_ram_mb=900)}
    loop = RoundLoop(
        grid, LoopOptions(rounds=1, devices=count, quorum=asked, train={"epochs": 1}, **given), tmp_path, zeros()
    )
    with pytest.raises(DeviceError, match="0 of 80 devices were there to be asked in the last one, and 80 are needed"):
        loop.run()  # none says how much memory it has
    given["selection"] = SelectionOptions()
    loop = RoundLoop(
        grid, LoopOptions(rounds=1, devices=count, quorum=asked, train={"epochs": 1}, **given), tmp_path / "b", zeros()
    )
    loop.run()
    assert len(read_rounds(tmp_path / "b")[0].clients) == count and grid.now == 1.0


def test_an_engine_that_answers_no_query_is_named_and_a_message_that_timed_out_holds_up_no_other(monkeypatch):
    from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

    from edgeloop.federated.simulation import simulated_grid

    monkeypatch.setattr(simulated_grid, "ANSWER_S", 0.05)
    options = SimulationOptions(data="data.npz", nodes=2)
    grid = simulated_grid.SimulatedGrid(
        Engine({1: lambda message: None, 2: honest(2)}), Population(options, np.array([100, 200])), 10.0, workers=1
    )
    list(grid.get_node_ids())

    def train(node):
        content = RecordDict({"arrays": ArrayRecord(), "config": ConfigRecord({"server-round": 1, "epochs": 1})})
        return Message(content, dst_node_id=node, message_type="train")

    assert grid.send_and_receive([train(1)], timeout=0.05) == []
    assert len(list(grid.send_and_receive([train(2)], timeout=5.0))) == 1
    ids = grid.push_messages([Message(RecordDict(), dst_node_id=1, message_type="query")])
    with pytest.raises(DeviceError, match=r"1 of 1 simulated devices did not say what they are within 0\.05 s"):
        grid.pull_messages(ids)
