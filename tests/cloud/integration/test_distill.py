"""Students learn from teachers of every kind, and become bundles."""

import numpy as np
import pytest

from edgeloop.bundle import Format, Scheme
from edgeloop.cloud.input.options import Cache, DataOptions, PipelineOptions
from edgeloop.cloud.train.config.read_config import read_config
from edgeloop.cloud.train.config.tables import Loss
from edgeloop.cloud.train.data.data_config import DataConfig
from edgeloop.cloud.train.data.training_data import training_and_validation
from edgeloop.cloud.train.distill.distill import train_students
from edgeloop.cloud.train.distill.objective import distillation_objective
from edgeloop.cloud.train.distill.options import DistillConfig, DistillOptions
from edgeloop.cloud.train.distill.teachers import ask_teachers
from edgeloop.cloud.train.step.objective import make_objective
from edgeloop.convert.convert import convert
from edgeloop.convert.options import ConvertOptions
from edgeloop.errors import DataError

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")


STUDENT = """
[data]
path = "data.npz"
batch = 32
held-out = 0.2
[model]
name = "student.keras"
[loop]
epochs = 8
[optimizer]
learning-rate = 0.01
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three noisy clusters, a teacher that knows them, and an untrained student."""
    path = tmp_path_factory.mktemp("distill")
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 600)
    centres = np.array([[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]], np.float32)
    x = centres[y] + rng.normal(size=(600, 4)).astype(np.float32)
    np.savez(path / "data.npz", x=x, y=y)
    keras.utils.set_random_seed(0)
    # the best answer for clusters of one width: logits x @ centres.T, as their lengths are equal
    teacher = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    teacher.layers[0].set_weights([centres.T, np.zeros(3)])
    teacher.save(path / "teacher.keras")
    student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(3)])
    student.save(path / "student.keras")
    (path / "train.toml").write_text(STUDENT)
    return path


@pytest.mark.parametrize("from_logits", [True, False])
def test_the_loss_is_the_one_of_hinton_2015_by_hand(from_logits):
    config = DistillConfig(temperature=2.0, alpha=0.75)
    hard = make_objective(Loss.SPARSE_CATEGORICAL_CROSSENTROPY, from_logits)
    objective = distillation_objective(hard, config, from_logits)
    logits = np.log([[1.0, 9.0]])  # softmax: 0.1, 0.9; at T = 2: 0.25, 0.75
    outputs = tf.constant(logits if from_logits else [[0.1, 0.9]], tf.float32)
    labels = (tf.constant([1]), tf.constant([[0.5, 0.5]]))
    divergence = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    expected = 0.75 * 4 * divergence + 0.25 * -np.log(0.9)
    assert objective.losses(labels, outputs).numpy() == pytest.approx([expected], rel=1e-5)
    assert objective.losses(tf.constant([1]), outputs).numpy() == pytest.approx([-np.log(0.9)], rel=1e-5)
    assert objective.scores(labels, outputs).numpy() == [1.0]


def test_teachers_of_every_format_say_the_same(folder):
    formats = ConvertOptions(to=(Format.TFLITE,), schemes=(Scheme.FLOAT32,))
    convert(folder / "teacher.keras", folder / "bundle", formats)
    data = DataOptions(path=folder / "data.npz")
    targets = [ask_teachers([folder / teacher], data, 2.0) for teacher in ("teacher.keras", "bundle")]
    x = np.load(folder / "data.npz")["x"]
    powers = np.exp(2 * x[:, :3] / 2)
    np.testing.assert_allclose(targets[0], powers / powers.sum(1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(targets[1], targets[0], atol=1e-5)


def test_two_students_of_two_rounds_their_mean_and_the_one_alone_are_models_that_convert(folder):
    options = DistillOptions(
        teachers=(folder / "teacher.keras",), students=2, iterations=2, fine_tune=1, compare=True, temperature=2.0
    )
    result = train_students(read_config(folder / "train.toml"), folder / "out", options)
    names = ("student-1", "student-1-fine-tuned", "student-2", "student-2-fine-tuned", "ensemble")
    students = {student.name: student for student in result.students}
    assert list(students) == [f"round-{number}/{name}" for number in (1, 2) for name in names]
    assert result.alone.name == "alone"
    # clusters of width 1 whose centres are 2 * sqrt(2) apart: the best rule is right in some 86% of 120
    assert students["round-1/student-1"].score > 0.75
    mean, *parts = (
        keras.saving.load_model(students[f"round-1/{name}"].model)
        for name in ("ensemble", "student-1-fine-tuned", "student-2-fine-tuned")
    )
    x = np.load(folder / "data.npz")["x"][:8]
    np.testing.assert_allclose(mean(x), (parts[0](x) + parts[1](x)) / 2, rtol=1e-5)
    first, second = (np.load(folder / "out" / f"targets-{number}.npy") for number in (1, 2))
    assert first.shape == second.shape == (600, 3)
    assert not np.array_equal(first, second)  # the teacher of the second round is the mean of the first one's students
    convert(result.model, folder / "student", ConvertOptions(to=(Format.TFLITE,)))


def test_a_regressor_is_no_teacher(folder):
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]).save(folder / "regressor.keras")
    with pytest.raises(DataError, match=r"the teacher answers with the shape \[600, 1\]"):
        ask_teachers([folder / "regressor.keras"], DataOptions(path=folder / "data.npz"), 1.0)


def test_soft_targets_stand_beside_their_own_examples_whatever_is_held_out_and_left_out(tmp_path):
    y = np.arange(40) % 4
    np.savez(tmp_path / "d.npz", x=np.arange(40, dtype=np.float32)[:, None], y=y)
    np.save(tmp_path / "t.npy", np.arange(40, dtype=np.float32)[:, None] * [1, 10])
    data = DataConfig(path=tmp_path / "d.npz", held_out=0.25, share=0.5)
    for cache in Cache:
        trained, held = training_and_validation(data, PipelineOptions(cache=cache), 3, tmp_path / "t.npy")
        rows = [
            (float(x[0]), int(label), target.tolist()) for x, (label, target) in trained.dataset().as_numpy_iterator()
        ]
        assert len(rows) == 15  # half of 30
        assert all(label == x % 4 and target == [x, 10 * x] for x, label, target in rows)
        assert not {x for x, *_ in rows} & {float(x[0]) for x, _ in held.dataset().as_numpy_iterator()}


def test_targets_of_another_number_of_examples_are_refused(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.zeros((8, 1), np.float32), y=np.zeros(8, np.int64))
    np.save(tmp_path / "t.npy", np.zeros((7, 2), np.float32))
    with pytest.raises(DataError, match="has 8 examples, and there are 7 soft targets"):
        training_and_validation(DataConfig(path=tmp_path / "d.npz"), PipelineOptions(), 0, tmp_path / "t.npy")
