"""train.toml: what is read, what is refused, and that what is written is read again."""

import dataclasses
import datetime
from pathlib import Path

import pytest

from edgeloop.cloud.train.config.read_config import read_config
from edgeloop.cloud.train.config.tables import Precision, Scaling
from edgeloop.cloud.train.config.train_config import TrainConfig, with_own_place
from edgeloop.cloud.train.config.write_config import to_toml
from edgeloop.cloud.train.data.data_config import DataConfig
from edgeloop.cloud.train.strategies.choose import Links
from edgeloop.cloud.train.strategies.strategies import Strategy
from edgeloop.cloud.train.strategies.strategy_config import StrategyConfig
from edgeloop.errors import DataError, OptionsError

SMALL = '[data]\npath = "x.npz"\n'


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        (tmp_path / "train.toml").write_text(text)
        return tmp_path / "train.toml"

    return write


def test_a_path_in_the_file_is_relative_to_the_file_and_one_of_the_shell_to_the_shell(write, tmp_path):
    path = write(SMALL + 'validation = "v.npz"\n[model]\nname = "m.keras"\n')
    config = read_config(path, ["data.path=other.npz"])
    assert config.data.path == Path("other.npz")
    assert config.data.validation == tmp_path / "v.npz"
    assert config.model.name == str(tmp_path / "m.keras")


def test_a_key_is_set_from_the_shell_with_or_without_quotes(write):
    changes = ["data.batch=64", "optimizer.learning-rate=0.5", "optimizer.name=sgd", 'optimizer.options.momentum=0.9',
               "strategy.links='slow'"]  # fmt: skip
    config = read_config(write(SMALL + "[optimizer]\nlearning_rate = 3.0\n"), changes)
    assert (config.pipeline.batch, config.optimizer.learning_rate, config.optimizer.name) == (64, 0.5, "sgd")
    assert config.optimizer.options == {"momentum": 0.9} and config.strategy.links == Links.SLOW


def test_a_text_is_short_for_the_first_key_of_its_table(write):
    config = read_config(write('strategy = "mirrored"\nmodel = "mlp"\ndata = "x.npz"\n'))
    assert (config.strategy.name, config.model.name) == (Strategy.MIRRORED, "mlp")
    assert config.data.path.name == "x.npz"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[dta]\n", "dta is not known. Did you mean data"),
        (SMALL + "bacth = 3\n", "data: bacth is not known. Did you mean batch"),
        (SMALL + "[strategy]\nname = 'mirored'\n", "'mirored' is not known. Did you mean mirrored"),
        (SMALL + "batch = 'many'\n", "pipeline: batch is 'many'. It must be a whole number"),
        ("[model]\n", "data is missing"),
        (SMALL + "batch = 10\n[memory]\naccumulate = 4\n", "batch is 10, which 4 equal parts cannot make up"),
        (
            SMALL + "[strategy]\nname = 'mirrored'\nstages = 2\n",
            "replicas and micro-batches are of the strategy pipeline",
        ),
        (SMALL + "[strategy]\nstages = 1\n", "stages is 1. It must be 2 or more"),
        (SMALL + "[loop]\nepochs = 0\n", "epochs is 0. It must be 1 or more"),
        (SMALL + "[optimizer]\nlearning-rate = -1.0\n", "learning-rate is -1. It must be a number above 0"),
    ],
)
def test_what_is_wrong_is_named_with_what_it_must_be(write, text, said):
    with pytest.raises(OptionsError, match=said.replace("[", r"\[")):
        read_config(write(text))


@pytest.mark.parametrize("change", ["batch=3", "data.batch", "=3", "data.=3"])
def test_a_change_is_table_key_and_value(write, change):
    with pytest.raises(OptionsError, match=r"Write TABLE\.KEY=VALUE"):
        read_config(write(SMALL), [change])


def test_a_file_that_is_no_toml_is_data_refused(write):
    with pytest.raises(DataError, match="not valid TOML"):
        read_config(write("[data\n"))


def test_what_is_written_is_read_as_the_same_config(write):
    schema = {"a b": "float32[6]", "image_raw": "image"}
    config = TrainConfig(data=DataConfig(path=Path('/a "b"\\c\n.npz'), validation=Path("/v.npz"), schema=schema))
    memory = dataclasses.replace(config.memory, precision=Precision.BFLOAT16)
    model = dataclasses.replace(config.model, options={"hidden": [32, 16], "include_top": False})
    optimizer = dataclasses.replace(
        config.optimizer, learning_rate=1e-05, scaling=Scaling.NONE, options={"beta_1": 0.8}
    )
    callbacks = dataclasses.replace(config.callbacks, epoch=("a:b",))
    config = dataclasses.replace(config, memory=memory, model=model, optimizer=optimizer, callbacks=callbacks)
    again = read_config(write(to_toml(config)))
    assert again == dataclasses.replace(config, model=dataclasses.replace(model, options=again.model.options))
    assert again.model.options == model.options


def test_options_of_any_shape_are_read_again(write):
    options = {
        "blocks": [{"filters": 3, 'a "b" c': [1.5, {"same": True}]}, {}, [[], ["x"]]],
        "nested": {"deep": {"empty": {}, "d.e": -1}, "more": [{}]},
        "since": datetime.date(2026, 11, 30),
    }
    config = read_config(write(SMALL))
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, options=options))
    assert read_config(write(to_toml(config))).model.options == options


def test_what_is_written_names_the_same_files_from_every_folder(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = Path.cwd()
    changes = ["data.path=other.npz", "model.name=m.keras", "checkpoints.place=kept"]
    text = to_toml(read_config(write(SMALL), changes))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "config.toml").write_text(text)
    again = read_config(tmp_path / "elsewhere" / "config.toml")
    assert again.data.path == here / "other.npz"
    assert (again.model.name, again.checkpoints.place) == (str(here / "m.keras"), str(here / "kept"))


@pytest.mark.parametrize(
    ("place", "becomes"), [("kept", "{0}/kept"), ("/kept", "/kept"), ("s3://bucket/run", "s3://bucket/run"), ("", "")]
)
def test_a_place_of_checkpoints_is_relative_to_the_file_unless_it_is_an_address(write, tmp_path, place, becomes):
    config = read_config(write(SMALL + f'[checkpoints]\nplace = "{place}"\n'))
    assert config.checkpoints.place == becomes.format(tmp_path)
    assert read_config(write(to_toml(config))).checkpoints == config.checkpoints


def test_the_first_step_may_take_twice_the_hang_timeout_and_ten_minutes_at_least():
    timeouts = [StrategyConfig(hang_timeout_s=hang).first_step_timeout_s for hang in (8, 300, 1000)]
    assert timeouts == [600, 600, 2000]


def test_each_of_several_runs_has_a_folder_of_its_own_in_the_place_of_checkpoints(tmp_path):
    file = tmp_path / "train.toml"
    file.write_text('[data]\npath = "d.npz"\n[checkpoints]\nplace = "s3://bucket/run/"\n')
    config = read_config(file)
    assert with_own_place(config, "student-1").checkpoints.place == "s3://bucket/run/student-1"
    plain = read_config(file, ["checkpoints.place=''"])
    assert with_own_place(plain, "student-1") == plain
