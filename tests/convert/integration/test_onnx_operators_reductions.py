"""ONNX's reductions, running sums, paddings and matrix products give in LiteRT what ONNX Runtime or NumPy gives."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("tensorflow")

from onnx_models import make_model  # noqa: E402
from onnx_nodes import check_nodes, operators  # noqa: E402

N = onnx.helper.make_node
RNG = np.random.default_rng(5)
X = RNG.normal(size=(2, 3, 4, 5)).astype(np.float32)
REDUCTIONS = ["L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]


def test_reductions_over_axes_as_attributes_and_as_inputs():
    nodes = [N(f"Reduce{op}", ["x"], [op], axes=[1, -1], keepdims=0) for op in REDUCTIONS]
    nodes += [N("ReduceMax", ["x"], ["all"]), N("ReduceMean", ["x"], ["kept"], axes=[2])]
    nodes += [N("Abs", ["x"], ["abs"]), N("ReduceLogSum", ["abs"], ["log"], axes=[1])]
    check_nodes(nodes, {"x": X}, free={"x": (0, 2)}, opset=11)
    nodes = [N(f"Reduce{op}", ["x", "axes"], [op]) for op in REDUCTIONS]
    nodes += [N("ReduceSum", ["x"], ["same"], noop_with_empty_axes=1), N("ReduceSum", ["x"], ["all"], keepdims=0)]
    check_nodes(nodes, {"x": X}, {"axes": np.array([0, 2], np.int64)}, opset=18)


def test_reductions_of_an_image_that_lies_channels_last():
    w = RNG.normal(size=(6, 3, 1, 1)).astype(np.float32)
    nodes = [N("Conv", ["x", "w"], ["h"])]
    nodes += [N("ReduceMean", ["h"], ["space"], axes=[2, 3]), N("ReduceMax", ["h"], ["channel"], axes=[1], keepdims=0)]
    nodes += [N("ArgMax", ["h"], ["arg"], axis=1, keepdims=0), N("ReduceSum", ["h", "axis"], ["column"], keepdims=0)]
    outputs = ["space", "channel", "arg", "column"]
    check_nodes(nodes, {"x": X}, {"w": w, "axis": np.array([3], np.int64)}, free={"x": (0,)}, outputs=outputs)


def test_reductions_of_whole_numbers_and_of_truth():
    x = RNG.integers(-9, 9, (3, 4)).astype(np.int64)
    nodes = [N(f"Reduce{op}", ["x"], [op], keepdims=0) for op in ("Max", "Min", "Prod", "Sum", "L1", "SumSquare")]
    nodes += [N("ReduceMean", ["x"], ["mean"])]
    expected = [f(x) for f in (np.max, np.min, np.prod, np.sum)] + [np.abs(x).sum(), (x * x).sum()]
    expected.append(np.array([[int(x.sum() / 12)]]))
    check_nodes(nodes, {"x": x}, opset=11, expected=[np.asarray(e, np.int64) for e in expected])
    truth = np.array([[True, False], [False, False]])
    nodes = [N("ReduceMax", ["x", "a"], ["any"], keepdims=0), N("ReduceMin", ["x", "a"], ["all"], keepdims=0)]
    check_nodes(nodes, {"x": truth}, {"a": np.array([1])}, opset=20, expected=[truth.any(1), truth.all(1)])


def test_the_sum_of_exponentials_neither_overflows_nor_invents():
    x = np.array([[1000.0, 1000.0], [-1000.0, -1000.0], [-np.inf, 0.0]], np.float32)
    expected = [np.array([1000 + np.log(2), -1000 + np.log(2), 0], np.float32)]
    check_nodes([N("ReduceLogSumExp", ["x"], ["y"], axes=[1], keepdims=0)], {"x": x}, expected=expected)


def test_places_of_extremes():
    x = np.array([[3, 1, 3, 2], [0, 0, -1, -1]], np.float32)
    nodes = [N("ArgMax", ["x"], ["first"], axis=1), N("ArgMax", ["x"], ["last"], axis=1, select_last_index=1)]
    nodes += [N("ArgMin", ["x"], ["least"], axis=-1, keepdims=0), N("ArgMax", ["x"], ["down"])]
    nodes += [N("TopK", ["x", "k"], ["v", "i"], axis=1), N("TopK", ["x", "k"], ["w", "j"], axis=1, largest=0)]
    check_nodes(nodes, {"x": x}, {"k": np.array([3], np.int64)}, opset=13)


def test_running_sums_and_products():
    expected, nodes = [], []
    for i, (exclusive, reverse) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
        axis = i % 3
        attributes = {"exclusive": exclusive, "reverse": reverse}
        nodes += [N(f"Cum{op}", ["x", f"axis{axis}"], [f"{op}{i}"], **attributes) for op in ("Sum", "Prod")]
        x = np.flip(X, axis) if reverse else X
        for function, neutral in ((np.cumsum, 0), (np.cumprod, 1)):
            y = function(x, axis)
            if exclusive:
                y = np.concatenate(
                    [np.full_like(y.take([0], axis), neutral), y.take(range(y.shape[axis] - 1), axis)], axis
                )
            expected.append(np.flip(y, axis) if reverse else y)
    axes = {f"axis{i}": np.int64(i) for i in range(3)}
    check_nodes(nodes, {"x": X}, axes, opset=26, expected=expected)


def test_a_running_product_along_a_free_dimension_asks_for_its_size():
    from edgeloop.convert.onnx.importer import import_onnx
    from edgeloop.convert.onnx.value import AtRunTime, Unsupported

    model = make_model(
        [N("CumProd", ["x", "a"], ["y"])], {"x": [2, "n"]}, {"y": [2, "n"]}, {"a": np.int64(1)}, opset=26
    )
    with pytest.raises(Unsupported, match="a running product along a free dimension") as caught:
        import_onnx(model).traced()
    assert isinstance(caught.value.__cause__, AtRunTime)  # --shape may help


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_padding(mode):
    pads = np.array([0, 1, 2, 1, 0, 0, 1, 3], np.int64)
    nodes = [N("Pad", ["x", "pads", "value"], ["y"], mode=mode), N("Pad", ["x", "cut"], ["z"], mode="constant")]
    constants = {"pads": pads, "value": np.float32(1.5), "cut": np.array([0, 0, -1, 1, 0, 0, 0, -2], np.int64)}
    check_nodes(nodes, {"x": X}, constants, opset=19, free={"x": (0, 3)})


def test_padding_by_widths_that_are_computed():
    x = X[0]
    nodes = [N("Pad", ["x", "pads"], [mode], mode=mode) for mode in ("constant", "reflect", "edge")]
    nodes.append(N("CenterCropPad", ["x", "shape"], ["middle"], axes=[1, 2]))
    feeds = {"x": x, "pads": np.array([0, 1, 2, 1, 0, 3]), "shape": np.array([7, 2])}
    check_nodes(nodes, feeds, opset=18, free={"x": (1,)})
    feeds["pads"] = np.array([0, -1, 2, 1, 0, -3])
    check_nodes(nodes[:1], feeds, opset=18)
    check_nodes([N("CenterCropPad", ["x", "shape"], ["y"])], {"x": x}, {"shape": np.array([2, 9, 5])}, opset=18)


def test_matrix_products_of_every_number_of_axes():
    shapes = {"v": (4,), "m": (3, 4), "b": (5, 3, 4), "w": (4, 2), "c": (5, 4, 2), "d": (2, 1, 4, 3), "e": (5, 3, 2)}
    feeds = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    pairs = ["mw", "bw", "bc", "vw", "mv", "vv", "bv", "vc", "mc", "de"]
    nodes = [N("MatMul", list(pair), [pair]) for pair in pairs]
    check_nodes(nodes, feeds, free={"b": (0,), "d": (0,)})


def test_a_product_with_a_transposed_side_needs_no_transpose():
    feeds = {"a": RNG.normal(size=(2, 3, 4)).astype(np.float32), "b": RNG.normal(size=(2, 5, 4)).astype(np.float32)}
    nodes = [N("Transpose", ["b"], ["t"], perm=[0, 2, 1]), N("MatMul", ["a", "t"], ["y"])]
    assert operators(check_nodes(nodes, feeds, outputs=["y"])) == ["BATCH_MATMUL"]


def test_products_of_whole_numbers_are_exact():
    a, b = RNG.integers(-9999, 9999, (2, 3)), RNG.integers(-9999, 9999, (3, 2))
    check_nodes([N("MatMul", ["a", "b"], ["y"])], {"a": a, "b": b}, expected=[a @ b])


def test_gemm_with_its_factors_and_biases():
    feeds = {"x": RNG.normal(size=(3, 4)).astype(np.float32)}
    constants = {"w": RNG.normal(size=(5, 4)).astype(np.float32), "v": RNG.normal(size=(3, 2)).astype(np.float32)}
    constants |= {
        "row": RNG.normal(size=(1, 5)).astype(np.float32),
        "column": RNG.normal(size=(3, 1)).astype(np.float32),
    }
    constants["one"] = np.float32(2)
    nodes = [
        N("Gemm", ["x", "w", "row"], ["a"], transB=1),
        N("Gemm", ["x", "w", "column"], ["b"], transB=1, alpha=0.5, beta=2.0),
        N("Gemm", ["x", "v"], ["c"], transA=1), N("Gemm", ["x", "v", "one"], ["d"], transA=1, beta=-1.0),
    ]  # fmt: skip
    data = check_nodes(nodes, feeds, constants)
    assert operators(data).count("ADD") == 2  # the row is a bias, and nothing is added to the third


EQUATIONS = {
    "ij,jk->ik": "ab", "bhid,bhjd->bhij": "qq", "i,i->": "vv", "i,j->ij": "vv", "ij->ji": "a", "ij->": "a",
    "ij->j": "a",
    "ii->i": "s", "ii": "s", "...ii->...i": "t", "bij,bjk": "tt", "...ij,jk->...ik": "tb", "ij,ij,ij->i": "aaa",
    "bhid,bhjd,bhjd->bhid": "qqq", "ab,cd->acbd": "ab", "i,->i": "vo", "abc,cd,de->abe": "taa", "bij->bj": "t",
}  # fmt: skip


def test_einsum():
    shapes = {"a": (3, 3), "b": (3, 4), "q": (2, 2, 3, 4), "v": (5,), "s": (4, 4), "t": (2, 3, 3), "o": ()}
    feeds = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [N("Einsum", list(inputs), [f"y{i}"], equation=e) for i, (e, inputs) in enumerate(EQUATIONS.items())]
    expected = [np.einsum(e, *(feeds[c] for c in inputs)) for e, inputs in EQUATIONS.items()]
    check_nodes(nodes, feeds, expected=expected, free={"q": (0, 2)})


def test_an_equation_that_does_not_go_with_its_inputs_is_refused():
    from edgeloop.convert.onnx.ops.einsum import spelled_out
    from edgeloop.convert.onnx.value import Unsupported

    with pytest.raises(Unsupported, match=r"the equation ij,jk->ik of inputs with 2, 3 axes"):
        spelled_out("ij,jk->ik", [2, 3])
    assert spelled_out("a...,b", [3, 1]) == (["aXY".replace("X", "A").replace("Y", "B"), "b"], "ABab")


def test_of_constants_an_operator_is_computed_as_the_models_opset_has_it():
    named = {"Softmax": {}, "LogSoftmax": {}, "Hardmax": {}, "LRN": {"size": 3, "alpha": 0.1}}
    nodes = [N(op, ["k"], [f"{op}_k"], **attributes) for op, attributes in named.items()]
    nodes += [N("Add", ["x", f"{op}_k"], [f"{op}_y"]) for op in named]
    x, k = (RNG.normal(size=(2, 3, 4, 5)).astype(np.float32) for _ in "xk")
    check_nodes(nodes, {"x": x}, {"k": k}, opset=11, outputs=[f"{op}_y" for op in named])
