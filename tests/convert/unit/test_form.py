"""Which forms a user names, and what becomes of one that cannot be made."""

from pathlib import Path

import pytest

from edgeloop.bundle import Format, LeftOut, Scheme, Variant
from edgeloop.convert.form import Form, FormLog, form_of, named_ids, onnx_forms, tfjs_form, tflite_forms
from edgeloop.convert.forms.recipes import Io
from edgeloop.convert.options import ConvertOptions
from edgeloop.errors import MissingExtra, ModelError

F32, INT8 = Scheme.FLOAT32, Scheme.INT8
SCHEMES = (F32, Scheme.FLOAT16, INT8)
DATA = Path("c.npz")
TFJS = Form(id="tfjs", format=Format.TFJS, scheme=F32)


def named(**options):
    options = ConvertOptions(calibration=DATA, **options)
    forms = [*tflite_forms(SCHEMES, options), *onnx_forms(SCHEMES, options), tfjs_form(F32, options)]
    return [form.id for form in forms if form.named]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, []),
        ({"to": (Format.TFLITE,)}, ["float32"]),
        ({"to": (Format.ONNX, Format.TFJS)}, ["onnx", "tfjs"]),
        ({"schemes": (INT8,)}, ["int8"]),
        ({"to": (Format.TFLITE, Format.ONNX), "schemes": (INT8,)}, ["float32", "int8", "onnx"]),
        ({"io": (Io.FLOAT32, Io.INT8)}, ["int8", "int8-io"]),
        ({"strict": True}, ["float32", "float16", "int8", "onnx", "onnx-int8", "tfjs"]),
    ],
)
def test_a_form_is_named_by_to_by_schemes_by_io_or_by_strict(options, expected):
    assert named(**options) == expected


def variant(id, scheme):
    return Variant(id, f"{id}.tflite", (f"{id}.tflite",), Format.TFLITE, scheme, ("infer",))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, []),
        ({"schemes": (INT8,)}, ["int8", "mixed"]),  # what was asked for and could not be int8
        ({"strict": True}, ["float32", "int8", "mixed"]),
    ],
)
def test_a_file_that_must_agree_is_one_that_was_named(options, expected):
    made = [variant("float32", F32), variant("int8", INT8), variant("mixed", Scheme.MIXED)]
    assert named_ids(SCHEMES, made, ConvertOptions(calibration=DATA, **options)) == expected


def test_a_tflite_that_was_taken_as_it_is_must_agree():
    assert named_ids(None, [variant("int8", INT8)], ConvertOptions()) == ["int8"]


def test_a_variant_is_asked_for_as_the_form_that_it_was_made_as():
    assert [form_of(variant(id, INT8)).io for id in ("int8", "int8-io")] == [Io.FLOAT32, Io.INT8]


def test_a_form_that_nobody_named_is_left_out_with_what_why_and_the_command():
    notes: list[str] = []
    log = FormLog("my model.keras", Path("out/b"), notes.append)
    with log.leave_out([TFJS]):
        raise ModelError("TF.js has no kernel for Erf", advice="Use tanh.", where="/home/me/my model.keras")
    assert notes == [
        "tfjs was not written: TF.js has no kernel for Erf. Use tanh. "
        "To ask for it: edgeloop convert 'my model.keras' -o b --to tfjs"
    ]
    assert log.left_out == [LeftOut("tfjs", Format.TFJS, F32, "TF.js has no kernel for Erf.")]


def test_a_form_that_was_named_fails_the_conversion():
    log = FormLog("m.keras", Path("b"), print)
    onnx = Form(id="onnx", format=Format.ONNX, scheme=F32, named=True)
    for forms in ([TFJS, onnx], []):  # of no form at all, nothing can be left out
        with pytest.raises(ModelError, match=r"^no\b"), log.leave_out(forms):
            raise ModelError("no")
    assert log.left_out == []


def test_what_is_not_installed_says_its_own_command():
    notes: list[str] = []
    with FormLog("m.keras", Path("b"), notes.append).leave_out([TFJS]):
        raise MissingExtra("tensorflowjs is not installed. Run: edgeloop setup tfjs")
    assert notes == ["tfjs was not written: tensorflowjs is not installed. Run: edgeloop setup tfjs."]


@pytest.mark.parametrize(
    ("form", "options"),
    [
        (Form(id="float32", format=Format.TFLITE, scheme=F32), "--to tflite"),
        (Form(id="int4", format=Format.TFLITE, scheme=Scheme.INT4), "--to tflite --schemes int4"),
        (
            Form(id="int8-io", format=Format.TFLITE, scheme=INT8, io=Io.INT8),
            "--to tflite --schemes int8 --io int8 --calibration F.npz",
        ),
        (Form(id="onnx-int8", format=Format.ONNX, scheme=INT8), "--to onnx --calibration F.npz --strict"),
    ],
)
def test_the_command_names_the_form(form, options):
    assert " ".join(form.request) == options
