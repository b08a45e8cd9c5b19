"""The doctor on real pipelines with steps whose cost is known."""

import time

import numpy as np
import pytest

from edgeloop.cloud.input.doctor.bound import Bound
from edgeloop.cloud.input.doctor.diagnose import diagnose
from edgeloop.cloud.input.doctor.measure import Subject, figures, read_only
from edgeloop.cloud.input.options import Cache, DataOptions, PipelineOptions
from edgeloop.cloud.input.readers import open_examples

tf = pytest.importorskip("tensorflow")

NAIVE = PipelineOptions(batch=8, parallel_map=1, prefetch=0, vectorised_map=False)


@pytest.fixture
def images(tmp_path):
    """64 images that take long to decode: 256x256 noise."""
    values = np.random.default_rng(0).integers(0, 256, (64, 256, 256, 3), np.uint8)
    for k, image in enumerate(values):
        file = tmp_path / "ab"[k % 2] / f"{k}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(tf.io.encode_png(image).numpy())
    return open_examples(DataOptions(path=tmp_path))


def test_a_step_without_cost_waits_for_its_input_and_a_cache_is_kept(images):
    found = diagnose(
        Subject(examples=images, take_steps=read_only, seconds=0.03), NAIVE, deadline_s=time.monotonic() + 60
    )
    assert found.before.waiting_share > 0.5  # decoding a PNG against handing out a tensor
    trials = {trial.remedy: trial for trial in found.trials}
    assert trials["cache"].kept and found.options.cache is Cache.MEMORY
    assert found.gain is not None and found.gain.helps
    assert not trials["batch size"].kept and trials["batch size"].change == {"batch": 32}
    assert trials["storage format"].gain is None  # the cache makes it needless


def test_a_step_that_sleeps_hides_its_input(images):
    def slow(iterator, count):
        for _ in range(count):
            next(iterator)
            time.sleep(0.2)

    examples = Subject(examples=images, take_steps=slow, seconds=0.05)
    found = figures(examples, images, PipelineOptions(batch=1))
    assert found.both_s >= 0.2 and found.step_s >= 0.2
    assert found.waiting_share < 0.5


def test_a_remedy_that_has_no_time_left_is_not_tried(images):
    found = diagnose(Subject(examples=images, take_steps=read_only, seconds=0.01), NAIVE, deadline_s=0.0)
    assert found.options == NAIVE and found.gain is None
    assert {trial.why for trial in found.trials if trial.change and trial.remedy != "batch size"} == {
        "There was no time left to try."
    }
    assert found.verdict.bound in Bound
