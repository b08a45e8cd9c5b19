"""Attention and RotaryEmbedding, at sizes that only the device knows: LiteRT answers as ONNX Runtime does."""

import numpy as np
import pytest
from onnx_cases import Case, Sized, Weight, together
from onnx_models import check, difference, make_model, run_tflite, to_tflite

onnx = pytest.importorskip("onnx")
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


def test_linear_attention_of_free_length_is_the_recurrence_that_the_specification_writes():
    """ONNX Runtime 1.32 has none: expected is S = e^g S + b k (v - e^g S'k)', y = q'S / sqrt(2), by hand."""
    attributes = {"q_num_heads": 2, "kv_num_heads": 1, "update_rule": "gated_delta"}
    node = onnx.helper.make_node("LinearAttention", ["q", "k", "v", "", "g", "b"], ["y", "s"], **attributes)
    inputs = {"q": ["n", "t", 4], "k": ["n", "t", 2], "v": ["n", "t", 3], "g": ["n", "t", 1], "b": ["n", "t", 1]}
    data = to_tflite(make_model([node], inputs, {"y": None, "s": None}, opset=27))
    for steps in (3, 150):
        q, k, v, g, b = (floats(1, steps, d) * 0.5 for d in (4, 2, 3, 1, 1))
        state, expected = np.zeros((2, 3)), np.zeros((1, steps, 6))
        for t in range(steps):
            state = state * np.exp(g[0, t, 0])
            state = state + np.outer(k[0, t], b[0, t, 0] * (v[0, t] - state.T @ k[0, t]))
            expected[0, t] = np.concatenate([q[0, t, :2] @ state, q[0, t, 2:] @ state]) / np.sqrt(2)
        y, last = run_tflite(data, [q, k, v, g, b])
        assert difference(expected, y) < 1e-5 and difference(state[None, None], last) < 1e-5


def test_a_cache_is_written_from_a_place_of_its_own_in_each_row():
    nodes = [onnx.helper.make_node("TensorScatter", ["past", "new", "at"], ["y"], mode="circular", axis=1)]
    inputs = {"past": ["n", "length", 2], "new": ["n", "t", 2], "at": (["n"], onnx.TensorProto.INT64)}
    past, new = floats(2, 4, 2), floats(2, 2, 2)
    expected = past.copy()
    expected[0, [1, 2]], expected[1, [3, 0]] = new[0], new[1]
    feeds = {"past": past, "new": new, "at": np.array([1, 3])}
    check(make_model(nodes, inputs, {"y": None}, opset=24), feeds, [expected])
