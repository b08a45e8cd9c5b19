"""Preprocessing that contradicts itself or the model is refused before anything is loaded."""

from pathlib import Path

import numpy as np
import pytest

from edgeloop.bundle import Kind, TensorSpec
from edgeloop.convert.forms.preprocess import Preprocessing, with_preprocessing
from edgeloop.convert.sources.identify import SourceKind
from edgeloop.convert.sources.source_value import Source
from edgeloop.errors import OptionsError

IMAGE = TensorSpec("image", (None, 4, 6, 3), "float32", Kind.IMAGE, layout="NHWC")
AGE = TensorSpec("age", (None, 1), "float32")


def source(*inputs, graph=dict):
    return Source(
        path=Path("m.keras"),
        kind=SourceKind.KERAS,
        sha256="",
        signature="infer",
        inputs=inputs,
        outputs=(),
        call=dict,
        graph=graph,
    )


def test_range_mean_and_std_fold_into_one_product_and_one_sum():
    # ((x - 0) / 255 - 0.5) / 0.25 = x * (1 / 63.75) - 2, and with std 0.5: x * (1 / 127.5) - 1
    scale, shift = Preprocessing(input_range=(0, 255), mean=(0.5,), std=(0.25, 0.5)).affine
    np.testing.assert_allclose(scale, [1 / 63.75, 1 / 127.5], rtol=1e-7)
    np.testing.assert_array_equal(shift, [-2, -1])
    assert (scale.dtype, shift.dtype) == (np.float32, np.float32)


def test_a_range_that_does_not_start_at_zero_is_shifted():
    # -1..1 to 0..1 is x / 2 + 1/2
    assert [float(v[0]) for v in Preprocessing(input_range=(-1, 1)).affine] == [0.5, 0.5]


REFUSED = {
    "nothing": ({}, "would change nothing"),
    "a range that does nothing": ({"input_range": (0, 1)}, "would change nothing"),
    "an empty range": ({"input_range": (3, 3)}, "input-range is 3,3"),
    "a range upside down": ({"input_range": (255, 0)}, "input-range is 255,0"),
    "an endless range": ({"input_range": (0, float("inf"))}, "input-range is 0,inf"),
    "a range of nothing known": ({"input_range": (float("nan"), 1)}, "input-range is nan,1"),
    "std 0": ({"std": (1, 0)}, "std above 0"),
    "a negative std": ({"std": (-1,)}, "std above 0"),
    "std NaN": ({"std": (float("nan"),)}, "std above 0"),
    "mean NaN": ({"mean": (float("nan"),)}, "finite numbers"),
    "no mean": ({"mean": ()}, "finite numbers"),
    "no std": ({"std": ()}, "finite numbers"),
    "a std beyond float32": ({"std": (1e-60,)}, "do not fit float32"),
    "a std so large that all becomes 0": ({"std": (1e60,)}, "do not fit float32"),
    "a mean beyond float32": ({"mean": (1e60,)}, "do not fit float32"),
    "three means and two stds": ({"mean": (0, 0, 1), "std": (1, 2)}, "3 numbers and --std 2"),
    "a mean of pixels after a range": ({"input_range": (0, 255), "mean": (123.7,)}, "outside 0..1"),
    "a size of 0": ({"resize": (0, 4)}, "--resize is 0,4"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_contradiction_is_refused_when_written_down(case):
    fields, message = REFUSED[case]
    with pytest.raises(OptionsError, match=message) as refused:
        Preprocessing(**fields)
    assert "\n" not in str(refused.value)


RGB = Preprocessing(std=(1, 2, 3))
GREY = TensorSpec("image", (None, 4, 6, 1), "float32", Kind.IMAGE, layout="NHWC")
ANY_SIZE = TensorSpec("image", (None, None, None, 3), "float32", Kind.IMAGE, layout="NHWC")
BYTES = TensorSpec("image", (None, 4, 6, 3), "uint8", Kind.IMAGE, layout="NHWC")
PLANES = TensorSpec("image", (None, 3, 4, 6), "float32", Kind.IMAGE, layout="NCHW")
SIZE = Preprocessing(resize=(8, 8))
MISFITS = {
    "three numbers for one channel": (RGB, [GREY], "3 numbers, the input 'image' 1 channels"),
    "three numbers for a column": (RGB, [AGE], "3 numbers, the input 'age' 1 channels"),
    "a size for a column": (SIZE, [AGE], "applies to images, and the input 'age' is \\[any, 1\\]"),
    "a size for an image with its channels first": (SIZE, [PLANES], "applies to images"),
    "a size for a model of every size": (SIZE, [ANY_SIZE], "accepts every size"),
    "a model that takes bytes": (Preprocessing(std=(2,)), [BYTES], "is uint8"),
    "two images": (SIZE, [IMAGE, GREY], "Name the one"),
    "two columns": (Preprocessing(std=(2,)), [AGE, AGE], "Name the one"),
    "an input that is not there": (Preprocessing(std=(2,), input="x"), [IMAGE, AGE], "no input 'x'.*image, age"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_the_model_is_refused(case):
    p, inputs, message = MISFITS[case]
    with pytest.raises(OptionsError, match=message):
        with_preprocessing(source(*inputs), p)


def test_a_tflite_has_no_graph_to_put_preprocessing_into():
    with pytest.raises(OptionsError, match="Convert the Keras model instead"):
        with_preprocessing(source(IMAGE, graph=None), SIZE)


def test_the_only_image_is_meant_and_its_spec_becomes_what_the_device_gives():
    wrapped = with_preprocessing(source(AGE, IMAGE), Preprocessing(input_range=(0, 255), resize=(480, 640)))
    assert wrapped.inputs[0] == AGE
    assert wrapped.inputs[1] == TensorSpec(
        "image", (None, 480, 640, 3), "float32", Kind.IMAGE, range=(0, 255), layout="NHWC"
    )


def test_an_input_can_be_named():
    wrapped = with_preprocessing(source(IMAGE, AGE), Preprocessing(input_range=(0, 100), input="age"))
    assert [t.range for t in wrapped.inputs] == [None, (0, 100)]
