"""Output shapes of layers as their configurations say them; the numbers follow from the definitions of the layers."""

import pytest

from edgeloop.files.keras_shapes import output_shape


def layer(kind, *before, **config):
    nodes = [[[name, 0, 0, {}] for name in before]]
    return {"class_name": kind, "config": config, "inbound_nodes": nodes}


def shape_of(made, shape=(None, 12, 12, 3)):
    layers = {"x": {"class_name": "InputLayer", "config": {"batch_shape": list(shape)}, "inbound_nodes": []}, "y": made}
    return output_shape(layers, "y")


CASES = {
    # ceil(12 / 2) = 6 with "same"; 12 - (3 - 1) * 2 = 8 with "valid" and dilation 2
    "same": (layer("Conv2D", "x", filters=5, kernel_size=[3, 3], strides=[2, 2], padding="same"), [None, 6, 6, 5]),
    "valid": (layer("Conv2D", "x", filters=5, kernel_size=[3, 3], dilation_rate=[2, 2]), [None, 8, 8, 5]),
    "depthwise": (layer("DepthwiseConv2D", "x", kernel_size=[3, 3], depth_multiplier=2), [None, 10, 10, 6]),
    "pooled": (layer("MaxPooling2D", "x", pool_size=[5, 5], strides=[5, 5]), [None, 2, 2, 3]),
    "global": (layer("GlobalAveragePooling2D", "x"), [None, 3]),
    "global, kept": (layer("GlobalMaxPooling2D", "x", keepdims=True), [None, 1, 1, 3]),
    "flat": (layer("Flatten", "x"), [None, 432]),
    "dense": (layer("Dense", "x", units=7), [None, 12, 12, 7]),
    "same shape": (layer("BatchNormalization", "x"), [None, 12, 12, 3]),
    "channels first": (layer("Conv2D", "x", filters=5, kernel_size=[3, 3], data_format="channels_first"), None),
    "an unknown layer": (layer("Mine", "x"), None),
    "options of no sense": (layer("Conv2D", "x", filters=5, kernel_size=[7]), None),
}


@pytest.mark.parametrize("case", CASES)
def test_the_shape_follows_from_the_configuration(case):
    made, expected = CASES[case]
    assert shape_of(made) == expected


def test_a_sum_of_two_has_the_larger_of_each_size():
    x = {"class_name": "InputLayer", "config": {"batch_shape": [None, 8, 8, 4]}, "inbound_nodes": []}
    scale = layer("GlobalAveragePooling2D", "x", keepdims=True)
    assert output_shape({"x": x, "s": scale, "y": layer("Multiply", "s", "x")}, "y") == [None, 8, 8, 4]


def test_after_an_unknown_layer_a_flat_output_still_has_two_sizes():
    layers = {"a": layer("Mine", "x"), "b": layer("Flatten", "a"), "y": layer("Dense", "b", units=3)}
    assert output_shape(layers, "y") == [None, 3]


def test_a_layer_that_takes_itself_has_no_shape():
    assert output_shape({"y": layer("ReLU", "y")}, "y") is None


def test_sixty_residual_sums_one_after_the_other_compute_each_layer_once():
    """Each sum takes the last one directly and through a ReLU: 2 to the power of 60 paths to the input."""
    layers = {"s0": {"class_name": "InputLayer", "config": {"batch_shape": [None, 8, 8, 4]}, "inbound_nodes": []}}
    for n in range(1, 61):
        layers |= {f"r{n}": layer("ReLU", f"s{n - 1}"), f"s{n}": layer("Add", f"r{n}", f"s{n - 1}")}
    assert output_shape(layers, "s60") == [None, 8, 8, 4]
