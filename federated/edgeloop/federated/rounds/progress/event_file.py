"""Numbers of each round as TensorBoard reads them, written without TensorBoard and without TensorFlow.

Sources
    https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto and summary.proto
    https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from edgeloop.atomic import write_file
from edgeloop.disk_errors import writing
from edgeloop.tfrecord import framed

VERSION = b"brain.Event:2"  # the first record of every such file


class EventFile:
    """A new file in `folder`, whose name TensorBoard knows by "tfevents".

    Args:
        began_s: Seconds since 1970; part of the name.
    """

    def __init__(self, folder: Path, began_s: float) -> None:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"events.out.tfevents.{int(began_s)}.edgeloop"
        write_file(self.path, framed(_double(1, began_s) + _bytes(3, VERSION)))

    def add(self, step: int, moment_s: float, numbers: Mapping[str, float]) -> None:
        """Append the numbers of one step.

        Raises:
            WriteError: The disk refuses.
        """
        values = (_bytes(1, name.encode()) + _float(2, value) for name, value in numbers.items())
        summary = b"".join(_bytes(1, value) for value in values)
        event = _double(1, moment_s) + _whole(2, step) + _bytes(5, summary)
        with writing(self.path), self.path.open("ab") as file:
            file.write(framed(event))


def _whole(number: int, value: int) -> bytes:
    return bytes([number << 3]) + _varint(value)


def _double(number: int, value: float) -> bytes:
    return bytes([number << 3 | 1]) + struct.pack("<d", value)


def _bytes(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _float(number: int, value: float) -> bytes:
    return bytes([number << 3 | 5]) + struct.pack("<f", value)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
