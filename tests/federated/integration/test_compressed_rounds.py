"""Rounds over a played network whose devices compress: who is asked for what, what counts, and what is redone."""

import numpy as np
import pytest
from played_grid import SHAPES, PlayedGrid, honest, reply_of, zeros

from edgeloop.errors import OptionsError
from edgeloop.federated.device.compression.codec import CODECS, Codec
from edgeloop.federated.rounds.compression_options import CompressionOptions
from edgeloop.federated.rounds.quorum_options import QuorumOptions
from edgeloop.federated.rounds.records import read_rounds, read_weights
from edgeloop.federated.rounds.strategies import StrategyName, StrategyOptions

pytest.importorskip("flwr")
from flwr.app import ConfigRecord, RecordDict

SPARSE = CompressionOptions(upload=Codec.TOP_K, share=0.2)  # 3 of 15 values
INT8 = CompressionOptions(upload=Codec.INT8)


@pytest.fixture(autouse=True)
def _of_a_run(monkeypatch):
    """Flower's messages are made inside a task of a run; nobody waits for a node that does not answer a query."""
    from flwr.supercore.task_identity import TaskIdentity

    from edgeloop.federated.rounds.negotiation import negotiated_grid

    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    monkeypatch.setattr(negotiated_grid, "QUERY_S", 0.2)


class Device:
    """A device that moves its weights as `honest` does, and sends them as a real one does.

    `asked`: the configurations that it was sent. `codecs`: what it answers to a query; None: nothing at all.
    """

    def __init__(self, folder, node, codecs=CODECS, models=()) -> None:
        from edgeloop.federated.device.compression.upload import Upload

        self.node, self.codecs, self.models, self.asked, self.heard = node, codecs, list(models), [], []
        self.upload = Upload(str(folder / f"device-{node}"), self.heard.append)

    def __call__(self, message):
        from edgeloop.federated.device.compression.upload import Training

        if message.metadata.message_type == "query":
            if self.codecs is None:
                return None
            return RecordDict({"device": ConfigRecord({"codecs": list(self.codecs), "models": self.models})})
        config = dict(message.content["config"])
        self.asked.append(config)
        if "sha256" in config and "model" not in config and config["sha256"] not in self.models:
            return RecordDict({"error": ConfigRecord({"error": "{}", "device": "1", "lacks": config["sha256"]})})
        self.models += [config["sha256"]] if "model" in config else []
        base = {name: array.numpy() for name, array in message.content["arrays"].items()}
        reply = honest(self.node)(message)
        weights = {name: array.numpy() for name, array in reply["arrays"].items()}
        sent = self.upload.records(Training(base, weights, (), config, self.node))
        return RecordDict({**sent, "metrics": reply["metrics"]})


def run(nodes, out, *, rounds=3, compression=SPARSE, quorum=1.0, **more):
    from edgeloop.federated.rounds.round_loop import LoopOptions, RoundLoop

    options = LoopOptions(
        rounds=rounds,
        devices=len(nodes),
        quorum=QuorumOptions(deadline_s=0.2, wait_s=0.1, quorum=quorum),
        compression=compression,
        **more,
    )
    loop = RoundLoop(PlayedGrid(nodes), options, out, zeros())
    loop.run()
    return read_rounds(out)


def weights(out, number):
    return read_weights(out / "rounds" / f"round-{number}.npz")


def row(arrays):
    return np.concatenate([arrays[name].ravel() for name in sorted(arrays)])


def devices(folder, count=3, **more):
    return {n: Device(folder, n, **more) for n in range(1, count + 1)}


def moves(node, number):
    """What `honest` adds in a round, in float64."""
    noise = np.random.default_rng((node, number))
    drawn = {name: noise.normal(size=shape) for name, shape in SHAPES.items()}
    return 0.1 * row(drawn)


def test_int8_rounds_are_the_mean_of_what_int8_can_hold(tmp_path):
    (record,) = run(devices(tmp_path), tmp_path, rounds=1, compression=INT8)
    expected = np.mean([moves(n, 1) for n in (1, 2, 3)], axis=0)
    step = max(np.abs(moves(n, 1)).max() for n in (1, 2, 3)) / 127
    assert 0 < np.abs(row(weights(tmp_path, 1)) - expected).max() <= step
    # 15 values of a byte, two scales
    assert [(c.codec, c.upload_bytes) for c in record.clients] == [("int8", 23)] * 3


def test_top_k_sends_all_in_the_end(tmp_path):
    """One device: the weights, and what it still holds back, are the sum of its updates."""
    nodes = devices(tmp_path, 1)
    records = run(nodes, tmp_path, rounds=6)
    expected = np.sum([moves(1, number) for number in range(1, 7)], axis=0)
    held = nodes[1].upload._left_out.before(run_id(tmp_path), 7, 15)
    # float32 numbers below 1, a few roundings in each of six rounds
    np.testing.assert_allclose(row(weights(tmp_path, 6)) + held, expected, atol=6 * 4 * 2**-24)
    assert np.count_nonzero(held) >= 12, "three values of the last update travelled"
    # 3 values of 4 bytes; 3 of 15 have 2 low bits and an upper row of 14 // 4 + 3 = 6 bits: two bytes
    assert {(c.codec, c.upload_bytes) for r in records for c in r.clients} == {("top-k", 14)}


def run_id(folder):
    return (folder / "journal" / "run-id").read_text()


def test_a_device_that_lacks_the_codec_sends_its_weights(tmp_path):
    silent = Device(tmp_path, 3, codecs=None)  # its answer to the query does not come in time
    nodes = {1: Device(tmp_path, 1), 2: Device(tmp_path, 2, codecs=["int8", "zip"]), 3: silent, 4: of_old}
    records = run(nodes, tmp_path, rounds=2)
    assert [[c.codec for c in r.clients] for r in records] == [["top-k", "none", "top-k", "none"]] * 2
    assert "compression" in nodes[1].asked[0] and "compression" not in nodes[2].asked[0]


def of_old(message):
    """A device that knows neither queries nor codecs."""
    from flwr.app import Error

    if message.metadata.message_type == "query":
        return Error(code=0, reason="no query function")
    return honest(4)(message)


@pytest.mark.parametrize("name", [StrategyName.FED_ADAM, StrategyName.MEDIAN, StrategyName.MULTI_KRUM])
def test_every_strategy_takes_compressed_updates(tmp_path, name):
    own = {"malicious": 1} if name is StrategyName.MULTI_KRUM else {}
    found = []
    for part in ("a", "b"):  # and the order of arrival changes nothing
        nodes = devices(tmp_path / part, 5)
        run(nodes, tmp_path / part, compression=INT8, strategy=StrategyOptions(name=name, **own))
        found.append(row(weights(tmp_path / part, 3)))
    assert found[0].any() and found[0].tobytes() == found[1].tobytes()


def test_a_round_that_is_redone_is_the_same_round(tmp_path):
    """The server dies after the devices have answered round 2; a new one asks them again."""
    from edgeloop.federated.rounds.journal import journal

    run(devices(tmp_path / "a"), tmp_path / "a", rounds=4)
    nodes = devices(tmp_path / "b")
    run(nodes, tmp_path / "b", rounds=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal.Journal, "commit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(nodes, tmp_path / "b", rounds=4)
    run(nodes, tmp_path / "b", rounds=4)
    assert [len(nodes[n].asked) for n in nodes] == [5, 5, 5]
    assert row(weights(tmp_path / "a", 4)).tobytes() == row(weights(tmp_path / "b", 4)).tobytes()
    assert all(node.heard == [] for node in nodes.values())


def test_another_run_begins_with_nothing_left_out(tmp_path):
    nodes = devices(tmp_path, 1)
    run(nodes, tmp_path / "a", rounds=2)
    run(nodes, tmp_path / "b", rounds=2)
    assert nodes[1].heard == ["What earlier updates left out begins at zero: it is of another run"]
    assert row(weights(tmp_path / "a", 2)).tobytes() == row(weights(tmp_path / "b", 2)).tobytes()


def hostile(change):
    """A device that spoils its compressed update."""

    def make(folder):
        device = Device(folder, 2)

        def answer(message):
            reply = device(message)
            if "update" in reply:
                reply["update"] = ConfigRecord({**reply["update"], **change})
            return reply

        return answer

    return make


BAD = {
    "compression, count": hostile({"count": 10**15}),
    "compression, more than asked": hostile({"count": 4}),
    "compression, indices": hostile({"indices": b"\xff\xff"}),
    "compression, values": hostile({"values": bytes(10**6)}),
    "compression, NaN": hostile({"values": np.full(3, np.nan, "<f4").tobytes()}),
    "compression, a key": hostile({"scales": b""}),
    "compression, codec": hostile({"codec": "int8"}),
    "norm": hostile({"values": np.full(3, 1e9, "<f4").tobytes()}),
    "other-round": hostile({"base": "0" * 64}),
}


@pytest.mark.parametrize("what", BAD)
def test_a_spoilt_update_is_dropped_with_a_reason_and_changes_nothing(tmp_path, what):
    nodes = {**devices(tmp_path / "with"), 2: BAD[what](tmp_path / "with")}
    (record,) = run(nodes, tmp_path / "with", rounds=1, quorum=0.6)
    honest_ones = {n: node for n, node in devices(tmp_path / "without").items() if n != 2}
    run(honest_ones, tmp_path / "without", rounds=1)
    assert [(r.node, r.reason) for r in record.refused] == [("2", what.partition(",")[0])]
    assert row(weights(tmp_path / "with", 1)).tobytes() == row(weights(tmp_path / "without", 1)).tobytes()


def test_a_compressed_update_that_comes_again_is_a_replay_though_its_base_is_new(tmp_path):
    device, kept = Device(tmp_path, 2), {}

    def again(message):
        reply = device(message)
        if "update" in reply:
            kept.setdefault("first", dict(reply["update"]))
            reply["update"] = ConfigRecord({**kept["first"], "base": reply["update"]["base"]})
        return reply

    _, second = run({1: Device(tmp_path, 1), 2: again}, tmp_path, rounds=2, quorum=0.5)
    assert [(r.node, r.reason) for r in second.refused] == [("2", "replay")]


def test_a_compressed_update_that_nobody_asked_for_is_refused(tmp_path):
    record = RecordDict({"update": ConfigRecord({"codec": "int8"}), "metrics": reply_of(zeros())["metrics"]})
    nodes = {1: honest(1), 2: lambda m: record}
    (found,) = run(nodes, tmp_path, rounds=1, compression=CompressionOptions(), quorum=0.5)
    assert [(r.node, r.reason) for r in found.refused] == [("2", "other-round")]


def test_diverged_weights_are_sent_as_they_are_and_refused_for_what_they_are(tmp_path):
    from edgeloop.federated.device.compression.upload import Training

    device = Device(tmp_path, 2)
    asked = {"compression": "top-k", "share": 0.2, "server-round": 1, "run-id": "r"}
    nan = {**zeros(), "w000": np.full((4, 3), np.nan, np.float32)}
    assert list(device.upload.records(Training(zeros(), nan, (), asked, 2))) == ["arrays"]


def test_what_was_left_out_of_a_weight_that_stays_here_now_is_not_sent(tmp_path):
    from edgeloop.federated.device.compression.codec import decode
    from edgeloop.federated.device.compression.upload import Training

    upload = Device(tmp_path, 2).upload
    asked = {"compression": "top-k", "share": 0.2, "run-id": "r"}
    moved = {"w000": np.full((4, 3), 2, np.float32), "w001": np.ones(3, np.float32)}
    upload.records(Training(zeros(), moved, (), {**asked, "server-round": 1}, 2))
    still = {"w000": np.zeros((4, 3), np.float32), "w001": np.zeros(3, np.float32)}
    record = dict(upload.records(Training(zeros(), still, ("w000",), {**asked, "server-round": 2}, 2))["update"])
    del record["base"]
    # nine values of 2 were left out of w000, and the three of 1 of w001
    assert decode(record, [12, 3], 0.2).tolist() == [0] * 12 + [1, 1, 1]


def test_a_model_is_sent_to_those_who_do_not_hold_it(tmp_path):
    train = {"sha256": "s" * 64, "model": b"model", "manifest": b"{}"}
    nodes = {**devices(tmp_path), 2: Device(tmp_path, 2, models=["s" * 64])}
    run(nodes, tmp_path, rounds=2, train=train)
    with_model = {n: ["model" in config for config in node.asked] for n, node in nodes.items()}
    assert with_model == {1: [True, False], 2: [False, False], 3: [True, False]}
    assert all(config["manifest"] == b"{}" for node in nodes.values() for config in node.asked)


@pytest.mark.parametrize("compression", [CompressionOptions(), INT8])
def test_a_device_that_lost_the_model_gets_it_in_the_same_round(tmp_path, compression):
    nodes = devices(tmp_path, 2)

    def forgetful(message):
        if message.metadata.message_type == "train" and message.content["config"]["server-round"] == 2:
            nodes[2].models = [] if "model" not in message.content["config"] else nodes[2].models
        return nodes[2](message)

    train = {"sha256": "s" * 64, "model": b"model"}
    records = run({1: nodes[1], 2: forgetful}, tmp_path, rounds=3, compression=compression, train=train)
    assert ["model" in config for config in nodes[2].asked] == [True, False, True, False]
    assert [(len(r.clients), r.attempt, len(r.refused)) for r in records] == [(2, 1, 0)] * 3


def test_a_device_that_says_it_lacks_what_it_was_sent_has_failed(tmp_path):
    lacking = RecordDict({"error": ConfigRecord({"error": "{}", "device": "1", "lacks": "s" * 64})})
    asked = []

    def answer(message):
        asked.append(message)
        return lacking

    train = {"sha256": "s" * 64, "model": b"model"}
    (record,) = run(
        {1: honest(1), 2: answer}, tmp_path, rounds=1, compression=CompressionOptions(), quorum=0.5, train=train
    )
    assert [(r.node, r.reason) for r in record.refused] == [("2", "failed")] and len(asked) == 1


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, float("nan")])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(OptionsError, match="share is"):
        CompressionOptions(upload=Codec.TOP_K, share=share)
