"""Names of devices in, devices out; a name may be that of a fleet file, which lists many and groups them.

    [devices]
    camera-1 = "ssh://pi@camera-1/~/edge/bin/python"
    camera-2 = "ssh://pi@camera-2/~/edge/bin/python"

    [groups]
    canaries = ["camera-1"]

`fleet.toml` means all of its devices, `fleet.toml#canaries` those of a group, `fleet.toml#camera-2` one of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeloop.errors import DataError, OptionsError
from edgeloop.runtime.device import DEVICE_FORMS, Device, parse_device
from edgeloop.settings import read_toml

SUFFIX = ".toml"
FLEET_FORMS = f"{DEVICE_FORMS}; or a fleet file's devices, fleet.toml or fleet.toml#GROUP"
TABLES = ("devices", "groups")


@dataclass(frozen=True)
class Fleet:
    """Devices by the name that the file gives them, in its order, and groups of these names."""

    devices: Mapping[str, Device]
    groups: Mapping[str, tuple[str, ...]]

    def members(self, name: str) -> list[Device]:
        """The devices of a group, or the one of that name; all where it is empty. Raises OptionsError: neither."""
        if not name:
            return list(self.devices.values())
        known = [*self.groups, *self.devices]
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise OptionsError(
                f"the fleet has no group and no device {name!r}",
                advice=f"Did you mean {near[0]}?" if near else f"Choose one of: {', '.join(known[:20])}.",
            )
        return [self.devices[one] for one in self.groups.get(name, (name,))]


def parse_devices(texts: Iterable[str]) -> tuple[list[Device], dict[str, list[Device]]]:
    """Devices as `parse_device` reads them, and those of fleet files, each once; the groups of these files by name.

    Raises:
        OptionsError: No device, group or name.
        DataError: A fleet file is damaged.
        DeviceError: As `parse_device`.
    """
    found: dict[Device, None] = {}
    groups: dict[str, list[Device]] = {}
    for text in texts:
        file, _, name = text.partition("#")
        if not file.endswith(SUFFIX):
            found[parse_device(text)] = None
            continue
        fleet = read_fleet(Path(file))
        found |= dict.fromkeys(fleet.members(name))
        groups |= {group: fleet.members(group) for group in fleet.groups}
    return list(found), groups


def read_fleet(path: Path) -> Fleet:
    """Read a fleet file.

    Raises:
        DataError: No TOML, another table, a name without an address, or a group of names that the file does not have.
        OptionsError, DeviceError: As `parse_device`, with the name in the file.
    """
    raw = read_toml(path)
    unknown = sorted(set(raw) - set(TABLES))
    if unknown or not isinstance(raw.get("devices"), dict) or not isinstance(raw.get("groups", {}), dict):
        found = f"the table {unknown[0]!r}" if unknown else "no table of devices"
        raise DataError(f"{path} has {found}", advice="Write [devices] with NAME = ADDRESS, and [groups].")
    devices = {name: _device(path, name, address) for name, address in raw["devices"].items()}
    groups = {name: _group(path, name, members, devices) for name, members in raw.get("groups", {}).items()}
    both = sorted(set(devices) & set(groups))
    if both:
        raise DataError(f"{path} calls a device and a group {both[0]!r}", advice="Give one of them another name.")
    return Fleet(devices, groups)


def _device(path: Path, name: str, address: Any) -> Device:
    if not isinstance(address, str):
        raise DataError(
            f"{path}: device {name} is {address!r}", advice='Write its address in quotes: "ssh://pi@camera-1".'
        )
    try:
        return parse_device(address)
    except OptionsError as e:
        raise OptionsError(f"{path}: device {name}: {e.found}", advice=e.advice) from e


def _group(path: Path, name: str, members: Any, devices: Mapping[str, Device]) -> tuple[str, ...]:
    listed = members if isinstance(members, list) else [members]
    lacking = [one for one in listed if not isinstance(one, str) or one not in devices]
    if lacking or not listed:
        found = f"names {lacking[0]!r}, which is none of its devices" if lacking else "is empty"
        raise DataError(f"{path}: group {name} {found}", advice="List names that stand under [devices].")
    return tuple(listed)
