"""The memory that running a .tflite takes, as edgeloop estimates it: graphs small enough to plan by hand."""

from dataclasses import replace

import pytest

from edgeloop.bundle import Format, Requirements, Scheme, Variant
from edgeloop.convert.build import _sized
from edgeloop.errors import ModelError
from edgeloop.files import arena
from edgeloop.files.graph_facts import GraphFacts, Step, Value
from edgeloop.files.ram_estimate import RamEstimate, _loading, _pointers, arena_bytes, need, ram_bytes
from edgeloop.runtime_table import LITERT, TFLITE_RUNTIME

X = Value(shape=(1, 100), dtype="float32")  # 400 bytes, 448 in steps of 64
Y = Value(shape=(1, 10), dtype="float32")  # 40 bytes, 64
CHAIN = GraphFacts(
    values=(X, X, Y),
    steps=(Step(op="RELU", inputs=(0,), outputs=(1,)), Step(op="MEAN", inputs=(1,), outputs=(2,))),
    inputs=(0,),
    outputs=(2,),
)
# 4 x 4 pixels of 3 channels to as many of 8, window 3 x 3
IMAGE, MAPS = Value(shape=(1, 4, 4, 3), dtype="float32"), Value(shape=(1, 4, 4, 8), dtype="float32")  # 192, 512 bytes
WEIGHTS = Value(shape=(8, 3, 3, 3), dtype="float32", constant_bytes=864)


def conv(image=IMAGE, weights=WEIGHTS, maps=MAPS):
    step = Step(op="CONV_2D", inputs=(0, 1), outputs=(2,))
    return GraphFacts(values=(image, weights, maps), steps=(step,), inputs=(0,), outputs=(2,))


def test_an_input_lives_to_the_end_on_litert_and_not_on_a_microcontroller():
    assert arena_bytes(CHAIN) == 448 + 448 + 64
    assert arena.arena_bytes(CHAIN, CHAIN.steps) == 400 + 400  # the result takes the place of the input


def test_a_tensor_that_was_read_for_the_last_time_makes_room():
    steps = (*(Step(op="RELU", inputs=(i,), outputs=(i + 1,)) for i in range(4)),)
    chain = GraphFacts(values=(Y, X, X, X, Y), steps=steps, inputs=(0,), outputs=(4,))
    assert arena_bytes(chain) == 2 * 448 + 64  # two large ones at a time and the input; the result where one was


def test_without_xnnpack_a_convolution_unrolls_its_input():
    assert arena_bytes(conv(), LITERT) == 192 + 512
    assert arena_bytes(conv(), TFLITE_RUNTIME) == 192 + 512 + 16 * 27 * 4
    point = replace(WEIGHTS, shape=(8, 1, 1, 3), constant_bytes=96)
    assert arena_bytes(conv(weights=point), TFLITE_RUNTIME) == 192 + 512


def test_xnnpack_keeps_a_pointer_for_each_pixel_of_each_window():
    graph = conv()
    assert _pointers(graph, graph.steps[0]) == 16 * 9 * 8
    point = conv(weights=replace(WEIGHTS, shape=(8, 1, 1, 3), constant_bytes=96))
    assert _pointers(point, point.steps[0]) == 0


def test_integers_are_packed_once_more_and_summed_in_int32():
    image, maps = replace(IMAGE, dtype="int8"), replace(MAPS, dtype="int8")  # 48 bytes, 64; 128 bytes
    weights = replace(WEIGHTS, dtype="int8", constant_bytes=216)
    assert arena_bytes(conv(image, weights, maps)) == 64 + 128
    # 16 pixels of 27 int8: 432 bytes, 448; again with 128 int32: 944 bytes, 960
    assert arena_bytes(conv(image, weights, maps), TFLITE_RUNTIME) == 64 + 128 + 448 + 960


def test_int8_weights_on_float_data_need_the_data_as_integers_too():
    weights = replace(WEIGHTS, dtype="int8", constant_bytes=216)
    assert arena_bytes(conv(weights=weights)) == 192 + 512 + 64  # 48 int8


def test_weights_that_are_made_float32_once_are_no_activations():
    stored, wide = Value(shape=(8, 3, 3, 3), dtype="float16", constant_bytes=432), replace(WEIGHTS, constant_bytes=0)
    steps = (Step(op="DEQUANTIZE", inputs=(3,), outputs=(1,)), Step(op="CONV_2D", inputs=(0, 1), outputs=(2,)))
    graph = GraphFacts(values=(IMAGE, wide, MAPS, stored), steps=steps, inputs=(0,), outputs=(2,))
    assert arena_bytes(graph) == 192 + 512
    assert _loading([(None, graph)]) == 2 * 864
    four = replace(stored, dtype="int4", constant_bytes=108)
    assert _loading([(None, replace(graph, values=(IMAGE, wide, MAPS, four)))]) == 216


def test_a_handle_is_a_pointer_and_a_free_size_is_none():
    handle = Value(shape=(), dtype="resource")
    read = Step(op="READ_VARIABLE", inputs=(0,), outputs=(1,))
    graph = GraphFacts(values=(handle, Y), steps=(read,), inputs=(0,), outputs=(1,))
    assert arena_bytes(graph) == 64 + 64
    assert arena_bytes(replace(graph, values=(handle, replace(Y, free=True)))) is None
    assert arena_bytes(replace(graph, values=(handle, replace(Y, dtype="string")))) is None


@pytest.fixture
def golden(root):
    return (root / "tests/golden/bundle-1/float32.tflite").read_bytes()


def test_every_part_of_the_golden_model_is_what_a_hand_counts(golden):
    # x (1, 4) and W (3, 4) to (1, 3), and its softmax: 48 bytes of weights, three tensors of one step of 64 each
    expected = RamEstimate(
        base=62_000_000,
        file=len(golden),
        copies=48,
        pointers=0,
        arena=3 * 64,
        variables=0,
        ends=4 * (16 + 12),
        structures=4 * 2_000 + 2 * 8_000,
    )
    assert need(golden, LITERT) == expected
    assert ram_bytes(golden) == expected.total == 62_000_000 + len(golden) + 48 + 192 + 112 + 24_000


def test_what_is_no_model_is_refused():
    with pytest.raises(ModelError, match="TFL3"):
        ram_bytes(b"no model")


def test_convert_says_it_of_tflite_files_alone(golden):
    lite = Variant("f", "f.tflite", ("f.tflite",), Format.TFLITE, Scheme.FLOAT32, ("infer",))
    assert _sized(lite, {"f.tflite": golden}).requires == Requirements(ram_bytes=ram_bytes(golden))
    other = replace(lite, id="onnx", entry="model.onnx", files=("model.onnx",), format=Format.ONNX)
    assert _sized(other, {"model.onnx": b""}).requires == Requirements()
