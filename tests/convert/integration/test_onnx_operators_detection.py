"""Operators of detectors and of signals, at sizes that only the device knows: LiteRT answers as ONNX Runtime does."""

import numpy as np
import pytest
from onnx_cases import Case, Sized, Weight, together
from onnx_models import answers, check, difference, make_model, run_tflite, to_tflite

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("tensorflow")
N = onnx.helper.make_node
RNG = np.random.default_rng(5)


def floats(*shape) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def boxes(batch: int, count: int) -> np.ndarray:
    """[batch, count, 4]: corners in any order, which overlap often."""
    corner, wide = RNG.random((batch, count, 2)), 0.2 + 0.3 * RNG.random((batch, count, 2))
    pair = np.concatenate([corner, corner + wide], -1).astype(np.float32)
    return np.where(RNG.random((batch, count, 1)) < 0.5, pair, pair[..., [2, 3, 0, 1]])


def threshold(value: float) -> Weight:
    return Weight(np.float32([value]))


def most(count: int) -> Weight:
    return Weight(np.array([count], np.int64))


TIED = np.round(RNG.random((1, 2, 30)), 1).astype(np.float32)  # 11 scores for 30 boxes
SAME = np.tile(np.float32([[0, 0, 1, 1]]), (1, 6, 1))
SUPPRESSED = [
    Case("NonMaxSuppression", [boxes(1, 30), TIED, most(20), threshold(0.5), threshold(0.3)]),
    Case("NonMaxSuppression", [boxes(2, 12), floats(2, 5, 12), most(4), threshold(0.2)]),
    Case("NonMaxSuppression", [boxes(1, 12), floats(1, 1, 12), most(2**62)]),
    Case("NonMaxSuppression", [floats(1, 30, 4), floats(1, 2, 30), most(20), threshold(0.1)], {"center_point_box": 1}),
    Case("NonMaxSuppression", [SAME, TIED[:, :, :6], most(6), threshold(1.0)]),  # no IOU is above 1
    Case("NonMaxSuppression", [0 * SAME, TIED[:, :, :6], most(6), threshold(0.5)]),  # boxes without an area
    Case("NonMaxSuppression", [boxes(1, 8), floats(1, 1, 8), np.array([3], np.int64), np.float32([0.4])]),
]
IMAGE, VOLUME = Sized(floats(2, 3, 5, 6), 0), Sized(floats(1, 2, 3, 4, 5), 0)
GRID = (3 * RNG.random((2, 4, 7, 2)) - 1.5).astype(np.float32)
GRID_3D = (3 * RNG.random((1, 2, 3, 4, 3)) - 1.5).astype(np.float32)
SAMPLED = [
    *(
        Case("GridSample", [IMAGE, GRID], {"mode": mode, "padding_mode": bounds, "align_corners": (i + k) % 2})
        for i, mode in enumerate(("linear", "nearest", "cubic"))
        for k, bounds in enumerate(("zeros", "border", "reflection"))
    ),
    Case("GridSample", [VOLUME, GRID_3D], {"mode": "linear", "padding_mode": "reflection"}),
    Case("GridSample", [VOLUME, GRID_3D], {"mode": "nearest"}),
    Case("AffineGrid", [floats(2, 2, 3), Weight(np.array([2, 3, 4, 5]))]),
    Case("AffineGrid", [floats(1, 3, 4), Weight(np.array([1, 1, 2, 3, 4]))], {"align_corners": 1}),
]
ROIS = np.float32([[0, 0, 4, 5], [1.2, 0.7, 3.1, 4.4], [-2, -3, 9, 9], [2, 2, 2.1, 2.2]])
WHERE = np.array([0, 1, 1, 0])
REGIONS = [
    Case("RoiAlign", [IMAGE, ROIS, WHERE], {"output_height": 2, "output_width": 3, **more})
    for more in (
        {"sampling_ratio": 2},
        {"sampling_ratio": 2, "spatial_scale": 0.5, "coordinate_transformation_mode": "output_half_pixel"},
        {"sampling_ratio": 0},
        {"sampling_ratio": 2, "mode": "max"},
    )
]


@pytest.mark.parametrize(
    ("cases", "opset"), [(SUPPRESSED, 22), (SAMPLED, 22), (REGIONS, 16)], ids=["suppressed", "sampled", "regions"]
)
def test_operators_of_detectors_answer_as_onnx_runtime_at_free_sizes(cases, opset):
    check(*together(cases, opset))


def test_80_classes_are_suppressed_in_one_loop():
    def size(classes: int) -> int:
        scores = [floats(1, classes, 50), most(10), threshold(0.4), threshold(0.5)]
        return len(check(*together([Case("NonMaxSuppression", [boxes(1, 50), *scores])])))

    assert abs(size(80) - size(40)) < 200  # bytes


def test_no_box_that_scores_is_a_result_of_no_rows():
    model = make_model(
        [
            N("NonMaxSuppression", ["boxes", "scores", "most", "iou", "least"], ["chosen"]),
            N("Shape", ["chosen"], ["rows"]),
        ],
        {"boxes": [1, "n", 4], "scores": [1, 1, "n"]},
        {"rows": None},
        {"most": np.array([5]), "iou": np.float32([0.5]), "least": np.float32([9])},
    )
    check(model, {"boxes": boxes(1, 7), "scores": floats(1, 1, 7)})


SIGNAL, COMPLEX = Sized(floats(2, 40, 1)), Sized(floats(2, 12, 2))
SPECTRUM = np.concatenate([floats(2, 9, 1), np.pad(floats(2, 7, 1), ((0, 0), (1, 1), (0, 0)))], -1)
ONE, AXIS = Weight(np.int64(16)), Weight(np.int64(1))
SIGNALS = [
    Case("STFT", [SIGNAL, Weight(np.int64(5)), Weight(np.hanning(16).astype(np.float32)), ONE]),
    Case("STFT", [SIGNAL, Weight(np.int64(8)), None, ONE], {"onesided": 0}),
    Case("DFT", [SIGNAL, None, AXIS]),
    Case("DFT", [SIGNAL, ONE, AXIS], {"onesided": 1}),
    Case("DFT", [SIGNAL, Weight(np.int64(50)), AXIS]),
    Case("DFT", [COMPLEX, None, AXIS]),
    Case("DFT", [COMPLEX, None, AXIS], {"inverse": 1}),
    Case("HannWindow", [np.int64(9)]),
    Case("HammingWindow", [np.int64(9)], {"periodic": 0}),
    Case("BlackmanWindow", [np.int64(9)]),
    Case("MelWeightMatrix", [np.int64(8), np.int64(64), np.int64(16000), np.float32(0), np.float32(8000)]),
    Case("Det", [Sized(floats(2, 3, 3), 2)]),
]


def test_signals_are_transformed_as_onnx_runtime_transforms_them():
    check(*together(SIGNALS))


def test_half_a_spectrum_becomes_the_real_signal_that_it_came_from():
    """ONNX Runtime 1.32 has no onesided inverse; numpy's is the answer."""
    nodes = [N("DFT", ["x", "n", "axis"], ["y"], inverse=1, onesided=1)]
    model = make_model(nodes, {"x": [2, "k", 2]}, {"y": None}, {"n": np.int64(16), "axis": np.int64(1)}, opset=20)
    real = np.fft.irfft(SPECTRUM[..., 0] + 1j * SPECTRUM[..., 1], 16, axis=1)[..., None].astype(np.float32)
    check(model, {"x": SPECTRUM}, [real])


def test_an_stft_that_was_converted_at_one_length_answers_at_another():
    model, feeds = together(SIGNALS[:1])
    longer = {name: np.tile(array, (1, 3, 1)) for name, array in feeds.items()}
    (found,) = run_tflite(to_tflite(model), list(longer.values()))
    assert difference(answers(model, longer)[0], found) < 1e-5
