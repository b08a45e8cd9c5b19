"""What a search space may say."""

import pytest

from edgeloop.cloud.train.study.forecast import ForecastOptions
from edgeloop.cloud.train.study.search import SearchOptions, changes, first_value
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
