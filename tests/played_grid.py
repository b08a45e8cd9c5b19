"""Flower's Grid, played by a test: each node is a function from a message to its reply."""

import random
from collections.abc import Callable

import numpy as np

SHAPES = {"w000": (4, 3), "w001": (3,)}


def zeros() -> dict[str, np.ndarray]:
    return {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}


def reply_of(arrays, examples=10, loss=0.5, device=0, **extra):
    from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

    record = ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})
    metrics = {"num-examples": examples, "train_loss": loss, "seconds": 0.1, "device": device, **extra}
    return RecordDict({"arrays": record, "metrics": MetricRecord(metrics)})


def honest(node: int, examples: int = 10, step: float = 0.1) -> Callable:
    """A device whose weights move by the same seeded noise in the same round, whoever asks."""

    def answer(message):
        number = message.content["config"]["server-round"]
        noise = np.random.default_rng((node, number))
        base = {name: array.numpy() for name, array in message.content["arrays"].items()}
        moved = {k: (a + step * noise.normal(size=a.shape)).astype(np.float32) for k, a in base.items()}
        return reply_of(moved, examples, device=node)

    return answer


class PlayedGrid:
    """`nodes`: {id: function from a message to a RecordDict, an Error, a list of these, or None for silence}.

    Replies wait until they are pulled, in an order that `seed` shuffles. `pushed` counts messages by node.
    """

    def __init__(self, nodes: dict[int, Callable], seed: int = 0) -> None:
        self.nodes, self.random, self.waiting, self.pushed, self.number = nodes, random.Random(seed), [], {}, 0

    def get_node_ids(self):
        return list(self.nodes)

    def push_messages(self, messages):
        from flwr.app import Message

        ids = []
        for message in messages:
            node = message.metadata.dst_node_id
            self.number += 1
            message.metadata.__dict__["_message_id"] = str(self.number)
            self.pushed[node] = self.pushed.get(node, 0) + 1
            ids.append(str(self.number))
            found = self.nodes[node](message)
            for content in found if isinstance(found, list) else [found]:
                if content is not None:
                    self.waiting.append((ids[-1], Message(content, reply_to=message)))
        self.random.shuffle(self.waiting)
        return ids

    def pull_messages(self, message_ids):
        asked = set(message_ids)
        found = [reply for id, reply in self.waiting if id in asked]
        self.waiting = [(id, reply) for id, reply in self.waiting if id not in asked]
        return found


class Steps:
    """So many calls go through, then the process "dies"."""

    def __init__(self, left: int) -> None:
        self.left = left

    def dying(self, real: Callable) -> Callable:
        def call(*arguments, **more):
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            return real(*arguments, **more)

        return call
