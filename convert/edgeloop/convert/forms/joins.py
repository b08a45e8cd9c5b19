"""A float32 .tflite and the ranges of its tensors in; what is joined in the range of the whole, out.

CONCATENATION and PACK copy integers, so that what they join has the steps of the whole. In a range of its own, a value
is rounded twice: to steps of its own, and to those. In the range of the whole from the start, it is rounded once; what
else reads it gets coarser steps. An unrolled LSTM whose states are stacked, int8: 32.0 dB with ranges of their own, on
others than the calibration samples 20.4 to 23.2.

So it is with what the steps of an unrolled loop add up, and other samples leave the range of one step more easily. int8
on 256 samples other than the 64 of the calibration, with ranges of their own, those of the sums, and TFLiteConverter's:
two LSTMs 25.6, 27.0 and 26.4; 27.5, 28.4 and 27.8 dB; two GRUs 25.7, 26.8 and 26.0; 24.3, 25.1 and 24.8 dB. The range
of all steps gave up to 3 dB more there, and took up to 1.5 on the samples of the calibration.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeloop.convert.forms.flatbuffer_tree import read_tree
from edgeloop.convert.forms.graph_edit import edits
from edgeloop.convert.forms.masks import Ranges
from edgeloop.convert.forms.repeats import repeated
from edgeloop.files.flatbuffer import read_tflite

JOINS = ("CONCATENATION", "PACK")
SUM = "ADD"
COARSER = 2.0  # times: what other readers lose at most, one bit


def with_joined_ranges(float32: bytes, ranges: Ranges) -> Ranges:
    """`ranges` themselves where nothing is joined. Inputs of the model keep theirs.

    Raises:
        ModelError: The flatbuffer is damaged.
    """
    if not {*JOINS, SUM} & {op.name for graph in read_tflite(float32).graphs for op in graph.operators}:
        return ranges
    found = dict(ranges)
    for edit in edits(read_tree(float32)):
        sums = repeated(edit)
        for op in reversed(edit.operators(*JOINS, SUM)):  # the whole may itself be a part of what follows
            if edit.kind(op) == SUM and int(op.outputs[0]) not in sums:
                continue
            whole = found.get(edit.tensor(op.outputs[0]).name.decode())
            for part in {*map(int, op.inputs)}:
                name = edit.tensor(part).name.decode()
                if whole is None or name not in found or edit.maker(part) is None or edit.is_output(part):
                    continue
                alone, times = edit.only_reader(part) is op, span(whole) / max(span(found[name]), 1e-30)
                if (alone and 1 < times <= COARSER) if edit.kind(op) == SUM else (alone or times <= COARSER):
                    found[name] = whole
    return found


def span(both: Mapping[str, np.ndarray]) -> float:
    """From the least to the largest value, and 0."""
    return float(max(np.max(both["max"]), 0.0) - min(np.min(both["min"]), 0.0))
