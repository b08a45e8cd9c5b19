"""Costs in order, the cuts between them out: contiguous stages whose largest cost is as small as can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeloop.errors import OptionsError

Way = tuple[float, int, tuple[int, ...]]  # largest cost of a stage, tensors handed on, cuts


def choose_cuts(costs: Sequence[float], stages: int, widths: Mapping[int, int]) -> tuple[int, ...]:
    """The places, ascending, before which a stage ends: a cut at k puts `costs[:k]` in front of it.

    Of all ways to divide the costs at allowed places the one whose most expensive stage is cheapest, as the slowest
    stage sets the pace of a pipeline (GPipe, https://arxiv.org/abs/1811.06965, section 2.1); of equal ones the one that
    hands on the fewest tensors.

    Args:
        costs: Of each operation, in the order in which they run; any unit.
        stages: How many, at least 1.
        widths: Places where a cut is allowed, each with the number of tensors that cross there.

    Raises:
        OptionsError: Fewer allowed places than the stages need.
    """
    if len(widths) < stages - 1:
        raise OptionsError(
            f"the model can be cut at {len(widths)} places; {stages} stages need {stages - 1}",
            advice=f"Choose at most {len(widths) + 1} stages.",
        )
    places = sorted(widths)
    total = [0.0]
    for cost in costs:
        total.append(total[-1] + cost)
    # best[k]: of the operations before k
    best: dict[int, Way] = {k: (total[k], 0, ()) for k in [*places, len(costs)]}
    for _ in range(stages - 1):
        longer = {end: _with_last_cut(best, total, widths, end) for end in best}
        best = {end: min(ways) for end, ways in longer.items() if ways}
    return best[len(costs)][2]


def _with_last_cut(
    best: Mapping[int, Way],
    total: Sequence[float],
    widths: Mapping[int, int],
    end: int,
) -> list[Way]:
    """Every way to divide the operations before `end` into one stage more than those of `best`."""
    return [
        (max(largest, total[end] - total[cut]), crossing + widths[cut], (*cuts, cut))
        for cut, (largest, crossing, cuts) in best.items()
        if cut < end and cut in widths
    ]


def bubble_in_theory(stages: int, micro_batches: int) -> float:
    """Share of the time that devices wait where all stages cost the same: (K-1)/(M+K-1), GPipe, section 2.3."""
    return (stages - 1) / (micro_batches + stages - 1)
