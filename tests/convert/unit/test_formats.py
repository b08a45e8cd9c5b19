"""Which formats a conversion writes, by what the user named and what is installed."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeloop.bundle import Format, Scheme
from edgeloop.convert import plan
from edgeloop.convert.exports import graph_variants
from edgeloop.convert.exports.graph_variants import no_smaller
from edgeloop.convert.form import FormLog
from edgeloop.convert.forms import tfjs_stubs
from edgeloop.convert.forms.float_operators import FloatOperator, listed
from edgeloop.convert.forms.onnx_int8 import OnnxInt8
from edgeloop.convert.options import ConvertOptions
from edgeloop.convert.sources.source import SourceKind
from edgeloop.errors import MissingExtra
from edgeloop.progress import silent


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


def test_an_int8_file_that_is_not_smaller_says_so_in_bytes():
    assert no_smaller(8_999, 9_000) == ()
    equal, larger = no_smaller(9_000, 9_000), no_smaller(10_000, 9_000)
    assert equal[0].startswith("not smaller than the float32 file (9,000 and 9,000 bytes)")
    assert larger == (
        "not smaller than the float32 file (10,000 and 9,000 bytes): the model has few weights, "
        "and int8 adds scales and conversions.",
    )


@pytest.mark.parametrize(
    ("options", "written"),
    [
        ({}, ["onnx"]),
        ({"schemes": (Scheme.INT8,)}, ["onnx", "onnx-int8"]),
        ({"strict": True}, ["onnx", "onnx-int8"]),
        ({"to": (Format.ONNX,)}, ["onnx", "onnx-int8"]),
        ({"to": (Format.TFLITE, Format.ONNX)}, ["onnx"]),
    ],
)
def test_an_int8_onnx_that_saves_nothing_is_left_out_where_nobody_asked_for_it(monkeypatch, options, written):
    monkeypatch.setattr(graph_variants, "to_int8", lambda *_: OnnxInt8(data=bytes(9_001), left=()))
    monkeypatch.setattr(graph_variants.onnx, "to_onnx", lambda *_: bytes(9_000))
    options, source = (
        ConvertOptions(calibration=Path("c.npz"), **options),
        SimpleNamespace(inputs=(), signature="infer"),
    )
    formats = {*(options.to or plan.WRITABLE)}
    plan_ = SimpleNamespace(formats=formats, schemes=(Scheme.INT8,), options=options, calibration=object())
    notes: list[str] = []
    made = graph_variants.onnx_variants(source, SimpleNamespace(functional=None), plan_, told(notes), silent)
    assert [one.variant.id for one in made] == written
    left_out = (
        "onnx-int8 was not written: not smaller than the float32 file (9,001 and 9,000 bytes): the model has few "
        "weights, and int8 adds scales and conversions. Use the float32 ONNX file. "
        "To ask for it: edgeloop convert m.keras -o b --to onnx --calibration F.npz --strict"
    )
    assert notes == ([left_out] if len(written) == 1 else [])


@pytest.mark.parametrize(("rounds", "states"), [(None, False), ("dynamic", False), ("int8", True)])
def test_without_calibration_int8_is_made_of_a_model_that_states_its_ranges_and_of_no_other(rounds, states):
    from edgeloop.bundle import Kind, TensorSpec
    from edgeloop.convert.sources.source_value import Source

    x = TensorSpec("x", (None, 3), "float32", Kind.OTHER)
    source = Source(
        path=Path("m.onnx"), kind=SourceKind.ONNX, sha256="", signature="infer", inputs=(x,), outputs=(x,), call=dict,
        rounds=rounds and Scheme(rounds),
    )  # fmt: skip
    notes: list[str] = []
    _, schemes = plan.choose_formats_and_schemes(source, frozenset({Format.TFLITE}), ConvertOptions(), notes.append)
    assert (Scheme.INT8 in schemes) is states
    stated = "int8 is made with the ranges that the model states; others are measured on generated inputs."
    assert (notes == [stated]) is states
