"""What a variant of a bundle can be: its format and its scheme. Python 3.9 syntax, the standard library."""

from __future__ import annotations

import enum


class Scheme(str, enum.Enum):
    """How the numbers of a variant are stored and computed with.

    float16 and int4 are about weights alone; dynamic has int8 weights and float32 activations; int8 computes in
    integers throughout; int16x8 does with int16 activations; mixed has operators of several of these.
    """

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    DYNAMIC = "dynamic"
    INT8 = "int8"
    INT16X8 = "int16x8"
    INT4 = "int4"
    MIXED = "mixed"


class Format(str, enum.Enum):
    """What kind of file a variant is."""

    TFLITE = "tflite"
    ONNX = "onnx"
    TFJS = "tfjs"
    SAVEDMODEL = "savedmodel"
