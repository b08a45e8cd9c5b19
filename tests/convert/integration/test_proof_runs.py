"""Proof in real runtimes: files that are right on one and wrong on another, and the layer that is to blame."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from edgeloop.bundle import Format, Manifest, Requirements, Scheme, Signature, TensorSpec, Variant, file_entries
from edgeloop.convert.proof.input_range import range_mismatch
from edgeloop.convert.proof.parity import check_parity, runtimes_passed, with_runtimes
from edgeloop.convert.proof.prove import ProveOptions, prove
from edgeloop.convert.proof.verify import verify
from edgeloop.convert.proof.worst_layer import layer_snr, worst
from edgeloop.convert.samples import Samples
from edgeloop.edge.measure.bench import bench
from edgeloop.edge.measure.bench_plan import BenchOptions
from edgeloop.edge.measure.bench_targets import find_targets
from edgeloop.errors import DeviceError, MissingExtra, ParityError
from edgeloop.runtime.device import parse_device
from edgeloop.runtime.parity.compare import RunContext
from edgeloop.runtime.parity.self_check import Reference, self_check
from edgeloop.runtime.runners import AGENT_RUNNERS

INFER = "serving_default"
SIGNATURES = {
    INFER: Signature(
        (TensorSpec("image", (None, 8, 8, 1), "float32"),), (TensorSpec("output_0", (None, 10), "float32"),)
    )
}


def variant(id, scheme):
    return Variant(id, f"{id}.tflite", (f"{id}.tflite",), Format.TFLITE, scheme, (INFER,))


FLOAT, GARBAGE, CRUEL, WHOLE = (
    variant("float32", Scheme.FLOAT32),
    variant("channelwise", Scheme.DYNAMIC),
    variant("cruel", Scheme.INT8),
    variant("int8_io", Scheme.INT8),
)


@pytest.fixture(scope="module")
def needs_tflite_runtime():
    try:
        AGENT_RUNNERS["tflite-runtime"].device()
    except MissingExtra:
        pytest.skip("tflite-runtime is not installed here nor in the device environment")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A float .tflite and three made of it: one that tflite-runtime computes wrongly, one with a layer whose int8
    range is 1,000 times too wide, and one with int8 ends."""
    tf, keras = pytest.importorskip("tensorflow"), pytest.importorskip("keras")
    quantizer = pytest.importorskip("ai_edge_quantizer.quantizer")
    from ai_edge_quantizer import calibrator, qtyping, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    folder = tmp_path_factory.mktemp("proof")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(8, 3, activation="relu", name="stem"),
            layers.Flatten(name="flat"),
            layers.Dense(64, activation="relu", name="hidden"),
            layers.Dense(10, activation="softmax", name="p"),
        ],
        name="tiny",
    )
    for name in ("hidden", "p"):  # larger logits, so that classes differ by more than rounding
        layer = model.get_layer(name)
        layer.set_weights([2 * w for w in layer.get_weights()])
    model.export(folder / "saved", verbose=False)
    data = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved")).convert()
    (folder / "float32.tflite").write_bytes(data)
    shutil.rmtree(folder / "saved")

    x = np.random.default_rng(0).random((64, 8, 8, 1), np.float32)
    op, grain = qtyping.TFLOperationName, qtyping.QuantGranularity

    def make(rules, ranges=None):
        job = quantizer.Quantizer(data, rules.get_quantization_recipe())
        made = job.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
        return bytes(made.quantized_model)

    rules = recipe_manager.RecipeManager()
    rules.add_dynamic_config(".*", op.FULLY_CONNECTED, 8, grain.CHANNELWISE)
    (folder / "channelwise.tflite").write_bytes(make(rules))

    rules = recipe_manager.RecipeManager()
    rules.add_static_config(".*", op.ALL_SUPPORTED, 8, 8)
    measuring = calibrator.Calibrator(data, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    measuring.calibrate({INFER: [{"image": x[i : i + 1]} for i in range(16)]}, rules)
    ranges = {k: dict(v) for k, v in measuring.get_model_qsvs().items()}
    (folder / "int8_io.tflite").write_bytes(make(rules, {k: dict(v) for k, v in ranges.items()}))
    for name in ranges:
        if "hidden" in name and "Relu" in name:
            ranges[name] = {"min": np.float32([[0]]), "max": np.float32([[1e3]]) * ranges[name]["max"].max()}
    (folder / "cruel.tflite").write_bytes(make(rules, ranges))
    return folder, x


def answers(folder, x):
    with AGENT_RUNNERS["litert"].open(folder, "float32.tflite") as session:
        return dict(session.infer({"image": x}, INFER))


def test_a_file_that_is_garbage_on_one_runtime_runs_on_the_other_alone(files, needs_tflite_runtime):
    folder, x = files
    rows = prove(folder, [FLOAT, GARBAGE], SIGNATURES, Samples(inputs={"image": x}), answers(folder, x))
    check_parity(rows, "never said")  # it agrees somewhere
    assert runtimes_passed(rows, "float32") == ("litert", "tflite-runtime")
    made = with_runtimes([FLOAT, GARBAGE], rows)[1]
    assert made.requires.runtimes == ("litert",) and made.notes == ("not for tflite-runtime: see proof.json",)
    (bad,) = [row for row in rows if not row.passed]
    assert bad.runtime_version.startswith("2.14") and bad.snr_db < 10  # 45 dB is what it has where it is right
    # the fault is in the fully connected kernel of that runtime, and there it is found; `hidden` is the first of two
    assert bad.worst_layer.startswith("FULLY_CONNECTED hidden")


def test_the_layer_whose_range_is_wrong_is_named(files):
    folder, x = files
    rows = prove(folder, [FLOAT, with_io(folder, CRUEL)], SIGNATURES, Samples(inputs={"image": x}), answers(folder, x))
    with pytest.raises(ParityError, match=r"cruel on .*worst layer FULLY_CONNECTED hidden.*1 of 2 variants failed"):
        check_parity(rows, "Do this.")


def test_layer_snr_follows_the_order_of_execution_and_blames_one(files):
    folder, x = files
    read = [(folder / v.entry).read_bytes() for v in (FLOAT, CRUEL, WHOLE)]
    rows = layer_snr(read[0], read[1], Samples(inputs={"image": x}), INFER, layers={"stem", "hidden", "p"})
    names = [row.layer for row in rows]
    assert names.index("stem") < names.index("hidden") < names.index("p")
    guilty = worst(rows)
    assert guilty.layer == "hidden" and guilty.drop_db > 20
    assert rows[names.index("stem")].snr_db > 30  # what comes before it is as good as int8 is
    healthy = layer_snr(read[0], read[2], Samples(inputs={"image": x}), INFER)
    assert min(row.snr_db for row in healthy) > 20


def test_a_variant_with_int8_ends_is_asked_and_answers_in_real_numbers(files):
    folder, x = files
    made = with_io(folder, WHOLE)
    assert {q.dtype for q in made.io.values()} == {"int8"}
    rows = prove(folder, [made], SIGNATURES, Samples(inputs={"image": x}), answers(folder, x))
    assert all(row.passed and row.snr_db > 20 for row in rows if row.runtime == "litert")


def with_io(folder, variant):
    from edgeloop.bundle import Quantization
    from edgeloop.files.flatbuffer import read_tflite

    model = read_tflite((folder / variant.entry).read_bytes())
    (signature,) = model.signatures
    tensors = model.graphs[signature.graph].tensors
    ends = {n: tensors[i] for n, i in {**signature.inputs, **signature.outputs}.items()}
    return replace(variant, io={n: Quantization(t.dtype, t.scale[0], t.zero_point[0]) for n, t in ends.items()})


def test_a_device_is_proved_on_beside_this_interpreter(files, device_python):
    folder, x = files
    options = ProveOptions(on=(parse_device(f"local:{device_python}"),))
    rows = prove(folder, [FLOAT], SIGNATURES, Samples(inputs={"image": x}), answers(folder, x), options)
    assert {(r.runtime, r.device) for r in rows} >= {("litert", "local"), ("litert", "local:.venv-device")}
    assert all(row.passed for row in rows)


def test_a_device_that_runs_nothing_is_named(files, tmp_path):
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\nexit 3\n")
    bare.chmod(0o755)
    folder, x = files
    options = ProveOptions(on=(parse_device(f"local:{bare}"),))
    with pytest.raises(DeviceError, match="cannot run any of these files"):
        prove(folder, [FLOAT], SIGNATURES, Samples(inputs={"image": x}), answers(folder, x), options)


@pytest.fixture
def bundle(files, tmp_path):
    """A bundle of the float file and the one that only LiteRT computes, listing whatever runtimes a test says."""
    folder, x = files

    def write(**runtimes):
        made = [
            replace(v, requires=Requirements(runtimes=runtimes[v.id])) for v in (FLOAT, GARBAGE) if v.id in runtimes
        ]
        for v in made:
            shutil.copy(folder / v.entry, tmp_path)
        expected = {f"out/{n}": a[:16] for n, a in answers(folder, x).items()}
        np.savez(tmp_path / "reference.npz", **{"in/image": x[:16]}, **expected)
        source = {"file": "x", "format": "keras", "sha256": "0"}
        manifest = Manifest("t", 1, source, file_entries(tmp_path), SIGNATURES, tuple(made))
        (tmp_path / "manifest.json").write_bytes(manifest.to_bytes())
        return tmp_path

    return write


def test_verify_only_reports_a_runtime_that_is_not_listed(bundle, needs_tflite_runtime):
    path = bundle(float32=("litert",), channelwise=("litert",))
    rows = verify(path).parity
    assert {(r.variant, r.runtime): r.passed for r in rows}[("channelwise", "tflite-runtime")] is False
    json.dumps([r.snr_db for r in rows], allow_nan=False)


def test_verify_refuses_a_runtime_that_is_listed_and_disagrees(bundle, needs_tflite_runtime):
    path = bundle(channelwise=("litert", "tflite-runtime"))
    with pytest.raises(ParityError, match="channelwise on tflite-runtime does not compute"):
        verify(path)


def test_bench_proves_on_the_spot_what_was_not_proved_there(bundle, needs_tflite_runtime):
    path = bundle(float32=("litert",), channelwise=("litert",))
    told = []
    records = bench(find_targets(path), BenchOptions(runs=11, warmup=1), say=told.append).records
    pairs = {(r.variant, r.runtime) for r in records}
    assert ("float32", "tflite-runtime") in pairs  # unlisted, and right
    assert ("channelwise", "tflite-runtime") not in pairs and ("channelwise", "litert") in pairs
    assert len(told) == 1 and told[0].startswith("channelwise on tflite-runtime was not measured: output")


def test_bench_of_nothing_but_disagreement_is_an_error(bundle, needs_tflite_runtime):
    path = bundle(channelwise=("litert",))
    with pytest.raises(ParityError, match="channelwise on tflite-runtime was not measured"):
        bench(find_targets(path), BenchOptions(runs=11, warmup=1, runtimes=("tflite-runtime",)))


def test_a_device_without_the_reference_measures_only_what_is_listed(bundle, tmp_path, needs_tflite_runtime):
    path = bundle(float32=("litert",))
    (path / "reference.npz").unlink()
    with pytest.raises(ParityError, match="no reference"):
        bench(find_targets(path), BenchOptions(runs=11, warmup=1, runtimes=("tflite-runtime",)))


def test_int8_ends_check_themselves_against_a_float_reference(files):
    folder, x = files
    made = with_io(folder, WHOLE)
    reference = Reference(inputs={"image": x[:4]}, outputs=first(answers(folder, x), 4), scheme=made.scheme, io=made.io)
    with AGENT_RUNNERS["litert"].open(folder, made.entry) as session:
        rows = self_check(session.agent, RunContext("int8_io", "litert"), reference, INFER, 1)
    assert [row.samples for row in rows] == [4] and all(row.passed for row in rows)


def first(arrays, count):
    return {name: array[:count] for name, array in arrays.items()}


@pytest.fixture(scope="module")
def resnet8(shared):
    """MLPerf Tiny's image classifier, which wants 0..255, and 64 crops of real photographs."""
    keras = pytest.importorskip("keras")
    model = keras.models.load_model(shared / "models" / "mlperf_tiny_ic" / "pretrainedResnet.h5", compile=False)
    rng, crops = np.random.default_rng(0), []
    for file in ("cat.bmp", "sunflower.bmp"):
        picture = bitmap((shared / "data" / "images" / file).read_bytes())
        for _ in range(32):
            top, left = rng.integers(0, picture.shape[0] - 32), rng.integers(0, picture.shape[1] - 32)
            crops.append(picture[top : top + 32, left : left + 32])
    return model, np.stack(crops).astype(np.float32)


def bitmap(data):
    """Pixels [rows, columns, RGB] of an uncompressed 24-bit BMP: offset at 10, size at 18, rows of whole words."""
    start, width, height, bits = (
        int.from_bytes(data[a:b], "little") for a, b in ((10, 14), (18, 22), (22, 26), (28, 30))
    )
    assert bits == 24
    rows = np.frombuffer(data, np.uint8, count=height * (-(-width * 3 // 4) * 4), offset=start)
    return rows.reshape(height, -1)[::-1, : width * 3].reshape(height, width, 3)[:, :, ::-1]


def seen(model, calibration, evaluation, labels=None):
    call = lambda arrays: {"p": np.asarray(model(arrays["image"], training=False))}  # noqa: E731
    spec = (TensorSpec("image", (None, 32, 32, 3), "float32"),)
    made = Samples(inputs={"image": evaluation}, labels=labels)
    found = range_mismatch(
        call, spec, None if calibration is None else Samples(inputs={"image": calibration}), made, model
    )
    return None if found is None else found.found


def test_resnet8_calibrated_at_a_255th_of_what_it_wants_is_named(resnet8):
    model, crops = resnet8
    assert seen(model, crops, crops) is None
    assert "calibration data spans 0..1" in seen(model, crops / 255, crops)


def test_resnet8_with_all_data_at_a_255th_is_named_by_labels_and_without_them(resnet8):
    model, crops = resnet8
    labels = np.asarray(model(crops)).argmax(-1)
    labels[::7] = 9  # right for six of seven
    assert "right for" in seen(model, crops / 255, crops / 255, labels)
    assert "first batch normalization was trained on data like x * 255" in seen(model, crops / 255, crops / 255)
    assert "(x + 1) * 127.5" in seen(model, None, crops / 127.5 - 1)
    assert seen(model, crops, crops, labels) is None


@pytest.mark.parametrize(("scale", "wrong"), [(1 / 255, True), (1 / 127.5, True), (1.0, False)])
def test_a_rescaling_layer_says_what_it_wants(scale, wrong):
    keras = pytest.importorskip("keras")
    rescaling = keras.layers.Rescaling(scale, name="scaling")
    model = keras.Sequential([keras.Input((32, 32, 3), name="image"), rescaling, keras.layers.Flatten()])
    x = np.random.default_rng(0).random((16, 32, 32, 3), np.float32)
    found = seen(model, None, x)
    assert ("begins with Rescaling 'scaling', which expects 0..255" in found) if wrong else found is None
    assert seen(model, None, 255 * x) is None
