"""What a round leaves behind, and the check every device's reply must pass before it counts.

`rounds.json` is {"format": "edgeloop-rounds/1", "rounds": [...]}; each round names its `round-N.npz` (w000, w001, ...).
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.errors import DeviceError
from edgeloop.federated.device.metrics import DEVICE, EXAMPLES, LOSS, SECONDS

FORMAT = "edgeloop-rounds/1"
ROUNDS = "rounds.json"
INITIAL, JOB, FAILURE, ALIVE = "initial.npz", "job.json", "failure.json", "serverapp.lock"  # in a work folder


@dataclass(frozen=True)
class ClientRecord:
    """One device in one round. `device` is its position in the list of shards, `train_loss` its last epoch's mean."""

    device: int
    examples: int
    train_loss: float
    seconds: float


@dataclass(frozen=True)
class RoundRecord:
    """One finished round, counted from 1. `file` lies beside rounds.json."""

    round: int
    file: str
    clients: tuple[ClientRecord, ...]

    @property
    def examples(self) -> int:
        return sum(client.examples for client in self.clients)

    @property
    def train_loss(self) -> float:
        """Mean over the devices, weighted by their examples as FedAvg weighs the weights."""
        return sum(client.train_loss * client.examples for client in self.clients) / self.examples

    def to_json(self) -> dict[str, object]:
        counts = {"replies": len(self.clients), "examples": self.examples, "train_loss": self.train_loss}
        return {"round": self.round, "file": self.file, **counts, "clients": [asdict(c) for c in self.clients]}


def rounds_bytes(rounds: Sequence[RoundRecord]) -> bytes:
    """The content of rounds.json."""
    return json.dumps({"format": FORMAT, "rounds": [r.to_json() for r in rounds]}, indent=1).encode() + b"\n"


def read_rounds(folder: Path) -> tuple[RoundRecord, ...]:
    """The rounds in `folder`, none when it has no rounds.json, which is never half there: it is replaced whole."""
    try:
        document = json.loads((folder / ROUNDS).read_bytes())
    except FileNotFoundError:
        return ()
    return tuple(
        RoundRecord(r["round"], r["file"], tuple(ClientRecord(**c) for c in r["clients"])) for r in document["rounds"]
    )


def weights_bytes(weights: Mapping[str, np.ndarray]) -> bytes:
    """The content of a round-N.npz."""
    packed = io.BytesIO()
    arrays: dict[str, Any] = {name: np.asarray(array, np.float32) for name, array in weights.items()}
    np.savez(packed, **arrays)
    return packed.getvalue()


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a round-N.npz by name."""
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def check_reply(
    arrays: Mapping[str, np.ndarray],
    metrics: Mapping[str, float | int],
    shapes: Mapping[str, tuple[int, ...]],
    devices: int,
) -> ClientRecord:
    """Refuse a reply that would spoil the average. Flower's FedAvg itself takes NaN in and broadcasts scalars.

    Raises:
        DeviceError: A metric missing or out of range; an array missing, unknown, misshapen, not float32 or not finite.
    """
    missing = sorted({EXAMPLES, LOSS, SECONDS, DEVICE} - set(metrics))
    if missing:
        raise DeviceError(
            f"a device's reply has no metric {missing[0]!r}", advice="Run the same edgeloop on every device."
        )
    device, examples = metrics[DEVICE], metrics[EXAMPLES]
    if not isinstance(device, int) or not 0 <= device < devices:
        raise DeviceError(
            f"a reply comes from device {device!r}, expected 0 to {devices - 1}",
            advice="Run the same edgeloop on every device.",
        )
    if not isinstance(examples, int) or examples < 1:
        raise DeviceError(
            f"device {device} reports {examples!r} examples, expected a whole number above 0", advice="Check its shard."
        )
    if not math.isfinite(metrics[LOSS]):
        raise DeviceError(f"device {device} reports the loss {metrics[LOSS]}", advice="Lower the learning rate.")
    if set(arrays) != set(shapes):
        odd = sorted(set(arrays) ^ set(shapes))[0]
        how = "has an unknown" if odd in arrays else "lacks the"
        raise DeviceError(
            f"the reply of device {device} {how} weight {odd!r}", advice="Run the same model on every device."
        )
    for name, array in arrays.items():
        if array.shape != shapes[name] or array.dtype != np.float32:
            raise DeviceError(
                f"device {device} sent {name} as {array.dtype} {array.shape}, expected float32 {shapes[name]}",
                advice="Run the same model on every device.",
            )
        if not np.isfinite(array).all():
            raise DeviceError(f"device {device} sent NaN or infinity in {name}", advice="Lower the learning rate.")
    return ClientRecord(device, examples, float(metrics[LOSS]), float(metrics[SECONDS]))
