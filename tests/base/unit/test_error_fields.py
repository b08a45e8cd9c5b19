"""Errors carry what was found, what to do and where; the text is composed of them, and they cross processes whole."""

import json
import pickle
import sys

import pytest

from edgeloop.errors import (
    ERRORS,
    DeviceError,
    EdgeloopError,
    ModelError,
    OptionsError,
    TargetError,
    error_from_json,
    error_to_json,
    last_line,
    one_line,
)

WHOLE = "int8 needs at least 16 calibration samples, got 0. Pass real inputs."
SPLIT = OptionsError("int8 needs at least 16 calibration samples, got 0", advice="Pass real inputs.")
ON_DEVICE = DeviceError("the agent ended during run", advice="Take another runtime.", where="litert on local")


def test_the_text_is_where_found_and_advice_in_one_line():
    assert str(SPLIT) == WHOLE
    assert str(ON_DEVICE) == "litert on local: the agent ended during run. Take another runtime."
    assert str(DeviceError("no answer", where="pi")) == "pi: no answer"
    assert str(DeviceError("is it alive?", advice="Switch it on.")) == "is it alive? Switch it on."
    assert str(ModelError("m.h5: line one\n  line two")) == "m.h5: line one line two"
    assert str(EdgeloopError()) == ""


def test_a_whole_message_stays_as_it_was_written():
    assert str(OptionsError(WHOLE)) == WHOLE
    assert str(ModelError("it is not installed. Run: edgeloop setup device")).endswith("edgeloop setup device")
    assert str(ModelError(ValueError("a cause"))) == "a cause"


def test_found_goes_into_another_sentence_without_its_full_stop():
    assert (SPLIT.found, SPLIT.advice, SPLIT.where) == (WHOLE.split(".")[0], "Pass real inputs.", "")
    assert DeviceError("no answer.").found == "no answer"
    assert (ON_DEVICE.clause, DeviceError("no answer.").clause) == (
        "litert on local: the agent ended during run",
        "no answer",
    )


def test_an_error_of_a_thing_inside_of_another_names_both():
    inside = ON_DEVICE.at("local")
    assert str(inside) == "local: litert on local: the agent ended during run. Take another runtime."
    assert (type(inside), inside.where) == (DeviceError, "local")


def test_json_names_the_class_the_exit_code_what_was_found_and_what_to_do():
    assert SPLIT.to_json() == {
        "type": "OptionsError",
        "exit_code": 2,
        "found": "int8 needs at least 16 calibration samples, got 0.",
        "advice": "Pass real inputs.",
    }
    assert ON_DEVICE.to_json()["found"] == "litert on local: the agent ended during run."


@pytest.mark.parametrize("error", [SPLIT, ON_DEVICE, *(kind("found.", advice="Do.") for kind in ERRORS.values())])
def test_class_and_text_survive_json_and_pickle(error):
    told = error_from_json(json.loads(json.dumps(error.to_json())))
    pickled = pickle.loads(pickle.dumps(error))
    assert type(told) is type(pickled) is type(error)
    assert str(told) == str(pickled) == str(error)
    assert (told.advice, pickled.where) == (error.advice, error.where)


def test_an_exception_that_is_not_ours_is_named_and_takes_the_class_it_is_given():
    said = error_to_json(ValueError("no tensor\n x"))
    assert said == {"type": "ValueError", "exit_code": 1, "found": "no tensor\n x", "advice": ""}
    error = error_from_json(said, TargetError, where="litert on pi", doing="run")
    assert type(error) is TargetError
    assert str(error) == "litert on pi: run failed with ValueError: no tensor x"


@pytest.mark.parametrize(
    "said", [None, [], "boom", {}, {"type": ["x"]}, {"type": "Exception"}, {"type": "one_line", "found": {}}]
)
def test_what_describes_no_error_is_still_one_of_ours(said):
    error = error_from_json(said, where="pi", doing="run")
    assert type(error) is DeviceError
    assert str(error).startswith("pi: run failed with ")


def test_a_package_that_a_device_lacks_comes_with_what_installs_it():
    told = error_from_json(error_to_json(ModuleNotFoundError("none", name="ai_edge_litert.interpreter")), doing="probe")
    assert str(told) == (
        f"probe failed with ModuleNotFoundError: none. Run there: {sys.executable} -m pip install ai-edge-litert"
    )


def test_what_a_hostile_process_says_is_cut():
    assert len(str(error_from_json({"type": "ModelError", "found": "x" * 10**6, "advice": "y" * 10**6}))) < 5000


def test_foreign_words_become_one_short_line():
    assert one_line("a\n\t b   c ") == "a b c"
    assert one_line("x" * 1000) == "x" * 299 + "…"
    assert one_line("x" * 300) == "x" * 300
    assert last_line(b"first\nlast \x1b[31mword.\n\n") == "last ?[31mword"
    assert last_line("") == ""


def test_a_reader_who_sees_where_beside_it_is_not_told_twice():
    assert ON_DEVICE.told_beside("litert on local") == "the agent ended during run. Take another runtime."
    assert ON_DEVICE.told_beside("pi") == str(ON_DEVICE)
