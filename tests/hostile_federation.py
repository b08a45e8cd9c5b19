"""A federation of ten devices on MNIST, of which two lie: for a test of what that costs, and for a benchmark of it."""

from pathlib import Path
from typing import Any

import numpy as np
from played_grid import PlayedGrid, reply_of

from edgeloop.federated.device.data.readers import read_samples
from edgeloop.federated.rounds.quorum_options import QuorumOptions
from edgeloop.federated.rounds.records import read_rounds, read_weights
from edgeloop.federated.rounds.strategies import StrategyName, StrategyOptions
from edgeloop.runtime.agent.trainer import Trainer

NODES, HOSTILE, EACH, BATCH, LR, TESTED, ROUNDS = 10, 2, 600, 10, 0.1, 5000, 15
ROBUST = {
    "multi-krum": StrategyOptions(name=StrategyName.MULTI_KRUM, malicious=HOSTILE),
    "trimmed-mean": StrategyOptions(name=StrategyName.TRIMMED_MEAN, trim=0.2),
}


class Federation:
    """The network and the images of all its runs.

    Args:
        mnist: The folder with the images.
    """

    def __init__(self, mnist: Path) -> None:
        import keras

        from edgeloop.convert.training.trainable import TrainableOptions, to_trainable

        keras.utils.set_random_seed(1)
        layers = [keras.layers.Flatten(), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(10)]
        net = keras.Sequential([keras.Input((28, 28), name="x"), *layers])
        self.trainer = Trainer(to_trainable(net, TrainableOptions(batch=BATCH)))
        self.initial = self.trainer.get_weights()
        train = read_samples(str(mnist))
        self.x, self.y = train.columns["x"].astype(np.float32) / 255, train.y

    def accuracy(self, out: Path, strategy: StrategyOptions, lie: str | None = None) -> float:
        """Of the last round's weights on TESTED images, where the first two of ten devices lie so."""
        from edgeloop.federated.rounds.round_loop import LoopOptions, RoundLoop

        options = LoopOptions(
            rounds=ROUNDS,
            devices=NODES,
            learning_rate=LR,
            quorum=QuorumOptions(quorum=0.8, deadline_s=5.0, wait_s=1.0),
            strategy=strategy,
        )
        nodes = {n: self._node(n, (LIES[lie] if lie and n <= HOSTILE else HONEST)()) for n in range(1, NODES + 1)}
        RoundLoop(PlayedGrid(nodes), options, out, self.initial).run()
        assert len(read_rounds(out)) == ROUNDS
        self.trainer.set_weights(read_weights(out / "rounds" / f"round-{ROUNDS}.npz"))
        return float(self.trainer.evaluate({"x": self.x[:TESTED]}, self.y[:TESTED]).accuracy)

    def _node(self, node: int, told: Any) -> Any:
        """Trains as a device does, and tells what it chooses of that."""
        own = slice(TESTED + (node - 1) * EACH, TESTED + node * EACH)

        def answer(message: Any) -> Any:
            base = {name: array.numpy() for name, array in message.content["arrays"].items()}
            self.trainer.set_weights(base)
            seed = (0, message.content["config"]["server-round"], node)
            self.trainer.train({"x": self.x[own]}, self.y[own], lr=LR, seed=seed)
            return told(node, base, self.trainer.get_weights())

        return answer


def moved(base, weights, factor):
    return {name: (base[name] + np.float32(factor) * (weights[name] - base[name])) for name in base}


def replay():
    """The first update again and again."""
    kept = []

    def told(node, base, weights):
        kept.append(weights)
        return reply_of(kept[0], EACH, device=node)

    return told


def lie(change, examples=EACH):
    return lambda: lambda node, base, weights: reply_of(change(base, weights), examples, device=node)


LIES = {
    "not-a-number": lie(lambda base, w: {**w, "w000": np.full_like(w["w000"], np.nan)}),
    "shape": lie(lambda base, w: {**w, "w001": w["w001"][:-1]}),
    "million-times": lie(lambda base, w: moved(base, w, 1e6)),
    "weight-1e12": lie(lambda base, w: w, 10**12),
    "replay": replay,
    "sign-flip": lie(lambda base, w: moved(base, w, -1)),
    "sign-flip-5": lie(lambda base, w: moved(base, w, -5)),
}
HONEST = lie(lambda base, w: w)
