"""`inspect --target` on real files, and our reading of a .tflite against the schema's own generated code."""

import json
import re
import shutil
import subprocess
import sys
from inspect import getsource
from pathlib import Path

import pytest

from edgeloop.bundle import MANIFEST, Format, Manifest, Scheme, Signature, Variant, file_entries
from edgeloop.cli import run
from edgeloop.errors import ModelError, OptionsError
from edgeloop.files.flatbuffer import read_tflite
from edgeloop.files.schema import MODEL, OPERATORS, OPTIONS, TENSOR_TYPES
from edgeloop.files.targets.target import Target, inspect_for_target

ABSENT = ["numpy", "ai_edge_litert", "flatbuffers", "tensorflow", "tflite_runtime"]

GOLDEN = Path(__file__).parents[2] / "golden" / "bundle-1"
TABLES = {**{name: name for name in MODEL}, **{name: f"{name.title().replace('_', '')}Options" for name in OPTIONS}}
TABLES |= {"AVERAGE_POOL_2D": "Pool2DOptions", "MAX_POOL_2D": "Pool2DOptions", "CONV_2D": "Conv2DOptions"}
TABLES |= {"DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions", "BATCH_MATMUL": "BatchMatMulOptions"}
SHORT = {"activation": "fused_activation_function", "stride_w": "stride_w", "dilation_w": "dilation_w_factor"}
SHORT |= {"dilation_h": "dilation_h_factor", "filter_w": "filter_width", "filter_h": "filter_height"}


@pytest.fixture(scope="module")
def schema():
    return pytest.importorskip("ai_edge_litert.schema_py_generated")


def test_operators_and_types_have_the_schemas_names_and_numbers(schema):
    def named(enum):
        return {value: name for name, value in vars(enum).items() if isinstance(value, int)}

    assert dict(enumerate(OPERATORS)) == named(schema.BuiltinOperator)
    assert dict(enumerate(TENSOR_TYPES)) == {n: name.lower() for n, name in named(schema.TensorType).items()}


@pytest.mark.parametrize("table", [*MODEL, *OPTIONS])
def test_fields_stand_where_the_schema_has_them(schema, table):
    made = getattr(schema, TABLES[table])
    for slot, (field, kind) in enumerate({**MODEL, **OPTIONS}[table]):
        if kind:
            getter = getattr(made, SHORT.get(field, field).title().replace("_", ""))
            assert re.findall(r"Offset\((\d+)\)", getsource(getter)) == [str(4 + 2 * slot)], field


def by_generated_code(schema, data):
    """(operator, inputs) and (name, dtype, sizes, first scale, size of the constant) of the first graph."""
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    types = {value: name.lower() for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
    graph = model.subgraphs[0]
    operators = [(names[codes[o.opcodeIndex]], [i for i in o.inputs if i >= 0]) for o in graph.operators]
    tensors = []
    for t in graph.tensors:
        scale = t.quantization.scale if t.quantization is not None else None
        held = model.buffers[t.buffer].data
        first = float(scale[0]) if scale is not None and len(scale) else None
        sizes = [] if t.shape is None else [int(d) for d in t.shape]
        tensors.append((t.name.decode(), types[t.type], sizes, first, 0 if held is None else len(held)))
    return operators, tensors


@pytest.mark.parametrize(
    "name",
    ["edgetpu_pair/mobilenet_v1_0.25_128_quant", "mlperf_tiny_ic/pretrainedResnet", "mnist_conv_fc/conv_fc_mnist"],
)
def test_a_real_file_is_read_as_the_generated_code_reads_it(shared, schema, name):
    data = (shared / "models" / f"{name}.tflite").read_bytes()
    graph = read_tflite(data).graphs[0]
    tensors = [
        (t.name, t.dtype, list(t.sizes), t.scale[0] if t.scale else None, t.constant_bytes) for t in graph.tensors
    ]
    assert ([(o.name, list(o.inputs)) for o in graph.operators], tensors) == by_generated_code(schema, data)


@pytest.mark.parametrize("arguments", [[], ["--target", "edgetpu"], ["--target", "cortex-m"]])
def test_inspect_needs_neither_numpy_nor_a_framework(arguments):
    words = ["inspect", str(GOLDEN / "int8.tflite"), "--json", *arguments]
    code = (
        f"import sys\nsys.modules.update(dict.fromkeys({ABSENT}))\nfrom edgeloop.cli import run\nsys.exit(run({words}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def test_the_compiler_mapped_what_is_predicted_of_a_real_pair(shared):
    pair = shared / "models" / "edgetpu_pair"
    found = inspect_for_target(pair / "mobilenet_v1_0.25_128_quant.tflite", Target.EDGETPU)[""]
    compiled = read_tflite((pair / "mobilenet_v1_0.25_128_quant_edgetpu.tflite").read_bytes()).graphs[0]
    assert [op.name for op in compiled.operators] == ["edgetpu-custom-op"]  # nothing is left for the CPU
    assert (found["mapped"], found["total"]) == (31, 31)
    # 470,072 parameters, https://arxiv.org/abs/1704.04861 (width 0.25), in 8 bits; biases in 32
    assert found["on_chip_bytes"] == pytest.approx(470_072, rel=0.03)
    assert found["off_chip_bytes"] == 0


def test_a_compiled_model_is_known_as_such(shared):
    path = shared / "models" / "edgetpu_pair" / "mobilenet_v1_0.25_128_quant_edgetpu.tflite"
    assert inspect_for_target(path, Target.EDGETPU)[""]["compiled"]


def test_the_arena_of_the_mlperf_tiny_classifier_is_the_measured_one(shared):
    # tflite-micro 0.dev20261023182759: total 55,984 bytes, head 49,152, tail 6,832
    found = inspect_for_target(shared / "models" / "mlperf_tiny_ic" / "pretrainedResnet_quant.tflite", Target.CORTEX_M)[
        ""
    ]
    assert found["activations_bytes"] == 49_152
    assert found["arena_bytes"] == 55_984
    assert (found["supported"], found["total"], found["flash_bytes"]) == (16, 16, 98_496)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Two .tflite variants and one that is none."""
    made = tmp_path_factory.mktemp("targets") / "linear"
    made.mkdir()
    forms = {"float32": Format.TFLITE, "int8": Format.TFLITE, "onnx": Format.ONNX}
    for name, file in (("float32", "float32.tflite"), ("int8", "int8.tflite"), ("onnx", "model.onnx")):
        shutil.copy(GOLDEN / file, made / f"{name}.bin")
    variants = tuple(
        Variant(
            id=name,
            entry=f"{name}.bin",
            files=(f"{name}.bin",),
            format=form,
            scheme=Scheme.FLOAT32,
            signatures=("infer",),
        )
        for name, form in forms.items()
    )
    manifest = Manifest(
        name="linear",
        version=1,
        source={},
        files=file_entries(made),
        signatures={"infer": Signature((), ())},
        variants=variants,
    )
    (made / MANIFEST).write_bytes(manifest.to_bytes())
    return made


def test_a_bundle_is_answered_variant_by_variant(bundle):
    assert list(inspect_for_target(bundle, Target.EDGETPU)) == ["float32", "int8"]
    assert list(inspect_for_target(bundle, Target.EDGETPU, "int8")) == ["int8"]


def test_a_variant_that_is_no_tflite_is_refused(bundle):
    with pytest.raises(OptionsError, match=r"no .tflite variant 'onnx'. Choose one of: float32, int8"):
        inspect_for_target(bundle, Target.EDGETPU, "onnx")


def test_the_command_answers_even_if_nothing_maps(capsys):
    assert run(["inspect", str(GOLDEN / "float32.tflite"), "--target", "edgetpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["edgetpu"]
    assert found["mapped"] == 0
    assert {"index", "op", "mapped", "reason"} <= found["ops"][0].keys()
    assert run(["inspect", str(GOLDEN / "float32.tflite"), "--target", "cortex-m", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cortex_m"]["supported"] == 2


def test_people_see_reasons_before_operators(capsys):
    assert run(["inspect", str(GOLDEN / "float32.tflite"), "--target", "edgetpu"]) == 0
    shown = capsys.readouterr().out
    assert shown.index("Quantize the model to full int8") < shown.index("float32, not 8 bits")
    assert "0 of 2 operators map to the Edge TPU" in shown


def test_other_files_are_refused_by_what_to_do(bundle):
    with pytest.raises(OptionsError, match="Convert it first"):
        inspect_for_target(GOLDEN / "model.onnx", Target.EDGETPU)
    with pytest.raises(OptionsError, match="--variant int8 applies to a bundle"):
        inspect_for_target(GOLDEN / "int8.tflite", Target.EDGETPU, "int8")
    with pytest.raises(ModelError, match="cannot be read"):
        inspect_for_target(bundle / "absent.tflite", Target.EDGETPU)
    assert run(["inspect", str(GOLDEN / "int8.tflite"), "--variant", "int8"]) == OptionsError.exit_code


def test_a_file_cut_anywhere_is_read_or_refused(tmp_path):
    data = (GOLDEN / "int8.tflite").read_bytes()
    path = tmp_path / "cut.tflite"
    for size in range(8, len(data), 37):
        path.write_bytes(data[:size])
        for target in Target:
            try:
                inspect_for_target(path, target)
            except ModelError as e:
                assert "damaged" in str(e) or "graph" in str(e)
