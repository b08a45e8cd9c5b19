"""One node of an ONNX graph while it is imported: its attributes, and inputs that have to be known now."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgeloop.convert.onnx.value import AtRunTime, Value
from edgeloop.extras import need

if TYPE_CHECKING:
    from edgeloop.convert.onnx.importer import GraphImporter

helper: Any = need("onnx.helper", extra="convert")


class Node:
    """What an operator's function gets besides its inputs.

    Attributes:
        proto: The NodeProto.
        op: Its operator, e.g. "Conv".
        inputs: In ONNX's order; None for one that is left out. Sequences are lists of values.
        opset: The version of the standard operators that the model was written for.
        wanted: For each output of `proto`, whether it has a name; nobody takes one without.
    """

    def __init__(
        self, proto: Any, inputs: Sequence[Any], opset: int, importer: GraphImporter, scope: Mapping[str, Any]
    ):
        self.proto, self.inputs, self.opset = proto, inputs, opset
        self.op: str = proto.op_type
        self.wanted = [bool(name) for name in proto.output]
        self._importer, self._scope = importer, scope
        self._attributes = {attribute.name: attribute for attribute in proto.attribute}

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute as Python's own type (text decoded, tensors and graphs as protos)."""
        if name not in self._attributes:
            return default
        value = helper.get_attribute_value(self._attributes[name])
        return value.decode() if isinstance(value, bytes) else value

    def given(self, i: int) -> Any:
        """Input `i`, or None where it is left out."""
        return self.inputs[i] if i < len(self.inputs) else None

    def known(self, i: int | None, name: str = "", default: Any = None) -> Any:
        """Input `i`, else attribute `name`, as a list or number. Which of the two it is changed with the opsets.

        Raises:
            AtRunTime: The input is computed.
        """
        value = self.given(i) if i is not None else None
        if value is None:
            return self.attr(name, default)
        if value.const is None:
            raise AtRunTime(f"{name or f'input {i}'} computed at run time")
        return value.const.tolist()

    def body(self, name: str, **values: Value) -> list[Any]:
        """Import the graph in attribute `name`, with these values by the names its nodes use; its outputs."""
        return self._importer.run(self.attr(name), ChainMap(dict(values), self._scope))  # type: ignore[arg-type]
