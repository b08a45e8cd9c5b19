"""`1,10%,100%` or `canaries,100%` and devices in; the number of devices in each wave out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from edgeloop.errors import OptionsError
from edgeloop.runtime.device import Device

FORM = "Expected rising cumulative counts or percentages, the last one all devices, e.g. 1,10%,100%."
STEP = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<percent>%?)")


def wave_sizes(text: str, devices: int) -> list[int]:
    """Devices of each wave, 1 or more, together `devices`. Each step of `text` is how many are done by its end.

    A percentage is rounded up. A step that a small fleet has already reached, e.g. 10% of 5 after 1, is left out.

    Raises:
        OptionsError: Another form, a falling step, or the last one leaves devices out.
    """
    reached, sizes = 0, []
    for step in text.split(","):
        match = STEP.fullmatch(step.strip())
        if match is None or (not match["percent"] and "." in match["number"]):
            raise OptionsError(f"{step.strip()!r} in --waves {text} is not a count or percentage", advice=FORM)
        end = _devices(float(match["number"]), bool(match["percent"]), devices, text)
        if end < reached:
            raise OptionsError(
                f"{step.strip()} in --waves {text} is {end} of {devices} devices, after {reached}", advice=FORM
            )
        if end > reached:
            sizes.append(end - reached)
        reached = end
    if reached < devices:
        raise OptionsError(f"--waves {text} reaches {reached} of {devices} devices", advice=FORM)
    return sizes


def failures_allowed(text: str, devices: int) -> int:
    """How many of the devices may fail, of `text` as a count or a percentage, which is rounded down.

    Raises:
        OptionsError: Another form.
    """
    match = STEP.fullmatch(text.strip())
    if match is None or (not match["percent"] and "." in match["number"]):
        raise OptionsError(
            f"--max-failed is {text!r}",
            advice="Write how many devices may fail, as a count or percentage, e.g. 2 or 5%.",
        )
    number = float(match["number"])
    return math.floor(round(number * devices / 100, 9)) if match["percent"] else int(number)


def by_group(text: str, devices: Sequence[Device], groups: Mapping[str, Sequence[Device]]) -> tuple[str, list[Device]]:
    """Waves in which a step may name a group, e.g. `canaries,50%,100%`, as waves of counts and percentages, and the
    devices in the order in which these take them."""
    steps: list[str] = []
    order: dict[Device, None] = {}
    for step in text.split(","):
        members = groups.get(step.strip())
        if members is not None:
            order |= dict.fromkeys(device for device in members if device in devices)
        steps.append(step if members is None else str(len(order)))
    return ",".join(steps), list(order | dict.fromkeys(devices))


def _devices(number: float, percent: bool, devices: int, text: str) -> int:
    if number <= 0 or (percent and number > 100):
        raise OptionsError(
            f"{number:g}{'%' if percent else ''} in --waves {text} is not above 0 and at most 100%", advice=FORM
        )
    # rounded up to whole devices; and 7% of 100 is 7 in binary, too
    return math.ceil(round(number * devices / 100, 9)) if percent else min(int(number), devices)
