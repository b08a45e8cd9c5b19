"""Times of single operators, against the time of the whole, through LiteRT's own profiler."""

import numpy as np
import pytest
from tflite_by_hand import tflite

from edgeloop.runtime.client import agent
from edgeloop.runtime.device import Device

SHAPE = (1, 100_000)  # so that an operator takes tens of microseconds, and the profiler's whole ones say something
ADDS = [("ADD", 0, 1, 2), ("MUL", 2, 1, 3), ("ADD", 3, 0, 4)]
INPUTS = {"t0": np.ones(SHAPE, np.float32), "t1": np.ones(SHAPE, np.float32)}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    (folder / "adds.tflite").write_bytes(tflite(ADDS, shape=SHAPE))
    (folder / "two.tflite").write_bytes(
        tflite([("SUB", 0, 1, 2)], ADDS, shape=SHAPE, signatures={"first": 0, "infer": 1})
    )
    return folder


@pytest.fixture
def started(device_python, models):
    device = Device(f"local:{device_python}", device_python)
    return lambda runtime="litert", folder=models: agent(device, runtime, folder, 60)


def adds_up(found):
    """Operators lie within what the interpreter takes, and that within the whole run: how much else there is, only the
    machine's other work says."""
    assert sum(op["share"] for op in found.ops) == pytest.approx(1)
    spent_us = sum(op["mean_us"] * op["calls"] for op in found.ops) / found.runs
    assert spent_us == pytest.approx(found.ops_us)
    # an operator's start and end are read in whole microseconds: a sum of n of them is off by n at most
    assert 0 < found.ops_us <= found.invoke_us + len(found.ops)
    assert found.invoke_us <= found.run_us + 1


def test_without_xnnpack_the_operators_are_those_of_the_model(started, models):
    with started() as running:
        running.prepare("adds.tflite")
        found = running.profile(INPUTS, runs=20, xnnpack=False)
    ops = found.ops
    assert [(op["index"], op["name"], op["delegated"], op["calls"]) for op in ops] == [
        *((0, "ADD", False, 20), (1, "MUL", False, 20), (2, "ADD", False, 20))
    ]
    assert (found.kernels, found.runs) == ("builtin", 20) and found.source.startswith("LiteRT 2.")
    adds_up(found)


def test_with_xnnpack_the_operators_inside_its_partition_are_timed(started, models):
    with started() as running:
        running.prepare("adds.tflite")
        found = running.profile(INPUTS, runs=20)
    ops = found.ops
    assert all(op["delegated"] and op["calls"] == 20 for op in ops) and found.kernels == "xnnpack"
    assert [op["name"].split()[0] for op in ops] == ["Add", "Multiply", "Add"]
    adds_up(found)


def test_inside_xnnpack_the_graph_of_the_signature_is_told_too(started):
    with started() as running:
        running.prepare("two.tflite")
        found = running.profile(INPUTS, "infer", runs=5)
    assert [(op["graph"], op["name"].split()[0]) for op in found.ops] == [(1, "Add"), (1, "Multiply"), (1, "Add")]


def test_the_graph_of_the_signature_that_was_asked_for_is_timed(started, models):
    with started() as running:
        running.prepare("two.tflite")
        found = running.profile(INPUTS, "infer", runs=5, xnnpack=False)
        other = running.profile(INPUTS, "first", runs=5, xnnpack=False)
    assert [op["name"] for op in found.ops] == ["ADD", "MUL", "ADD"]
    assert [op["name"] for op in other.ops] == ["SUB"]


def test_a_real_model_is_told_by_its_layers_whatever_its_batch(started, shared):
    file = shared / "models" / "mlperf_tiny_ic" / "pretrainedResnet.tflite"
    with started(folder=file.parent) as running:
        ((_, signature),) = running.prepare(file.name).signatures.items()
        (name,) = signature["inputs"]
        single, batch = (
            running.profile({name: np.ones((n, 32, 32, 3), np.float32)}, runs=20, xnnpack=xnnpack)
            for n, xnnpack in ((1, True), (4, False))
        )
    adds_up(single)
    adds_up(batch)
    # the 9 convolutions of MLPerf Tiny's ResNet8
    assert sum(op["name"].startswith("Convolution") for op in single.ops) == 9
    assert [op["name"] for op in batch.ops].count("CONV_2D") == 9


def test_behind_ssh_operators_are_timed_just_the_same(ssh_device, models):
    with agent(ssh_device.device, "litert", models, 60) as running:
        running.prepare("adds.tflite")
        found = running.profile(INPUTS, runs=5)
    assert [op["calls"] for op in found.ops] == [5, 5, 5]


def test_a_runtime_without_this_profiler_says_so(started):
    with started("tflite-runtime") as running:
        running.prepare("adds.tflite")
        found = running.profile(INPUTS)
    assert found.ops == found.source == "unsupported"
    assert found.why.startswith("tflite_runtime 2.") and found.why.endswith("has no profiler that edgeloop knows")


def test_a_run_gives_the_same_answer_after_a_profile(started):
    with started() as running:
        running.prepare("adds.tflite")
        before = running.run(INPUTS).outputs["t4"]
        running.profile(INPUTS, runs=3)
        np.testing.assert_array_equal(running.run(INPUTS).outputs["t4"], before)
    assert np.unique(before).tolist() == [3]  # (1 + 1) * 1 + 1
