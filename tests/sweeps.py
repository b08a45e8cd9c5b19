"""A claim over many points: `make test` takes a sample of them, `make faults` or `make soak` every one."""

from __future__ import annotations

from typing import Any

import pytest


def swept(name: str, sample: Any, every: Any, mark: pytest.MarkDecorator = pytest.mark.faults) -> pytest.MarkDecorator:
    """Parametrizes a test by the argument `name`."""
    cases = [pytest.param(sample, id="sample"), pytest.param(every, id="every", marks=mark)]
    return pytest.mark.parametrize(name, cases)
