"""Buffered asynchronous rounds: how many updates make a version of the weights, and how old they may be."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from edgeloop.errors import OptionsError
from edgeloop.quantities import above_zero, at_least


class RoundsMode(enum.StrEnum):
    """When the server makes new weights."""

    SYNCHRONOUS = "synchronous"  # of the updates of the devices that a round asked; later ones are discarded
    BUFFERED = "buffered"  # whenever so many updates have come, whatever weights they started from: FedBuff


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferedOptions:
    """`[buffered]`: FedBuff, Nguyen et al. 2022, "Federated Learning with Buffered Asynchronous Aggregation".

    Attributes:
        size: Updates that make a new version of the weights: K in the paper, which found 10 to serve. None: 10, or
            half of fewer than 20 devices.
        concurrency: Devices that train at the same time. None: all.
        max_staleness: An update is refused where more versions than this were made since its weights were sent.
        server_learning_rate: Step along the mean of the buffered updates.
    """

    size: int | None = None
    concurrency: int | None = None
    max_staleness: int = 20
    server_learning_rate: float = 1.0

    def __post_init__(self) -> None:
        for name in ("size", "concurrency"):
            if getattr(self, name) is not None:
                at_least(getattr(self, name), 1, f"[buffered] {name}")
        at_least(self.max_staleness, 0, "[buffered] max-staleness")
        above_zero(self.server_learning_rate, "[buffered] server-learning-rate")

    def sizes(self, devices: int) -> tuple[int, int]:
        """(size, concurrency) for that many devices.

        Raises:
            OptionsError: A device trains once from a version, so a buffer larger than that never fills.
        """
        size = self.size or min(10, math.ceil(devices / 2))
        if size > devices:
            raise OptionsError(
                f"[buffered] size is {size}, and there are {devices} devices, each of which trains once from a version",
                advice=f"It must be {devices} at most.",
            )
        return size, min(self.concurrency or devices, devices)


def staleness_weight(staleness: int) -> float:
    """1 / sqrt(1 + staleness): section 5 of the paper."""
    return 1.0 / math.sqrt(1.0 + staleness)
