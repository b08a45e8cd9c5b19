"""FedProx and SCAFFOLD: steps by hand on a model of one weight, whole runs against the papers' algorithms in NumPy."""

import json

import numpy as np
import pytest
from played_grid import PlayedGrid

from edgeloop.errors import DataError, OptionsError
from edgeloop.federated.device.control_variate import ControlVariate
from edgeloop.federated.device.corrections import correction_of
from edgeloop.federated.rounds.quorum_options import QuorumOptions
from edgeloop.federated.rounds.records import read_weights
from edgeloop.federated.rounds.strategies import StrategyName, StrategyOptions
from edgeloop.federated.rounds.trainable_file import read_trainable
from edgeloop.hashes import digest_of

pytest.importorskip("flwr")
from flwr.app import RecordDict
from flwr.supercore.task_identity import TaskIdentity

from edgeloop.federated.device.options import DeviceOptions
from edgeloop.federated.device.participant import Participant
from edgeloop.federated.rounds.scaffold import StepCount

LR, EPOCHS, BATCH = 0.1, 2, 2
# (x, y) of each device; the loss of a batch is the mean of (w x - y)^2
DATA = (([1.0, 1.0], [0.0, 0.0]), ([1.0, 2.0, 1.0, 2.0, 1.0, 2.0], [2.0, 4.0, 2.0, 4.0, 2.0, 4.0]))
# All samples of a device are alike, so each of its steps has the gradient of its loss: 2 w, and 4 (2 w - 4)
ALIKE = (([1.0, 1.0], [0.0, 0.0]), ([2.0] * 6, [4.0] * 6))


@pytest.fixture(scope="module")
def model() -> bytes:
    """w x, from w = 1."""
    return trainable("sgd")


def trainable(optimizer: str) -> bytes:
    keras = pytest.importorskip("keras")
    from edgeloop.convert.training.optimizers import Optimizer
    from edgeloop.convert.training.trainable import TrainableOptions, to_trainable

    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    net = keras.Sequential([keras.Input((1,), name="x"), layer])
    return to_trainable(net, TrainableOptions(batch=BATCH, optimizer=Optimizer(optimizer)))


@pytest.fixture
def fleet(tmp_path, monkeypatch, model):
    """A grid of real devices, in one process."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)

    def node(device: int):
        options = DeviceOptions(
            str(tmp_path / f"{device}.npz"), str(tmp_path / f"state-{device}"), device, tell_details=True
        )
        participant = Participant(options, print)

        def answer(message):
            message.content = RecordDict(dict(message.content))  # the devices of a round are sent one object
            return participant.answer(message).content

        return answer

    def started(data=DATA):
        for device, (x, y) in enumerate(data):
            np.savez(tmp_path / f"{device}.npz", x=np.array(x, "f4")[:, None], y=np.array(y, "f4"))
        return PlayedGrid({100 + device: node(device) for device in range(len(data))})

    return started


def loop(grid, out, model, rounds, **more):
    from edgeloop.federated.rounds.round_loop import LoopOptions, RoundLoop

    quorum = QuorumOptions(**{"deadline_s": 0.2, "wait_s": 0.1, **more.pop("quorum", {})})
    train = {"model": model, "sha256": digest_of(model), "epochs": EPOCHS, "run-name": "r"}
    options = LoopOptions(
        rounds=rounds, devices=len(DATA), learning_rate=LR, train=train, batch=BATCH, quorum=quorum, **more
    )
    return RoundLoop(grid, options, out, {"w000": np.ones((1, 1), np.float32)})


def weight(out, number) -> float:
    return float(read_weights(out / "rounds" / f"round-{number}.npz")["w000"][0, 0])


def batches(device: int, number: int):
    """The rows of each step, as the device shuffles them: by (seed, round, label)."""
    generator, count = np.random.default_rng((0, number, device)), len(DATA[device][1])
    for _ in range(EPOCHS):
        order = generator.permutation(count)
        yield from order.reshape(-1, BATCH)


def gradient(w: float, device: int, rows) -> float:
    x, y = (np.array(column)[rows] for column in DATA[device])
    return float(np.mean(2 * x * (w * x - y)))


def test_a_proximal_step_by_hand(model, tmp_path):
    """f(w) = w^2 from w = 1, rate 0.1, mu 0.5: 1 - 0.2 - 0 = 0.8, then 0.8 - 0.16 + 0.05 * 0.2 = 0.65."""
    from edgeloop.runtime.agent.trainer import Trainer

    trainer = Trainer(model)
    base = trainer.get_weights()
    own = ControlVariate(str(tmp_path / "c.npz"))
    correction = correction_of({"proximal-mu": 0.5, "lr": LR}, {}, base, ["w000"], 0, own)
    x, y = np.ones((2, 1), np.float32), np.zeros(2, np.float32)
    trainer.train({"x": x}, y, epochs=2, lr=LR, correct=correction.step)
    assert trainer.get_weights()["w000"][0, 0] == pytest.approx(0.65, abs=4 * 2**-24)


def test_fed_prox_is_the_algorithm_of_its_paper(fleet, model, tmp_path):
    mu = 2.0
    strategy = StrategyOptions(name=StrategyName.FED_PROX, proximal_mu=mu)
    loop(fleet(), tmp_path / "out", model, 3, strategy=strategy).run()
    server, examples = 1.0, [len(y) for _, y in DATA]
    for number in range(1, 4):
        found = []
        for device in range(len(DATA)):
            w = server
            for rows in batches(device, number):
                w -= LR * (gradient(w, device, rows) + mu * (w - server))
            found.append(w)
        server = float(np.average(found, weights=examples))
        # six steps of three roundings of numbers below 4 each, in three rounds
        assert weight(tmp_path / "out", number) == pytest.approx(server, abs=3 * 6 * 3 * 2**-22)


def test_scaffold_is_the_algorithm_of_its_paper(fleet, model, tmp_path):
    """Karimireddy et al. 2020, algorithm 1 with option II, in float64; two devices of unlike data and size."""
    rounds = 9
    scaffold = loop(fleet(), tmp_path / "out", model, rounds, strategy=StrategyOptions(name=StrategyName.SCAFFOLD))
    scaffold.run()
    server, control, own = 1.0, 0.0, [0.0, 0.0]
    for number in range(1, rounds + 1):
        ends, moves = [], []
        for device in range(len(DATA)):
            w, steps = server, 0
            for rows in batches(device, number):
                w -= LR * (gradient(w, device, rows) - own[device] + control)
                steps += 1
            new = own[device] - control + (server - w) / (steps * LR)
            moves.append(new - own[device])
            own[device] = new
            ends.append(w)
        server, control = float(np.mean(ends)), control + sum(moves) / len(DATA)
        # an error of a step is damped by the next: it stays at some roundings of numbers below 16
        assert weight(tmp_path / "out", number) == pytest.approx(server, abs=20 * 2**-20), number
    assert scaffold.scaffold.control["w000"][0, 0] == pytest.approx(np.mean(own), abs=20 * 2**-20)


def test_scaffold_ends_at_the_optimum_that_a_mean_of_drifting_devices_misses(fleet, model, tmp_path):
    """2 w + 4 (2 w - 4) = 0 at w = 1.6. The mean: 0.64 w and 2 + 0.2^6 (w - 2) weigh 1 and 3, so it ends at 1.786."""
    strategy = StrategyOptions(name=StrategyName.SCAFFOLD)
    loop(fleet(ALIKE), tmp_path / "scaffold", model, 7, strategy=strategy).run()
    loop(fleet(ALIKE), tmp_path / "mean", model, 5).run()
    assert weight(tmp_path / "scaffold", 7) == pytest.approx(1.6, abs=0.01)
    assert weight(tmp_path / "mean", 5) == pytest.approx(1.5 / 0.84, abs=0.01)


def test_a_scaffold_run_killed_after_any_round_goes_on_to_the_same_bits(fleet, model, tmp_path):
    strategy = StrategyOptions(name=StrategyName.SCAFFOLD)
    loop(fleet(), tmp_path / "unbroken", model, 4, strategy=strategy).run()
    for file in tmp_path.glob("state-*/control-variate.npz"):
        file.unlink()
    for rounds in (1, 2, 4):  # a new server and new devices each time, in the folders of the old ones
        loop(fleet(), tmp_path / "broken", model, rounds, strategy=strategy).run()
    assert weight(tmp_path / "broken", 4) == weight(tmp_path / "unbroken", 4)


def test_an_update_that_did_not_count_changes_no_control_variate(fleet, model, tmp_path):
    """Device 1 trains in round 2, and its reply is lost: it goes on from round 1, as if it had not been asked."""
    strategy, quorum = StrategyOptions(name=StrategyName.SCAFFOLD), {"quorum": 0.5}
    grid = fleet()
    whole = grid.nodes[101]

    def losing(message):
        number, answer = message.content["config"]["server-round"], whole(message)
        return None if number == 2 else answer

    grid.nodes[101] = losing
    loop(grid, tmp_path / "lost", model, 3, strategy=strategy, quorum=quorum).run()
    for file in tmp_path.glob("state-*/control-variate.npz"):
        file.unlink()
    grid = fleet()
    asked = grid.nodes[101]
    grid.nodes[101] = lambda m: None if m.content["config"]["server-round"] == 2 else asked(m)
    loop(grid, tmp_path / "absent", model, 3, strategy=strategy, quorum=quorum).run()
    assert weight(tmp_path / "lost", 3) == weight(tmp_path / "absent", 3)


def test_a_device_without_its_control_variate_says_so(fleet, model, tmp_path):
    strategy = StrategyOptions(name=StrategyName.SCAFFOLD)
    loop(fleet(), tmp_path / "out", model, 1, strategy=strategy).run()
    (tmp_path / "state-1" / "control-variate.npz").write_bytes(b"cut")
    with pytest.raises(DataError, match=r"state-1/control-variate\.npz cannot be used"):
        loop(fleet(), tmp_path / "out", model, 2, strategy=strategy).run()
    (tmp_path / "state-1" / "control-variate.npz").unlink()
    quorum = {"quorum": 0.5}
    loop(fleet(), tmp_path / "out", model, 2, strategy=strategy, quorum=quorum).run()
    refused = json.loads((tmp_path / "out" / "rounds.json").read_text())["rounds"][1]["refused"]
    assert "it has no control variate of round 1 of r" in refused[0]["detail"]


def test_a_file_says_its_batch_and_whether_its_steps_are_plain(model):
    assert (read_trainable(model).batch, read_trainable(model).plain) == (BATCH, True)
    assert not read_trainable(trainable("momentum")).plain and not read_trainable(trainable("adam")).plain


def test_options_that_make_no_sense_are_refused():
    with pytest.raises(OptionsError, match="the number of samples of a step is 0"):
        StepCount(epochs=1, batch=0)
    with pytest.raises(OptionsError, match="fed-prox lacks proximal-mu"):
        StrategyOptions(name=StrategyName.FED_PROX)
    with pytest.raises(OptionsError, match="proximal-mu is not a key of scaffold"):
        StrategyOptions(name=StrategyName.SCAFFOLD, proximal_mu=0.1)
    with pytest.raises(OptionsError, match=r"learning-rate 2 times proximal-mu 0.6 is above 1"):
        StrategyOptions(name=StrategyName.FED_PROX, proximal_mu=0.6).check_rate(2.0)
