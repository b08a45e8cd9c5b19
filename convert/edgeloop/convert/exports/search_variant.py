"""The .tflite that a search found, as a variant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgeloop.bundle import Format, Scheme
from edgeloop.canonical import canonical_json
from edgeloop.convert.calls import fixed_batch
from edgeloop.convert.exports.variant import ExportedVariant, export_variant
from edgeloop.convert.form import FormLog
from edgeloop.convert.forms import tflite
from edgeloop.convert.plan import ConversionPlan
from edgeloop.convert.search.mix import MixSearchJob, find_mix
from edgeloop.convert.search.pareto import search_document
from edgeloop.convert.sources.source import Source
from edgeloop.progress import Progress

SEARCH = "search.json"  # what a search measured; it lies beside the bundle


def search_variant(
    source: Source,
    plan: ConversionPlan,
    float32: bytes,
    calibration: tflite.Calibration | None,
    made: Sequence[ExportedVariant],
    log: FormLog,
    progress: Progress,
) -> ExportedVariant:
    """The smallest mix within the budget; under the name `best` where it is a plain scheme that is made already."""
    assert plan.options.search is not None and calibration is not None  # ConvertOptions sees to it
    job = MixSearchJob(
        float32=float32,
        calibration=calibration,
        signature=source.signature,
        samples=plan.samples,
        expected=plan.expected,
        batch=fixed_batch(source.inputs),
        min_snr_db=plan.options.prove.min_snr_db,
    )
    mix = find_mix(job, plan.options.search, plan.journal, progress)
    best = mix.found.best
    scheme = Scheme.MIXED if best.keep else best.scheme
    log.say(
        f"The search tried {len(mix.found.tried)} mixes. The smallest within "
        f"{mix.metric.limit(plan.options.search.max_drop_pp)} is {best.label}."
    )
    beside = {SEARCH: canonical_json(search_document(mix.found))}
    id = "best" if scheme.value in {one.variant.id for one in made} else scheme.value
    one = export_variant(id, Format.TFLITE, scheme, (source.signature,), {f"{id}.tflite": mix.data}, best.label)
    return replace(one, beside=beside)
