"""onnx/onnx's own backend tests as cases: a model, its inputs and the outputs that its authors recorded."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

GROUPS = ("node", "simple", "pytorch-converted", "pytorch-operator")

# What is not common among the node tests, by kind; 697 of 1,884 remain.
LEFT_OUT = {
    "functions written out (the test without _expanded is counted)": r"expanded",
    "strings, sequences, optional values, traditional ML, training": (
        r"string|sequence|optional|ai_onnx_ml|adagrad|adam|momentum|tfidf|strnorm|^sce_|nllloss|training|regex"
        r"|image_decoder|identity_opt"
    ),
    "types that LiteRT lacks": (
        r"FLOAT8|FLOAT4|INT4|INT2|float8|e4m3|e5m2|float4|int4|int2|E8M0|bitcast|bf16|bfloat16|BFLOAT16|uint64|ui64"
        r"|uint32|DOUBLE|double|float64|cast_.*no_saturate|clip_.*int8|_int8$|_int16$|_uint8$|_uint16$|top_k_uint"
    ),
    "chance": r"bernoulli|random_|_seed|reduce_.*_random|_example_random",
    "rare operators": (
        r"unique|bitshift|affine_grid|compress|nonzero|det_|dft|stft|melweight|roialign|hannwindow|hammingwindow"
        r"|blackman|deform|col2im|maxunpool|nonmaxsup|gridsample|flex|linear_attention|causal_conv|tensorscatter"
    ),
    "rare forms": (
        r"resize_tf_crop|_gpu|attention_.*(padded_kv|nonpad|window|robust|mode3|neginf|diff_heads)|with_argmax"
        r"|zero_size|empty_set|scan_sum|negative_ones|prelu_broadcast_x|max_|min_"
    ),
}
NEVERTHELESS = re.compile(r"(max|min)_(example|one_input|two_inputs|float32|int32)$|reduce_max_do|scan9")


@dataclass(frozen=True, slots=True)
class Case:
    """One backend test.

    Attributes:
        name: `GROUP/NAME`, as `node/abs`.
        operator: The ONNX operator that a node test is about, with its domain if it has one; "" in other groups.
        inputs: By position: arrays, or lists of them for sequences.
        outputs: Likewise.
    """

    name: str
    operator: str
    model: onnx.ModelProto
    inputs: list[Any]
    outputs: list[Any]

    @property
    def common(self) -> bool:
        """Whether it is one of the common ones: numbers of usual types, no rare form (LEFT_OUT)."""
        group, _, name = self.name.partition("/")
        if group != "node":
            return group != "simple"
        if re.match(r"(max|min|reduce_max_do|scan9)", name) and NEVERTHELESS.match(name):
            return True
        return not any(re.search(pattern, name) for pattern in LEFT_OUT.values()) and self.of_numbers

    @property
    def of_numbers(self) -> bool:
        """Whether every input and output is an array of numbers."""
        values = [*self.inputs, *self.outputs]
        return all(isinstance(v, np.ndarray | np.generic) and v.dtype.kind not in "OUSV" for v in values)


def backend_cases() -> Iterator[Case]:
    """Every case of GROUPS; takes 6 s, of which most is the arithmetic of the node tests."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield from _node_cases()
        for group in GROUPS[1:]:
            yield from recorded_cases(group)


def _node_cases() -> Iterator[Case]:
    from onnx.backend.test.case.node import collect_testcases

    tests = {t.name.removeprefix("test_"): t for t in collect_testcases(None)}
    for name, test in tests.items():
        whole = tests.get(re.sub(r"(_ver\d+)?_expanded(_ver\d+)?$", "", name), test)
        node = whole.model.graph.node[0]
        operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        inputs, outputs = test.data_sets[0]
        yield Case(f"node/{name}", operator, test.model, [_plain(v) for v in inputs], [_plain(v) for v in outputs])


def recorded_cases(group: str) -> Iterator[Case]:
    from pathlib import Path

    import onnx
    from onnx.backend.test.loader import load_model_tests

    for test in load_model_tests(kind=group):
        folder = Path(test.model_dir)
        model = onnx.load(folder / "model.onnx")
        data = folder / "test_data_set_0"
        sides = [
            [_read(path, kind) for path, kind in zip(_numbered(data, side), kinds, strict=False)]
            for side, kinds in (("input", model.graph.input), ("output", model.graph.output))
        ]
        yield Case(f"{group}/{test.name.removeprefix('test_')}", "", model, *sides)


def _numbered(folder: Any, side: str) -> list[Any]:
    return sorted(folder.glob(f"{side}_*.pb"), key=lambda path: int(path.stem.split("_")[-1]))


def _read(path: Any, info: Any) -> Any:
    import onnx
    from onnx import numpy_helper

    if info.type.HasField("sequence_type"):
        sequence = onnx.SequenceProto.FromString(path.read_bytes())
        return numpy_helper.to_list(sequence)
    return numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes()))


def _plain(value: Any) -> Any:
    """Arrays stay, numbers and TensorProtos become arrays, sequences lists."""
    from onnx import TensorProto, numpy_helper

    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    return value if value is None or isinstance(value, np.ndarray) else np.asarray(value)
