"""What the command line and fleet files say of devices in; the options of a deploy on each of them out."""

from __future__ import annotations

from collections.abc import Mapping

from edgeloop.edge.deploy.deploy_result import DeployOptions
from edgeloop.edge.on_device.variants.variant_choice import DeployConstraints
from edgeloop.errors import OptionsError
from edgeloop.quantities import byte_count
from edgeloop.runtime.chosen_devices import ChosenDevices
from edgeloop.runtime.device import Device
from edgeloop.runtime.device_settings import DeviceSettings

NOTHING = DeviceSettings()
CONSTRAINTS = ("variant", "runtime", "min_accuracy", "max_rmse")  # of the constraints; max_ram_mb has another unit


def deploy_options(said: DeviceSettings, take_over: bool = False) -> DeployOptions:
    """What is said, and the defaults of a deploy for the rest.

    Raises:
        OptionsError: A value out of range, or two that contradict each other.
    """
    values = said.said()
    max_ram_mb = values.pop("max_ram_mb", None)
    limits = {name: values.pop(name) for name in CONSTRAINTS if name in values}
    if max_ram_mb is not None:
        limits["max_ram_bytes"] = byte_count(float(max_ram_mb), "--max-ram-mb")
    return DeployOptions(
        constraints=DeployConstraints(**limits),  # type: ignore[arg-type]  # each by its own name
        take_over=take_over,
        **values,  # type: ignore[arg-type]
    )


def options_by_device(
    chosen: ChosenDevices, given: DeviceSettings = NOTHING, take_over: bool = False
) -> dict[Device, DeployOptions]:
    """The options of devices that a fleet file says something of; `given`, from the command line, goes before it.

    Raises:
        OptionsError: As `deploy_options`, with the device's place in the file; two entries of one device that differ.

    Example:
        >>> chosen = choose_devices(["fleet.toml"])
        >>> results = deploy("m/", chosen.devices, own=options_by_device(chosen))
    """
    options = {}
    for device, entry in chosen.entries().items():
        try:
            options[device] = deploy_options(given.over(entry.settings), take_over)
        except OptionsError as e:
            raise OptionsError(f"{entry.where}: {e.found}", advice=e.advice) from e
    return options


def refuse_other_slots(bundle_name: str, options: Mapping[Device, DeployOptions]) -> None:
    """Refuse a bundle for devices that are meant for another.

    Raises:
        OptionsError: A device has the slot of another bundle.
    """
    for device, own in options.items():
        if own.slot not in (None, bundle_name):
            raise OptionsError(
                f"{device.label} has the slot {own.slot!r} in its fleet file, and the bundle is {bundle_name!r}",
                advice="Name only devices of this bundle, or correct the fleet file.",
            )
