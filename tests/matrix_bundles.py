"""Small bundles made by hand, a device folder that takes them, and a runtime that costs nothing: tests of releases.

A variant's file holds a 2 x 2 float32 matrix, and its model is x -> x @ matrix. So what runs says which file it is.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from edgeloop.bundle import (
    MANIFEST,
    REFERENCE,
    SIGNATURE,
    FileEntry,
    Format,
    Manifest,
    Requirements,
    Scheme,
    Signature,
    TensorSpec,
    Variant,
    read_bundle,
)
from edgeloop.edge.on_device.releases.release_agent import ReleaseAgent
from edgeloop.edge.on_device.releases.store import Slot
from edgeloop.hashes import digest
from edgeloop.processes.frames import pack
from edgeloop.runtime.agent.child_model import ChildRun
from edgeloop.runtime.agent.protocol import SelfCheckReply
from edgeloop.runtime.parity.compare import RunContext
from edgeloop.runtime.parity.reference_runs import ReferenceRuns

X = np.array([[1, 0], [0, 1], [2, -1]], np.float32)
NAME, VARIANT, ENTRY, LABELS = "tiny", "float32", "float32.tflite", "labels/en.txt"
LITERT = Requirements(("litert",))


def matrix(version: int) -> np.ndarray:
    """Another one for each version."""
    return np.array([[version, 0.5], [-1, 2]], np.float32)


def write_bundle(
    folder: Path,
    version: int = 1,
    name: str = NAME,
    requires: Requirements = LITERT,
    answers: np.ndarray | None = None,
    reference: bool = True,
    labels: bytes = b"left\nright\n",
) -> Path:
    """A bundle of two variants, one with a file in a folder. `answers`: what the reference says, if not the truth."""
    files = {ENTRY: matrix(version).tobytes(), "other.tflite": matrix(-version).tobytes(), LABELS: labels}
    if reference:
        files[REFERENCE] = pack({"in/x": X, "out/y": X @ matrix(version) if answers is None else answers})
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    specs = (TensorSpec("x", (None, 2), "float32"),), (TensorSpec("y", (None, 2), "float32"),)
    variants = tuple(
        Variant(id, files[0], files, Format.TFLITE, Scheme.FLOAT32, ("infer",), requires=requires)
        for id, files in ((VARIANT, (ENTRY, LABELS)), ("other", ("other.tflite",)))
    )
    manifest = Manifest(
        name=name,
        version=version,
        source={"file": "tiny.keras", "format": "keras", "sha256": "0" * 64},
        files={path: FileEntry(len(data), hashlib.sha256(data).hexdigest()) for path, data in files.items()},
        signatures={"infer": Signature(*specs)},
        variants=variants,
    )
    (folder / MANIFEST).write_bytes(manifest.to_bytes())
    return folder


class Matrix:
    """Stands in for ChildModel: `entry` read from the disk at each start."""

    version = "1"

    def __init__(self, file: Path, wall_ms: float) -> None:
        self.signatures = {"infer": {"inputs": {"x": {"shape": [None, 2], "dtype": "float32"}}, "outputs": {}}}
        self.matrix, self.wall_ms = np.frombuffer(file.read_bytes(), np.float32).reshape(2, 2), wall_ms
        self.folder, self.reference_runs = str(file.parent), None

    def run(self, inputs: Mapping[str, np.ndarray], signature: str) -> ChildRun:
        return ChildRun({"y": inputs["x"] @ self.matrix}, self.wall_ms, 1 << 20)

    def self_check(self, variant: str, first: bool = False) -> SelfCheckReply:
        if self.reference_runs is None:
            where = RunContext(variant, "litert", self.version)
            self.reference_runs = ReferenceRuns(self, self.signatures, self.folder, where)
        done = self.reference_runs.first() if first else self.reference_runs.check()
        return SelfCheckReply([asdict(row) for row in done.parity], done.wrong, done.wall_ms, 1 << 20)


@contextlib.contextmanager
def matrix_runtime(runtime: str, folder: str, entry: str, threads: int, timeout_s: float) -> Iterator[Matrix]:
    """Stands in for `model_in_child`."""
    yield Matrix(Path(folder) / entry, wall_ms=1.0)


@dataclass
class Deployer:
    """One deployer's session with a device folder, as the host's end asks it. `runtime` loads models there."""

    home: Path
    runtime: Callable = matrix_runtime
    keep: ReleaseAgent = field(init=False)

    def __post_init__(self) -> None:
        self.keep = ReleaseAgent(str(self.home), self.runtime)

    def ask(self, op: str, payload: bytes = b"", **fields) -> dict:
        return self.keep.operations()[op](fields, payload)[0]

    def end(self) -> None:
        """As a process that ends lets go of its locks."""
        for lock in self.keep.locks.values():
            lock.close()

    def stage(self, bundle: Path, variant: str = VARIANT, slot: str = NAME) -> dict:
        """`begin` and every `push`, the signature too where there is one."""
        answer = self.ask("begin", (bundle / MANIFEST).read_bytes(), slot=slot, variant=variant)
        signature = [SIGNATURE] if (bundle / SIGNATURE).exists() and not answer["unchanged"] else []
        for path in [*answer["missing"], *signature]:
            self.push(bundle, path, slot)
        return answer

    def push(self, bundle: Path, path: str, slot: str = NAME) -> dict:
        data = (bundle / path).read_bytes()
        fields = {"slot": slot, "path": path, "size": len(data), "sha256": digest(str(bundle / path))}
        answer = self.ask("push", **fields)
        return answer if answer["done"] else self.ask("push", data[answer["have"] :], **fields, offset=answer["have"])

    def check(self) -> dict:
        return self.ask("check", slot=NAME, runtime="litert")

    def trial(self) -> dict:
        return self.ask("trial", slot=NAME, runtime="litert", threads=1)

    def deploy(self, bundle: Path, variant: str = VARIANT, **probation) -> dict:
        """All of it. An unchanged one ends where it begins."""
        if self.stage(bundle, variant)["unchanged"]:
            return {"result": "unchanged"}
        self.check()
        self.trial()
        return self.ask("activate", slot=NAME, probation={"runs": 3, **probation})

    def told(self) -> dict:
        """What `status` says of the slot."""
        return self.ask("status")["slots"][NAME]


def slot(home: Path) -> Slot:
    return Slot(str(home), NAME)


def running(home: Path) -> int | None:
    """The version under `current`, every hash checked and the model asked; None: nothing is installed.

    Raises:
        AssertionError: What is there is not one whole release.
    """
    current = Path(slot(home).current)
    if not current.is_symlink():
        return None
    bundle = read_bundle(current)
    assert bundle.variants, "the release has no whole variant"
    answer = Matrix(bundle.file(bundle.variants[0].entry), 0).run({"x": X}, "infer").outputs["y"]
    sign = 1 if bundle.variants[0].id == VARIANT else -1
    np.testing.assert_array_equal(answer, X @ matrix(sign * bundle.manifest.version))
    return bundle.manifest.version
