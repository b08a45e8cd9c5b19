"""A reply of a device in, either its update or why it must not count out. It may come from a device that is hostile."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Message

from edgeloop.errors import EdgeloopError, error_from_json, one_line
from edgeloop.federated.device.compression.codec import Codec
from edgeloop.federated.device.compression.upload import BASE, TRAINED_FROM, UPDATE
from edgeloop.federated.device.metrics import DEVICE, ERROR, EXAMPLES, LOSS, SECONDS
from edgeloop.federated.device.statistics import STATISTICS
from edgeloop.federated.rounds.compression_options import CompressionOptions
from edgeloop.federated.rounds.guard.options import GuardOptions
from edgeloop.federated.rounds.guard.refusal import Reason, Refusal
from edgeloop.federated.rounds.guard.sent_weights import (
    Base,
    squares,
    weights_of_arrays,
    weights_of_update,
    wrong_arrays,
)

METRICS = {EXAMPLES, LOSS, SECONDS, DEVICE}
LARGEST = 1e30  # of a loss and of seconds: sums over all examples of all devices stay finite
DEVICES = 1 << 31  # labels of devices are below it: JSON readers keep such a number


@dataclass(frozen=True)
class Update:
    """A reply that counts.

    Attributes:
        norm: The L2 norm of what the arrays add to the weights.
        sha256: Of the arrays, or of the compressed update.
        arrays: float32 by name.
        codec: How it travelled.
        upload_bytes: Of what travelled of the arrays, without the names and hashes around it.
        base: Hash of the weights that it is compared with, those of the round.
        fresh: The reply names them beside weights as they are: it is no copy of an earlier reply.
    """

    node: int
    device: int
    examples: int
    train_loss: float
    seconds: float
    norm: float
    sha256: str
    arrays: Mapping[str, np.ndarray]
    codec: Codec = Codec.NONE
    upload_bytes: int = 0
    base: str = ""
    fresh: bool = False


def judge(reply: Message, base: Base, options: GuardOptions, compression: CompressionOptions) -> Update | Refusal:
    """The update of a reply; a refusal where it would spoil the mean."""
    if reply.has_error():
        reason = one_line(reply.error.reason or f"Flower error {reply.error.code}")
        return Refusal(Reason.FAILED, f"a device failed: {reason}")
    content = reply.content
    if list(content) == [ERROR]:
        error = _error_of(content.config_records.get(ERROR))
        return Refusal(Reason.FAILED, error.clause, error)
    compressed = list(content.config_records) == [UPDATE] and not content.array_records
    named = content.config_records.get(TRAINED_FROM)
    plain = list(content.array_records) == ["arrays"] and set(content.config_records) <= {TRAINED_FROM}
    if not (compressed or plain) or set(content.metric_records) - {STATISTICS} != {"metrics"}:
        return Refusal(Reason.RECORDS, f"it holds {one_line(sorted(content), 100)}, expected arrays and metrics")
    metrics: dict[str, Any] = dict(content.metric_records["metrics"])
    wrong = _wrong_metrics(metrics, options)
    if wrong is not None:
        return wrong
    if named is not None and named.get(BASE) != base.sha256:
        return Refusal(Reason.OTHER_ROUND, "it was trained from other weights than those of the round")
    if compressed:
        sent = weights_of_update(dict(content.config_records[UPDATE]), base, compression)
    else:
        sent = weights_of_arrays(dict(content.array_records["arrays"]), base)
    if isinstance(sent, Refusal):
        return sent
    wrong = wrong_arrays(sent.arrays, base)
    if wrong is not None:
        return wrong
    norm = math.sqrt(math.fsum(squares(sent.arrays[name], array) for name, array in base.arrays.items()))
    limit = min(options.max_norm or math.inf, options.max_norm_ratio * max(base.norm, 1.0))
    if not norm <= limit:
        return Refusal(Reason.NORM, f"it adds {norm:.4g} to the weights (L2), and {limit:.4g} is allowed")
    return Update(
        node=reply.metadata.src_node_id,
        device=metrics[DEVICE],
        examples=metrics[EXAMPLES],
        train_loss=float(metrics[LOSS]),
        seconds=float(metrics[SECONDS]),
        norm=norm,
        sha256=sent.sha256,
        arrays=sent.arrays,
        codec=sent.codec,
        upload_bytes=sent.size_bytes,
        base=base.sha256,
        fresh=named is not None,
    )


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


def _error_of(record: Mapping[str, Any] | None) -> EdgeloopError:
    """What failed on the device, as the class it was there."""
    fields = dict(record or {})
    try:
        document = json.loads(fields.get(ERROR, ""))
    except (ValueError, TypeError, RecursionError):
        document = {"type": "a reply that is not JSON"}
    return error_from_json(document, where=f"device {one_line(fields.get(DEVICE, ''), 20)}", doing="the training")
