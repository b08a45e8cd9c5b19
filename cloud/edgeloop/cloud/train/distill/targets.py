"""What teachers answer in, soft targets out: the mean of their softened probabilities.

Source: Hinton, Vinyals and Dean 2015, Distilling the Knowledge in a Neural Network, https://arxiv.org/abs/1503.02531,
section 2: q_i = exp(z_i / T) / sum_j exp(z_j / T).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeloop.errors import DataError

LEAST = 1e-7  # what a probability of 0 counts as, unless the teacher gives a smaller one
SUMS_TO_ONE = 1e-2  # probabilities of an int8 model are steps of 1/256


def logits_of(outputs: np.ndarray) -> np.ndarray:
    """Logits [n, classes], float64, up to a number that is the same for all classes of a row.

    Outputs that are probabilities (0 or more, rows that sum to 1) become their logarithms, whose softmax they are. A
    teacher that is sure of an example tells wrong classes apart by probabilities far below 1e-7: these are kept.

    Raises:
        DataError: Not one row of at least two numbers for each sample, or numbers that are not finite.
    """
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise DataError(
            f"the teacher answers with the shape {list(outputs.shape)}",
            advice="Distillation takes classifiers: [samples, classes], with at least two classes.",
        )
    values = np.asarray(outputs, np.float64)
    if not np.isfinite(values).all():
        raise DataError("the teacher answers with NaN or infinity", advice="Choose another teacher.")
    probabilities = (values >= 0).all() and np.abs(values.sum(1) - 1).max() <= SUMS_TO_ONE
    return np.log(np.maximum(values, min(LEAST, values[values > 0].min()))) if probabilities else values


def soft_targets(teachers: Sequence[np.ndarray], temperature: float) -> np.ndarray:
    """The mean over the teachers of softmax(logits / temperature), float32 [n, classes].

    Args:
        teachers: The outputs of each, logits or probabilities [n, classes].

    Raises:
        DataError: Teachers that know different numbers of classes.
    """
    classes = {outputs.shape[-1] for outputs in teachers}
    if len(classes) > 1:
        raise DataError(
            f"the teachers know {' and '.join(map(str, sorted(classes)))} classes",
            advice="Choose teachers of the same classes.",
        )
    return np.mean([softmax(logits_of(outputs) / temperature) for outputs in teachers], 0).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
