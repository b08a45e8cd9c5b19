"""A .keras or .h5 file: paths, sizes, links, and layers that are code. Nothing is unpacked to disk by name.

Sources
    zip     https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
    code    CVE-2025-1550 and CVE-2025-8747: configs that name modules and functions, past Keras's own safe_mode
"""

from __future__ import annotations

import json
import shutil
import stat
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO, Any

from edgeloop.convert.sources.identify import LIMIT_BYTES
from edgeloop.errors import ModelError
from edgeloop.extras import need
from edgeloop.files.keras_config import code_in
from edgeloop.files.stored_zip import bounded_zip

CONFIG_LIMIT_BYTES = 64 << 20
# weights hardly shrink (normal float32 noise by 7%, zlib), zeros shrink 1000 times: below this size a bomb does no harm
BOMB_BYTES, BOMB_RATIO = 64 << 20, 100
OBJECTS_LIMIT = 1_000_000  # groups and datasets of an .h5; each layer has a few
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def scan_keras(path: Path) -> list[str]:
    """What of a .keras or .h5 runs code or reads files when it is loaded.

    Raises:
        ModelError: Leads out of itself, unpacks beyond the limits, or has no model in it.
    """
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    _check_is_one_file(path, zipped)
    if not zipped:
        return [f"has {what}" for what in code_in(_h5_config(path))]
    with bounded_zip(path) as archive:
        _check_entries(path, archive)
        if "config.json" not in archive.namelist():
            raise ModelError(
                f"{path} is a zip file without config.json, so it is not a Keras 3 model",
                advice="Save it with model.save().",
            )
        config = json.loads(archive.read("config.json"))
        for entry in archive.infolist():
            if entry.filename.endswith((".h5", ".hdf5")):
                with tempfile.TemporaryFile() as copy, archive.open(entry) as packed:
                    shutil.copyfileobj(packed, copy)
                    _check_h5(path, copy)
    if isinstance(config, dict):
        config.pop("compile_config", None)  # the loader is told not to compile
    return [f"has {what}" for what in code_in(config)]


def _check_is_one_file(path: Path, zipped: bool) -> None:
    """Raises ModelError where a loader of Keras may take another part of the file for the model than is looked at here.

    Keras and tf_keras read a zip where one ends the file and its name ends with .keras, and else HDF5, whose first byte
    may lie behind anything (at 512, 1024, ...).
    """
    if zipped and path.suffix != ".keras":
        raise ModelError(f"{path} is a zip file that is not named .keras", advice="Rename it to NAME.keras.")
    if not zipped and zipfile.is_zipfile(path):
        raise ModelError(
            f"{path} is an HDF5 file and a zip file at once, and readers differ in which one they take",
            advice="Get the model from a source you trust.",
        )


def _check_entries(path: Path, archive: zipfile.ZipFile) -> None:
    """Raises ModelError for names that lead out, links, doubles, and sizes that only a bomb has."""
    seen, total = set(), 0
    for entry in archive.infolist():
        name = entry.filename
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if name.startswith(("/", "\\")) or ".." in parts or ":" in name or "\0" in entry.orig_filename:
            raise ModelError(
                f"{path} holds the path {name!r}, which leads out of the file",
                advice="Get the model from a source you trust.",
            )
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise ModelError(
                f"{path} holds the link {name!r}",
                advice="A model may hold plain files only. Get the model from a source you trust.",
            )
        if name in seen:
            raise ModelError(
                f"{path} holds {name!r} twice, and readers differ in which one they take",
                advice="Get the model from a source you trust.",
            )
        if entry.compress_type not in METHODS:
            raise ModelError(
                f"{path} packs {name!r} with method {entry.compress_type}",
                advice="Only stored and deflated entries are read: save the model again with Keras.",
            )
        seen.add(name)
        total += entry.file_size
        limit = CONFIG_LIMIT_BYTES if name.endswith(".json") else LIMIT_BYTES
        bomb = entry.file_size > BOMB_BYTES and entry.file_size > BOMB_RATIO * entry.compress_size
        if bomb or entry.file_size > limit or total > LIMIT_BYTES:
            raise ModelError(
                f"{path} unpacks {name!r} from {entry.compress_size} to {entry.file_size} bytes, {total} in all",
                advice=f"The limits are {limit}, {LIMIT_BYTES} in all, and {BOMB_RATIO} times the packed size.",
            )


def _h5_config(path: Path) -> Any:
    with path.open("rb") as file:
        config = _check_h5(path, file)
    if config is None:
        raise ModelError(
            f"{path} holds weights but no model", advice="Save it with model.save() instead of save_weights()."
        )
    return json.loads(config)


def _check_h5(path: Path, file: IO[bytes]) -> str | bytes | None:
    """The attribute `model_config` of an open HDF5 file whose data all lies in the file and within the limits.

    Raises:
        ModelError: Links or storage outside the file, a dataset over the limits.
    """
    h5py = need("h5py", extra="convert")
    total, seen = 0, set()
    with h5py.File(file, "r") as root:
        open_ = [root]
        while open_:
            group = open_.pop()
            for name in group:
                link = group.get(name, getlink=True)
                if isinstance(link, h5py.ExternalLink):
                    raise ModelError(
                        f"{path} links {name!r} to another file, {link.filename!r}",
                        advice="Get the model from a source you trust.",
                    )
                if isinstance(link, h5py.SoftLink):
                    continue  # to something inside, which has a name of its own
                item = group[name]
                address = h5py.h5o.get_info(item.id).addr
                if address in seen:
                    continue  # a group may hold itself
                seen.add(address)
                if len(seen) > OBJECTS_LIMIT:
                    raise ModelError(
                        f"{path} holds more than {OBJECTS_LIMIT} objects, the limit",
                        advice="Get the model from a source you trust.",
                    )
                if isinstance(item, h5py.Group):
                    open_.append(item)
                elif isinstance(item, h5py.Dataset):
                    total += _dataset_bytes(path, item)
        if total > LIMIT_BYTES:
            raise ModelError(
                f"{path} holds weights of {total} bytes, the limit is {LIMIT_BYTES}", advice="Convert a smaller model."
            )
        return root.attrs.get("model_config")


def _dataset_bytes(path: Path, dataset: Any) -> int:
    if dataset.external or dataset.is_virtual:
        raise ModelError(
            f"{path} keeps the data of {dataset.name!r} in another file",
            advice="Get the model from a source you trust.",
        )
    size, stored = int(dataset.nbytes), int(dataset.id.get_storage_size())
    if size > LIMIT_BYTES or (size > BOMB_BYTES and size > BOMB_RATIO * stored):
        raise ModelError(
            f"{path}: the dataset {dataset.name!r} of shape {list(dataset.shape)} grows from {stored} to {size} bytes",
            advice=f"The limits are {LIMIT_BYTES} bytes and {BOMB_RATIO} times the packed size.",
        )
    return size
