"""The doctor on real pipelines with steps whose cost is known."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeloop.cli import run
from edgeloop.cloud.commands.doctor import difference
from edgeloop.cloud.input.doctor import diagnose as diagnose_module
from edgeloop.cloud.input.doctor.bound import Bound
from edgeloop.cloud.input.doctor.diagnose import diagnose
from edgeloop.cloud.input.doctor.measure import Subject, figures, read_only
from edgeloop.cloud.input.doctor.remedies import REMEDIES
from edgeloop.cloud.input.examples import Numbered
from edgeloop.cloud.input.options import Cache, DataOptions, PipelineOptions
from edgeloop.cloud.input.readers import open_examples
from edgeloop.cloud.train.config.read_config import read_config

tf = pytest.importorskip("tensorflow")

NAIVE = PipelineOptions(batch=8, parallel_map=1, prefetch=0, vectorised_map=False)


TOML = """
[data]
path = "{path}"
image-size = [16, 16]
held-out = 0.25
[pipeline]
batch = 8
parallel-map = 1
prefetch = 0
cache = "{cache}"
[model]
name = "small-cnn"
[loop]
epochs = 1
"""


@pytest.fixture
def images(folder):
    return open_examples(DataOptions(path=folder))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """64 images that take long to decode: 128x128 noise."""
    folder = tmp_path_factory.mktemp("noise")
    values = np.random.default_rng(0).integers(0, 256, (64, 128, 128, 3), np.uint8)
    for k, image in enumerate(values):
        file = folder / "ab"[k % 2] / f"{k}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(tf.io.encode_png(image).numpy())
    return folder


RATES = {  # examples per second that each change is made to have, times those of the pipeline without it
    "cache": (2.0, True),
    "parallel_map": (0.8, False),
    "vectorised_map": (1.01, False),
    "prefetch": (1.5, True),
    "batch": (4.0, False),
}


def told(monkeypatch, images, rates):
    """The diagnosis where pipelines have these rates: no test judges by a clock."""

    def both(subject, examples, options):
        cached_now = isinstance(examples.source, Numbered) and examples.source.in_memory
        rate = 100.0 * (rates["cache"] if cached_now else 1.0)
        for name, value in (("parallel_map", 0), ("vectorised_map", True), ("prefetch", None), ("batch", 32)):
            rate *= rates[name] if getattr(options, name) == value else 1.0
        return lambda: rate

    monkeypatch.setattr(diagnose_module, "both", both)
    subject = Subject(examples=images, take_steps=read_only, seconds=0.01)
    return diagnose(subject, NAIVE, deadline_s=time.monotonic() + 600)


def test_the_doctor_keeps_what_helps_and_rejects_what_loses(monkeypatch, images):
    found = told(monkeypatch, images, {name: rate for name, (rate, _) in RATES.items()})
    trials = {trial.remedy.replace(" ", "_"): trial for trial in found.trials}
    for name, (rate, kept) in RATES.items():
        trial = trials["batch_size" if name == "batch" else name]
        assert trial.kept == kept, name
        assert trial.gain.median == pytest.approx(rate)
    assert found.options == replace(NAIVE, cache=Cache.MEMORY, prefetch=None)
    assert found.gain.median == pytest.approx(3.0)
    assert trials["storage_format"].gain is None  # the cache makes it needless


def test_where_nothing_helps_the_pipeline_stays(monkeypatch, images):
    found = told(monkeypatch, images, dict.fromkeys(RATES, 0.9))
    assert found.options == NAIVE and found.gain is None
    tried = [trial for trial in found.trials if trial.remedy == "storage format"]
    assert tried[0].gain.pairs == 5 and not tried[0].kept  # files were written and measured


def test_a_measured_step_takes_at_least_its_own_time(images):
    def slow(iterator, count):
        for _ in range(count):
            next(iterator)
            time.sleep(0.03)

    examples = Subject(examples=images, take_steps=slow, seconds=0.05)
    found = figures(examples, images, PipelineOptions(batch=1))
    assert found.both_s >= 0.03 and found.step_s >= 0.03
    assert 0 <= found.waiting_share < 1


def test_a_remedy_that_has_no_time_left_is_not_tried(images):
    found = diagnose(Subject(examples=images, take_steps=read_only, seconds=0.01), NAIVE, deadline_s=0.0)
    assert found.options == NAIVE and found.gain is None
    assert {trial.why for trial in found.trials if trial.change and trial.remedy != "batch size"} == {
        "There was no time left to try."
    }
    assert found.verdict.bound in Bound


def test_doctor_prints_the_toml_of_the_pipeline_that_it_chose(folder, tmp_path, capfd):
    (tmp_path / "train.toml").write_text(TOML.format(path=folder, cache="none"))
    given = read_config(tmp_path / "train.toml")
    assert (
        run(["doctor", str(tmp_path / "train.toml"), "--timeout-s", "3", "--json", "-o", str(tmp_path / "b.toml")]) == 0
    )
    document = json.loads(capfd.readouterr().out)
    chosen = read_config(tmp_path / "b.toml")
    assert document["toml"] == (tmp_path / "b.toml").read_text()
    assert difference(given.pipeline, chosen.pipeline) == document["changes"]
    assert replace(chosen, pipeline=given.pipeline) == given
    assert document["bound"] in set(Bound) and document["figures"]["batch"] == 8
    assert [trial["remedy"] for trial in document["trials"]] == [*REMEDIES, "storage format", "batch size"]


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_a_training_names_the_image_that_is_broken(folder, tmp_path, capfd, cache):
    broken = Path(shutil.copytree(folder, tmp_path / "images")) / "a" / "20.png"
    broken.write_bytes(broken.read_bytes()[:3000])
    (tmp_path / "train.toml").write_text(TOML.format(path="images", cache=cache))
    assert run(["train", str(tmp_path / "train.toml"), "-o", str(tmp_path / "run")]) == 10
    assert "20.png is damaged" in " ".join(capfd.readouterr().err.split())
