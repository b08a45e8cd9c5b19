"""Memory that a step of a conversion no longer needs, given back to the system before the next one asks for more."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os

from edgeloop.processes.sandbox import resident_bytes

SMALL_BYTES = 1_100_000_000  # TensorFlow and a detector of 12 MB hold 1.0 GB here, and end at 1.2 GB


def give_back() -> None:
    """tf2onnx leaves cycles of objects behind, and glibc keeps what TensorFlow freed.

    MobileNetV2-224, all forms: the peak is 1.67 GB without and 1.49 GB with it; TFLiteConverter alone has 1.28 GB, and
    tf2onnx 1.68 GB. An OCR net of 54 MB: 3.2 and 2.8 GB. It takes 0.3 CPU seconds, so a process that holds less than
    SMALL_BYTES is left as it is.
    """
    if 0 < resident_bytes(os.getpid()) < SMALL_BYTES:
        return
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # glibc has it, musl and macOS do not
        ctypes.CDLL(None).malloc_trim(0)
