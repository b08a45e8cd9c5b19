"""A model in, a proved bundle out. This process loads no framework; what touches the model runs in a limited child.

cache? -> worker: every variant and the source's answers -> each variant answers the same inputs in its own runtime
       -> written only if each agrees -> kept in the cache
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeloop.atomic import new_folder, write_file
from edgeloop.bundle import (
    Bundle,
    is_bundle,
    read_bundle,
)
from edgeloop.canonical import read_json
from edgeloop.convert import cache
from edgeloop.convert.build import DIARY, JOURNAL, ConversionJob
from edgeloop.convert.compression.compress import compress
from edgeloop.convert.exports.search_variant import SEARCH
from edgeloop.convert.form import FormLog, read_diary
from edgeloop.convert.options import ConvertOptions
from edgeloop.convert.plan import wanted_formats
from edgeloop.convert.proof.prove_bundle import PACKAGES, prove_bundle
from edgeloop.convert.search.report import search_report
from edgeloop.convert.sources.identify import model_of
from edgeloop.convert.sources.safety_onnx import external_files
from edgeloop.convert.sources.source import SourceKind, identify, source_digest
from edgeloop.convert.sources.tfjs_files import weight_files
from edgeloop.errors import MissingExtra, ModelError, OptionsError, WriteError
from edgeloop.files.inspect import DAMAGE
from edgeloop.plots import lacking
from edgeloop.processes.exit_status import ExitStatus
from edgeloop.processes.job import run_job
from edgeloop.progress import Progress, silent
from edgeloop.runtime.device import device_environment
from edgeloop.runtime.parity.compare import Parity
from edgeloop.runtime.parity.proof import read_proof

WORKER = ("-m", "edgeloop.convert.worker")
CRASHES = 3  # attempts that may crash; each takes as long as a conversion
ASKED = frozenset({"SIGHUP", "SIGINT", "SIGTERM"})  # somebody wants it to end
REPORT = "report.html"
DEFAULTS = ConvertOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertResult:
    """A bundle on disk and the proof in it.

    Attributes:
        notes: One line each that a user should know.
        search: What was tried, where a search was asked for: the JSON of `OUT.search.json`.
        cached: Nothing had changed, so it came from the cache.
    """

    bundle: Bundle
    parity: tuple[Parity, ...]
    notes: tuple[str, ...]
    search: Mapping[str, Any] | None = None
    cached: bool = False


def convert(
    model: str | Path, out: str | Path, options: ConvertOptions = DEFAULTS, progress: Progress = silent
) -> ConvertResult:
    """Convert a model into every form a device can run, and prove that each form still agrees with the original.

    Args:
        model: A .keras or .h5 file, a SavedModel folder, a .onnx or a .tflite file, a TF.js model.json, or the folder
            of a training.
        out: The bundle folder to write; it replaces a bundle, and nothing else.
        options: What to write and how strictly to prove it. By default the float forms of one signature.
        progress: Told of every step: its name, how much is done, and of how much.

    Returns:
        The bundle, the proof's records (shares between 0 and 1, SNR in decibels) and notes, one sentence each.

    Raises:
        ModelError: The model is refused, went over a limit, or a form that was named, or every form, cannot hold it.
        OptionsError: What is asked for contradicts itself or the source.
        DataError: Calibration or evaluation data does not fit the model, or the source itself answers NaN to it.
        ParityError: A variant that was named, or every variant, does not compute what the source does; nothing is
            written.
        BudgetError: No mix of schemes keeps the accuracy.
        MissingExtra: A package or runtime that is needed is not installed.
        WriteError: `out` cannot be written, or holds something that is no bundle.

    Example:
        >>> made = convert("model.keras", "m/", ConvertOptions(calibration=Path("cal.npz")))
        >>> [variant.id for variant in made.bundle.variants]
        ['float32', 'float16', 'dynamic', 'int8', 'onnx', 'onnx-int8', 'tfjs']
    """
    # resolved: the bundle takes the place of `out`, which may be the folder we stand in
    model, out = model_of(_utf8(Path(model)).resolve()), _utf8(Path(out)).resolve()
    _check_target(out)
    kind = identify(model)
    notes: list[str] = []
    log = FormLog(model.name, out, notes.append)
    formats = wanted_formats(options, kind, log)
    sha256 = source_digest(model)
    key = None
    if (
        options.cache and not options.imports and not any(device.ssh for device in options.prove.on)
    ):  # what is installed there may change
        key = cache.cache_key(model, sha256, options, PACKAGES, _pythons(options), _beside(model, kind))
    if key is not None and (kept := cache.find(key, out)):
        progress("convert (unchanged, from the cache)", 1, 1)
        return _result(kept.bundle, read_proof(kept.bundle), kept.notes, kept.beside, cached=True)
    with new_folder(out) as folder, tempfile.TemporaryDirectory() as scratch:
        origin = {"file": model.name, "format": kind.value, "sha256": sha256}
        if options.compress is not None and options.train_data is not None:
            made = compress(model, options.compress, options.train_data, scratch, progress, options.limits)
            model, origin["compressed"] = made.path, options.compress.label
            notes += made.notes
        job = ConversionJob(
            model=model,
            origin=origin,
            options=options,
            formats=formats,
            folder=folder,
            scratch=Path(scratch),
            out=out,
            left_out=tuple(log.left_out),
        )
        done, clean = _attempts(job, log, progress, notes)
        parity = prove_bundle(job, done, progress, notes.append)
        found = Path(scratch) / SEARCH
        beside = {SEARCH: found.read_bytes()} if found.is_file() else {}
    bundle = read_bundle(out)
    written = _result(bundle, parity, notes, beside)  # now: a cache that refuses must not cost the report
    if key is not None and clean:
        try:
            cache.keep(key, bundle, notes, beside)
        except WriteError as e:  # the bundle is there; only the next conversion takes as long
            return replace(written, notes=(*written.notes, f"The conversion was not kept in the cache: {e}"))
    return written


def _attempts(job: ConversionJob, log: FormLog, progress: Progress, notes: list[str]) -> tuple[dict[str, Any], bool]:
    """What `build` returns, and whether no attempt crashed. A form that crashes one is left out of the next.

    Raises:
        ModelError: It crashed while it made a form that was named, at anything else, or more than CRASHES times.
    """
    diary, crashes = job.scratch / DIARY, 0
    while True:
        diary.unlink(missing_ok=True)  # of the attempt before: this one may crash before it makes any form
        said: list[str] = []
        ended: list[ExitStatus] = []
        try:
            done = run_job(WORKER, job, job.options.limits, progress, said.append, crashed=ended.append)
        except ModelError as e:
            forms = read_diary(diary) if ended and ended[0].signal not in ASKED else ()
            if not forms or crashes == CRASHES:
                raise
            crashes += 1
            ids = ", ".join(form.id for form in forms)
            if any(form.named for form in forms):
                raise ModelError(
                    f"the converter crashed while it made {ids} ({ended[0]})",
                    advice="Leave the form out with --to or --schemes, or change the model.",
                ) from e
            # not its last words: they may have a time in them, and a manifest has none
            crash = f"the converter crashed while it made {ids} ({ended[0].how})"
            log.add(forms, ModelError(crash, advice="Change the model, or report the crash."))
            job = replace(job, left_out=tuple(log.left_out))
        else:
            notes += said
            return done, not crashes


def _pythons(options: ConvertOptions) -> list[Path]:
    """The other interpreters that prove: their runtimes decide what a proof says."""
    devices = list(options.prove.on)
    with contextlib.suppress(MissingExtra):  # proved without it then
        devices.append(device_environment())
    return [device.python for device in devices]


def _beside(model: Path, kind: SourceKind) -> tuple[Path, ...]:
    """The other files that a model has weights in: an .onnx may, a TF.js model does."""
    with contextlib.suppress(*DAMAGE, ModelError):  # the worker says what is wrong
        if kind is SourceKind.TFJS:
            return weight_files(model)
        return external_files(model) if kind is SourceKind.ONNX else ()
    return ()


def _result(
    bundle: Bundle, parity: Sequence[Parity], notes: Sequence[str], beside: Mapping[str, bytes], cached: bool = False
) -> ConvertResult:
    """The result, once what measures lies beside the bundle: `OUT.search.json` and `OUT.report.html`."""
    search = None
    if SEARCH in beside:
        search = read_json(beside[SEARCH], SEARCH)
        places = {name: bundle.path.with_name(f"{bundle.path.name}.{name}") for name in (SEARCH, REPORT)}
        report = search_report(bundle.manifest.name, search, bundle.path, places[REPORT]).encode()
        write_file(places[SEARCH], beside[SEARCH])
        write_file(places[REPORT], report)
        notes = [*notes, *filter(None, [lacking()])]
    bundle.path.with_name(f"{bundle.path.name}.{JOURNAL}").unlink(missing_ok=True)  # the search is over
    return ConvertResult(bundle=bundle, parity=tuple(parity), notes=tuple(notes), search=search, cached=cached)


def _utf8(path: Path) -> Path:
    try:
        str(path).encode()
    except UnicodeEncodeError as e:
        raise OptionsError(
            f"the path {str(path)!a} is not UTF-8, and a manifest holds UTF-8 only", advice="Rename the file."
        ) from e
    return path


def _check_target(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise WriteError(f"{out} is a file", advice="Choose a new folder, or a bundle to replace.")
    if out.is_dir() and any(out.iterdir()) and not is_bundle(out):
        raise WriteError(
            f"{out} holds files that are not a bundle, and they are not overwritten", advice="Choose another folder."
        )
