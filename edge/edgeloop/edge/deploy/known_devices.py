"""The devices this machine has enrolled or deployed to: a list of names, so that `edgeloop devices` can ask them.

It holds neither what runs there, which the devices are asked, nor how to log in, which ssh knows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from edgeloop.atomic import write_file
from edgeloop.errors import DataError, DeviceError, OptionsError, WriteError
from edgeloop.processes.file_lock import exclusive
from edgeloop.runtime.device import Device, parse_device
from edgeloop.runtime.user_data import data_folder

FLEET = "EDGELOOP_FLEET"
LOCK_S = 10.0  # held for one small write


def known_devices_file() -> Path:
    """$EDGELOOP_FLEET, else fleet.json in the user's data folder."""
    named = os.environ.get(FLEET)
    return Path(named) if named else data_folder() / "fleet.json"


def known_devices() -> list[Device]:
    """In the order they were added.

    Raises:
        DataError: The list is damaged, or holds a name that is no device.
    """
    return [_device(name) for name in _names(known_devices_file())]


def add_devices(devices: Iterable[Device]) -> None:
    """Add those that are not in the list; two edgeloops at once lose none.

    Raises:
        DataError: The list is damaged.
        WriteError: It may not be written.
    """
    file = known_devices_file()
    new = [absolute_name(device) for device in devices]
    if not set(new) - set(_names(file)):
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(file.with_name(file.name + ".lock"), LOCK_S):
            names = list(dict.fromkeys([*_names(file), *new]))
            write_file(file, json.dumps({"devices": names}, indent=1).encode() + b"\n")
    except TimeoutError as e:
        raise WriteError(f"{e}, by another edgeloop", advice=f"End that one, or name another list in {FLEET}.") from e
    except OSError as e:
        raise WriteError(f"cannot write {file} ({e.strerror})", advice=f"Name another list in {FLEET}.") from e


def _names(file: Path) -> list[str]:
    try:
        names = json.loads(file.read_bytes())["devices"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DataError(
            f"{file} is not a list of devices ({type(e).__name__}: {e})", advice="Correct it, or delete it."
        ) from e
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"{file} is not a list of devices", advice='Expected {"devices": [NAME, ...]}; correct it, or delete it.'
        )
    return names


def _device(name: str) -> Device:
    try:
        return parse_device(name)
    except OptionsError as e:
        raise DataError(
            f"{known_devices_file()} holds a name that is not a device: {e.found}", advice="Correct it, or delete it."
        ) from e
    except DeviceError:  # an interpreter that is no more: it is said when the device is asked
        return Device(name, Path(name.partition(":")[2]))


def absolute_name(device: Device) -> str:
    """The name, valid in any folder: local:PYTHON may be relative."""
    return f"local:{device.python}" if device.ssh is None and device.name != "local" else device.name
