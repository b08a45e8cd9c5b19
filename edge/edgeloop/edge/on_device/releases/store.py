"""A slot on the disk: where its parts lie, and what its state says.

    slots/NAME/releases/N        installed releases; N.1 where the version is there already
    slots/NAME/current           a link to one of them
    slots/NAME/staging/          what is being uploaded
    slots/NAME/state.json        the truth: `current` and `releases` are made to follow it (recover.py)

Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from urllib.parse import quote, unquote

from edgeloop.atomic import replace_file
from edgeloop.errors import IntegrityError, OptionsError

NAME_LIMIT_BYTES = 200  # a file system takes 255, and names get endings here


@dataclass(frozen=True)
class Release:
    """An installed release: which folder below `releases`, what it is, how it runs, and who signed it (None: nobody
    whose signature was checked)."""

    folder: str
    version: int
    variant: str
    runtime: str
    threads: int
    manifest_sha256: str
    signer: str | None


@dataclass(frozen=True)
class StagedRelease:
    """What lies in `staging`; `runtime` None until a trial on it went well."""

    manifest_sha256: str
    variant: str
    runtime: str | None = None
    threads: int = 1


@dataclass(frozen=True)
class LastChange:
    """What was done to the slot last. result: committed, or rolled back with the reason."""

    action: str
    version: int
    result: str
    reason: str | None = None


@dataclass(frozen=True)
class SlotState:
    """`floor`: the highest version ever committed, 0 before the first. `probation`: activated, and not committed."""

    floor: int = 0
    current: Release | None = None
    previous: Release | None = None
    probation: Release | None = None
    staged: StagedRelease | None = None
    last: LastChange | None = None


@dataclass(frozen=True)
class Slot:
    """The place of all releases of one name. Any name has its own folder: what a path cannot hold is percent-encoded.

    Raises:
        OptionsError: No name, or one too long for a file system.
    """

    home: str
    name: str

    def __post_init__(self) -> None:
        if not self.name or len(_folder_name(self.name)) > NAME_LIMIT_BYTES:
            raise OptionsError(
                f"the slot's name {self.name[:40]!r} does not fit a folder's",
                advice=f"It must have 1 to {NAME_LIMIT_BYTES} bytes.",
            )

    @property
    def path(self) -> str:
        return os.path.join(self.home, "slots", _folder_name(self.name))

    @property
    def staging(self) -> str:
        return os.path.join(self.path, "staging")

    @property
    def releases(self) -> str:
        return os.path.join(self.path, "releases")

    @property
    def current(self) -> str:
        return os.path.join(self.path, "current")

    @property
    def state(self) -> str:
        return os.path.join(self.path, "state.json")

    def release(self, release: Release) -> str:
        return os.path.join(self.releases, release.folder)


def slots(home: str) -> list[Slot]:
    """Those that are there, by name; a folder that is no slot's is none."""
    folder = os.path.join(home, "slots")
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    own = [n for n in names if n.isascii() and len(n) <= NAME_LIMIT_BYTES and _folder_name(unquote(n)) == n]
    return [Slot(home, unquote(name)) for name in own if os.path.isdir(os.path.join(folder, name))]


def read_state(slot: Slot) -> SlotState:
    """An empty one before the first.

    Raises:
        IntegrityError: The file is there and holds no state.
    """
    try:
        with open(slot.state, "rb") as file:
            raw = json.loads(file.read())
    except FileNotFoundError:
        return SlotState()
    except ValueError as e:
        raise _damaged(slot, e) from e
    try:
        return SlotState(
            floor=raw["floor"],
            current=raw["current"] and Release(**raw["current"]),
            previous=raw["previous"] and Release(**raw["previous"]),
            probation=raw["probation"] and Release(**raw["probation"]),
            staged=raw["staged"] and StagedRelease(**raw["staged"]),
            last=raw["last"] and LastChange(**raw["last"]),
        )
    except (KeyError, TypeError) as e:
        raise _damaged(slot, e) from e


def write_state(slot: Slot, state: SlotState) -> None:
    """Whole or not at all, and on the disk when it returns."""
    replace_file(slot.state, json.dumps(asdict(state), sort_keys=True).encode())


def _folder_name(name: str) -> str:
    quoted = quote(name, safe="")
    return "%2E" + quoted[1:] if quoted.startswith(".") else quoted


def _damaged(slot: Slot, error: Exception) -> IntegrityError:
    return IntegrityError(
        f"{slot.state} is damaged ({type(error).__name__}: {error})",
        advice="Delete the slot's folder on the device, and deploy again.",
    )
