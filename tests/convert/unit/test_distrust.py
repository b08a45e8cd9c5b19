"""A runtime that computes float32 wrong is not listed for the quantized files either."""

import pytest

from edgeloop.bundle import Format, Scheme, Variant
from edgeloop.convert.proof.distrust import distrust
from edgeloop.runtime.parity.compare import Parity


def variant(scheme):
    return Variant(
        scheme.value, f"{scheme.value}.tflite", (f"{scheme.value}.tflite",), Format.TFLITE, scheme, ("infer",)
    )


def row(id, runtime, snr, passed=True, error=None, device="local", output="y"):
    return Parity(id, runtime, None, device, output, 4, 0.0, 0.0, snr, None, None, passed, error)


VARIANTS = [variant(s) for s in (Scheme.FLOAT32, Scheme.DYNAMIC)]


def passed(*rows):
    return [(r.variant, r.runtime) for r in distrust(rows, VARIANTS) if r.passed]


def test_where_float32_disagrees_no_scheme_is_trusted():
    # measured: GroupNormalization with a grouped convolution on LiteRT 2.3, 20 dB in both
    found = distrust(
        [
            row("float32", "litert", 20.0, passed=False),
            row("float32", "tflite-runtime", 140.0),
            row("dynamic", "litert", 20.1),
            row("dynamic", "tflite-runtime", 35.0),
        ],
        VARIANTS,
    )
    assert [r.passed for r in found] == [False, True, False, True]
    assert found[2].error == "output 'y': float32 itself has SNR 20.0 dB on this runtime"
    assert found[2].snr_db == 20.1  # the figure stays


def test_a_crash_of_float32_says_nothing_of_the_other_schemes():
    crash = row("float32", "litert", -200.0, passed=False, error="the agent ended")
    assert passed(crash, row("dynamic", "litert", 30.0)) == [("dynamic", "litert")]


@pytest.mark.parametrize(("snr", "other", "trusted"), [(26.0, 46.0, False), (26.2, 46.0, True), (41.0, 180.0, True)])
def test_twenty_decibels_below_another_runtime_is_not_trusted(snr, other, trusted):
    found = passed(row("dynamic", "litert", snr), row("dynamic", "tflite-runtime", other))
    assert (("dynamic", "litert") in found) is trusted


@pytest.mark.parametrize("other", [{"device": "ssh://pi"}, {"output": "z"}])
def test_what_float32_does_elsewhere_says_nothing(other):
    found = passed(row("float32", "litert", 20.0, passed=False, **other), row("dynamic", "litert", 30.0))
    assert found == [("dynamic", "litert")]


def test_a_better_output_or_a_runtime_that_crashed_is_no_measure():
    better = row("dynamic", "tflite-runtime", 55.0, output="z")
    crashed = row("dynamic", "tflite-runtime", None, passed=False, error="the agent ended")
    assert passed(row("dynamic", "litert", 30.0), better, crashed)[0] == ("dynamic", "litert")


def test_a_file_that_is_no_tflite_is_left_alone():
    onnx = Variant("dynamic", "m.onnx", ("m.onnx",), Format.ONNX, Scheme.DYNAMIC, ("infer",))
    rows = [row("dynamic", "onnxruntime", 20.0), row("dynamic", "another", 50.0)]
    assert distrust(rows, [onnx]) == rows
