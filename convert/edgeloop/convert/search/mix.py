"""A float32 .tflite and samples in, the smallest mix of schemes within an accuracy budget out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from edgeloop.bundle import Scheme
from edgeloop.convert.cache import versions
from edgeloop.convert.forms.tflite import Calibration, quantize
from edgeloop.convert.samples import Samples
from edgeloop.convert.search.journal import Journal, search_key
from edgeloop.convert.search.measure import open_measure
from edgeloop.convert.search.metric import Metric, source_score
from edgeloop.convert.search.rank import rank_layers
from edgeloop.convert.search.search import SearchOptions, SearchResult, search
from edgeloop.errors import ModelError
from edgeloop.files.flatbuffer import read_tflite
from edgeloop.progress import Progress, silent

Arrays = Mapping[str, np.ndarray]
PACKAGES = ("edgeloop", "ai-edge-quantizer", "ai-edge-litert", "numpy")  # another version may measure otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class MixSearchJob:
    """One model to search a mix for.

    Attributes:
        float32: The lowered flatbuffer, with `signature`.
        samples: What is measured on, labels included where there are some; the layers are ranked on a few of them.
        expected: The source's answers to them, {output: [n, ...]}.
        batch: The model's own; None if free.
        min_snr_db: Raises the floors, as in the proof.
    """

    float32: bytes
    calibration: Calibration
    signature: str
    samples: Samples
    expected: Arrays
    batch: int | None
    min_snr_db: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """The file that `found.best` describes, and what the budget was on."""

    data: bytes
    found: SearchResult
    metric: Metric


def find_mix(
    job: MixSearchJob, options: SearchOptions, journal: Path | None = None, progress: Progress = silent
) -> Mix:
    """Search; `journal` is the file that a killed search goes on from, and stays the caller's to remove.

    Raises:
        BudgetError: No mix holds the budget; the best one is named.
        ModelError: The quantizer makes no int8 file to rank the layers with.
        TargetError: LiteRT refuses the float32 file, or cannot run int8 at all.
        DeviceError: LiteRT died or did not answer in time.
        DataError: The journal is no journal.
        WriteError: The journal cannot be written.
    """
    layers = rank_layers(job.float32, _int8(job), job.samples, job.signature)
    before = Journal(journal, _key(job, options))
    source = source_score(job.expected, job.samples.labels, job.samples.label_output)
    with open_measure(
        job.float32, job.signature, job.samples, job.expected, job.batch, min_snr_db=job.min_snr_db
    ) as measure:
        found = search(layers, partial(_quantize, job), measure, source, options, before, progress)
    data = _quantize(job, found.best.scheme, found.best.keep)
    return Mix(data=data, found=found, metric=source.metric)


def _quantize(job: MixSearchJob, scheme: Scheme, keep: Mapping[str, Scheme]) -> bytes:
    return quantize(job.float32, scheme, job.calibration, keep=keep)


def _int8(job: MixSearchJob) -> bytes:
    """What the layers are ranked with: int8 where the quantizer has a rule, although it may not be called int8."""
    try:
        return _quantize(job, Scheme.INT8, {})
    except ModelError:  # some operator stays in float, which is no matter here: with a kept one nothing is promised
        graph = read_tflite(job.float32).graphs[0]
        last = graph.tensors[graph.operators[-1].outputs[0]].name
        return _quantize(job, Scheme.INT8, {last: Scheme.FLOAT32})


def _key(job: MixSearchJob, options: SearchOptions) -> str:
    labels = {} if job.samples.labels is None else {"labels": job.samples.labels}
    calibrated = {**job.calibration.ranges, "means": job.calibration.means}
    settings = {
        "options": asdict(options),
        "min_snr_db": job.min_snr_db,
        "signature": job.signature,
        "samples": job.samples.digest(),
        "toolchain": versions(PACKAGES),
    }
    return search_key(job.float32, calibrated, {**labels, **job.expected}, settings)
