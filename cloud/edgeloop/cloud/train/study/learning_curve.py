"""What a run's epochs say: how low its loss will come, and which earlier epoch is as good."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgeloop.cloud.train.study.power_law import fit_power_law

LEAST_EPOCHS = 4  # three make the curve, and one is left to say that it fits


def projected_loss(losses: Sequence[float], epochs: int) -> float | None:
    """The lowest validation loss to expect if the run goes on to `epochs`; None while too few are known.

    A power law through the later half of the epochs, the first ones being steeper than any such curve: the idea of
    Domhan et al. 2015 (https://www.ijcai.org/Proceedings/15/Papers/487.pdf) with one family of curves. Never above the
    lowest loss so far.
    """
    if len(losses) < LEAST_EPOCHS:
        return None
    begin = min(len(losses) // 2, len(losses) - LEAST_EPOCHS + 1)
    law = fit_power_law(range(begin + 1, len(losses) + 1), losses[begin:])
    return min(*losses, law.at(epochs))


def earliest_as_good(scores: Sequence[float], judged_on: int) -> int:
    """The first epoch, from 1, whose share of right answers lies within one standard error of the best one's.

    The rule of one standard error: Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, section 7.10.

    Args:
        scores: Of each epoch, 0 to 1.
        judged_on: Examples that each score was measured on.
    """
    best = max(scores)
    error = math.sqrt(best * (1 - best) / judged_on)
    return next(epoch for epoch, score in enumerate(scores, 1) if score >= best - error)
