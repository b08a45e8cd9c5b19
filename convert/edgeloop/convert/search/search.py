"""Layers and what quantizing damages in them in, the smallest mix of schemes that holds an accuracy budget out.

The plain schemes first. Where int8 costs too much: bisect how many of the worst layers have to stay in float32, give
back what need not, try cheaper schemes for the rest. NNCF's accuracy-aware quantization does the like (rank, revert,
stop at `max_drop`); here the ranking costs no evaluation, because rank.py reads it off one run.

Nothing is random: a search that starts again takes the same steps, and the journal answers those taken before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass

from edgeloop.bundle import Scheme
from edgeloop.convert.search.candidate import (
    Budget,
    Candidates,
    Measure,
    MixCandidate,
    MixRefusal,
    Quantize,
    SearchLimitReached,
)
from edgeloop.convert.search.journal import Journal
from edgeloop.convert.search.metric import SourceScore
from edgeloop.convert.search.pareto import pareto_front
from edgeloop.errors import BudgetError, OptionsError
from edgeloop.progress import Progress, silent

PLAIN = (Scheme.INT8, Scheme.INT16X8, Scheme.DYNAMIC, Scheme.FLOAT16, Scheme.FLOAT32)
SAME_SIZE = 1.01  # one QUANTIZE more or less is some hundred bytes: within 1% the faster mix is the better one


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """What to search for.

    Attributes:
        max_drop_pp: Percentage points of accuracy (or AUC) that may be lost against the source; of a model that
            predicts numbers, the per cent that its RMSE may grow by.
        evaluations: Mixes tried at most, the plain schemes and those in the journal included.
        max_slowdown: A mix that takes more than this many times float32's latency wins only where no faster one
            holds the budget (int16x8 took 15 times as long on LiteRT). None: size alone decides.
    """

    max_drop_pp: float
    evaluations: int = 50
    max_slowdown: float | None = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop_pp <= 100:
            raise OptionsError(
                f"--max-drop is {self.max_drop_pp:g}",
                advice="It must be 0 to 100: percentage points, or per cent of an RMSE.",
            )
        if self.evaluations < len(PLAIN):
            raise OptionsError(
                f"evaluations is {self.evaluations}",
                advice=f"It must be {len(PLAIN)} or more: each plain scheme takes one.",
            )
        if self.max_slowdown is not None and not 1 <= self.max_slowdown < math.inf:
            raise OptionsError(f"max_slowdown is {self.max_slowdown:g}", advice="It must be 1 or more: float32 has 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One operator that computes, and those that only pass its values on: they stay in float together.

    Attributes:
        tensor: The name of its first output tensor.
        operators: First output tensors of all its operators, the keys of a mix.
        inputs: `tensor` of the layers it reads. A value that arrives in int8 is damaged before it is used.
        damage: The noise it adds when quantized, over the signal, both as powers.
        bytes: Of its constants in float32.
    """

    tensor: str
    operators: tuple[str, ...]
    inputs: tuple[str, ...]
    damage: float
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """`front` is Pareto's over bytes, accuracy and latency; `tried` in order; `resumed` were read from the journal."""

    best: MixCandidate
    front: tuple[MixCandidate, ...]
    tried: tuple[MixCandidate, ...]
    refused: tuple[MixRefusal, ...]
    resumed: int
    budget: Budget


def search(
    layers: Sequence[Layer],
    quantize: Quantize,
    measure: Measure,
    source: SourceScore,
    options: SearchOptions,
    journal: Journal,
    progress: Progress = silent,
) -> SearchResult:
    """The smallest mix that is at most `max_drop_pp` worse than the source, and all that was tried on the way.

    `quantize(scheme, keep)` makes the file; `measure(file, scheme)` runs it, `scheme` MIXED where anything is kept.
    A mix that either refuses counts as an evaluation.

    Raises:
        BudgetError: No mix holds the budget; the best one is named.
        WriteError: The journal cannot be written.
    """
    budget = Budget(source=source, max_drop=options.max_drop_pp)
    candidates = Candidates(quantize, measure, budget, options.evaluations, journal, progress)
    try:
        plain = {scheme for scheme in PLAIN if candidates.holds(scheme, {})}
        # where float32 is over budget, no layer kept in it helps
        if Scheme.INT8 not in plain and Scheme.FLOAT32 in plain:
            _search_mixes(layers, plain, candidates)
    except SearchLimitReached:
        progress("search", options.evaluations, options.evaluations)
    tried = tuple(candidates.measured.values())
    return SearchResult(
        best=_best(candidates, options.max_slowdown),
        front=pareto_front(tried, source.metric),
        tried=tried,
        refused=tuple(candidates.refusals.values()),
        resumed=candidates.resumed,
        budget=budget,
    )


def _search_mixes(layers: Sequence[Layer], plain: Set[Scheme], candidates: Candidates) -> None:
    """By two rankings: the most damage first, and the most damage a byte, which spares a large layer."""
    by_damage = sorted(layers, key=lambda layer: (-layer.damage, layer.tensor))
    by_density = sorted(layers, key=_density, reverse=True)
    floats = Scheme.FLOAT16 if Scheme.FLOAT16 in plain else Scheme.FLOAT32
    starts = [_bisect(order, floats, candidates) for order in (by_damage, by_density)]
    for kept in sorted(starts, key=lambda start: sum(layer.bytes for layer in start)):
        _cheapen(_give_back(kept, floats, candidates), floats, candidates)


def _bisect(order: Sequence[Layer], floats: Scheme, candidates: Candidates) -> list[Layer]:
    """The fewest of the worst layers, and those they read, that hold the budget in float; the worst first."""
    fails, holds = 0, len(order)  # none kept is int8, all kept is float
    while holds - fails > 1:
        middle = (fails + holds) // 2
        if _holds(dict.fromkeys(_worst(order, middle), floats), candidates):
            holds = middle
        else:
            fails = middle
    return _worst(order, holds)


def _worst(order: Sequence[Layer], count: int) -> list[Layer]:
    read = {name for layer in order[:count] for name in layer.inputs}
    return [*order[:count], *(layer for layer in order[count:] if layer.tensor in read)]


def _give_back(kept: Sequence[Layer], floats: Scheme, candidates: Candidates) -> list[Layer]:
    """Take halves, quarters, ..., single layers out wherever the rest still holds, what saves most for
    the least damage first.

    Delta debugging: Zeller and Hildebrandt 2002, https://doi.org/10.1109/32.988498
    """
    left = sorted(kept, key=_density)
    size = len(left) // 2
    while size:
        for part in [left[start : start + size] for start in range(0, len(left), size)]:
            rest = [layer for layer in left if layer not in part]
            if _holds(dict.fromkeys(rest, floats), candidates):
                left = rest
        size //= 2
    return left


def _cheapen(kept: Sequence[Layer], floats: Scheme, candidates: Candidates) -> None:
    """int16x8 for each layer that bears it, the one that saves most first."""
    mix = dict.fromkeys(kept, floats)
    for layer in sorted(kept, key=lambda layer: (-layer.bytes, layer.tensor)):
        if _holds({**mix, layer: Scheme.INT16X8}, candidates):
            mix[layer] = Scheme.INT16X8


def _density(layer: Layer) -> tuple[float, str]:
    return layer.damage / (layer.bytes + 1), layer.tensor


def _holds(mix: dict[Layer, Scheme], candidates: Candidates) -> bool:
    return candidates.holds(Scheme.INT8, {name: scheme for layer, scheme in mix.items() for name in layer.operators})


def _best(candidates: Candidates, max_slowdown: float | None) -> MixCandidate:
    holding = [candidate for candidate in candidates.measured.values() if candidates.budget.holds(candidate)]
    if not holding:
        raise _over_budget(candidates)
    fast = [c for c in holding if max_slowdown is None or c.measured.latency_ratio <= max_slowdown] or holding
    smallest = min(candidate.bytes for candidate in fast)
    alike = [candidate for candidate in fast if candidate.bytes <= SAME_SIZE * smallest]
    return min(alike, key=lambda candidate: (candidate.measured.latency_ratio, candidate.bytes))


def _over_budget(candidates: Candidates) -> BudgetError:
    source = candidates.budget.source
    found = f"no mix of schemes is within the budget of {source.metric.limit(candidates.budget.max_drop)}"
    if not candidates.measured:
        reason = next(iter(candidates.refusals.values())).reason
        return BudgetError(
            f"{found}: none of the {len(candidates)} that were tried could be run, the first because {reason}",
            advice="Leave --max-drop out.",
        )
    best = max(
        candidates.measured.values(), key=lambda c: (c.measured.passed, -source.drop(c.measured.value), -c.bytes)
    )
    drop = source.metric.drop_text(candidates.budget.drop(best), source.value)
    floors = "" if best.measured.passed else " and too inaccurate for the proof"
    return BudgetError(
        f"{found}: the best of {len(candidates)} tried is {best.label} ({best.bytes:,} bytes), {drop}{floors}",
        advice="Allow a larger --max-drop, or calibrate with more real inputs.",
    )
