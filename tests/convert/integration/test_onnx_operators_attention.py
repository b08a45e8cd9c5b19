"""Attention and RotaryEmbedding, at sizes that only the device knows: LiteRT answers as ONNX Runtime does."""

import numpy as np
import pytest
from onnx_cases import Case, Sized, Weight, together
from onnx_models import check

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("tensorflow")
RNG = np.random.default_rng(8)


def floats(*shape) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def heads(batch: int, count: int, length: int, width: int) -> Sized:
    """[batch, length, heads * width], of which batch and length are free."""
    return Sized(floats(batch, length, count * width))


EIGHT = {"q_num_heads": 4, "kv_num_heads": 2}  # two query heads for each of keys and values
NOTHING = np.array([[True, False, True, True, False], [False] * 5, [True] * 5])
ATTENDED = [
    Case("Attention", [heads(2, 4, 3, 8), heads(2, 2, 5, 8), heads(2, 2, 5, 6)], EIGHT),
    Case("Attention", [heads(2, 4, 5, 8), heads(2, 2, 5, 8), heads(2, 2, 5, 8)], EIGHT | {"is_causal": 1}),
    Case("Attention", [heads(2, 4, 3, 8), heads(2, 2, 5, 8), heads(2, 2, 5, 8), Sized(floats(3, 5))], EIGHT),
    Case("Attention", [heads(2, 4, 3, 8), heads(2, 2, 5, 8), heads(2, 2, 5, 8), NOTHING], EIGHT | {"softcap": 2.0}),
    Case(
        "Attention",
        [
            *(Sized(floats(2, 2, 3, 8), 3) for _ in range(3)),
            None,
            *(Sized(floats(2, 2, 4, 8), 3) for _ in range(2)),
        ],
        {"is_causal": 1, "scale": 0.5},
        outputs=3,
    ),
    Case(
        "RotaryEmbedding",
        [heads(2, 4, 3, 8), Weight(floats(9, 4)), Weight(floats(9, 4)), np.array([[3, 4, 5], [0, 1, 8]])],
        {"num_heads": 4},
    ),
    Case("RotaryEmbedding", [Sized(floats(2, 4, 3, 8), 3), floats(2, 3, 4), floats(2, 3, 4)], {"interleaved": 1}),
    Case(
        "RotaryEmbedding", [Sized(floats(2, 4, 3, 8), 3), floats(2, 3, 2), floats(2, 3, 2)], {"rotary_embedding_dim": 4}
    ),
]


def test_attention_with_masks_caches_and_shared_heads_answers_as_onnx_runtime():
    check(*together(ATTENDED, opset=23))
