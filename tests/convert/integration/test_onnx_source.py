"""An .onnx becomes a source with its names, shapes and dtypes, whose graph computes what ONNX Runtime computes."""

from pathlib import Path

import numpy as np
import pytest
from onnx_models import answers, difference, make_model, run_tflite, to_tflite

from edgeloop.bundle import Scheme
from edgeloop.convert.sources.onnx_sizes import InputSettings
from edgeloop.convert.sources.source import open_source
from edgeloop.errors import ModelError, OptionsError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
tf = pytest.importorskip("tensorflow")
N = onnx.helper.make_node
FLOAT, FLOAT16, DOUBLE = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE
INT64, BOOL = onnx.TensorProto.INT64, onnx.TensorProto.BOOL
NORMAL = np.random.default_rng(0).standard_normal


@pytest.fixture
def save(tmp_path):
    """Write `make_model`'s model; where it is."""

    def write(*parts, **more) -> Path:
        onnx.save(make_model(*parts, **more), tmp_path / "m.onnx")
        return tmp_path / "m.onnx"

    return write


def weights(*shape) -> np.ndarray:
    return (np.random.default_rng(sum(shape)).standard_normal(shape) * 0.3).astype(np.float32)


def floats(*shape) -> np.ndarray:
    return NORMAL(shape).astype(np.float32)


def described(specs) -> dict:
    return {spec.name: (spec.shape, spec.dtype) for spec in specs}


def assert_as_onnx_runtime(path, source, **feeds):
    """The graph that is converted, not `source.call`, which is ONNX Runtime itself; as close as `onnx_models.check`."""
    names = dict(zip([v.name for v in onnx.load(path).graph.input], [s.name for s in source.inputs], strict=False))
    expected = answers(path, {name: feeds[new] for name, new in names.items()})
    specs = {s.name: tf.TensorSpec(s.shape, s.dtype) for s in source.inputs}
    graph = tf.function(source.graph, autograph=False).get_concrete_function(**specs)
    found = graph(**{name: tf.constant(array) for name, array in feeds.items()})
    for spec, e, f in zip(source.outputs, expected, found, strict=True):
        assert (f.numpy().shape, f.numpy().dtype, str(e.dtype)) == (e.shape, e.dtype, spec.dtype)
        assert difference(e, f.numpy()) <= (1e-4 if e.dtype.kind == "f" else 0), spec.name


def assert_answers(source, feeds, expected):
    """Both the graph that is converted and ONNX Runtime answer this."""
    (found,) = source.graph(**{name: tf.constant(array) for name, array in feeds.items()})
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(source.call(feeds)[source.outputs[0].name], expected)


def test_a_conv_net_keeps_its_channels_first_and_its_free_batch(save):
    path = save(
        [
            N("Conv", ["x:0", "w", "b"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
            N("Relu", ["c"], ["r"]),
            N("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
            N("Flatten", ["p"], ["f"]),
            N("Gemm", ["f", "g", "gb"], ["/logits/1"], transB=1),
        ],
        {"x:0": ["N", 3, 16, 12]},
        {"/logits/1": ["N", 5]},
        {"w": weights(8, 3, 3, 3), "b": weights(8), "g": weights(5, 96), "gb": weights(5)},
    )
    source = open_source(path)
    assert (source.kind.value, source.signature, source.path) == ("onnx", "infer", path)
    assert described(source.inputs) == {"x_0": ((None, 3, 16, 12), "float32")}
    assert described(source.outputs) == {"logits_1": ((None, 5), "float32")}
    for batch in (1, 7):
        x = floats(batch, 3, 16, 12)
        assert_as_onnx_runtime(path, source, x_0=x)
        np.testing.assert_array_equal(source.call({"x_0": x})["logits_1"], answers(path, {"x:0": x})[0])


def test_several_inputs_and_outputs_keep_names_shapes_and_dtypes(save):
    path = save(
        [
            N("Conv", ["image", "w"], ["features"]),
            N("GlobalAveragePool", ["features"], ["a"]),
            N("Flatten", ["a"], ["f"]),
            N("Gather", ["table", "ids"], ["e"]),
            N("ReduceMean", ["e"], ["m"], axes=[1], keepdims=0),
            N("Concat", ["f", "m"], ["c"], axis=1),
            N("MatMul", ["c", "v"], ["y"]),
            N("Softmax", ["y"], ["class"], axis=-1),
            N("ArgMax", ["y"], ["best"], axis=1, keepdims=0),
        ],
        {"image": ["n", 4, 10, 9], "ids": (["n", 6], INT64)},
        {"features": ["n", 5, 8, 7], "class": ["n", 6], "best": (["n"], INT64)},
        {"w": weights(5, 4, 3, 3), "table": weights(10, 3), "v": weights(8, 6)},
    )
    source = open_source(path)
    assert described(source.inputs) == {"image": ((None, 4, 10, 9), "float32"), "ids": ((None, 6), "int64")}
    assert described(source.outputs) == {
        "features": ((None, 5, 8, 7), "float32"),  # it lies channels last inside
        "class": ((None, 6), "float32"),
        "best": ((None,), "int64"),
    }
    assert_as_onnx_runtime(path, source, image=floats(5, 4, 10, 9), ids=np.arange(30).reshape(5, 6) % 10)


@pytest.mark.parametrize("channels", [3, 8])
def test_where_channels_height_and_width_are_equal_each_axis_keeps_its_meaning(save, channels):
    path = save(
        [
            N("Conv", ["x", "w0"], ["a"], pads=[1, 1, 1, 1]),
            N("Conv", ["a", "w1"], ["d"], pads=[1, 1, 1, 1], group=channels),
            N("Add", ["d", "x"], ["s"]),
            N("Mul", ["s", "k"], ["m"]),
            N("ReduceMean", ["m"], ["y"], axes=[2, 3], keepdims=0),
        ],
        {"x": ["n", *[channels] * 3]},
        {"y": ["n", channels], "m": ["n", *[channels] * 3]},
        {"w0": weights(channels, channels, 3, 3), "w1": weights(channels, 1, 3, 3), "k": weights(channels, 1, 1)},
    )
    assert_as_onnx_runtime(path, open_source(path), x=floats(4, *[channels] * 3))


def test_transposed_convolutions_with_free_batch_and_free_sizes(save):
    path = save(
        [
            N("Conv", ["x", "w0"], ["a"], pads=[1, 1, 1, 1]),
            N("MaxPool", ["a"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
            N("ConvTranspose", ["p", "wt"], ["u"], kernel_shape=[2, 2], strides=[2, 2]),
            N("Concat", ["u", "a"], ["c"], axis=1),
            N("Conv", ["c", "w1"], ["y"]),
        ],
        {"x": ["n", 3, "h", "w"]},
        {"y": ["n", 2, "h", "w"]},
        {"w0": weights(4, 3, 3, 3), "wt": weights(4, 4, 2, 2), "w1": weights(2, 8, 1, 1)},
    )
    source = open_source(path)
    assert described(source.outputs) == {"y": ((None, 2, None, None), "float32")}
    assert_as_onnx_runtime(path, source, x=floats(3, 3, 8, 12))


def test_a_shape_that_tensorflow_cannot_infer_is_onnxs(save):
    path = save(  # x.view(x.size(0), -1), as PyTorch exports it
        [
            N("Conv", ["x", "w"], ["c"]),
            N("Shape", ["c"], ["s"]),
            N("Gather", ["s", "zero"], ["b"]),
            N("Concat", ["b", "rest"], ["to"], axis=0),
            N("Reshape", ["c", "to"], ["y"]),
        ],
        {"x": ["n", 3, 6, 6]},
        {"y": ["n", 32]},
        {"w": weights(2, 3, 3, 3), "zero": np.array([0]), "rest": np.array([-1])},
    )
    source = open_source(path)
    assert described(source.outputs) == {"y": ((None, 32), "float32")}
    assert_as_onnx_runtime(path, source, x=floats(2, 3, 6, 6))


def test_a_recurrent_layer_with_a_free_batch_becomes_operators_that_a_device_has(save):
    path = save(  # as PyTorch exports it: the first state is zeros of the batch's size
        [
            N("Shape", ["x"], ["s"]),
            N("Gather", ["s", "axis"], ["b"]),
            N("Concat", ["one", "b", "four"], ["size"], axis=0),
            N("ConstantOfShape", ["size"], ["zeros"]),
            N("LSTM", ["x", "w", "r", "b8", "", "zeros", "zeros"], ["", "h"], hidden_size=4),
            N("Squeeze", ["h", "first"], ["y"]),
        ],
        {"x": ["t", "n", 3]},
        {"y": ["n", 4]},
        {"w": weights(1, 16, 3), "r": weights(1, 16, 4), "b8": weights(1, 32), "axis": np.array([1]),
         "one": np.array([1]), "four": np.array([4]), "first": np.array([0])},
    )  # fmt: skip
    source = open_source(path)
    assert_as_onnx_runtime(path, source, x=floats(7, 5, 3))
    x = floats(9, 4, 3)
    (found,) = run_tflite(to_tflite(onnx.load(path)), [x])  # with builtins alone, at sizes of their own
    assert difference(answers(path, {"x": x})[0], found) <= 1e-4


def test_a_keras_model_comes_back_from_tf2onnx(tmp_path):
    tf2onnx, keras = pytest.importorskip("tf2onnx"), pytest.importorskip("keras")
    layers = keras.layers
    keras.utils.set_random_seed(0)
    x = keras.Input((12, 12, 3), name="image")
    y = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
    y = layers.DepthwiseConv2D(3, padding="same")(layers.BatchNormalization()(y))
    y = layers.Dense(5, activation="softmax")(layers.Flatten()(layers.MaxPool2D()(y)))
    model = keras.Model(x, y)
    spec = [tf.TensorSpec([None, 12, 12, 3], tf.float32, name="image")]
    function = tf.function(lambda image: {"prob": model(image)}, input_signature=spec)
    proto, _ = tf2onnx.convert.from_function(function, input_signature=spec, opset=17)
    onnx.save(proto, tmp_path / "k.onnx")

    source = open_source(tmp_path / "k.onnx")
    assert described(source.inputs) == {"image": ((None, 12, 12, 3), "float32")}
    image = np.random.default_rng(7).random((6, 12, 12, 3), np.float32)
    assert_as_onnx_runtime(tmp_path / "k.onnx", source, image=image)
    assert np.abs(source.call({"image": image})["prob"] - model(image)).max() <= 1e-5  # probabilities


def test_an_import_that_computes_something_else_is_refused_and_the_node_is_named(save, monkeypatch):
    from edgeloop.convert.onnx.operators import OPS

    monkeypatch.setitem(OPS, "Neg", lambda n, x: x)  # a bug
    path = save(
        [N("Relu", ["x"], ["r"]), N("Neg", ["r"], ["s"], name="turn/1"), N("Add", ["s", "x"], ["y"], name="sum")],
        {"x": ["n", 4]},
        {"y": ["n", 4]},
    )
    with pytest.raises(ModelError, match=r"computes y differently from ONNX Runtime; .* is at Neg 'turn/1'\. Convert"):
        open_source(path)


def test_a_small_number_of_a_sigmoid_may_be_off_by_what_float32_rounds_at_1_and_no_more(save, monkeypatch):
    from edgeloop.convert.onnx.operators import OPS

    nodes = [N("Sub", ["x", "far"], ["t"]), N("Sigmoid", ["t"], ["y"], name="p")]
    path = save(nodes, {"x": [1, 1]}, {"y": None}, {"far": np.float32(9)})
    monkeypatch.setitem(OPS, "Sigmoid", lambda n, x: type(x)(tf.sigmoid(x.raw()) + 2.0**-22, x.dtype, x.perm))
    open_source(path)  # off by 2.4e-7: one number of about 1e-4, so its span is 0
    monkeypatch.setitem(OPS, "Sigmoid", lambda n, x: type(x)(tf.sigmoid(x.raw()) + 2.0**-19, x.dtype, x.perm))
    with pytest.raises(ModelError, match="at Sigmoid 'p'"):
        open_source(path)


def test_a_users_inputs_judge_too(save, monkeypatch):
    from edgeloop.convert.onnx.operators import OPS

    path = save([N("Relu", ["x"], ["y"], name="act")], {"x": ["n", 4]}, {"y": ["n", 4]})
    monkeypatch.setitem(OPS, "Relu", lambda n, x: type(x)(tf.nn.relu6(x.raw()), x.dtype, x.perm))  # wrong above 6
    source = open_source(path)  # what is made up lies within a few standard deviations
    source.judge([{"x": np.ones((3, 4), np.float32)}])
    with pytest.raises(ModelError, match="at Relu 'act'"):
        source.judge([{"x": np.full((3, 4), 9.0, np.float32)}])


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (N("Unknown", ["x"], ["y"], name="mine"), r"ONNX Runtime cannot load it \(.*No Op registered for Unknown"),
        (
            N("RandomNormalLike", ["x"], ["y"], name="mine"),
            r"RandomNormalLike 'mine' cannot be imported: .* Convert the model that",
        ),
        (N("MatMul", ["x", "w"], ["y"]), "ONNX Runtime cannot load it"),
    ],
)
def test_what_cannot_be_imported_is_refused_by_name_in_one_line(save, node, said):
    path = save([node], {"x": ["n", 3]}, {"y": None}, {"w": weights(4, 2)})
    with pytest.raises(ModelError, match=said) as refused:
        open_source(path)
    assert str(refused.value).startswith(f"{path}: ") and "\n" not in str(refused.value)


def test_a_damaged_file_is_no_onnx_model(tmp_path):
    from edgeloop.convert.onnx.external import read_onnx

    (tmp_path / "m.onnx").write_bytes(b"\x08\x09garbage" * 9)
    with pytest.raises(ModelError, match=r"m\.onnx is not an ONNX model"):
        read_onnx(tmp_path / "m.onnx")


def test_sizes_are_fixed_before_the_import_by_either_name(save):
    path = save([N("Relu", ["in:0"], ["y"])], {"in:0": ["n", 3, "h", "w"]}, {"y": ["n", 3, "h", "w"]})
    for name in ("in_0", "in:0"):
        source = open_source(path, settings=InputSettings(shapes={name: (1, None, 8, None)}))
        assert described(source.inputs) == {"in_0": ((1, 3, 8, None), "float32")}
        assert described(source.outputs) == {"y": ((1, 3, 8, None), "float32")}
    with pytest.raises(OptionsError, match=r"--shape in_0=1,4,8,8 does not fit the input 'in_0' of shape \?,3,\?,\?"):
        open_source(path, settings=InputSettings(shapes={"in_0": (1, 4, 8, 8)}))
    with pytest.raises(OptionsError, match="names the input 'z', which the model does not have"):
        open_source(path, settings=InputSettings(shapes={"z": (1,)}))


@pytest.mark.parametrize("where", ["input", "output"])
def test_a_sequence_at_an_end_of_the_model_is_refused_by_name(where):
    from edgeloop.convert.onnx.importer import import_onnx
    from edgeloop.convert.onnx.value import Unsupported

    make, number = onnx.helper, onnx.TensorProto.FLOAT
    tensor = make.make_tensor_value_info("x", number, [None, 4])
    parts = make.make_tensor_sequence_value_info("parts", number, None)
    nodes = {
        "input": N("ConcatFromSequence", ["parts"], ["x"], axis=1),
        "output": N("SplitToSequence", ["x"], ["parts"]),
    }
    ends = [[parts], [tensor]] if where == "input" else [[tensor], [parts]]
    model = make.make_model(make.make_graph([nodes[where]], "g", *ends), opset_imports=[make.make_opsetid("", 17)])
    with pytest.raises(Unsupported, match=f"an {where} that is no tensor .'parts'."):
        import_onnx(model)


def test_a_refusal_for_a_free_size_names_the_smallest_shape_that_would_pass(save):
    path = save([N("Squeeze", ["x"], ["y"], name="drop")], {"x": ["n", 3, "h", "w"]}, {"y": None})
    with pytest.raises(ModelError, match=r"Squeeze 'drop' cannot be imported: .* e\.g\. --shape x=1,3,224,224$"):
        open_source(path)  # any of the three could be 1
    path = save([N("Squeeze", ["x"], ["y"], name="drop")], {"x": ["n", 3, 4]}, {"y": None})
    with pytest.raises(ModelError, match=r"e\.g\. --shape x=1,3,4$"):
        open_source(path)
    source = open_source(path, settings=InputSettings(shapes={"x": (1, None, None)}))
    assert described(source.outputs) == {"y": ((3, 4), "float32")}


def test_a_batch_that_onnx_runtime_runs_with_one_sample_alone_is_one(save):
    nodes = [N("Reshape", ["x", "shape"], ["y"], name="view")]  # an exporter traced one sample
    path = save(nodes, {"x": ["n", "time", 4]}, {"y": None}, {"shape": np.array([1, -1, 2, 2])})
    source = open_source(path)  # two samples become one of twice the length: nothing to say against that
    assert described(source.inputs) == {"x": ((None, None, 4), "float32")}
    nodes = [
        *nodes,
        N("Add", ["x", "x"], ["twice"]),
        N("Reshape", ["twice", "same"], ["z"]),
        N("Add", ["y", "z"], ["s"]),
    ]
    path = save(
        nodes, {"x": ["n", 3, 4]}, {"s": None}, {"shape": np.array([1, 3, 2, 2]), "same": np.array([-1, 3, 2, 2])}
    )
    source = open_source(path)
    assert described(source.inputs) == {"x": ((1, 3, 4), "float32")}
    assert source.notes == ("ONNX Runtime runs the model with a batch of 1 alone, so the batch is fixed to 1.",)


def test_a_batch_is_free_where_only_the_trials_of_one_sample_are_small_enough(save, monkeypatch):
    monkeypatch.setattr("edgeloop.convert.onnx.trials.LIMIT_TENSOR", 12)
    source = open_source(save([N("Neg", ["x"], ["y"])], {"x": ["n", 3, 4]}, {"y": None}))
    assert described(source.inputs) == {"x": ((None, 3, 4), "float32")} and source.notes == ()


def test_the_tensors_of_a_model_of_fixed_sizes_are_not_counted(save, monkeypatch):
    monkeypatch.delattr("edgeloop.convert.onnx.original.OriginalModel.largest_tensor")
    assert open_source(save([N("Neg", ["x"], ["y"])], {"x": [2, 3]}, {"y": None})).notes == ()


def test_answers_that_rounding_alone_changes_are_refused_as_that(save, monkeypatch):
    from edgeloop.convert.onnx.operators import OPS

    path = save([N("Mul", ["x", "k"], ["t"]), N("Sin", ["t"], ["y"])], {"x": [64]}, {"y": None}, {"k": np.float32(1e8)})
    monkeypatch.setitem(OPS, "Sin", lambda n, x: type(x)(tf.cos(x.raw()), x.dtype, x.perm))
    with pytest.raises(ModelError, match=r"own answers change by \d\d% of their span .* 1e-06 .* with --eval\.$"):
        open_source(path)


def judged(off, moved, floats=frozenset()):
    """What a judge says of outputs from 0 to 1 that are off by `off`; ONNX Runtime's own move by `moved`."""
    from types import SimpleNamespace

    from edgeloop.convert.onnx.judge import Judge
    from edgeloop.convert.onnx.trials import Trial

    answers = [np.array([0.0, 1.0], np.float32) for _ in off]
    original = SimpleNamespace(
        is_quantized=False, inner=(), run=lambda fed: [a + m for a, m in zip(answers, moved, strict=True)]
    )
    function = SimpleNamespace(floats=floats, inputs=(), outputs=["y", "z"][: len(off)], specs=lambda: (), made=dict)
    judge = Judge(original, function, lambda: [a + o for a, o in zip(answers, off, strict=True)])
    judge.check([Trial({}, answers)])


@pytest.mark.parametrize("floats", [set(), {"float16"}])
def test_more_than_a_fiftieth_of_the_span_is_no_rounding_whatever_onnx_runtime_computes_in(floats):
    judged([0.018], [0.018], floats)
    with pytest.raises(ModelError, match=r"own answers change by 9% of their span"):  # 0.1 / 1.1
        judged([0.1], [0.1], floats)


def test_only_what_rounding_moves_of_an_output_that_differs_excuses_a_refusal():
    with pytest.raises(ModelError, match="it computes y differently from ONNX Runtime"):
        judged([0.1, 0.0], [0.0, 0.1])


@pytest.mark.parametrize(
    ("kinds", "rounds"),
    [
        ([], None),
        ([N("QuantizeLinear", ["x", "s"], ["q"]), N("DequantizeLinear", ["q", "s"], ["d"])], Scheme.INT8),
        (
            [N("DynamicQuantizeLinear", ["x"], ["q", "k", "z"]), N("DequantizeLinear", ["q", "k", "z"], ["d"])],
            Scheme.DYNAMIC,
        ),
    ],
)
def test_a_source_tells_how_it_rounds_itself(save, kinds, rounds):
    path = save(
        [*kinds, N("Relu", ["d" if kinds else "x"], ["y"])], {"x": ["n", 4]}, {"y": None}, {"s": np.float32(0.1)}
    )
    assert open_source(path).rounds is rounds


def two_rates(save):
    """The sample rate is an input, and says which axis is new."""
    return save(
        [N("Div", ["sr", "sixteen"], ["axes"]), N("Unsqueeze", ["x", "axes"], ["y"], name="frames")],
        {"x": ["n", 4], "sr": ([1], INT64)},
        {"y": None},
        {"sixteen": np.array([16000])},
    )


def test_an_input_that_is_fixed_is_a_constant_and_a_refusal_names_the_option(save):
    path = two_rates(save)
    with pytest.raises(ModelError, match=r"Unsqueeze 'frames' cannot be imported: .* e\.g\. --fix sr=16000$"):
        open_source(path)
    source = open_source(path, settings=InputSettings(fixed={"sr": (16000,)}))
    assert described(source.inputs) == {"x": ((None, 4), "float32")}
    assert described(source.outputs) == {"y": ((None, 1, 4), "float32")}
    assert_answers(source, {"x": np.ones((2, 4), np.float32)}, [[[1, 1, 1, 1]]] * 2)


@pytest.mark.parametrize(
    ("fixed", "said"),
    [
        ({"rate": (1,)}, "--fix names the input 'rate', which the model does not have. It has: x, sr"),
        ({"sr": (1, 2)}, "--fix sr=1,2 has 2 numbers, and the input 'sr' is 1"),
        ({"sr": (0.5,)}, "--fix is sr=0.5, and the input 'sr' is int64"),
        ({"sr": (1,), "x": (1, 2, 3, 4)}, "--fix names every input"),
    ],
)
def test_an_input_is_fixed_to_numbers_that_fit_it(save, fixed, said):
    with pytest.raises(OptionsError) as refused:
        open_source(two_rates(save), settings=InputSettings(fixed=fixed))
    assert said in str(refused.value)


def test_fix_is_for_onnx_files_alone(tmp_path):
    keras = pytest.importorskip("keras")
    keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(1)]).save(tmp_path / "m.keras")
    with pytest.raises(OptionsError, match=r"--fix applies to \.onnx files"):
        open_source(tmp_path / "m.keras", settings=InputSettings(fixed={"x": (1, 2)}))


@pytest.mark.parametrize(("kind", "name"), [(FLOAT16, "float16"), (DOUBLE, "float64")])
def test_other_floats_are_computed_in_float32_and_it_is_said(save, kind, name):
    w = weights(4, 3).astype(name)
    path = save([N("MatMul", ["x", "w"], ["y"])], {"x": (["n", 4], kind)}, {"y": (["n", 3], kind)}, {"w": w})
    source = open_source(path)
    assert described((*source.inputs, *source.outputs)) == {"x": ((None, 4), "float32"), "y": ((None, 3), "float32")}
    (note,) = source.notes
    assert note.startswith(f"The model computes in {name}, and devices in float32, so it was converted in float32: on")
    x = floats(2, 4)
    np.testing.assert_allclose(source.call({"x": x})["y"], x @ w.astype(np.float32), rtol=1e-5, atol=1e-6)


def test_the_distance_of_other_floats_is_measured_at_sizes_that_the_original_takes(save):
    """Its inputs are at least 41 values long, and made-up ones 32 where nothing is known."""
    nodes = [N("Gather", ["x", "i"], ["g"], axis=1), N("Exp", ["g"], ["y"])]
    ends = {"x": (["n", "t"], DOUBLE)}, {"y": (["n", 1], DOUBLE)}
    source = open_source(save(nodes, *ends, {"i": np.array([40])}))
    assert source.sizes["x"][1] == 64
    assert "on generated inputs the answers differ by at most" in source.notes[0]


def test_float16_weights_that_are_cast_first_need_no_note(save):
    w = weights(4, 3).astype(np.float16)
    nodes = [N("Cast", ["w"], ["v"], to=FLOAT), N("MatMul", ["x", "v"], ["y"])]
    source = open_source(save(nodes, {"x": ["n", 4]}, {"y": ["n", 3]}, {"w": w}))
    assert source.notes == ()


def test_layers_that_share_their_weights_by_other_names_share_one_constant(save):
    """As exporters write a net that calls one layer again and again."""
    from edgeloop.convert.onnx.importer import import_onnx

    nodes = [N("Identity", ["w"], [f"w{i}"]) for i in range(3)]
    nodes += [N("MatMul", [name, f"w{i}"], [out]) for i, (name, out) in enumerate(("xa", "ab", "by"))]
    model = onnx.load(save(nodes, {"x": ["n", 8]}, {"y": ["n", 8]}, {"w": weights(8, 8)}))
    graph = import_onnx(model).traced().graph.as_graph_def()
    shapes = [[d.size for d in node.attr["value"].tensor.tensor_shape.dim] for node in graph.node if node.op == "Const"]
    assert shapes.count([8, 8]) == 1


def test_functions_of_the_model_are_inlined_and_old_files_name_their_constants_as_inputs(save, tmp_path):
    double = onnx.helper.make_function(
        "own", "Twice", ["a"], ["b"], [N("Add", ["a", "a"], ["b"])], [onnx.helper.make_opsetid("", 17)]
    )
    nodes = [onnx.helper.make_node("Twice", ["x"], ["t"], domain="own"), N("Mul", ["t", "w"], ["y"])]
    path = save(
        nodes, {"x": ["n", 3], "w": [3]}, {"y": ["n", 3]}, {"w": weights(3)},
        functions=[double], opset_imports=[onnx.helper.make_opsetid("own", 1)],
    )  # fmt: skip
    source = open_source(path)
    assert described(source.inputs) == {"x": ((None, 3), "float32")}
    assert_as_onnx_runtime(path, source, x=floats(2, 3))


def test_a_lone_nan_that_where_puts_in_place_of_others_is_no_weight(save):
    nodes = [
        N("Less", ["x", "zero"], ["below"]),
        N("Where", ["below", "nan", "x"], ["marked"]),
        N("IsNaN", ["marked"], ["is"]),
        N("Where", ["is", "zero", "marked"], ["y"]),
    ]
    path = save(nodes, {"x": ["n"]}, {"y": ["n"]}, {"zero": np.float32(0), "nan": np.float32(np.nan)})
    assert_answers(open_source(path), {"x": np.array([-1, 2], np.float32)}, [0, 2])


def test_a_newer_format_than_onnx_runtimes_is_read(save):
    path = save([N("Relu", ["x"], ["y"])], {"x": ["n", 3]}, {"y": ["n", 3]})
    model = onnx.load(path)
    model.ir_version = 15
    path.write_bytes(model.SerializeToString())
    assert (open_source(path).call({"x": -np.ones((1, 3), np.float32)})["y"] == 0).all()


@pytest.mark.parametrize(
    "nodes",
    [
        [N("ConstantOfShape", ["huge"], ["c"]), N("ReduceMax", ["c"], ["m"], keepdims=0)],
        [N("Tile", ["one", "huge"], ["c"]), N("ReduceMax", ["c"], ["m"], keepdims=0)],
        [N("Expand", ["one", "huge"], ["c"]), N("ReduceMax", ["c"], ["m"], keepdims=0)],
        [N("Range", ["zero", "far", "step"], ["c"]), N("ReduceMax", ["c"], ["m"], keepdims=0)],
    ],
    ids=lambda nodes: nodes[0].op_type,
)
def test_a_constant_of_a_terabyte_is_refused_before_it_is_made(nodes):
    """The importer by itself: ONNX Runtime, which is asked first, would make it, and end at the limit of the child."""
    from edgeloop.convert.onnx.importer import import_onnx
    from edgeloop.convert.onnx.value import Unsupported

    constants = {"huge": np.array([2**20, 2**20]), "one": np.ones((1, 1), np.float32)}
    constants |= {"zero": np.array(0.0, np.float32), "far": np.array(2.0**40, np.float32)}
    constants["step"] = np.array(1.0, np.float32)
    model = make_model([*nodes, N("Add", ["x", "m"], ["y"])], {"x": ["n", 3]}, {"y": ["n", 3]}, constants)
    with pytest.raises(Unsupported, match=f"{nodes[0].op_type} cannot be imported: a tensor of shape .* elements$"):
        import_onnx(model).traced()


def test_data_beside_the_model_is_mapped_and_nothing_outside_its_folder_is_read(tmp_path):
    from edgeloop.convert.onnx.external import read_onnx

    w = weights(64, 64)
    model = make_model([N("MatMul", ["x", "w"], ["y"])], {"x": ["n", 64]}, {"y": ["n", 64]}, {"w": w})
    (tmp_path / "inside").mkdir()
    path = tmp_path / "inside" / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    _, arrays = read_onnx(path)
    assert isinstance(arrays["w"], np.memmap)
    np.testing.assert_array_equal(arrays["w"], w)
    assert_as_onnx_runtime(path, open_source(path), x=floats(2, 64))
    (path.parent / "w.bin").rename(tmp_path / "w.bin")
    outside = onnx.load(path, load_external_data=False)
    for entry in outside.graph.initializer[0].external_data:
        entry.value = "../w.bin" if entry.key == "location" else entry.value
    path.write_bytes(outside.SerializeToString())
    with pytest.raises(ModelError, match=r"in '\.\./w\.bin', which leads out of its folder"):
        read_onnx(path)
