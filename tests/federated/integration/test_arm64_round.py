"""A round of two devices, one on this machine and one on emulated arm64. Functional only.

The emulated machine has tflite-runtime and no Flower: its training goes through edgeloop's runtime agent, its reply
through the guard, the exact mean and the journal as any other. LiteRT 2.3 crashes there when it trains.
"""

import numpy as np
import pytest
from devices import arm64_device
from played_grid import PlayedGrid, reply_of

from edgeloop.federated.rounds.quorum_options import QuorumOptions
from edgeloop.federated.rounds.records import read_rounds, read_weights
from edgeloop.runtime.agent.trainer import Trainer
from edgeloop.runtime.client import agent

pytest.importorskip("flwr")

pytestmark = [pytest.mark.soak, pytest.mark.usefixtures("ssh_keys")]

BATCH, CLASSES, LR = 4, 3, 0.2


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    keras = pytest.importorskip("keras")
    from edgeloop.convert.training.trainable import TrainableOptions, to_trainable

    keras.utils.set_random_seed(1)
    net = keras.Sequential([keras.Input((8,), name="features"), keras.layers.Dense(CLASSES)])
    path = tmp_path_factory.mktemp("model") / "trainable.tflite"
    path.write_bytes(to_trainable(net, TrainableOptions(batch=BATCH)))
    return path


def batches(seed):
    generator = np.random.default_rng(seed)
    for _ in range(3):
        x = generator.normal(size=(BATCH, 8)).astype(np.float32)
        yield {"features": x, "y": np.argmax(x[:, :CLASSES], axis=1).astype(np.int32), "lr": np.float32(LR)}


def test_an_arm64_device_finishes_a_round_beside_an_x86_one(
    model, arm64_place, root, device_keys, tmp_path, monkeypatch
):
    from flwr.supercore.task_identity import TaskIdentity

    from edgeloop.federated.rounds.round_loop import LoopOptions, RoundLoop

    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    here = Trainer(model.read_bytes())
    initial = here.get_weights()
    trained = {}

    def answer(node, call):
        def reply(message):
            call("set_weights", {name: array.numpy() for name, array in message.content["arrays"].items()})
            losses = [float(call("train", batch)["loss"]) for batch in batches(node)]
            trained[node] = {n: np.array(a) for n, a in call("get_weights", {"dummy": np.float32(0)}).items()}
            return reply_of(trained[node], 3 * BATCH, losses[-1], device=node)

        return reply

    script, folder = root / "scripts" / "arm64-device", tmp_path / "device"
    folder.mkdir()
    options = {"cpu": "cortex-a72", "runtimes": "tflite-runtime"}
    with (
        arm64_device(script, folder, device_keys, options) as emulated,
        agent(emulated.device, "tflite-runtime", model.parent) as remote,
    ):
        remote.probe()
        remote.prepare(model.name)
        nodes = {
            1: answer(1, lambda signature, inputs: here._call[signature](**inputs)),
            2: answer(2, lambda signature, inputs: dict(remote.run(inputs, signature).outputs)),
        }
        loop = LoopOptions(rounds=1, devices=2, quorum=QuorumOptions(deadline_s=60.0, wait_s=1.0), train={"epochs": 1})
        RoundLoop(PlayedGrid(nodes), loop, tmp_path / "run", initial).run()
    (record,) = read_rounds(tmp_path / "run")
    assert [client.device for client in record.clients] == [1, 2] and not record.refused
    mean = read_weights(tmp_path / "run" / "rounds" / "round-1.npz")
    for name, array in mean.items():
        # both weigh the same; the exact mean of two float32 is rounded once
        halves = trained[1][name].astype(np.float64) + trained[2][name]
        np.testing.assert_array_equal(array, (halves / 2).astype(np.float32))
    # the same three batches on x86: a float32 step differs by rounding alone, 2^-24 of numbers below 4, times the terms
    here.set_weights(initial)
    for batch in batches(2):
        here._call["train"](**batch)
    for name, array in here.get_weights().items():
        np.testing.assert_allclose(trained[2][name], array, atol=3 * 16 * 4 * 2**-24)
