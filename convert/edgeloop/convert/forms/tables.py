"""A .tflite in float16, dynamic or int4 in, the same with its lookup tables (embeddings) in that scheme out.

ai-edge-quantizer 0.10 has no rule for the weights of a GATHER, and leaves an embedding in float32, which may be nearly
all of a text model. float16 unpacks the table before the lookup, int8 what was looked up: GATHER copies bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeloop.bundle import Scheme
from edgeloop.convert.forms.flatbuffer_tree import read_tree, write_tree
from edgeloop.convert.forms.graph_edit import GraphEdit, edits
from edgeloop.files.flatbuffer import read_tflite

LEAST_VALUES = 1024  # as of other weights: below it, what unpacking needs is more than what is saved
SCHEMES = frozenset({Scheme.FLOAT16, Scheme.DYNAMIC, Scheme.INT4})  # of int4, the tables are int8


def with_small_tables(data: bytes, scheme: Scheme) -> bytes:
    """`data` itself where no table is worth it."""
    if scheme not in SCHEMES or not any(op.name == "GATHER" for g in read_tflite(data).graphs for op in g.operators):
        return data
    tree, changed = read_tree(data), False
    for edit in edits(tree):
        for table, readers in _tables(edit).items():
            (_in_float16 if scheme is Scheme.FLOAT16 else _in_int8)(edit, table, readers)
            changed = True
    return write_tree(tree) if changed else data


def _tables(edit: GraphEdit) -> dict[int, list[Any]]:
    """Float constants that GATHER alone reads, and that are no outputs, by position, with their readers."""
    found = {}
    for op in edit.operators("GATHER"):
        table = int(op.inputs[0])
        readers = edit.readers(table)
        value = edit.constant(table) if edit.is_float(table) and not edit.is_output(table) else None
        if value is not None and value.size >= LEAST_VALUES and all(edit.kind(r) == "GATHER" for r in readers):
            found[table] = readers
    return found


def _in_float16(edit: GraphEdit, table: int, readers: list[Any]) -> None:
    value = edit.constant(table)
    assert value is not None
    small = edit.add_constant(value.astype(np.float16), edit.tensor(table).name + b"/float16")
    edit.insert("DEQUANTIZE", [small], table, version=2, before=readers[0])
    edit.drop_value(table)


def _in_int8(edit: GraphEdit, table: int, readers: list[Any]) -> None:
    value = edit.constant(table)
    assert value is not None
    scale = np.float32(max(float(np.abs(value).max()), 1e-30) / 127)
    steps = np.clip(np.rint(value / scale), -127, 127).astype(np.int8)
    small = edit.add_constant(steps, edit.tensor(table).name + b"/int8")
    for op in readers:
        answer = int(op.outputs[0])
        rows = edit.add_like(answer, edit.tensor(small).type, edit.tensor(answer).name + b"/int8")
        for tensor in (small, rows):
            edit.tensor(tensor).quantization = edit.schema.QuantizationParametersT(
                scale=np.array([scale], np.float32), zeroPoint=np.zeros(1, np.int64)
            )
        op.inputs = [small, *list(op.inputs)[1:]]
        op.outputs = [rows]
        edit.insert("DEQUANTIZE", [rows], answer, version=2, after=op)
    edit.drop_value(table)
