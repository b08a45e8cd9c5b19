"""Weights of a round in, a release that devices take out, or why there is none. The round itself stays as it is.

weights -> Keras model, trained further or not, in a process of its own -> every form of the bundle -> each variant
        answers the data of `[cloud] eval` -> none is much worse than the Keras model -> published in releases/
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeloop.atomic import discard, make_folder
from edgeloop.bundle import Bundle
from edgeloop.convert.convert import convert
from edgeloop.disk_errors import writing
from edgeloop.errors import BudgetError, DataError, EdgeloopError, OptionsError, ParityError, error_to_json, last_line
from edgeloop.federated.fold_back.conversion import release_options
from edgeloop.federated.fold_back.gate import check_replaces, verdict_of
from edgeloop.federated.fold_back.jobs import TrainingJob, run_training
from edgeloop.federated.fold_back.options import CloudOptions
from edgeloop.federated.fold_back.records import (
    RELEASES,
    WORK,
    FoldBackRecord,
    Outcome,
    is_open,
    read_records,
    write_record,
)
from edgeloop.federated.rounds.options import RoundsOptions
from edgeloop.federated.rounds.records import DEVICE_MODELS, RoundRecord, is_due, models_folder
from edgeloop.federated.rounds.shards import check_shards
from edgeloop.federated.rounds.watch import OnRound
from edgeloop.hashes import digest_of
from edgeloop.processes.job import WorkerBug
from edgeloop.registry.publish import publish, read_index
from edgeloop.registry.signatures.sign import sign_bundle, signature_of
from edgeloop.registry.versions.version_index import PLAIN

log = logging.getLogger(__name__)
BUNDLE = "bundle"  # of a round, until it is published


class FoldBack:
    """Folds rounds of one run back. `keras` was converted to `bundle`; `out` is the folder of the run.

    Attributes:
        went_back_to: The round that the run went back to, if any: that one is folded back at once, so that devices
            leave the releases of later ones.
    """

    def __init__(self, options: CloudOptions, keras: Path, bundle: Bundle, out: Path, rounds: int) -> None:
        self.went_back_to: int | None = None
        self.options, self.keras, self.bundle, self.out, self.rounds = options, keras, bundle, out, rounds
        self.name = bundle.manifest.name

    @classmethod
    def of(cls, options: RoundsOptions, bundle: Bundle) -> FoldBack | None:
        """That of a run; None: its rounds stay rounds."""
        if options.cloud is None or options.keras is None:
            return None
        return cls(options.cloud, options.keras, bundle, options.out, options.rounds)

    def check(self) -> None:
        """See, before any round, whether a round could be folded back.

        Raises:
            OptionsError, DataError, MissingExtra: What the training or the conversion would refuse.
            DataError: cloud.json or the index of the releases is damaged; the key cannot sign.
        """
        if not PLAIN.fullmatch(self.name):
            raise OptionsError(
                f"the bundle's name is {self.name!r}, which cannot be a part of a URL",
                advice="Convert it with --name, of letters, digits, dots, dashes and underscores.",
            )
        convert = release_options(self.options, self.bundle, self.bundle.manifest.version)
        for what, path in (
            ("eval", self.options.eval),
            ("train", self.options.train),
            ("sign", self.options.sign),
            ("convert.calibration", convert.calibration),
            ("convert.train-data", convert.train_data),
        ):
            if path is not None and not path.exists():
                raise OptionsError(f"[cloud] {what} {path} does not exist", advice="Pass the path of a file.")
        check_shards([self.options.eval], self.bundle, "[cloud] eval")
        read_records(self.out)  # a damaged cloud.json of a run that is resumed
        self.next_version()
        if self.options.sign is not None:
            signature_of(b"a try before the first round", self.options.sign)
        run_training(self._job(), log.info)

    def after(self, listener: OnRound) -> OnRound:
        """A listener that tells `listener` of each round, then folds it back where it is due."""

        def folded(record: RoundRecord, weights: Mapping[str, np.ndarray]) -> None:
            listener(record, weights)
            if self._is_due(record):
                self._fold_once(record)

        return folded

    def end(self, last: RoundRecord) -> None:
        """Fold the last round back where nobody knew that it is the last: the privacy budget allowed no other."""
        if not self._is_due(last):
            self._fold_once(last)

    def _is_due(self, record: RoundRecord) -> bool:
        return is_due(record.round, self.options.every, self.rounds) or record.round == self.went_back_to

    def _fold_once(self, record: RoundRecord) -> None:
        options = digest_of(json.dumps(self.options.resolved(), sort_keys=True).encode())
        if not is_open(record.round, read_records(self.out), options):
            return
        found = replace(self.fold(record), options_sha256=options)
        write_record(self.out, found)
        if found.outcome is not Outcome.FAILED:  # one that was blocked may be tried again
            self._discard_models(record.round if found.outcome is Outcome.RELEASED else record.round - 1)
        log.log(logging.INFO if found.outcome is Outcome.RELEASED else logging.WARNING, found.sentence())

    def fold(self, round_: RoundRecord) -> FoldBackRecord:
        """What became of a round. An error is a record too: the rounds go on."""
        place = self.out / WORK / f"round-{round_.round}"
        blank = FoldBackRecord(round=round_.round, outcome=Outcome.FAILED)
        try:
            return self._released(round_, place, blank)
        except (ParityError, BudgetError) as e:
            return replace(blank, outcome=Outcome.BLOCKED, error=error_to_json(e))
        except (EdgeloopError, OSError) as e:
            return replace(blank, error=error_to_json(e))
        except WorkerBug as e:
            log.exception("a bug in the process that trains")
            return replace(blank, error=error_to_json(RuntimeError(last_line(str(e)))))

    def _released(self, round_: RoundRecord, place: Path, blank: FoldBackRecord) -> FoldBackRecord:
        discard(place)
        with writing(place):
            make_folder(str(place))
        made = run_training(self._job_of(round_, place), log.info)
        options = release_options(self.options, self.bundle, self.next_version())
        converted = convert(made["model"], place / BUNDLE, options)
        check_replaces(self.bundle, converted.bundle)
        verdict = verdict_of(converted.bundle, converted.parity, self.options.eval)
        measured = replace(
            blank,
            metric=verdict.metric,
            source=verdict.source,
            variants=dict(verdict.variants),
            model=str(Path(made["model"]).resolve().relative_to(self.out.resolve())),
            told=tuple(made["told"]),
        )
        try:
            verdict.check(self.options.max_drop)
        except BudgetError as e:
            return replace(measured, outcome=Outcome.BLOCKED, error=error_to_json(e))
        return self._published(converted.bundle, place, measured)

    def _published(self, bundle: Bundle, place: Path, measured: FoldBackRecord) -> FoldBackRecord:
        if self.options.sign is not None:
            sign_bundle(bundle, self.options.sign)
        found = publish(bundle.path, self.out / RELEASES)
        discard(place / BUNDLE)  # the release has it; the Keras model stays
        return replace(
            measured,
            outcome=Outcome.RELEASED,
            version=found.version,
            release=str(found.folder.relative_to(self.out)),
            signed=found.signed,
        )

    def _job_of(self, round_: RoundRecord, place: Path) -> TrainingJob:
        """The device models of a round that the run went back to have taught once and are gone: its weights are the
        release as they are."""
        job = replace(self._job(), weights=(self.out / round_.file).absolute(), place=place.absolute())
        if not self.options.distill:
            return job
        folder = models_folder(self.out, round_.round, round_.attempt)
        found = tuple(sorted(path.absolute() for path in folder.glob("*.npz")))
        if not found and round_.round == self.went_back_to:
            return replace(job, options=replace(self.options, train=None, distill=0))
        if not found:
            raise DataError(
                f"{folder} holds no device models of round {round_.round}",
                advice="Go on: the next round that is folded back has its own.",
            )
        return replace(job, teachers=found)

    def _discard_models(self, number: int) -> None:
        """Those of this round and of earlier ones, of all attempts."""
        for folder in (self.out / DEVICE_MODELS).glob("round-*"):
            if int(folder.name.split("-")[1]) <= number:
                discard(folder)

    def next_version(self) -> int:
        """The number after that of the newest release; of the bundle, where there is none."""
        index = read_index(self.out / RELEASES / self.name, self.name)
        return max((self.bundle.manifest.version, *index.versions)) + 1

    def _job(self) -> TrainingJob:
        return TrainingJob(options=self.options, keras=self.keras.absolute(), python_path=tuple(filter(None, sys.path)))
