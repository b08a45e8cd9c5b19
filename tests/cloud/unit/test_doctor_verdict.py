"""What figures mean, and when a remedy is kept: decided by numbers alone."""

from dataclasses import replace

import numpy as np
import pytest

from edgeloop.cloud.input.doctor.bound import Bound, Figures, verdict
from edgeloop.cloud.input.doctor.diagnose import run_seconds
from edgeloop.cloud.input.doctor.remedies import REMEDIES
from edgeloop.cloud.input.doctor.trial import gain_of, in_turns
from edgeloop.cloud.input.options import Cache, DataOptions, PipelineOptions
from edgeloop.cloud.input.readers import open_examples

IDLE = Figures(
    batch=10,
    input_s=0.08,
    step_s=0.02,
    both_s=0.1,
    input_cpu_share=0.1,
    cpu_share=0.2,
    faults_per_s=0.0,
    memory_left_share=0.5,
    cores=4,
    threads=4,
    accelerator=False,
)


@pytest.mark.parametrize(
    ("change", "bound", "reason"),
    [
        ({}, Bound.IO, "input; up to 4 threads took 0.4 of 4 cores to make it, and waited"),
        ({"input_cpu_share": 0.9}, Bound.CPU, "up to 4 threads took 3.6 of 4 cores to make it."),
        ({"input_cpu_share": 0.2, "threads": 1}, Bound.CPU, "one thread took 0.8 of 4 cores to make it."),
        ({"cpu_share": 0.9}, Bound.CPU, "80% of a step's time is spent on its input"),
        ({"cpu_share": 0.9, "accelerator": True}, Bound.IO, "80%"),
        ({"both_s": 0.022}, Bound.CPU, "Only 9% of a step's time is spent on its input"),
        ({"both_s": 0.022, "accelerator": True}, Bound.ACCELERATOR, "Only 9%"),
        ({"memory_left_share": 0.01}, Bound.MEMORY, "1% of the memory is left"),
        ({"faults_per_s": 900.0, "memory_left_share": None}, Bound.MEMORY, "900 page faults/s"),
    ],
)
def test_figures_say_what_limits_a_training(change, bound, reason):
    found = verdict(replace(IDLE, **change))
    assert found.bound is bound
    assert reason in found.reason


def test_a_gain_needs_three_of_four_pairs_and_more_than_three_percent():
    old = [100.0] * 8
    assert gain_of(old, [130, 120, 125, 131, 128, 99, 127, 126]).helps
    assert not gain_of(old, [130, 90, 125, 95, 128, 99, 127, 96]).helps  # half of the pairs: noise
    assert not gain_of(old, [102] * 8).helps
    assert str(gain_of(old, [200] * 8)) == "2.00x [2.00, 2.00]"


def test_runs_take_turns_and_go_first_in_turns():
    order = []

    def run(name, value):
        order.append(name)
        return value

    gain = in_turns(lambda: run("old", 10.0), lambda: run("new", 25.0), 4)
    assert order == ["old", "new", "new", "old"] * 2
    assert (gain.median, gain.pairs) == (2.5, 4)


def test_remedies_that_change_nothing_are_left_out(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.zeros((4, 2), np.float32), y=np.zeros(4, np.int64))
    rows = open_examples(DataOptions(path=tmp_path / "d.npz"))
    naive = PipelineOptions(parallel_map=1, prefetch=0, vectorised_map=False, parallel_reads=1)
    found = {name: dict(remedy(naive, rows)) for name, remedy in REMEDIES.items()}
    assert found == {
        "cache": {},  # arrays are in memory
        "parallel reads": {},  # there is one file
        "parallel map": {"parallel_map": 0},
        "vectorised map": {"vectorised_map": True},
        "prefetch": {"prefetch": None},
    }
    assert dict(REMEDIES["cache"](replace(naive, cache=Cache.DISK), rows)) == {}


def test_all_short_runs_fit_into_the_time():
    assert 100 * run_seconds(60) < 60
    assert run_seconds(1e9) == 1.0
