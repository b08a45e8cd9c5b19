"""Compressed updates: how much smaller a device's answer is, and what that costs in accuracy.

Ten devices in this process, each with 600 MNIST images of its own (a tenth of a permutation), train McMahan's 2NN
(199,210 weights; McMahan et al. 2017, section 3) with LiteRT: one epoch of batch 10 a round, learning rate 0.1, all ten
in every round. Loop, guard, negotiation and journal are those of `federate run`, and the devices are those of `federate
join`; the messages do not pass a network. Every codec begins with the same weights and shuffles alike.

The size of an answer is that of Flower's protobuf messages that carry it, with all hashes and the object tree, and
without HTTP's headers. The accuracy is that of the server's weights on 5,000 test images, the mean of the last five
rounds. `mcmahan_cnn` is one answer of a net of 1,663,370 weights, for its size alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

ROUNDS, DEVICES, EXAMPLES, BATCH, RATE, LAST = 50, 10, 600, 10, 0.1, 5
CODECS = ("none", "int8", "top-k", "top-k-int8")
SHARE = 0.01
CNN = ((5, 5, 1, 32), (32,), (5, 5, 32, 64), (64,), (3136, 512), (512,), (512, 10), (10,))


def compression(rounds: int = ROUNDS) -> dict[str, Any]:
    """Size and accuracy of each codec; empty without the data."""
    from edgeloop.leftovers import temporary_folder

    if "EDGELOOP_DATA" not in os.environ:
        print("compression is left out: EDGELOOP_DATA names no folder with data/mnist", file=sys.stderr)
        return {}
    _as_in_a_run()
    with temporary_folder() as name:
        folder = Path(name)
        test = _shards(Path(os.environ["EDGELOOP_DATA"]) / "data" / "mnist", folder)
        model = _two_layers()
        found = {codec: _rounds(codec, model, test, folder, rounds) for codec in CODECS}
    plain, cnn = found["none"], {codec: _cnn_bytes(codec) for codec in CODECS}
    for codec, record in found.items():
        record["upload_ratio"] = plain["upload_bytes"] / record["upload_bytes"]
        record["points_lost"] = 100 * (plain["accuracy"] - record["accuracy"])
        record["mcmahan_cnn_upload_bytes"] = cnn[codec]
        record["mcmahan_cnn_upload_ratio"] = cnn["none"] / cnn[codec]
    setting = {"rounds": rounds, "devices": DEVICES, "examples": EXAMPLES, "share": SHARE, "weights": 199_210}
    return {"what": "answers of devices as each codec, MNIST, McMahan's 2NN", **setting, "codecs": found}


def _as_in_a_run() -> None:
    """Flower's messages are made inside a task of a run."""
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_task_id", "_run_id", "_node_id"):
        setattr(TaskIdentity, name, 1)


def _shards(source: Path, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write the devices' files; return the test images and labels."""
    from edgeloop.idx import read_pair

    images, labels = read_pair(source / "train-images-idx3-ubyte.gz")
    chosen = np.random.default_rng(0).permutation(len(images))[: DEVICES * EXAMPLES].reshape(DEVICES, EXAMPLES)
    for device, rows in enumerate(chosen):
        np.savez(folder / f"{device}.npz", x=_flat(images[rows]), y=labels[rows].astype(np.int32))
    test, answers = read_pair(source / "test-a-images-idx3-ubyte.gz")
    return _flat(test), answers.astype(np.int32)


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) / np.float32(255)


def _two_layers() -> bytes:
    import keras

    from edgeloop.convert.training.trainable import TrainableOptions, to_trainable

    keras.utils.set_random_seed(1)
    hidden = [keras.layers.Dense(200, activation="relu") for _ in range(2)]
    net = keras.Sequential([keras.Input((784,), name="image"), *hidden, keras.layers.Dense(10)])
    return to_trainable(net, TrainableOptions(batch=BATCH))


def _rounds(codec: str, model: bytes, test: tuple[np.ndarray, np.ndarray], folder: Path, rounds: int) -> dict[str, Any]:
    from edgeloop.federated.device.compression.codec import Codec
    from edgeloop.federated.rounds.compression_options import CompressionOptions
    from edgeloop.federated.rounds.records import read_weights
    from edgeloop.federated.rounds.round_loop import LoopOptions, RoundLoop
    from edgeloop.hashes import digest_of
    from edgeloop.runtime.agent.trainer import Trainer

    sizes: list[int] = []
    trainer = Trainer(model)
    chosen = CompressionOptions(upload=Codec(codec), share=SHARE if Codec(codec).sparse else None)
    train = {"sha256": digest_of(model), "model": model, "epochs": 1, "run-name": codec}
    options = LoopOptions(rounds=rounds, devices=DEVICES, learning_rate=RATE, train=train, compression=chosen)
    grid, out = _grid(folder, codec, sizes.append), folder / codec
    RoundLoop(grid, options, out, trainer.get_weights()).run()
    accuracy = []
    for number in range(rounds - LAST + 1, rounds + 1):
        trainer.set_weights(read_weights(out / "rounds" / f"round-{number}.npz"))
        accuracy.append(trainer.evaluate({"image": test[0]}, test[1]).accuracy)
    print(f"{codec}: accuracy {np.mean(accuracy):.4f}, {np.mean(sizes):.0f} bytes an answer", file=sys.stderr)
    return {"accuracy": float(np.mean(accuracy)), "upload_bytes": float(np.mean(sizes))}


def _grid(folder: Path, codec: str, on_size: Callable[[int], None]) -> Any:
    """Flower's Grid whose nodes are devices here; `on_size` hears how large the answers of the first to `train` are."""
    from edgeloop.federated.device.options import DeviceOptions
    from edgeloop.federated.device.participant import Participant
    from edgeloop.federated.rounds.grid_decorator import GridDecorator

    def device(number: int) -> Participant:
        state = folder / "devices" / f"{codec}-{number}"
        return Participant(DeviceOptions(str(folder / f"{number}.npz"), str(state), number), print)

    class InProcess(GridDecorator):
        def __init__(self) -> None:
            self.devices = {number + 1: device(number) for number in range(DEVICES)}
            self.waiting: dict[str, Any] = {}
            self.count = 0

        def get_node_ids(self) -> Iterable[int]:
            return list(self.devices)

        def push_messages(self, messages: Iterable[Any]) -> Iterable[str]:
            ids = []
            for message in messages:
                self.count += 1
                ids.append(str(self.count))
                message.metadata.__dict__["_message_id"] = ids[-1]
                # the devices change what they were sent, and the server sends one record to all of them
                copied = _copy(message)
                reply = self.devices[message.metadata.dst_node_id].answer(copied)
                if message.metadata.message_type == "train" and message.metadata.dst_node_id == 1:
                    on_size(travelling_bytes(reply))
                self.waiting[ids[-1]] = reply
            return ids

        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Any]:
            return [self.waiting.pop(id) for id in message_ids if id in self.waiting]

    return InProcess()


def _copy(message: Any) -> Any:
    from flwr.app import Message, RecordDict

    metadata = message.metadata
    content = RecordDict(dict(message.content))
    copied = Message(content, dst_node_id=metadata.dst_node_id, message_type=metadata.message_type)
    copied.metadata.__dict__["_message_id"] = metadata.message_id
    return copied


def travelling_bytes(reply: Any) -> int:
    """Of all protobuf messages with which a device sends an answer: as `Fleet.reply` does."""
    from flwr.app.message import remove_content_from_message
    from flwr.common.serde import message_to_proto
    from flwr.proto.fleet_pb2 import PushMessagesRequest
    from flwr.proto.message_pb2 import PushObjectRequest
    from flwr.proto.node_pb2 import Node
    from flwr.supercore.inflatable.inflatable_object import (
        get_all_nested_objects,
        get_object_tree,
        no_object_id_recompute,
    )

    node = Node(node_id=1 << 63)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    with no_object_id_recompute():
        tree, head = get_object_tree(reply), message_to_proto(remove_content_from_message(reply))
        first = PushMessagesRequest(
            node=node, messages_list=[head], message_object_trees=[tree], clientapp_runtime_list=[1.0]
        )
        objects = [
            PushObjectRequest(
                node=node, run_id=1 << 63, object_id=id, object_content=one.deflate(), session_id="0" * 36
            )
            for id, one in get_all_nested_objects(reply).items()
        ]
    return first.ByteSize() + sum(part.ByteSize() for part in objects)


def _cnn_bytes(codec: str) -> int:
    """One answer with an update of McMahan's CNN; its numbers are drawn."""
    from flwr.app import Message, MetricRecord, RecordDict

    from edgeloop.federated.device.compression.upload import Training, Upload
    from edgeloop.leftovers import temporary_folder

    rng = np.random.default_rng(0)
    base = {f"w{number:03}": np.zeros(shape, np.float32) for number, shape in enumerate(CNN)}
    trained = {name: rng.normal(0, 1e-3, array.shape).astype(np.float32) for name, array in base.items()}
    config = {"compression": codec, "share": SHARE, "seed": 0, "server-round": 1, "base": "0" * 64, "run-id": "0" * 32}
    metrics = MetricRecord({"num-examples": 600, "train_loss": 0.5, "seconds": 1.5, "device": 0})
    asked = Message(RecordDict(), dst_node_id=1, message_type="train")
    asked.metadata.__dict__["_message_id"] = "1"
    with temporary_folder() as folder:
        sent = Upload(folder, print).records(Training(base, trained, (), config, 0))
    return travelling_bytes(Message(RecordDict({**sent, "metrics": metrics}), reply_to=asked))
