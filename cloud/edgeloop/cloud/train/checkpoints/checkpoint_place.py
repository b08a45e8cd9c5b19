"""Where checkpoints are kept: a folder of this machine, or a folder of an object store through fsspec (s3://, gs://).

    PLACE/step-00000050/    variables.index, variables.data-*, and manifest.json, which is written last
    PLACE/latest            the name of the newest one, written after it

On this machine a checkpoint appears by one rename (atomic.py). An object store can only write single objects at once:
a folder without its manifest is no checkpoint there, and `latest` is one object.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from edgeloop.atomic import discard, new_folder, sweep, write_file
from edgeloop.errors import DeviceError, OptionsError, WriteError, one_line
from edgeloop.extras import need

MANIFEST = "manifest.json"
LATEST = "latest"
PREFIX = "step-"


class CheckpointPlace(Protocol):
    """`where` names it in messages."""

    where: str

    def names(self) -> list[str]:
        """Complete checkpoints, the oldest first."""

    def latest(self) -> str:
        """The name that was published last; empty: none was."""

    def publish(self, name: str, fill: Callable[[Path], None]) -> None:
        """Keep what `fill` writes into an empty folder as the checkpoint `name`; whole, or not at all."""

    def fetched(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """The files of a checkpoint in a folder of this machine."""

    def remove(self, name: str) -> None:
        """Remove a checkpoint, or what was left of one."""

    def sweep(self) -> None:
        """Remove what killed writers left, where nobody writes now."""


def open_place(place: str | Path) -> CheckpointPlace:
    """The place that a path or an address names."""
    scheme, separator, _ = str(place).partition("://")
    return StorePlace(str(place), scheme) if separator else FolderPlace(Path(place))


class FolderPlace:
    def __init__(self, folder: Path) -> None:
        self.folder, self.where = folder, str(folder)

    def names(self) -> list[str]:
        return sorted(path.parent.name for path in self.folder.glob(f"{PREFIX}*/{MANIFEST}"))

    def latest(self) -> str:
        pointer = self.folder / LATEST
        return pointer.read_text().strip() if pointer.is_file() else ""

    def publish(self, name: str, fill: Callable[[Path], None]) -> None:
        with new_folder(self.folder / name) as unfinished:
            fill(unfinished)
        write_file(self.folder / LATEST, name.encode())

    @contextlib.contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        yield self.folder / name

    def remove(self, name: str) -> None:
        discard(self.folder / name)

    def sweep(self) -> None:
        if self.folder.is_dir():
            sweep(str(self.folder))


class StorePlace:
    """TensorFlow has no file system of its own for these addresses: files are written here first, then sent."""

    def __init__(self, address: str, scheme: str) -> None:
        fsspec = need("fsspec", extra="cloud")
        self.where = address.rstrip("/")
        try:
            self.store, self.root = fsspec.core.url_to_fs(self.where)
        except ValueError as e:
            raise OptionsError(
                f"checkpoints cannot be kept at {address}: {one_line(e)}",
                advice="Choose a folder, or an address that fsspec knows, e.g. s3://BUCKET/FOLDER.",
            ) from e

    def names(self) -> list[str]:
        with self._asking("listed"):
            self.store.invalidate_cache()
            found = self.store.glob(f"{self.root}/{PREFIX}*/{MANIFEST}")
            return sorted(path.split("/")[-2] for path in found)

    def latest(self) -> str:
        with self._asking("read"):
            self.store.invalidate_cache()
            pointer = f"{self.root}/{LATEST}"
            return self.store.cat_file(pointer).decode().strip() if self.store.exists(pointer) else ""

    def publish(self, name: str, fill: Callable[[Path], None]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            fill(Path(folder))
            try:
                for path in sorted(Path(folder).iterdir(), key=lambda path: path.name == MANIFEST):
                    self.store.put_file(str(path), f"{self.root}/{name}/{path.name}")
                self.store.pipe_file(f"{self.root}/{LATEST}", name.encode())
            except Exception as e:  # of every store, its own client's classes
                raise WriteError(
                    f"{self.where}/{name} cannot be written: {one_line(e)}",
                    advice="Check the address and the right to write there.",
                ) from e

    @contextlib.contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            with self._asking("read"):
                for path in self.store.ls(f"{self.root}/{name}", detail=False):
                    self.store.get_file(path, str(Path(folder, path.rpartition("/")[2])))
            yield Path(folder)

    def remove(self, name: str) -> None:
        with self._asking("removed"):
            # the manifest first: a rest without it is no checkpoint
            for path in sorted(self.store.ls(f"{self.root}/{name}", detail=False), key=lambda p: MANIFEST not in p):
                self.store.rm_file(path)

    def sweep(self) -> None:
        complete = set(self.names())
        with self._asking("listed"):
            left = {path.rstrip("/").rpartition("/")[2] for path in self.store.glob(f"{self.root}/{PREFIX}*")}
        for name in left - complete:
            self.remove(name)

    @contextlib.contextmanager
    def _asking(self, doing: str) -> Iterator[Any]:
        try:
            yield
        except Exception as e:  # of every store, its own client's classes
            raise DeviceError(
                f"the checkpoints at {self.where} cannot be {doing}: {one_line(e)}",
                advice="Check the address, the network and the right to read there.",
            ) from e
