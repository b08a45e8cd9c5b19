"""Numbers of tensor types, and shapes, as SavedModel and ONNX files hold them.

Sources: DataType of tensorflow/core/framework/types.proto, tensor_shape.proto, TensorProto.DataType of onnx.proto.
"""

from __future__ import annotations

from edgeloop.files.protobuf import messages, whole

TF_TYPE = """
float32 float64 int32 uint8 int16 int8 string complex64 int64 bool qint8 quint8 qint32 bfloat16 qint16 quint16 uint16
complex128 float16 resource variant uint32 uint64 float8_e5m2 float8_e4m3fn
"""
ONNX_TYPE = """
float32 uint8 int8 uint16 int16 int32 int64 string bool float16 float64 uint32 uint64 complex64 complex128 bfloat16
float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz uint4 int4 float4_e2m1
"""
TF_TYPES, ONNX_TYPES = (dict(enumerate(names.split(), 1)) for names in (TF_TYPE, ONNX_TYPE))


def tf_type(number: int) -> str:
    """Its name; a reference type is its type plus 100."""
    return TF_TYPES.get(number % 100, f"type {number}")


def tf_shape(shape: memoryview) -> list[int] | None:
    """Sizes of a TensorShapeProto, -1 where one is free; None: the number of dimensions is not known."""
    return None if whole(shape, 3) else [whole(dim, 1) for dim in messages(shape, 2)]


def onnx_type(number: int) -> str:
    return ONNX_TYPES.get(number, f"type {number}")
