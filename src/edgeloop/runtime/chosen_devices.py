"""Names of devices in, devices out; a name may be that of a fleet file, which lists many (fleet_file.py).

`fleet.toml` means all of its devices, `fleet.toml#canaries` those of a group, `fleet.toml#camera-2` one of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from edgeloop.errors import OptionsError
from edgeloop.runtime.device import BROWSER, DEVICE_FORMS, Device, parse_device
from edgeloop.runtime.fleet_file import FleetDevice, read_fleet

FILE = re.compile(r"(?P<file>.*\.toml)(?:#(?P<name>[^#]*))?", re.DOTALL)
FLEET_FORMS = f"{DEVICE_FORMS}; or a fleet file's devices, fleet.toml or fleet.toml#GROUP"


@dataclass
class ChosenDevices:
    """The devices that were named, each once, and what fleet files say of them.

    Attributes:
        groups: Of all devices of these files, by name.
        listed: Every entry of a fleet file that was named; several where they have one address.
    """

    devices: list[Device] = field(default_factory=list)
    groups: dict[str, list[Device]] = field(default_factory=dict)
    listed: dict[Device, list[FleetDevice]] = field(default_factory=dict)

    def entries(self) -> dict[Device, FleetDevice]:
        """What the files say of each device; nothing of one that no file lists.

        Raises:
            OptionsError: Two entries of one device contradict each other.
        """
        for first, *others in self.listed.values():
            for other in others:
                if other.settings != first.settings:
                    raise OptionsError(
                        f"{first.where} and {other.where} are the same machine, and say different things of it",
                        advice="Name one of them, or a group that has one of them.",
                    )
        return {device: entries[0] for device, entries in self.listed.items()}


def is_fleet_file(text: str) -> bool:
    """Whether the name of a device is fleet.toml or fleet.toml#NAME."""
    return FILE.fullmatch(text) is not None


def parse_devices(texts: Iterable[str]) -> list[Device]:
    """The devices that `choose_devices` finds. Raises as it does."""
    return choose_devices(texts).devices


def parse_bench_devices(texts: Iterable[str]) -> list[Device]:
    """As `parse_devices`, and `browser`, which nothing is deployed to."""
    asked = list(texts)
    found = parse_devices(text for text in asked if text != BROWSER.name)
    return [*found, *[BROWSER] * (BROWSER.name in asked)]


def choose_devices(texts: Iterable[str]) -> ChosenDevices:
    """Devices as `parse_device` reads them, and those of fleet files.

    Raises:
        OptionsError: No device, group or name; or as `read_fleet`.
        DataError: A fleet file is damaged.
        DeviceError: As `parse_device`.

    Example:
        >>> [device.alias for device in choose_devices(["fleet.toml#cameras"]).devices]
        ['camera-1', 'camera-2']
    """
    chosen = ChosenDevices()
    found: dict[Device, Device] = {}
    for text in texts:
        named = FILE.fullmatch(text)
        if named is None:
            device = parse_device(text)
            found.setdefault(device, device)
            continue
        fleet = read_fleet(Path(named["file"]))
        for one in fleet.members(named["name"] or ""):
            found[one.device] = one.device if one.device not in chosen.listed else found[one.device]
            chosen.listed.setdefault(one.device, []).append(one)
        chosen.groups |= {group: [one.device for one in fleet.members(group)] for group in fleet.groups}
    chosen.devices += found.values()
    return chosen
