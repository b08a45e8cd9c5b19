"""Rounds of federated averaging over devices on this machine: a bundle and shards in, weights per round out."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from edgeloop.atomic import write_file
from edgeloop.bundle import TRAINABLE, read_bundle
from edgeloop.errors import DataError, DeviceError, ModelError, OptionsError, error_from_json
from edgeloop.federated.network.network import AGAIN, Network, network
from edgeloop.federated.rounds.records import (
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
from edgeloop.processes.file_lock import exclusive
from edgeloop.quantities import above_zero
from edgeloop.runtime.device import Device, device_environment
from edgeloop.runtime.initial_weights import initial_weights

LOOK_S = 0.1  # between two looks at the folder and the processes
QUIET_S = 10.0  # without a ServerApp, before Flower is asked what became of the run
OnRound: TypeAlias = Callable[[RoundRecord, Mapping[str, np.ndarray]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundsOptions:
    """Where to train, on which data, for how long.

    Attributes:
        shards: One .npz per device: the inputs by name (or `x`) and `y`. A device reads its own only.
        out: Folder for round-N.npz and rounds.json. Those of an earlier run are removed.
        devices: The environments of this machine that the devices run in, by turns; they need no TensorFlow. Empty:
            the device environment.
        initial: Weights before round 1 by name (w000, w001, ...), float32. None: those in the bundle.
        epochs: Passes over a shard per round.
        lr: Learning rate of plain SGD in round 1.
        lr_decay: The learning rate is multiplied by this after each round. Devices that hold different labels pull
            apart by as much as they step; smaller last steps let their average settle.
        seed: With round and device it fixes every shuffle, so equal options give equal weights.
        round_timeout_s: From sending a round's weights to the last reply.
        timeout_s: The whole run, start included.
    """

    shards: tuple[Path, ...]
    out: Path
    devices: tuple[Device, ...] = ()
    initial: Mapping[str, np.ndarray] | None = None
    rounds: int = 3
    epochs: int = 1
    lr: float = 0.05
    lr_decay: float = 1.0
    seed: int = 0
    round_timeout_s: float = 120.0
    timeout_s: float = 900.0

    def __post_init__(self) -> None:
        counts = {"the number of shards": len(self.shards), "--rounds": self.rounds, "--epochs": self.epochs}
        if self.initial is not None:
            counts["the number of initial weights"] = len(self.initial)
        for name, count in counts.items():
            if count < 1:
                raise OptionsError(f"{name} is {count}", advice="It must be 1 or more.")
        above_zero(self.lr, "--lr")
        above_zero(self.lr_decay, "--lr-decay")
        above_zero(self.round_timeout_s, "round_timeout_s")
        above_zero(self.timeout_s, "timeout_s")
        if self.seed < 0:
            raise OptionsError(f"--seed is {self.seed}", advice="It must be 0 or more.")
        for device in self.devices:
            if device.ssh is not None:
                raise OptionsError(
                    f"{device.name} is another machine, and devices are simulated on this one",
                    advice="Pass local:PYTHON.",
                )
        for path in self.shards:
            if not path.is_file():
                raise DataError(
                    f"the shard {path} does not exist", advice="Expected an .npz file with the inputs and y."
                )


def ignore(record: RoundRecord, weights: Mapping[str, np.ndarray]) -> None:
    """The listener of a caller who waits for the end."""


def run_rounds(
    bundle: str | Path, options: RoundsOptions, on_round: OnRound = ignore, running: Network | None = None
) -> tuple[RoundRecord, ...]:
    """Train the trainable variant of a bundle across devices by federated averaging; their data stays where it is.

    Args:
        bundle: A bundle folder with a trainable variant (`edgeloop convert --trainable`).
        on_round: Called with each round's record and its averaged weights {name: float32 array} as soon as they are
            there. The devices work on the next round meanwhile.
        running: A network over the same shards, started (and perhaps submitted) earlier to hide its start. Without
            one it is started here, and every process of it has ended when this returns or raises.

    Returns:
        One record a round: examples, mean training loss, and per device its loss and seconds. The weights lie in
        `options.out`.

    Raises:
        ModelError, IntegrityError: The bundle is none, was changed, or has no trainable variant.
        OptionsError: `running` was started for other shards or other devices.
        DeviceError: A device, the server or the time failed; names the round and the reason.
        EdgeloopError: The training failed on a device, e.g. DataError for its shard; of the class that it had there.
        MissingExtra: Flower is not installed here or in the device environment, or there is no such environment.
        WriteError: `out` cannot be written.

    Example:
        >>> records = run_rounds("m/", RoundsOptions(shards=(Path("a.npz"), Path("b.npz")), out=Path("rounds")))
        >>> [record.train_loss for record in records]
    """
    options = replace(options, devices=options.devices or (device_environment(),))
    if running is not None and (running.shards, running.devices) != (options.shards, options.devices):
        raise OptionsError(
            "the running network was started for other shards or other devices",
            advice="Pass it the options it was started with, or leave it out.",
        )
    model = _trainable(bundle)
    initial = initial_weights(model, options.devices[0]) if options.initial is None else options.initial
    deadline = time.monotonic() + options.timeout_s
    write_file(options.out / ROUNDS, rounds_bytes([]))  # a folder that refuses is found before anything starts
    for old in options.out.glob("round-*.npz"):
        old.unlink()
    with contextlib.nullcontext(running) if running else network(options.devices, options.shards) as flower:
        write_file(flower.work / INITIAL, weights_bytes(initial))
        write_file(flower.work / JOB, _job(model, options))
        flower.submit()
        return _watch(options, flower, on_round, deadline)


def _trainable(bundle: str | Path) -> Path:
    read = read_bundle(bundle)
    if TRAINABLE not in [variant.id for variant in read.variants]:
        raise ModelError(
            f"{bundle} has no {TRAINABLE} variant", advice=f"Run: edgeloop convert MODEL --trainable -o {bundle}"
        )
    return read.file(read.variant(TRAINABLE).entry)


def _job(model: Path, options: RoundsOptions) -> bytes:
    """What the ServerApp reads; it waits for this file."""
    job = {
        "out": str(options.out.absolute()),
        "trainable": str(model.absolute()),
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
            raise error_from_json(json.loads((flower.work / FAILURE).read_bytes()), where=where, doing="the ServerApp")
        flower.check()
        if alive is False:
            raise DeviceError(f"the ServerApp ended; {flower.last_log_line('serverapp')}", advice=AGAIN, where=where)
        if alive is None and time.monotonic() - asked > QUIET_S:
            status, asked = flower.status(), time.monotonic()
            if status.startswith("finished"):
                raise DeviceError(
                    f"Flower ended the run ({status}); {flower.last_log_line('serverapp')}", advice=AGAIN, where=where
                )
        if time.monotonic() > deadline:
            raise DeviceError(
                f"{where} was not finished within {options.timeout_s:g} s",
                advice="Allow more time, or train for fewer rounds or epochs.",
            )
        time.sleep(LOOK_S)


def _server_alive(work: Path) -> bool | None:
    """None before the ServerApp has started. It holds a lock while it lives; a zombie's pid would still look alive."""
    path = work / ALIVE
    if not path.is_file() or not path.read_bytes():
        return None
    try:
        with exclusive(path, timeout_s=0):
            return False
    except TimeoutError:
        return True
