"""A run from the outside, with processes that are played."""

import json
import subprocess
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("flwr")
from edgeloop.errors import DeviceError, error_to_json
from edgeloop.federated.network.network import Network
from edgeloop.federated.rounds.buffered.options import BufferedOptions
from edgeloop.federated.rounds.journal.options import JournalOptions, Kept
from edgeloop.federated.rounds.options import RoundsOptions
from edgeloop.federated.rounds.records import FAILURE, ROUNDS, ClientRecord, RoundRecord, rounds_bytes, weights_bytes
from edgeloop.federated.rounds.watch import RESTARTS, Watch, ignore


def write_rounds(out, count: int) -> None:
    records = [RoundRecord(n, f"round-{n}.npz", (ClientRecord(0, 1, 0.5, 1.0),)) for n in range(1, count + 1)]
    for record in records:
        (out / record.file).write_bytes(weights_bytes({"w000": np.zeros(1)}))
    (out / ROUNDS).write_bytes(rounds_bytes(records))


@pytest.fixture
def engine(tmp_path):
    """A network of one process, which ends well once its standard input does."""
    (tmp_path / "simulation.log").write_bytes(b"")
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        yield Network(tmp_path, 0, (), (), {"simulation": child}, run_id="1")


def test_an_engine_that_ends_after_the_last_round_while_an_earlier_one_is_told_has_not_failed(tmp_path, engine):
    def last_round_meanwhile(record, weights):
        if record.round == 1:
            write_rounds(tmp_path, 2)
            engine.children["simulation"].communicate()

    write_rounds(tmp_path, 1)
    options = RoundsOptions(shards=(tmp_path / "a.npz",), out=tmp_path, rounds=2)
    assert [record.round for record in Watch(options, engine, last_round_meanwhile).until_the_end()] == [1, 2]


def test_a_simulation_may_take_as_long_as_replies_come(tmp_path, engine):
    """A reply after each look, at 0.1 s; the limit is 0.3 s, and the last round comes after six."""
    engine.simulated, looks = True, []

    class Replies(Watch):
        def _check(self, alive, ended):
            looks.append(1)
            (tmp_path / "journal" / "journal.jsonl").open("ab").write(b"{}")
            write_rounds(tmp_path, len(looks) // 6)
            super()._check(alive, ended)

    (tmp_path / "journal").mkdir()
    options = RoundsOptions(shards=(tmp_path / "a.npz",), out=tmp_path, rounds=1, timeout_s=0.3)
    assert len(Replies(options, engine, ignore).until_the_end()) == 1
    with pytest.raises(DeviceError, match=r"round 2 of 2 had no reply for 0.3 s"):
        Watch(replace(options, rounds=2), engine, ignore).until_the_end()


def test_an_engine_that_ends_before_the_last_round_is_named(tmp_path, engine):
    write_rounds(tmp_path, 1)
    options = RoundsOptions(shards=(tmp_path / "a.npz",), out=tmp_path, rounds=2)
    with pytest.raises(DeviceError, match=r"simulation ended \(exit code 0\)"):
        Watch(options, engine, lambda *_: engine.children["simulation"].communicate()).until_the_end()


class Restarted(Network):
    """Starts a program again that waits to be killed."""

    submissions = 0

    def start(self):
        self.children["superlink"] = subprocess.Popen(["cat"], stdin=subprocess.PIPE)

    def restart(self):
        self.children["superlink"].communicate()
        self.start()

    def submit(self):
        self.submissions += self.run_id is None
        self.run_id = "1"


def killed(network: Network) -> None:
    network.children["superlink"].kill()
    network.children["superlink"].wait()


@pytest.fixture
def restarted(tmp_path):
    (tmp_path / "superlink.log").write_bytes(b"")
    network = Restarted(tmp_path, 0, (), ())
    network.start()
    yield network
    network.children["superlink"].communicate()


def test_killed_processes_are_started_again_and_the_run_goes_on(tmp_path, restarted):
    """Killed in each of five rounds, more often than between two rounds: the server's own failure is a result of it."""
    total = RESTARTS + 2

    def kill(record, weights):
        killed(restarted)
        error = DeviceError("the SuperLink is gone", advice="Run again.")
        (tmp_path / FAILURE).write_text(json.dumps(error_to_json(error)))

    class Next(Watch):
        def _restart(self, why, before):
            super()._restart(why, before)
            assert why == "a signal ended superlink" and not (tmp_path / FAILURE).exists()
            write_rounds(tmp_path, self.done + 1)

    write_rounds(tmp_path, 1)
    options = RoundsOptions(shards=(tmp_path / "a.npz",), out=tmp_path, rounds=total)
    assert len(Next(options, restarted, kill).until_the_end()) == total
    assert restarted.submissions == total


def test_processes_that_are_killed_again_before_a_round_are_named(tmp_path, restarted):
    class Killed(Watch):
        def _restart(self, why, before):
            super()._restart(why, before)
            restarted.submit()
            killed(restarted)

    killed(restarted)
    options = RoundsOptions(shards=(tmp_path / "a.npz",), out=tmp_path, rounds=1)
    with pytest.raises(DeviceError, match=r"round 1 of 1: a signal ended superlink"):
        Killed(options, restarted, ignore).until_the_end()
    assert restarted.submissions == RESTARTS + 1


def test_the_reason_why_flower_takes_no_run_is_told(tmp_path):
    class Refusing(Network):
        def _wait_for_superlink(self):
            self.calls = getattr(self, "calls", 0) + 1

        def flwr(self, *arguments):
            assert (tmp_path / "app" / "pyproject.toml").is_file()
            raise DeviceError("flwr run failed: the disk is full", advice="Make room.")

    network = Refusing(tmp_path, 0, (), ())
    with pytest.raises(DeviceError, match="the disk is full"):
        network.submit()  # as run_rounds does first
    options = RoundsOptions(shards=(tmp_path / "a.npz",), out=tmp_path, rounds=1)
    with pytest.raises(DeviceError, match="the disk is full"):
        Watch(options, network, ignore).until_the_end()
    assert network.calls == 2


class Devices(Restarted):
    """Three devices and a SuperLink. A device that is started again is killed again."""

    def start(self):
        super().start()
        for name in ("device-0", "device-1", "device-2"):
            self.start_process(name)

    def start_process(self, name):
        (self.work / f"{name}.log").write_bytes(b"out of memory\n")
        self.started = [*getattr(self, "started", []), name]
        self.children[name] = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        if name == "device-1":
            self.children[name].kill()
            self.children[name].wait()


@pytest.mark.parametrize(
    ("given", "again"),
    [
        ({"quorum": 0.5}, RESTARTS),
        # its answer might count twice in a round
        ({"buffered": BufferedOptions(size=2)}, 0),
        ({"quorum": 0.5, "journal": JournalOptions(updates=Kept.CONTENTS)}, 0),
    ],
)
def test_a_killed_device_that_a_round_can_do_without_is_started_alone(tmp_path, caplog, given, again):
    network, looks = Devices(tmp_path, 0, (), ()), []
    network.start()

    class Looks(Watch):
        def _tell_joined(self):
            looks.append(1)
            if len(looks) == RESTARTS + 3:
                write_rounds(tmp_path, 1)

    try:
        shards = tuple(tmp_path / f"{n}.npz" for n in range(3))
        options = RoundsOptions(shards=shards, out=tmp_path, rounds=1, **given)
        Looks(options, network, ignore).until_the_end()
    finally:
        for child in network.children.values():
            child.communicate()
    assert network.started == ["device-0", "device-1", "device-2", *["device-1"] * again]
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == again + 1 and all("device-1 ended (signal SIGKILL)" in text for text in texts)
    assert texts[-1].endswith("out of memory. The run goes on without it.")
