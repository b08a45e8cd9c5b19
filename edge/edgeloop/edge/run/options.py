"""The options of `run`, as one frozen value that refuses contradictions."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgeloop.edge.on_device.pull.pull_options import PullOptions, arguments_of
from edgeloop.errors import OptionsError
from edgeloop.http.base_server import LOOPBACK
from edgeloop.quantities import above_zero

STDIN, CAMERA = "-", "camera"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What to run, on which inputs.

    Attributes:
        input: `-`: JSON lines on standard input. `camera`, `camera:WHICH`: the device's camera. Else a folder of frames
            on the device. None: `-`, or nothing with `http`.
        http: Port of an HTTP server on the device; 0: any that is free.
        host: Address it listens on.
        slot: The deployed bundle, by name; empty: the only one there is.
        variant, runtime: Empty: as it was deployed; of a bundle's folder, the first that runs here.
        threads: Of the runtime; None: as it was deployed.
        count: Results to give; None: all.
        watch: Also take frames that come into the folder later.
        pull: Where the device fetches its releases itself; None: they are deployed to it.
        pixels: What the pixel values 0 and 255 become, where the manifest does not say.
        timeout_s: For the model to load, and for each result.
    """

    input: str | None = None
    http: int | None = None
    host: str = LOOPBACK
    slot: str = ""
    variant: str = ""
    runtime: str = ""
    threads: int | None = None
    count: int | None = None
    watch: bool = False
    pull: PullOptions | None = None
    pixels: tuple[float, float] | None = None
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        if self.http is not None and self.input is not None:
            raise OptionsError("--http and --input exclude each other", advice="Pass one of them.")
        if self.http is not None and not 0 <= self.http < 65536:
            raise OptionsError(f"--http is {self.http}", advice="It must be from 0 (any free port) to 65535.")
        if self.http is None and self.host != LOOPBACK:
            raise OptionsError("--host needs --http PORT", advice="Pass both, or neither.")
        if self.http is not None and self.count is not None:
            raise OptionsError("--count applies to --input, not to a server", advice="Leave out --count or --http.")
        for name, value in (("--threads", self.threads), ("--count", self.count)):
            if value is not None and value < 1:
                raise OptionsError(f"{name} is {value}", advice="It must be 1 or more.")
        above_zero(self.timeout_s, "--timeout-s")
        if self.watch and not self.folder:
            raise OptionsError("--watch needs a folder of frames", advice="Pass --input DIR.")
        if self.pull is not None and self.slot not in ("", self.pull.address.name):
            raise OptionsError(
                f"--slot is {self.slot!r}, and --follow names the model {self.pull.address.name!r}",
                advice="Leave --slot out.",
            )
        if self.pixels is not None and not (self.folder or self.camera):
            raise OptionsError("--pixels applies to images", advice="Pass --input DIR or --input camera.")
        if self.pixels is not None and not -math.inf < self.pixels[0] < self.pixels[1] < math.inf:
            raise OptionsError(
                f"--pixels is {self.pixels[0]:g},{self.pixels[1]:g}", advice="LOW must be below HIGH, e.g. 0,1."
            )

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
        """No result is known to be the last."""
        return self.count is None and (self.camera or self.watch or self.http is not None)

    def arguments(self) -> list[str]:
        """Of the device's program (on_device/serving/serve.py)."""
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
        return [*words, *(["--watch"] if self.watch else []), *(arguments_of(self.pull) if self.pull else [])]
