"""Every step that changes a disk, made a point where a fault can strike; and what a power cut there would lose."""

from __future__ import annotations

import builtins
import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CALLS = ("rename", "replace", "symlink", "link", "unlink", "mkdir", "rmdir", "fsync")

# (what, path or paths) of a step that is about to be taken; of a write, half of the bytes are in the file already
Before = Callable[[str, tuple[Path, ...]], None]


@contextlib.contextmanager
def points(before: Before) -> Iterator[None]:
    """Tell `before` of every step within the block; it may raise, or end the process."""
    real = {name: getattr(os, name) for name in CALLS}
    real_open = builtins.open

    def call(name: str) -> Callable[..., Any]:
        def told(*args: Any, **more: Any) -> Any:
            before(
                name, tuple(_path(arg) for arg in args[:2] if isinstance(arg, (str, os.PathLike)) or name == "fsync")
            )
            return real[name](*args, **more)

        return told

    def told_open(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        if not set(mode) & set("wax"):
            return real_open(file, mode, *args, **more)
        before("open", (_path(file),))
        return Told(real_open(file, mode, *args, **more), before, _path(file))

    try:
        for name in CALLS:
            setattr(os, name, call(name))
        builtins.open = told_open  # type: ignore[assignment]
        yield
    finally:
        builtins.open = real_open
        for name, function in real.items():
            setattr(os, name, function)


class Told:
    """A file opened for writing. A write is told of when half of it is done: so does a kill or a full disk tear it."""

    def __init__(self, file: Any, before: Before, path: Path) -> None:
        self.file, self.before, self.path = file, before, path

    def write(self, data: bytes) -> int:
        half = len(data) // 2
        self.file.write(data[:half])
        self.file.flush()
        self.before("write", (self.path,))
        return half + self.file.write(data[half:])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Told:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


@dataclass
class Disk:
    """Which files and folders have changed since they were last synced, and what was published all the same.

    A power cut loses what was written and not synced, and names whose folder was not synced. So when a rename publishes
    (the state, the link, a release), all it publishes must be on the disk, and all that was published before.
    """

    unsynced: set[Path] = field(default_factory=set)
    due: dict[Path, str] = field(default_factory=dict)  # folders with a new name in them, of what was published
    published: list[str] = field(default_factory=list)
    lost: list[tuple[str, Path]] = field(default_factory=list)

    def before(self, what: str, paths: tuple[Path, ...]) -> None:
        path = paths[-1]
        if path.name == "lock":  # it holds nothing, and any start makes it
            return
        if what == "fsync":
            self.unsynced.discard(path)
            self.due.pop(path, None)
        elif what == "write":
            self.unsynced.add(path)
        elif what in ("open", "mkdir", "symlink") and not path.exists():
            self.unsynced |= {path, path.parent} if what == "open" else {path.parent}
        elif what in ("rename", "replace"):
            self._renamed(*paths)

    def _renamed(self, source: Path, target: Path) -> None:
        moved = {path for path in self.unsynced if path == source or source in path.parents}
        self.unsynced -= moved
        if target.parent.name == "releases" or target.name in ("state.json", "current"):
            self.published.append(target.name)
            # an upload is not published yet; the folder itself has the old name in it, and is synced after the rename
            others = {p for p in self.unsynced if "staging" not in p.parts} - {source.parent}
            self.lost += [(target.name, path) for path in moved | others | self.due.keys()]
            self.due |= {source.parent: target.name, target.parent: target.name}
        self.unsynced |= {source.parent, target.parent}


def _path(value: Any) -> Path:
    return Path(f"/proc/self/fd/{value}").readlink() if isinstance(value, int) else Path.cwd() / value
