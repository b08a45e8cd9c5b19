"""Each rule that rewrites a net for integers: LiteRT answers as NumPy does, and what a rule does not fit stays."""

import flatbuffers
import numpy as np
import pytest

from edgeloop.convert.forms.rewrite import for_integers
from edgeloop.files.flatbuffer import read_tflite

schema = pytest.importorskip("ai_edge_litert.schema_py_generated")

RNG = np.random.default_rng(4)
IMAGE, ROW = (RNG.normal(size=shape).astype(np.float32) for shape in ((1, 2, 2, 3), (1, 4)))
A, B = np.float32([2.0, -3.0, 0.5]), np.float32([0.25, 1.0, -4.0])
W = RNG.normal(size=(3, 4)).astype(np.float32)  # FULLY_CONNECTED's are [out, in]
RELU = schema.ActivationFunctionType.RELU


def tflite(shapes, constants, *operators):
    """Operators are (kind, names of inputs, name of the output, {options}); "x" is the input, the last output "y"."""
    model = schema.ModelT(version=3, buffers=[schema.BufferT()], operatorCodes=[])
    graph = schema.SubGraphT(tensors=[], operators=[])
    types = {"float32": schema.TensorType.FLOAT32, "int32": schema.TensorType.INT32}
    for name, value in {**dict.fromkeys(shapes), **constants}.items():
        shape, kind, buffer = (shapes[name], "float32", 0) if value is None else (value.shape, value.dtype.name, None)
        if value is not None:
            buffer = len(model.buffers)
            model.buffers.append(schema.BufferT(data=np.frombuffer(value.tobytes(), np.uint8)))
        graph.tensors.append(schema.TensorT(name=name.encode(), shape=list(shape), buffer=buffer, type=types[kind]))
    names = [*shapes, *constants]
    for kind, inputs, output, options in operators:
        code = getattr(schema.BuiltinOperator, kind)
        model.operatorCodes.append(schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=code, version=1))
        name = f"{''.join(word.capitalize() for word in kind.split('_')).replace('Conv2d', 'Conv2D')}Options"
        graph.operators.append(
            schema.OperatorT(
                opcodeIndex=len(model.operatorCodes) - 1,
                inputs=[names.index(i) for i in inputs],
                outputs=[names.index(output)],
                builtinOptionsType=getattr(schema.BuiltinOptions, name),
                builtinOptions=getattr(schema, f"{name}T")(**options),
            )
        )
    graph.inputs, graph.outputs = [names.index("x")], [names.index("y")]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def litert(data, x):
    from ai_edge_litert.interpreter import Interpreter

    runtime = Interpreter(model_content=data)
    runtime.allocate_tensors()
    runtime.set_tensor(runtime.get_input_details()[0]["index"], x)
    runtime.invoke()
    return runtime.get_tensor(runtime.get_output_details()[0]["index"])


def image(*operators, **constants):
    shapes = dict.fromkeys(["x", "h", "y"], IMAGE.shape)
    return tflite(shapes, constants, *operators), IMAGE


def dense(*operators, **constants):
    shapes = {"x": ROW.shape, **dict.fromkeys("hgy", (1, 3))}
    return tflite(shapes, {"w": W, **constants}, *operators), ROW


def relu(x):
    return np.maximum(x, 0)


DENSE = ("FULLY_CONNECTED", "xw", "h", {})
SCALED = ("MUL", "xa", "h", {})
ACTIVE = {"fusedActivationFunction": RELU}
HALF = np.float32(0.5)
REWRITTEN = {
    "NEG": (image(("NEG", "x", "y", {})), -IMAGE, ["MUL"]),
    "SQUARE": (image(("SQUARE", "x", "y", {})), IMAGE**2, ["MUL"]),
    "x * a + b": (image(SCALED, ("ADD", "hb", "y", {}), a=A, b=B), IMAGE * A + B, ["DEPTHWISE_CONV_2D"]),
    "b + x * a": (image(SCALED, ("ADD", "bh", "y", {}), a=A, b=B), IMAGE * A + B, ["DEPTHWISE_CONV_2D"]),
    "x * a - b": (image(SCALED, ("SUB", "hb", "y", {}), a=A, b=B), IMAGE * A - B, ["DEPTHWISE_CONV_2D"]),
    "relu(x * a + b)": (
        image(SCALED, ("ADD", "hb", "y", ACTIVE), a=A, b=B),
        relu(IMAGE * A + B),
        ["DEPTHWISE_CONV_2D"],
    ),
    "x * 0.5 + b": (image(SCALED, ("ADD", "hb", "y", {}), a=HALF, b=B), IMAGE / 2 + B, ["DEPTHWISE_CONV_2D"]),
    "a dense layer + b": (dense(DENSE, ("ADD", "hb", "y", {}), b=B), ROW @ W.T + B, ["FULLY_CONNECTED"]),
    "relu(a dense layer with a bias + b)": (
        dense(("FULLY_CONNECTED", "xwa", "h", {}), ("ADD", "hb", "y", ACTIVE), a=A, b=B),
        relu(ROW @ W.T + A + B),
        ["FULLY_CONNECTED"],
    ),
    "EXPAND_DIMS": (
        (tflite({"x": (1, 4), "y": (1, 1, 4)}, {"a": np.int32(1)}, ("EXPAND_DIMS", "xa", "y", {})), ROW),
        ROW[:, None],
        ["RESHAPE"],
    ),
    "SQUEEZE": (
        (tflite({"x": (1, 4), "y": (4,)}, {}, ("SQUEEZE", "x", "y", {"squeezeDims": [0]})), ROW),
        ROW[0],
        ["RESHAPE"],
    ),
}
STAYS = {
    "b - x * a": image(SCALED, ("SUB", "bh", "y", {}), a=A, b=B),
    "relu(x * a) + b": image(("MUL", "xa", "h", ACTIVE), ("ADD", "hb", "y", {}), a=A, b=B),
    "x * a + x": image(SCALED, ("ADD", "hx", "y", {}), a=A),
    "a row * a + b": (
        tflite(dict.fromkeys("xhy", ROW.shape), {"a": HALF, "b": HALF}, ("MUL", "xa", "h", {}), ("ADD", "hb", "y", {})),
        ROW,
    ),
    "relu(a dense layer) + b": dense(("FULLY_CONNECTED", "xw", "h", ACTIVE), ("ADD", "hb", "y", {}), b=B),
    "a dense layer + b, times the dense layer": dense(DENSE, ("ADD", "hb", "g", {}), ("MUL", "gh", "y", {}), b=B),
    "a dense layer + itself": dense(DENSE, ("ADD", "hh", "y", {})),
}


@pytest.mark.parametrize("case", REWRITTEN)
def test_a_rewritten_net_computes_what_it_did_in_the_operators_that_integers_have(case):
    (data, x), expected, operators = REWRITTEN[case]
    rewritten = for_integers(data)
    assert [op.name for op in read_tflite(rewritten).graphs[0].operators] == operators
    # four products of values below 10, each rounded by 2^-24
    np.testing.assert_allclose(litert(rewritten, x), expected, atol=1e-5)


@pytest.mark.parametrize("case", STAYS)
def test_a_net_that_no_rule_fits_is_returned_as_it_is(case):
    data, _ = STAYS[case]
    assert for_integers(data) is data


# an output as wide as the input of 0 to 255 times |a|, b half a step of it away from a whole number of steps; a whole
# number; 3% wider; of a channel beside one that decides the range
@pytest.mark.parametrize(
    ("a", "b", "low", "high", "wider"),
    [
        ([1 / 127.5], [-1], -1, 1, 0.02),
        ([-1 / 127.5], [1], -1, 1, 0.02),
        ([1 / 255], [0], 0, 1, 0),
        ([2 / 255], [-128 * 2 / 255], -128 * 2 / 255, 127 * 2 / 255, 0),
        ([1 / 127.5], [-1], -1.03, 1.03, 0),
        ([1 / 127.5, 0.5 / 127.5, 0.5 / 127.5], [-1, 0, 0], -1, 1, 0.02),
        ([1 / 127.5, 0.5 / 127.5, 0.5 / 127.5], [-1, 2, 0], -1, 3, 0),
    ],
)
def test_a_scaled_image_has_other_steps_than_its_bytes_unless_they_are_at_the_same_values(a, b, low, high, wider):
    from edgeloop.convert.forms.unlike_steps import with_unlike_steps

    a, b = (np.resize(np.float32(values), 3) for values in (a, b))
    data, _ = image(SCALED, ("ADD", "hb", "y", {}), a=a, b=b)
    ends = {"x": (0, 255), "y": (low, high)}
    ranges = {name: dict(zip(("min", "max"), np.float32(both)[:, None], strict=True)) for name, both in ends.items()}
    found = with_unlike_steps(for_integers(data), ranges)
    assert found["x"] == ranges["x"]
    np.testing.assert_allclose([found["y"]["min"], found["y"]["max"]], [[low - wider], [high + wider]], atol=1e-6)
