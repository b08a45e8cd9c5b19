"""Which formats a conversion writes, by what the user named and what is installed."""

from pathlib import Path

import pytest

from edgeloop.bundle import Format
from edgeloop.convert import plan
from edgeloop.convert.form import FormLog
from edgeloop.convert.forms import tfjs_stubs
from edgeloop.convert.forms.float_operators import FloatOperator, listed
from edgeloop.convert.options import ConvertOptions
from edgeloop.convert.sources.onnx_source import _raised
from edgeloop.convert.sources.source import SourceKind
from edgeloop.errors import MissingExtra


@pytest.fixture
def no_tensorflowjs(monkeypatch):
    monkeypatch.setattr(tfjs_stubs.importlib.util, "find_spec", lambda name: None)


def told(notes):
    return FormLog("m.keras", Path("b"), notes.append)


def test_without_tensorflowjs_the_other_formats_are_written_and_a_note_says_how_to_get_it(no_tensorflowjs):
    notes: list[str] = []
    formats = plan.wanted_formats(ConvertOptions(), SourceKind.KERAS, told(notes))
    assert formats == {Format.TFLITE, Format.ONNX}
    assert notes == [
        "tfjs was not written: 'tensorflowjs' is not installed. Run: edgeloop setup tfjs, or leave tfjs out of --to."
    ]


def test_without_tensorflowjs_tfjs_by_name_is_an_error(no_tensorflowjs):
    with pytest.raises(MissingExtra, match="Run: edgeloop setup tfjs"):
        plan.wanted_formats(ConvertOptions(to=(Format.TFJS,)), SourceKind.KERAS, told([]))


def test_a_tflite_never_asks_for_tensorflowjs(no_tensorflowjs):
    notes: list[str] = []
    assert Format.TFJS not in plan.wanted_formats(ConvertOptions(), SourceKind.TFLITE, told(notes))
    assert notes == [
        "tfjs was not written: a .tflite file cannot be converted to TF.js. "
        "Convert the Keras model or a SavedModel instead, or leave tfjs out of --to."
    ]


def test_an_unrolled_layer_is_named_once_with_the_number_of_its_operators():
    found = [FloatOperator(op="Tanh", layer=f"cell_{i}", advice="replace it") for i in range(40)]
    found.insert(1, FloatOperator(op="Expand", layer="zeros", advice="replace it"))
    assert listed(found) == (
        "Tanh of cell_0 and 39 more stayed in float (replace it); Expand of zeros stayed in float (replace it)"
    )


def test_of_a_traceback_that_ends_with_a_list_of_arguments_the_exception_is_told():
    """As Keras writes it."""
    traceback = (
        'Traceback (most recent call last):\n  File "a.py", line 1, in call\nkeras.src.InvalidArgumentError: '
        "Exception encountered when calling layer.\n\nSizes differ: 2 and 3.\n\nCall arguments:\n  • name='n_615'"
    )
    assert _raised(traceback) == (
        "keras.src.InvalidArgumentError: Exception encountered when calling layer. Sizes differ: 2 and 3. "
        "Call arguments: • name='n_615'"
    )
    assert _raised("ended by signal 9") == "ended by signal 9"
