"""Models without a batch axis: converted, calibrated, proved and verified call by call."""

import numpy as np
import pytest

from edgeloop.bundle import Format
from edgeloop.convert.convert import convert
from edgeloop.convert.options import ConvertOptions
from edgeloop.convert.proof.verify import verify

RNG = np.random.default_rng(0)
W = RNG.standard_normal((6, 6)).astype(np.float32) * 0.3
DEVICE_FORMATS = (Format.TFLITE, Format.ONNX)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Save a function as a SavedModel and give its path."""
    tf = pytest.importorskip("tensorflow")

    def save(name, function, **shapes):
        specs = [tf.TensorSpec(shape, tf.float32, name=n) for n, shape in shapes.items()]
        module = tf.Module()
        path = tmp_path_factory.mktemp("calls") / name
        module.f = tf.function(function, input_signature=specs)
        tf.saved_model.save(module, path, signatures=module.f)
        return path

    return save


def test_a_state_beside_an_input_is_proved_and_calibrated_at_the_shapes_it_has(saved, tmp_path):
    import tensorflow as tf

    def step(x, state):
        a = tf.tanh(x @ W + state[0])
        b = tf.tanh(a @ W + state[1])
        return {"y": b, "state_out": tf.stack([a, b])}

    path = saved("stream", step, x=[1, 6], state=[2, 1, 6])
    x, state = (RNG.standard_normal((20, *shape)).astype(np.float32) for shape in ((1, 6), (2, 1, 6)))
    np.savez(tmp_path / "c.npz", x=x, state=state)
    options = ConvertOptions(to=DEVICE_FORMATS, calibration=tmp_path / "c.npz")
    made = convert(path, tmp_path / "b", options)
    assert {row.variant for row in made.parity if row.passed} >= {"float32", "float16", "dynamic", "int8", "onnx"}
    (signature,) = made.bundle.manifest.signatures.values()
    assert {t.name: t.shape for t in (*signature.inputs, *signature.outputs)} == {
        "x": (1, 6),
        "state": (2, 1, 6),
        "y": (1, 6),
        "state_out": (2, 1, 6),
    }
    reference = np.load(made.bundle.file("reference.npz"))
    np.testing.assert_array_equal(reference["in/state"], state[:16])
    a = np.tanh(x[:16] @ W + state[:16, 0])  # by hand
    np.testing.assert_allclose(reference["out/y"], np.tanh(a @ W + state[:16, 1]), atol=1e-6)
    again = verify(tmp_path / "b").parity
    assert {row.variant for row in again} == {v.id for v in made.bundle.variants}
    assert all(row.passed and row.samples == 16 for row in again)


def test_an_output_whose_size_depends_on_the_values_is_proved_sample_by_sample(saved, tmp_path):
    import tensorflow as tf

    def kept(boxes):
        return {"kept": tf.boolean_mask(boxes[0] @ W[:4, :4], boxes[0, :, 0] > 0.5)[tf.newaxis]}

    boxes = RNG.random((20, 5, 4), np.float32)
    boxes[0, :, 0] = 0  # of the first sample nothing is kept
    np.savez(tmp_path / "e.npz", boxes=boxes)
    options = ConvertOptions(to=DEVICE_FORMATS, evaluation=tmp_path / "e.npz")
    made = convert(saved("kept", kept, boxes=[1, 5, 4]), tmp_path / "b", options)
    assert {(row.variant, row.samples) for row in made.parity if row.passed} >= {("float32", 20), ("onnx", 20)}
    out = np.load(made.bundle.file("reference.npz"))["out/kept"]
    assert np.isnan(out[0]).all()
    assert [int(np.isfinite(each[..., 0]).sum()) for each in out] == [int((b[:, 0] > 0.5).sum()) for b in boxes[:16]]
    assert {row.passed for row in verify(tmp_path / "b").parity if row.variant == "onnx"} == {True}
