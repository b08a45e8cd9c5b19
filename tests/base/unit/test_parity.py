"""How far two outputs differ, how far they may, and what integers at a variant's ends mean: by hand."""

import json

import numpy as np
import pytest

from edgeloop.bundle import Quantization, Scheme
from edgeloop.runtime.parity.compare import (
    FLOORS,
    RunContext,
    bounded_outputs,
    compare,
    failed,
    floor_of,
    is_classifier,
    judged_as,
    reason,
)
from edgeloop.runtime.parity.quantization import from_io, to_io, to_real, to_stored

HERE = RunContext("v", "r")


def rows(scheme, reference, value, labels=None, classifier=False, min_snr_db=None):
    floor = floor_of(scheme, min_snr_db)
    return compare(HERE, floor, {"y": np.array(reference)}, {"y": np.array(value)}, labels, classifier=classifier)


def test_snr_is_ten_times_the_log_of_signal_over_error_power():
    # signal 3^2 + 4^2 = 25, error 0.5^2 = 0.25: 10 log10(100) = 20 dB
    (row,) = rows(Scheme.INT8, [[3.0, 4.0]], [[3.0, 4.5]])
    assert row.snr_db == pytest.approx(20.0, abs=1e-12) and row.max_abs == 0.5 and row.max_rel == 0.125
    assert row.samples == 1


def test_equal_outputs_are_exact_and_have_no_snr():
    (row,) = rows(Scheme.FLOAT32, [[3.0, 4.0]], [[3.0, 4.0]])
    assert row.snr_db is None and row.passed


@pytest.mark.parametrize(
    ("scheme", "error", "passed"),
    [
        (Scheme.FLOAT32, 0.9e-5, True),  # below 1e-5 of a largest value of 1, and 10 log10(2 / 8.1e-11) = 104 dB
        (Scheme.FLOAT32, 1.1e-5, False),
        (Scheme.FLOAT16, 0.013, True),  # 10 log10(2 / 1.69e-4) = 40.7 dB
        (Scheme.FLOAT16, 0.015, False),  # 39.5 dB
        (Scheme.INT8, 0.44, True),  # 10.1 dB
        (Scheme.INT8, 0.46, False),  # 9.8 dB
        (Scheme.INT4, 0.44, True),
        (Scheme.INT4, 0.46, False),
        (Scheme.MIXED, 0.46, False),
        (Scheme.INT16X8, 0.35, True),  # 12.1 dB
        (Scheme.INT16X8, 0.36, False),  # 11.9 dB
    ],
)
def test_each_scheme_has_its_floor(scheme, error, passed):
    (row,) = rows(scheme, [[1.0, -1.0]], [[1.0 + error, -1.0]])
    assert row.passed is passed


def test_every_scheme_has_a_floor():
    assert set(FLOORS) == set(Scheme)


def test_a_float32_variant_needs_both_100_db_and_a_small_largest_error():
    reference = np.full((1, 10000), 1.0)
    spike = reference.copy()
    spike[0, 0] += 5e-5  # 10 log10(10000 / 25e-10) = 126 dB
    assert not rows(Scheme.FLOAT32, reference, spike)[0].passed
    drizzle = np.full((1, 1000), 1e-3)  # each off by 1e-6, below 1e-5, at 10 log10(1e-6 / 1e-12) = 60 dB
    assert not rows(Scheme.FLOAT32, drizzle, drizzle + 1e-6)[0].passed


def test_a_wanted_snr_raises_the_floor_of_quantized_schemes_and_lowers_none():
    close, far = [[1.0, -0.999]], [[1.0, -0.9]]  # 10 log10(2 / 1e-6) = 63 dB and 10 log10(2 / 1e-2) = 23 dB
    assert rows(Scheme.INT8, [[1.0, -1.0]], far)[0].passed
    assert not rows(Scheme.INT8, [[1.0, -1.0]], far, min_snr_db=25)[0].passed
    assert not rows(Scheme.FLOAT16, [[1.0, -1.0]], far, min_snr_db=5)[0].passed
    assert rows(Scheme.FLOAT16, [[1.0, -1.0]], close, min_snr_db=5)[0].passed
    assert floor_of(Scheme.FLOAT32, 150) == FLOORS[Scheme.FLOAT32]


@pytest.mark.parametrize(
    ("value", "error"),
    [([[np.nan, 0.0]], "NaN or infinity"), ([[1.0]], r"shape [1, 1], expected [1, 2]"), ([[np.inf, 0.0]], "NaN")],
)
def test_an_output_that_is_not_finite_or_of_another_shape_fails_saying_so_in_numbers_json_has(value, error):
    (row,) = rows(Scheme.INT8, [[1.0, 0.0]], value)
    assert not row.passed and error in row.error and error in reason(row)
    json.dumps([row.max_abs, row.max_rel, row.snr_db], allow_nan=False)


def test_a_missing_output_fails_by_its_name():
    (row,) = compare(HERE, floor_of(Scheme.FLOAT32), {"y": np.ones((1, 2))}, {"z": np.ones((1, 2))})
    assert row.output == "y" and not row.passed and row.error == "no such output"


def test_a_variant_that_did_not_run_fails_in_every_output_with_the_reason():
    made = failed(HERE, {"a": np.ones((3, 2)), "b": np.ones((3, 1))}, "signal SIGSEGV")
    assert [(r.output, r.passed, r.error, r.samples) for r in made] == [
        ("a", False, "signal SIGSEGV", 3),
        ("b", False, "signal SIGSEGV", 3),
    ]


def test_what_float32_rounds_at_one_is_no_noise_of_a_sigmoid_however_small_the_answers_are():
    def row(reference, value, bounded=("y",)):
        expected, got = ({"y": np.array(one)} for one in (reference, value))
        return compare(HERE, floor_of(Scheme.FLOAT32, bounded=bounded), expected, got)[0]

    # sigmoids of a detector that finds nothing, off by half of themselves: 6 dB
    found = row([[5e-8, 5e-8]], [[7.5e-8, 2.5e-8]])
    assert found.passed and found.snr_db == pytest.approx(6.02, abs=0.01)
    assert not row([[1.1e-6, 5e-8]], [[5e-7, 5e-8]]).passed  # off by 6e-7, five times what it rounds: 5.3 dB
    assert not row([[5e-8, 5e-8]], [[0.0, 0.0]], bounded=()).passed  # tiny weights, which float16 made zeros
    assert bounded_outputs({"file": "m.onnx", "bounded": "y,z"}) == ("y", "z") and not bounded_outputs({})


def test_a_softmax_may_be_off_by_more_where_it_is_undecided_and_no_other_output():
    # one value off: 10 log10(49 / 1.6e-9) = 105 dB at 4e-5, 101 dB at 6e-5
    cases = [(0.5, 4e-5, ("y",), True), (0.5, 6e-5, ("y",), False), (0.5, 4e-5, (), False)]
    cases += [(p, 4e-5, ("y",), passed) for p, passed in ((0.0, False), (0.009, False), (0.011, True))]
    cases += [(p, 4e-5, ("y",), passed) for p, passed in ((0.989, True), (0.991, False), (1.0, False))]
    cases += [(p, 0.9e-5, ("y",), True) for p in (0.0, 1.0)]
    for p, error, bounded, passed in cases:
        reference = np.eye(50)
        reference[7, 7] = p
        answer = reference.copy()
        answer[7, 7] += error
        (row,) = compare(HERE, floor_of(Scheme.FLOAT32, bounded=bounded), {"y": reference}, {"y": answer})
        assert row.passed is passed and row.snr_db > 100


def test_garbage_beyond_any_number_still_has_a_finite_snr():
    (row,) = rows(Scheme.INT8, [[1e-30, 0.0]], [[1e30, 0.0]])
    assert row.snr_db == -200.0 and not row.passed


def test_agreement_of_a_classifier_counts_where_the_snr_alone_would_do():
    # 10 of 40 rows swap their classes by a hair: 40 dB of SNR, 75% agreement
    reference = np.tile([[0.501, 0.499]], (40, 1))
    answer = reference.copy()
    answer[:10] = [0.499, 0.501]
    assert rows(Scheme.INT8, reference, answer)[0].passed
    (row,) = rows(Scheme.INT8, reference, answer, classifier=True)
    assert row.top1_agreement == 0.75 and row.snr_db > 40 and not row.passed


def test_one_sample_of_few_is_no_rate():
    reference = np.tile([[0.501, 0.499]], (4, 1))
    answer = reference.copy()
    answer[0] = [0.499, 0.501]
    assert rows(Scheme.INT8, reference, answer, classifier=True)[0].passed
    answer[1] = [0.499, 0.501]
    assert not rows(Scheme.INT8, reference, answer, classifier=True)[0].passed


def test_accuracy_never_lets_a_variant_pass():
    # ResNet8 in int4: agreement 70% while its accuracy went up
    labels = np.array([1] * 6 + [0] * 14)
    reference = np.tile([[0.6, 0.4]], (20, 1))
    answer = reference.copy()
    answer[:6] = [0.4, 0.6]
    (row,) = rows(Scheme.INT4, reference, answer, labels, classifier=True)
    assert (row.accuracy, row.top1_agreement, row.passed) == (1.0, 0.7, False)


def test_a_classifier_has_one_output_of_classes_and_labels_or_probabilities():
    probabilities, scores = np.array([[0.9, 0.1]]), np.array([[7.0, -1.0]])
    assert is_classifier({"p": probabilities}, False) and not is_classifier({"s": scores}, False)
    assert is_classifier({"s": scores}, True)
    assert not is_classifier({"p": probabilities, "q": probabilities}, True)
    assert not is_classifier({"size": np.array([[1.5], [2.0]])}, True)


def test_stored_numbers_are_real_ones_over_the_scale_plus_the_zero_point_clamped():
    # 0.26 / 0.1 = 2.6 -> 3, + -128; 100 is beyond 127
    stored = to_stored(np.array([0.26, 100.0, -5.0], np.float32), "int8", 0.1, -128)
    assert stored.dtype == np.int8 and stored.tolist() == [-125, 127, -128]
    assert to_real(np.array([-125], np.int8), 0.1, -128) == pytest.approx([0.3])


def test_halves_go_to_the_even_neighbour_as_in_the_kernels():
    assert to_stored(np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32), "int8", 1.0, 0).tolist() == [0, 2, 2, 0, -2]


def test_ends_without_a_scale_and_integers_stay_as_they_are():
    io = {"x": Quantization("int8", 0.5, 1), "ids": Quantization("int32"), "f": Quantization("float32")}
    given = {"x": np.array([1.0], np.float32), "ids": np.array([7], np.int32), "other": np.array([2.5])}
    made = to_io(given, io)
    assert made["x"].tolist() == [3] and made["ids"] is given["ids"] and made["other"] is given["other"]
    back = from_io({"x": made["x"], "f": np.array([1.5], np.float32)}, io)
    assert back["x"].tolist() == [1.0] and back["x"].dtype == np.float32 and back["f"].tolist() == [1.5]
    raw = np.array([3], np.int8)  # a source that takes int8 itself is given int8
    assert to_io({"x": raw}, io)["x"] is raw


def test_float32_of_an_original_that_rounds_to_8_bits_may_differ_by_steps():
    rounds, plain = {"file": "m.onnx", "rounds": "int8"}, {"file": "m.onnx"}
    assert judged_as(Scheme.FLOAT32, rounds) is Scheme.FLOAT16
    assert judged_as(Scheme.FLOAT32, plain) is Scheme.FLOAT32
    assert judged_as(Scheme.INT8, rounds) is Scheme.INT8
    dynamic = {"file": "m.onnx", "rounds": "dynamic"}
    assert {judged_as(scheme, dynamic) for scheme in (Scheme.FLOAT32, Scheme.FLOAT16)} == {Scheme.DYNAMIC}
    assert judged_as(Scheme.INT4, dynamic) is Scheme.INT4
