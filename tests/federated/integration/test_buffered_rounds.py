"""Buffered rounds in simulated time: which updates make a version, with which weight, and what a kill undoes."""

import json
import random
from collections import Counter

import numpy as np
import pytest
from played_grid import PlayedGrid, Steps, honest, reply_of, zeros

from edgeloop.errors import DataError, DeviceError, OptionsError
from edgeloop.federated.device.compression.codec import CODECS, Codec, decode
from edgeloop.federated.rounds.buffered.options import BufferedOptions
from edgeloop.federated.rounds.compression_options import CompressionOptions
from edgeloop.federated.rounds.guard.options import GuardOptions
from edgeloop.federated.rounds.quorum_options import QuorumOptions
from edgeloop.federated.rounds.records import read_rounds, read_state, read_weights
from edgeloop.federated.rounds.strategies import StrategyName, StrategyOptions
from edgeloop.federated.simulation.options import SimulationOptions
from edgeloop.federated.simulation.population import Population

pytest.importorskip("flwr")
from flwr.app import ConfigRecord, RecordDict

from edgeloop.federated.device.compression.upload import Training, Upload

ADAM = StrategyOptions(name=StrategyName.FED_ADAM)


@pytest.fixture(autouse=True)
def _of_a_run(monkeypatch):
    """Flower's messages are made inside a task of a run."""
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def simulated_grid(durations, nodes=None):
    """`durations`: simulated seconds of one training, by node. The engine, `inner`, counts the messages; `most`: of
    nodes that trained at the same time."""
    from edgeloop.federated.simulation.simulated_grid import SimulatedGrid

    class Counting(SimulatedGrid):
        most = 0

        def push_messages(self, messages):
            ids = super().push_messages(messages)
            self.most = max(self.most, len({asked.message.metadata.dst_node_id for asked in self._queue}))
            return ids

    engine = PlayedGrid(nodes or {node: honest(node) for node in durations})
    options = SimulationOptions(data="data.npz", nodes=len(durations), examples_per_s=1.0)
    return Counting(engine, Population(options, np.array([durations[n] for n in sorted(durations)])), None, 1)


def loop(grid, out, *, rounds=3, size=2, **more):
    from edgeloop.federated.rounds.buffered.buffered_loop import BufferedLoop
    from edgeloop.federated.rounds.round_loop import LoopOptions

    waits = {key: more.pop(key, usual) for key, usual in {"deadline_s": 30.0, "attempts": 3, "wait_s": 60.0}.items()}
    guard = GuardOptions(**more.pop("guard", {}))
    strategy = more.pop("strategy", StrategyOptions())
    options = LoopOptions(
        rounds=rounds,
        devices=len(grid.nodes) if isinstance(grid, PlayedGrid) else len(grid.get_node_ids()),
        train=more.pop("train", {}),
        quorum=QuorumOptions(**waits),
        compression=more.pop("compression", CompressionOptions()),
        guard=guard,
        strategy=strategy,
        max_memory_bytes=more.pop("memory", 10**9),
        buffered=BufferedOptions(size=size, **more),
    )
    return BufferedLoop(grid, options, out, zeros())


class Clock:
    """The time of a loop and its grid: it goes on where somebody waits."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def clocked_grid(durations, monkeypatch, since=None):
    """A grid of real devices: the server has to wait for them. `since`: when a node connects. `behind`: the most
    messages that a node had not answered."""
    from edgeloop.federated.rounds.buffered import buffered_grid, buffered_loop

    clock, since = Clock(), since or {}
    free, due = dict.fromkeys(durations, 0.0), {}
    for module in (buffered_grid, buffered_loop):
        monkeypatch.setattr(module, "time", clock)

    class Clocked(PlayedGrid):
        behind = 0

        def get_node_ids(self):
            return [node for node in self.nodes if since.get(node, 0.0) <= clock.now]

        def push_messages(self, messages):
            ids = []
            for message in messages:
                node = message.metadata.dst_node_id
                ids += super().push_messages([message])
                free[node] = due[ids[-1]] = max(clock.now, free[node]) + durations[node]
            late = Counter(reply.metadata.src_node_id for id, reply in self.waiting if due[id] > clock.now)
            self.behind = max(self.behind, *late.values())
            return ids

        def pull_messages(self, ids):
            return super().pull_messages([id for id in ids if due[id] <= clock.now])

    return Clocked({node: honest(node) for node in durations})


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
    grid = simulated_grid({1: 1.0, 2: 1.0, 3: 3.5}, {1: plus(1.0), 2: plus(2.0), 3: plus(8.0)})
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


def test_runs_of_one_seed_are_equal_to_the_bit_whatever_the_order_of_the_engine(tmp_path, monkeypatch):
    """Ten devices, of which five train at a time: who is asked next follows from who has answered by then."""
    from edgeloop.federated.rounds.buffered import buffered_loop
    from edgeloop.federated.simulation import simulated_grid as module

    monkeypatch.setattr(buffered_loop, "POLL_S", 0.0)
    monkeypatch.setattr(module, "LOOK_S", 0.0)
    durations, records = {n: 1 + n // 4 for n in range(1, 11)}, []  # many end at the same time
    for seed in range(3):
        grid, chance = simulated_grid(durations), random.Random(seed)
        pull = grid.inner.pull_messages
        grid.inner.pull_messages = lambda ids, pull=pull, chance=chance: pull(chance.sample(ids, len(ids) // 2 or 1))
        records.append(run(grid, tmp_path / str(seed), rounds=6, size=3, concurrency=9))
    assert records[0] == records[1] == records[2]
    found = [weights(tmp_path / str(seed), 6) for seed in range(3)]
    assert all(found[0][name].tobytes() == other[name].tobytes() for other in found[1:] for name in other)


def test_slow_devices_hold_up_nobody_and_no_more_train_than_allowed(tmp_path):
    durations = {n: 10.0 if n <= 2 else 1.0 for n in range(1, 11)}
    grid = simulated_grid(durations)
    records = run(grid, tmp_path, rounds=12, size=4, concurrency=5)
    assert grid.most <= 5 and grid.now < 30  # synchronous rounds of all ten devices take 120 s
    assert {client.node for record in records for client in record.clients} == {str(n) for n in durations}
    assert max(client.staleness for record in records for client in record.clients) > 0


def test_an_update_that_is_too_old_is_refused_and_its_device_is_not_to_blame(tmp_path):
    grid = simulated_grid({1: 1.0, 2: 1.0, 3: 9.5})
    records = run(grid, tmp_path, rounds=20, max_staleness=1, guard={"bench_after": 1})
    assert all(client.staleness <= 1 for record in records for client in record.clients)
    refused = [(reply.node, reply.reason) for record in records for reply in record.refused]
    assert refused == [("3", "stale")] * 2
    assert grid.inner.pushed[3] == 3  # at 0, 9.5 and 19 s: after its answers


def test_an_update_that_grew_too_old_while_it_waited_for_its_buffer_is_refused(tmp_path):
    """Three replies come together, each makes a version: the second and the third are late by one and two."""
    records = run(simulated_grid(dict.fromkeys((1, 2, 3), 1.0)), tmp_path, rounds=6, size=1, max_staleness=1)
    assert {client.staleness for record in records for client in record.clients} == {0, 1}
    assert "stale" in {reply.reason for record in records for reply in record.refused}


def test_a_device_slower_than_the_deadline_is_sent_nothing_until_it_answers(tmp_path, monkeypatch):
    grid = clocked_grid({1: 0.1, 2: 0.1, 3: 0.6}, monkeypatch)
    records = run(grid, tmp_path, rounds=24, deadline_s=0.25, max_staleness=6)
    assert grid.behind == 1
    counted = [record.round for record in records for client in record.clients if client.node == "3"]
    assert len(counted) >= 3 and counted[-1] > 18


def test_devices_that_are_all_slower_than_the_deadline_are_not_to_blame(tmp_path, monkeypatch):
    grid = clocked_grid(dict.fromkeys((1, 2, 3), 0.7), monkeypatch)
    server = loop(grid, tmp_path, rounds=8, size=3, deadline_s=0.5)
    server.run()
    assert (len(server.records), server.grid.benched, server.grid.faults.total()) == (8, set(), 0)


def test_a_device_that_lost_its_message_is_asked_again_once_its_update_would_be_too_old(tmp_path, monkeypatch):
    """Node 3 would take an hour: of its message nothing comes, as where its process was started again."""
    grid = clocked_grid({1: 0.1, 2: 0.1, 3: 3600.0}, monkeypatch)
    run(grid, tmp_path, rounds=12, deadline_s=0.25, attempts=2, max_staleness=3)
    assert grid.pushed[3] > 1


def test_a_device_that_was_sent_its_model_again_is_asked_again_after_a_late_answer(tmp_path, monkeypatch):
    """Node 3 trains, has then lost the model, and takes so long with the message that holds it that nothing counts."""

    class Durations(dict):
        taken = iter((0.1, 0.1, 1.0))

        def __getitem__(self, node):
            return next(self.taken, 0.1) if node == 3 else super().__getitem__(node)

    asked, sha256 = [], "s" * 64
    lacking = RecordDict({"error": ConfigRecord({"error": "{}", "device": "3", "lacks": sha256})})

    def answer(message):
        asked.append("model" in message.content["config"])
        return lacking if len(asked) == 2 else honest(3)(message)

    grid = clocked_grid(Durations({1: 0.1, 2: 0.1, 3: 0.0}), monkeypatch)
    grid.nodes[3] = answer
    train = {"sha256": sha256, "model": b"model"}
    records = run(grid, tmp_path, rounds=20, max_staleness=2, train=train)
    assert asked[:5] == [True, False, True, True, False]  # of the late answer nothing is read
    assert {(reply.node, reply.reason) for record in records for reply in record.refused} == {("3", "stale")}


def test_devices_have_wait_s_to_connect_before_the_first_round(tmp_path, monkeypatch):
    grid = clocked_grid(dict.fromkeys((1, 2, 3), 0.1), monkeypatch, since=dict.fromkeys((1, 2, 3), 5.0))
    assert len(run(grid, tmp_path, deadline_s=0.5, attempts=1, wait_s=6.0)) == 3


def test_a_server_goes_on_with_less_than_a_buffer_of_devices_after_wait_s(tmp_path, monkeypatch):
    """Node 3 connects later: until then round 1 takes two updates."""
    grid = clocked_grid(dict.fromkeys((1, 2, 3), 0.1), monkeypatch, since={3: 2.0})
    (record,) = run(grid, tmp_path, rounds=1, size=3, wait_s=1.0)
    assert {client.node for client in record.clients} == {"1", "2", "3"} and grid.pushed == {1: 1, 2: 1, 3: 1}


def test_an_optimizer_of_the_server_steps_from_the_buffer(tmp_path):
    run(simulated_grid({1: 1.0, 2: 1.0}, {1: plus(1.0), 2: plus(1.0)}), tmp_path, rounds=1, strategy=ADAM)
    # the mean step is 1: m = 0.1, v = 0.01; rate 0.1 sqrt(1 - 0.99^2) / (1 - 0.9^2); step rate m / (sqrt(v) + 1e-3)
    step = 0.1 * np.sqrt(1 - 0.99**2) / (1 - 0.9**2) * 0.1 / (0.1 + 1e-3)
    np.testing.assert_allclose(weights(tmp_path, 1)["w000"], step, rtol=1e-5)


def test_an_optimizer_of_the_server_steps_from_the_newest_version_where_nobody_was_asked_from_it(tmp_path):
    """Two replies come together and each makes a version: at the second, both devices train from the first."""
    server = loop(simulated_grid({1: 1.0, 2: 1.0}), tmp_path, rounds=6, size=1, strategy=ADAM)
    made, stepped_from = server.strategy.aggregate_train, []

    def aggregate_train(number, replies):
        current = server.strategy.current_arrays
        stepped_from.append(all((current[name] == server.weights[name]).all() for name in server.weights))
        return made(number, replies)

    server.strategy.aggregate_train = aggregate_train
    server.run()
    assert stepped_from == [True] * 6


@pytest.mark.parametrize("codec", [Codec.INT8, Codec.TOP_K, Codec.TOP_K_INT8])
def test_compressed_updates_add_to_the_weights_of_their_own_version(tmp_path, codec):
    """Node 2 is late by one version: the updates, as they were decoded from what travelled, make the weights."""
    nodes, made = {}, {}

    def compressing(node, upload):
        def answer(message):
            if message.metadata.message_type == "query":
                return RecordDict({"device": ConfigRecord({"codecs": list(CODECS), "models": []})})
            config = dict(message.content["config"])
            base = {name: array.numpy() for name, array in message.content["arrays"].items()}
            reply = honest(node)(message)
            moved = {name: array.numpy() for name, array in reply["arrays"].items()}
            sent = upload.records(Training(base, moved, (), config, node))
            update = {key: value for key, value in sent["update"].items() if key != "base"}
            made[str(node), config["server-round"] - 1] = decode(update, [12, 3], compression.sent_share)
            return RecordDict({**sent, "metrics": reply["metrics"]})

        return answer

    compression = CompressionOptions(upload=codec, share=0.2 if codec.sparse else None)
    for node in (1, 2):
        nodes[node] = compressing(node, Upload(str(tmp_path / str(node)), print))
    grid = simulated_grid({1: 1.0, 2: 1.5}, nodes)
    records = run(grid, tmp_path / "out", rounds=4, size=1, compression=compression)
    (counted,) = zip(*(record.clients for record in records), strict=True)
    assert {client.codec for client in counted} == {codec.value} and 1 in {client.staleness for client in counted}
    expected = sum(
        made[client.node, version - client.staleness] / np.sqrt(1 + client.staleness)
        for version, client in enumerate(counted)
    )
    last = weights(tmp_path / "out", 4)
    # each of 4 rounds rounds weights below 1 to float32 twice (6e-8), and its staleness weight to 2^-21: 2e-7 of an
    # update below 0.4
    np.testing.assert_allclose(np.concatenate([last[name].ravel() for name in sorted(last)]), expected, atol=1.1e-6)


def test_the_messages_of_a_version_share_one_record_of_its_weights(tmp_path):
    grid, sent = simulated_grid(dict.fromkeys((1, 2, 3), 1.0)), {}
    push = grid.push_messages

    def push_messages(messages):
        for message in messages:
            sent.setdefault(message.content["config"]["server-round"], []).append(message.content["arrays"])
        return push(messages)

    grid.push_messages = push_messages
    run(grid, tmp_path, rounds=2, size=3, concurrency=1)
    assert [len(records) for records in sent.values()] == [3, 3]  # one after another
    assert all(record is records[0] for records in sent.values() for record in records)


def test_a_hostile_reply_is_refused_and_the_buffer_fills_without_it(tmp_path):
    bad = {1: plus(np.nan), 2: plus(0.5), 3: plus(1.0)}
    records = run(simulated_grid(dict.fromkeys(bad, 1.0), bad), tmp_path, rounds=4, guard={"bench_after": 2})
    assert {client.node for record in records for client in record.clients} == {"2", "3"}
    assert [reply.reason for record in records for reply in record.refused] == ["not-finite"] * 2


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
                run(simulated_grid(durations), out, rounds=4)
        assert len(loop(simulated_grid(durations), out).records) == step // 5
        records = run(simulated_grid(durations), out, rounds=4)
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
    assert grid.pushed == {1: 1, 2: 1}  # node 2 may still train: a second message would only wait behind the first


def test_a_device_whose_data_is_refused_ends_the_run_where_the_others_cannot_fill_a_buffer(tmp_path):
    document = DataError("labels run from 0 to 3", advice="Use labels 0 to 2.").to_json()
    failed = RecordDict({"error": ConfigRecord({"error": json.dumps(document), "device": "1"})})
    with pytest.raises(DataError, match="labels run from 0 to 3"):
        run(PlayedGrid({1: honest(1), 2: lambda m: failed}), tmp_path)


def test_versions_that_do_not_fit_into_the_memory_are_refused(tmp_path):
    # as many as may be old, and the newest: 3 of 15 numbers of 4 bytes, twice
    grid = simulated_grid(dict.fromkeys((1, 2, 3), 1.0))
    loop(grid, tmp_path, memory=360, max_staleness=2)
    with pytest.raises(OptionsError, match="up to 3 versions"):
        loop(grid, tmp_path, memory=359, max_staleness=2)
    with pytest.raises(OptionsError, match="up to 7 versions"):  # a device trains from one, and one update waits
        loop(grid, tmp_path, memory=839, max_staleness=20)
