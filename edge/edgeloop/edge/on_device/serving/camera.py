"""A camera of the device in; its newest frames out. A slow reader misses frames, and never gets an old one.

A program of the system reads the camera and writes raw frames to a pipe: rpicam-vid (on older systems libcamera-vid)
for a Raspberry Pi's, ffmpeg for V4L2, as USB cameras are. Python 3.9 syntax.

Sources
    https://www.raspberrypi.com/documentation/computers/camera_software.html
    https://ffmpeg.org/ffmpeg-devices.html (video4linux2)
    rpicam-vid pads rows of yuv420 to 64 bytes (rpicam-apps issue 188), of which 640 is a multiple; its colours are
    JPEG's, BT.601 of full range (rpicam_vid.cpp, get_colourspace_flags)
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np

from edgeloop.errors import DeviceError
from edgeloop.leftovers import log_file
from edgeloop.processes.children import owned
from edgeloop.processes.exit_status import exit_status

WIDTH, HEIGHT, RATE_HZ = 640, 480, 30
START_S, FRAME_S = 20.0, 10.0  # waits for the first frame, and for each after it


@dataclass(frozen=True)
class Camera:
    """A program that writes frames of `frame_bytes` bytes; `pixels` makes uint8 [height, width, 3] of one."""

    command: Sequence[str]
    frame_bytes: int
    pixels: Callable[[bytes], np.ndarray]


def camera_frames(which: str, say: Callable[[str], None]) -> Generator[tuple[int, np.ndarray], None, None]:
    """Number since the start, from 1, and pixels; without end. `which`: a number, a /dev/video, or empty for the first.

    Raises:
        DeviceError: No camera, with the reason of each program that looked for one; or it stopped.
    """
    reasons: list[str] = []
    for camera in cameras(which):
        with contextlib.ExitStack() as stack:
            newest = stack.enter_context(_started(camera))
            try:
                found = newest.wait(0, START_S)
            except DeviceError as e:
                reasons.append(e.found)
                continue
            say(f"reading frames with {camera.command[0]}")
            while True:
                yield found[0], camera.pixels(found[1])
                found = newest.wait(found[0], FRAME_S)
    why = "; ".join(reasons) or "found neither rpicam-vid, nor ffmpeg with a /dev/video*"
    raise DeviceError(
        f"no camera works on this device: {why}", advice="Connect one, and install rpicam-apps or ffmpeg."
    )


def cameras(which: str) -> list[Camera]:
    """Programs to try, in this order."""
    found = []
    raspberry = next((path for path in map(shutil.which, ("rpicam-vid", "libcamera-vid")) if path), None)
    if raspberry and not which.startswith("/"):
        size = ["--width", str(WIDTH), "--height", str(HEIGHT), "--framerate", str(RATE_HZ)]
        number = ["--camera", which] if which else []
        found.append(
            Camera(
                [raspberry, "-t", "0", "-n", *number, "--codec", "yuv420", *size, "--flush", "-o", "-"],
                WIDTH * HEIGHT * 3 // 2,
                yuv420,
            )
        )
    ffmpeg = shutil.which("ffmpeg")
    videos = [which] if which.startswith("/") else sorted(glob.glob(f"/dev/video{which or '*'}"))
    if ffmpeg and videos:
        quiet = [ffmpeg, "-nostdin", "-hide_banner", "-loglevel", "error"]
        raw = ["-vf", f"scale={WIDTH}:{HEIGHT}", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
        found.append(Camera([*quiet, "-f", "v4l2", "-i", videos[0], *raw], WIDTH * HEIGHT * 3, rgb24))
    return found


def rgb24(frame: bytes) -> np.ndarray:
    return np.frombuffer(frame, np.uint8).reshape(HEIGHT, WIDTH, 3)


def yuv420(frame: bytes) -> np.ndarray:
    """Planes Y, U and V, the latter two of half the width and height, to RGB.

    Source: ITU-T T.871 (JFIF), 7
    """
    size = WIDTH * HEIGHT
    planes = np.frombuffer(frame, np.uint8).astype(np.float32)
    y = planes[:size].reshape(HEIGHT, WIDTH)
    u, v = (
        np.repeat(np.repeat(plane.reshape(HEIGHT // 2, WIDTH // 2) - 128, 2, axis=0), 2, axis=1)
        for plane in (planes[size : size + size // 4], planes[size + size // 4 :])
    )
    rgb = np.stack([y + 1.402 * v, y - 0.344136 * u - 0.714136 * v, y + 1.772 * u], axis=-1)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


class _NewestFrame:
    """What the program wrote last, whole. A thread reads all the time: a full pipe would hold old frames back."""

    def __init__(self, child: subprocess.Popen, camera: Camera, log: IO[bytes]) -> None:
        self.child, self.camera, self.log = child, camera, log
        self.count, self.frame, self.ended = 0, b"", False
        self.changed = threading.Condition()
        assert child.stdout is not None
        # an end of its own: whoever ends the child closes the other, and would wait for this thread's read
        threading.Thread(target=self._read, args=(os.dup(child.stdout.fileno()),), daemon=True).start()

    def wait(self, seen: int, timeout_s: float) -> tuple[int, bytes]:
        """The newest frame after number `seen`. Raises DeviceError where none comes."""
        with self.changed:
            self.changed.wait_for(lambda: self.count > seen or self.ended, timeout_s)
            if self.count > seen:
                return self.count, self.frame
        name = self.camera.command[0]
        if not self.ended:
            raise DeviceError(f"{name} gave no frame in {timeout_s:g} s", advice="Check the camera and its cable.")
        status = exit_status(self.child, self.log)
        raise DeviceError(
            f"{name} ended after {self.count} frames ({status})", advice="Check the camera, and run again."
        )

    def _read(self, pipe: int) -> None:
        with os.fdopen(pipe, "rb") as frames:
            # None: whoever ends the child lets nobody wait at the pipe any more
            while len(frame := frames.read(self.camera.frame_bytes) or b"") == self.camera.frame_bytes:
                with self.changed:
                    self.count, self.frame = self.count + 1, frame
                    self.changed.notify_all()
        with self.changed:
            self.ended = True
            self.changed.notify_all()


@contextlib.contextmanager
def _started(camera: Camera) -> Iterator[_NewestFrame]:
    with log_file() as log, owned(camera.command, stdout=subprocess.PIPE, stderr=log) as child:
        yield _NewestFrame(child, camera, log)
