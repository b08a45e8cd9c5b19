"""Values that a ReLU behind a sum throws away take no part of a range; everything else keeps what was measured."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("tensorflow")


A, B, SUM = "a", "b", "sum"
NONE, RELU, RELU_N1_TO_1, RELU6 = 0, 1, 2, 3  # ActivationFunctionType of the schema


def flatbuffer(operators, inputs=("x", "y"), outputs=("end",)):
    """A graph of (kind, inputs, output, fused activation) by tensor names."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    names = sorted({n for _, ins, out, _ in operators for n in (*ins, out)} | {*inputs, *outputs})
    kinds = sorted({kind for kind, *_ in operators})
    codes = [getattr(schema.BuiltinOperator, kind) for kind in kinds]
    made = [
        schema.OperatorT(
            opcodeIndex=kinds.index(kind),
            inputs=[names.index(n) for n in ins],
            outputs=[names.index(out)],
            builtinOptionsType=schema.BuiltinOptions.AddOptions if kind == "ADD" else 0,
            builtinOptions=schema.AddOptionsT(fusedActivationFunction=activation) if kind == "ADD" else None,
        )
        for kind, ins, out, activation in operators
    ]
    graph = schema.SubGraphT(
        tensors=[schema.TensorT(shape=[1, 4], buffer=0, name=n) for n in names],
        inputs=[names.index(n) for n in inputs],
        outputs=[names.index(n) for n in outputs],
        operators=made,
    )
    codes = [schema.OperatorCodeT(builtinCode=c, deprecatedBuiltinCode=c) for c in codes]
    tree = schema.ModelT(version=3, operatorCodes=codes, subgraphs=[graph], buffers=[schema.BufferT()])
    builder = flatbuffers.Builder(0)
    builder.Finish(tree.Pack(builder), b"TFL3")
    return bytes(builder.Output())


BEFORE = [("ABS", ["x"], A, NONE), ("ABS", ["y"], B, NONE)]


def narrowed(operators, a=(-12, 10), b=(-3, 5), **ends):
    """The ranges of a and b that `useful` leaves."""
    from edgeloop.convert.forms.ranges import useful

    given = {n: {"min": np.float32([low]), "max": np.float32([high])} for n, (low, high) in ((A, a), (B, b))}
    kept = {n: dict(both) for n, both in given.items()}
    found = useful(flatbuffer([*BEFORE, *operators], **ends), given)
    assert given == kept  # the caller's are left as they were
    assert all(end.dtype == np.float32 and end.shape == (1,) for both in found.values() for end in both.values())
    return tuple((float(found[n]["min"][0]), float(found[n]["max"][0])) for n in (A, B))


def add(activation, out="end"):
    return ("ADD", [A, B], out, activation)


UNFUSED = {
    "RELU": [add(NONE, SUM), ("RELU", [SUM], "end", NONE)],
    "RELU6": [add(NONE, SUM), ("RELU6", [SUM], "end", 0)],
}


@pytest.mark.parametrize("operators", [[add(RELU)], UNFUSED["RELU"]])
def test_what_a_relu_throws_away_for_any_other_input_is_left_out(operators):
    assert narrowed(operators) == ((-5, 10), (-3, 5))
    assert narrowed(operators, a=(-12, 1), b=(-30, 5)) == ((-5, 1), (-1, 5))
    assert narrowed(operators, a=(-12, -9), b=(-3, 5)) == ((-9, -9), (5, 5))  # any sum is below 0


@pytest.mark.parametrize("operators", [[add(RELU6)], UNFUSED["RELU6"]])
def test_a_relu6_also_throws_away_what_is_above_six(operators):
    assert narrowed(operators, a=(-12, 10), b=(-3, 5)) == ((-5, 9), (-3, 5))
    assert narrowed(operators, a=(2, 30), b=(7, 9)) == ((2, 2), (7, 7))  # any sum is above 6


@pytest.mark.parametrize(
    ("operators", "ends"),
    [
        ([add(NONE)], {}),
        ([add(RELU_N1_TO_1)], {}),
        ([add(NONE, SUM), ("RELU", [SUM], "end", NONE)], {"outputs": (SUM, "end")}),
        ([add(NONE, SUM), ("RELU", [SUM], "end", NONE), ("ABS", [SUM], "more", NONE)], {}),
        ([add(RELU), ("ABS", [A], "more", NONE)], {}),
        ([add(RELU)], {"outputs": (A, "end")}),
        ([add(RELU)], {"inputs": ("x", "y", A)}),
        ([("ADD", [A, A], "end", RELU)], {}),
    ],
    ids=["no-relu", "other-relu", "sum-is-output", "sum-read-twice", "a-read-twice", "a-output", "a-input", "a-plus-a"],
)
def test_what_something_else_may_read_keeps_its_range(operators, ends):
    assert narrowed(operators, **ends)[0] == (-12, 10)


def test_a_sum_with_an_input_of_unknown_range_keeps_the_other():
    from edgeloop.convert.forms.ranges import useful

    given = {A: {"min": np.float32([-12]), "max": np.float32([10])}}
    assert useful(flatbuffer([*BEFORE, add(RELU)]), given) == given


def test_calibrating_a_residual_net_gives_int8_the_finer_steps(tmp_path):
    """a in -100 to 1, b in 0 to 1: without it, a has a step of 101 / 255 = 0.4, with it 2 / 255."""
    import keras
    from ai_edge_litert.interpreter import Interpreter

    from edgeloop.bundle import Scheme
    from edgeloop.convert.forms import freeze, tflite
    from edgeloop.convert.samples import Samples
    from edgeloop.convert.sources.source import open_source

    image = keras.Input((8,), name="x")
    dense = [keras.layers.Dense(4, name=name) for name in ("one", "two")]
    keras.Model(image, keras.layers.ReLU()(keras.layers.Add()([d(image) for d in dense]))).save(tmp_path / "m.keras")
    model = keras.models.load_model(tmp_path / "m.keras")
    pick = np.eye(8, dtype=np.float32)
    model.set_weights([pick[:, :4], np.zeros(4, np.float32), pick[:, 4:], np.zeros(4, np.float32)])
    model.save(tmp_path / "m.keras")
    rng = np.random.default_rng(0)
    a = np.where(rng.random((256, 4)) < 0.5, rng.uniform(-100, -1, (256, 4)), rng.uniform(-1, 1, (256, 4)))
    x = np.concatenate([a, rng.random((256, 4))], axis=1).astype(np.float32)
    source = open_source(tmp_path / "m.keras")
    float32 = tflite.lower(freeze.freeze(source).composite, source)
    made = [
        tflite.quantize(float32, Scheme.INT16X8, tflite.calibrate(float32, source, Samples(inputs={"x": x})))
        for _ in range(2)
    ]
    assert made[0] == made[1]
    calibration = tflite.calibrate(float32, source, Samples(inputs={"x": x}))
    data = tflite.quantize(float32, Scheme.INT8, calibration)
    scales = {
        float(d["quantization"][0])
        for d in Interpreter(model_content=data).get_tensor_details()
        if d["dtype"] == np.int8 and tuple(d["shape"]) == (1, 4)
    }
    assert max(scales) < 2.01 / 255, scales  # both inputs of the sum, and the sum
    got, exact = (
        next(iter(Interpreter(model_content=m).get_signature_runner()(x=x).values())) for m in (data, float32)
    )
    np.testing.assert_allclose(exact, np.maximum(x[:, :4] + x[:, 4:], 0), atol=1e-5)
    # the model's input has the wide range's step, 0.4: half of it for each of a and b, and half a step of what follows
    assert np.abs(got - exact).max() < 101 / 255 + 3 * 2 / 255


def joined(operators, spans, **ends):
    """The largest values that the ranges have afterwards, all from 0."""
    from edgeloop.convert.forms.joins import with_joined_ranges

    given = {n: {"min": np.float32([0]), "max": np.float32([high])} for n, high in spans.items()}
    found = with_joined_ranges(flatbuffer(operators, **ends), given)
    return {n: float(both["max"][0]) for n, both in found.items()}


@pytest.mark.parametrize("kind", ["CONCATENATION", "PACK"])
def test_what_is_joined_has_the_range_of_the_whole_unless_another_reader_would_lose_more_than_a_bit(kind):
    operators = [*BEFORE, ("NEG", ["x"], "c", NONE), (kind, [A, B, "c", "x"], "end", NONE)]
    operators += [("NEG", [B], "b read", NONE), ("NEG", ["c"], "c read", NONE)]
    spans = {A: 1, B: 5, "c": 4, "x": 3, "end": 10}
    # a has no other reader; b loses one bit, c more; x is an input of the model
    assert joined(operators, spans) == {A: 10, B: 10, "c": 4, "x": 3, "end": 10}


def test_a_whole_that_is_joined_again_takes_the_range_of_the_last_with_its_parts():
    operators = [*BEFORE, ("PACK", [A], "s", NONE), ("CONCATENATION", ["s", B], "end", NONE)]
    assert joined(operators, {A: 1, B: 2, "s": 1, "end": 2}) == {A: 2, B: 2, "s": 2, "end": 2}


def test_an_output_that_is_joined_too_keeps_its_range():
    operators = [*BEFORE, ("PACK", [A, B], "end", NONE)]
    assert joined(operators, {A: 1, B: 2, "end": 2}, outputs=("end", A)) == {A: 1, B: 2, "end": 2}


SUMS = [*BEFORE, ("NEG", ["x"], "c", NONE), ("NEG", ["y"], "d", NONE), ("ADD", [A, B], "one", NONE),
        ("ADD", ["c", "d"], "two", NONE), ("PACK", ["d", "one", "two"], "end", NONE)]  # fmt: skip
SPANS = {A: 3, B: 1.5, "c": 5, "d": 3, "one": 4, "two": 4, "end": 99}


def test_what_the_steps_of_a_loop_add_up_has_the_range_of_the_sum_where_it_loses_no_more_than_a_bit(monkeypatch):
    monkeypatch.setattr("edgeloop.convert.forms.joins.JOINS", ())
    assert joined(SUMS, SPANS) == SPANS  # a sum that is in no loop
    monkeypatch.setattr("edgeloop.convert.forms.joins.repeated", lambda edit: range(99))
    # b would lose more than a bit; c is wider than the sum; d has another reader
    assert joined(SUMS, SPANS) == {**SPANS, A: 4}


def test_the_steps_of_a_loop_are_found_by_the_weights_that_they_share():
    """Two steps of h' = tanh(x W + h U); V is multiplied with once."""
    from edgeloop.convert.forms.repeats import repeated

    lines = """FULLY_CONNECTED x0 W a0; FULLY_CONNECTED h0 U b0; ADD a0 b0 s0; TANH s0 h1
               FULLY_CONNECTED x1 W a1; FULLY_CONNECTED h1 U b1; ADD a1 b1 s1; TANH s1 h2; NEG s1 n1
               FULLY_CONNECTED h2 V y; TANH y z"""
    words = [line.split() for line in lines.replace("\n", ";").split(";")]
    names = sorted({name for _, *names in words for name in names})
    operators = [
        SimpleNamespace(kind=kind, inputs=[names.index(n) for n in ins], outputs=[names.index(out)])
        for kind, *ins, out in words
    ]
    edit = SimpleNamespace(
        graph=SimpleNamespace(operators=operators),
        operators=lambda kind: [op for op in operators if op.kind == kind],
        kind=lambda op: op.kind,
        constant=lambda i: 1 if names[i] in "WUV" else None,
        is_float=lambda i: True,
    )
    assert {names[i] for i in repeated(edit)} == {"a0", "a1", "b0", "b1", "s0", "s1", "h1", "h2"}
