"""Searches, ablations and forecasts over real trainings of small models."""

from functools import partial

import numpy as np
import pytest

from edgeloop.cloud.train.config.read_config import read_config
from edgeloop.cloud.train.run.run_folder import holds_run
from edgeloop.cloud.train.study.ablation import ablate
from edgeloop.cloud.train.study.forecast import ForecastOptions, forecast_data
from edgeloop.cloud.train.study.search import Method, SearchOptions, search
from edgeloop.cloud.train.study.space import Between, Scale
from edgeloop.cloud.train.trainer import train_run
from edgeloop.errors import OptionsError, WriteError

pytest.importorskip("tensorflow")
pytest.importorskip("keras")

TRAINING = """
[data]
path = "data.npz"
held-out = 0.25
[pipeline]
batch = 16
[model]
name = "mlp"
[loop]
epochs = 4
[optimizer]
learning-rate = 0.02
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The label is the sign of `useful`; `noise` knows nothing of it."""
    path = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(0)
    useful, noise = rng.normal(size=(2, 640, 2)).astype(np.float32)
    np.savez(path / "data.npz", useful=useful, noise=noise, y=(useful[:, 0] > 0).astype(np.int64))
    (path / "train.toml").write_text(TRAINING)
    return path


def test_a_search_finds_the_rate_that_trains_and_goes_on_where_it_was(folder):
    configure = partial(read_config, folder / "train.toml")
    space = {"optimizer.learning-rate": (1e-6, 0.02), "loop.epochs": (4, 5)}
    ran = []

    def train(config, out):
        ran.append(out.name)

        def interrupt(what, done, total):
            if len(ran) == 3 and done > 30:  # in the second epoch
                raise KeyboardInterrupt

        return train_run(config, out, resume=holds_run(out), progress=interrupt)

    options = SearchOptions(trials=4, method=Method.RANDOM)
    with pytest.raises(KeyboardInterrupt):
        search(configure, train, space, folder / "search", options)
    trials = search(configure, train, space, folder / "search", options)
    assert ran == ["0", "1", "2", "2", "3"]  # two whole, one that was interrupted and goes on
    assert all(trial.loss is not None for trial in trials)
    assert trials[0].changes["optimizer.learning-rate"] == 0.02
    assert trials[0].loss < trials[-1].loss
    assert (trials[0].run / "model.keras").is_file()


def test_an_unknown_key_ends_a_search_before_it_trains(folder):
    space = {"optimizer.lerning-rate": Between(low=1e-4, high=0.1, scale=Scale.LOG)}
    with pytest.raises(OptionsError) as error:
        search(partial(read_config, folder / "train.toml"), train_run, space, folder / "unknown")
    assert "learning-rate" in error.value.advice


def test_the_feature_that_the_label_depends_on_is_the_most_valuable(folder):
    metric, rows = ablate(read_config(folder / "train.toml"), ("noise", "useful"), train_run, folder / "ablation")
    assert metric == "accuracy"
    assert [row.feature for row in rows] == ["", "useful", "noise"]
    # without `useful` nothing is known: 160 guesses, half right with a deviation of 0.04
    assert rows[1].score == pytest.approx(0.5, abs=0.16)
    assert rows[0].score > 0.85


def test_a_forecast_trains_on_nested_parts_and_extends_the_curve_of_their_errors(folder):
    options = ForecastOptions(factors=(2.0,), shares=(0.25, 0.5, 1.0))
    found = forecast_data(read_config(folder / "train.toml"), train_run, folder / "forecast", options)
    assert found.sizes == (120, 240, 480)
    assert found.judged_on == 160
    (expected,) = found.expected
    assert expected.size == 960
    assert 0 <= expected.low <= expected.high <= 0.5
    assert found.errors[2] < found.errors[0]


def test_a_budget_ends_a_training_after_the_epoch_that_reached_its_target_or_spent_its_time(folder):
    long = ["loop.epochs=50", "loop.patience=0"]
    target = train_run(
        read_config(folder / "train.toml", [*long, "budget.target=0.85", "optimizer.learning-rate=0.0003"]),
        folder / "target",
    )
    assert target.epochs[-1].score >= 0.85 > max(record.score for record in target.epochs[:-1])
    assert "The score has reached [budget] target (0.85)" in target.stopped
    time = train_run(read_config(folder / "train.toml", [*long, "budget.max-time-s=1e-6"]), folder / "time")
    assert len(time.epochs) == 1  # the first epoch is always trained: without it there is no model
    assert "beyond [budget] max-time-s (1e-06)" in time.stopped


def test_a_search_whose_trials_all_fail_says_why(folder):
    space = {"data.held-out": (0.0001, 0.0002)}  # of 640 examples none
    with pytest.raises(OptionsError, match=r"every trial failed; the first one: .*too few to hold out"):
        search(
            partial(read_config, folder / "train.toml"), train_run, space, folder / "failed", SearchOptions(trials=1)
        )


@pytest.mark.parametrize("error", [RuntimeError("a bug"), WriteError("the disk is full", advice="-")], ids=repr)
def test_what_is_no_fault_of_a_setting_ends_a_search_as_it_is(folder, tmp_path, error):
    def train(config, out):
        raise error

    with pytest.raises(type(error)) as raised:
        search(partial(read_config, folder / "train.toml"), train, {"loop.epochs": (1, 2)}, tmp_path)
    assert raised.value is error
