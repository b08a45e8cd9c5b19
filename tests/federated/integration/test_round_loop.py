"""Rounds over a played network: who is counted, what is refused, when a run ends, and what a resumed one computes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from played_grid import PlayedGrid, Steps, honest, reply_of, zeros
from sweeps import swept

from edgeloop.errors import DataError, DeviceError, IntegrityError, OptionsError, WriteError
from edgeloop.federated.device.compression.codec import Codec
from edgeloop.federated.device.statistics import Tell
from edgeloop.federated.rounds.compression_options import CompressionOptions
from edgeloop.federated.rounds.guard.options import GuardOptions
from edgeloop.federated.rounds.journal.options import JournalOptions, Kept
from edgeloop.federated.rounds.quorum_options import QuorumOptions
from edgeloop.federated.rounds.records import read_rounds, read_weights
from edgeloop.federated.rounds.statistics.options import StatisticsOptions
from edgeloop.federated.rounds.statistics.told import Labels
from edgeloop.federated.rounds.strategies import StrategyName, StrategyOptions

pytest.importorskip("flwr")

QUICK = {"deadline_s": 0.2, "wait_s": 0.1}


@pytest.fixture(autouse=True)
def _of_a_run(monkeypatch):
    """Flower's messages are made inside a task of a run."""
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def loop(grid, out, *, rounds=3, devices=None, **more):
    from edgeloop.federated.rounds.round_loop import LoopOptions, RoundLoop

    quorum = QuorumOptions(**{**QUICK, **more.pop("quorum", {})})
    guard = GuardOptions(**more.pop("guard", {}))
    options = LoopOptions(rounds=rounds, devices=devices or len(grid.nodes), quorum=quorum, guard=guard, **more)
    return RoundLoop(grid, options, out, zeros())


def run(grid, out, **more):
    loop(grid, out, **more).run()
    return read_rounds(out)


def weights(out, number):
    return read_weights(out / "rounds" / f"round-{number}.npz")


def same(a, b):
    return sorted(a) == sorted(b) and all(a[name].tobytes() == b[name].tobytes() for name in a)


def nine(bad=None, **more):
    """Nine nodes, of which the first two are `bad`."""
    return {n: bad if bad is not None and n <= 2 else honest(n, **more) for n in range(1, 10)}


def test_a_round_is_the_mean_weighted_by_examples(tmp_path):
    nodes = {n: honest(n, examples=n) for n in (1, 2, 3)}
    (record,) = run(PlayedGrid(nodes), tmp_path, rounds=1)
    for name, shape in (("w000", (4, 3)), ("w001", (3,))):
        total = np.zeros(shape)
        for n in nodes:
            noise = np.random.default_rng((n, 1))
            drawn = {key: noise.normal(size=size) for key, size in (("w000", (4, 3)), ("w001", (3,)))}
            total += n * (0.1 * drawn[name]).astype(np.float32).astype(np.float64)
        # a float64 sum of three terms is exact to 2^-51, then one rounding to float32
        np.testing.assert_array_equal(weights(tmp_path, 1)[name], (total / 6).astype(np.float32))
    assert [(c.node, c.examples) for c in record.clients] == [("1", 1), ("2", 2), ("3", 3)]


@pytest.mark.parametrize("name", StrategyName)
def test_the_order_of_arrival_changes_no_bit(tmp_path, name):
    own = {"fed-prox": {"proximal_mu": 0.1}}.get(name, {"malicious": 2} if "krum" in name.value else {})
    found = []
    for seed in range(3):
        grid = PlayedGrid(nine(), seed)
        run(grid, tmp_path / str(seed), rounds=2, strategy=StrategyOptions(name=name, **own), batch=5)
        found.append(weights(tmp_path / str(seed), 2))
    assert same(found[0], found[1]) and same(found[0], found[2])
    assert all(array.dtype == np.float32 for array in found[0].values())


HEAD = 128  # bytes


def npy(shape) -> bytes:
    """An .npy file of float32 [4, 3] whose header says another shape."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape},), }}"
    return b"\x93NUMPY\1\0" + (HEAD - 10).to_bytes(2, "little") + text.encode().ljust(HEAD - 11) + b"\n" + bytes(48)


def with_file(data: bytes):
    """A reply whose w000 says of itself what is right, around this file."""
    from flwr.app import Array

    reply = reply_of(zeros())
    reply["arrays"]["w000"] = Array("float32", (4, 3), "numpy.ndarray", data)
    return reply


BAD = {
    "not-finite": lambda m: reply_of({**zeros(), "w000": np.full((4, 3), np.nan, np.float32)}),
    "not-finite, inf": lambda m: reply_of({**zeros(), "w000": np.full((4, 3), np.inf, np.float32)}),
    "norm": lambda m: reply_of({**zeros(), "w000": np.full((4, 3), 1e6, np.float32)}),
    "shape, (3, 4)": lambda m: reply_of({**zeros(), "w000": np.ones((3, 4), np.float32)}),
    "shape, (1, 3)": lambda m: reply_of({**zeros(), "w000": np.full((1, 3), 5, np.float32)}),
    "shape, scalar": lambda m: reply_of({**zeros(), "w000": np.float32(7)}),
    "shape, float64": lambda m: reply_of({**zeros(), "w000": np.ones((4, 3))}),
    "shape, int8": lambda m: reply_of({**zeros(), "w000": np.ones((4, 3), np.int8)}),
    "examples, 1e12": lambda m: reply_of(zeros(), examples=10**12),
    "examples, -80": lambda m: reply_of(zeros(), examples=-80),
    "examples, nan": lambda m: reply_of(zeros(), examples=float("nan")),
    "metrics, one more": lambda m: reply_of(zeros(), z=1.0),
    "metrics, loss": lambda m: reply_of(zeros(), loss=float("inf")),
    "metrics, 1.7e308": lambda m: reply_of(zeros(), loss=1.7e308),
    "metrics, seconds": lambda m: reply_of(zeros(), seconds=1e300),
    "metrics, 2**60": lambda m: reply_of(zeros(), device=2**60),
    "metrics, -1": lambda m: reply_of(zeros(), device=-1),
    "shape, a short one": lambda m: with_file(b"\x93NUMPY"),
    "shape, a long one": lambda m: with_file(b"\0" * 10_000),
    "records, 10**15": lambda m: with_file(npy(10**15)),
    "records, no header": lambda m: with_file(npy("(((").ljust(HEAD + 48, b" ")),
    "records, no .npy": lambda m: with_file(b"\0" * (HEAD + 48)),
    "names": lambda m: reply_of({"w000": np.zeros((4, 3), np.float32)}),
    "names, one more": lambda m: reply_of({**zeros(), "w002": np.zeros(1, np.float32)}),
    "records": lambda m: __import__("flwr.app").app.RecordDict(),
}


@pytest.mark.parametrize(
    ("what", "name"),
    [
        *((what, "fed-avg") for what in BAD),
        ("not-finite", "fed-adam"),
        ("shape, (1, 3)", "fed-adam"),
        ("norm", "median"),
    ],
)
def test_bad_updates_are_dropped_with_a_reason_and_change_nothing(tmp_path, what, name):
    strategy = StrategyOptions(name=StrategyName(name))
    without = {n: node for n, node in nine().items() if n > 2}
    run(PlayedGrid(without), tmp_path / "without", rounds=1, devices=7, strategy=strategy)
    quorum = {"quorum": 0.7}
    (record,) = run(PlayedGrid(nine(BAD[what])), tmp_path / "with", rounds=1, quorum=quorum, strategy=strategy)
    assert [(r.node, r.reason) for r in sorted(record.refused, key=lambda r: r.node)] == [
        (node, what.partition(",")[0]) for node in "12"
    ]
    assert all(r.detail for r in record.refused)
    assert same(weights(tmp_path / "without", 1), weights(tmp_path / "with", 1))


def telling(node, **told):
    """An honest device that holds ten labels of three classes, and tells this of them."""

    def answer(message):
        from flwr.app import MetricRecord

        assert message.content["config"]["statistics"] == "evaluation"
        reply = honest(node)(message)
        reply["statistics"] = MetricRecord({key.replace("_", "-"): value for key, value in told.items()})
        return reply

    return answer


def test_a_statistic_that_makes_no_sense_is_refused_and_its_update_counts(tmp_path):
    by_class = {"examples_by_class": [5, 5, 0], "correct_by_class": [5, 1, 0]}
    nodes = {
        1: telling(1, **by_class),
        2: telling(2, examples_by_class=[0, 1, 9], correct_by_class=[0, 0, 3], personal_correct_by_class=[0, 1, 7]),
        3: telling(3, **{**by_class, "examples_by_class": [10**9, 5, 0]}),
        4: honest(4),
    }
    asked = {"statistics": StatisticsOptions(tell=Tell.EVALUATION), "labels": Labels(3)}
    (record,) = run(PlayedGrid(nodes), tmp_path / "told", rounds=1, **asked)
    run(PlayedGrid({n: honest(n) for n in nodes}), tmp_path / "silent", rounds=1)
    assert same(weights(tmp_path / "told", 1), weights(tmp_path / "silent", 1)) and not record.refused
    told = record.statistics
    assert (told.devices, told.examples, told.correct) == (2, (5, 6, 9), (5, 1, 3))
    assert (told.personal_examples, told.personal_correct) == ((0, 1, 9), (0, 1, 7))
    assert [(one.node, one.correct) for one in told.clients] == [("1", (5, 1, 0)), ("2", (0, 0, 3))]
    assert [one.node for one in told.refused] == ["3"] and "adds up to 1000000005" in told.refused[0].detail


def replaying(message, kept={}):  # noqa: B006  (what the node remembers)
    if "first" not in kept:
        kept["first"] = honest(1)(message)
    return kept["first"]


def flipped(message):
    base = {name: array.numpy() for name, array in message.content["arrays"].items()}
    moved = {name: array.numpy() for name, array in honest(1)(message)["arrays"].items()}
    return reply_of({name: base[name] - 5 * (moved[name] - base[name]) for name in base})


def test_models_of_devices_are_kept_of_the_rounds_that_are_folded_back(tmp_path):
    heard = {}

    def answer(node):
        def own(message):
            reply = honest(node)(message)
            number = message.content["config"]["server-round"]
            heard[number, node] = {name: array.numpy() for name, array in reply["arrays"].items()}
            return reply

        return own

    run(PlayedGrid({n: answer(n) for n in (5, 2, 9, 4)}), tmp_path, rounds=3, kept_updates=2, kept_every=2)
    folders = sorted(path.name for path in (tmp_path / "device-models").iterdir())
    assert folders == ["round-2-attempt-1", "round-3-attempt-1"]  # every second one, and the last
    for number in (2, 3):
        files = sorted((tmp_path / "device-models" / f"round-{number}-attempt-1").iterdir())
        assert [path.stem for path in files] == ["2", "4"]  # the smallest ids, whoever came first
        assert all(same(read_weights(path), heard[number, int(path.stem)]) for path in files)


def test_a_replay_is_refused_in_the_second_round(tmp_path):
    first, second = run(PlayedGrid({1: replaying, 2: honest(2)}), tmp_path, rounds=2, quorum={"quorum": 0.5})
    assert (len(first.clients), len(second.clients)) == (2, 1)
    assert [(r.node, r.reason) for r in second.refused] == [("1", "replay")]


def ending(node, named=True, value=1):
    """A device whose training ends in the same weights wherever it begins. `named`: it says where it began."""

    def answer(message):
        from flwr.app import ConfigRecord

        reply = reply_of({name: array + np.float32(value) for name, array in zeros().items()}, device=node)
        if named:
            reply["trained-from"] = ConfigRecord({"base": message.content["config"]["base"]})
        return reply

    return answer


def test_a_device_whose_training_always_ends_in_the_same_weights_is_honest(tmp_path):
    """Beside one that moves on, so that the base of no two rounds is equal; without their name it may be a copy."""
    for out, named in ((tmp_path / "named", True), (tmp_path / "not", False)):
        records = run(PlayedGrid({1: ending(1, named), 2: honest(2)}), out, quorum={"quorum": 0.5})
        assert [len(r.clients) for r in records] == ([2, 2, 2] if named else [2, 1, 1])
        assert [why.reason for r in records for why in r.refused] == ([] if named else ["replay"] * 2)


def test_devices_that_begin_and_end_alike_in_each_round_are_honest_and_a_resume_knows_them(tmp_path):
    """One moves up as far as the other down, so each round begins where the first one did."""
    nodes = {1: ending(1, named=False), 2: ending(2, named=False, value=-1)}
    for rounds in (2, 4):
        assert [len(r.clients) for r in run(PlayedGrid(nodes), tmp_path, rounds=rounds)] == [2] * rounds


def test_a_reply_that_was_trained_from_other_weights_is_refused(tmp_path):
    kept = []

    def copying(message):
        kept.append(ending(1)(message))
        return kept[0]

    records = run(PlayedGrid({1: copying, 2: honest(2)}), tmp_path, rounds=2, quorum={"quorum": 0.5})
    assert [(why.node, why.reason) for why in records[1].refused] == [("1", "other-round")]


@pytest.mark.parametrize("name", ["multi-krum", "trimmed-mean", "median"])
def test_sign_flips_move_a_robust_mean_by_less_than_the_mean(tmp_path, name):
    """Two of nine devices go five steps the other way; the honest mean is what all nine honest ones give."""
    own = {"multi-krum": {"malicious": 2}, "trimmed-mean": {"trim": 0.23}}.get(name, {})
    pull = {n: toward(n) for n in range(1, 10)}
    grids = {"honest": pull, "mean": {**pull, 1: against, 2: against}, "robust": {**pull, 1: against, 2: against}}
    for key, nodes in grids.items():
        strategy = StrategyOptions(name=StrategyName(name), **own) if key == "robust" else StrategyOptions()
        run(PlayedGrid(nodes), tmp_path / key, rounds=1, strategy=strategy, guard={"max_norm_ratio": 100.0})
    found = {key: np.concatenate([a.ravel() for a in weights(tmp_path / key, 1).values()]) for key in grids}
    off = {key: float(np.abs(found[key] - found["honest"]).max()) for key in grids}
    # the mean moves by 2 of 9 times six steps of 1; the robust ones stay among honest updates, 0.1 apart
    assert off["robust"] < 0.2 < 1.0 < off["mean"]


def test_multi_krum_leaves_hostile_updates_out_where_fewer_than_wanted_come(tmp_path):
    """Two of ten are silent and two hostile: of the eight that come six are averaged, not eight."""
    nodes = {n: toward(n) for n in range(1, 11)} | {1: against, 2: against, 3: lambda m: None, 4: lambda m: None}
    strategy = StrategyOptions(name=StrategyName.MULTI_KRUM, malicious=2)
    wide = {"max_norm_ratio": 100.0}
    (record,) = run(PlayedGrid(nodes), tmp_path, rounds=1, strategy=strategy, guard=wide, quorum={"quorum": 0.8})
    assert len(record.clients) == 8
    # six updates of 1.05 to 1.10; with a hostile one of -5 among seven their mean would be below 0.3
    assert all(array.min() >= 1.05 and array.max() <= 1.1 for array in weights(tmp_path, 1).values())


def toward(node):
    return lambda message: reply_of({k: a + np.float32(1 + 0.01 * node) for k, a in zeros().items()}, device=node)


def against(message):
    return reply_of({k: a - np.float32(5) for k, a in zeros().items()})


def test_a_repeated_reply_counts_once(tmp_path):
    twice = {1: lambda m: [honest(1)(m), honest(1)(m)], 2: honest(2)}
    (record,) = run(PlayedGrid(twice), tmp_path, rounds=1)
    assert [c.node for c in record.clients] == ["1", "2"]


def test_a_repeat_offender_is_asked_no_more(tmp_path):
    grid = PlayedGrid(nine(BAD["norm"]))
    records = run(grid, tmp_path, rounds=5, quorum={"quorum": 0.7}, guard={"bench_after": 2})
    assert [len(r.refused) for r in records] == [2, 2, 0, 0, 0]
    assert (grid.pushed[1], grid.pushed[9]) == (2, 5)


def test_twenty_percent_hostile_devices_abort_no_run(tmp_path):
    """Each of the bad updates, replay and sign flip among them, by two of ten devices, over three rounds."""
    kinds = [*BAD.values(), replaying, flipped, lambda m: None]
    for index, bad in enumerate(kinds):
        nodes = {n: bad if n <= 2 else honest(n) for n in range(1, 11)}
        records = run(PlayedGrid(nodes), tmp_path / str(index), quorum={"quorum": 0.8}, guard={"bench_after": 9})
        assert len(records) == 3 and all(len(r.clients) >= 8 for r in records)


def test_a_round_ends_with_the_wanted_replies_and_later_ones_are_discarded(tmp_path):
    nodes = {n: honest(n) for n in range(1, 11)}
    records = run(PlayedGrid(nodes), tmp_path, quorum={"fraction": 0.5, "over_select": 1.3})
    assert [(r.selected, len(r.clients)) for r in records] == [(7, 5)] * 3  # 130% of 5 of 10
    assert len({tuple(c.node for c in r.clients) for r in records}) > 1  # other devices in other rounds


def test_a_round_without_quorum_is_repeated_then_the_run_ends_and_can_be_resumed(tmp_path):
    silent = {"on": False}
    nodes = {
        1: honest(1),
        2: lambda m: None if silent["on"] and m.content["config"]["server-round"] == 2 else honest(2)(m),
    }
    grid = PlayedGrid(nodes)
    silent["on"] = True
    with pytest.raises(DeviceError, match=r"round 2 has no quorum after 3 attempts: 1 of 2 .* 2 are needed") as raised:
        run(grid, tmp_path)
    assert "--resume" in raised.value.advice and raised.value.exit_code == 8
    assert grid.pushed[2] == 1 + 3
    assert len(read_rounds(tmp_path)) == 1
    silent["on"] = False
    records = run(PlayedGrid(nodes), tmp_path)
    run(PlayedGrid({1: honest(1), 2: honest(2)}), tmp_path / "unbroken")
    assert len(records) == 3 and same(weights(tmp_path, 3), weights(tmp_path / "unbroken", 3))


def test_an_update_of_a_killed_server_counts_nowhere_though_its_round_is_done_again(tmp_path, monkeypatch):
    from edgeloop.federated.rounds.journal.journal import Journal

    nodes, how = {n: honest(n) for n in (1, 2)}, {"devices": 2, "quorum": {"quorum": 0.5}}
    run(PlayedGrid(nodes), tmp_path, rounds=1, **how)
    steps = Steps(1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Journal, "add_update", steps.dying(Journal.add_update))
        run(PlayedGrid(nodes), tmp_path, rounds=2, **how)
    void = Journal(tmp_path / "journal").entries[-1]
    assert (void["kind"], void["round"]) == ("update", 2)
    del nodes[int(void["node"])]
    record = run(PlayedGrid(nodes), tmp_path, rounds=2, **how)[-1]
    seen = Journal(tmp_path / "journal").resumed().seen
    assert sorted(one.round for one in seen.values()) == [1, 1, 2] and void["sha256"] not in seen
    assert (len(record.clients), record.attempt) == (1, 2)


KEEPS = JournalOptions(updates=Kept.CONTENTS)


def killed_amid(nodes, out, monkeypatch, *, after, **how):
    """A server that is killed in round 2 once it has accepted `after` updates of it; which nodes these are of."""
    from edgeloop.federated.rounds.journal.journal import Journal

    run(PlayedGrid(nodes), out, rounds=1, journal=KEEPS, **how)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Journal, "add_update", Steps(after).dying(Journal.add_update))
        run(PlayedGrid(nodes), out, rounds=2, journal=KEEPS, **how)
    return {int(entry["node"]) for entry in Journal(out / "journal").updates(2, 1)}


@pytest.mark.parametrize("name", ["fed-avg", "fed-adam", "median", "scaffold"])
def test_a_resumed_server_asks_no_device_again_whose_update_it_has(tmp_path, monkeypatch, name):
    how = {"strategy": StrategyOptions(name=StrategyName(name)), "batch": 5}
    nodes = {n: honest(n, examples=n) for n in range(1, 6)}
    run(PlayedGrid(nodes), tmp_path / "whole", rounds=2, **how)
    accepted = killed_amid(nodes, tmp_path / "killed", monkeypatch, after=3, **how)
    assert len(accepted) == 3
    grid = PlayedGrid(nodes)
    record = run(grid, tmp_path / "killed", rounds=2, journal=KEEPS, **how)[-1]
    assert set(grid.pushed) == set(nodes) - accepted
    assert [c.node for c in record.clients] == [str(n) for n in sorted(nodes)] and record.attempt == 1
    assert same(weights(tmp_path / "killed", 2), weights(tmp_path / "whole", 2))


def test_a_compressed_update_is_kept_as_it_came_and_counts_once(tmp_path, monkeypatch):
    nodes = {n: compressed(n) for n in (1, 2)}
    how = {"compression": CompressionOptions(upload=Codec.INT8)}
    run(PlayedGrid(nodes), tmp_path / "whole", rounds=2, **how)
    accepted = killed_amid(nodes, tmp_path / "killed", monkeypatch, after=1, **how)
    (record,) = run(grid := PlayedGrid(nodes), tmp_path / "killed", rounds=2, journal=KEEPS, **how)[1:]
    assert set(grid.pushed) == set(nodes) - accepted
    assert [client.codec for client in record.clients] == ["int8", "int8"]
    assert same(weights(tmp_path / "killed", 2), weights(tmp_path / "whole", 2))


def compressed(node):
    """An honest device that answers as int8."""
    from flwr.app import ConfigRecord, RecordDict

    from edgeloop.federated.device.compression.codec import encode

    def answer(message):
        if message.metadata.message_type == "query":
            return RecordDict({"device": ConfigRecord({"codecs": ["int8"], "device": str(node)})})
        reply = honest(node)(message)
        base = {name: array.numpy() for name, array in message.content["arrays"].items()}
        row = np.concatenate([(reply["arrays"][name].numpy() - base[name]).ravel() for name in base])
        record = encode(row, [a.size for a in base.values()], Codec.INT8, random=np.random.default_rng(node))
        del reply["arrays"]
        reply["update"] = ConfigRecord({**record, "base": message.content["config"]["base"]})
        return reply

    return answer


def labelled(node, device):
    """The honest device `device` under the id `node`."""

    def answer(message):
        from flwr.app import ConfigRecord, RecordDict

        if message.metadata.message_type == "query":
            return RecordDict({"device": ConfigRecord({"device": str(device)})})
        return honest(device)(message)

    return answer


@pytest.mark.parametrize("told_apart", [True, False])
def test_devices_that_have_new_ids_after_a_kill_count_once(tmp_path, monkeypatch, told_apart):
    """By their labels; where two have the same label, the round is asked for again."""
    nodes = {n: labelled(n, n) for n in (1, 2, 3)}
    run(PlayedGrid(nodes), tmp_path / "whole", rounds=2)
    accepted = killed_amid(nodes, tmp_path / "killed", monkeypatch, after=2)
    label = {n: n if told_apart else 1 for n in nodes}
    renamed = {n + 10: labelled(n + 10, label[n]) for n in nodes}
    grid = PlayedGrid(renamed)
    record = run(grid, tmp_path / "killed", rounds=2, journal=KEEPS)[-1]
    assert len(record.clients) == 3
    if told_apart:
        again = {n - 10 for n, count in grid.pushed.items() if count > 1}  # the others were asked for their labels
        assert again == set(nodes) - accepted and record.attempt == 1
        assert same(weights(tmp_path / "killed", 2), weights(tmp_path / "whole", 2))
    else:
        assert record.attempt == 2 and all(int(client.node) > 10 for client in record.clients)


def test_a_device_without_a_number_of_its_own_is_not_taken_for_one_that_counted(tmp_path, monkeypatch):
    """Devices of [network] all have the label 0: who is connected may be the one that has not answered."""
    nodes = {n: labelled(n, 0) for n in (1, 2)}
    killed_amid(nodes, tmp_path, monkeypatch, after=1)
    grid = PlayedGrid({22: labelled(22, 0)})
    record = run(grid, tmp_path, rounds=2, devices=2, journal=KEEPS, numbered=False, quorum={"quorum": 0.5})[-1]
    assert [client.node for client in record.clients] == ["22"] and record.attempt == 2


def test_the_update_of_a_numbered_device_that_is_away_counts(tmp_path, monkeypatch):
    nodes = {n: labelled(n, n) for n in (1, 2, 3)}
    run(PlayedGrid(nodes), tmp_path / "whole", rounds=2)
    accepted = killed_amid(nodes, tmp_path / "killed", monkeypatch, after=2)
    away = min(accepted)
    grid = PlayedGrid({n + 10: labelled(n + 10, n) for n in nodes if n != away})
    record = run(grid, tmp_path / "killed", rounds=2, devices=3, journal=KEEPS)[-1]
    assert (len(record.clients), record.selected, record.attempt) == (3, 3, 1)
    assert {n - 10 for n, count in grid.pushed.items() if count > 1} == set(nodes) - accepted
    assert same(weights(tmp_path / "killed", 2), weights(tmp_path / "whole", 2))


def test_going_back_to_the_last_round_voids_the_updates_of_the_open_one(tmp_path, monkeypatch):
    """They may be of the data that was replaced."""
    from edgeloop.federated.rounds.journal.branch import go_back

    sound = {n: honest(n) for n in (1, 2, 3)}
    run(PlayedGrid(sound), tmp_path / "sound", rounds=2)
    spoiled = {n: honest(n, step=0.2) for n in sound}
    out = tmp_path / "killed"
    run(PlayedGrid(sound), out, rounds=1, journal=KEEPS)
    assert len(killed_amid(spoiled, out, monkeypatch, after=2)) == 2
    assert go_back(out, 1) is None and not list(out.glob("journal/updates/round-2-*"))
    grid = PlayedGrid(sound)
    record = run(grid, out, rounds=2, journal=KEEPS)[-1]
    assert grid.pushed == dict.fromkeys(sound, 1) and record.attempt == 2
    assert same(weights(out, 2), weights(tmp_path / "sound", 2))


def test_an_update_that_is_written_again_takes_its_room_once(tmp_path):
    from flwr.app import Message, RecordDict

    from edgeloop.federated.rounds.journal.contents import Contents

    def reply(node):
        asked = Message(RecordDict(), dst_node_id=node, message_type="train")
        return Message(reply_of(zeros()), reply_to=asked)

    Contents(tmp_path, 1 << 20).add(1, 1, reply(1))
    size = next(tmp_path.glob("updates/*/1")).stat().st_size
    contents = Contents(tmp_path, 3 * size)  # of the next server: it finds the first one
    for node in (1, 1, 2):
        contents.add(2, 1, reply(node))
    assert contents.rounds() == [1, 2]
    contents.add(2, 1, reply(3))
    assert contents.rounds() == [2] and len(list(tmp_path.glob("updates/*/*"))) == 3
    contents.discard(2)
    for node in (1, 2, 3):
        contents.add(3, 1, reply(node))
    contents.add(4, 1, reply(1))
    assert contents.rounds() == [4] and not list(tmp_path.glob("updates/round-3*"))


def test_an_update_that_the_disk_has_lost_is_asked_for_again(tmp_path, monkeypatch):
    nodes = {n: honest(n) for n in (1, 2, 3)}
    lost, _ = killed_amid(nodes, tmp_path, monkeypatch, after=2)
    file = tmp_path / "journal" / "updates" / "round-2-attempt-1" / str(lost)
    file.write_bytes(file.read_bytes()[:-1])
    record = run(PlayedGrid(nodes), tmp_path, rounds=2, journal=KEEPS)[-1]
    assert (len(record.clients), record.attempt) == (3, 2)


def test_contents_of_the_oldest_rounds_go_first(tmp_path):
    run(PlayedGrid({n: honest(n) for n in (1, 2)}), tmp_path / "all", rounds=4, journal=KEEPS)
    sizes = [file.stat().st_size for file in (tmp_path / "all" / "journal" / "updates").glob("*/*")]
    assert len(sizes) == 8
    few = JournalOptions(updates=Kept.CONTENTS, max_disk_mb=5 * max(sizes) / 1e6)
    run(PlayedGrid({n: honest(n) for n in (1, 2)}), tmp_path / "few", rounds=4, journal=few)
    kept = sorted(folder.name for folder in (tmp_path / "few" / "journal" / "updates").iterdir())
    assert kept == ["round-3-attempt-1", "round-4-attempt-1"]


def test_a_round_that_does_not_fit_on_the_disk_is_refused_before_the_run(tmp_path):
    # 4 * 3 + 3 float32 weights are 60 bytes, and two arrays may take 1,024 more each: 2,108 bytes an update
    JournalOptions(updates=Kept.CONTENTS, max_disk_mb=0.0045).check_disk(zeros(), 2, tmp_path / "new")
    with pytest.raises(OptionsError, match=r"keeps 3 updates of a round, 0.0 MB, and max-disk-mb is 0.0045"):
        JournalOptions(updates=Kept.CONTENTS, max_disk_mb=0.0045).check_disk(zeros(), 3, tmp_path)
    with pytest.raises(WriteError, match="MB free"):
        JournalOptions(updates=Kept.CONTENTS, max_disk_mb=1e12).check_disk(zeros(), 10**12, tmp_path / "new")
    JournalOptions().check_disk(zeros(), 10**12, tmp_path)


def test_later_rounds_do_not_wait_for_a_device_that_has_gone(tmp_path):
    def last_words(message):
        del grid.nodes[2]
        return honest(2)(message)

    grid = PlayedGrid({1: honest(1), 2: last_words})
    patience = {"wait_s": 10_000.0, "quorum": 0.5}  # the test would end by its own time limit
    records = run(grid, tmp_path, devices=2, quorum=patience)
    assert [len(record.clients) for record in records] == [2, 1, 1]


def test_a_device_whose_data_is_refused_ends_the_run_at_once_with_its_own_error(tmp_path):
    from flwr.app import ConfigRecord, RecordDict

    document = DataError("labels run from 0 to 3", advice="Use labels 0 to 2.", where="a.npz").to_json()
    failed = RecordDict({"error": ConfigRecord({"error": json.dumps(document), "device": "1"})})
    grid = PlayedGrid({1: honest(1), 2: lambda m: failed})
    with pytest.raises(DataError, match=r"^device 1: a\.npz: labels run from 0 to 3\. Use labels 0 to 2\.$"):
        run(grid, tmp_path)
    assert grid.pushed[2] == 1


@pytest.mark.parametrize("document", ["", "[" * 100_000, "5", 5, "{}", json.dumps({"type": "__class__"}), b"\xff"])
def test_an_error_that_is_none_of_ours_is_counted(tmp_path, document):
    from flwr.app import ConfigRecord, RecordDict

    failed = RecordDict({"error": ConfigRecord({"error": document, "device": "1"})})
    (record,) = run(PlayedGrid({1: honest(1), 2: lambda m: failed}), tmp_path, rounds=1, quorum={"quorum": 0.5})
    assert record.refused[0].reason == "failed"
    assert record.refused[0].detail.startswith("device 1: the training failed with")


def test_flowers_own_error_is_counted_for_the_node_that_was_asked(tmp_path):
    from flwr.app import Error

    grid = PlayedGrid({1: honest(1), 2: lambda m: Error(code=3, reason="the node is gone")})
    (record,) = run(grid, tmp_path, rounds=1, quorum={"quorum": 0.5})
    assert [(r.node, r.detail) for r in record.refused] == [("2", "a device failed: the node is gone")]


@pytest.mark.parametrize("name", ["fed-avg", "fed-yogi"])
def test_a_run_killed_at_any_write_goes_on_to_the_same_weights(tmp_path, monkeypatch, name):
    """The process dies before each write of the second round; a new one continues in the same folder."""
    from edgeloop.federated.rounds.journal import journal

    strategy, nodes = StrategyOptions(name=StrategyName(name)), {n: honest(n) for n in (1, 2, 3)}
    run(PlayedGrid(nodes), tmp_path / "unbroken", strategy=strategy)
    writes = 5  # of a round in the journal: three updates, two files; then the entry
    for step in range(writes + 1):
        out = tmp_path / str(step)
        run(PlayedGrid(nodes), out, rounds=1, strategy=strategy)
        steps = Steps(step)
        with monkeypatch.context() as patch:
            patch.setattr(journal.Journal, "_append", steps.dying(journal.Journal._append))
            patch.setattr(journal, "write_file", steps.dying(journal.write_file))
            with pytest.raises(KeyboardInterrupt):
                run(PlayedGrid(nodes), out, strategy=strategy)
        assert len(loop(PlayedGrid(nodes), out, strategy=strategy).records) == 1
        records = run(PlayedGrid(nodes), out, strategy=strategy)
        assert [[c.node for c in r.clients] for r in records] == [["1", "2", "3"]] * 3
        assert same(weights(out, 3), weights(tmp_path / "unbroken", 3))


@pytest.mark.faults
@pytest.mark.parametrize("name", ["fed-avg", "fed-adam", "median"])
def test_a_run_that_keeps_updates_and_is_killed_at_any_write_asks_no_device_twice_for_one(tmp_path, monkeypatch, name):
    from edgeloop.federated.rounds.journal import contents, journal

    nodes = {n: honest(n) for n in (1, 2, 3)}
    how = {"strategy": StrategyOptions(name=StrategyName(name)), "journal": KEEPS}
    run(PlayedGrid(nodes), tmp_path / "unbroken", **how)
    for step in range(9):  # of a round: three updates and their contents, two files, the entry
        out = tmp_path / str(step)
        run(PlayedGrid(nodes), out, rounds=1, **how)
        steps = Steps(step)
        with monkeypatch.context() as patch:
            patch.setattr(journal.Journal, "_append", steps.dying(journal.Journal._append))
            for module in (journal, contents):
                patch.setattr(module, "write_file", steps.dying(module.write_file))
            with pytest.raises(KeyboardInterrupt):
                run(PlayedGrid(nodes), out, **how)
        records = run(grid := PlayedGrid(nodes), out, **how)
        assert sum(grid.pushed.values()) == 6 - min(3, step // 2)  # two rounds of three; each update takes two writes
        assert [[c.node for c in r.clients] for r in records] == [["1", "2", "3"]] * 3
        assert same(weights(out, 3), weights(tmp_path / "unbroken", 3))


class DyingGrid(PlayedGrid):
    """The server dies at call number `dies`, before or after what the call does; messages on their way are lost."""

    def __init__(self, nodes, seed, dies=-1, after=False):
        super().__init__(nodes, seed)
        self.dies, self.after, self.calls = dies, after, 0

    def _call(self, real, *arguments):
        self.calls += 1
        if self.calls == self.dies and not self.after:
            raise KeyboardInterrupt
        found = real(*arguments)
        if self.calls == self.dies:
            raise KeyboardInterrupt
        return found

    def get_node_ids(self):
        return self._call(super().get_node_ids)

    def push_messages(self, messages):
        return self._call(super().push_messages, messages)

    def pull_messages(self, message_ids):
        return self._call(super().pull_messages, message_ids)


@swept("seeds", range(1), range(5))
@pytest.mark.parametrize("name", ["fed-avg", "scaffold"])
def test_a_server_killed_at_any_call_of_the_network_counts_nobody_twice(tmp_path, name, seeds):
    strategy, nodes = StrategyOptions(name=StrategyName(name)), {n: honest(n) for n in (1, 2, 3)}
    unbroken, how = DyingGrid(nodes, 0), {"strategy": strategy, "batch": 5}
    run(unbroken, tmp_path / "unbroken", **how)
    for seed in seeds:
        for dies in range(1, unbroken.calls + 1):
            out = tmp_path / f"{seed}-{dies}"
            with pytest.raises(KeyboardInterrupt):
                run(DyingGrid(nodes, seed, dies, after=bool((dies + seed) % 2)), out, **how)
            records = run(DyingGrid(nodes, seed), out, **how)
            assert [[c.node for c in record.clients] for record in records] == [["1", "2", "3"]] * 3
            assert same(weights(out, 3), weights(tmp_path / "unbroken", 3))
    assert unbroken.calls >= 9


def test_a_full_disk_at_the_journal_ends_the_run_and_loses_no_round(tmp_path, root):
    """A file system of one megabyte, filled after round 1 and freed again, in a user namespace."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, timeout=60).returncode:
        pytest.skip("no user namespaces: a test cannot have a file system of its own")
    (tmp_path / "disk").mkdir()
    command = ["unshare", "-rm", sys.executable, "-c", FULL, str(tmp_path / "disk")]
    paths = f"{root / 'tests'}:{Path(__file__).parent}"
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr[-2000:]
    code, found, advice, kept, rounds, equal = json.loads(done.stdout.splitlines()[-1])
    assert code == 11 and "No space left on device" in found and "Free some space" in advice
    assert (kept, rounds, equal) == (1, 3, True)


FULL = """
import contextlib, json, subprocess, sys
from pathlib import Path
from flwr.supercore.task_identity import TaskIdentity
from played_grid import PlayedGrid, honest
from edgeloop.errors import EdgeloopError
from edgeloop.federated.rounds.records import read_rounds
from test_round_loop import run, same, weights
for name in ("_task_id", "_run_id", "_node_id"):
    setattr(TaskIdentity, name, 1)
disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], check=True)
filler = disk / "filler"

def filling(message):
    if message.content["config"]["server-round"] == 2:
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(1 << 12)):
                pass
    return honest(1)(message)

try:
    run(PlayedGrid({1: filling, 2: honest(2)}), disk / "out")
    raise SystemExit("it did not end")
except EdgeloopError as e:
    told = [e.exit_code, e.found, e.advice]
kept = len(read_rounds(disk / "out"))
filler.unlink()
nodes = {1: honest(1), 2: honest(2)}
rounds = len(run(PlayedGrid(nodes), disk / "out"))
run(PlayedGrid(nodes), disk / "unbroken")
print(json.dumps([*told, kept, rounds, same(weights(disk / "out", 3), weights(disk / "unbroken", 3))]))
"""


def test_two_servers_do_not_write_to_one_folder(tmp_path, monkeypatch):
    """One that lost sight of its parent may still live while the next one starts."""
    from edgeloop.federated.rounds import run_folder

    monkeypatch.setattr(run_folder, "SERVER_WAIT_S", 0.0)
    says = pytest.raises(DeviceError, match="another server still writes to")
    with run_folder.server_lock(tmp_path), says, run_folder.server_lock(tmp_path):
        raise AssertionError
    with run_folder.server_lock(tmp_path):
        run(PlayedGrid({1: honest(1)}), tmp_path, rounds=1)


def test_a_server_ends_with_its_parent():
    """The command is killed, and with it Flower's process that had started the server."""
    child = (
        "import time\n"
        "from edgeloop.federated.rounds.server_app import end_once_orphaned\n"
        "end_once_orphaned()\n"
        "print(flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]).wait()"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as started:
        started.stdout.readline()
        started.kill()
        started.communicate(timeout=60)  # the server holds the other end of the pipe until it has ended


def test_a_journal_cut_at_any_byte_is_a_whole_prefix(tmp_path):
    nodes = {n: honest(n) for n in (1, 2)}
    run(PlayedGrid(nodes), tmp_path / "whole", rounds=2)
    data = (tmp_path / "whole" / "journal" / "journal.jsonl").read_bytes()
    ends = [i for i, byte in enumerate(data) if byte == 10]
    for cut in {*range(0, len(data), 97), *ends, *(end + 1 for end in ends)}:
        shutil.rmtree(tmp_path / "cut", ignore_errors=True)
        shutil.copytree(tmp_path / "whole", tmp_path / "cut")
        (tmp_path / "cut" / "journal" / "journal.jsonl").write_bytes(data[:cut])
        whole = data[:cut].count(b"\n")
        # per round: two updates, then the round itself
        assert len(loop(PlayedGrid(nodes), tmp_path / "cut").records) == whole // 3


def test_numbers_of_any_size_are_read_back(tmp_path):
    """Canonical JSON writes 1e18 without a point."""
    large = {1: lambda m: reply_of({name: array + np.float32(0.1) for name, array in zeros().items()}, loss=1e18)}
    run(PlayedGrid(large), tmp_path, rounds=1)
    (record,) = loop(PlayedGrid(large), tmp_path).records
    assert record.train_loss == 1e18


def test_a_damaged_line_before_whole_ones_is_refused_and_nothing_is_cut_off(tmp_path):
    run(PlayedGrid({1: honest(1), 2: honest(2)}), tmp_path, rounds=2)
    journal = tmp_path / "journal" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"norm", b"form")
    journal.write_bytes(b"".join(lines))
    with pytest.raises(IntegrityError, match=r"journal\.jsonl: line 2 is damaged, and whole lines follow it"):
        loop(PlayedGrid({1: honest(1)}), tmp_path)
    assert journal.read_bytes() == b"".join(lines)


def test_a_changed_file_of_the_last_round_is_refused(tmp_path):
    run(PlayedGrid({1: honest(1), 2: honest(2)}), tmp_path, rounds=1)
    (tmp_path / "rounds" / "round-1.npz").write_bytes(b"")
    with pytest.raises(IntegrityError, match=r"round-1.npz is not the file that round 1 wrote"):
        loop(PlayedGrid({1: honest(1)}), tmp_path)


def test_a_strategy_that_needs_all_replies_says_what_it_lacks(tmp_path):
    strategy = StrategyOptions(name=StrategyName.MEDIAN)
    # 2 replies of 15 numbers of 4 bytes, in 3 copies: 360 bytes
    loop(PlayedGrid({1: honest(1), 2: honest(2)}), tmp_path, strategy=strategy, max_memory_bytes=360)
    with pytest.raises(OptionsError, match="median needs all 2 replies"):
        loop(PlayedGrid({1: honest(1), 2: honest(2)}), tmp_path, strategy=strategy, max_memory_bytes=359)


def test_fed_adam_is_flowers_own_on_the_exact_mean(tmp_path):
    """Reddi et al. 2020, algorithm 2, with the bias correction of Kingma and Ba, by hand."""
    run(PlayedGrid({1: honest(1)}), tmp_path, rounds=2, strategy=StrategyOptions(name=StrategyName.FED_ADAM))
    x, m, v = (np.zeros((4, 3)) for _ in range(3))
    for number in (1, 2):
        drawn = np.random.default_rng((1, number)).normal(size=(4, 3))
        delta = (x.astype(np.float32) + 0.1 * drawn).astype(np.float32) - x
        m, v = 0.9 * m + 0.1 * delta, 0.99 * v + 0.01 * delta**2
        rate = 0.1 * np.sqrt(1 - 0.99 ** (number + 1)) / (1 - 0.9 ** (number + 1))
        x = (x + rate * m / (np.sqrt(v) + 1e-3)).astype(np.float32).astype(np.float64)
    # Flower keeps the moments in float32: a few roundings of 2^-24 of numbers up to 0.2
    np.testing.assert_allclose(weights(tmp_path, 2)["w000"], x, atol=8 * 2**-24)


def test_a_run_goes_back_to_the_round_before_a_device_had_bad_data(tmp_path):
    """What follows is bit for bit a run without that data, and what was is kept."""
    from edgeloop.federated.rounds.journal.branch import go_back
    from edgeloop.federated.rounds.journal.journal import Journal

    honest_nodes = {n: honest(n) for n in (1, 2, 3)}
    spoiled = {**honest_nodes, 3: lambda m: honest(3, step=0.1 if m.content["config"]["server-round"] < 3 else 2.0)(m)}
    yogi = {"strategy": StrategyOptions(name=StrategyName.FED_YOGI)}  # has moments, which go back as well
    run(PlayedGrid(honest_nodes), tmp_path / "sound", rounds=4, **yogi)
    out = tmp_path / "out"
    run(PlayedGrid(spoiled), out, rounds=4, **yogi)
    later = {name: (out / name).read_bytes() for name in ("rounds/round-3.npz", "journal/moments-4.npz", "rounds.json")}
    assert not same(weights(out, 4), weights(tmp_path / "sound", 4))
    with pytest.raises(OptionsError, match=r"--from-round is 5, and .* has the rounds 1 to 4"):
        go_back(out, 5)
    name = Journal(out / "journal").run_id()
    branch = go_back(out, 2)
    assert Journal(out / "journal").run_id() != name  # what devices left out of their updates was of later rounds
    assert branch == out / "branches" / "1" and {name: (branch / name).read_bytes() for name in later} == later
    assert sorted(path.name for path in (out / "rounds").iterdir()) == ["round-1.npz", "round-2.npz"]
    assert len(read_rounds(out)) == 2
    assert go_back(out, 2) is None  # it is there already
    records = run(PlayedGrid(honest_nodes), out, rounds=4, **yogi)
    assert [record.round for record in records] == [1, 2, 3, 4] and all(not record.refused for record in records)
    assert all(same(weights(out, n), weights(tmp_path / "sound", n)) for n in range(1, 5))
    assert go_back(out, 3) == out / "branches" / "2"


def test_a_run_killed_as_it_goes_back_goes_back_again_or_has(tmp_path, monkeypatch):
    from edgeloop.federated.fold_back.records import FoldBackRecord, Outcome, read_records, write_record
    from edgeloop.federated.rounds.journal import branch, journal
    from edgeloop.federated.rounds.journal.journal import Journal

    nodes = {n: honest(n) for n in (1, 2)}
    run(PlayedGrid(nodes), tmp_path / "whole", rounds=3)
    for number in (1, 2, 3):
        write_record(tmp_path / "whole", FoldBackRecord(round=number, outcome=Outcome.RELEASED, version=number + 1))
    # a discard, copies of a round's two files, rounds.json and cloud.json, cloud.json, a discard of the id, the entry,
    # rounds.json, discards of the files
    for step in range(11):
        out = tmp_path / str(step)
        shutil.copytree(tmp_path / "whole", out)
        steps = Steps(step)
        with monkeypatch.context() as patch:
            patch.setattr(journal.Journal, "_append", steps.dying(journal.Journal._append))
            patch.setattr(branch, "write_file", steps.dying(branch.write_file))
            patch.setattr(branch, "discard", steps.dying(branch.discard))
            patch.setattr(branch, "forget_from", steps.dying(branch.forget_from))
            with pytest.raises(KeyboardInterrupt):
                branch.go_back(out, 2)
        resumed = shutil.copytree(out, tmp_path / f"{step}-resumed")
        went_back_to, rounds = branch.settle(resumed), len(read_rounds(resumed))
        assert (went_back_to, rounds) in ((None, 3), (2, 2)) and len(list(resumed.glob("rounds/*"))) == rounds
        if went_back_to is not None:  # what devices left out of their updates was of later rounds
            assert Journal(resumed / "journal").run_id() != Journal(tmp_path / "whole" / "journal").run_id()
            assert [record.round for record in read_records(resumed)] == [1]  # round 2 is released again
        branch.go_back(out, 2)
        assert len(read_rounds(out)) == 2 and not list(out.glob("*/*-3.npz"))
        kept = read_weights(out / "branches" / "1" / "rounds" / "round-3.npz")
        assert same(kept, weights(tmp_path / "whole", 3)) and len(loop(PlayedGrid(nodes), out).records) == 2
        run(PlayedGrid(nodes), out)
        assert same(weights(out, 3), weights(tmp_path / "whole", 3))
