"""What a round leaves behind.

`rounds.json` is {"format": "edgeloop-rounds/1", "state", "rounds": [...]}; each round names its `rounds/round-N.npz`
(w000, w001, ...). `state` is `running`, `finished`, or `privacy-budget-spent` where another round would pass it; what
ended a run too early is the exit of its command.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.federated.rounds.statistics.round_statistics import RoundStatistics, statistics_from_json

FORMAT = "edgeloop-rounds/1"
ROUNDS = "rounds.json"
DEVICE_MODELS = "device-models"
RUNNING, FINISHED, BUDGET_SPENT = "running", "finished", "privacy-budget-spent"
INITIAL, JOB, FAILURE, ALIVE = "initial.npz", "job.json", "failure.json", "serverapp.lock"  # in a work folder


@dataclass(frozen=True)
class ClientRecord:
    """One device in one round.

    Attributes:
        device: Its position in the list of shards, where the devices are simulated.
        train_loss: The mean of its last epoch.
        norm: The L2 norm of what it added to the weights.
        node: Flower's id of the node, as text: it has 64 bits, and JSON readers keep 53.
        codec: How its update travelled: a value of `compression.codec.Codec`.
        upload_bytes: Of its weights or its compressed update, without the names and hashes around.
        staleness: How many versions of the weights were made while it trained; 0 in synchronous rounds.
    """

    device: int
    examples: int
    train_loss: float
    seconds: float
    norm: float = 0.0
    node: str = ""
    codec: str = "none"
    upload_bytes: int = 0
    staleness: int = 0


@dataclass(frozen=True)
class PrivacyRecord:
    """What a run has spent when a round was committed.

    Attributes:
        epsilon, delta: Of all its releases together.
        releases: How many: a round that was begun and not committed may be one.
        clipping_norm: Of this round.
        next_clipping_norm: Of the next one.
        noise_stddev: Standard deviation of the noise on each weight: of the mean, or of each update in local mode.
    """

    epsilon: float
    delta: float
    releases: int
    clipping_norm: float
    next_clipping_norm: float
    noise_stddev: float


@dataclass(frozen=True)
class RefusedReply:
    """A reply that did not count. `reason` is a value of `guard.Reason`, `detail` one sentence."""

    node: str
    reason: str
    detail: str


@dataclass(frozen=True)
class RoundRecord:
    """One finished round, counted from 1.

    Attributes:
        file: Its weights, beside rounds.json.
        clients: Who was counted.
        refused: Replies that did not count, in all attempts.
        selected: How many devices were asked, in the attempt that counted; of a buffered round, while it was open.
        attempt: Which attempt counted, from 1; those of a server that was killed are numbered too.
        privacy: What was spent; None where updates are not private.
        statistics: What the devices told of their data; None where they told nothing.
    """

    round: int
    file: str
    clients: tuple[ClientRecord, ...]
    refused: tuple[RefusedReply, ...] = ()
    selected: int = 0
    attempt: int = 1
    privacy: PrivacyRecord | None = None
    statistics: RoundStatistics | None = None

    @property
    def examples(self) -> int:
        return sum(client.examples for client in self.clients)

    @property
    def train_loss(self) -> float:
        """Mean over the devices, weighted by their examples as FedAvg weighs the weights."""
        return sum(client.train_loss * client.examples for client in self.clients) / self.examples

    @property
    def reasons(self) -> str:
        """`2 norm, 1 shape`: how many replies were refused for what."""
        return ", ".join(f"{n} {reason}" for reason, n in sorted(Counter(r.reason for r in self.refused).items()))

    def to_json(self) -> dict[str, Any]:
        counts = {"replies": len(self.clients), "examples": self.examples, "train_loss": self.train_loss}
        asked = {"selected": self.selected, "attempt": self.attempt}
        refused = {"refused": [asdict(reply) for reply in self.refused]}
        clients = {"clients": [asdict(client) for client in self.clients]}
        privacy = {"privacy": asdict(self.privacy)} if self.privacy else {}
        told = {"statistics": self.statistics.to_json()} if self.statistics else {}
        return {"round": self.round, "file": self.file, **counts, **asked, **refused, **clients, **privacy, **told}


def round_from_json(document: Mapping[str, Any]) -> RoundRecord:
    """What `RoundRecord.to_json` wrote."""
    return RoundRecord(
        document["round"],
        document["file"],
        tuple(ClientRecord(**client) for client in document["clients"]),
        tuple(RefusedReply(**reply) for reply in document.get("refused", ())),
        document.get("selected", 0),
        document.get("attempt", 1),
        PrivacyRecord(**document["privacy"]) if "privacy" in document else None,
        statistics_from_json(document["statistics"]) if "statistics" in document else None,
    )


def rounds_bytes(rounds: Sequence[RoundRecord], state: str = RUNNING) -> bytes:
    """The content of rounds.json."""
    document = {"format": FORMAT, "state": state, "rounds": [r.to_json() for r in rounds]}
    return json.dumps(document, indent=1).encode() + b"\n"


def read_rounds(folder: Path) -> tuple[RoundRecord, ...]:
    """The rounds in `folder`, none when it has no rounds.json, which is never half there: it is replaced whole."""
    try:
        document = json.loads((folder / ROUNDS).read_bytes())
    except FileNotFoundError:
        return ()
    return tuple(map(round_from_json, document["rounds"]))


def is_due(number: int, every: int, rounds: int) -> bool:
    """Whether round `number` of `rounds` is one of every so many, or the last."""
    return number % every == 0 or number == rounds


def models_folder(out: Path, number: int, attempt: int) -> Path:
    """Where models of single devices lie until they have taught the model of that round."""
    return out / DEVICE_MODELS / f"round-{number}-attempt-{attempt}"


def read_state(folder: Path) -> str:
    """RUNNING, FINISHED or BUDGET_SPENT."""
    try:
        return str(json.loads((folder / ROUNDS).read_bytes())["state"])
    except FileNotFoundError:
        return RUNNING


def weights_bytes(weights: Mapping[str, np.ndarray]) -> bytes:
    """The content of a round-N.npz."""
    return npz_bytes({name: np.asarray(array, np.float32) for name, array in weights.items()})


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays as an .npz, which is the same bytes for the same arrays."""
    packed = io.BytesIO()
    np.savez(packed, **dict[str, Any](arrays))
    return packed.getvalue()


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a round-N.npz by name."""
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
