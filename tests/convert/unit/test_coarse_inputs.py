import numpy as np
import pytest

from edgeloop.bundle import Format, Scheme, Variant
from edgeloop.convert.proof.coarse_inputs import coarse_inputs
from edgeloop.convert.samples import Samples
from edgeloop.runtime.parity.compare import Parity, RunContext, compare, floor_of

INT8 = [Variant("int8", "int8.tflite", ("int8.tflite",), Format.TFLITE, Scheme.INT8, ("infer",), {})]
RNG = np.random.default_rng(0)
RAW = RNG.random((200, 20))  # twenty columns: nineteen from 0 to 1, one up to 40,000
RAW[:, 0] *= 40_000
EVEN = RNG.normal(size=(200, 20))


def rows(noise: float) -> list[Parity]:
    """SNR is -20 log10(noise) dB."""
    exact = {"y": np.ones((200, 1), np.float32)}
    got = {"y": exact["y"] + np.float32(noise)}
    return compare(RunContext("int8", "litert"), floor_of(Scheme.INT8), exact, got)


def test_a_poor_int8_of_features_of_different_size_says_to_scale_them():
    said = coarse_inputs(rows(0.1), INT8, Samples(inputs={"x": RAW.astype(np.float32)}))
    assert said is not None
    assert said.startswith("int8 has an SNR of 20.0 dB because 90% of the values of 'x' lie between 0.0")
    assert said.endswith("Scale the features to similar ranges before the model, or use dynamic.")


@pytest.mark.parametrize(
    ("noise", "values", "real"), [(0.01, RAW, True), (0.1, EVEN, True), (0.1, RAW, False)], ids=["good", "even", "made"]
)
def test_a_good_int8_even_inputs_and_made_up_ones_are_no_reason(noise, values, real):
    samples = Samples(inputs={"x": values.astype(np.float32)}, real=real)
    assert coarse_inputs(rows(noise), INT8, samples) is None
