"""What in a Keras config is code: classes of TF-MOT's wrappers are not, anything else of its package is."""

import pytest

from edgeloop.files.keras_config import code_in

CORE = "tensorflow_model_optimization.python.core"


@pytest.mark.parametrize(
    "kind, module, allowed",
    [
        ("QuantizeWrapperV2", f"{CORE}.quantization.keras.quantize_wrapper", True),
        ("PruneLowMagnitude", f"{CORE}.sparsity.keras.pruning_wrapper", True),
        ("function", f"{CORE}.quantization.keras.quantize", False),
        ("PruneLowMagnitude", f"{CORE}.api", False),
        ("Thing", "tensorflow_model_optimization_evil", False),
    ],
)
def test_only_classes_that_wrap_a_layer_in_training_are_known(kind, module, allowed):
    config = {"class_name": kind, "module": module, "config": {"name": "a"} if kind != "function" else "f"}
    assert (code_in(config) == []) is allowed
