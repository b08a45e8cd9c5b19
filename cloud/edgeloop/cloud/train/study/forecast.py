"""What more data would buy: trainings on nested parts of the data, and the power law through their errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeloop.cloud.train.config.train_config import TrainConfig
from edgeloop.cloud.train.run.run_result import RunResult
from edgeloop.cloud.train.study.power_law import Forecast, forecast
from edgeloop.errors import DataError, OptionsError

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastOptions:
    """What to train on, and what to look ahead to.

    Attributes:
        factors: How many times as much data as there is.
        shares: Of the data that is trained on, each at most 1; the smaller parts belong to the larger ones.
    """

    factors: tuple[float, ...] = (2.0, 4.0)
    shares: tuple[float, ...] = SHARES

    def __post_init__(self) -> None:
        for factor in self.factors:
            if not 1 < factor < math.inf:
                raise OptionsError(f"--factor is {factor:g}", advice="It must be above 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataForecast:
    """Measured errors (1 - accuracy) at numbers of examples trained on, and those expected at more."""

    sizes: tuple[int, ...]
    errors: tuple[float, ...]
    judged_on: int
    expected: tuple[Forecast, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "measured": [{"examples": n, "error": e} for n, e in zip(self.sizes, self.errors, strict=True)],
            "judged_on": self.judged_on,
            "expected": [{"examples": f.size, "error": f.error, "low": f.low, "high": f.high} for f in self.expected],
        }


def forecast_data(
    config: TrainConfig,
    train: Callable[[TrainConfig, Path], RunResult],
    out: Path,
    options: ForecastOptions = ForecastOptions(),
) -> DataForecast:
    """Train on each share of the data, the smaller parts of the larger, and judge all by the same held-out examples.

    Each part may take as many steps as the whole, unless `[loop] patience` ends it: with as many epochs instead, a
    small part would be trained too little, and its error would bend the curve to a floor that is not there.

    Raises:
        DataError: The labels are no classes, or the smallest part has no batch.
    """
    sizes, errors, judged_on = [], [], 0
    for share in options.shares:
        part = replace(
            config,
            data=replace(config.data, share=share),
            loop=replace(config.loop, epochs=math.ceil(config.loop.epochs / share)),
        )
        run = train(part, out / f"share-{share:g}")
        if run.metric != "accuracy":
            raise DataError(
                f"the training is judged by {run.metric.replace('_', ' ')}",
                advice="A forecast of more data is made for classes.",
            )
        sizes.append(run.examples)
        errors.append(1 - run.best.score)
        judged_on = run.judged_on
    wanted = [round(sizes[-1] * factor) for factor in options.factors]
    return DataForecast(
        sizes=tuple(sizes),
        errors=tuple(errors),
        judged_on=judged_on,
        expected=forecast(sizes, errors, judged_on, wanted, config.loop.seed),
    )
