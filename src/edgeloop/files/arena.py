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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeloop.files.graph_facts import GraphFacts, Step

ALIGNMENT = 16  # MicroArenaBufferAlignment()
CALLS_LIMIT, DEPTH_LIMIT = 1000, 50  # of graphs that call others; real files have a few dozen calls, some 5 deep
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
        ValueError: A graph calls itself or one that the file does not have, or they call each other CALLS_LIMIT times.
    """
    planner = _Lifetimes(graphs)
    known = planner.plan(graph, steps, 0, ()) is not None
    return [planner.buffers[key] for key in sorted(planner.buffers)] if known else None


class _Lifetimes:
    """Buffers by the number of their graph and tensor, as far as they are planned."""

    def __init__(self, graphs: Sequence[GraphFacts]) -> None:
        self.graphs, self.calls = graphs, 0
        self.buffers: dict[tuple[int, int], Buffer] = {}

    def plan(
        self, graph: GraphFacts, steps: tuple[Step, ...], start: int, callers: tuple[GraphFacts, ...]
    ) -> int | None:
        """Add the buffers of a graph that runs from `start`; the time of its last step. None: a size is not known."""
        self._count(graph, callers)
        first = dict.fromkeys(graph.inputs, start)
        last = dict.fromkeys(graph.inputs, start)
        time = start
        for step in steps:
            time += 1
            first |= dict.fromkeys(step.outputs, time)
            for k, called in enumerate(_called(step, self.graphs)):
                ended = self.plan(called, called.steps, time + (k > 0), (*callers, graph))
                if ended is None:
                    return None
                time = ended
            for i in (*step.inputs, *step.outputs):
                first.setdefault(i, start)  # written by an operator that is none of the steps
                last[i] = time
        last |= {i: time for i in graph.outputs if i in first}
        return time if self._add(graph, first, last) else None

    def _count(self, graph: GraphFacts, callers: tuple[GraphFacts, ...]) -> None:
        """A hostile file calls two graphs in each of many: as often as there are paths."""
        self.calls += 1
        if any(graph is caller for caller in callers):
            raise ValueError("a graph calls itself")
        if self.calls > CALLS_LIMIT or len(callers) > DEPTH_LIMIT:
            raise ValueError(f"its graphs call each other more than {CALLS_LIMIT} times, or {DEPTH_LIMIT} deep")

    def _add(self, graph: GraphFacts, first: Mapping[int, int], last: Mapping[int, int]) -> bool:
        """Whether all sizes are known."""
        number = next((n for n, known in enumerate(self.graphs) if known is graph), 0)
        for i in first:
            if graph.values[i].constant_bytes or graph.values[i].variable:
                continue
            size = graph.values[i].bytes
            if size is None:
                return False
            if size:
                before = self.buffers.get((number, i))  # of a graph that two steps call
                begin = first[i] if before is None else before.first
                aligned = -(-size // ALIGNMENT) * ALIGNMENT
                self.buffers[number, i] = Buffer(size_bytes=aligned, first=begin, last=last[i])
        return True


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
