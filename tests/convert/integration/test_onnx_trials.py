"""Trials of an .onnx end in bounded memory and time, also where no inference tells how large a tensor will be."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from onnx_models import make_model

from edgeloop.errors import ModelError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("tensorflow")
N = onnx.helper.make_node
FLOAT, INT64, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL


@pytest.fixture
def original(tmp_path):
    """ONNX Runtime's session of `make_model`'s model, and the model's inputs."""
    from edgeloop.convert.onnx.importer import input_tensor
    from edgeloop.convert.onnx.original import OriginalModel

    def load(*parts, **more):
        model = make_model(*parts, **more)
        onnx.save(model, tmp_path / "m.onnx")
        inputs = [input_tensor(v, None) for v in model.graph.input]
        return OriginalModel(tmp_path / "m.onnx", model, {}), inputs

    return load


def all_pairs_of_nonzero_values(longer_than):
    """Of x [n, t], of which NonZero counts the values; t is longer than that."""
    nodes = [
        N("Gather", ["x", "i"], ["one"], axis=1),
        N("NonZero", ["x"], ["places"]),
        N("Cast", ["places"], ["p"], to=FLOAT),
        N("Transpose", ["p"], ["q"], perm=[1, 0]),
        N("MatMul", ["q", "p"], ["pairs"]),
        N("ReduceMax", ["pairs"], ["m"], keepdims=0),
        N("Add", ["one", "m"], ["y"]),
    ]
    return nodes, {"x": ["n", "t"]}, {"y": None}, {"i": np.array([longer_than])}


def test_sizes_of_which_a_tensor_would_be_too_large_are_left_out_though_no_inference_tells_them(original, monkeypatch):
    from edgeloop.convert.onnx import original as module
    from edgeloop.convert.onnx.trials import make_trials

    model, inputs = original(*all_pairs_of_nonzero_values(longer_than=500))
    trials, _ = make_trials(model, inputs)
    assert [trial.fed["x"].shape for trial in trials] == [(2, 512), (3, 640)]
    assert model.largest_tensor(trials[0].fed) == ("x", 1024, True)  # which is all that inference knows
    monkeypatch.setattr(module, "LIMIT_BYTES", 2_000_000)  # the pairs of 640 take 1.6 MB, those of 1,024 values 4.2
    trials, _ = make_trials(model, inputs)
    assert [trial.fed["x"].shape for trial in trials] == [(1, 512), (1, 640)]


def test_the_users_own_inputs_may_take_more_than_a_trials(original, monkeypatch):
    from edgeloop.convert.onnx import original as module

    monkeypatch.setattr(module, "LIMIT_BYTES", 1_000_000)
    model, _ = original(*all_pairs_of_nonzero_values(longer_than=500))
    x = np.ones((1, 600), np.float32)  # 600 * 600 pairs of 4 bytes
    with pytest.raises(ModelError, match="a tensor of 1 MB is too large for a trial"):
        model.limited().run({"x": x})
    (y,) = model.run({"x": x})
    assert y == 1 + 599 * 599


def test_a_run_that_takes_too_long_is_ended(original):
    """A loop of 2 ** 40 steps, an hour at 3 ns each."""
    body = onnx.helper.make_graph(
        [N("Identity", ["go"], ["on"]), N("Add", ["v", "v"], ["w"])],
        "body",
        [
            onnx.helper.make_tensor_value_info("i", INT64, []),
            onnx.helper.make_tensor_value_info("go", BOOL, []),
            onnx.helper.make_tensor_value_info("v", FLOAT, None),
        ],
        [onnx.helper.make_tensor_value_info("on", BOOL, []), onnx.helper.make_tensor_value_info("w", FLOAT, None)],
    )
    loop = N("Loop", ["steps", "true", "x"], ["y"], body=body)
    constants = {"steps": np.array(2**40), "true": np.array(True)}
    model, _ = original([loop], {"x": ["n"]}, {"y": None}, constants)
    with pytest.raises(ModelError, match=r"cannot run it \(it takes too long\)"):
        model.run({"x": np.ones(2, np.float32)}, limit_cpu_s=0.1)


@pytest.mark.parametrize("declared", [None, ["n", "a", "b"], ["n", 2, 2]])
def test_an_output_counts_by_its_inferred_size_whatever_the_model_declares(declared):
    from edgeloop.convert.onnx.prepare import largest_tensor

    nodes = [N("Unsqueeze", ["x", "one"], ["a"]), N("Unsqueeze", ["x", "two"], ["b"]), N("Mul", ["a", "b"], ["y"])]
    constants = {"one": np.array([1]), "two": np.array([2])}
    model = make_model(nodes, {"x": ["n", "t"]}, {"y": declared}, constants)
    assert largest_tensor(model, {"x": (3, 24000)}) == ("y", 3 * 24000**2, False)


def test_an_output_whose_sizes_are_not_inferred_is_unknown_whatever_the_model_declares():
    from edgeloop.convert.onnx.prepare import largest_tensor

    model = make_model([N("NonZero", ["x"], ["y"])], {"x": ["n"]}, {"y": ([1, 2], onnx.TensorProto.INT64)})
    assert largest_tensor(model, {"x": (3,)}) == ("x", 3, True)


def test_a_run_may_take_cpu_time_and_not_time_of_the_clock():
    from edgeloop.convert.onnx.original import WATCH_S, _ended_after

    options = SimpleNamespace(terminate=False)
    with _ended_after(4 * WATCH_S, options):
        time.sleep(8 * WATCH_S)  # as where other programs have the processor
        assert not options.terminate
        last = time.process_time() + 10
        while not options.terminate and time.process_time() < last:
            pass
    assert options.terminate
