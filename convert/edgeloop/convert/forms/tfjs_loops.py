"""Branches and loops as TF.js, and the optimizer before it, take them.

A branch that gives a constant gives it whether it is taken or not, once only its data counts; a Switch holds it back.

TF.js runs a constant, and what is made of constants alone, before and outside of every loop. An inner loop whose Enter
takes such a value is then entered from outside, and never gets its other values. Adding a zero that comes from the
outer loop's body brings the value in.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
GATES = frozenset({"Switch", "Merge", "Enter", "Placeholder"})


def hold_back_constants(graph: Any) -> None:
    """Put a Switch behind the constants of a branch that a Merge takes, in place; `graph` is a lowered GraphDef that
    still has its control inputs."""
    nodes = {node.name: node for node in graph.node}
    for merge in [node for node in graph.node if node.op == "Merge"]:
        for i, value in enumerate(merge.input):
            switch, side = _taken(nodes, _pivot(nodes, _name(value)))
            if switch is not None:
                gate = graph.node.add(name=f"{merge.name}/gate_{i}", op="Switch")
                gate.input.extend([value, switch.input[1]])
                gate.attr["T"].CopyFrom(merge.attr["T"])
                merge.input[i] = f"{gate.name}:1" if side else gate.name


def _taken(nodes: dict[str, Any], pivot: Any | None) -> tuple[Any | None, bool]:
    """The Switch on whose one side a pivot stands, and the side; of a NoOp what it waits for."""
    while pivot is not None and pivot.op in ("NoOp", "Identity") and pivot.input:
        given = pivot.input[0]
        before = nodes[_name(given)]
        if before.op == "Switch" and not given.startswith("^"):
            return before, given.endswith(":1")
        pivot = before
    return None, False


def _pivot(nodes: dict[str, Any], name: str) -> Any | None:
    """What says that the branch of a value is taken, if constants alone make the value; None: data does, too."""
    waiting, seen, found = [name], set(), None
    while waiting:
        node = nodes[waiting.pop()]
        if node.op in GATES:
            return None
        for given in node.input:
            if given.startswith("^"):
                found = found or nodes[_name(given)]
            elif _name(given) not in seen:
                seen.add(_name(given))
                waiting.append(_name(given))
    return found


def bring_into_loops(topology: Json) -> None:
    """In place; nothing where no loop lies inside another."""
    nodes = {node["name"]: node for node in topology["node"]}
    frames: dict[str, list[Json]] = {}
    for node in topology["node"]:
        if node["op"] == "Enter":
            frames.setdefault(node["attr"]["frame_name"]["s"], []).append(node)
    if len(frames) < 2:
        return
    levels = _levels(nodes, frames)
    added: list[Json] = []
    for enters in frames.values():
        deepest = max((_name(enter["input"][0]) for enter in enters), key=lambda name: levels[name])
        for enter in enters:
            if levels[_name(enter["input"][0])] < levels[deepest]:
                inside = next(e["input"][0] for e in enters if _name(e["input"][0]) == deepest)
                added += _with_zero(enter, inside)
    topology["node"] += added


def _levels(nodes: dict[str, Json], frames: dict[str, list[Json]]) -> dict[str, int]:
    """In how many loops each node lies, by what it is computed from."""
    found: dict[str, int] = {}
    waiting = list(nodes)
    while waiting:
        name = waiting[-1]
        if name in found:
            waiting.pop()
            continue
        before = _before(nodes[name], frames)
        missing = [other for other in before if other not in found]
        if missing:
            waiting += missing
            continue
        step = {"Enter": 1, "Exit": -1}.get(nodes[name]["op"], 0)
        found[name] = max((found[other] for other in before), default=0) + step
        waiting.pop()
    return found


def _before(node: Json, frames: dict[str, list[Json]]) -> list[str]:
    """The nodes that a node's level follows from: of an Enter those of its whole frame, of a Merge not the way back."""
    if node["op"] == "Enter":
        return [_name(enter["input"][0]) for enter in frames[node["attr"]["frame_name"]["s"]]]
    names = [_name(name) for name in node.get("input", [])]
    if node["op"] == "NextIteration":
        return []
    return names


def _with_zero(enter: Json, inside: str) -> list[Json]:
    """The nodes that add a zero of the loop's body to what `enter` takes."""
    name, value, kind = enter["name"], enter["input"][0], enter["attr"]["T"]
    whole = {"type": "DT_INT32"}
    rank: Json = {"name": f"{name}/rank", "op": "Rank", "input": [inside], "attr": {"T": whole}}
    parts: list[Json] = [rank]
    if kind["type"] == "DT_BOOL":
        parts.append({"name": f"{name}/no", "op": "NotEqual", "input": [rank["name"]] * 2, "attr": {"T": whole}})
        parts.append({"name": f"{name}/value", "op": "LogicalOr", "input": [value, parts[-1]["name"]], "attr": {}})
    else:
        parts.append({"name": f"{name}/zero", "op": "Sub", "input": [rank["name"]] * 2, "attr": {"T": whole}})
        cast = {"SrcT": whole, "DstT": kind}
        parts.append({"name": f"{name}/cast", "op": "Cast", "input": [parts[-1]["name"]], "attr": cast})
        parts.append({"name": f"{name}/value", "op": "AddV2", "input": [value, parts[-1]["name"]], "attr": {"T": kind}})
    enter["input"] = [parts[-1]["name"]]
    return parts


def _name(tensor: str) -> str:
    return tensor.lstrip("^").split(":")[0]
