"""A proof's records in, what they mean for a bundle out: which runtimes a variant may run on, and whether it is fit.

A variant must agree with its source on at least one runtime of its format. Where it does not, crashes or is refused,
the records say so, and the manifest's `requires.runtimes` leaves that runtime out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgeloop.bundle import Variant
from edgeloop.errors import ParityError
from edgeloop.runtime.parity.compare import Parity, reason

UNPROVED = "unproved: no runtime of its format was installed when it was made"


def runtimes_passed(rows: Sequence[Parity], variant: str) -> tuple[str, ...]:
    """Runtimes on which every output of the variant agreed, on every device it was tried on."""
    own = [row for row in rows if row.variant == variant]
    bad = {row.runtime for row in own if not row.passed}
    return tuple(dict.fromkeys(row.runtime for row in own if row.runtime not in bad))


def with_runtimes(variants: Sequence[Variant], rows: Sequence[Parity]) -> tuple[Variant, ...]:
    """The variants with the runtimes they may run on, and a note where one fails or none was there."""
    made = []
    for variant in variants:
        tried = dict.fromkeys(row.runtime for row in rows if row.variant == variant.id)
        good = runtimes_passed(rows, variant.id)
        notes = [UNPROVED] if not tried else [f"not for {name}: see proof.json" for name in tried if name not in good]
        requires = replace(variant.requires, runtimes=good)
        made.append(replace(variant, requires=requires, notes=(*variant.notes, *notes)))
    return tuple(made)


def disagreeing(rows: Sequence[Parity]) -> dict[str, Parity]:
    """{variant: its worst record} of the variants that agree on none of the runtimes they were tried on."""
    variants = dict.fromkeys(row.variant for row in rows)
    return {v: _worst(_failed(rows, v)) for v in variants if not runtimes_passed(rows, v)}


def check_parity(rows: Sequence[Parity], advice: str) -> None:
    """Raise where a variant agrees on none of the runtimes it was tried on, with what to do about it.

    Raises:
        ParityError: Naming variant, runtime, output, how far it is off, and the worst layer where that is known.
    """
    failed = {v: _failed(rows, v) for v in disagreeing(rows)}
    if failed:
        raise _error(failed, len({row.variant for row in rows}), advice)


def check_listed_parity(rows: Sequence[Parity], listed: Mapping[str, Sequence[str]], advice: str) -> None:
    """Raise where a variant disagrees on a runtime that `listed` {variant: runtimes} says it was proved on.

    Raises:
        ParityError: As `check_parity`.
    """
    failed = {}
    for variant, runtimes in listed.items():
        bad = [row for row in _failed(rows, variant) if row.runtime in runtimes]
        if bad:
            failed[variant] = bad
    if failed:
        raise _error(failed, len(listed), advice)


def _failed(rows: Sequence[Parity], variant: str) -> list[Parity]:
    return [row for row in rows if row.variant == variant and not row.passed]


def _worst(rows: Sequence[Parity]) -> Parity:
    """A figure tells more than a crash, which is named only where there is nothing else; of equals, the first."""
    return min(
        rows, key=lambda row: (row.error is not None, float("inf") if row.snr_db is None else round(row.snr_db, 1))
    )


def _error(failed: Mapping[str, Sequence[Parity]], variants: int, advice: str) -> ParityError:
    worst = _worst([row for rows in failed.values() for row in rows])
    others = [name for name in failed if name != worst.variant]
    what = "fails" if worst.error is not None else "does not compute what the source model does"
    also = f": also {', '.join(others)}" if others else ""
    return ParityError(
        f"{worst.variant} on {worst.runtime} {what}: {reason(worst).rstrip('.')}; "
        f"{len(failed)} of {variants} variants failed{also}",
        advice=advice,
    )


__all__ = ["UNPROVED", "Parity", "check_listed_parity", "check_parity", "runtimes_passed", "with_runtimes"]
