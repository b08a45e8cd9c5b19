"""Models that TF-MOT trained: fake quantization and the wrappers of pruning are taken off, and it is said."""

import subprocess
import sys

import numpy as np
import pytest

from edgeloop.convert.sources.source import open_source

TRAINED = """
import os, sys
os.environ["TF_USE_LEGACY_KERAS"] = "1"  # tfmot builds its layers with tf_keras then
import numpy as np, tf_keras as k, tensorflow_model_optimization as tfmot
net = k.Sequential([k.layers.Input((6,), name="x"), k.layers.Dense(4, use_bias=False)])
net.set_weights([np.load(sys.argv[1])])
tuned = tfmot.quantization.keras.quantize_model(net)
for name in ("quantized.h5", "quantized"):
    tuned.save(name)
tfmot.sparsity.keras.prune_low_magnitude(net).save("pruned.h5")
"""
W = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
X = np.random.default_rng(1).random((5, 6), np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("tensorflow_model_optimization")
    path = tmp_path_factory.mktemp("tfmot")
    np.save(path / "w.npy", W)
    subprocess.run([sys.executable, "-c", TRAINED, "w.npy"], cwd=path, check=True, capture_output=True, timeout=300)
    return path


@pytest.mark.parametrize(
    "name, note",
    [
        ("quantized.h5", "fake quantization of its training was left out"),
        ("quantized", "fake quantization of its training was left out"),
        ("pruned.h5", "wrappers of pruning were taken off"),
    ],
)
def test_the_plain_model_is_what_remains(folder, name, note):
    source = open_source(folder / name)
    (y,) = source.call({"x": X}).values()
    np.testing.assert_allclose(y, X @ W, atol=1e-5)  # int8 weights would be 1e-2 off
    assert any(note in line for line in source.notes)
