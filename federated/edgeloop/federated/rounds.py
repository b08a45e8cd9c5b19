"""Rounds of FedAvg over devices on this machine: a trainable model, weights and shards in, weights per round out."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from edgeloop.atomic import write_file
from edgeloop.errors import DataError, DeviceError, ModelError, OptionsError
from edgeloop.federated.network import Network, network
from edgeloop.federated.records import (
    ALIVE,
    FAILURE,
    INITIAL,
    JOB,
    ROUNDS,
    RoundRecord,
    read_rounds,
    read_weights,
    rounds_bytes,
    weights_bytes,
)
from edgeloop.runtime.device import Device

LOOK_S = 0.1  # between two looks at the folder and the processes
QUIET_S = 10.0  # without a ServerApp, before Flower is asked what became of the run
OnRound: TypeAlias = Callable[[RoundRecord, Mapping[str, np.ndarray]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundsOptions:
    """What to train, where, for how long.

    Attributes:
        trainable: The .tflite with training signatures (docs/trainable.md).
        initial: Weights before round 1 by name (w000, w001, ...), float32.
        shards: One .npz per device: the inputs by name (or `x`) and `y`. A device reads its own only.
        device: The environment the devices run in; it needs no TensorFlow.
        out: Folder for round-N.npz and rounds.json. Those of an earlier run are removed.
        epochs: Passes over a shard per round.
        lr: Learning rate of plain SGD in round 1.
        lr_decay: Factor on it after every round. Devices that hold different labels pull apart by as much as they
            step; smaller last steps let their average settle.
        seed: With round and device it fixes every shuffle, so equal options give equal weights.
        round_timeout_s: From sending a round's weights to the last reply.
        timeout_s: The whole run, start included.
    """

    trainable: Path
    initial: Mapping[str, np.ndarray]
    shards: tuple[Path, ...]
    device: Device
    out: Path
    rounds: int = 3
    epochs: int = 1
    lr: float = 0.05
    lr_decay: float = 1.0
    seed: int = 0
    round_timeout_s: float = 120.0
    timeout_s: float = 900.0

    def __post_init__(self) -> None:
        counts = {"shards": len(self.shards), "rounds": self.rounds, "epochs": self.epochs}
        for name, count in {**counts, "initial weights": len(self.initial)}.items():
            if count < 1:
                raise OptionsError(f"cannot federate with {count} {name}. Expected at least 1.")
        positive = {
            "lr": self.lr,
            "lr_decay": self.lr_decay,
            "round_timeout_s": self.round_timeout_s,
            "timeout_s": self.timeout_s,
        }
        for name, value in positive.items():
            if not (math.isfinite(value) and value > 0):
                raise OptionsError(f"{name} is {value}. Expected a number above 0.")
        if self.seed < 0:
            raise OptionsError(f"seed is {self.seed}. Expected 0 or more.")
        for path in self.shards:
            if not path.is_file():
                raise DataError(f"no shard at {path}. Expected an .npz of the inputs and y.")
        if not self.trainable.is_file():
            raise ModelError(f"no model at {self.trainable}. Make one: edgeloop convert --trainable.")


def ignore(record: RoundRecord, weights: Mapping[str, np.ndarray]) -> None:
    """The listener of a caller who waits for the end."""


def run_rounds(
    options: RoundsOptions, on_round: OnRound = ignore, running: Network | None = None
) -> tuple[RoundRecord, ...]:
    """Train, calling `on_round` with each round's record and averaged weights as soon as they are there.

    The devices go on with the next round while `on_round` works. `running`: a network over the same shards, started
    (and perhaps submitted) earlier to hide its start. Without one it is started here, and every process of it has
    ended when this returns or raises.

    Raises:
        DeviceError: A device, the server or the time failed; names the round and the reason.
        MissingExtra: Flower is not installed here or in the device environment.
        WriteError: `out` cannot be written.
    """
    if running is not None and (running.shards, running.device) != (options.shards, options.device):
        raise OptionsError("the running network has other shards or another device than these options.")
    deadline = time.monotonic() + options.timeout_s
    write_file(options.out / ROUNDS, rounds_bytes([]))  # a folder that refuses is found before anything starts
    for old in options.out.glob("round-*.npz"):
        old.unlink()
    with contextlib.nullcontext(running) if running else network(options.device, options.shards) as flower:
        write_file(flower.work / INITIAL, weights_bytes(options.initial))
        write_file(flower.work / JOB, _job(options))
        flower.submit()
        return _watch(options, flower, on_round, deadline)


def _job(options: RoundsOptions) -> bytes:
    """What the ServerApp reads; it waits for this file."""
    job = {
        "out": str(options.out.absolute()),
        "trainable": str(options.trainable.absolute()),
        "devices": len(options.shards),
        "rounds": options.rounds,
        "epochs": options.epochs,
        "lr": options.lr,
        "lr_decay": options.lr_decay,
        "seed": options.seed,
        "round_timeout_s": options.round_timeout_s,
    }
    return json.dumps(job).encode()


def _watch(options: RoundsOptions, flower: Network, on_round: OnRound, deadline: float) -> tuple[RoundRecord, ...]:
    done, asked = 0, time.monotonic()
    while True:
        alive = _server_alive(flower.work)  # before the rounds are read: what it wrote before its end counts
        records = read_rounds(options.out)
        for record in records[done:]:
            on_round(record, read_weights(options.out / record.file))
        done = len(records)
        if done == options.rounds:
            return records
        where = f"round {done + 1} of {options.rounds}"
        if (flower.work / FAILURE).is_file():
            raise DeviceError(f"{where}: {json.loads((flower.work / FAILURE).read_bytes())['message']}")
        flower.check()
        if alive is False:
            raise DeviceError(f"{where}: the ServerApp ended; {flower.last_words('serverapp')}")
        if alive is None and time.monotonic() - asked > QUIET_S:
            status, asked = flower.status(), time.monotonic()
            if status.startswith("finished"):
                raise DeviceError(f"{where}: Flower ended the run ({status}); {flower.last_words('serverapp')}")
        if time.monotonic() > deadline:
            raise DeviceError(f"{where} was not finished after {options.timeout_s:g} s. Allow more, or train less.")
        time.sleep(LOOK_S)


def _server_alive(work: Path) -> bool | None:
    """None before the ServerApp has started. It holds a lock while it lives; a zombie's pid would still look alive."""
    path = work / ALIVE
    if not path.is_file() or not path.read_bytes():
        return None
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
