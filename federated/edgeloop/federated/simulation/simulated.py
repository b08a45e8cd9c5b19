"""The devices of a simulation, as `run_rounds` takes them instead of a process for each shard."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.bundle import Bundle
from edgeloop.federated.device.data.readers import read_samples
from edgeloop.federated.device.data.samples import Samples
from edgeloop.federated.network.network import Network
from edgeloop.federated.rounds.shards import CheckedShard, check_samples
from edgeloop.federated.simulation.options import SimulationOptions
from edgeloop.federated.simulation.population import split
from edgeloop.federated.simulation.process import simulation_process
from edgeloop.hashes import digest_of


@dataclass(frozen=True)
class Simulated:
    """The data is read once, by the first method that needs it.

    Attributes:
        deadline_s: Of a round, in simulated time.
    """

    options: SimulationOptions
    deadline_s: float

    @cached_property
    def _split(self) -> tuple[Samples, tuple[np.ndarray, ...]]:
        return split(self.options, read_samples(self.options.data))

    def check(self, bundle: Bundle) -> tuple[CheckedShard, ...]:
        """One shard a device.

        Raises:
            DataError: The data cannot be read or split, or does not fit the model.
        """
        samples, parts = self._split
        check_samples(samples, bundle)
        data = digest_of(samples.y.tobytes() + b"".join(array.tobytes() for array in samples.columns.values()))
        return tuple(
            CheckedShard(Path(f"device {k}"), len(part), digest_of(data.encode() + part.tobytes()))
            for k, part in enumerate(parts)
        )

    def document(self) -> Mapping[str, Any]:
        """What run.json says of it. How many processes do the work, and where, changes nothing."""
        named = {name.replace("_", "-"): value for name, value in asdict(self.options).items() if value is not None}
        for name in ("workers", "ray-address"):
            named.pop(name, None)
        return {"simulation": {**named, "data": Path(self.options.data).name, "simulated-deadline-s": self.deadline_s}}

    def start(self, kept: Path | None) -> AbstractContextManager[Network]:
        """The engine, for as long as the block; `kept`: a folder for what its devices keep for a resumed run.

        Raises:
            MissingExtra: Ray or Flower is not installed.
            DeviceError: No Ray cluster listens at the address that is given.
        """
        return simulation_process(self.options, self.deadline_s, *self._split, kept)
