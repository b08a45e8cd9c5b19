"""Nets as exporters write them: the .tflite, of builtin operators alone, answers as ONNX Runtime does.

Layers of up to 1,152 terms in series: each sum is off by at most a few roundings of 6e-8, and `check` allows 1e-4 of
the largest value. The nets in float16 or with quantized tensors round once more on either side.
"""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("tensorflow")

from onnx_exports import EXPORTS
from onnx_models import check

# half a step of float16 is 5e-4 of a value, of which several add up. LiteRT rounds ties away from zero, ONNX to even: a
# step of 0.01 in two of 8 terms, by weights up to 1.27, is 0.0124 of the largest value, 2.05
TOLERANCE = {"computed_in_float16": 2e-3, "quantize_and_dequantize": 0.0125}


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_answers_in_litert_as_in_onnx_runtime(name):
    model, feeds = EXPORTS[name]()
    check(model, feeds, tolerance=TOLERANCE.get(name, 1e-4))


def test_free_dimensions_stay_free_in_the_tflite_file():
    from ai_edge_litert.interpreter import Interpreter

    model, feeds = EXPORTS["transformer_with_free_batch_and_length"]()
    data = check(model, feeds)
    (details,) = Interpreter(model_content=data).get_signature_runner().get_input_details().values()
    np.testing.assert_array_equal(details["shape_signature"], [-1, -1, 32])
