"""A quantized .tflite in; the same without conversions around what has an integer kernel out.

Both quantizers convert to float and back around operators that they have no rule for, though some of those have a
kernel for integers, or read no values at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeloop.convert.forms.flatbuffer_tree import read_tree, write_tree
from edgeloop.convert.forms.graph_edit import GraphEdit, edits, without_unused_codes
from edgeloop.files.flatbuffer import read_tflite

ANY_SCALES = ("ELU",)  # computed by a table of 256 entries, whatever the scales of input and output


def in_integers(quantized: bytes) -> bytes:
    """`quantized` itself where nothing can be spared."""
    found = {op.name for graph in read_tflite(quantized).graphs for op in graph.operators}
    if not found & {"SHAPE", "CAST", "FILL", "ONE_HOT", *ANY_SCALES}:
        return quantized
    tree, changed = read_tree(quantized), False
    for edit in edits(tree):
        for rule in (_sizes, _casts, _fills, _float_one_hots, _one_hots, _sandwiches):
            rule(edit)
        changed = edit.tidied() or changed
    return write_tree(without_unused_codes(tree)) if changed else quantized


def _sizes(edit: GraphEdit) -> None:
    """SHAPE reads the integers themselves."""
    for op in edit.operators("SHAPE"):
        before = edit.maker(op.inputs[0])
        if before is not None and edit.kind(before) == "DEQUANTIZE":
            edit.read_instead(op, op.inputs[0], before.inputs[0])


def _casts(edit: GraphEdit) -> None:
    """A CAST of bytes that is quantized next: QUANTIZE takes the bytes as they are, as steps of 1 from 0."""
    types = edit.schema.TensorType
    for op in edit.operators("CAST"):
        given, readers = edit.tensor(op.inputs[0]), edit.readers(op.outputs[0])
        bytes_ = given.type in (types.UINT8, types.INT8) and (given.quantization is None or not _scales(given))
        if bytes_ and edit.is_float(op.outputs[0]) and readers and all(edit.kind(r) == "QUANTIZE" for r in readers):
            given.quantization = edit.schema.QuantizationParametersT(
                scale=np.ones(1, np.float32), zeroPoint=np.zeros(1, np.int64)
            )
            for reader in readers:
                edit.read_instead(reader, op.outputs[0], op.inputs[0])


def _fills(edit: GraphEdit) -> None:
    """A FILL that is quantized next: with the integer."""
    for op in edit.operators("FILL"):
        value = edit.constant(op.inputs[1])
        if value is None or not edit.is_float(op.outputs[0]) or edit.is_output(op.outputs[0]):
            continue
        for reader in edit.readers(op.outputs[0]):
            out = edit.tensor(reader.outputs[0])
            if edit.kind(reader) != "QUANTIZE" or out.type not in _integers(edit) or not _scales(out):
                continue
            small = _stored(edit, value, reader.outputs[0], b"/value")
            edit.become(reader, "FILL", [op.inputs[0], small], edit.schema.FillOptionsT(), version=3)


def _one_hots(edit: GraphEdit) -> None:
    """The two numbers of a ONE_HOT in the steps of its result: its kernel copies them, whatever their own scales."""
    for op in edit.operators("ONE_HOT"):
        out = edit.tensor(op.outputs[0])
        if out.type not in _integers(edit) or not _scales(out):
            continue
        for place, word in ((2, b"/on"), (3, b"/off")):
            given, steps = edit.tensor(op.inputs[place]), edit.constant(op.inputs[place])
            if steps is None or not _scales(given):
                continue
            value = (steps.astype(np.float64) - given.quantization.zeroPoint[0]) * given.quantization.scale[0]
            edit.read_instead(op, op.inputs[place], _stored(edit, value, op.outputs[0], word))


def _float_one_hots(edit: GraphEdit) -> None:
    """A ONE_HOT that is quantized next, of a number and 0: of the integers 127 and 0, for its kernel has no 16 bits."""
    for op in edit.operators("ONE_HOT"):
        numbers = [edit.constant(i) for i in op.inputs[2:]]
        readers = edit.readers(op.outputs[0])
        if any(v is None for v in numbers) or not edit.is_float(op.outputs[0]) or edit.is_output(op.outputs[0]):
            continue
        on, off = (float(np.ravel(v)[0]) for v in numbers if v is not None)
        if (on == 0) == (off == 0) or not readers or any(edit.kind(reader) != "QUANTIZE" for reader in readers):
            continue
        name = edit.tensor(op.outputs[0]).name
        out = edit.add_like(op.outputs[0], edit.schema.TensorType.INT8, name + b"/int8")
        edit.tensor(out).quantization = edit.schema.QuantizationParametersT(
            scale=np.array([abs(on + off) / 127], np.float32), zeroPoint=np.zeros(1, np.int64)
        )
        both = [_stored(edit, np.array(value), out, word) for value, word in ((on, b"/on"), (off, b"/off"))]
        for reader in readers:
            edit.read_instead(reader, op.outputs[0], out)
        edit.become(op, "ONE_HOT", [*op.inputs[:2], *both], op.builtinOptions)
        op.outputs = [out]


def _integers(edit: GraphEdit) -> dict[int, Any]:
    return {edit.schema.TensorType.INT8: np.int8, edit.schema.TensorType.INT16: np.int16}


def _stored(edit: GraphEdit, value: np.ndarray, like: int, word: bytes) -> int:
    """A new constant of these real numbers in the type and the steps of the tensor `like`."""
    out = edit.tensor(like)
    limits = np.iinfo(_integers(edit)[out.type])
    steps = np.rint(value / out.quantization.scale[0]) + out.quantization.zeroPoint[0]
    made = edit.add_constant(np.clip(steps, limits.min, limits.max).astype(limits.dtype), out.name + word)
    edit.tensor(made).quantization = out.quantization
    return made


def _sandwiches(edit: GraphEdit) -> None:
    """DEQUANTIZE, an operator, QUANTIZE: the operator alone."""
    for op in edit.operators(*ANY_SCALES):
        before, after = edit.maker(op.inputs[0]), edit.only_reader(op.outputs[0])
        if before is None or after is None or [edit.kind(before), edit.kind(after)] != ["DEQUANTIZE", "QUANTIZE"]:
            continue
        if _is_int8(edit, before.inputs[0]) and _is_int8(edit, after.outputs[0]):
            edit.read_instead(op, op.inputs[0], before.inputs[0])
            op.outputs = list(after.outputs)
            edit.remove(after)


def _is_int8(edit: GraphEdit, index: int) -> bool:
    return bool(edit.tensor(index).type == edit.schema.TensorType.INT8)


def _scales(tensor: Any) -> bool:
    return tensor.quantization.scale is not None and len(tensor.quantization.scale) > 0
