"""Softplus, as TensorFlow's converter writes it, without the exponential that takes the whole range."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeloop.convert.forms.graph_edit import GraphEdit


def softplus(edit: GraphEdit) -> None:
    """log(exp(x) + 1) as max(x, 0) - log(sigmoid(|x|)).

    exp(x) up to 36 has 255 steps of 0.14, which is all that a negative x makes of it; sigmoid(|x|) lies between 0.5
    and 1. Mish between two convolutions: 24.6 dB, 33.5 this way, 29.1 by TFLiteConverter.
    """
    for log in edit.operators("LOG"):
        add = _alone(edit, log.inputs[0], "ADD")
        power = _beside_one(edit, add) if add is not None and not edit.activation(add) else -1
        shaped = _alone(edit, power, "RESHAPE")
        exp = _alone(edit, power if shaped is None else shaped.inputs[0], "EXP")
        if exp is None:
            continue
        x, out, options = int(exp.inputs[0]), int(log.outputs[0]), edit.schema.SubOptionsT
        if shaped is not None:
            x = edit.before(log, "RESHAPE", [x, *list(shaped.inputs)[1:]], "x", shaped.builtinOptions)
        above = edit.before(log, "RELU", [x], "above")
        below = edit.before(log, "SUB", [above, x], "below", options(potScaleInt16=False))
        size = edit.before(log, "ADD", [above, below], "size", edit.schema.AddOptionsT(potScaleInt16=False))
        share = edit.before(log, "LOGISTIC", [size], "share")
        less = edit.add_like(out, edit.tensor(out).type, edit.tensor(out).name + b"/less")
        log.inputs, log.outputs = [share], [less]
        edit.insert("SUB", [above, less], out, options=options(potScaleInt16=False), after=log)


def _alone(edit: GraphEdit, tensor: int, kind: str) -> Any | None:
    """The operator of that kind that made a tensor which nobody else reads."""
    op = edit.maker(int(tensor)) if tensor >= 0 else None
    return op if op is not None and edit.kind(op) == kind and edit.only_reader(int(tensor)) is not None else None


def _beside_one(edit: GraphEdit, add: Any) -> int:
    """What 1 is added to; -1 where it is another number."""
    for given, other in (add.inputs, list(add.inputs)[::-1]):
        value = edit.constant(int(other))
        if value is not None and value.size and bool(np.all(value == 1)):
            return int(given)
    return -1
