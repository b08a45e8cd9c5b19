"""Files that LiteRT runs and other readers trip over: old operator codes, names, float16 and sparse constants."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from tflite_by_hand import tflite

from edgeloop.bundle import Scheme
from edgeloop.convert.forms.flatbuffer_tree import read_tree, write_tree
from edgeloop.convert.forms.tflite_file import is_kept_unchanged, stored_scheme
from edgeloop.convert.sources.float32_weights import with_float32_weights
from edgeloop.convert.sources.tflite_uniform import uniform, with_one_signature
from edgeloop.files.flatbuffer import read_tflite

PLAIN = tflite([("ADD", 0, 1, 2), ("MUL", 2, 2, 3)])
TWO_GRAPHS = tflite([("ADD", 0, 1, 2)], [("MUL", 0, 1, 2)])


def names(data):
    return [[tensor.name for tensor in graph.tensors] for graph in read_tflite(data).graphs]


def changed(data, change):
    tree = read_tree(data)
    change(tree)
    return write_tree(tree)


def with_constant(build, kind, shape):
    """t0 + t1, where t1 is what an operator of `kind` makes of the constant that `build` writes."""

    def change(tree):
        code = getattr(schema.BuiltinOperator, kind)
        tree.operatorCodes.append(schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=code, version=1))
        graph = tree.subgraphs[0]
        constant = schema.TensorT(name=b"packed", shape=shape, buffer=len(tree.buffers))
        tree.buffers.append(schema.BufferT(data=build(constant).view(np.uint8).ravel()))
        graph.tensors.append(constant)
        operator = schema.OperatorT(opcodeIndex=len(tree.operatorCodes) - 1, inputs=[3], outputs=[1])
        graph.operators.insert(0, operator)
        graph.inputs = [0]

    return changed(tflite([("ADD", 0, 1, 2)], shape=shape), change)


def constant_of(data, name):
    """The values that the file holds for a tensor."""
    tensor = next(t for t in read_tflite(data).graphs[0].tensors if t.name == name)
    return np.frombuffer(data, "<f4", tensor.constant_bytes // 4, tensor.constant_at).reshape(tensor.shape)


def sparse_rows(segments):
    """Of a 3 x 3: the values 7, 5, 6 in the columns 1, 0, 2; row i has those from segments[i] to segments[i + 1]."""

    def build(tensor):
        tensor.type = schema.TensorType.FLOAT32
        rows = schema.DimensionMetadataT(format=schema.DimensionType.DENSE, denseSize=3)
        columns = schema.DimensionMetadataT(
            format=schema.DimensionType.SPARSE_CSR,
            arraySegmentsType=schema.SparseIndexVector.Int32Vector,
            arraySegments=schema.Int32VectorT(values=segments),
            arrayIndicesType=schema.SparseIndexVector.Uint8Vector,
            arrayIndices=schema.Uint8VectorT(values=np.array([1, 0, 2], np.uint8)),
        )
        tensor.sparsity = schema.SparsityParametersT(traversalOrder=[0, 1], dimMetadata=[rows, columns])
        return np.array([7, 5, 6], np.float32)

    return build


def test_operator_codes_from_before_tensorflow_2_3_stand_in_both_fields():
    def old(tree):
        for code in tree.operatorCodes:
            code.builtinCode = 0

    model = schema.Model.GetRootAs(uniform(changed(PLAIN, old)), 0)
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    assert [(c.BuiltinCode(), c.DeprecatedBuiltinCode()) for c in codes] == [(0, 0), (18, 18)]  # ADD, MUL


def test_an_operator_beyond_127_stands_as_127_in_the_old_field():
    def new(tree):
        tree.operatorCodes[1].builtinCode, tree.operatorCodes[1].deprecatedBuiltinCode = 150, 0  # GELU

    model = schema.Model.GetRootAs(uniform(changed(PLAIN, new)), 0)
    assert (model.OperatorCodes(1).BuiltinCode(), model.OperatorCodes(1).DeprecatedBuiltinCode()) == (150, 127)


def test_a_file_that_needs_nothing_stays_as_it_is():
    assert uniform(PLAIN) is PLAIN
    assert with_float32_weights(PLAIN) is PLAIN


def test_tensors_without_names_are_called_by_what_they_are():
    def strip(tree):
        for tensor in tree.subgraphs[0].tensors:
            tensor.name = None

    assert names(uniform(changed(PLAIN, strip))) == [["input_0", "input_1", "tensor_2", "output"]]


def test_a_name_in_two_graphs_stays_with_the_first_and_gets_the_graphs_name_in_the_other():
    def call(tree):
        tree.subgraphs[1].name = b"cond_true"

    assert names(uniform(changed(TWO_GRAPHS, call))) == [
        ["t0", "t1", "t2"],
        ["cond_true/t0", "cond_true/t1", "cond_true/t2"],
    ]


def test_a_name_that_several_tensors_of_a_graph_have_stays_with_the_inputs_and_outputs():
    def alike(tree):
        for tensor in tree.subgraphs[0].tensors:
            tensor.name = b"x"

    assert names(uniform(changed(PLAIN, alike))) == [["x", "x_1", "x_3", "x_2"]]


def test_float16_constants_become_the_float32_ones_that_dequantize_made_of_them():
    values = np.array([[0.1, -2.5, 65504.0, 6e-8]], np.float16)

    def build(tensor):
        tensor.type = schema.TensorType.FLOAT16
        return values

    plain = with_float32_weights(with_constant(build, "DEQUANTIZE", [1, 4]))
    graph = read_tflite(plain).graphs[0]
    assert [op.name for op in graph.operators] == ["ADD"]
    assert [t.name for t in graph.tensors] == ["t0", "t1", "t2"]  # and not the float16 one
    np.testing.assert_array_equal(constant_of(plain, "t1"), values.astype(np.float32))
    assert values.tobytes() not in plain


def test_a_dequantize_of_what_is_computed_stays():
    def build(tensor):
        tensor.type, tensor.buffer = schema.TensorType.FLOAT16, 0
        return np.zeros(0, np.uint8)

    data = with_constant(build, "DEQUANTIZE", [1, 4])
    assert with_float32_weights(data) is data


def test_sparse_rows_are_laid_out_with_zeros_between():
    # [[0, 7, 0], [0, 0, 0], [5, 0, 6]] in compressed rows: row 0 has one value, row 1 none, row 2 two
    plain = with_float32_weights(with_constant(sparse_rows([0, 1, 1, 3]), "DENSIFY", [3, 3]))
    assert [op.name for op in read_tflite(plain).graphs[0].operators] == ["ADD"]
    np.testing.assert_array_equal(constant_of(plain, "t1"), [[0, 7, 0], [0, 0, 0], [5, 0, 6]])


@pytest.mark.parametrize("segments", [[0, 1, 1, 9], [0, 3, 1, 3], [0, 1]])
def test_sparse_rows_that_name_other_values_than_there_are_are_refused(segments):
    data = with_constant(sparse_rows(segments), "DENSIFY", [3, 3])
    with pytest.raises((ValueError, IndexError)):
        with_float32_weights(data)


def test_sparse_blocks_lie_where_their_block_does():
    # blocks of 2 x 2 in a 4 x 4: one at the top right, one at the bottom left, each row by row
    def build(tensor):
        tensor.type = schema.TensorType.FLOAT32
        dense = [schema.DimensionMetadataT(format=schema.DimensionType.DENSE, denseSize=2) for _ in range(3)]
        columns = schema.DimensionMetadataT(
            format=schema.DimensionType.SPARSE_CSR,
            arraySegmentsType=schema.SparseIndexVector.Int32Vector,
            arraySegments=schema.Int32VectorT(values=[0, 1, 2]),
            arrayIndicesType=schema.SparseIndexVector.Int32Vector,
            arrayIndices=schema.Int32VectorT(values=[1, 0]),
        )
        tensor.sparsity = schema.SparsityParametersT(
            traversalOrder=[0, 1, 2, 3], blockMap=[0, 1], dimMetadata=[dense[0], columns, dense[1], dense[2]]
        )
        return np.arange(1, 9, dtype=np.float32)

    plain = with_float32_weights(with_constant(build, "DENSIFY", [4, 4]))
    expected = [[0, 0, 1, 2], [0, 0, 3, 4], [5, 6, 0, 0], [7, 8, 0, 0]]
    np.testing.assert_array_equal(constant_of(plain, "t1"), expected)


def test_the_chosen_signature_is_alone_and_its_graph_first():
    two = tflite([("ADD", 0, 1, 2)], [("MUL", 0, 1, 2)], signatures={"add": 0, "multiply": 1})
    one = read_tflite(with_one_signature(two, "multiply"))
    assert [(s.name, s.graph) for s in one.signatures] == [("multiply", 0)]
    assert [[op.name for op in graph.operators] for graph in one.graphs] == [["MUL"]]
    alone = tflite([("ADD", 0, 1, 2)], signatures={"add": 0})
    assert with_one_signature(alone, "add") is alone


def test_the_graphs_that_a_signature_calls_stay_under_their_new_numbers():
    def call(tree):
        tree.operatorCodes.append(schema.OperatorCodeT(builtinCode=118, deprecatedBuiltinCode=118, version=1))  # IF
        branches = schema.IfOptionsT(thenSubgraphIndex=2, elseSubgraphIndex=3)
        operator = schema.OperatorT(
            opcodeIndex=len(tree.operatorCodes) - 1,
            inputs=[0, 1],
            outputs=[2],
            builtinOptionsType=schema.BuiltinOptions.IfOptions,
            builtinOptions=branches,
        )
        tree.subgraphs[1].operators = [operator]

    graphs = [[(kind, 0, 1, 2)] for kind in ("ADD", "SUB", "MUL", "ADD")]
    data = changed(tflite(*graphs, signatures={"add": 0, "choose": 1}), call)
    tree = read_tree(with_one_signature(data, "choose"))
    options = tree.subgraphs[0].operators[0].builtinOptions
    kinds = [code.builtinCode for code in tree.operatorCodes]
    called = [tree.subgraphs[i].operators[0] for i in (options.thenSubgraphIndex, options.elseSubgraphIndex)]
    assert [kinds[op.opcodeIndex] for op in called] == [18, 0]  # MUL, ADD
    assert len(tree.subgraphs) == 3


def test_a_file_of_whole_numbers_is_not_a_quantized_one():
    def whole(tree):
        for tensor in tree.subgraphs[0].tensors:
            tensor.type = schema.TensorType.INT32

    data = changed(PLAIN, whole)
    assert stored_scheme(data) is Scheme.FLOAT32 and not is_kept_unchanged(data)
