"""TF.js in Node runs on WebAssembly, and on plain JavaScript what WebAssembly has no kernel for."""

import numpy as np
import pytest

from edgeloop.bundle import Format
from edgeloop.convert.convert import convert
from edgeloop.convert.options import ConvertOptions


def test_an_op_that_webassembly_lacks_is_computed_all_the_same(tmp_path):
    tf = pytest.importorskip("tensorflow")

    class Product(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 2, 3], tf.float32, name="x")])
        def serve(self, x):
            return {"y": tf.einsum("bij,kj->bki", x, tf.ones([4, 3]))}  # Einsum: no kernel in tfjs-backend-wasm 4.22

    tf.saved_model.save(module := Product(), tmp_path / "product", signatures={"serve": module.serve})
    made = convert(tmp_path / "product", tmp_path / "b", ConvertOptions(to=(Format.TFJS,)))
    assert [(row.runtime, row.passed) for row in made.parity] == [("tfjs", True)]


def test_webassembly_is_what_runs():
    from edgeloop.browser.assets import TFJS_RUNNER, need_assets
    from edgeloop.browser.runners import _running, find_node

    with _running([find_node(), need_assets(TFJS_RUNNER), "."], "TF.js", 60.0) as agent:
        assert agent.probe().backend == "wasm"


def test_both_backends_answer_alike(tmp_path):
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 3), name="x"), keras.layers.Conv2D(4, 3), keras.layers.Flatten()])
    model.save(tmp_path / "m.keras")
    x = np.random.default_rng(0).random((16, 8, 8, 3), np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    options = ConvertOptions(to=(Format.TFJS,), calibration=tmp_path / "x.npz")
    (row,) = convert(tmp_path / "m.keras", tmp_path / "b", options).parity
    assert row.max_abs < 1e-5  # 27 products of unit scale: each rounds by at most 2^-24
