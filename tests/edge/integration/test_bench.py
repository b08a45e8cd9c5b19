"""Real models in real runtimes: what is measured, where, and what inspect says of it."""

import json
import re

import numpy as np
import pytest
from devices import eventually

from edgeloop.bundle import Format
from edgeloop.convert.convert import convert
from edgeloop.convert.options import ConvertOptions
from edgeloop.convert.training.trainable import TrainableOptions
from edgeloop.edge.measure.bench import bench
from edgeloop.edge.measure.bench_plan import BenchOptions
from edgeloop.edge.measure.bench_records import write_bench
from edgeloop.edge.measure.bench_targets import find_targets
from edgeloop.errors import DeviceError, MissingExtra, OptionsError, TargetError
from edgeloop.files.inspect import inspect
from edgeloop.runtime.client import agent
from edgeloop.runtime.device import parse_device
from edgeloop.runtime.runners import AGENT_RUNNERS, runners

PARAMETERS = 3 * 3 * 4 + 4 + 6 * 6 * 4 * 3 + 3  # of the model below


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    keras = pytest.importorskip("keras")
    folder = tmp_path_factory.mktemp("bench")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax", name="p"),
        ],
        name="tiny",
    )
    model.save(folder / "tiny.keras")
    model.export(folder / "exported", verbose=False)
    x = np.random.default_rng(0).random((32, 8, 8, 1), np.float32)
    np.savez(folder / "c.npz", x=x)
    options = ConvertOptions(
        calibration=folder / "c.npz", to=(Format.TFLITE, Format.ONNX), trainable=TrainableOptions(batch=4)
    )
    convert(folder / "tiny.keras", folder / "b", options)
    return folder / "b"


def test_every_variant_is_measured_on_every_runtime_it_was_proved_on(bundle, tmp_path):
    result = bench(find_targets(bundle), BenchOptions(runs=64, warmup=1))
    pairs = {(r.variant, r.runtime) for r in result.records}
    assert {("int8", "litert"), ("float32", "litert"), ("onnx", "onnxruntime"), ("trainable", "litert")} <= pairs
    assert len(pairs) == len(result.records) == len(result.ratios) + 1
    groups = 1 if len(pairs) <= 8 else 2 if len(pairs) <= 15 else 3  # 8 at a time, the first one in each group
    for r in result.records:
        assert r.n == len(r.wall_ms) == len(r.cpu_ms) == len(r.started_s)
        assert r.n == 64 * (groups if r is result.records[0] else 1)
        assert r.rss_peak_bytes >= r.rss_bytes > 10e6  # an interpreter with NumPy alone has more
        assert r.batch == (4 if r.variant == "trainable" else 1)
        assert r.import_ms > 0 and r.load_ms > 0 and r.first_ms > 0
        if not r.steady.reached and r.n == 64:  # of all 64 runs, just enough for a p90
            assert 0 < r.p50_ms <= r.p90_ms and r.p95_ms is None
    assert {(ratio.to.variant, ratio.to.runtime) for ratio in result.ratios} == {("float32", "litert")}
    write_bench(result.to_json(), tmp_path / "b.json")
    document = json.loads((tmp_path / "b.json").read_bytes())
    assert document["bench"][0]["wall_ms"] == list(result.records[0].wall_ms)  # raw samples travel
    assert {"bench", "ratios", "devices", "host", "seed", "notes"} == set(document)


def test_turns_of_two_processes_lie_between_each_other_on_one_clock(bundle):
    one, other = bench(find_targets(bundle)[:2], BenchOptions(runs=50, runtimes=("litert",))).records
    assert all(a < b for r in (one, other) for a, b in zip(r.started_s, r.started_s[1:], strict=False))
    turns = sorted((start, r.variant) for r in (one, other) for start in r.started_s[:: r.block])
    # ten rounds of two turns, in random order: each round holds both
    assert all({turns[k][1], turns[k + 1][1]} == {one.variant, other.variant} for k in range(0, 20, 2))


def test_a_plan_runs_on_the_devices_it_names(bundle, device_python):
    device = parse_device(f"local:{device_python}")
    result = bench(find_targets(bundle)[:1], BenchOptions(runs=11, warmup=1, devices=(device,), runtimes=("litert",)))
    assert [r.device for r in result.records] == [device.label]


def test_one_plan_measures_here_and_behind_ssh_with_the_operators_of_both(bundle, ssh_device):
    devices = (parse_device("local"), ssh_device.device)
    options = BenchOptions(runs=50, warmup=1, devices=devices, runtimes=("litert",), profile=True)
    result = bench(find_targets(bundle / "float32.tflite"), options)
    assert [r.device for r in result.records] == ["local", f"ssh:127.0.0.1:{ssh_device.port}"]
    assert result.ratios[0].n == 10 and result.ratios[0].wall.low <= result.ratios[0].wall.ratio
    for r in result.records:
        # the profiler counts whole microseconds, which each of these operators may be below
        assert round(sum(op["share"] for op in r.profile), 6) in (0, 1)
        (conv,) = [op for op in r.profile if op["operator"] == "CONV_2D"]
        # tiny's kernel is 3x3 on an 8x8 image without padding, 4 channels; the batch is free
        assert conv["inputs"] == [[None, 8, 8, 1], [4, 3, 3, 1], [4]] and conv["output"] == [None, 6, 6, 4]
    assert eventually(lambda: not ssh_device.processes())


def test_an_emulated_device_answers_rightly_and_its_times_are_functional_only(bundle, new_arm64_device):
    device = new_arm64_device(cpu="cortex-a53").device
    options = BenchOptions(runs=11, warmup=1, devices=(parse_device("local"), device), runtimes=("litert",))
    result = bench([t for t in find_targets(bundle) if t.variant == "int8"], options)
    assert [r.functional_only for r in result.records] == [False, True]
    assert result.ratios[0].functional_only
    assert result.devices[device.label]["machine"] == "aarch64"


def test_a_device_that_was_named_and_cannot_be_reached_is_an_error(bundle, ssh_keys):
    gone = parse_device("ssh://nobody@127.0.0.1:1")
    with pytest.raises(DeviceError, match=r"cannot reach 127\.0\.0\.1"):
        bench(find_targets(bundle)[:1], BenchOptions(runs=11, devices=(gone, parse_device("local"))))


def test_a_device_without_any_runtime_of_the_file_is_an_error_that_says_why(bundle, new_ssh_device, tmp_path):
    import sys

    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # -S: an environment without packages
    python.chmod(0o755)
    bare = new_ssh_device("bare", python).device
    said = rf"{re.escape(bare.name)} runs none of these files: litert on .* No module named"
    with pytest.raises(DeviceError, match=said):
        bench(find_targets(bundle / "float32.tflite"), BenchOptions(runs=11, devices=(bare, parse_device("local"))))


def test_a_runtime_nobody_knows_is_refused_with_those_that_exist(bundle):
    with pytest.raises(OptionsError, match=r"there is no runtime 'tensorrt'\. Choose one of: litert"):
        bench(find_targets(bundle), BenchOptions(runtimes=("tensorrt",)))


def test_a_damaged_model_is_a_target_error_and_not_a_crash(bundle, tmp_path):
    data = bytearray((bundle / "float32.tflite").read_bytes())
    data[0:4] = b"\xff\xff\xff\x7f"
    (tmp_path / "cut.tflite").write_bytes(data)
    with pytest.raises(TargetError, match="litert on local"):
        bench(find_targets(tmp_path / "cut.tflite"), BenchOptions(runtimes=("litert",)))


def test_the_device_environment_has_no_tensorflow(device_python):
    with agent(parse_device(f"local:{device_python}"), "litert", ".") as running:
        assert running.probe().tensorflow is False
    import subprocess

    done = subprocess.run([device_python, "-c", "import tensorflow"], capture_output=True, text=True, timeout=180)
    assert "No module named 'tensorflow'" in done.stderr


def test_litert_and_tflite_runtime_agree_on_one_file(bundle, device_python):
    x = np.random.default_rng(1).random((3, 8, 8, 1), np.float32)
    answers = []
    for runner in (AGENT_RUNNERS["litert"], AGENT_RUNNERS["tflite-runtime"]):
        try:
            with runner.open(bundle, "float32.tflite") as session:
                answers.append(session.infer({"image": x}, "infer")["p"])
        except MissingExtra:
            pytest.skip("tflite-runtime has no wheel for this Python")
    np.testing.assert_allclose(*answers, atol=1e-6)  # probabilities; two orders of some 40 float32 additions


def test_every_registered_runner_says_what_it_runs():
    found = runners()
    assert set(found) == {"litert", "tflite-runtime", "onnxruntime", "tfjs", "litertjs"}
    assert all(runner.name == name and runner.formats for name, runner in found.items())


def test_inspect_counts_operators_of_a_tflite_without_loading_a_runtime(bundle):
    found = inspect(bundle / "float32.tflite")
    assert found["operators"] == {"CONV_2D": 1, "RESHAPE": 1, "FULLY_CONNECTED": 1, "SOFTMAX": 1}
    (image,) = found["signatures"]["infer"]["inputs"]
    assert image == {"name": "image", "shape": [None, 8, 8, 1], "dtype": "float32", "dims": [-1, 8, 8, 1]}


def test_inspect_reads_keras_layers_onnx_operators_and_bundles(bundle):
    assert [layer["kind"] for layer in inspect(bundle.parent / "tiny.keras")["layers"]] == [
        "InputLayer",
        "Conv2D",
        "Flatten",
        "Dense",
    ]
    onnx = inspect(bundle / "model.onnx")
    assert onnx["operators"]["Conv"] == 1
    (image,) = onnx["signatures"][""]["inputs"]
    assert (image["name"], image["shape"], image["dtype"]) == ("image", [None, 8, 8, 1], "float32")
    keras = inspect(bundle.parent / "tiny.keras")
    assert keras["parameters"] == inspect(bundle)["parameters"] == PARAMETERS
    exported = inspect(bundle.parent / "exported")  # Keras writes each variable twice
    assert (exported["parameters"], exported["weights"][0]["name"]) == (PARAMETERS, "tiny/conv/kernel")
    assert [end["shape"] for end in keras["signatures"][""]["outputs"]] == [[None, 3]]
    assert [v["id"] for v in inspect(bundle)["variants"]] == [
        "float32",
        "float16",
        "dynamic",
        "int8",
        "onnx",
        "trainable",
    ]


def test_onnx_runtime_reports_to_nobody(bundle, tmp_path, monkeypatch):
    """Its telemetry leaves a session file in the temporary folder as soon as it is imported."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with AGENT_RUNNERS["onnxruntime"].open(bundle, "model.onnx") as session:
        session.infer({"image": np.zeros((1, 8, 8, 1), np.float32)}, None)
    assert list(tmp_path.iterdir()) == []
