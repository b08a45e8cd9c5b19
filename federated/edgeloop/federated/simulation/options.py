"""What `[simulation]` of a federation.toml says: the devices of a simulation, and what may befall them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from pathlib import Path

from edgeloop.errors import OptionsError
from edgeloop.quantities import above_zero, at_least


class Partition(enum.StrEnum):
    """How the samples are split over the devices (partition.py)."""

    IID = "iid"  # at random
    DIRICHLET = "dirichlet"  # each device has a label distribution of its own
    SHARDS = "shards"  # each device has few labels
    NATURAL = "natural"  # a device for each value of a column


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationOptions:
    """`[simulation]`.

    Attributes:
        data: All samples: what `federate join --data` reads.
        nodes: Devices.
        partition: How the samples are split.
        alpha: Of dirichlet; smaller is more uneven. None: 0.5.
        shards_per_node: Of shards. None: 2.
        group: Of natural: the array or column whose value says whose sample it is.
        dropout: Share of the devices asked in a round that drop out of it.
        slow_share: Share of the devices that are slow.
        slow_factor: How many times as long these take.
        examples_per_s: Samples that any other device trains on in a second of simulated time.
        seed: Of the split, and of who is slow and who drops out.
        workers: Processes that train, each one device at a time. None: one for each CPU.
        ray_address: HOST:PORT of a Ray cluster whose CPUs train. None: those of this machine.
    """

    data: str
    nodes: int = 100
    partition: Partition = Partition.IID
    alpha: float | None = None
    shards_per_node: int | None = None
    group: str | None = None
    dropout: float = 0.0
    slow_share: float = 0.0
    slow_factor: float = 10.0
    examples_per_s: float = 100.0
    seed: int = 0
    workers: int | None = None
    ray_address: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("nodes", 1), ("seed", 0)):
            at_least(getattr(self, name), least, f"[simulation] {name}")
        if not 0 <= self.dropout < 1:
            raise OptionsError(f"[simulation] dropout is {self.dropout:g}", advice="It must be 0 or more, and below 1.")
        if not 0 <= self.slow_share <= 1:
            raise OptionsError(f"[simulation] slow-share is {self.slow_share:g}", advice="It must be 0 to 1.")
        if self.workers is not None:
            at_least(self.workers, 1, "[simulation] workers")
        if self.ray_address is not None:
            self._check_cluster(self.ray_address)
        above_zero(self.slow_factor, "[simulation] slow-factor")
        above_zero(self.examples_per_s, "[simulation] examples-per-s")
        self._check_partition()

    def _check_partition(self) -> None:
        for name, owner in OWNERS.items():
            if getattr(self, name) is not None and self.partition is not owner:
                raise OptionsError(
                    f"[simulation] {name.replace('_', '-')} is given, and partition is {self.partition.value}",
                    advice=f'It belongs to partition = "{owner.value}".',
                )
        if self.partition is Partition.NATURAL and not self.group:
            raise OptionsError(
                "[simulation] partition is natural, and group is missing", advice="Name the column of the devices."
            )
        if self.alpha is not None:
            above_zero(self.alpha, "[simulation] alpha")
        if self.shards_per_node is not None:
            at_least(self.shards_per_node, 1, "[simulation] shards-per-node")

    def _check_cluster(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise OptionsError(f"[simulation] ray-address is {address!r}", advice="Expected HOST:PORT.")
        if self.workers is not None:
            raise OptionsError(
                "[simulation] workers is given, and so is a Ray cluster, each of whose CPUs trains",
                advice="Leave workers out.",
            )

    def below(self, folder: Path) -> SimulationOptions:
        """The same; `data` is relative to a folder, where it is a path."""
        found = folder / self.data
        return replace(self, data=str(found)) if found.exists() else self


OWNERS = {"alpha": Partition.DIRICHLET, "shards_per_node": Partition.SHARDS, "group": Partition.NATURAL}
