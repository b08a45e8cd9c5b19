"""The schema of a .tflite as data: tables for `FlatbufferTable`, names of operators and of tensor types by number.

Source: https://github.com/google-ai-edge/LiteRT (tflite/schema/schema.fbs), as in ai-edge-litert 2.3. Fields stand in
the order of their ids, as far as they are read; "" for one that is not looked at.
"""

from __future__ import annotations

MODEL: dict[str, tuple[tuple[str, str], ...]] = {
    "Model": (
        ("", ""),
        ("operator_codes", "[OperatorCode]"),
        ("subgraphs", "[SubGraph]"),
        ("", ""),
        ("buffers", "[Buffer]"),
        ("", ""),
        ("", ""),
        ("signature_defs", "[SignatureDef]"),
    ),
    "OperatorCode": (
        ("deprecated_builtin_code", "i8"),
        ("custom_code", "text"),
        ("version", "i32"),
        ("builtin_code", "i32"),
    ),
    "SubGraph": (
        ("tensors", "[Tensor]"),
        ("inputs", "[i32]"),
        ("outputs", "[i32]"),
        ("operators", "[Operator]"),
        ("name", "text"),
    ),
    "Tensor": (
        ("shape", "[i32]"),
        ("type", "i8"),
        ("buffer", "u32"),
        ("name", "text"),
        ("quantization", "QuantizationParameters"),
        ("is_variable", "u8"),
        ("", ""),
        ("shape_signature", "[i32]"),
    ),
    "QuantizationParameters": (("", ""), ("", ""), ("scale", "[f32]"), ("zero_point", "[i64]")),
    "Operator": (
        ("opcode_index", "u32"),
        ("inputs", "[i32]"),
        ("outputs", "[i32]"),
        ("", ""),
        ("builtin_options", "at"),
    ),
    "Buffer": (("data", "span"), ("", ""), ("size", "u64")),
    "SignatureDef": (
        ("inputs", "[TensorMap]"),
        ("outputs", "[TensorMap]"),
        ("signature_key", "text"),
        ("", ""),
        ("subgraph_index", "u32"),
    ),
    "TensorMap": (("name", "text"), ("tensor_index", "u32")),
}

# The builtin_options of an operator, for those of which something is looked at
OPTIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "ADD": (("activation", "i8"),),
    "AVERAGE_POOL_2D": (
        *(("", ""), ("stride_w", "i32"), ("stride_h", "i32")),
        *(("filter_w", "i32"), ("filter_h", "i32"), ("activation", "i8")),
    ),
    "BATCH_MATMUL": (("adj_x", "u8"), ("adj_y", "u8")),
    "CALL_ONCE": (("init_subgraph_index", "i32"),),
    "CONCATENATION": (("axis", "i32"), ("activation", "i8")),
    "CONV_2D": (
        *(("", ""), ("stride_w", "i32"), ("stride_h", "i32"), ("activation", "i8")),
        *(("dilation_w", "i32"), ("dilation_h", "i32")),
    ),
    "DEPTHWISE_CONV_2D": (
        *(("", ""), ("stride_w", "i32"), ("stride_h", "i32"), ("", ""), ("activation", "i8")),
        *(("dilation_w", "i32"), ("dilation_h", "i32")),
    ),
    "FULLY_CONNECTED": (("activation", "i8"), ("weights_format", "i8"), ("keep_num_dims", "u8")),
    "IF": (("then_subgraph_index", "i32"), ("else_subgraph_index", "i32")),
    "MAX_POOL_2D": (
        *(("", ""), ("stride_w", "i32"), ("stride_h", "i32")),
        *(("filter_w", "i32"), ("filter_h", "i32"), ("activation", "i8")),
    ),
    "MUL": (("activation", "i8"),),
    "PACK": (("", ""), ("axis", "i32")),
    "RESIZE_BILINEAR": (("", ""), ("", ""), ("align_corners", "u8"), ("half_pixel_centers", "u8")),
    "RESIZE_NEAREST_NEIGHBOR": (("align_corners", "u8"), ("half_pixel_centers", "u8")),
    "STRIDED_SLICE": (
        *(("begin_mask", "i32"), ("end_mask", "i32"), ("ellipsis_mask", "i32")),
        *(("new_axis_mask", "i32"), ("shrink_axis_mask", "i32")),
    ),
    "SUB": (("activation", "i8"),),
    "TRANSPOSE_CONV": (("", ""), ("stride_w", "i32"), ("stride_h", "i32"), ("activation", "i8")),
    "WHILE": (("cond_subgraph_index", "i32"), ("body_subgraph_index", "i32")),
}

BUILTIN_OPERATOR = """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR
FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION
LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH
CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER
BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE
BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM
ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE TILE
EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR
ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE
RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND
COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE
NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM BATCH_MATMUL
PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS HASHTABLE
HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE
BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1
UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2 UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR
RIGHT_SHIFT STABLEHLO_LOGISTIC STABLEHLO_ADD STABLEHLO_DIVIDE STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM STABLEHLO_RESHAPE
STABLEHLO_CLAMP STABLEHLO_CONCATENATE STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CONVOLUTION STABLEHLO_SLICE
STABLEHLO_CUSTOM_CALL STABLEHLO_REDUCE STABLEHLO_ABS STABLEHLO_AND STABLEHLO_COSINE STABLEHLO_EXPONENTIAL
STABLEHLO_FLOOR STABLEHLO_LOG STABLEHLO_MINIMUM STABLEHLO_NEGATE STABLEHLO_OR STABLEHLO_POWER STABLEHLO_REMAINDER
STABLEHLO_RSQRT STABLEHLO_SELECT STABLEHLO_SUBTRACT STABLEHLO_TANH STABLEHLO_SCATTER STABLEHLO_COMPARE
STABLEHLO_CONVERT STABLEHLO_DYNAMIC_SLICE STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_PAD STABLEHLO_IOTA
STABLEHLO_DOT_GENERAL STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT STABLEHLO_WHILE STABLEHLO_GATHER STABLEHLO_TRANSPOSE
DILATE STABLEHLO_RNG_BIT_GENERATOR REDUCE_WINDOW STABLEHLO_COMPOSITE STABLEHLO_SHIFT_LEFT STABLEHLO_CBRT
STABLEHLO_CASE
"""
OPERATORS = tuple(BUILTIN_OPERATOR.split())  # by number from 0

TENSOR_TYPE = """
float32 float16 int32 uint8 int64 string bool int16 complex64 int8 float64 complex128 uint64 resource variant uint32
uint16 int4 bfloat16 int2 uint4 float8_e4m3fn float8_e5m2
"""
TENSOR_TYPES = tuple(TENSOR_TYPE.split())  # by number from 0
