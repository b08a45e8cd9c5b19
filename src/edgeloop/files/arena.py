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

from dataclasses import dataclass

from edgeloop.files.graph_facts import GraphFacts, Step

ALIGNMENT = 16  # MicroArenaBufferAlignment()


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


def lifetimes(graph: GraphFacts, steps: tuple[Step, ...]) -> list[Buffer] | None:
    """The tensors that `steps` compute with, constants and variables aside; None where a size is not known.

    The graph's inputs are written at time 0, the results of the first step at time 1.
    """
    first = dict.fromkeys(graph.inputs, 0)
    last = dict.fromkeys(graph.inputs, 0)
    for time, step in enumerate(steps, start=1):
        for i in step.outputs:
            first[i] = last[i] = time
        for i in step.inputs:
            first.setdefault(i, 0)  # written by an operator that is none of the steps
            last[i] = time
    last |= {i: len(steps) for i in graph.outputs if i in first}
    planned = [i for i in sorted(first) if not graph.values[i].constant_bytes and not graph.values[i].variable]
    sizes = [graph.values[i].bytes for i in planned]
    if None in sizes:
        return None
    return [
        Buffer(size_bytes=-(-size // ALIGNMENT) * ALIGNMENT, first=first[i], last=last[i])
        for i, size in zip(planned, sizes, strict=True)
        if size
    ]


def arena_bytes(graph: GraphFacts, steps: tuple[Step, ...]) -> int | None:
    """Memory for the activations of `steps`; None where a tensor has no fixed size."""
    buffers = lifetimes(graph, steps)
    return None if buffers is None else plan(buffers)[1]
