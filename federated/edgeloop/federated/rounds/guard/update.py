"""A reply of a device in, either its update or why it must not count out. It may come from a device that is hostile."""

from __future__ import annotations

import enum
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Message

from edgeloop.errors import EdgeloopError, error_from_json, one_line
from edgeloop.federated.device.metrics import DEVICE, ERROR, EXAMPLES, LOSS, SECONDS
from edgeloop.federated.rounds.guard.options import GuardOptions

METRICS = {EXAMPLES, LOSS, SECONDS, DEVICE}
LARGEST = 1e30  # of a loss and of seconds: sums over all examples of all devices stay finite
DEVICES = 1 << 31  # labels of devices are below it: JSON readers keep such a number
HEADER_BYTES = 4096  # of an .npy file, at most: NumPy writes 128 for a few dimensions


class Reason(enum.StrEnum):
    """Why a reply does not count."""

    FAILED = "failed"  # the training failed there, or Flower reached nobody
    RECORDS = "records"  # not one record of arrays and one of metrics
    METRICS = "metrics"  # one is missing, unknown, or no finite number
    NAMES = "names"
    SHAPE = "shape"  # or dtype
    NOT_FINITE = "not-finite"
    NORM = "norm"
    EXAMPLES = "examples"
    REPEATED = "repeated"  # a second reply of the node in the round
    OTHER_ROUND = "other-round"  # it answers no message of this round: another base model
    REPLAY = "replay"  # the same arrays as in an earlier round


@dataclass(frozen=True)
class Refusal:
    """`error`: what the device itself said, where it failed."""

    reason: Reason
    detail: str
    error: EdgeloopError | None = None


@dataclass(frozen=True)
class Update:
    """A reply that counts.

    Attributes:
        norm: The L2 norm of what the arrays add to the weights.
        sha256: Of the arrays.
        arrays: float32 by name.
    """

    node: int
    device: int
    examples: int
    train_loss: float
    seconds: float
    norm: float
    sha256: str
    arrays: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Base:
    """The weights that a round starts from, and their L2 norm."""

    arrays: Mapping[str, np.ndarray]
    norm: float


def base_of(arrays: Mapping[str, np.ndarray]) -> Base:
    return Base(arrays, math.sqrt(math.fsum(_squares(array) for array in arrays.values())))


def judge(reply: Message, base: Base, options: GuardOptions) -> Update | Refusal:
    """The update of a reply; a refusal where it would spoil the mean."""
    if reply.has_error():
        reason = one_line(reply.error.reason or f"Flower error {reply.error.code}")
        return Refusal(Reason.FAILED, f"a device failed: {reason}")
    content = reply.content
    if list(content) == [ERROR]:
        error = _error_of(content.config_records.get(ERROR))
        return Refusal(Reason.FAILED, error.clause, error)
    if list(content.array_records) != ["arrays"] or list(content.metric_records) != ["metrics"] or len(content) != 2:
        return Refusal(Reason.RECORDS, f"it holds {one_line(sorted(content), 100)}, expected arrays and metrics")
    metrics: dict[str, Any] = dict(content.metric_records["metrics"])
    wrong = _wrong_metrics(metrics, options)
    if wrong is not None:
        return wrong
    sent: dict[str, Any] = dict(content.array_records["arrays"])
    wrong = _wrong_names(sent, base) or _wrong_sizes(sent, base)  # before NumPy makes room for what a header says
    if wrong is not None:
        return wrong
    try:
        arrays = {name: array.numpy() for name, array in sent.items()}
    except Exception as e:  # a hostile header raises what it likes in NumPy: MemoryError, tokenize.TokenError
        return Refusal(Reason.RECORDS, f"an array cannot be read: {one_line(f'{type(e).__name__}: {e}', 100)}")
    wrong = _wrong_arrays(arrays, base)
    if wrong is not None:
        return wrong
    norm = math.sqrt(math.fsum(_squares(arrays[name], array) for name, array in base.arrays.items()))
    limit = min(options.max_norm or math.inf, options.max_norm_ratio * max(base.norm, 1.0))
    if not norm <= limit:
        return Refusal(Reason.NORM, f"it adds {norm:.4g} to the weights (L2), and {limit:.4g} is allowed")
    node, loss = reply.metadata.src_node_id, float(metrics[LOSS])
    seconds, digest = float(metrics[SECONDS]), sha256_of(arrays)
    return Update(node, metrics[DEVICE], metrics[EXAMPLES], loss, seconds, norm, digest, arrays)


def _wrong_metrics(metrics: Mapping[str, Any], options: GuardOptions) -> Refusal | None:
    if set(metrics) != METRICS:
        odd = sorted(set(metrics) ^ METRICS)[0]
        how = "has an unknown" if odd in metrics else "lacks the"
        return Refusal(Reason.METRICS, f"it {how} metric {one_line(odd, 40)!r}")
    examples = metrics[EXAMPLES]
    if type(examples) is not int or examples < 1:
        return Refusal(Reason.EXAMPLES, f"it reports {one_line(examples, 40)} examples, expected 1 or more")
    if examples > options.max_examples:
        return Refusal(Reason.EXAMPLES, f"it reports {examples} examples, and {options.max_examples} are allowed")
    if type(metrics[DEVICE]) is not int or not 0 <= metrics[DEVICE] < DEVICES:
        found = one_line(metrics[DEVICE], 40)
        return Refusal(Reason.METRICS, f"its device is {found}, expected a whole number of 0 to {DEVICES - 1}")
    for name in (LOSS, SECONDS):
        if not isinstance(metrics[name], (int, float)) or not abs(metrics[name]) <= LARGEST:
            found = one_line(metrics[name], 40)
            return Refusal(Reason.METRICS, f"its {name} is {found}, expected a number of at most {LARGEST:g}")
    return None


def _wrong_names(sent: Mapping[str, Any], base: Base) -> Refusal | None:
    if set(sent) == set(base.arrays):
        return None
    odd = sorted(set(sent) ^ set(base.arrays))[0]
    how = "has an unknown" if odd in sent else "lacks the"
    return Refusal(Reason.NAMES, f"it {how} weight {one_line(odd, 40)!r}")


def _wrong_sizes(sent: Mapping[str, Any], base: Base) -> Refusal | None:
    """What Flower's arrays say of themselves, and how long they are."""
    for name, array in sent.items():
        expected = base.arrays[name]
        if array.dtype != "float32" or array.shape != expected.shape:
            found = one_line(f"{array.dtype} {array.shape}", 80)
            return Refusal(Reason.SHAPE, f"{name} is {found}, expected float32 {expected.shape}")
        if not 0 <= len(array.data) - expected.nbytes <= HEADER_BYTES:
            return Refusal(Reason.SHAPE, f"{name} has {len(array.data)} bytes, expected {expected.nbytes} and a header")
    return None


def _wrong_arrays(arrays: Mapping[str, np.ndarray], base: Base) -> Refusal | None:
    for name, array in arrays.items():
        shape = base.arrays[name].shape
        if array.shape != shape or array.dtype != np.float32:
            return Refusal(Reason.SHAPE, f"{name} is {array.dtype} {array.shape}, expected float32 {shape}")
        if not np.isfinite(array).all():
            return Refusal(Reason.NOT_FINITE, f"{name} holds NaN or infinity")
    return None


def _squares(array: np.ndarray, minus: np.ndarray | None = None) -> float:
    """Sum of squares in float64, 2^16 elements at a time."""
    flat, total = array.reshape(-1), 0.0
    other = None if minus is None else minus.reshape(-1)
    for start in range(0, flat.size, 1 << 16):
        part = flat[start : start + (1 << 16)].astype(np.float64)
        if other is not None:
            part -= other[start : start + (1 << 16)]
        total += float(part @ part)
    return total


def _error_of(record: Mapping[str, Any] | None) -> EdgeloopError:
    """What failed on the device, as the class it was there."""
    fields = dict(record or {})
    try:
        document = json.loads(fields.get(ERROR, ""))
    except (ValueError, TypeError, RecursionError):
        document = {"type": "a reply that is not JSON"}
    return error_from_json(document, where=f"device {one_line(fields.get(DEVICE, ''), 20)}", doing="the training")


def sha256_of(arrays: Mapping[str, np.ndarray]) -> str:
    """Of names, shapes and bytes."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {array.dtype} {array.shape}\n".encode())
        found.update(array.data)
    return found.hexdigest()
