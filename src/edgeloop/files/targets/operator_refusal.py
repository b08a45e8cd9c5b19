"""Why a target does not run an operator, and the JSON rows of all operators."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeloop.files.graph_facts import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRefusal:
    """`why` is a member of the target's own Reason, whose value is what to do about it; `found` has the numbers."""

    why: enum.Enum
    found: str


def rows(steps: Sequence[tuple[Step, OperatorRefusal | None]], accepted: str) -> dict[str, Any]:
    """`ops` for `--json`, and how many are `accepted`, the word of that target; each step with why it is refused."""
    return {
        "ops": [
            {
                "index": index,
                "op": step.op,
                accepted: refusal is None,
                "reason": None if refusal is None else refusal.found,
                "kind": None if refusal is None else refusal.why.name.lower(),
                "advice": None if refusal is None else refusal.why.value,
            }
            for index, (step, refusal) in enumerate(steps)
        ],
        accepted: sum(refusal is None for _, refusal in steps),
        "total": len(steps),
    }
