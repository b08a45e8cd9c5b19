"""Options from a file: typed, with the nearest key for one that is unknown."""

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

from edgeloop import settings
from edgeloop.errors import DataError, OptionsError


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    learning_rate: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Training:
    data: Path
    epochs: int = 1
    shuffle: bool = True
    color: Color | None = None
    shape: tuple[int, int] = (1, 1)
    names: tuple[str, ...] = ()
    optimizer: Optimizer = Optimizer()
    tags: dict[str, int] | None = None


def test_a_file_becomes_a_dataclass_with_its_nested_ones(tmp_path):
    file = tmp_path / "t.toml"
    file.write_text(
        'data = "d.npz"\nepochs = 3\ncolor = "blue"\nshape = [2, 3]\nnames = ["a", "b"]\n'
        "[optimizer]\nlearning-rate = 1\n[tags]\nx = 4\n"
    )
    made = settings.build(Training, settings.read_toml(file), "t.toml")
    assert made == Training(
        data=Path("d.npz"), epochs=3, color=Color.BLUE, shape=(2, 3), names=("a", "b"),
        optimizer=Optimizer(learning_rate=1.0), tags={"x": 4},
    )  # fmt: skip
    assert type(made.optimizer.learning_rate) is float


WRONG = {
    "an unknown key": ({"data": "d", "epoch": 3}, "t.toml: epoch is not known. Did you mean epochs? Choose from data"),
    "an unknown key of a table": (
        {"data": "d", "optimizer": {"learning": 1}},
        "t.toml: optimizer: learning is not known. Did you mean learning-rate? Choose from learning-rate.",
    ),
    "a text for a number": ({"data": "d", "epochs": "3"}, "t.toml: epochs is '3'. It must be a whole number."),
    "a fraction for a whole number": ({"data": "d", "epochs": 1.5}, "epochs is 1.5. It must be a whole number."),
    "true for a number": ({"data": "d", "epochs": True}, "epochs is True. It must be a whole number."),
    "a number for true or false": ({"data": "d", "shuffle": 1}, "shuffle is 1. It must be true or false."),
    "a number for a path": ({"data": 1}, "data is 1. It must be a path."),
    "three for two": ({"data": "d", "shape": [1, 2, 3]}, "a list of 2: a whole number, a whole number."),
    "one wrong of a list": ({"data": "d", "names": ["a", 2]}, "names[1] is 2. It must be a text in quotes."),
    "a text for a list": ({"data": "d", "names": "a"}, "names is 'a'. It must be a list, each a text in quotes."),
    "no choice": ({"data": "d", "color": "rad"}, "color 'rad' is not known. Did you mean red? Choose from red, blue."),
    "a list for a choice": ({"data": "d", "color": ["red"]}, "\"['red']\" is not known. Did you mean red?"),
    "a value for a table": ({"data": "d", "optimizer": 1}, "optimizer is 1. It must be a table."),
    "a value for a mapping": ({"data": "d", "tags": [1]}, "tags is [1]. It must be a table."),
    "a missing field": ({}, "t.toml: data is missing. Add it."),
    "the same key twice": ({"data": "d", "learning_rate": 1, "learning-rate": 2}, "given twice"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_with_the_key_and_what_it_must_be(case):
    given, message = WRONG[case]
    kind: Any = Optimizer if "twice" in message else Training
    if kind is Optimizer:
        given.pop("data")
    with pytest.raises(OptionsError) as refused:
        settings.build(kind, given, "t.toml")
    assert message in str(refused.value)


def test_a_file_that_is_no_toml_is_named(tmp_path):
    (tmp_path / "a.toml").write_text("a = ")
    with pytest.raises(DataError, match=r"a\.toml is not valid TOML: Invalid value"):
        settings.read_toml(tmp_path / "a.toml")
    (tmp_path / "b.toml").write_bytes(b"\xff")
    with pytest.raises(DataError, match="not valid TOML"):
        settings.read_toml(tmp_path / "b.toml")
    with pytest.raises(DataError, match=r"none\.toml cannot be read: No such file"):
        settings.read_toml(tmp_path / "none.toml")


def test_a_long_list_is_left_out_where_one_of_it_is_near():
    names = [f"name-{i:02}" for i in range(21)]
    assert settings.suggestion("nam-07", names) == "Did you mean name-07?"
    assert settings.suggestion("qqq", names) == f"Choose from {', '.join(names)}."
    assert settings.suggestion("nam-07", names[:8]) == f"Did you mean name-07? Choose from {', '.join(names[:8])}."


def test_the_choice_of_an_option_is_found_inside_its_annotation():
    assert settings.choice_of(Annotated[list[Color] | None, "help"]) is Color
    assert settings.choice_of(Annotated[Color, "help"]) is Color
    assert settings.choice_of(list[int]) is None
    assert settings.plain(Annotated[int | None, "help"]) is int
