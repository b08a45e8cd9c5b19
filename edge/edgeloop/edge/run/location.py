"""What `edgeloop run` was given in, a device or a bundle's folder; where the model runs and how it is asked to, out."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path

from edgeloop.bundle import Bundle, Variant, is_bundle, read_bundle
from edgeloop.edge.on_device.pull.release_source import SourceAddress
from edgeloop.edge.run.options import RunOptions
from edgeloop.errors import MissingExtra, OptionsError
from edgeloop.runtime.chosen_devices import choose_devices, is_fleet_file
from edgeloop.runtime.device import EXPECTED, Device
from edgeloop.runtime.runners import AgentRunner, runners


@dataclass(frozen=True)
class RunLocation:
    """The device that runs the model, and the arguments of its program."""

    device: Device
    arguments: tuple[str, ...]


def run_location(target: str, options: RunOptions) -> RunLocation:
    """What the user named: a device, which serves what was deployed on it, or a bundle's folder, run here.

    Raises:
        OptionsError: Neither, or several devices; or an option that does not apply to it.
        ModelError, IntegrityError: The bundle is none, or damaged; no such variant.
        MissingExtra: Nothing here runs the bundle.
    """
    if target.startswith("ssh:") or target.partition(":")[0] == "local" or is_fleet_file(target):
        device, options = _one_device(target, options)
        for option, path in _paths(options).items() if device.ssh is not None else ():
            if not path.startswith("/"):
                raise OptionsError(
                    f"{option} {path} is a path on the device", advice="Give it from the root, with a leading slash."
                )
        return RunLocation(device, tuple(_absolute(options, device).arguments()))
    if not is_bundle(target):
        raise OptionsError(
            f"{target} is neither a bundle nor a device", advice=f"{EXPECTED[:-1]}, or a bundle's folder."
        )
    if options.slot:
        raise OptionsError("--slot applies to a device, and a bundle's folder was given", advice="Leave --slot out.")
    if options.pull:
        raise OptionsError("--follow applies to a device, and a bundle's folder was given", advice="Name a device.")
    bundle = read_bundle(target)
    variant, runner = _runs_here(bundle, options)
    device = runner.device()
    named = replace(_absolute(options, device), variant=variant.id, runtime=runner.name)
    return RunLocation(device, (f"--bundle={bundle.path.absolute()}", *named.arguments()))


def _one_device(target: str, options: RunOptions) -> tuple[Device, RunOptions]:
    """The device, and the options with the slot that a fleet file gives it, where they name none."""
    chosen = choose_devices([target])
    if len(chosen.devices) > 1:
        raise OptionsError(
            f"{target} is {len(chosen.devices)} devices, and run takes one",
            advice=f"Name one of them, e.g. {target.rpartition('#')[0] or target}#{chosen.devices[0].alias}.",
        )
    (device,) = chosen.devices
    slots = [entry.settings.slot for entry in chosen.entries().values()]
    return device, options if options.slot else replace(options, slot=next(filter(None, slots), ""))


def _runs_here(bundle: Bundle, options: RunOptions) -> tuple[Variant, AgentRunner]:
    """The first variant, in the manifest's order, with a runtime that it was proved on and that is installed here."""
    if options.variant:
        bundle.variant(options.variant)
    wanted = [v for v in bundle.variants if options.variant in ("", v.id)]
    known = [r for r in runners().values() if isinstance(r, AgentRunner) and options.runtime in ("", r.name)]
    if not known:
        raise OptionsError(f"there is no runtime {options.runtime!r}", advice=f"Choose one of: {', '.join(runners())}.")
    for variant in wanted:
        for runner in known:
            if variant.format not in runner.formats or runner.name not in (*variant.requires.runtimes, options.runtime):
                continue
            with contextlib.suppress(MissingExtra):
                runner.device()
                return variant, runner
    ids = ", ".join(v.id for v in wanted) or "no variant"
    raise MissingExtra(
        f"{bundle.path} holds {ids}, and no runtime for it is installed here",
        advice="Run: pip install 'edgeloop[edge]'",
    )


def _paths(options: RunOptions) -> dict[str, str]:
    """What is read on the device."""
    pull = options.pull
    source = pull.address.text if pull and not pull.address.is_url else ""
    paths = {"--input": options.folder, "--follow": source, "--root-certificate": pull.root_certificate if pull else ""}
    return {option: path for option, path in paths.items() if path}


def _absolute(options: RunOptions, device: Device) -> RunOptions:
    if device.ssh is not None:
        return options
    paths = {option: str(Path(path).absolute()) for option, path in _paths(options).items()}
    pull = options.pull
    if pull is not None:
        address = SourceAddress(paths.get("--follow", pull.address.text))
        pull = replace(pull, address=address, root_certificate=paths.get("--root-certificate", ""))
    return replace(options, input=paths.get("--input", options.input), pull=pull)
