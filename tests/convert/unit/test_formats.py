"""Which formats a conversion writes, by what the user named and what is installed."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeloop.bundle import Format, Scheme
from edgeloop.convert import plan
from edgeloop.convert.exports import graph_variants, tflite_variants
from edgeloop.convert.exports.variant import export_variant, no_smaller
from edgeloop.convert.form import FormLog
from edgeloop.convert.forms import tfjs_stubs
from edgeloop.convert.forms.float_operators import FloatOperator, listed
from edgeloop.convert.forms.graph_nodes import CHANGE, change_advice
from edgeloop.convert.forms.onnx_int8 import OnnxInt8
from edgeloop.convert.options import ConvertOptions
from edgeloop.convert.sources.source import SourceKind
from edgeloop.errors import MissingExtra, ModelError
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
    float32 = bytes(9_000)
    assert no_smaller(bytes(8_999), float32) == ()
    equal, larger = no_smaller(float32, float32), no_smaller(bytes(10_000), float32)
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
        "weights, and int8 adds scales and conversions. Use the float32 file. "
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


@pytest.mark.parametrize(("size", "written"), [(8_999, ["float32", "mixed"]), (9_000, ["float32"])])
def test_a_mixed_file_is_written_instead_of_int8_only_where_it_is_smaller_than_float32(monkeypatch, size, written):
    def make(job, form):
        if form.scheme is Scheme.INT8:
            raise ModelError("the model cannot be fully int8: SIN stayed in float", advice="Replace it.")
        data = job.float32 if form.scheme is Scheme.FLOAT32 else bytes(size)
        return export_variant(form.id, Format.ONNX, form.scheme, (), {form.id: data}, "int8, but SIN")

    monkeypatch.setattr(tflite_variants, "lower_source", lambda source, *_: (bytes(9_000), source))
    monkeypatch.setattr(tflite_variants.tflite, "calibrate", lambda *_: object())
    monkeypatch.setattr(tflite_variants, "_tflite", make)
    plan_ = SimpleNamespace(
        formats={Format.TFLITE}, schemes=(Scheme.FLOAT32, Scheme.INT8), calibration=object(), expected={},
        options=ConvertOptions(calibration=Path("c.npz")),
    )  # fmt: skip
    notes: list[str] = []
    source = SimpleNamespace(inputs=(), outputs=(), flatbuffer=None)
    made = tflite_variants.tflite_variants(source, None, plan_, told(notes), silent)
    assert [one.variant.id for one in made] == written
    assert notes[-1] == (
        "mixed was written instead of int8: int8, but SIN."
        if "mixed" in written
        else "mixed was not written: not smaller than the float32 file (9,000 and 9,000 bytes): the model has few "
        "weights, and int8 adds scales and conversions. Use the float32 file. "
        "To ask for it: edgeloop convert m.keras -o b --to tflite --schemes mixed --calibration F.npz"
    )


def test_an_operation_with_parts_that_tflite_and_tfjs_have_is_refused_with_these():
    def graph(*operations, inner=()):
        function = SimpleNamespace(node_def=[SimpleNamespace(op=op) for op in inner])
        return SimpleNamespace(
            node=[SimpleNamespace(op=op) for op in operations], library=SimpleNamespace(function=[function])
        )

    padded = "Call tf.image.non_max_suppression_padded for each class instead."
    assert change_advice(graph("Relu", "CombinedNonMaxSuppression")) == padded
    assert change_advice(graph("While", inner=["CombinedNonMaxSuppression"])) == padded
    assert change_advice(graph("Relu")) == CHANGE
