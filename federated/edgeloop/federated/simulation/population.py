"""The devices of a simulation: which samples each one has, and how it fares in each round. All by the seed.

A folder holds the samples once, for all processes that train: columns/NAME.npy and y.npy as they were read, order.npy
(indices, device after device) and ends.npy (where each device ends).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeloop.errors import DataError
from edgeloop.federated.device.data.samples import Samples
from edgeloop.federated.simulation.options import Partition, SimulationOptions
from edgeloop.federated.simulation.partition import by_dirichlet, by_group, by_shards, evenly

ALPHA, SHARDS = 0.5, 2


@dataclass(frozen=True)
class Fate:
    """How a device fares in one round, in simulated time.

    Attributes:
        seconds: From the message to the reply.
        drops_out: It never replies.
    """

    seconds: float
    drops_out: bool


class Population:
    """Devices 0, 1, ... of a simulation.

    Args:
        examples: Samples of each.
    """

    def __init__(self, options: SimulationOptions, examples: np.ndarray) -> None:
        self.options, self.examples = options, examples
        slow = round(options.slow_share * options.nodes)
        self.slow = frozenset(random.Random(f"{options.seed}/slow").sample(range(options.nodes), slow))

    def fate(self, device: int, number: int, attempt: int, epochs: int) -> Fate:
        """Of one device in an attempt at round `number`."""
        options = self.options
        draw = random.Random(f"{options.seed}/dropout/{number}/{attempt}/{device}").random()
        seconds = epochs * float(self.examples[device]) / options.examples_per_s
        return Fate(seconds * (options.slow_factor if device in self.slow else 1.0), draw < options.dropout)


def split(options: SimulationOptions, samples: Samples) -> tuple[Samples, tuple[np.ndarray, ...]]:
    """The samples without the column of groups, and the indices of each device.

    Raises:
        DataError: The samples cannot be split that way.
    """
    columns = dict(samples.columns)
    group = np.empty(0)
    if options.group is not None:
        if options.group not in columns:
            raise DataError(
                f"{samples.source} has no {options.group!r}, which [simulation] group names",
                advice=f"It has: {', '.join(sorted(columns))}.",
            )
        group = columns.pop(options.group)
        whole = np.rint(group)
        group = whole.astype(np.int64) if np.array_equal(whole, group) else group
    parts = SPLITS[options.partition](options, samples.y, group)
    return replace(samples, columns=columns), parts


Split = Callable[[SimulationOptions, np.ndarray, np.ndarray], tuple[np.ndarray, ...]]
SPLITS: dict[Partition, Split] = {
    Partition.IID: lambda o, y, group: evenly(len(y), o.nodes, o.seed),
    Partition.DIRICHLET: lambda o, y, group: by_dirichlet(y, o.nodes, o.alpha or ALPHA, o.seed),
    Partition.SHARDS: lambda o, y, group: by_shards(y, o.nodes, o.shards_per_node or SHARDS, o.seed),
    Partition.NATURAL: lambda o, y, group: by_group(group, o.nodes),
}


def write_samples(folder: Path, samples: Samples, parts: tuple[np.ndarray, ...]) -> None:
    """Write what `read_device` reads."""
    (folder / "columns").mkdir(parents=True)
    for number, array in enumerate(samples.columns.values()):
        np.save(folder / "columns" / f"{number}.npy", array)
    np.save(folder / "y.npy", samples.y)
    np.save(folder / "order.npy", np.concatenate(parts))
    np.save(folder / "ends.npy", np.cumsum([len(part) for part in parts]))
    kind = {"pixels": samples.pixels, "shaped": samples.shaped, "ordered": samples.ordered}
    document = {"source": samples.source, "columns": list(samples.columns), "classes": list(samples.classes), **kind}
    (folder / "samples.json").write_text(json.dumps(document))


def read_device(folder: Path, device: int) -> Samples:
    """The samples of one device. The files are mapped, so processes that train share their memory."""
    document = json.loads((folder / "samples.json").read_text())
    ends = np.load(folder / "ends.npy")
    start = int(ends[device - 1]) if device else 0
    rows = np.load(folder / "order.npy", mmap_mode="r")[start : int(ends[device])]
    columns = {
        name: np.load(folder / "columns" / f"{number}.npy", mmap_mode="r")[rows]
        for number, name in enumerate(document["columns"])
    }
    y = np.load(folder / "y.npy", mmap_mode="r")[rows]
    kind = {name: document[name] for name in ("pixels", "shaped", "ordered")}
    return Samples(f"{document['source']}, device {device}", columns, y, classes=tuple(document["classes"]), **kind)


def examples_of(folder: Path) -> np.ndarray:
    """Samples of each device."""
    return np.diff(np.load(folder / "ends.npy"), prepend=0)
