"""Train a `trainable.tflite` on a device: NumPy and one runtime, never TensorFlow. Python 3.9 syntax.

The file's five signatures (train, evaluate, infer, get_weights, set_weights) are specified in docs/trainable.md.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeloop.errors import DataError, DeviceError, MissingExtra, OptionsError, TargetError, one_line
from edgeloop.runtime.agent.runtimes import check_numpy, is_installed
from edgeloop.runtime_table import RUNTIMES

TRAINERS = {name: runtime for name, runtime in RUNTIMES.items() if runtime.trains}
# Weights before and after a step in, those to go on with out
Correct = Callable[[Mapping[str, np.ndarray], Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
SIGNATURES = ("train", "evaluate", "infer", "get_weights", "set_weights")


@dataclass(frozen=True)
class TrainRecord:
    """One call of `Trainer.train`.

    Attributes:
        loss: Mean loss of the steps of each epoch, taken before each step's update.
        steps: Gradient steps, all epochs together.
        examples: Samples in the shard, N: the weight of this device in an average.
        seconds: Wall time of the steps alone, without loading.
    """

    loss: tuple[float, ...]
    steps: int
    examples: int
    seconds: float


@dataclass(frozen=True)
class EvaluateRecord:
    """What `Trainer.evaluate` found over all samples.

    Attributes:
        accuracy: Share of correct labels; None where labels are numbers.
        mae: Mean absolute error; None where labels are classes.
    """

    loss: float
    examples: int
    accuracy: float | None
    mae: float | None


def choose_runtime() -> str:
    """The best of those that train and are installed.

    Raises:
        MissingExtra: None is.
    """
    for name, runtime in TRAINERS.items():
        if is_installed(runtime):
            return name
    raise MissingExtra(
        f"this Python has no runtime that trains, which are {' and '.join(TRAINERS)}",
        advice="Run: pip install 'edgeloop[edge]'",
    )


class Trainer:
    """One trainable model in one runtime. It keeps its weights between calls; not thread-safe.

    Attributes:
        batch: Samples of one step, static in the file.
        inputs: Names of the model's inputs.
        shapes: Sizes of each input without the batch.
        dtypes: Type of each input.
        classes: Labels are 0 <= y < classes; None where they are numbers (mean squared error).
        tells_classes: Each label is one class; not where it is a number, or the answer to one of several yes-or-no
            questions.
        weights: Shape of every weight by name, in `get_weights` order.
    """

    def __init__(self, model: bytes, runtime: str | None = None, threads: int = 1) -> None:
        """Load `model`, the bytes of a .tflite, with `threads` CPU threads.

        Raises:
            OptionsError: No runtime of that name.
            MissingExtra: The runtime is not installed.
            TargetError: The runtime refuses the file, or a signature is missing.
        """
        self.runtime = runtime or choose_runtime()
        interpreter = _interpreter(model, self.runtime, threads)
        found = sorted(interpreter.get_signature_list())
        missing = [name for name in SIGNATURES if name not in found]
        if missing:
            raise TargetError(
                f"the model has the signatures {found} and lacks {missing}",
                advice="Run: edgeloop convert MODEL --trainable.",
            )
        self._call = {name: interpreter.get_signature_runner(name) for name in SIGNATURES}
        details = self._call["train"].get_input_details()
        self._labels = details["y"]
        self.batch = int(self._labels["shape"][0])
        self._inputs = {name: d for name, d in details.items() if name not in ("y", "lr")}
        self.inputs = tuple(sorted(self._inputs))
        self.shapes = {name: tuple(int(n) for n in self._inputs[name]["shape"][1:]) for name in self.inputs}
        self.dtypes = {name: np.dtype(self._inputs[name]["dtype"]).name for name in self.inputs}
        (output,) = self._call["infer"].get_output_details().values()
        self.classes = _classes(self._labels, output)
        self._one_class = self.classes is not None and len(self._labels["shape"]) < len(output["shape"])
        self._one_class &= int(output["shape"][-1]) > 1
        self.tells_classes = self._one_class or (self.classes is not None and len(self._labels["shape"]) == 1)
        details = self._call["set_weights"].get_input_details()
        self.weights = {name: tuple(int(n) for n in details[name]["shape"]) for name in sorted(details)}

    def get_weights(self) -> dict[str, np.ndarray]:
        """Copies of the weights by name, batch-norm statistics included."""
        arrays = self._call["get_weights"](dummy=np.float32(0))
        return {name: np.array(arrays[name]) for name in self.weights}

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Replace every weight.

        Raises:
            DataError: A name is missing or unknown, a shape differs.
        """
        found = {name: np.shape(array) for name, array in weights.items()}
        if found != self.weights:
            wrong = sorted(n for n in {*found, *self.weights} if found.get(n) != self.weights.get(n))[0]
            raise DataError(
                f"weight {wrong} has shape {found.get(wrong)}, the model has {self.weights.get(wrong)}",
                advice="Pass the weights of this very model, by name.",
            )
        self._call["set_weights"](**{name: np.asarray(array, np.float32) for name, array in weights.items()})

    def train(
        self,
        inputs: Mapping[str, np.ndarray],
        y: np.ndarray,
        *,
        epochs: int = 1,
        lr: float = 0.05,
        seed: int | Sequence[int] = 0,
        correct: Correct | None = None,
    ) -> TrainRecord:
        """Steps of the file's optimizer over `inputs` {name: [N, ...]} and labels `y` [N, ...], shuffled each epoch.

        An epoch takes ceil(N / batch) steps. The last one is filled with the epoch's first samples, as often as it
        takes, so N may be smaller than a batch. `correct` changes the weights after each step; momentum and Adam begin
        anew each time, so it is for plain SGD.

        Raises:
            OptionsError: No epochs, or a learning rate that is no positive number.
            DataError: An empty shard, NaN, a wrong name or shape, a label out of range.
            DeviceError: The loss is no longer finite; names step and learning rate.
        """
        if epochs < 1 or not (math.isfinite(lr) and lr > 0):
            raise OptionsError(f"cannot train {epochs} epochs at learning rate {lr}", advice="Both must be above 0.")
        arrays, labels = self._checked(inputs, y)
        generator, step, losses, started = np.random.default_rng(seed), 0, [], time.perf_counter()
        weights: Mapping[str, np.ndarray] = {} if correct is None else self.get_weights()
        for _ in range(epochs):
            epoch = []
            for rows in _batches(generator.permutation(len(labels)), self.batch):
                feed = {name: array[rows] for name, array in arrays.items()}
                loss = float(self._call["train"](**feed, y=labels[rows], lr=np.float32(lr))["loss"])
                step += 1
                if not math.isfinite(loss):
                    raise DeviceError(
                        f"the loss is {loss} at step {step} with learning rate {lr:g}", advice="Lower the rate."
                    )
                epoch.append(loss)
                if correct is not None:
                    weights = correct(weights, self.get_weights())
                    self.set_weights(weights)
            losses.append(float(np.mean(epoch)))
        return TrainRecord(tuple(losses), step, len(labels), time.perf_counter() - started)

    def evaluate(self, inputs: Mapping[str, np.ndarray], y: np.ndarray) -> EvaluateRecord:
        """Loss and accuracy, or mean absolute error, of the weights as they are; changes nothing.

        The batch is static: the last one is filled with copies of its first sample, and their share is taken off.

        Raises:
            DataError: As `train`.
        """
        arrays, labels = self._checked(inputs, y)
        count, totals = len(labels), self._totals(arrays, labels, np.arange(len(labels)))
        loss, other = float(totals[0] / count), float(totals[1] / count)
        if self.classes is None:
            return EvaluateRecord(loss, count, None, other)
        return EvaluateRecord(loss, count, other / max(1, int(np.prod(labels.shape[1:]))), None)

    def correct_by_class(self, inputs: Mapping[str, np.ndarray], y: np.ndarray) -> np.ndarray:
        """How many labels of each class the weights as they are get right: int64 [classes]; changes nothing.

        Raises:
            DataError: As `train`.
            OptionsError: The model predicts numbers, or answers several questions with yes or no.
        """
        if self.classes is None or not self.tells_classes:
            raise OptionsError("this model has no classes to count", advice="Use evaluate.")
        arrays, labels = self._checked(inputs, y)
        if self._one_class:
            return self._largest_correct(arrays, labels, self.classes)
        # whether an answer means yes depends on the loss of the file, which `evaluate` knows
        by_class = [np.flatnonzero(labels == k) for k in range(self.classes)]
        return np.array([round(self._totals(arrays, labels, rows)[1]) for rows in by_class], np.int64)

    def _largest_correct(self, arrays: Mapping[str, np.ndarray], labels: np.ndarray, classes: int) -> np.ndarray:
        correct = np.zeros(classes, np.int64)
        for start in range(0, len(labels), self.batch):
            rows = np.arange(start, start + self.batch) % len(labels)
            (answers,) = self._call["infer"](**{name: array[rows] for name, array in arrays.items()}).values()
            part = labels[start : start + self.batch]
            right = answers[: len(part)].argmax(-1).reshape(part.shape) == part
            correct += np.bincount(part[right], minlength=classes)
        return correct

    def _totals(self, arrays: Mapping[str, np.ndarray], labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Over the samples `rows`: the sum of their losses, and of correct labels or of absolute errors."""
        totals, batch = np.zeros(2), self.batch
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            filled = np.full(batch, part[0])
            filled[: len(part)] = part
            totals += self._sums(arrays, labels, filled)
            if len(part) < batch:
                copies = self._sums(arrays, labels, np.full(batch, part[0]))
                totals -= copies * ((batch - len(part)) / batch)
        return totals

    def check(self, inputs: Mapping[str, np.ndarray], y: np.ndarray) -> None:
        """See that samples can be trained on.

        Raises:
            DataError: As `train`.
        """
        self._checked(inputs, y)

    def _sums(self, arrays: Mapping[str, np.ndarray], labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Over one batch: the sum of its samples' losses, and of correct labels or of absolute errors."""
        found = self._call["evaluate"](**{name: array[rows] for name, array in arrays.items()}, y=labels[rows])
        other = float(found["mae"]) * len(rows) if self.classes is None else float(found["correct"])
        return np.array([float(found["loss"]) * len(rows), other])

    def _checked(self, inputs: Mapping[str, np.ndarray], y: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        if sorted(inputs) != sorted(self._inputs):
            raise DataError(
                f"the shard has the inputs {sorted(inputs)}, the model takes {sorted(self._inputs)}",
                advice="Rename the arrays of the shard.",
            )
        y = np.asarray(y)
        if self.classes is None:
            kind, fits = "number", np.can_cast(y.dtype, np.float32, "same_kind")
        else:
            kind, fits = "integer", np.issubdtype(y.dtype, np.integer)
        one = tuple(int(n) for n in self._labels["shape"][1:])
        if not fits or y.ndim < 1 or y.shape[1:] != one or not y.size:
            expected = ", ".join(["N", *map(str, one)])
            raise DataError(
                f"labels are {y.dtype} of shape {y.shape}", advice=f"Expected at least one {kind} in [{expected}]."
            )
        if self.classes is not None and (y.min() < 0 or y.max() >= self.classes):
            raise DataError(
                f"labels run from {y.min()} to {y.max()}; the model has the classes 0 to {self.classes - 1}",
                advice="Number the classes from 0, as the model does.",
            )
        y = y.astype(self._labels["dtype"])
        if not np.isfinite(y).all():
            raise DataError("the labels hold NaN or Infinity in float32", advice="Clean the shard first.")
        return {name: self._input(name, array, len(y)) for name, array in inputs.items()}, y

    def _input(self, name: str, array: np.ndarray, n: int) -> np.ndarray:
        array, detail = np.asarray(array), self._inputs[name]
        expected = (n, *(int(d) for d in detail["shape"][1:]))
        if array.shape != expected:
            raise DataError(
                f"input {name} has shape {array.shape}, expected {expected} for {n} labels",
                advice="Give one sample for each label, each as large as the model's input.",
            )
        if not np.can_cast(array.dtype, detail["dtype"], "same_kind"):
            raise DataError(
                f"input {name} holds {array.dtype}, the model takes {np.dtype(detail['dtype'])}",
                advice="Convert the array of the shard.",
            )
        given, array = array, array.astype(detail["dtype"], copy=False)
        if np.issubdtype(array.dtype, np.integer) and not np.array_equal(array, given):
            raise DataError(
                f"input {name} runs from {given.min()} to {given.max()}, and the model takes {array.dtype}",
                advice="Number from 0, as the model does.",
            )
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise DataError(f"input {name} holds NaN or Infinity in float32", advice="Clean the shard first.")
        return array


def _classes(labels: Mapping[str, Any], output: Mapping[str, Any]) -> int | None:
    """By docs/trainable.md: float labels are numbers; one integer for several units is a class, else yes or no."""
    if labels["dtype"] != np.int32:
        return None
    units = int(output["shape"][-1])
    return units if units > 1 and len(labels["shape"]) < len(output["shape"]) else 2


def _batches(order: np.ndarray, batch: int) -> np.ndarray:
    """Row numbers [steps, batch]; `np.resize` repeats `order` from its start."""
    steps = -(-len(order) // batch)
    return np.resize(order, (steps, batch))


def _interpreter(model: bytes, runtime: str, threads: int) -> Any:
    if runtime not in TRAINERS:
        raise OptionsError(f"runtime {runtime!r} cannot train", advice=f"Choose one of: {', '.join(TRAINERS)}.")
    check_numpy(TRAINERS[runtime])
    try:
        interpreter_class = importlib.import_module(TRAINERS[runtime].interpreter).Interpreter
    except ImportError as e:
        raise MissingExtra(f"{runtime} does not load here: {e}", advice="Run: pip install 'edgeloop[edge]'") from e
    try:
        return interpreter_class(model_content=model, num_threads=threads)
    except (ValueError, RuntimeError) as e:
        raise TargetError(
            f"{runtime} refuses the model: {one_line(e)}", advice="Choose another runtime, or convert it again."
        ) from e
