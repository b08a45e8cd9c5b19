"""From which step on a training looks for the first value that is not finite."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from edgeloop.cloud.train.run import training


@pytest.mark.parametrize(
    ("begin", "repeatable", "restored", "good", "put"),
    [
        ({"w": 1}, True, None, 0, [{"w": 1}]),  # before the first checkpoint: what it began with
        ({}, True, 8, 8, []),
        ({}, True, None, 0, []),
        ({}, False, None, 6, []),  # its steps are not repeated: no value is put back
    ],
)
def test_the_last_good_values_are_put_back_where_steps_can_be_repeated(
    monkeypatch, begin, repeatable, restored, good, put
):
    placed, asked = [], []
    monkeypatch.setattr(training, "put_back", lambda values, old: placed.append(old))
    monkeypatch.setattr(training, "not_finite", lambda *given: given)

    def restore(values):
        asked.append(values)
        return None if restored is None else SimpleNamespace(step=restored)

    run = SimpleNamespace(
        begin=begin, values="values", out="out", paused=nullcontext, state=SimpleNamespace(best_epoch=2),
        prepared=SimpleNamespace(engine=SimpleNamespace(repeatable=repeatable)),
        checkpoints=SimpleNamespace(restore=restore, newest_step=lambda: 6),
    )  # fmt: skip
    found = training.Training._not_finite(run, "the loss is nan", 9)
    assert found == (run.prepared, "the loss is nan", good, 9, "out", True)
    assert placed == put and asked == (["values"] if repeatable and not begin else [])
