"""How much memory a graph's activations need, planned as TensorFlow Lite Micro does.

Its GreedyMemoryPlanner places tensors from the largest down, each into the first gap between those that live at the
same time. What is computed here is the "head" of the arena; the "tail" is in cortex_m.py.

Sources
    planner    https://github.com/tensorflow/tflite-micro (lite/micro/memory_planner/greedy_memory_planner.cc)
    lifetimes  the same, micro_allocation_info.cc: from the operator that writes a tensor to the last that reads it; a
               graph's inputs from its start, its outputs to its end
    paper      Pisarchyk and Lee, Efficient Memory Management for Deep Neural Net Inference, 2020 (greedy by size)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeloop.files.graph_facts import GraphFacts, Step

ALIGNMENT = 16  # MicroArenaBufferAlignment()
# operators that run other graphs, and the options that name them
CALLS = {
    "IF": ("then_subgraph_index", "else_subgraph_index"),
    "WHILE": ("cond_subgraph_index", "body_subgraph_index"),
    "CALL_ONCE": ("init_subgraph_index",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """A tensor that is written by the operator `first` and read for the last time by `last`."""

    size_bytes: int
    first: int
    last: int


def plan(buffers: list[Buffer]) -> tuple[list[int], int]:
    """Where each buffer begins, in their order, and how much all of them need.

    Of buffers of one size the later comes first, as the planner's sort from the tail leaves them.
    """
    order = sorted(range(len(buffers)), key=lambda i: (-buffers[i].size_bytes, -i))
    offsets = [0] * len(buffers)
    placed: list[int] = []
    for i in order:
        wanted, start = buffers[i], 0
        for other in sorted(placed, key=lambda j: offsets[j]):
            there = buffers[other]
            if there.first > wanted.last or wanted.first > there.last:
                continue
            if offsets[other] - start >= wanted.size_bytes:
                break
            start = max(start, offsets[other] + there.size_bytes)
        offsets[i] = start
        placed.append(i)
    return offsets, max((offsets[i] + buffers[i].size_bytes for i in placed), default=0)


def lifetimes(graph: GraphFacts, steps: tuple[Step, ...], graphs: Sequence[GraphFacts] = ()) -> list[Buffer] | None:
    """The tensors that `steps` compute with, constants and variables aside; None where a size is not known.

    The graph's inputs are written at time 0, the results of the first step at time 1. `graphs` are all of the file:
    those that IF, WHILE and CALL_ONCE call are planned too, each within the time of its step.

    Raises:
        ValueError: A graph calls itself, or one that the file does not have.
    """
    spans: dict[tuple[int, int], Buffer] = {}
    known = _plan_times(graph, steps, graphs, 0, spans, (id(graph),)) is not None
    return [spans[key] for key in sorted(spans)] if known else None


def _plan_times(
    graph: GraphFacts,
    steps: tuple[Step, ...],
    graphs: Sequence[GraphFacts],
    start: int,
    spans: dict[tuple[int, int], Buffer],
    callers: tuple[int, ...],
) -> int | None:
    """Add the graph's buffers to `spans`, by the number of their graph and tensor; the time of its last step. None: a
    size is not known."""
    first = dict.fromkeys(graph.inputs, start)
    last = dict.fromkeys(graph.inputs, start)
    time = start
    for step in steps:
        time += 1
        for i in step.outputs:
            first[i] = time
        for number, called in enumerate(_called(step, graphs)):
            if id(called) in callers:
                raise ValueError(f"{step.op} calls the graph that it is in")
            time += number > 0
            ended = _plan_times(called, called.steps, graphs, time, spans, (*callers, id(called)))
            if ended is None:
                return None
            time = ended
        for i in (*step.inputs, *step.outputs):
            first.setdefault(i, start)  # written by an operator that is none of the steps
            last[i] = time
    last |= {i: time for i in graph.outputs if i in first}
    number = next((n for n, known in enumerate(graphs) if known is graph), 0)
    for i in sorted(first):
        if graph.values[i].constant_bytes or graph.values[i].variable:
            continue
        size = graph.values[i].bytes
        if size is None:
            return None
        if size:
            aligned = -(-size // ALIGNMENT) * ALIGNMENT
            before = spans.get((number, i))  # of a graph that two steps call
            begin = first[i] if before is None else before.first
            spans[number, i] = Buffer(size_bytes=aligned, first=begin, last=last[i])
    return time


def _called(step: Step, graphs: Sequence[GraphFacts]) -> list[GraphFacts]:
    """The graphs that a step of control flow calls, in the order of its options."""
    if not graphs or step.custom:
        return []
    numbers = [step.options.get(name, 0) for name in CALLS.get(step.op, ())]
    if any(not 0 <= number < len(graphs) for number in numbers):
        raise ValueError(f"{step.op} calls a graph that the file does not have")
    return [graphs[number] for number in numbers]


def run_with(graphs: Sequence[GraphFacts]) -> list[GraphFacts]:
    """The first graph and those that its control flow calls, each once, in the order of the file. Others of a file are
    other signatures."""
    found, left = {0}, [graphs[0]]
    while left:
        for called in (each for step in left.pop().steps for each in _called(step, graphs)):
            number = next(n for n, known in enumerate(graphs) if known is called)
            if number not in found:
                found.add(number)
                left.append(called)
    return [graphs[number] for number in sorted(found)]


def arena_bytes(graph: GraphFacts, steps: tuple[Step, ...], graphs: Sequence[GraphFacts] = ()) -> int | None:
    """Memory for the activations of `steps`; None where a tensor has no fixed size. As `lifetimes`."""
    buffers = lifetimes(graph, steps, graphs)
    return None if buffers is None else plan(buffers)[1]
