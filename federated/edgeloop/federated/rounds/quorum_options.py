"""How many devices a round asks and needs, and how long it waits for them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgeloop.errors import OptionsError
from edgeloop.quantities import above_zero, at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class QuorumOptions:
    """How many devices, how long.

    Attributes:
        fraction: Share of the devices whose updates a round wants, above 0 to 1.
        quorum: Share of those that suffices at the deadline, above 0 to 1.
        over_select: How many times as many devices are asked.
        deadline_s: From sending a round's weights to the last reply that counts.
        attempts: How often a round without quorum is tried.
        wait_s: For devices to connect, before a round.
    """

    fraction: float = 1.0
    quorum: float = 1.0
    over_select: float = 1.3
    deadline_s: float = 120.0
    attempts: int = 3
    wait_s: float = 60.0

    def __post_init__(self) -> None:
        for name in ("fraction", "quorum"):
            if not 0 < getattr(self, name) <= 1:
                raise OptionsError(f"{name} is {getattr(self, name):g}", advice="It must be above 0, and 1 at most.")
        if not (math.isfinite(self.over_select) and self.over_select >= 1):
            raise OptionsError(f"over-select is {self.over_select:g}", advice="It must be 1 or more, e.g. 1.3.")
        above_zero(self.deadline_s, "deadline-s")
        above_zero(self.wait_s, "wait-s")
        at_least(self.attempts, 1, "attempts")
