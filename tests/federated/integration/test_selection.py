"""[selection]: devices on their battery or on a metered network are left alone, by what they say; lies are bounded."""

import json

import pytest
from played_grid import PlayedGrid, honest, zeros

from edgeloop.errors import OptionsError
from edgeloop.federated.rounds.negotiation.selection_options import SelectionOptions
from edgeloop.federated.rounds.quorum_options import QuorumOptions
from edgeloop.federated.rounds.records import read_rounds

pytest.importorskip("flwr")
from flwr.app import ConfigRecord, RecordDict

GOOD = {"machine": "aarch64", "runtime": "litert", "cores": 4, "ram-bytes": 4_000_000_000, "battery": True}
SLEEPING = SelectionOptions(on_battery=False, metered=False, min_ram_mb=900)


@pytest.fixture(autouse=True)
def _of_a_run(monkeypatch):
    """Flower's messages are made inside a task of a run; nobody waits long for a node that does not answer a query."""
    from flwr.supercore.task_identity import TaskIdentity

    from edgeloop.federated.rounds.negotiation import negotiated_grid

    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    monkeypatch.setattr(negotiated_grid, "QUERY_S", 0.1)


class Device:
    """Answers `query` with the next of these facts, the last one again and again; None: not at all."""

    def __init__(self, node, *facts) -> None:
        self.node, self.facts, self.trained = node, list(facts), 0

    def __call__(self, message):
        if message.metadata.message_type == "query":
            found = self.facts.pop(0) if len(self.facts) > 1 else self.facts[0]
            return None if found is None else RecordDict({"device": ConfigRecord(found)})
        self.trained += 1
        return honest(self.node)(message)


def run(out, devices, rounds=1, quorum=0.1, **more):
    from edgeloop.federated.rounds.round_loop import LoopOptions, RoundLoop

    nodes = {device.node: device for device in devices}
    waits = QuorumOptions(deadline_s=0.2, wait_s=0.3, quorum=quorum)
    RoundLoop(
        PlayedGrid(nodes), LoopOptions(rounds=rounds, devices=len(nodes), quorum=waits, **more), out, zeros()
    ).run()
    return [[client.device for client in record.clients] for record in read_rounds(out)]


def test_devices_that_must_not_be_asked_are_not(tmp_path):
    devices = [
        Device(0, {**GOOD, "on-battery": False}),
        Device(1, {**GOOD, "on-battery": True}),
        Device(2, {**GOOD, "on-battery": False, "metered": True}),
        Device(3, {**GOOD, "on-battery": False, "metered": False}),
        Device(4, {**GOOD, "on-battery": False, "ram-bytes": 899_000_000}),
        Device(5, None),
        Device(6, {"machine": "x86_64", "ram-bytes": 10**10}),  # it does not say whether it runs on a battery
    ]
    assert run(tmp_path, devices, selection=SLEEPING) == [[0, 3]]
    assert [device.trained for device in devices] == [1, 0, 0, 1, 0, 0, 0]


def test_a_device_is_asked_again_once_it_is_charged(tmp_path, monkeypatch):
    from edgeloop.federated.rounds.negotiation import negotiated_grid

    monkeypatch.setattr(negotiated_grid, "AGAIN_S", 0.0)
    moving = Device(1, *[{**GOOD, "on-battery": flag} for flag in (True, True, False)])
    found = run(
        tmp_path, [Device(0, {**GOOD, "on-battery": False}), moving], 1, selection=SelectionOptions(on_battery=False)
    )
    assert found == [[0, 1]]


def test_what_devices_say_is_kept_as_far_as_it_can_be_true(tmp_path):
    lies = {"machine": "x" * 65, "runtime": "a\x1b[2J", "cores": -1, "ram-bytes": 2**60, "battery": 1, "metered": "no"}
    devices = [
        Device(0, {**GOOD, "on-battery": False}),
        Device(1, lies),
        Device(2, {**GOOD, "cores": 1.5, "more": "x"}),
    ]
    run(tmp_path, devices, query=True)
    written = json.loads((tmp_path / "nodes.json").read_bytes())
    true = {key: value for key, value in GOOD.items() if key != "cores"}
    assert written == {"format": "edgeloop-nodes/1", "nodes": {"0": {**GOOD, "on-battery": False}, "2": true}}


def test_nobody_is_asked_where_nothing_depends_on_it(tmp_path):
    device = Device(0)  # a query would find no facts
    assert run(tmp_path, [device]) == [[0]] and not (tmp_path / "nodes.json").exists()


@pytest.mark.parametrize("megabytes", [-1.0, float("nan"), float("inf")])
def test_a_memory_that_is_no_number_is_refused(megabytes):
    with pytest.raises(OptionsError, match="min-ram-mb"):
        SelectionOptions(min_ram_mb=megabytes)


def test_a_node_that_does_not_answer_is_waited_for_once_and_its_late_answer_counts(monkeypatch):
    from edgeloop.federated.rounds.compression_options import CompressionOptions
    from edgeloop.federated.rounds.negotiation import negotiated_grid

    monkeypatch.setattr(negotiated_grid, "AGAIN_S", 0.0)
    waits = list[float]()
    monkeypatch.setattr(negotiated_grid.time, "sleep", waits.append)
    silent, other = Device(1, None), Device(0, {**GOOD, "on-battery": False})
    played = PlayedGrid({0: other, 1: silent})
    grid = negotiated_grid.NegotiatedGrid(played, CompressionOptions(), SelectionOptions(on_battery=False))
    assert grid.get_node_ids() == [0] and waits
    waits.clear()
    for _ in range(10):
        assert grid.get_node_ids() == [0]
    assert waits == [] and len(grid._queries) == 1
    silent.facts = [{**GOOD, "on-battery": False}]
    assert grid.get_node_ids() == [0, 1] and grid._queries == {}
