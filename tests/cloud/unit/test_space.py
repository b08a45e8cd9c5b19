"""What a search space may say."""

import shlex

import pytest

from edgeloop.cloud.commands import tune
from edgeloop.cloud.train.config.read_config import read_config
from edgeloop.cloud.train.study.forecast import ForecastOptions
from edgeloop.cloud.train.study.search import SearchOptions, Trial, changes, first_value
from edgeloop.cloud.train.study.space import Between, Scale, read_space
from edgeloop.errors import OptionsError


def test_lists_and_limits_are_read_and_whole_limits_stay_whole(tmp_path):
    file = tmp_path / "space.toml"
    file.write_text(
        '"pipeline.batch" = [16, 32]\n"loop.epochs" = { low = 2, high = 8 }\n'
        '"optimizer.learning-rate" = { low = 1e-4, high = 0.1, scale = "log" }\n'
    )
    space = read_space(file)
    assert space["pipeline.batch"] == (16, 32)
    assert space["loop.epochs"] == Between(low=2, high=8)
    assert isinstance(space["loop.epochs"].low, int)
    assert space["optimizer.learning-rate"] == Between(low=1e-4, high=0.1, scale=Scale.LOG)
    first = {key: first_value(values) for key, values in space.items()}
    assert changes(first) == ["pipeline.batch=16", "loop.epochs=2", "optimizer.learning-rate=0.0001"]
    assert changes({"optimizer.name": "sgd"}) == ['optimizer.name="sgd"']


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no key to search"),
        ("[pipeline]\nbatch = [16, 32]\n", "pipeline has nothing to choose from"),
        ('"pipeline.batch" = [16]\n', "pipeline.batch has nothing to choose from"),
        ('"a.b" = { low = 2, high = 2 }\n', "low is 2 and high is 2"),
        ('"a.b" = { low = 0, high = 2, scale = "log" }\n', "low is 0 and high is 2"),
        ('"a.b" = { low = 0, high = 2, scale = "lgo" }\n', "lgo"),
    ],
)
def test_a_space_that_says_nothing_is_refused(tmp_path, text, words):
    file = tmp_path / "space.toml"
    file.write_text(text)
    with pytest.raises(OptionsError, match=words):
        read_space(file)


def test_a_forecast_of_less_data_and_a_search_of_no_trials_are_refused():
    with pytest.raises(OptionsError, match="--factor is 1"):
        ForecastOptions(factors=(2.0, 1.0))
    with pytest.raises(OptionsError, match="--trials is 0"):
        SearchOptions(trials=0)


def test_the_last_line_of_a_search_repeats_its_best_trial(tmp_path, monkeypatch):
    file = tmp_path / "my train.toml"
    file.write_text('[data]\npath = "x.npz"\n')
    (tmp_path / "space.toml").write_text('"optimizer.name" = ["sgd", "adam"]\n"pipeline.batch" = [16, 32]\n')
    best = {"optimizer.name": "sgd", "pipeline.batch": 16}
    other = {"optimizer.name": "adam", "pipeline.batch": 32}
    found = [
        Trial(number="1", changes=best, loss=0.5, error="", run=tmp_path / "1"),
        Trial(number="0", changes=other, loss=None, error="out of memory", run=tmp_path / "0"),
    ]
    monkeypatch.setattr(tune, "search_space", lambda *given: found)
    monkeypatch.setattr(tune, "_trainer", lambda ctx: None)
    (line,) = tune.search(None, file, tmp_path / "space.toml", tmp_path, changes=["loop.epochs=3"]).notes
    _, verb, training, out, _, *words = shlex.split(line.partition(": ")[2])
    assert (verb, training, out, set(words[::2])) == ("train", str(file), "-o", {"--set"})
    config = read_config(file, words[1::2])
    assert (config.optimizer.name, config.pipeline.batch, config.loop.epochs) == ("sgd", 16, 3)
