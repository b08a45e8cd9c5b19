"""What proofs mean for a bundle, and how a wrong scale of the inputs shows: without a framework or a runtime."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest

from edgeloop.bundle import Format, Quantization, Requirements, Scheme, Signature, TensorSpec, Variant
from edgeloop.convert.proof import few_samples
from edgeloop.convert.proof import prove as proving
from edgeloop.convert.proof.input_range import range_mismatch
from edgeloop.convert.proof.parity import check_listed_parity, check_parity, runtimes_passed, with_runtimes
from edgeloop.convert.proof.prove import ProveOptions, prove
from edgeloop.convert.proof.worst_layer import LayerSnr, worst
from edgeloop.convert.samples import Samples
from edgeloop.errors import DeviceError, MissingExtra, OptionsError, ParityError, TargetError
from edgeloop.runtime.parity.compare import RunContext, compare, failed, floor_of

GOOD, BAD = {"y": np.ones((2, 2))}, {"y": np.full((2, 2), 3.0)}
V = Variant("v", "v.tflite", ("v.tflite",), Format.TFLITE, Scheme.INT8, ("infer",))
X = TensorSpec("x", (None, 2), "float32")
SIGNATURES = {"infer": Signature((X,), (TensorSpec("y", (None, 2), "float32"),))}


def row(value, runtime="litert", variant="v", device="local"):
    return compare(RunContext(variant, runtime, "1", device), floor_of(Scheme.INT8), GOOD, value)


def test_a_variant_runs_where_every_output_passed_on_every_device():
    rows = [*row(GOOD), *row(GOOD, "tflite-runtime"), *row(BAD, "tflite-runtime", device="local:other")]
    assert runtimes_passed(rows, "v") == ("litert",)
    check_parity(rows, "never said")


def test_the_manifest_lists_runtimes_that_passed_and_notes_the_others():
    rows = [*row(GOOD), *failed(RunContext("v", "tflite-runtime"), GOOD, "signal SIGSEGV")]
    (made,) = with_runtimes([replace(V, requires=Requirements(ram_bytes=9), notes=("first",))], rows)
    assert made.requires == Requirements(runtimes=("litert",), ram_bytes=9)
    assert made.notes == ("first", "not for tflite-runtime: see proof.json")


def test_a_variant_nobody_could_run_is_marked_unproved():
    (made,) = with_runtimes([V], [])
    assert made.requires.runtimes == () and made.notes[0].startswith("unproved")


def test_a_variant_that_agrees_nowhere_is_an_error_that_names_the_figure_the_layer_and_what_to_do():
    crashed = failed(RunContext("v", "tflite-runtime"), GOOD, "signal SIGSEGV")
    # signal 4, error 4 * 2^2 = 16: 10 log10(1/4) = -6.0 dB
    wrong = [replace(r, worst_layer="CONV_2D stem") for r in row(BAD)]
    expected = (
        r"v on litert does not compute .*: output 'y' has SNR -6.0 dB, max abs error 2; worst layer CONV_2D stem; "
        r"1 of 2 variants failed\. Do this\."
    )
    with pytest.raises(ParityError, match=expected):
        check_parity([*row(GOOD, variant="w"), *crashed, *wrong], "Do this.")
    with pytest.raises(ParityError, match="signal SIGSEGV"):
        check_parity(crashed, "Do this.")


def test_a_runtime_that_was_listed_must_still_agree_and_another_one_need_not():
    rows = [*row(GOOD), *row(BAD, "tflite-runtime")]
    check_listed_parity(rows, {"v": ("litert",)}, "never said")
    with pytest.raises(ParityError, match="v on tflite-runtime does not compute"):
        check_listed_parity(rows, {"v": ("litert", "tflite-runtime")}, "Do this.")


class Fake:
    """A session whose runtime doubles its inputs, or does what `how` says."""

    version = "7"

    def __init__(self, how):
        self.how, self.seen = how, []

    def infer(self, inputs, signature):
        self.seen.append(inputs["x"])
        if isinstance(self.how, Exception):
            raise self.how
        return {"y": inputs["x"] * self.how}


@pytest.fixture
def at(monkeypatch):
    """Let TFLite variants run in these fake sessions, in order."""

    def install(sessions, missing=None):
        def opener(session):
            return lambda folder, entry: contextlib.nullcontext(session)

        places = [proving.RuntimeOnDevice(name, None, opener(s)) for name, s in sessions.items()]
        found = ({Format.TFLITE: places}, {Format.TFLITE: missing} if missing else {})
        monkeypatch.setattr(proving, "places_of", lambda formats, options: found)

    return install


PLAIN = ProveOptions()


def proved(tmp_path, count=4, variant=V, options=PLAIN, labels=None, factor=2.0):
    x = np.random.default_rng(0).random((count, 2), np.float32) + 0.5
    return prove(tmp_path, [variant], SIGNATURES, Samples(inputs={"x": x}, labels=labels), {"y": factor * x}, options)


def test_a_crash_and_a_refusal_are_records_without_this_machines_paths(at, tmp_path):
    crash = DeviceError("the agent ended during run (signal SIGSEGV)", where="tflite-runtime on local:/a/b/python")
    refusal = TargetError(
        f"prepare failed with ValueError: {tmp_path}/v.tflite is odd.", where="onnx on local:/a/b/python"
    )
    at({"litert": Fake(2.0), "tflite-runtime": Fake(crash), "other": Fake(refusal)})
    rows = proved(tmp_path)
    assert [(r.runtime, r.passed) for r in rows] == [("litert", True), ("tflite-runtime", False), ("other", False)]
    assert rows[0].runtime_version == "7"
    assert rows[1].error == "the agent ended during run (signal SIGSEGV)"
    assert rows[2].error == "prepare failed with ValueError: v.tflite is odd"


def test_a_runtime_beside_the_first_answers_a_thousand_samples_and_says_no_accuracy(at, tmp_path):
    sessions = {"litert": Fake(2.0), "tflite-runtime": Fake(2.0)}
    at(sessions)
    rows = proved(tmp_path, count=1500, labels=np.zeros(1500, np.int32))
    assert [r.samples for r in rows] == [1500, 1000]
    assert rows[0].accuracy is not None and rows[1].accuracy is None and rows[1].top1_agreement == 1.0
    assert sum(map(len, sessions["tflite-runtime"].seen)) == 1000


class Noisy(Fake):
    """Doubles its inputs, and is off by a share of them: one of positive samples, another of negative ones."""

    def __init__(self, positive, negative):
        super().__init__(2.0)
        self.positive, self.negative = positive, negative

    def infer(self, inputs, signature):
        (exact,) = super().infer(inputs, signature).values()
        return {"y": exact * (1 + np.where(exact > 0, self.positive, self.negative)).astype(np.float32)}


@pytest.fixture
def wide(monkeypatch, tmp_path):
    """Prove on 20 samples, every other one negative, as if they were so large that 16 of them are asked first."""

    def run(scheme=Scheme.INT8, labels=None):
        monkeypatch.setattr(few_samples, "VALUES", 0)
        x = np.full((20, 2), 0.5, np.float32)
        x[::2] *= -1
        samples = Samples(inputs={"x": x}, labels=labels)
        return prove(tmp_path, [replace(V, scheme=scheme)], SIGNATURES, samples, {"y": 2 * x})

    return run


def test_a_runtime_beside_the_first_answers_only_a_few_large_samples_where_they_settle_it(at, wide):
    # noise of 30% of the amplitude is -10.5 dB: alike in all samples, it is surely below -10 dB. As 42% in every other
    # sample, it is on average, but 4 standard errors of 16 samples are as much as the mean itself
    for shares, asked in (((0.3, 0.3), 16), ((0.42, 0.0), 20)):
        at({"litert": Noisy(*shares), "tflite-runtime": Noisy(*shares)})
        assert [(r.samples, r.passed) for r in wide()] == [(20, True), (asked, True)]


def test_a_runtime_is_not_blamed_for_the_noise_of_other_samples_than_those_of_the_first(at, monkeypatch, tmp_path):
    monkeypatch.setattr(few_samples, "VALUES", 0)
    x = np.full((20, 2), -1.0, np.float32)
    rare = sorted(set(range(20)) - set(few_samples.few_of(Samples(inputs={"x": x}))))
    x[rare] = 1000.0  # and exact: 70 dB over all samples, 14 dB over the 16 that are asked first
    at({"litert": Noisy(0.0, 0.2), "tflite-runtime": Noisy(0.0, 0.2)})
    rows = prove(tmp_path, [V], SIGNATURES, Samples(inputs={"x": x}), {"y": 2 * x})
    assert [(r.samples, r.passed) for r in rows] == [(20, True), (20, True)]


def test_what_a_few_samples_fail_all_of_them_decide(at, wide):
    at({"litert": Fake(2.0), "tflite-runtime": Fake(3.0)})
    assert [(r.samples, r.passed) for r in wide()] == [(20, True), (20, False)]


def test_int16x8_is_proved_on_a_few_large_samples_on_every_runtime_but_metrics_are_of_all(at, wide):
    at({"litert": Fake(2.0), "tflite-runtime": Fake(2.0)})
    assert [r.samples for r in wide(scheme=Scheme.INT16X8)] == [16, 16]
    labels = np.zeros((20, 2), np.float32)
    assert [r.samples for r in wide(scheme=Scheme.INT16X8, labels=labels)] == [20, 20]


def test_int16x8_of_a_classifier_is_proved_on_all_samples_by_the_first_runtime(at, monkeypatch, tmp_path):
    monkeypatch.setattr(few_samples, "VALUES", 0)
    at({"litert": Fake(1.0), "tflite-runtime": Fake(1.0)})
    x = np.tile(np.float32([0.75, 0.25]), (20, 1))
    rows = prove(tmp_path, [replace(V, scheme=Scheme.INT16X8)], SIGNATURES, Samples(inputs={"x": x}), {"y": x})
    assert [r.samples for r in rows] == [20, 16]


def test_the_source_says_what_a_variant_is_held_to(at, tmp_path):
    float32 = replace(V, scheme=Scheme.FLOAT32)
    # off by a 10,000th, 80 dB; and by 1e-7, which is half of the value
    for factor, scale, source in ((2.0002, 1.0, {"rounds": "int8"}), (3.0, 1e-7, {"bounded": "y"})):
        at({"litert": Fake(factor)})
        samples = Samples(inputs={"x": np.full((4, 2), scale, np.float32)})
        for told, passes in ((source, True), ({}, False)):
            (row,) = prove(tmp_path, [float32], SIGNATURES, samples, {"y": 2 * samples.inputs["x"]}, source=told)
            assert row.passed is passes


def test_where_the_first_runtime_fails_the_next_one_answers_all(at, tmp_path):
    at({"litert": Fake(DeviceError("x on local:p: gone.")), "tflite-runtime": Fake(2.0)})
    assert [r.samples for r in proved(tmp_path, count=1500) if r.passed] == [1500]


def test_float32_of_a_source_that_rounds_itself_says_nothing_of_a_runtime(at, tmp_path):
    at({"litert": Fake(2.1), "tflite-runtime": Fake(2.0)})  # 26 dB and exact: below the floor of float32 and float16
    both = [replace(V, id="float32", scheme=Scheme.FLOAT32), V]
    x = np.ones((4, 2), np.float32)
    for source, trusted in (({}, False), ({"rounds": "int8"}, True)):
        rows = prove(tmp_path, both, SIGNATURES, Samples(inputs={"x": x}), {"y": 2 * x}, source=source)
        assert [r.passed for r in rows] == [False, True, trusted, True]


def test_a_missing_runtime_is_an_error_unless_its_format_may_stay_unproved(at, tmp_path):
    at({}, missing=MissingExtra("Run: pip install it"))
    with pytest.raises(MissingExtra, match="pip install it"):
        proved(tmp_path)
    assert proved(tmp_path, options=ProveOptions(unproved=frozenset({Format.TFLITE}))) == []


def test_integer_ends_are_fed_integers_and_read_as_real_numbers(at, tmp_path):
    session = Fake(1)
    at({"litert": session})
    io = {"x": Quantization("int8", 0.0125, -128), "y": Quantization("int8", 0.025, -128)}  # y = 2 x
    (row,) = proved(tmp_path, variant=replace(V, io=io))
    assert session.seen[0].dtype == np.int8 and row.passed and row.max_abs <= 0.0125 + 1e-6  # half a step of y


def test_large_samples_are_sent_a_few_at_a_time(at, tmp_path):
    session = Fake(1.0)
    at({"litert": session})
    x = np.ones((20, 224, 224, 3), np.float32)  # 150,528 values each: 3 are below half a million
    free = (None, 224, 224, 3)
    image = {"infer": Signature((TensorSpec("x", free, "float32"),), (TensorSpec("y", free, "float32"),))}
    (row,) = prove(tmp_path, [V], image, Samples(inputs={"x": x}), {"y": x})
    assert [len(batch) for batch in session.seen] == [3] * 6 + [2] and row.passed


def test_a_floor_that_is_asked_for_must_be_a_positive_number():
    for wrong in (0.0, -3.0, float("nan"), float("inf")):
        with pytest.raises(OptionsError, match="--min-snr"):
            ProveOptions(min_snr_db=wrong)


def layer(op, before, after):
    return LayerSnr(tensor=op, op=op, layer="", snr_db=after, input_snr_db=before)


def test_the_worst_layer_is_the_one_that_loses_most_and_not_the_last_with_the_lowest_snr():
    first, guilty, victim = layer("A", 200, 45), layer("B", 45, 3), layer("C", 3, -20)
    assert worst([first, guilty, victim]) is guilty
    assert worst([layer("A", 200, 90), layer("B", 90, 60)]).op == "B"  # nobody is to blame: the lowest
    assert worst([]) is None


BRIGHT = np.linspace(0, 255, 512, dtype=np.float32).reshape(256, 2)


def classify(inputs):
    """Right for 0..255: class 1 above 128. On 0..1 it says 0 to everything."""
    high = inputs["x"].mean(-1) > 128
    return {"p": np.stack([1 - high, high], -1).astype(np.float32)}


def told(calibration, evaluation, labels=None):
    made = [None if a is None else Samples(inputs={"x": a}) for a in (calibration, evaluation)]
    found = range_mismatch(classify, (X,), made[0], replace(made[1], labels=labels))
    assert found is None or found.advice.startswith("Scale ")
    return None if found is None else found.found


def test_sets_that_lie_255_times_apart_are_named():
    for scaled in (BRIGHT / 255, BRIGHT / 127.5 - 1):
        assert "calibration data spans" in told(scaled, BRIGHT) and "0..255" in told(scaled, BRIGHT)
        assert "calibration data spans 0..255" in told(BRIGHT, scaled)
    assert told(BRIGHT, BRIGHT[:40]) is None and told(BRIGHT / 255, BRIGHT / 200) is None


def test_labels_betray_a_scale_that_both_sets_have_wrong():
    labels = (BRIGHT.mean(-1) > 128).astype(np.int64)
    labels[:20] = 1 - labels[:20]  # no model is right always
    found = told(BRIGHT / 255, BRIGHT / 255, labels)
    assert "92% after x * 255" in found and "spans 0..1" in found
    assert told(BRIGHT, BRIGHT, labels) is None
    few = BRIGHT[[0, 64, 192, 255]]
    assert told(few / 255, few / 255, np.array([1, 0, 1, 1])) is None  # 25% and 75% of four samples are chance
    assert told(BRIGHT / 255, BRIGHT / 255, np.zeros(256, np.int64)) is None  # right for all: nothing to mend


def test_made_up_samples_and_standardized_features_tell_nothing():
    odd = np.random.default_rng(0).normal(0, 3, (256, 2)).astype(np.float32)
    assert told(odd, odd, np.ones(256, np.int64)) is None
    made_up = Samples(inputs={"x": BRIGHT / 255}, real=False)
    assert range_mismatch(classify, (X,), Samples(inputs={"x": BRIGHT}), made_up) is None
