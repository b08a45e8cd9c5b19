"""Who is asked in a round, when it has replies enough, and when waiting has no use.

A round wants `target` replies: the fraction of the known devices. It asks `over_select` times as many (Bonawitz et al.
2019, "Towards Federated Learning at Scale", section 4.2: 130%, for 6-10% drop out), and ends with the first `target`
good replies. At its deadline it counts if the quorum of `target` has come.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from edgeloop.errors import OptionsError
from edgeloop.federated.rounds.quorum_options import QuorumOptions

COPIES = 3  # of each reply in a strategy that keeps them: the reply, its place in a stack, and a sorted or flat copy


@dataclass(frozen=True)
class RoundPlan:
    """One attempt: who is asked, how many replies end the round, how many must be there at its deadline, and of how
    many connected devices those asked were chosen."""

    chosen: tuple[int, ...]
    target: int
    needed: int
    connected: int


def needed_replies(devices: int, options: QuorumOptions) -> tuple[int, int]:
    """(target, needed) of that many known devices, each 1 at least."""
    target = max(1, math.ceil(options.fraction * devices - 1e-9))
    return target, max(1, math.ceil(options.quorum * target - 1e-9))


def plan_round(
    nodes: Collection[int], benched: Collection[int], devices: int, options: QuorumOptions, chance: random.Random
) -> RoundPlan:
    """Choose among the nodes that are connected and not benched."""
    target, needed = needed_replies(devices, options)
    fit = sorted(set(nodes) - set(benched))
    asked = min(len(fit), math.ceil(target * options.over_select - 1e-9))
    chosen = chance.sample(fit, asked)
    return RoundPlan(tuple(sorted(chosen)), target, needed, len(fit))


def check_memory(shapes: Sequence[tuple[int, ...]], replies: int, limit_bytes: int, strategy: str) -> None:
    """See that a strategy that needs all replies of a round at once has the memory for them.

    Raises:
        OptionsError: It has not.
    """
    one = sum(4 * math.prod(shape) for shape in shapes)
    needed = COPIES * replies * one
    if needed > limit_bytes:
        raise OptionsError(
            f"the strategy {strategy} needs all {replies} replies of {one / 1e6:.1f} MB at once, in {COPIES} copies: "
            f"{needed / 1e6:.0f} MB, and max-memory-mb allows {limit_bytes / 1e6:.0f}",
            advice="Select fewer devices, allow more memory, or choose fed-avg, which needs that of one model.",
        )
