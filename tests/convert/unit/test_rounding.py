"""Rounding weights together: against a search of all roundings, and the patches that an operator multiplies."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from edgeloop.convert.forms.rounding import _columns, _patches, _round


def test_two_inputs_that_always_agree_share_one_weight():
    # x = (a, a): only the sum of the weights counts. 0.4 + 0.4 steps: the nearest is 0 + 0, together it is 1.
    moments = np.array([[1, 0.999], [0.999, 1]], np.float32)
    steps = _round(np.float32([[0.4], [0.4]]), np.float32([1]), np.linalg.cholesky(moments), 127, "CONV_2D")
    assert steps.sum() == 1


@pytest.mark.parametrize("kind", ["FULLY_CONNECTED", "DEPTHWISE_CONV_2D"])
def test_it_finds_the_best_of_all_roundings_more_often_than_not(kind):
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(30):
        x = rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6))
        moments = (x.T @ x).astype(np.float32)
        w = rng.normal(size=(6, 1)).astype(np.float32) * 3
        factor = np.linalg.cholesky(moments)
        factor = factor[None] if kind == "DEPTHWISE_CONV_2D" else factor
        error = {"got": w - _round(w, np.float32([1]), factor, 127, kind), "nearest": w - np.rint(w)}
        loss = {name: float((e.T @ moments @ e).item()) for name, e in error.items()}
        every = (w - (np.floor(w) + np.array(up)[:, None]) for up in itertools.product((0, 1), repeat=6))
        best = min(float((e.T @ moments @ e).item()) for e in every)
        ratios.append((loss["got"] / best, loss["nearest"] / best))
    got, nearest = np.median(ratios, axis=0)
    assert got < 1.05 < 1.3 < nearest


def test_a_block_hands_on_what_it_lost_as_one_input_after_another_would():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 70)) @ rng.normal(size=(70, 70))
    w = rng.normal(size=(70, 3)).astype(np.float32)
    scales = np.abs(w).max(0) / np.float32(127)
    factor = np.linalg.cholesky((x.T @ x).astype(np.float32))
    blocks = _round(w, scales, factor, 127, "CONV_2D")
    one_by_one = _round(w, scales, np.repeat(factor[None], 3, axis=0), 127, "DEPTHWISE_CONV_2D")
    # sums in another order may round a tie the other way, and what follows then differs too
    assert (blocks != one_by_one).mean() < 0.05


@pytest.mark.parametrize(("padding", "stride", "dilation"), [(0, 1, 1), (0, 2, 1), (1, 2, 1), (0, 1, 2), (1, 1, 2)])
def test_patches_times_weights_is_the_convolution(padding, stride, dilation):
    rng = np.random.default_rng(2)
    value = rng.normal(size=(2, 7, 6, 3)).astype(np.float32)
    weights = rng.normal(size=(4, 3, 2, 3)).astype(np.float32)
    options = SimpleNamespace(
        Padding=lambda: padding,
        StrideH=lambda: stride,
        StrideW=lambda: stride,
        DilationHFactor=lambda: dilation,
        DilationWFactor=lambda: dilation,
    )
    op = SimpleNamespace(kind="CONV_2D", weights=SimpleNamespace(ShapeAsNumpy=lambda: np.array([4, 3, 2, 3])))
    op.options = options
    patches = _patches(op, value, 10**6, rng)
    expected = convolution(value, weights, padding, stride, dilation)
    got = patches.reshape(len(patches), -1) @ _columns("CONV_2D", weights)
    np.testing.assert_allclose(got, expected.reshape(-1, 4), atol=1e-4)


def convolution(value, weights, padding, stride, dilation):
    """[n, out height, out width, out] by the definition: one output after another."""
    count, height, width, _ = value.shape
    reach = np.array([2, 1]) * dilation + 1
    outs = [
        -(-n // stride) if padding == 0 else (n - r) // stride + 1 for n, r in zip((height, width), reach, strict=True)
    ]
    before = [
        max((o - 1) * stride + r - n, 0) // 2 if padding == 0 else 0
        for o, r, n in zip(outs, reach, (height, width), strict=True)
    ]
    answer = np.zeros((count, *outs, len(weights)))
    for y, x, i, j in itertools.product(range(outs[0]), range(outs[1]), range(3), range(2)):
        row, column = y * stride + i * dilation - before[0], x * stride + j * dilation - before[1]
        if 0 <= row < height and 0 <= column < width:
            answer[:, y, x] += value[:, row, column] @ weights[:, i, j].T
    return answer
