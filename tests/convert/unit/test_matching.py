"""Which tensor of one model is which of another."""

import numpy as np
import pytest

from edgeloop.bundle import Scheme, TensorSpec
from edgeloop.convert.same.compare_models import floor_between
from edgeloop.convert.same.matching import Match, layout, match_tensors
from edgeloop.convert.same.runnable import _tfjs_specs
from edgeloop.errors import ParityError


def specs(**shapes):
    return [TensorSpec(name, shape, "float32") for name, shape in shapes.items()]


def test_tensors_of_one_name_belong_together_in_any_order():
    first, second = specs(a=(None, 4), b=(None, 4)), specs(b=(None, 4), a=(None, 4))
    assert match_tensors(first, second, "inputs") == [Match("a", "a"), Match("b", "b")]


def test_names_that_differ_in_what_exporters_add_alone_are_matched_in_their_order():
    first = specs(x=(None, 4), X=(None, 4))
    assert match_tensors(first, first, "inputs") == [Match("x", "x"), Match("X", "X")]


@pytest.mark.parametrize("name", ["serving_default_image", "image:0", "Image", "serving_default_image:0"])
def test_what_exporters_add_to_a_name_does_not_matter(name):
    first = specs(other=(None, 4), image=(None, 4))
    second = [TensorSpec(name, (None, 4), "float32"), TensorSpec("other", (None, 4), "float32")]
    assert match_tensors(first, second, "inputs")[1] == Match("image", name)


def test_no_two_tensors_are_matched_with_the_same():
    first = [TensorSpec(name, (None, 4), "float32") for name in ("t:0", "t:1")]
    assert match_tensors(first, specs(t=(None, 4), u=(None, 4)), "outputs") == [
        Match("t:0", "t", by_position=True),
        Match("t:1", "u", by_position=True),
    ]
    assert match_tensors(first, first[::-1], "outputs") == [Match("t:0", "t:0"), Match("t:1", "t:1")]


def test_other_names_are_matched_by_shapes_that_fit_one_tensor_only():
    first, second = specs(image=(None, 8, 8, 3), sizes=(None, 2)), specs(args_1=(None, 2), args_0=(None, 8, 8, 3))
    assert match_tensors(first, second, "inputs") == [Match("image", "args_0"), Match("sizes", "args_1")]


def test_where_shapes_do_not_decide_the_order_does():
    first, second = specs(x=(None, 4), y=(None, 4)), specs(p=(None, 4), q=(None, 4))
    assert match_tensors(first, second, "inputs") == [
        Match("x", "p", by_position=True),
        Match("y", "q", by_position=True),
    ]


def test_channels_first_and_last_are_matched_and_transposed():
    (match,) = match_tensors(specs(image=(None, 5, 7, 3)), specs(x=(None, 3, 5, 7)), "inputs")
    value = np.arange(2 * 5 * 7 * 3).reshape(2, 5, 7, 3)
    assert match.to_second(value).shape == (2, 3, 5, 7)
    assert match.to_second(value)[1, 2, 3, 4] == value[1, 3, 4, 2]
    assert np.array_equal(match.to_first(match.to_second(value)), value)


@pytest.mark.parametrize(
    ("first", "second", "axes"),
    [
        ((None, 4, 4, 4), (None, 4, 4, 4), (0, 1, 2, 3)),  # in doubt as it is
        ((1, 10, 3), (1, 3, 10), (0, 2, 1)),
        ((None, None, None, 3), (None, 3, None, None), (0, 3, 1, 2)),
        ((None, 4), (None, 5), None),
        ((None, 4), (None, 4, 1), None),
    ],
)
def test_a_layout_fits_or_does_not(first, second, axes):
    assert layout(first, second) == axes


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        (specs(a=(None, 4)), specs(a=(None, 4), b=(None, 1)), r"a \[\?, 4\]; the second has a \[\?, 4\], b \[\?, 1\]"),
        (specs(a=(None, 784)), specs(a=(None, 28, 28, 1)), r"a \[\?, 784\]; the second has a \[\?, 28, 28, 1\]"),
    ],
)
def test_models_with_other_ends_differ(first, second, found):
    with pytest.raises(ParityError, match=f"the inputs of the two models do not match: the first has {found}"):
        match_tensors(first, second, "inputs")


def test_two_models_must_agree_as_closely_as_the_coarser_scheme_can():
    assert floor_between(Scheme.FLOAT32, Scheme.FLOAT32, None).snr_db == 100.0
    assert floor_between(Scheme.FLOAT32, Scheme.INT8, None).snr_db == 10.0
    assert floor_between(Scheme.FLOAT32, Scheme.INT8, 30.0).snr_db == 30.0


@pytest.mark.parametrize(
    ("dtype", "found"), [("DT_INT64", "int32"), ("DT_UINT8", "int32"), ("DT_BOOL", "bool"), ("DT_FLOAT", "float32")]
)
def test_integers_of_any_width_are_of_32_bits_in_tfjs(dtype, found):
    (spec,) = _tfjs_specs({"ids": {"dtype": dtype, "tensorShape": {"dim": [{"size": "-1"}, {"size": "7"}]}}})
    assert (spec.name, spec.shape, spec.dtype) == ("ids", (None, 7), found)
