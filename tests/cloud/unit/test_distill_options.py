"""Contradictions of a distillation end before anything is trained."""

from pathlib import Path

import pytest

from edgeloop.cloud.train.distill.options import DistillOptions
from edgeloop.errors import OptionsError


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"teachers": ()}, "no teacher is given"),
        ({"temperature": 0.0}, "temperature is 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"students": 0}, "--students is 0"),
        ({"fine_tune": -1}, "--fine-tune is -1"),
        ({"iterations": 0}, "--iterations is 0"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_contradiction_is_refused_by_name(given, words):
    with pytest.raises(OptionsError, match=words):
        DistillOptions(**{"teachers": (Path("t.keras"),), **given})
