"""The page and a bundle as a static site, for any host: `browse BUNDLE --export DIR`.

The site is folders of plain files. It works at any address and below any path; the headers that a host can add give it
what `edgeloop browse` gives: isolation, and files that browsers keep.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeloop.atomic import new_folder
from edgeloop.browser.assets import PAGE, need_assets
from edgeloop.browser.host_files import FIRST_LINE, README, host_files
from edgeloop.browser.served_files import ServedFile, page_files
from edgeloop.browser.server import ROUTES
from edgeloop.bundle import MANIFEST, PROOF, parse_manifest, read_bundle
from edgeloop.errors import ModelError, OptionsError

EXPORTED = b'<meta name="edgeloop-exported" content="yes" />'  # web/src/page/routes.ts reads it


@dataclass(frozen=True)
class ExportedSite:
    """What was written: the folder, and the sizes of the page and of the bundle's files."""

    folder: Path
    page_bytes: int
    bundle_bytes: int


def export(bundle_folder: str | Path, folder: str | Path) -> ExportedSite:
    """Write the site, in one step; an export that is there is replaced.

    Raises:
        ModelError, IntegrityError: As `read_bundle`.
        OptionsError: `folder` holds something that is no export, or files that no export wrote.
        WriteError: The disk or the permissions refuse.
        MissingExtra: The page was not built.
    """
    bundle = read_bundle(bundle_folder)
    page = need_assets(PAGE).parent.resolve()
    _refuse_foreign(Path(folder))
    names = [name for name in (*bundle.manifest.files, MANIFEST, PROOF) if (bundle.path / name).is_file()]
    own = page_files(page)
    others = {f"bundle/{name}": ServedFile(path=bundle.path / name) for name in names}
    with new_folder(folder) as site:
        sizes = [sum(_copy(file, site / name) for name, file in part.items()) for part in (own, others)]
        index = site / "index.html"
        index.write_bytes(index.read_bytes().replace(ROUTES, EXPORTED + ROUTES, 1))
        for name, text in host_files().items():
            (site / name).write_text(text, encoding="utf-8")
    return ExportedSite(Path(folder), *sizes)


def _copy(file: ServedFile, target: Path) -> int:
    """Uncompressed; its size in bytes. Hosts compress by themselves."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with file.open(None) as source, target.open("xb") as written:
        shutil.copyfileobj(source, written, 1 << 20)
        return written.tell()


def _refuse_foreign(folder: Path) -> None:
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    readme = folder / README
    if not (readme.is_file() and readme.read_bytes().startswith(FIRST_LINE.encode())):
        raise OptionsError(
            f"{folder} is not empty and holds no site that edgeloop wrote",
            advice="Pass --export with a new folder, or an empty one.",
        )
    own = _written(folder)
    inside = {parent.as_posix() for name in own for parent in Path(name).parents}
    foreign = sorted(_first_foreign(folder, own, inside))
    if foreign:
        named = ", ".join(foreign[:5]) + (f" and {len(foreign) - 5} more" if foreign[5:] else "")
        raise OptionsError(
            f"{folder} holds what edgeloop did not write and would delete: {named}",
            advice="Pass --export with a new folder and copy the site from there, or move these files away.",
        )


def _written(folder: Path) -> set[str]:
    """The names that the export in this folder has by its own lists: of the page's files and of the bundle's."""
    names = {*host_files(), "bundle/" + MANIFEST, "bundle/" + PROOF}
    with contextlib.suppress(
        OSError, ValueError, LookupError, TypeError, AttributeError
    ):  # a damaged list names nothing
        names.update(page_files(folder))
    with contextlib.suppress(OSError, ModelError):
        names.update(f"bundle/{name}" for name in parse_manifest((folder / "bundle" / MANIFEST).read_bytes()).files)
    return names


def _first_foreign(folder: Path, own: set[str], inside: set[str], below: str = "") -> Iterator[str]:
    """What is not of the export; of a folder that is wholly foreign the folder alone."""
    for entry in (folder / below).iterdir():
        name = below + entry.name
        if name in inside and entry.is_dir() and not entry.is_symlink():
            yield from _first_foreign(folder, own, inside, f"{name}/")
        elif name not in own:
            yield name
