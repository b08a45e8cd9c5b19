"""Buffered rounds in simulated time: which updates make a version, with which weight, and what a kill undoes."""

import json

import numpy as np
import pytest
from played_grid import PlayedGrid, honest, reply_of, zeros

from edgeloop.errors import DataError, DeviceError, OptionsError
from edgeloop.federated.rounds.buffered.options import BufferedOptions
from edgeloop.federated.rounds.guard.options import GuardOptions
from edgeloop.federated.rounds.quorum_options import QuorumOptions
from edgeloop.federated.rounds.records import read_rounds, read_state, read_weights
from edgeloop.federated.rounds.strategies import StrategyName, StrategyOptions

pytest.importorskip("flwr")


@pytest.fixture(autouse=True)
def _of_a_run(monkeypatch):
    """Flower's messages are made inside a task of a run."""
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def event_grid(durations, nodes=None):
    from edgeloop.federated.simulation.event_grid import EventGrid

    return EventGrid(nodes or {node: honest(node) for node in durations}, durations)


def loop(grid, out, *, rounds=3, size=2, **more):
    from edgeloop.federated.rounds.buffered.buffered_loop import BufferedLoop
    from edgeloop.federated.rounds.round_loop import LoopOptions

    quorum = QuorumOptions(deadline_s=more.pop("deadline_s", 30.0), attempts=more.pop("attempts", 3))
    guard = GuardOptions(**more.pop("guard", {}))
    strategy = more.pop("strategy", StrategyOptions())
    options = LoopOptions(
        rounds=rounds,
        devices=len(grid.nodes),
        quorum=quorum,
        guard=guard,
        strategy=strategy,
        max_memory_bytes=more.pop("memory", 10**9),
        buffered=BufferedOptions(size=size, **more),
    )
    return BufferedLoop(grid, options, out, zeros())


def run(grid, out, **more):
    loop(grid, out, **more).run()
    return read_rounds(out)


def clients(records):
    return [[(client.node, client.staleness) for client in record.clients] for record in records]


def weights(out, number):
    return read_weights(out / "rounds" / f"round-{number}.npz")


def plus(step):
    """A device that adds `step` to every weight."""

    def answer(message):
        number = message.content["config"]["server-round"]
        arrays = {name: array.numpy() + np.float32(step) for name, array in message.content["arrays"].items()}
        return reply_of(arrays, device=number)

    return answer


def test_a_late_update_counts_with_less_weight_in_the_version_that_it_comes_to(tmp_path):
    """Nodes 1 and 2 take a second, node 3 takes 3.5: its update of version 0 comes after three versions."""
    grid = event_grid({1: 1.0, 2: 1.0, 3: 3.5}, {1: plus(1.0), 2: plus(2.0), 3: plus(8.0)})
    wide = {"max_norm_ratio": 100.0}
    records = run(grid, tmp_path, rounds=4, server_learning_rate=0.5, guard=wide)
    assert clients(records)[:3] == [[("1", 0), ("2", 0)]] * 3
    assert [client.staleness for client in records[3].clients] in ([0, 3], [3, 0])
    # 0.5 * (1 + 2) / 2 a version; then 0.5 * (8 / sqrt(1 + 3) + 1) / 2 with node 1, or + 2 with node 2
    last = {"1": 1.25, "2": 1.5}[next(client.node for client in records[3].clients if not client.staleness)]
    expected = np.float32(3 * 0.75 + last)
    assert all((array == expected).all() for array in weights(tmp_path, 4).values())


def test_no_bit_depends_on_which_of_two_replies_is_pulled_first(tmp_path):
    nodes = {n: honest(n) for n in range(1, 7)}
    for seed in range(3):
        run(PlayedGrid(nodes, seed), tmp_path / str(seed), rounds=3, size=6)
    found = [weights(tmp_path / str(seed), 3) for seed in range(3)]
    assert all(found[0][name].tobytes() == other[name].tobytes() for other in found[1:] for name in other)


def test_slow_devices_hold_up_nobody_and_no_more_train_than_allowed(tmp_path):
    durations = {n: 10.0 if n <= 2 else 1.0 for n in range(1, 11)}
    grid = event_grid(durations)
    records = run(grid, tmp_path, rounds=12, size=4, concurrency=5)
    assert grid.most <= 5 and grid.now < 30  # synchronous rounds of all ten devices take 120 s
    assert {client.node for record in records for client in record.clients} == {str(n) for n in durations}
    assert max(client.staleness for record in records for client in record.clients) > 0


def test_an_update_that_is_too_old_is_refused_and_its_device_is_not_to_blame(tmp_path):
    grid = event_grid({1: 1.0, 2: 1.0, 3: 9.5})
    records = run(grid, tmp_path, rounds=6, max_staleness=1, guard={"bench_after": 1})
    assert all(client.staleness <= 1 for record in records for client in record.clients)
    assert ("3", "stale") in {(reply.node, reply.reason) for record in records for reply in record.refused}
    assert grid.pushed[3] > 1


def test_an_optimizer_of_the_server_steps_from_the_buffer(tmp_path):
    strategy = StrategyOptions(name=StrategyName.FED_ADAM)
    run(event_grid({1: 1.0, 2: 1.0}, {1: plus(1.0), 2: plus(1.0)}), tmp_path, rounds=1, strategy=strategy)
    # the mean step is 1: m = 0.1, v = 0.01; rate 0.1 sqrt(1 - 0.99^2) / (1 - 0.9^2); step rate m / (sqrt(v) + 1e-3)
    step = 0.1 * np.sqrt(1 - 0.99**2) / (1 - 0.9**2) * 0.1 / (0.1 + 1e-3)
    np.testing.assert_allclose(weights(tmp_path, 1)["w000"], step, rtol=1e-5)


def test_a_hostile_reply_is_refused_and_the_buffer_fills_without_it(tmp_path):
    bad = {1: plus(np.nan), 2: plus(0.5), 3: plus(1.0)}
    records = run(event_grid(dict.fromkeys(bad, 1.0), bad), tmp_path, rounds=4, guard={"bench_after": 2})
    assert {client.node for record in records for client in record.clients} == {"2", "3"}
    assert [reply.reason for record in records for reply in record.refused] == ["not-finite"] * 2


class Steps:
    """So many calls go through, then the process "dies"."""

    def __init__(self, left):
        self.left = left

    def dying(self, real):
        def call(*arguments, **more):
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            return real(*arguments, **more)

        return call


def test_a_kill_at_any_write_counts_nothing_twice(tmp_path, monkeypatch):
    """Each version writes two updates, two files and its entry; a killed server goes on after the last whole one."""
    from edgeloop.federated.rounds.journal import journal

    durations = {1: 1.0, 2: 1.0, 3: 2.5}
    for step in range(15):
        out, steps = tmp_path / str(step), Steps(step)
        with monkeypatch.context() as patch:
            patch.setattr(journal.Journal, "_append", steps.dying(journal.Journal._append))
            patch.setattr(journal, "write_file", steps.dying(journal.write_file))
            with pytest.raises(KeyboardInterrupt):
                run(event_grid(durations), out, rounds=4)
        assert len(loop(event_grid(durations), out).records) == step // 5
        records = run(event_grid(durations), out, rounds=4)
        assert (len(records), read_state(out)) == (4, "finished")
        entries = [json.loads(line)["entry"] for line in (out / "journal" / "journal.jsonl").read_bytes().splitlines()]
        updates = [entry for entry in entries if entry["kind"] == "update"]
        for record in records:
            counted = [e for e in updates if (e["round"], e["attempt"]) == (record.round, record.attempt)]
            assert sorted((e["node"], record.round - 1 - e["base"]) for e in counted) == sorted(
                (client.node, client.staleness) for client in record.clients
            )
        hashes = [
            e["sha256"]
            for record in records
            for e in updates
            if (e["round"], e["attempt"]) == (record.round, record.attempt)
        ]
        assert len(set(hashes)) == len(hashes) == 8


def test_devices_that_never_answer_end_the_run_after_its_attempts(tmp_path):
    grid = PlayedGrid({1: honest(1), 2: lambda m: None})
    with pytest.raises(DeviceError, match="round 1 has 1 of the 2 updates of its buffer") as raised:
        run(grid, tmp_path, deadline_s=0.1, attempts=2)
    assert "--resume" in raised.value.advice
    assert grid.pushed == {1: 1, 2: 2}


def test_a_device_whose_data_is_refused_ends_the_run_where_the_others_cannot_fill_a_buffer(tmp_path):
    from flwr.app import ConfigRecord, RecordDict

    document = DataError("labels run from 0 to 3", advice="Use labels 0 to 2.").to_json()
    failed = RecordDict({"error": ConfigRecord({"error": json.dumps(document), "device": "1"})})
    with pytest.raises(DataError, match="labels run from 0 to 3"):
        run(PlayedGrid({1: honest(1), 2: lambda m: failed}), tmp_path)


def test_versions_that_do_not_fit_into_the_memory_are_refused(tmp_path):
    # as many as may be old or train, and the newest: 3 of 15 numbers of 4 bytes
    limits = {"max_staleness": 2, "concurrency": 3}
    loop(event_grid(dict.fromkeys((1, 2, 3), 1.0)), tmp_path, memory=180, **limits)
    with pytest.raises(OptionsError, match="up to 3 versions"):
        loop(event_grid(dict.fromkeys((1, 2, 3), 1.0)), tmp_path, memory=179, **limits)
