"""Real models in real runtimes: what is measured, where, and what inspect says of it."""

import numpy as np
import pytest

from edgeloop.bundle import Format
from edgeloop.convert.convert import convert
from edgeloop.convert.options import ConvertOptions
from edgeloop.convert.training.trainable import TrainableOptions
from edgeloop.edge.client import agent
from edgeloop.edge.device import parse_device
from edgeloop.edge.files.inspect import inspect
from edgeloop.edge.measure.bench import BenchOptions, bench, targets
from edgeloop.edge.runners import LITERT, ONNXRUNTIME, TFLITE_RUNTIME, runners
from edgeloop.errors import MissingExtra, OptionsError, TargetError

pytestmark = pytest.mark.integration


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
    x = np.random.default_rng(0).random((32, 8, 8, 1), np.float32)
    np.savez(folder / "c.npz", x=x)
    options = ConvertOptions(
        calibration=folder / "c.npz", to=(Format.TFLITE, Format.ONNX), trainable=TrainableOptions(batch=4)
    )
    convert(folder / "tiny.keras", folder / "b", options)
    return folder / "b"


def test_every_variant_is_measured_on_every_runtime_it_was_proved_on(bundle):
    records = bench(targets(bundle), BenchOptions(runs=64, warmup=1))
    pairs = {(r.variant, r.runtime) for r in records}
    assert {("int8", "litert"), ("float32", "litert"), ("onnx", "onnxruntime"), ("trainable", "litert")} <= pairs
    assert len(pairs) == len(records)
    for r in records:
        assert r.n == 64
        assert 0 < r.p50_ms <= r.p90_ms
        assert r.rss_peak_bytes > 10e6  # an interpreter with NumPy alone has more
        assert r.batch == (4 if r.variant == "trainable" else 1)


def test_a_p90_of_fewer_than_64_runs_is_not_given(bundle):
    records = bench(targets(bundle)[:1], BenchOptions(runs=63, warmup=1, runtimes=("litert",)))
    assert [r.p90_ms for r in records] == [None]


def test_a_plan_runs_on_the_devices_it_names(bundle, device_python):
    device = parse_device(f"local:{device_python}")
    records = bench(targets(bundle)[:1], BenchOptions(runs=11, warmup=1, devices=(device,), runtimes=("litert",)))
    assert [r.device for r in records] == [device.label]


def test_a_runtime_nobody_knows_is_refused_with_those_that_exist(bundle):
    with pytest.raises(OptionsError, match=r"no runtime 'tensorrt'\. Choose from litert"):
        bench(targets(bundle), BenchOptions(runtimes=("tensorrt",)))


def test_a_damaged_model_is_a_target_error_and_not_a_crash(bundle, tmp_path):
    data = bytearray((bundle / "float32.tflite").read_bytes())
    data[0:4] = b"\xff\xff\xff\x7f"
    (tmp_path / "cut.tflite").write_bytes(data)
    with pytest.raises(TargetError, match="litert on local"):
        bench(targets(tmp_path / "cut.tflite"), BenchOptions(runtimes=("litert",)))


def test_the_device_environment_has_no_tensorflow(device_python):
    with agent(parse_device(f"local:{device_python}"), "litert", ".") as running:
        assert running.probe()["tensorflow"] is False
    import subprocess

    done = subprocess.run([device_python, "-c", "import tensorflow"], capture_output=True, text=True, timeout=60)
    assert "No module named 'tensorflow'" in done.stderr


def test_litert_and_tflite_runtime_agree_on_one_file(bundle, device_python):
    x = np.random.default_rng(1).random((3, 8, 8, 1), np.float32)
    answers = []
    for runner in (LITERT, TFLITE_RUNTIME):
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
    assert found["signatures"]["infer"]["inputs"] == [{"name": "image", "shape": [None, 8, 8, 1], "dtype": "float32"}]


def test_inspect_reads_keras_layers_onnx_operators_and_bundles(bundle):
    assert [layer["kind"] for layer in inspect(bundle.parent / "tiny.keras")["layers"]] == [
        "InputLayer",
        "Conv2D",
        "Flatten",
        "Dense",
    ]
    onnx = inspect(bundle / "model.onnx")
    assert onnx["operators"]["Conv"] == 1
    assert onnx["signatures"][""]["inputs"] == [{"name": "image", "shape": [None, 8, 8, 1], "dtype": "float32"}]
    assert [v["id"] for v in inspect(bundle)["variants"]] == [
        "float32",
        "float16",
        "dynamic",
        "int8",
        "onnx",
        "onnx-int8",
        "trainable",
    ]


def test_onnx_runtime_reports_to_nobody(bundle, tmp_path, monkeypatch):
    """Its telemetry leaves a session file in the temporary folder as soon as it is imported."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with ONNXRUNTIME.open(bundle, "model.onnx") as session:
        session.infer({"image": np.zeros((1, 8, 8, 1), np.float32)}, None)
    assert list(tmp_path.iterdir()) == []
