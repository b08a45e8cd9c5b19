"""What a reply may be."""

from __future__ import annotations

from dataclasses import dataclass

from edgeloop.errors import OptionsError
from edgeloop.federated.rounds.aggregation.exact_sum import LARGEST_WEIGHT
from edgeloop.quantities import above_zero, at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardOptions:
    """Bounds of a reply.

    Attributes:
        max_norm: L2 norm of what an update adds to all weights together. None: `max_norm_ratio` alone bounds it.
        max_norm_ratio: The same norm in norms of the round's weights, or in 1 where those are smaller.
        max_examples: Examples that one device may report in a round: they are its weight in the mean.
        bench_after: A device with that many refused replies is asked no more in this run.
    """

    max_norm: float | None = None
    max_norm_ratio: float = 10.0
    max_examples: int = 1_000_000
    bench_after: int = 3

    def __post_init__(self) -> None:
        if self.max_norm is not None:
            above_zero(self.max_norm, "max-norm")
        above_zero(self.max_norm_ratio, "max-norm-ratio")
        if not 1 <= self.max_examples <= LARGEST_WEIGHT:
            raise OptionsError(f"max-examples is {self.max_examples}", advice=f"It must be 1 to {LARGEST_WEIGHT}.")
        at_least(self.bench_after, 1, "bench-after")
