"""GPipe's order of work with stages of plain numbers: the loss is (a * b * x - label)^2 / 2, a and b one stage each."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from edgeloop.cloud.train.parallel.schedule import run_pipeline

WAIT_S = 30


class Times:
    """Multiplies by a number; `begins` is told what the stage is about to do."""

    def __init__(self, factor, last, begins=lambda what, i: None):
        self.factor, self.last, self.begins = factor, last, begins

    def forward(self, inputs, i):
        self.begins("forward", i)
        return [self.factor * inputs[0]]

    def backward(self, inputs, outgoing, i):
        self.begins("backward", i)
        if self.last:
            error = self.factor * inputs[0] - outgoing
            return [error * self.factor], [error * inputs[0]], [1.0], error**2 / 2
        return [outgoing[0] * self.factor], [outgoing[0] * inputs[0]], [1.0], 0.0


def run(stages, micro_batches=3):
    with ThreadPoolExecutor(len(stages)) as pool:
        return run_pipeline(
            stages, [[float(i + 1)] for i in range(micro_batches)], [1.0] * micro_batches, lambda i: i, pool
        )


def test_gradients_and_loss_are_the_sums_over_the_micro_batches():
    runs, wall_s = run([Times(2.0, False), Times(3.0, True)])
    # x = 1, 2, 3: errors 6x - 1 = 5, 11, 17; d/da = error * b * x = 15 + 66 + 153; d/db = error * a * x = 10 + 44 + 102
    assert runs[0].gradients == [234.0]
    assert runs[1].gradients == [156.0]
    assert runs[1].loss == (25 + 121 + 289) / 2
    assert [r.statistics for r in runs] == [[3.0], [3.0]]
    assert wall_s > 0


def test_the_last_stage_works_on_the_first_micro_batch_while_the_first_stage_is_at_the_second():
    last_began = threading.Event()

    def first(what, i):
        if (what, i) == ("forward", 1):
            assert last_began.wait(WAIT_S), "the last stage waits for all micro-batches"

    run([Times(2.0, False, first), Times(3.0, True, lambda what, i: last_began.set())])


@pytest.mark.parametrize(
    ("failing", "at"), [(0, "forward"), (1, "forward"), (0, "backward"), (1, "backward"), (2, "backward")]
)
def test_the_error_of_a_stage_comes_out_and_no_other_stage_goes_on_waiting(failing, at):
    def fail(what, i):
        if what == at and i == 1:
            raise ZeroDivisionError("of the stage")

    stages = [Times(2.0, k == 2, fail if k == failing else lambda what, i: None) for k in range(3)]
    with pytest.raises(ZeroDivisionError, match="of the stage"):
        run(stages)
