"""What the Edge TPU compiler would do with a graph: which operators it maps, how much weight stays on the chip.

The compiler takes one partition: an operator that needs the result of a mapped one through another that is not mapped
stays on the CPU, whatever it is. Operators before the partition (a cast and a quantization of float inputs) do not end
it: seen in google-coral/test_data, movenet_single_pose_lightning_ptq.

Source: https://coral.ai/docs/edgetpu/compiler/#parameter-data-caching; the rules have theirs in edgetpu_rules.py
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgeloop.files.arena import arena_bytes
from edgeloop.files.graph_facts import GraphFacts, Step
from edgeloop.files.targets.edgetpu_kinds import HELD_OUT, model_kind
from edgeloop.files.targets.edgetpu_rules import EVERY, RULES, EdgeTpuReason
from edgeloop.files.targets.operator_refusal import OperatorRefusal, rows

SRAM_BYTES = 8 << 20
COMPILED = "edgetpu-custom-op"  # of a model that the compiler already wrote
CERTAIN = frozenset({EdgeTpuReason.COMPILED, EdgeTpuReason.DTYPE})  # whatever the kind of the model


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """`refusals` has one entry an operator, None where it is mapped."""

    refusals: tuple[OperatorRefusal | None, ...]
    on_chip_bytes: int
    off_chip_bytes: int
    reserved_bytes: int


def predict(graph: GraphFacts) -> Prediction:
    """What the compiler would do with the graph."""
    refusals = partition(graph)
    mapped = [step for step, refusal in zip(graph.steps, refusals, strict=True) if refusal is None]
    constants = {i for step in mapped for i in step.inputs if graph.values[i].constant_bytes}
    weights = sum(graph.values[i].constant_bytes for i in constants)
    # the documentation says the executable comes first; the activations do too: docs/targets.md compares with real logs
    reserved = arena_bytes(graph, tuple(mapped)) or 0
    on_chip = min(weights, max(0, SRAM_BYTES - reserved))
    return Prediction(
        refusals=refusals, on_chip_bytes=on_chip, off_chip_bytes=weights - on_chip, reserved_bytes=reserved
    )


def partition(graph: GraphFacts) -> tuple[OperatorRefusal | None, ...]:
    """For each operator None, or why it stays on the CPU."""
    if any(step.op == COMPILED for step in graph.steps):
        left = OperatorRefusal(why=EdgeTpuReason.COMPILED, found="the compiler left it on the CPU")
        return tuple(None if step.op == COMPILED else left for step in graph.steps)
    maker = {output: index for index, step in enumerate(graph.steps) for output in step.outputs}
    refusals: list[OperatorRefusal | None] = []
    behind: set[int] = set()  # operators on the CPU that need a result of the partition
    for index, step in enumerate(graph.steps):
        before = {maker[i] for i in step.inputs if maker.get(i, index) < index}
        ended = behind & before
        refusal = _after(graph, min(ended)) if ended else _refuse(graph, step)
        if refusal and (ended or any(refusals[i] is None for i in before)):
            behind.add(index)
        refusals.append(refusal)
    return tuple(refusals)


def report(graph: GraphFacts) -> dict[str, Any]:
    """What `--json` prints of one graph."""
    found = predict(graph)
    mapped = [index for index, refusal in enumerate(found.refusals) if refusal is None]
    made = rows(list(zip(graph.steps, found.refusals, strict=True)), "mapped")
    kind = model_kind(graph)
    score = HELD_OUT[kind]
    for row, refusal in zip(made["ops"], found.refusals, strict=True):
        row["uncertain"] = not score.reliable and not (refusal and refusal.why in CERTAIN)
    return {
        **made,
        "kind": kind.value,
        "held_out": asdict(score),
        "uncertain": sum(row["uncertain"] for row in made["ops"]),
        "partition": {"first": mapped[0], "last": mapped[-1]} if mapped else None,
        "on_chip_bytes": found.on_chip_bytes,
        "off_chip_bytes": found.off_chip_bytes,
        "reserved_bytes": found.reserved_bytes,
        "compiled": any(step.op == COMPILED for step in graph.steps),
    }


def _refuse(graph: GraphFacts, step: Step) -> OperatorRefusal | None:
    if step.custom or step.op not in RULES:
        return OperatorRefusal(why=EdgeTpuReason.OPERATOR, found=f"the Edge TPU has no {step.op}")
    return next((found for rule in (*EVERY, *RULES[step.op]) if (found := rule(graph, step))), None)


def _after(graph: GraphFacts, index: int) -> OperatorRefusal:
    return OperatorRefusal(
        why=EdgeTpuReason.AFTER, found=f"it needs the result of {index} {graph.steps[index].op}, on the CPU"
    )
