"""Which variable of a model and its optimizer each variable of its parts (stages, split tensors) stands for.

A checkpoint holds the values of the whole, so that it does not depend on where the model was cut, which measured times
decide: a training goes on with other cuts, another number of stages, or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeloop.cloud.train.parallel.stage import Stage
from edgeloop.errors import OptionsError


def whole_and_part(stage: Stage, model: Any, optimizer: Any) -> list[tuple[Any, Any]]:
    """(variable of the whole, its copy in the stage), of the layers and of the optimizer.

    Raises:
        OptionsError: The optimizer keeps more than a value for each weight and a few for all of them.
    """
    whole_of = {id(part): whole for whole, part in stage.pairs}
    places = {id(variable): k for k, variable in enumerate(model.trainable_variables)}
    own = [places[id(whole_of[id(variable)])] for variable in stage.model.trainable_variables]
    return [*stage.pairs, *slot_pairs(optimizer, stage.optimizer, own)]


def slot_pairs(whole: Any, part: Any, own: Sequence[int]) -> list[tuple[Any, Any]]:
    """(variable of one optimizer, that of the other which stands for it).

    Args:
        own: For each weight of the part the place that it has in the whole.
    """
    if not own:  # whose optimizer takes no step
        return []
    lists, parts = _by_weight(whole), _by_weight(part)
    alone, alone_in_part = _for_all(whole, lists), _for_all(part, parts)
    if lists.keys() != parts.keys() or len(alone) != len(alone_in_part):
        raise OptionsError(
            f"the optimizer {type(whole).__name__} keeps a state that cannot be divided over devices",
            advice="Choose adam or sgd, or another strategy.",
        )
    pairs = [(lists[name][place], found[k]) for name, found in parts.items() for k, place in enumerate(own)]
    return [(to, of) for to, of in pairs if of is not None] + list(zip(alone, alone_in_part, strict=True))


def slots_by_weight(optimizer: Any) -> list[list[Any]]:
    """For each weight what the optimizer keeps of it."""
    lists = _by_weight(optimizer).values()
    return [[slot for slot in slots if slot is not None] for slots in zip(*lists, strict=True)]


def _by_weight(optimizer: Any) -> dict[str, list[Any]]:
    """The optimizer's lists of variables, one for each weight, e.g. its momentums."""
    own, count = {id(variable) for variable in optimizer.variables}, len(optimizer._trainable_variables)
    return {
        name: list(value)
        for name, value in vars(optimizer).items()
        if name != "_variables" and isinstance(value, list) and len(value) == count and own & set(map(id, value))
    }


def _for_all(optimizer: Any, lists: dict[str, list[Any]]) -> list[Any]:
    """The optimizer's other variables, e.g. its number of steps."""
    listed = {id(variable) for value in lists.values() for variable in value}
    return [variable for variable in optimizer.variables if id(variable) not in listed]
