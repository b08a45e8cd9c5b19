"""One attempt at a round: messages out, good replies in, until there are enough or waiting has no use."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from flwr.app import Message

from edgeloop.errors import DataError, EdgeloopError, MissingExtra, ModelError, OptionsError, TargetError
from edgeloop.federated.rounds.aggregation.collect import Collector
from edgeloop.federated.rounds.guard.guarded_grid import GuardedGrid
from edgeloop.federated.rounds.guard.update import Update
from edgeloop.federated.rounds.plan import RoundPlan

POLL_S = 0.1  # Flower's own send_and_receive looks every 3 s
AT_ONCE = 8  # replies that are pulled together: each is a model in memory
LASTING = (DataError, ModelError, OptionsError, TargetError, MissingExtra)  # asking the device again changes nothing


def collect_round(
    grid: GuardedGrid,
    messages: Iterable[Message],
    plan: RoundPlan,
    collector: Collector,
    deadline_s: float,
    counted: Sequence[Update] = (),
) -> list[Update]:
    """Send, and hand each good reply to the collector, until `target` have come, none can come, or time is up.

    Later replies are never pulled. The arrays of the updates are dropped. `counted` are those that the collector has.

    Raises:
        EdgeloopError: Too few devices are left that could still answer well, and one failed of a cause that lasts: of
            that cause.
    """
    waiting, updates = list(grid.push_messages(messages)), list(counted)
    deadline = time.monotonic() + deadline_s
    while waiting and len(updates) < plan.target and len(updates) + len(waiting) >= plan.needed:
        came, asked = 0, list(waiting)
        for start in range(0, len(asked), AT_ONCE):
            part = asked[start : start + AT_ONCE]
            for reply in grid.pull_messages(part):
                came += 1
                if reply.metadata.reply_to_message_id in part:
                    waiting = [id for id in waiting if id != reply.metadata.reply_to_message_id]
                update = grid.update_of(reply)
                if update is not None and len(updates) < plan.target:
                    collector.add(reply, update)
                    updates.append(without_arrays(update))
            if len(updates) >= plan.target:
                return updates
        if time.monotonic() > deadline:
            break
        if waiting and not came:
            time.sleep(POLL_S)
    if len(updates) < plan.needed:
        _raise_what_lasts(grid, plan, len(updates) + len(waiting))
    return updates


def _raise_what_lasts(grid: GuardedGrid, plan: RoundPlan, possible: int) -> None:
    errors: list[EdgeloopError] = [refusal.error for _, refusal in grid.refused if refusal.error is not None]
    lasting = [error for error in errors if isinstance(error, LASTING)]
    if lasting and possible < plan.needed:
        raise lasting[0]


def without_arrays(update: Update) -> Update:
    return replace(update, arrays={})
