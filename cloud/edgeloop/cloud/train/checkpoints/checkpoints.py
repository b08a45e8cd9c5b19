"""Checkpoints of a training: written while it goes on, whole or not at all, the newest N kept.

A checkpoint is what `checkpoint_files` writes, and `manifest.json`: the step, the plain state of the loop, and the size
and hash of every file. Where the newest one is damaged the one before is taken, and the run says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeloop.canonical import canonical_json, read_json
from edgeloop.cloud.train.checkpoints.checkpoint_files import read_values, snapshot, write_values
from edgeloop.cloud.train.checkpoints.checkpoint_place import MANIFEST, PREFIX, CheckpointPlace, open_place
from edgeloop.errors import IntegrityError, ModelError, WriteError
from edgeloop.hashes import digest
from edgeloop.progress import Say
from edgeloop.quantities import at_least

FOLDER = "checkpoints"  # of a run folder
FORMAT = "edgeloop-checkpoint/1"
AGAIN = "Restore the files, or remove the folder to begin again."


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointOptions:
    """When and where checkpoints are written.

    Attributes:
        place: A folder, or an address that fsspec knows (s3://..., gs://...); empty: `checkpoints/` of the run folder.
        every_steps: Steps that a killed training loses at most; 0: checkpoints are written at the end of each epoch.
        keep: How many of the newest ones stay.
        shard_mb: Largest data file of a checkpoint (10^6 bytes); a larger single value has a file of its own.
        wait_until_written: Training waits until a checkpoint is on the disk.
    """

    place: str = field(default="", metadata={"folder": True})
    every_steps: int = 0
    keep: int = 3
    shard_mb: int = 256
    wait_until_written: bool = False

    @property
    def spacing(self) -> int:
        """Steps from the beginning of one checkpoint to that of the next; 0: only at the end of each epoch.

        Half of `every_steps` where training goes on meanwhile: of two the older one is on the disk.
        """
        return self.every_steps if self.wait_until_written else -(-self.every_steps // 2)

    def __post_init__(self) -> None:
        for name, least in (("every_steps", 0), ("keep", 1), ("shard_mb", 1)):
            at_least(getattr(self, name), least, f"[checkpoints] {name.replace('_', '-')}")


@dataclass(frozen=True, slots=True)
class Restored:
    """What a training goes on from.

    Attributes:
        step: Steps that were done.
        state: The loop's own plain values, as given to `save`.
    """

    step: int
    state: dict[str, Any]


def open_checkpoints(options: CheckpointOptions, out: Path, say: Say, writes: bool) -> Checkpoints:
    """Those of the run in `out`."""
    return Checkpoints(options.place or out / FOLDER, options, say, writes)


def check_empty(options: CheckpointOptions, out: Path) -> None:
    """Where a run begins no checkpoints lie: `resume` would go on from those of another run.

    Raises:
        WriteError: Some do.
    """
    place = open_place(options.place or out / FOLDER)
    if place.names():
        raise WriteError(
            f"{place.where} holds the checkpoints of another run",
            advice="Choose another [checkpoints] place, remove them, or go on with the run that wrote them (--resume).",
        )


class Checkpoints:
    """The checkpoints of one training; a context manager, whose end waits for the one that is being written.

    Args:
        writes: Whether this process writes; of several workers only one does, and all of them call `save`.
        say: Hears which checkpoint was damaged.
    """

    def __init__(self, place: str | Path, options: CheckpointOptions, say: Say, writes: bool = True) -> None:
        self.place: CheckpointPlace = open_place(place)
        self.options, self.say, self.writes = options, say, writes
        self._writer = ThreadPoolExecutor(1, "edgeloop-checkpoint")
        self._writing: Future[None] | None = None
        if writes:
            self.place.sweep()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.wait()
        finally:
            self._writer.shutdown()

    def save(self, step: int, values: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Take what the named values hold now and write it in the background. At most one checkpoint is being written:
        the next one waits for it.

        Raises:
            WriteError: This checkpoint, or the one before, cannot be written.
        """
        taken = snapshot(values)
        if not self.writes:
            return
        self.wait()
        self._writing = self._writer.submit(self._write, step, taken, dict(state))
        if self.options.wait_until_written:
            self.wait()

    def wait(self) -> None:
        """Until nothing is being written any more. Raises what that failed with."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def newest_step(self) -> int:
        """Steps before the newest complete checkpoint; 0: there is none."""
        self.wait()
        names = self.place.names()
        return int(names[-1].removeprefix(PREFIX)) if names else 0

    def restore(self, values: Mapping[str, Any], *, partial: bool = False) -> Restored | None:
        """Give the values what the newest sound checkpoint holds; None: there is none yet.

        Args:
            partial: Whether the checkpoint may hold more than these values.

        Raises:
            IntegrityError: All of them are damaged, or it is of another model or optimizer.
        """
        self.wait()
        damaged = []
        for name in reversed(self.place.names()):
            with self.place.fetched(name) as folder:
                try:
                    manifest = checked(folder)
                except (IntegrityError, ModelError) as e:
                    damaged.append(f"{name}: {e.clause}")
                    continue
                if damaged:
                    self.say(f"A damaged checkpoint is left out ({'; '.join(damaged)}). Training goes on from {name}.")
                read_values(values, folder, partial)
                return Restored(manifest["step"], manifest["state"])
        if damaged:
            raise IntegrityError(f"no sound checkpoint is left ({'; '.join(damaged)})", advice=AGAIN)
        return None

    def _write(self, step: int, taken: Any, state: dict[str, Any]) -> None:
        def fill(folder: Path) -> None:
            write_values(taken, folder, self.options.shard_mb * 10**6)
            files = {path.name: {"bytes": path.stat().st_size, "sha256": digest(path)} for path in folder.iterdir()}
            manifest = {"format": FORMAT, "step": step, "state": state, "files": files}
            (folder / MANIFEST).write_bytes(canonical_json(manifest))

        written = f"{PREFIX}{step:08d}"
        self.place.publish(written, fill)
        names = self.place.names()
        # later ones are damaged: training went on from one before them
        kept = [name for name in names if name <= written][-self.options.keep :]
        for name in names:
            if name not in kept:
                self.place.remove(name)


def checked(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint whose files are as it says.

    Raises:
        IntegrityError: A file is missing or holds something else.
        ModelError: The manifest is none.
    """
    manifest = read_json((folder / MANIFEST).read_bytes(), MANIFEST)
    if manifest.get("format") != FORMAT:
        raise IntegrityError(f"the format is {manifest.get('format')!r}, expected {FORMAT!r}", advice=AGAIN)
    for name, file in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise IntegrityError(f"{name} is missing", advice=AGAIN)
        if path.stat().st_size != file["bytes"]:
            raise IntegrityError(f"{name} has {path.stat().st_size} bytes, expected {file['bytes']}", advice=AGAIN)
        if digest(path) != file["sha256"]:
            raise IntegrityError(f"{name} does not have the hash that it was written with", advice=AGAIN)
    return manifest
