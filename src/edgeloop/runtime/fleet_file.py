"""A fleet file in; its devices with their settings, and its groups, out.

    [defaults]                              # for every device of the file
    slot = "digits"

    [devices]
    camera-1 = "ssh://pi@camera-1/~/edge/bin/python"
    camera-2 = { address = "ssh://pi@camera-2", variant = "int8" }

    [groups]
    canaries = ["camera-1"]
    cameras = { devices = ["camera-1", "camera-2"], max-ram-mb = 80 }

What a device says of itself goes before its groups, and these before the defaults.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from edgeloop.errors import DataError, DeviceError, OptionsError
from edgeloop.runtime.device import Device, parse_device
from edgeloop.runtime.device_settings import DeviceSettings
from edgeloop.settings import build, read_toml, suggestion

# what stands in --waves beside groups, or behind a file as no group does
NO_GROUP = re.compile(r"\s*\d+(?:\.\d+)?%?\s*|.*[,#].*|\s*")
TABLES = ("devices", "groups", "defaults")
Kind = TypeVar("Kind", bound=DeviceSettings)


@dataclass(frozen=True)
class FleetDevice:
    """A device of a fleet file. `where` names its place in the file, for messages."""

    device: Device
    settings: DeviceSettings
    where: str


@dataclass(frozen=True)
class Fleet:
    """Devices by the name that the file gives them, in its order, and groups of these names."""

    devices: Mapping[str, FleetDevice]
    groups: Mapping[str, tuple[str, ...]]

    def members(self, name: str) -> list[FleetDevice]:
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


@dataclass(frozen=True, kw_only=True)
class _DeviceTable(DeviceSettings):
    address: str


@dataclass(frozen=True, kw_only=True)
class _GroupTable(DeviceSettings):
    devices: tuple[str, ...]


def read_fleet(path: Path) -> Fleet:
    """Read a fleet file.

    Raises:
        DataError: No TOML, a name without an address, a group of names that the file does not have, or groups that
            contradict each other.
        OptionsError: A table or key that is not known, or a value of another type; or as `parse_device`, with the
            name in the file.
        DeviceError: As `parse_device`.
    """
    raw = read_toml(path)
    for name in raw:
        if name not in TABLES:
            raise DataError(f"{path} has the table {name!r}", advice=suggestion(name, TABLES))
    for name in TABLES:
        if not isinstance(raw.get(name, {}), dict) or (name == "devices" and name not in raw):
            raise DataError(
                f"{path} has no table of {name}", advice="Write [devices] with NAME = ADDRESS, and [groups]."
            )
    defaults = _table(DeviceSettings, raw.get("defaults", {}), f"{path}: defaults")
    devices = {name: _device(path, name, given) for name, given in raw["devices"].items()}
    groups = {name: _group(path, name, given, devices) for name, given in raw.get("groups", {}).items()}
    both = sorted(set(devices) & set(groups))
    if both:
        raise DataError(f"{path} calls a device and a group {both[0]!r}", advice="Give one of them another name.")
    whole = {
        name: replace(one, settings=one.settings.over(_of_groups(one, name, groups)).over(defaults))
        for name, one in devices.items()
    }
    return Fleet(whole, {name: group.devices for name, group in groups.items()})


def _table(kind: type[Kind], given: Any, where: str) -> Kind:
    try:
        return build(kind, given)
    except OptionsError as e:
        raise OptionsError(f"{where}: {e.found}", advice=e.advice) from e


def _device(path: Path, name: str, given: Any) -> FleetDevice:
    where = f"{path}: device {name}"
    if not isinstance(given, str | dict):
        raise DataError(f"{where} is {given!r}", advice='Write its address in quotes: "ssh://pi@camera-1".')
    table = _table(_DeviceTable, {"address": given} if isinstance(given, str) else given, where)
    try:
        device = parse_device(table.address)
    except (OptionsError, DeviceError) as e:
        raise type(e)(f"{where}: {e.found}", advice=e.advice) from e
    return FleetDevice(replace(device, alias=name), table.over(DeviceSettings()), where)


def _group(path: Path, name: str, given: Any, devices: Mapping[str, FleetDevice]) -> _GroupTable:
    where = f"{path}: group {name}"
    if NO_GROUP.fullmatch(name):
        raise DataError(
            f"{where} has a name that --waves reads as something else", advice="Choose a word, e.g. canaries."
        )
    listed = given.get("devices", []) if isinstance(given, dict) else given
    members = listed if isinstance(listed, list) else [listed]
    lacking = [one for one in members if not isinstance(one, str) or one not in devices]
    if lacking or not members:
        found = f"names {lacking[0]!r}, which is none of its devices" if lacking else "is empty"
        raise DataError(f"{where} {found}", advice="List names that stand under [devices].")
    return _table(_GroupTable, {**(given if isinstance(given, dict) else {}), "devices": members}, where)


def _of_groups(one: FleetDevice, name: str, groups: Mapping[str, _GroupTable]) -> DeviceSettings:
    """What the groups of a device say of it. Raises DataError: two of them differ, and the device does not decide."""
    of: dict[str, str] = {}
    told: dict[str, Any] = {}
    own = one.settings.said()
    for group, table in groups.items():
        for key, value in table.said().items() if name in table.devices else ():
            if key not in own and told.setdefault(key, value) != value:
                key_written = key.replace("_", "-")
                raise DataError(
                    f"{one.where}: groups {of[key]} and {group} give {key_written} as {told[key]!r} and {value!r}",
                    advice=f"Give the device itself a {key_written}, or change a group.",
                )
            of.setdefault(key, group)
    return DeviceSettings(**told)
