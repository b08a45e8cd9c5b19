"""Why a reply does not count."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from edgeloop.errors import EdgeloopError


class Reason(enum.StrEnum):
    """Why a reply does not count."""

    FAILED = "failed"  # the training failed there, or Flower reached nobody
    RECORDS = "records"  # not one record of arrays, or of a compressed update, and one of metrics
    COMPRESSION = "compression"  # the compressed update is damaged, or not what was asked for
    METRICS = "metrics"  # one is missing, unknown, or no finite number
    NAMES = "names"
    SHAPE = "shape"  # or dtype
    NOT_FINITE = "not-finite"
    NORM = "norm"
    EXAMPLES = "examples"
    REPEATED = "repeated"  # a second reply of the node in the round
    OTHER_ROUND = "other-round"  # it answers no message of this round: another base model
    REPLAY = "replay"  # the arrays of an earlier round again, in a reply that may be a copy
    STALE = "stale"  # of buffered rounds: its weights are too old


@dataclass(frozen=True)
class Refusal:
    """`error`: what the device itself said, where it failed."""

    reason: Reason
    detail: str
    error: EdgeloopError | None = None
