"""One float32 flatbuffer in every scheme, ONNX int8 and TF.js weights: what is inside, and what it answers."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from signal_to_noise import snr_db

from edgeloop.bundle import Scheme
from edgeloop.convert.samples import Samples
from edgeloop.errors import ModelError, OptionsError

RNG = np.random.default_rng(4)
# inputs of a mean far from zero, as images from 0 to 255 have: here a rounded weight shifts the output
IMAGES = (RNG.random((64, 8, 8, 3), np.float32) * 255).astype(np.float32)


def small_net():
    import keras

    keras.utils.set_random_seed(3)
    layers = keras.layers
    image = keras.Input((8, 8, 3), name="image")
    h = layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(image)
    h = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="second")(h)
    h = layers.GlobalAveragePooling2D()(h)
    model = keras.Model(image, layers.Dense(5, name="last")(h))
    rng = np.random.default_rng(5)  # Keras starts with biases of zero, which the converter leaves out or shares
    model.set_weights([w if w.ndim > 1 else rng.normal(size=w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """(source, frozen graph, float32 flatbuffer, calibration) of a net with three layers of weights."""
    pytest.importorskip("tensorflow")
    from edgeloop.convert.forms import freeze, tflite
    from edgeloop.convert.sources.source import open_source

    path = tmp_path_factory.mktemp("net") / "net.keras"
    small_net().save(path)
    source = open_source(path)
    frozen = freeze.freeze(source).functional
    float32 = tflite.lower(frozen, source)
    return source, frozen, float32, tflite.calibrate(float32, source, Samples(inputs={"image": IMAGES}))


def answers(data, images=IMAGES):
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_content=data).get_signature_runner()
    detail = next(iter(run.get_input_details().values()))
    if detail["dtype"] == np.int8:
        scale, zero = detail["quantization"]
        images = np.clip(np.rint(images / scale) + zero, -128, 127).astype(np.int8)
    name, out = next(iter(run.get_output_details().items()))
    value = run(image=images)[name]
    scale, zero = out["quantization"]
    return (value.astype(np.float64) - zero) * scale if value.dtype == np.int8 else value


def quantized(net, scheme, **options):
    from edgeloop.convert.forms import tflite

    return tflite.quantize(net[2], scheme, net[3], **options)


def dtypes(data):
    from edgeloop.files.flatbuffer import read_tflite

    graph = read_tflite(data).graphs[0]
    return [
        ({graph.tensors[i].dtype for i in op.inputs}, graph.tensors[op.outputs[0]].dtype, op.name)
        for op in graph.operators
    ]


def test_float32_is_the_source(net):
    np.testing.assert_allclose(answers(net[2]), net[0].call({"image": IMAGES})["last"], rtol=1e-5, atol=1e-3)


# A value rounded to 2^b steps over its range has a noise of range / 2^b / sqrt(12): some 6 b dB below a signal that
# fills the range, and ranges here are filled by a third or less, and three layers add up: 10 dB and 5 dB off that.
FLOORS = {Scheme.FLOAT16: 60, Scheme.DYNAMIC: 33, Scheme.INT8: 33, Scheme.INT16X8: 38, Scheme.INT4: 9}


@pytest.mark.parametrize("scheme", FLOORS)
def test_every_scheme_answers_nearly_what_float32_does_at_any_batch(net, scheme):
    data = quantized(net, scheme)
    assert snr_db(answers(net[2]), answers(data)) > FLOORS[scheme]
    assert answers(data, IMAGES[:5]).shape == (5, 5)


def test_int8_and_int16x8_compute_in_integers_between_float_ends(net):
    for scheme, activation in ((Scheme.INT8, "int8"), (Scheme.INT16X8, "int16")):
        made = dtypes(quantized(net, scheme))
        assert made[0][0] == {"float32"} and made[0][2] == "QUANTIZE"
        assert made[-1][1] == "float32" and made[-1][2] == "DEQUANTIZE"
        assert all(out == activation for _, out, _ in made[:-1])


def test_int8_ends_are_there_when_asked_for(net):
    from edgeloop.convert.forms.recipes import Io

    data = quantized(net, Scheme.INT8, io=Io.INT8)
    assert not {name for _, _, name in dtypes(data)} & {"QUANTIZE", "DEQUANTIZE"}
    # the ends are rounded as the QUANTIZE and DEQUANTIZE of the float ends would: the same numbers
    np.testing.assert_allclose(answers(data), answers(quantized(net, Scheme.INT8)), atol=1e-3)


def test_int8_ends_of_another_scheme_are_refused(net):
    from edgeloop.convert.forms.recipes import Io

    with pytest.raises(OptionsError, match="int16x8 files have float32 inputs and outputs"):
        quantized(net, Scheme.INT16X8, io=Io.INT8)


def test_a_scheme_that_needs_ranges_says_so_without_them(net):
    from edgeloop.convert.forms import tflite

    with pytest.raises(OptionsError, match="int8 needs real inputs"):
        tflite.quantize(net[2], Scheme.INT8)


def first_outputs(float32):
    from edgeloop.files.flatbuffer import read_tflite

    graph = read_tflite(float32).graphs[0]
    return {op.name: graph.tensors[op.outputs[0]].name for op in graph.operators}


@pytest.mark.parametrize("kept", [Scheme.FLOAT32, Scheme.FLOAT16, Scheme.INT16X8])
@pytest.mark.parametrize("operator", ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"])
def test_one_operator_keeps_its_own_scheme_and_the_rest_is_int8(net, operator, kept):
    data = quantized(net, Scheme.INT8, keep={first_outputs(net[2])[operator]: kept})
    activations = {Scheme.FLOAT32: "float32", Scheme.FLOAT16: "float32", Scheme.INT16X8: "int16"}
    outs = {name: out for _, out, name in dtypes(data)}
    weighted = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    assert {name: outs[name] for name in weighted} == {
        name: activations[kept] if name == operator else "int8" for name in weighted
    }
    assert snr_db(answers(net[2]), answers(data)) > FLOORS[Scheme.INT8]


def test_keeping_what_does_not_exist_or_cannot_be_kept_is_refused(net):
    with pytest.raises(OptionsError, match="no operator has the first output 'nothing'"):
        quantized(net, Scheme.INT8, keep={"nothing": Scheme.FLOAT32})
    with pytest.raises(OptionsError, match="cannot keep int4"):
        quantized(net, Scheme.INT8, keep={first_outputs(net[2])["CONV_2D"]: Scheme.INT4})


def test_a_bias_takes_back_what_rounded_weights_shift(net):
    """Without it, int8 weights alone shift the mean of the first layer's outputs; with it the means agree."""
    from dataclasses import replace

    from edgeloop.convert.forms import tflite

    reference = answers(net[2])
    nearest = replace(net[3], factors={})
    plain = answers(tflite.quantize(net[2], Scheme.INT16X8, replace(nearest, means={})))
    corrected = answers(tflite.quantize(net[2], Scheme.INT16X8, nearest))
    assert np.abs((corrected - reference).mean(0)).max() < 0.3 * np.abs((plain - reference).mean(0)).max()
    assert snr_db(reference, corrected) > snr_db(reference, plain) + 3


def test_biases_that_a_quantizer_named_after_one_another_are_told_by_their_operators(net):
    """The names of two biases swapped, of 8 and of 5 values: TFLiteConverter's quantizer deals out such names."""
    from dataclasses import replace

    from edgeloop.convert.forms import tflite
    from edgeloop.convert.forms.bias import correct_biases
    from edgeloop.convert.forms.flatbuffer_tree import read_tree, write_tree

    tree = read_tree(tflite.quantize(net[2], Scheme.INT16X8, replace(net[3], factors={}, means={})))
    graph = tree.subgraphs[0]
    plain = write_tree(tree)
    first, *_, last = (graph.tensors[op.inputs[2]] for op in graph.operators if len(op.inputs) > 2)
    assert [list(first.shape), list(last.shape)] == [[8], [5]]
    first.name, last.name = last.name, first.name
    swapped = correct_biases(write_tree(tree), net[2], net[3].means)
    np.testing.assert_array_equal(answers(swapped), answers(correct_biases(plain, net[2], net[3].means)))


def test_weights_rounded_together_answer_closer_than_the_nearest(net):
    """On images that are not those calibrated with; smooth ones, where an operator's inputs go together."""
    from dataclasses import replace

    from edgeloop.convert.forms import tflite

    smooth = Samples(inputs={"image": smooth_images(64, seed=1)})
    calibration = tflite.calibrate(net[2], net[0], smooth)
    others = smooth_images(200, seed=2)
    reference = answers(net[2], others)
    nearest = answers(tflite.quantize(net[2], Scheme.INT16X8, replace(calibration, factors={})), others)
    together = answers(tflite.quantize(net[2], Scheme.INT16X8, calibration), others)
    assert snr_db(reference, together) > snr_db(reference, nearest) + 2


def smooth_images(count, seed):
    rng = np.random.default_rng(seed)
    corners = rng.random((count, 2, 2, 3)) * 255
    t = np.linspace(0, 1, 8)
    along = np.stack([1 - t, t])
    return np.einsum("ncdk,ci,dj->nijk", corners, along, along).astype(np.float32)


def test_a_global_average_pool_gets_a_scale_of_its_own_in_int8(tmp_path):
    """Half of a step of the pool's output is all that its int8 form may lose; AVERAGE_POOL_2D has its input's step."""
    keras = pytest.importorskip("keras")
    from edgeloop.convert.forms import freeze, tflite
    from edgeloop.convert.forms.rewrite import for_integers
    from edgeloop.convert.sources.source import open_source

    image = keras.Input((8, 8, 3), name="image")
    keras.Model(image, keras.layers.AveragePooling2D(8)(image)).save(tmp_path / "m.keras")
    source = open_source(tmp_path / "m.keras")
    float32 = tflite.lower(freeze.freeze(source).composite, source)
    peaks = np.zeros((64, 8, 8, 3), np.float32)
    peaks[:, 0, 0] = RNG.random((64, 3)) * 255  # means of up to 4 from values of up to 255
    data = tflite.quantize(float32, Scheme.INT8, tflite.calibrate(float32, source, Samples(inputs={"image": peaks})))
    assert [name for _, _, name in dtypes(data)] == ["QUANTIZE", "MEAN", "DEQUANTIZE"]
    # half a step of the mean (4 / 255 / 2) and of the input (1 / 2, in one of 64 values); with the input's step: 0.5
    assert np.abs(answers(data, peaks) - peaks.mean((1, 2), keepdims=True)).max() < 0.02
    np.testing.assert_allclose(answers(for_integers(float32), peaks), answers(float32, peaks), rtol=1e-5)
    half = keras.layers.AveragePooling2D(4)(image)
    keras.Model(image, half).save(tmp_path / "half.keras")
    source = open_source(tmp_path / "half.keras")
    float32 = tflite.lower(freeze.freeze(source).composite, source)
    assert for_integers(float32) is float32


def test_what_stays_in_float_is_named_by_op_and_layer_with_what_to_change(tmp_path):
    keras = pytest.importorskip("keras")
    from edgeloop.convert.forms import freeze, tflite
    from edgeloop.convert.forms.float_operators import float_operators
    from edgeloop.convert.sources.source import open_source

    x = keras.Input((4,), name="x")
    keras.Model(x, keras.layers.Dense(2)(keras.ops.sin(keras.layers.Dense(3, name="before")(x)))).save(
        tmp_path / "m.keras"
    )
    source = open_source(tmp_path / "m.keras")
    float32 = tflite.lower(freeze.freeze(source).composite, source)
    calibration = tflite.calibrate(float32, source, Samples(inputs={"x": RNG.random((16, 4), np.float32)}))
    with pytest.raises(ModelError, match=r"cannot be fully int8: SIN of \S+ stayed in float \(replace it by"):
        tflite.quantize(float32, Scheme.INT8, calibration)
    sine = first_outputs(float32)["SIN"]
    left = float_operators(tflite.quantize(float32, Scheme.INT8, calibration, keep={sine: Scheme.FLOAT32}))
    assert [item.op for item in left] == ["SIN"]


MAKE = """
import hashlib, sys
import numpy as np
from pathlib import Path
from edgeloop.bundle import Scheme
from edgeloop.convert.forms import freeze, onnx, onnx_int8, tflite
from edgeloop.convert.samples import Samples
from edgeloop.convert.sources.source import open_source
source = open_source(Path(sys.argv[1]))
samples = Samples(inputs={"image": np.load(sys.argv[2])})
frozen = freeze.freeze(source).functional
float32 = tflite.lower(frozen, source)
calibration = tflite.calibrate(float32, source, samples)
schemes = [s for s in Scheme if s is not Scheme.MIXED]
made = [tflite.quantize(float32, s, calibration) for s in schemes]
made.append(onnx.to_onnx(frozen, source))
made.append(onnx_int8.to_int8(made[-1], samples, None).data)
print(*[hashlib.sha256(data).hexdigest() for data in made])
"""


def test_another_process_makes_the_same_bytes_in_every_scheme(net, tmp_path):
    from edgeloop.convert.forms import onnx, onnx_int8

    np.save(tmp_path / "x.npy", IMAGES)
    run = subprocess.run(
        [sys.executable, "-c", MAKE, net[0].path, tmp_path / "x.npy"], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr[-2000:]
    here = [quantized(net, s) for s in Scheme if s is not Scheme.MIXED]
    here.append(onnx.to_onnx(net[1], net[0]))
    here.append(onnx_int8.to_int8(here[-1], Samples(inputs={"image": IMAGES}), None).data)
    assert run.stdout.split()[-len(here) :] == [hashlib.sha256(data).hexdigest() for data in here]


def test_onnx_int8_answers_nearly_what_the_source_does_and_leaves_nothing_in_float(net, monkeypatch, capfd):
    from edgeloop.convert.forms import onnx, onnx_int8

    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    data = onnx_int8.to_int8(onnx.to_onnx(net[1], net[0]), Samples(inputs={"image": IMAGES}), None).data
    assert capfd.readouterr().out == ""
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["image"]
    got = session.run(["last"], {"image": IMAGES})[0]
    assert snr_db(answers(net[2]), got) > 25
    assert onnx_int8.float_operators_onnx(data) == ()


def test_float_operators_of_an_onnx_file_are_listed(net):
    from edgeloop.convert.forms import onnx, onnx_int8

    left = onnx_int8.float_operators_onnx(onnx.to_onnx(net[1], net[0]))
    assert {"Conv", "Gemm"} <= {item.op for item in left} | {"Gemm" if i.op == "MatMul" else i.op for i in left}


def test_calibrating_onnx_batch_by_batch_sees_every_sample(net):
    """An extreme in the very last sample widens the first layer's range."""
    from edgeloop.convert.forms import onnx, onnx_int8

    float32 = onnx.to_onnx(net[1], net[0])
    outlier = np.concatenate([np.zeros((300, 8, 8, 3), np.float32), np.full((1, 8, 8, 3), 255, np.float32)])
    seen = onnx_int8.to_int8(float32, Samples(inputs={"image": outlier}), None).data
    missed = onnx_int8.to_int8(float32, Samples(inputs={"image": outlier[:-1] + 1}), None).data
    assert seen != missed
    import onnxruntime

    run = onnxruntime.InferenceSession(seen, providers=["CPUExecutionProvider"])
    assert snr_db(answers(net[2], outlier[-1:]), run.run(None, {"image": outlier[-1:]})[0]) > 20


@pytest.mark.parametrize("weights", ["float16", "uint8"])
def test_tfjs_weights_are_stored_smaller_in_shards_of_the_size_asked_for(net, tmp_path, weights):
    import json

    from edgeloop.convert.forms.tfjs import TfjsOptions, Weights, to_tfjs

    to_tfjs(net[1], net[0], tmp_path, TfjsOptions(weights=Weights(weights), shard_bytes=200))
    model = json.loads((tmp_path / "model.json").read_text())
    stored = [w["quantization"]["dtype"] for g in model["weightsManifest"] for w in g["weights"] if "quantization" in w]
    assert stored and set(stored) == {weights}
    shards = [p.stat().st_size for p in tmp_path.glob("*.bin")]
    assert len(shards) > 1 and max(shards) <= 200
    assert list(model["signature"]["inputs"]) == ["image"] and list(model["signature"]["outputs"]) == ["last"]


def test_stubs_are_gone_once_tensorflowjs_is_loaded():
    pytest.importorskip("tensorflowjs")
    from edgeloop.convert.forms.tfjs_stubs import load_converter

    load_converter()
    assert "jax" not in sys.modules and "tensorflow_decision_forests" not in sys.modules


CALIBRATE = """
import sys
from pathlib import Path
from types import SimpleNamespace
from edgeloop.bundle import TensorSpec
from edgeloop.convert.read_samples import read_samples
from edgeloop.convert.forms.tflite import calibrate
specs = (TensorSpec("image", (None, 32, 32, 3), "float32"),)
source = SimpleNamespace(path=Path("m.keras"), signature="infer", inputs=specs)
calibrate(Path(sys.argv[1]).read_bytes(), source, read_samples(sys.argv[2], specs))
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
"""


def test_calibrating_on_ten_thousand_samples_takes_within_5_percent_of_the_memory_of_a_hundred(tmp_path):
    keras = pytest.importorskip("keras")
    from edgeloop.convert.forms import freeze, tflite
    from edgeloop.convert.sources.source import open_source

    image = keras.Input((32, 32, 3), name="image")
    keras.Model(image, keras.layers.Conv2D(2, 3, strides=8)(image)).save(tmp_path / "m.keras")
    source = open_source(tmp_path / "m.keras")
    (tmp_path / "m.tflite").write_bytes(tflite.lower(freeze.freeze(source).composite, source))
    peaks = []
    for count in (100, 10_000):  # 1.2 and 123 MB of values
        np.savez(tmp_path / "s.npz", image=np.ones((count, 32, 32, 3), np.float32))
        run = subprocess.run(
            [sys.executable, "-c", CALIBRATE, tmp_path / "m.tflite", tmp_path / "s.npz"],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        peaks.append(int(run.stdout))
    assert peaks[1] <= 1.05 * peaks[0], peaks
