"""The operators of a training step in an order that keeps weights in a core's cache.

A variable is read just before its first use, and updated as soon as nothing else needs its old value: the converter
reads all of them first, and updates all of them last.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from edgeloop.convert.forms.flatbuffer_tree import read_tree, write_tree
from edgeloop.files.flatbuffer import Operator, read_tflite

READ, ASSIGN, HANDLE, ONCE = "READ_VARIABLE", "ASSIGN_VARIABLE", "VAR_HANDLE", "CALL_ONCE"
LAZY = (READ, HANDLE)  # run when they are needed
# what these give depends on how often they ran: they keep their order
STATEFUL = frozenset({ONCE, "RANDOM_UNIFORM", "RANDOM_STANDARD_NORMAL", "MULTINOMIAL", "WHILE", "IF", "CALL", "CUSTOM"})


def in_training_order(data: bytes) -> bytes:
    """A .tflite whose graphs that read and update variables run in `update_order`; all else stays as it is."""
    tree = read_tree(data)
    for graph, found in zip(tree.subgraphs, read_tflite(data).graphs, strict=True):
        if {READ, ASSIGN} <= {op.name for op in found.operators}:
            graph.operators = [graph.operators[i] for i in update_order(found.operators, found.outputs)]
    return write_tree(tree)


def update_order(operators: Sequence[Operator], outputs: Collection[int]) -> list[int]:
    """Positions of `operators`, in an order in which each still follows what it needs.

    Args:
        operators: Of one graph, in an order that it can run in.
        outputs: The graph's output tensors.
    """
    needs = _needs(operators)
    users: list[list[int]] = [[] for _ in operators]
    for i, before in enumerate(needs):
        for j in before:
            users[j].append(i)
    goals = _goals(operators, users, frozenset(outputs))
    lazy = {i for i, op in enumerate(operators) if op.name in LAZY}
    postponed = {i for i, g in enumerate(goals) if len(g) == 1 and -1 not in g} - lazy  # they serve one update alone
    waiting = {}
    for goal in reversed([i for i, op in enumerate(operators) if op.name == ASSIGN]):  # gradients come from the end
        before = {j for i in postponed if goal in goals[i] for j in needs[i]}
        before |= {u for j in before if operators[j].name == READ for u in users[j]}
        waiting[goal] = before - postponed - lazy
    order: dict[int, None] = {}
    for i in range(len(operators)):
        if i in postponed or i in lazy:
            continue
        _run(i, needs, order)
        for goal in [g for g, before in waiting.items() if before <= order.keys()]:
            del waiting[goal]
            _run(goal, needs, order)
    for i in range(len(operators)):
        _run(i, needs, order)
    return list(order)


def _needs(operators: Sequence[Operator]) -> list[set[int]]:
    """What must have run before each operator: what it reads, and what has the same variable or state."""
    made = {t: i for i, op in enumerate(operators) for t in op.outputs}
    needs = [{made[t] for t in op.inputs if t in made} for op in operators]
    once: set[int] = set()  # the last operator that made the variables, and the last one with a state of its own
    state: set[int] = set()
    assigned: dict[int, int] = {}
    readers: dict[int, set[int]] = {}
    for i, op in enumerate(operators):
        if op.name == HANDLE:
            needs[i] |= once
        elif op.name in (READ, ASSIGN):
            variable = op.inputs[0]
            needs[i] |= {assigned[variable]} if variable in assigned else set()
            if op.name == READ:
                readers.setdefault(variable, set()).add(i)
            else:
                needs[i] |= readers.pop(variable, set())
                assigned[variable] = i
        elif op.name in STATEFUL:
            needs[i] |= state
            state, once = {i}, {i} if op.name == ONCE else once
    return needs


def _goals(
    operators: Sequence[Operator], users: Sequence[Iterable[int]], outputs: frozenset[int]
) -> list[frozenset[int]]:
    """The updates that each operator leads to; -1 stands for an output of the graph."""
    goals: list[frozenset[int]] = [frozenset()] * len(operators)
    for i in reversed(range(len(operators))):
        own = {i} if operators[i].name == ASSIGN else set()
        own |= {-1} if outputs.intersection(operators[i].outputs) else set()
        goals[i] = frozenset(own).union(*(goals[u] for u in users[i]))
    return goals


def _run(i: int, needs: Sequence[set[int]], order: dict[int, None]) -> None:
    """Append an operator, after all that it needs and that has not run."""
    stack = [i]
    while stack:
        missing = sorted((j for j in needs[stack[-1]] if j not in order), reverse=True)
        if missing:
            stack += missing
        else:
            order.setdefault(stack.pop())
