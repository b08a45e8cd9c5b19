"""A converter that crashes costs the form it was making, not the conversion."""

import numpy as np
import pytest

from edgeloop.bundle import Format, Scheme
from edgeloop.convert import convert as parent
from edgeloop.convert.convert import convert
from edgeloop.convert.options import ConvertOptions
from edgeloop.errors import ModelError

# the worker of `convert`, in which the makers of these forms crash
WORKER = """
import os, signal
from edgeloop.bundle import Scheme
from edgeloop.convert.exports import graph_variants, tflite_variants
from edgeloop.convert.build import build
from edgeloop.errors import ModelError
from edgeloop.processes.job_child import serve

crashing = {crashing}
quantize = tflite_variants.tflite.quantize

def crash(*arguments, **options):
    os.kill(os.getpid(), signal.SIGABRT)

def quantize_or_crash(float32, scheme, *rest, **options):
    return (crash if scheme.value in crashing else quantize)(float32, scheme, *rest, **options)

tflite_variants.tflite.quantize = quantize_or_crash
make = tflite_variants._tflite

def make_or_crash(job, form):
    if "mixed" in crashing and form.scheme is Scheme.INT8:
        raise ModelError("SIN stayed float32", advice="Replace it.")
    return (crash if "mixed" in crashing and form.scheme is Scheme.MIXED else make)(job, form)

tflite_variants._tflite = make_or_crash
if "onnx" in crashing:
    graph_variants.onnx.tflite_to_onnx = crash

def build_or_crash(job, events):
    if "the next attempt" in crashing and any(one.id == "float16" for one in job.left_out):
        crash()
    return build(job, events)

serve(build_or_crash)
"""


@pytest.fixture
def worker(monkeypatch):
    def crash(*forms):
        monkeypatch.setattr(parent, "WORKER", ("-c", WORKER.replace("{crashing}", repr(forms))))

    return crash


@pytest.fixture
def float32(root):
    return root / "tests" / "golden" / "bundle-1" / "float32.tflite"


def test_forms_that_crash_the_converter_are_left_out_with_the_signal_and_the_command(worker, float32, tmp_path):
    worker("float16", "onnx")
    made = convert(float32, tmp_path / "b", ConvertOptions())
    assert [variant.id for variant in made.bundle.variants] == ["float32", "dynamic"]
    assert [(one.id, one.reason) for one in made.bundle.manifest.left_out if one.id != "tfjs"] == [
        ("float16", "the converter crashed while it made float16 (signal SIGABRT)."),
        ("onnx", "the converter crashed while it made onnx (signal SIGABRT)."),
    ]
    (note,) = [note for note in made.notes if note.startswith("onnx ")]
    assert note.endswith("To ask for it: edgeloop convert float32.tflite -o b --to onnx")
    assert len(made.notes) == len(set(made.notes))


def test_a_named_form_that_crashes_the_converter_fails_the_conversion(worker, float32, tmp_path):
    worker("float16", "onnx")
    options = ConvertOptions(to=(Format.TFLITE,), schemes=(Scheme.FLOAT32, Scheme.FLOAT16), cache=False)
    with pytest.raises(
        ModelError, match=r"crashed while it made float16 \(signal SIGABRT.*Leave the form out with --to"
    ):
        convert(float32, tmp_path / "b", options)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def attempts(monkeypatch):
    jobs, run = [], parent.run_job
    monkeypatch.setattr(parent, "run_job", lambda *a, **k: (jobs.append(a[1]), run(*a, **k))[1])
    return jobs


def test_a_converter_that_crashes_before_it_makes_a_form_blames_none_of_the_attempt_before(
    worker, float32, tmp_path, attempts
):
    worker("float16", "the next attempt")
    with pytest.raises(ModelError, match=r"crashed \(signal SIGABRT"):
        convert(float32, tmp_path / "b", ConvertOptions())
    assert len(attempts) == 2


def test_a_converter_that_crashes_on_every_form_is_given_up(worker, float32, tmp_path, attempts):
    worker("float32", "float16", "dynamic", "onnx")
    with pytest.raises(ModelError, match="crashed"):
        convert(float32, tmp_path / "b", ConvertOptions())
    assert len(attempts) == parent.CRASHES + 1
    assert list(tmp_path.iterdir()) == []


def test_mixed_that_crashes_where_int8_could_not_be_made_is_left_out_too(worker, float32, tmp_path):
    worker("mixed")
    np.savez(tmp_path / "cal.npz", x=np.random.default_rng(0).random((64, 4), np.float32))
    made = convert(float32, tmp_path / "b", ConvertOptions(calibration=tmp_path / "cal.npz"))
    assert [v.id for v in made.bundle.variants if v.format is Format.TFLITE] == ["float32", "float16", "dynamic"]
    left = {one.id: one.reason for one in made.bundle.manifest.left_out}
    assert left["mixed"] == "the converter crashed while it made mixed (signal SIGABRT)."
