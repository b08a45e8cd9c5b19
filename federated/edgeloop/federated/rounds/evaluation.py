"""How good each round's weights are, on data of the server: answers of the trainable variant in a runtime of its own.

`evaluation.json` is {"format": "edgeloop-evaluation/1", "metric", "data", "rounds": [{round, accuracy, ...}], "best"};
round 0 is the weights before the first round. A classifier's rows also have `recall`, by class: the share of its
samples that is recognized, null where there is none. No TensorFlow is loaded.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from edgeloop.atomic import write_file
from edgeloop.bundle import Bundle
from edgeloop.errors import DataError
from edgeloop.federated.device.data.npz import read_shard
from edgeloop.federated.rounds.records import RoundRecord, weights_bytes
from edgeloop.federated.rounds.shards import CheckedShard, check_shards
from edgeloop.federated.rounds.watch import OnRound
from edgeloop.runtime.client import RuntimeClient
from edgeloop.runtime.device import Device
from edgeloop.runtime.initial_weights import trainer_of
from edgeloop.runtime.parity.metrics import Scores, class_numbers, scores, task_of

FORMAT = "edgeloop-evaluation/1"
EVALUATION, BEST, RECALL = "evaluation.json", "best.npz", "recall"
RISES = {"accuracy": True, "auc": True, "rmse": False}


@dataclass(frozen=True)
class Evaluation:
    """What the rounds until now were worth.

    Attributes:
        metric: `accuracy`, `auc` or `rmse`: the one that decides.
        scores: By round; 0 is before the first one.
    """

    metric: str
    scores: Mapping[int, Scores]

    def value(self, number: int) -> float:
        return float(getattr(self.scores[number], self.metric))

    @property
    def best(self) -> int:
        """The round with the best value, the earliest of equal ones."""
        sign = 1 if RISES[self.metric] else -1
        return max(self.scores, key=lambda number: (sign * self.value(number), -number))

    def told(self) -> str:
        """One sentence on the best round, and whether federation made the model worse."""
        last, first = max(self.scores), f"{self.metric} {self.value(0):.4g} before the first round"
        if self.best == 0:
            return f"Federation made the model worse: {first}, {self.value(last):.4g} after round {last}."
        after = "" if self.best == last else f", {self.value(last):.4g} after the last"
        return f"Round {self.best} is the best: {self.metric} {self.value(self.best):.4g}; {first}{after}."


def read_evaluation(out: Path) -> Evaluation:
    """What evaluation.json in a run's folder says."""
    document = json.loads((out / EVALUATION).read_bytes())
    rows = [{key: value for key, value in row.items() if key != RECALL} for row in document["rounds"]]
    return Evaluation(document["metric"], {row.pop("round"): Scores(**row) for row in rows})


@dataclass
class Evaluator:
    """Measures weights on one data set and keeps the best ones in `out`."""

    out: Path
    client: RuntimeClient
    batch: int
    inputs: Mapping[str, np.ndarray]
    labels: np.ndarray
    data: CheckedShard
    found: dict[int, Scores] = field(default_factory=dict)
    recalls: dict[int, list[float | None]] = field(default_factory=dict)

    def measure(self, number: int, weights: Mapping[str, np.ndarray]) -> Evaluation:
        """Write and return what round `number` and those before it are worth.

        Raises:
            DataError: The labels do not fit the answers.
            TargetError, DeviceError: The runtime fails.
        """
        self.client.run(dict(weights), "set_weights")
        answers = self._answers()
        task = task_of(answers, self.labels)
        score = None if task is None else scores(task, answers, self.labels)
        if score is None or score.metric is None:
            raise DataError(
                f"the labels of {self.data.path} are {self.labels.dtype} {self.labels.shape}, and the model answers "
                f"{answers.shape}",
                advice="Give one label for each sample, of the kind that the model was trained with.",
            )
        self.found[number] = score
        if task is not None and task.classifies:
            self.recalls[number] = recall_by_class(answers, self.labels)
        evaluation = Evaluation(self.found[0].metric or score.metric, dict(self.found))
        if evaluation.best == number:
            write_file(self.out / BEST, weights_bytes(weights))
        write_file(self.out / EVALUATION, self._document(evaluation))
        return evaluation

    def before(self, listener: OnRound) -> OnRound:
        """A listener that measures each round, then tells `listener`."""

        def measured(record: RoundRecord, weights: Mapping[str, np.ndarray]) -> None:
            self.measure(record.round, weights)
            listener(record, weights)

        return measured

    def _answers(self) -> np.ndarray:
        """Of all samples; the last batch is filled with the first samples."""
        parts, count = [], len(self.labels)
        for start in range(0, count, self.batch):
            rows = np.arange(start, start + self.batch) % count
            outputs = self.client.run({name: array[rows] for name, array in self.inputs.items()}, "infer").outputs
            (answer,) = outputs.values()
            parts.append(answer[: count - start])
        return np.concatenate(parts)

    def _document(self, evaluation: Evaluation) -> bytes:
        rows = [
            {
                "round": number,
                **{k: v for k, v in asdict(score).items() if v is not None},
                **({RECALL: self.recalls[number]} if number in self.recalls else {}),
            }
            for number, score in sorted(evaluation.scores.items())
        ]
        document = {
            "format": FORMAT,
            "metric": evaluation.metric,
            "data": {"file": self.data.path.name, "samples": self.data.examples, "sha256": self.data.sha256},
            "rounds": rows,
            "best": evaluation.best,
        }
        return json.dumps(document, indent=1).encode() + b"\n"


def recall_by_class(answers: np.ndarray, labels: np.ndarray) -> list[float | None]:
    """Of each class the share of its samples whose largest answer [..., classes] is its own; None: it has no sample."""
    classes = answers.shape[-1]
    y = class_numbers(answers, labels).reshape(-1)
    right = answers.reshape(-1, classes).argmax(-1) == y
    return [float(right[y == k].mean()) if (y == k).any() else None for k in range(classes)]


@contextlib.contextmanager
def evaluator(bundle: Bundle, model: Path, data: Path, device: Device, out: Path) -> Iterator[Evaluator]:
    """An evaluator whose runtime lives as long as the block.

    Raises:
        DataError: The data does not fit the model.
        TargetError, DeviceError: No runtime of the device loads the model.
    """
    (checked,) = check_shards([data], bundle, "evaluation data")
    with trainer_of(model, device) as (client, prepared):
        specs = (prepared.signatures or {})["infer"]["inputs"]
        inputs, labels = read_shard(data, sorted(specs))
        arrays = {name: np.asarray(inputs[name]).astype(spec["dtype"]) for name, spec in specs.items()}
        batch = next(iter(specs.values()))["shape"][0] or 1
        yield Evaluator(out, client, int(batch), arrays, labels, checked)
