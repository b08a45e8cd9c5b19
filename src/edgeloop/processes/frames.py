"""What host and device say to each other: frames, and named arrays in them. Python 3.9 syntax.

A frame is one JSON line {"v": 1, "id", "op", "bytes", ...} of at most 1 MiB, then `bytes` bytes of payload. An empty
line between frames is a sign of life (signs_of_life.py).
What handles arrays loads NumPy itself: a program that only speaks starts in a fraction of the time.
"""

from __future__ import annotations

import io
import json
import os
import select
import threading
import time
from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING, Any

from edgeloop.disk_errors import DISK, write_error
from edgeloop.errors import error_to_json
from edgeloop.processes.signs_of_life import SIGN, WatchedInput

if TYPE_CHECKING:
    import numpy as np

Header = Mapping[str, Any]
Operation = Callable[[Header, bytes], "tuple[Mapping[str, Any], bytes]"]

HEADER_LIMIT_BYTES = 1 << 20
PAYLOAD_LIMIT_BYTES = 1 << 31
ENTRY_LIMIT = 1024  # arrays of an archive that nobody of ours may have written
GRACE_S = 1.0


def serve(operations: Mapping[str, Operation], end_with_host: bool = True) -> None:
    """Answer frames on stdin until it ends or says `close`; `operations` {op: (header, payload) -> (answer, payload)}.

    A failure is an answer with "error" (`error_to_json`) and leaves the program running. Prints go to stderr.
    `end_with_host`: this process ends shortly after stdin did, in the middle of an operation too.
    """
    watched = WatchedInput()
    requests = io.BufferedReader(watched)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # before a runtime loads: its prints must not land between frames
    if end_with_host:
        threading.Thread(target=_end_with_host, daemon=True).start()
    while True:
        frame = read_frame(requests, watched.watch)
        if frame is None or frame[0].get("op") == "close":
            return
        header, payload = frame
        try:
            answer, data = operations[header["op"]](header, payload)
        except OSError as error:
            told = write_error(error.filename or os.getcwd(), error) if error.errno in DISK else error
            answer, data = {"error": error_to_json(told)}, b""
        except Exception as error:  # every failure travels to the host, which names and raises it
            answer, data = {"error": error_to_json(error)}, b""
        write_frame(answers, dict(answer, id=header.get("id"), op=header.get("op")), data)


def _end_with_host() -> None:
    """Behind ssh no signal tells that the host is gone; a runtime that hangs would never see the end of stdin."""
    stdin = select.poll()
    stdin.register(0, select.POLLHUP | getattr(select, "POLLRDHUP", 0))
    stdin.poll()
    time.sleep(GRACE_S)  # for an answer that is nearly there, and an orderly end
    os._exit(1)


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Named arrays as the bytes of an .npz. Not np.savez: to it, a tensor named `file` is its own first parameter."""
    import zipfile

    import numpy as np

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, value in arrays.items():
            with archive.open(name + ".npy", "w", force_zip64=True) as entry:  # an entry may exceed 2 GiB
                np.lib.format.write_array(entry, np.asarray(value), allow_pickle=False)
    return packed.getvalue()


def unpack(data: bytes, stored: bool = False) -> dict[str, np.ndarray]:
    """Named arrays of the bytes of an .npz. ValueError for anything else, and for pickles.

    `stored`: refuse compressed arrays and arrays that overlap, so that they take no more memory than `data` does.
    """
    import zipfile

    import numpy as np

    arrays: dict[str, np.ndarray] = {}
    try:
        entries = data.count(b"PK\1\2")  # zipfile makes an object for each, whatever the archive says of their number
        if stored and entries > ENTRY_LIMIT:
            raise ValueError(f"{entries} arrays, more than {ENTRY_LIMIT}")
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
            if stored and any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("an array is compressed")
            if size > (len(data) if stored else PAYLOAD_LIMIT_BYTES):  # zeros are packed a thousand to one
                raise ValueError(f"{size} bytes in an archive of {len(data)}")
            for name in archive.namelist():
                with archive.open(name) as entry:
                    array = np.lib.format.read_array(entry, allow_pickle=False)
                arrays[name[: -len(".npy")] if name.endswith(".npy") else name] = array
    except Exception as e:  # of damaged bytes zipfile, zlib and NumPy raise a dozen kinds, a tokenizer's among them
        raise ValueError(f"{type(e).__name__}: {e}") from e
    return arrays


def read_frame(stream: IO[bytes], at_sign: Callable[[], None] = lambda: None) -> tuple[dict[str, Any], bytes] | None:
    """Header and payload, or None at the end of the stream; `at_sign` is called for every sign of life before it.
    ValueError for anything that is no frame."""
    while (line := stream.readline(HEADER_LIMIT_BYTES + 1)) == SIGN:
        at_sign()
    if not line:
        return None
    if len(line) > HEADER_LIMIT_BYTES or not line.endswith(b"\n"):
        raise ValueError("a frame header is one line of at most 1 MiB")
    header = json.loads(line)
    size = header.get("bytes", 0)
    if not isinstance(size, int) or not 0 <= size <= PAYLOAD_LIMIT_BYTES:
        raise ValueError(f"a payload of {size!r} bytes")
    payload = stream.read(size)
    if len(payload) != size:
        raise ValueError("the payload ended early")
    return header, payload


def write_frame(stream: IO[bytes], header: Header, payload: bytes = b"") -> None:
    stream.write(json.dumps(dict(header, v=1, bytes=len(payload))).encode() + b"\n" + payload)
    stream.flush()
