"""Which examples belong to which step: whole numbers derived from one seed, so that a resumed training sees the same.

Source: splitmix64, Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
"""

from __future__ import annotations

import enum

_MASK = (1 << 64) - 1


class Purpose(enum.IntEnum):
    """What a seed is for: two purposes never share numbers."""

    ORDER = 1
    SHARDS = 2
    BUFFER = 3
    AUGMENT = 4
    HOLD_OUT = 5
    SHARE = 6


def seed_of(seed: int, purpose: Purpose) -> int:
    """A seed of its own for one purpose, 0 to 2^31 - 1."""
    value = (seed * 0x9E3779B97F4A7C15 + purpose) & _MASK
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        value = ((value ^ (value >> shift)) * factor) & _MASK
    return value >> 33
