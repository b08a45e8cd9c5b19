"""A bundle and its proof: as rows for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeloop.bundle import Bundle
from edgeloop.convert.proof.parity import runtimes_passed
from edgeloop.result import CommandResult, Table

if TYPE_CHECKING:
    from edgeloop.runtime.parity.compare import Parity

METRICS = {"accuracy": "accuracy", "top5": "top-5 accuracy", "auc": "AUC", "rmse": "RMSE", "r2": "R²", "mae": "MAE"}
FORMATS = {"accuracy": ".1%", "top5": ".1%", "auc": ".4f", "r2": ".4f", "rmse": ".4g", "mae": ".4g"}


def variant_rows(bundle: Bundle, parity: Sequence[Parity]) -> list[dict[str, Any]]:
    """One JSON object a variant; its parity is the worst over the runtimes it may run on, and their outputs."""
    rows = []
    for variant in bundle.manifest.variants:
        own = [row for row in parity if row.variant == variant.id and row.passed]
        tried = dict.fromkeys(row.runtime for row in parity if row.variant == variant.id)
        good = runtimes_passed(parity, variant.id)
        rows.append(
            {
                "id": variant.id,
                "format": variant.format.value,
                "scheme": variant.scheme.value,
                "bytes": sum(bundle.manifest.files[name].bytes for name in variant.files),
                "parity": _worst(own) if own else None,
                **{key: _first(getattr(row, key) for row in own) for key in METRICS},
                "runtimes": list(good),
                "not_on": [name for name in tried if name not in good],
            }
        )
    return rows


def _first(values: Iterable[float | None]) -> float | None:
    """Of a row an output: the one that labels are for has it."""
    return next((value for value in values if value is not None), None)


def _worst(rows: Sequence[Parity]) -> dict[str, Any]:
    worst = min(rows, key=lambda row: float("inf") if row.snr_db is None else row.snr_db)
    return {
        "max_abs": max(row.max_abs for row in rows),
        "snr_db": worst.snr_db,
        "top1_agreement": worst.top1_agreement,
        "passed": True,
    }


def variant_table(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    """`variant_rows` for people."""
    columns = ("variant", "size", *METRICS.values(), "top-1", "SNR dB", "max error", "format", "checked on")
    cells = [_cells(row) for row in rows]
    shown = [k for k in range(len(columns)) if any(row[k] != "-" for row in cells)]  # no labels: no accuracy
    return Table(title, [columns[k] for k in shown], [[row[k] for k in shown] for row in cells])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    parity = row["parity"]
    figures = ("-", "-", "-")
    if parity is not None:
        snr = "exact" if parity["snr_db"] is None else f"{parity['snr_db']:.1f}"
        figures = (_percent(parity["top1_agreement"]), snr, f"{parity['max_abs']:.1e}")
    checked = ", ".join([*row["runtimes"], *(f"not {name}" for name in row["not_on"])])
    size = f"{row['bytes'] / 1e3:,.1f} kB"
    metrics = ("-" if row[key] is None else format(row[key], FORMATS[key]) for key in METRICS)
    return (row["id"], size, *metrics, *figures, row["format"], checked or "unproved")


def conversion(
    bundle: Bundle, parity: Sequence[Parity], notes: Sequence[str], search: Mapping[str, Any] | None = None
) -> CommandResult:
    """{bundle, name, version, variants: [...], proof: [...], notes, search?}: what `convert` and `verify` answer."""
    rows = variant_rows(bundle, parity)
    document = {
        "bundle": str(bundle.path),
        "name": bundle.manifest.name,
        "version": bundle.manifest.version,
        "variants": rows,
        "proof": [asdict(row) for row in parity],
        "notes": list(notes),
    }
    if search is not None:
        document["search"] = search
    here = Path.cwd()
    path = bundle.path.relative_to(here) if bundle.path.is_relative_to(here) else bundle.path
    title = f"{path}: {bundle.manifest.name}, release {bundle.manifest.version}"
    return CommandResult(document, [variant_table(title, rows)], notes)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
