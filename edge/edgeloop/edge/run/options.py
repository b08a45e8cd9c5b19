"""What a user asks of `run`: one frozen value, refused when it contradicts itself."""

from __future__ import annotations

from dataclasses import dataclass

from edgeloop.errors import OptionsError

STDIN, CAMERA = "-", "camera"
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What to answer, with what.

    Attributes:
        input: `-`: JSON lines on standard input. `camera`, `camera:WHICH`: the device's camera. Else a folder of frames
            on the device. None: `-`, or nothing with `http`.
        http: Port of an HTTP server on the device; 0: any that is free.
        host: Address it listens on.
        slot: Which deployed bundle; empty: the only one there is.
        variant, runtime: Empty: as it was deployed; of a bundle's folder, the first that runs here.
        threads: Of the runtime; None: as it was deployed.
        count: Answers to give; None: all.
        follow: Go on with frames that come into the folder later.
        pixels: What 0 and 255 of a picture become, where the manifest does not say.
        timeout_s: For the model to load, and for each answer.
    """

    input: str | None = None
    http: int | None = None
    host: str = LOOPBACK
    slot: str = ""
    variant: str = ""
    runtime: str = ""
    threads: int | None = None
    count: int | None = None
    follow: bool = False
    pixels: tuple[float, float] | None = None
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        if self.http is not None and self.input is not None:
            raise OptionsError("--http and --input are two ways to ask. Choose one.")
        if self.http is not None and not 0 <= self.http < 65536:
            raise OptionsError(f"port {self.http} does not exist. Expected 0 (any) to 65535.")
        if self.http is None and self.host != LOOPBACK:
            raise OptionsError("--host is about --http PORT, which is missing. Pass both, or neither.")
        if self.http is not None and self.count is not None:
            raise OptionsError("--count is about --input; a server has no end. Drop one of the two.")
        for name, value in (("--threads", self.threads), ("--count", self.count)):
            if value is not None and value < 1:
                raise OptionsError(f"{name} {value} is too few. Expected 1 or more.")
        if self.timeout_s <= 0:
            raise OptionsError(f"a timeout of {self.timeout_s:g} s is none. Expected more than 0.")
        if self.follow and not self.folder:
            raise OptionsError("--follow is about a folder of frames. Pass --input DIR.")
        if self.pixels is not None and not (self.folder or self.camera):
            raise OptionsError("--pixels is about pictures. Pass --input DIR or --input camera.")
        if self.pixels is not None and self.pixels[0] >= self.pixels[1]:
            raise OptionsError(f"--pixels {self.pixels[0]:g},{self.pixels[1]:g} is no range. Expected LOW,HIGH: 0,1.")

    @property
    def stdin(self) -> bool:
        return self.http is None and self.input in (None, STDIN)

    @property
    def camera(self) -> bool:
        return self.input is not None and self.input.partition(":")[0] == CAMERA

    @property
    def folder(self) -> str:
        """The folder of frames; empty where there is none."""
        return "" if self.stdin or self.camera else self.input or ""

    @property
    def endless(self) -> bool:
        """No answer is known to be the last."""
        return self.count is None and (self.camera or self.follow or self.http is not None)

    def arguments(self) -> list[str]:
        """For the `answer` part of the device's program."""
        named = {
            "--slot": self.slot,
            "--variant": self.variant,
            "--runtime": self.runtime,
            "--input": self.input,
            "--http": self.http,
            "--host": self.host if self.host != LOOPBACK else None,
            "--threads": self.threads,
            "--count": self.count,
            "--pixels": f"{self.pixels[0]!r},{self.pixels[1]!r}" if self.pixels else None,
            "--timeout": f"{self.timeout_s:g}",
        }
        words = [f"{name}={value}" for name, value in named.items() if value not in (None, "")]
        return [*words, *(["--follow"] if self.follow else [])]
