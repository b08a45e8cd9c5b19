"""Rounds of federated averaging over devices of this machine or of others: a bundle in, weights per round out."""

from __future__ import annotations

import contextlib
import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.atomic import write_file
from edgeloop.bundle import SIGNATURE, TRAINABLE, Bundle, read_bundle
from edgeloop.errors import DeviceError, ModelError, OptionsError
from edgeloop.extras import need
from edgeloop.federated.fold_back.fold_back import FoldBack
from edgeloop.federated.network.joining import check_joining, told
from edgeloop.federated.network.network import Network, network
from edgeloop.federated.rounds.buffered.options import RoundsMode
from edgeloop.federated.rounds.evaluation import BEST, evaluator
from edgeloop.federated.rounds.journal.branch import go_back, settle
from edgeloop.federated.rounds.keras_result import KERAS, write_keras
from edgeloop.federated.rounds.options import RoundsOptions
from edgeloop.federated.rounds.plan import check_memory, needed_replies
from edgeloop.federated.rounds.privacy.options import PrivacyMode
from edgeloop.federated.rounds.progress.progress import Progress
from edgeloop.federated.rounds.records import INITIAL, JOB, RoundRecord, read_weights, weights_bytes
from edgeloop.federated.rounds.run_folder import DEVICES, open_run
from edgeloop.federated.rounds.shards import CheckedShard, check_shards
from edgeloop.federated.rounds.statistics.told import check_labels
from edgeloop.federated.rounds.strategies import STRATEGIES, StrategyName
from edgeloop.federated.rounds.trainable_file import read_trainable
from edgeloop.federated.rounds.trained_bundle import RESULT, write_trained_bundle
from edgeloop.federated.rounds.watch import OnRound, Watch, ignore
from edgeloop.federated.simulation.simulated import Simulated
from edgeloop.hashes import digest, digest_of
from edgeloop.progress import Say
from edgeloop.quantities import byte_count
from edgeloop.runtime.device import device_environment, parse_device
from edgeloop.runtime.initial_weights import initial_weights


def run_rounds(
    bundle: str | Path,
    options: RoundsOptions,
    on_round: OnRound = ignore,
    running: Network | None = None,
    simulated: Simulated | None = None,
    say: Say = lambda sentence: None,
) -> tuple[RoundRecord, ...]:
    """Train the trainable variant of a bundle across devices by federated averaging; their data stays where it is.

    Args:
        bundle: A bundle folder with a trainable variant (`edgeloop convert --trainable`).
        on_round: Called with each round's record and its averaged weights {name: float32 array} as soon as they are
            there. The devices work on the next round meanwhile.
        running: A network over the same shards, started (and perhaps submitted) earlier to hide its start. Without
            one it is started here, and every process of it has ended when this returns or raises.
        simulated: Devices that Flower's simulation engine plays, instead of a process for each shard.
        say: Told how devices of other machines join, and how many have.

    Returns:
        One record a round: examples, mean training loss, and per device its loss and seconds. The weights lie in
        `options.out`, and in its folder `bundle` a bundle that starts from those of the last round, or of the best one
        where `options.evaluation` says which that is.

    Raises:
        ModelError, IntegrityError: The bundle is none, was changed, or has no trainable variant.
        OptionsError: `running` was started for other shards or other devices; a simulation of buffered rounds.
        DeviceError: A device, the server or the time failed; names the round and the reason.
        EdgeloopError: The training failed on a device, e.g. DataError for its shard; of the class that it had there.
        MissingExtra: Flower is not installed here or in the device environment, or there is no such environment.
        WriteError: `out` cannot be written.

    Example:
        >>> records = run_rounds("m/", RoundsOptions(shards=(Path("a.npz"), Path("b.npz")), out=Path("rounds")))
        >>> [record.train_loss for record in records]
    """
    here = (device_environment(),) if options.network is None else (parse_device("local"),)
    options = replace(options, devices=options.devices or here)
    if running is not None and (running.shards, running.devices) != (options.shards, options.devices):
        raise OptionsError(
            "the running network was started for other shards or other devices",
            advice="Pass it the options it was started with, or leave it out.",
        )
    if simulated is not None and options.buffered is not None:
        raise OptionsError(
            "simulated rounds are synchronous, and mode in [rounds] is buffered",
            advice='Leave mode = "buffered" out of [rounds], or run edgeloop federate run.',
        )
    read = read_bundle(bundle)
    model = _trainable(read)
    shards = check_shards(options.shards, read) if simulated is None else simulated.check(read)
    if options.evaluation is not None:
        check_shards([options.evaluation], read, "evaluation data")
    if options.network is not None:
        check_joining(options.network)
    facts = _check_fits(options, read, model)
    folding = FoldBack.of(options, read)
    if folding is not None:
        folding.check()
        on_round = folding.after(on_round)
    initial = initial_weights(model, options.devices[0]) if options.initial is None else options.initial
    if options.privacy.mode is not PrivacyMode.NONE:
        _check_private(options, initial, facts["trained"])
    target, _ = needed_replies(options.device_count, options.replies_options())
    options.journal.check_disk(initial, target, options.out)
    document = {**_document(read, model, options, shards, initial), **(simulated.document() if simulated else {})}
    with contextlib.ExitStack() as stack:
        goes_back = None if options.from_round is None else partial(go_back, options.out, options.from_round)
        stack.enter_context(open_run(options.out, document, resume=options.resume, goes_back=goes_back))
        if options.resume:
            went_back_to = settle(options.out)
            if folding is not None:
                folding.went_back_to = options.from_round or went_back_to
        if simulated is not None:
            running = stack.enter_context(simulated.start(_kept(options)))
        started = network(options.devices, options.shards, _kept(options), options.network)
        flower = running or stack.enter_context(started)
        if options.network is not None:
            say(told(options.network, signed=(read.path / SIGNATURE).is_file()))
        write_file(flower.work / INITIAL, weights_bytes(initial))
        write_file(flower.work / JOB, _job(model, options, shards, facts))
        with contextlib.suppress(DeviceError):  # the watch submits again, or says why not
            flower.submit()
        mode = RoundsMode.SYNCHRONOUS if options.buffered is None else RoundsMode.BUFFERED
        progress = Progress(options.out, options.rounds, mode)
        on_round = progress.before(on_round)
        if options.evaluation is not None:
            device = options.devices[0]
            measured = stack.enter_context(evaluator(read, model, options.evaluation, device, options.out))
            measured.measure(0, initial)
            on_round = measured.before(on_round)
        records = Watch(options, flower, on_round, say).until_the_end()
        progress.end()
        if folding is not None:
            folding.end(records[-1])
    last = options.out / (records[-1].file if options.evaluation is None else BEST)
    version = read.manifest.version + 1 if folding is None else folding.next_version()
    write_trained_bundle(read, read_weights(last), options.out / RESULT, version)
    if options.keras is not None:
        write_keras(options.keras, last, options.out / KERAS)
    return records


def _trainable(bundle: Bundle) -> Path:
    if TRAINABLE not in [variant.id for variant in bundle.variants]:
        raise ModelError(
            f"{bundle.path} has no {TRAINABLE} variant",
            advice=f"Run: edgeloop convert MODEL --trainable -o {bundle.path}",
        )
    return bundle.file(bundle.variant(TRAINABLE).entry)


def _check_fits(options: RoundsOptions, bundle: Bundle, model: Path) -> dict[str, Any]:
    """A strategy that keeps every reply has the memory for them; one that corrects steps has steps of plain SGD. What
    the server of such a strategy has to know of the file."""
    name = options.strategy.name
    if not STRATEGIES[name].streams:
        target, _ = needed_replies(options.device_count, options.replies_options())
        limit = byte_count(options.max_memory_mb, "max-memory-mb")
        check_memory([weight.shape for weight in bundle.manifest.weights], target, limit, name.value)
    trained = [weight.name for weight in bundle.manifest.weights if weight.trainable]
    file = read_trainable(model.read_bytes())
    check_labels(file.labels, options.statistics)
    if options.strategy.corrects_steps and not file.plain:
        raise OptionsError(
            f"{name.value} corrects steps of plain SGD, and the trainable file of {bundle.path} has momentum or Adam",
            advice="Convert it with --optimizer sgd, or choose fed-avg.",
        )
    return {"trained": trained, "batch": file.batch, "labels": asdict(file.labels)}


def _kept(options: RoundsOptions) -> Path | None:
    """Where devices keep what scaffold or a sparse codec needs of them in a resumed run; None: nothing."""
    kept = options.strategy.name is StrategyName.SCAFFOLD or options.compression.upload.sparse
    return options.out / DEVICES if kept else None


def _check_private(options: RoundsOptions, initial: Mapping[str, np.ndarray], trained: Sequence[str]) -> None:
    """A round fits into the privacy budget, and the noise of devices through the guard."""
    need("flwr", extra="privacy")
    from edgeloop.federated.rounds.privacy.private_rounds import PrivateRounds

    target, _ = needed_replies(options.device_count, options.replies_options())
    private = PrivateRounds(
        options.privacy,
        options.device_count,
        target,
        trained=trained,
        counts_noise=options.statistics.noise_multiplier,
    )
    private.check_guard(initial, options.guard)


def _document(
    bundle: Bundle,
    model: Path,
    options: RoundsOptions,
    shards: Sequence[CheckedShard],
    initial: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """What run.json says beside its format."""
    return {
        "options": {
            "rounds": options.rounds,
            "epochs": options.epochs,
            "learning-rate": options.lr,
            "learning-rate-decay": options.lr_decay,
            "seed": options.seed,
            "timeout-s": options.timeout_s,
            "max-memory-mb": options.max_memory_mb,
            "quorum": _toml_names(options.replies_options()),
            "guard": _toml_names(options.guard),
            "strategy": _toml_names(options.strategy),
            **({} if options.cloud is None else {"cloud": options.cloud.resolved()}),
            "compression": _toml_names(options.compression),
            "statistics": _statistics(options),
            "journal": _toml_names(options.journal),
            **_modes(options),
            **({"selection": _toml_names(options.selection)} if options.selection.demands else {}),
            **({} if options.network is None else {"network": {"devices": options.network.devices}}),
        },
        "bundle": {
            "name": bundle.manifest.name,
            "manifest-sha256": bundle.manifest_sha256,
            "model-sha256": digest(model),
        },
        "shards": [{"file": s.path.name, "examples": s.examples, "sha256": s.sha256} for s in shards],
        "initial-sha256": digest_of(weights_bytes(initial)),
    }


def _statistics(options: RoundsOptions) -> dict[str, Any]:
    return _toml_names(options.statistics.resolved(options.privacy.mode is not PrivacyMode.NONE))


def _modes(options: RoundsOptions) -> dict[str, Any]:
    """The tables of private and of buffered rounds."""
    private = {} if options.privacy.mode is PrivacyMode.NONE else {"privacy": _toml_names(options.privacy)}
    buffered = {} if options.buffered is None else {"buffered": _toml_names(options.buffered)}
    return {**private, **buffered}


def _toml_names(options: Any) -> dict[str, Any]:
    """Fields of a dataclass as a TOML table has them; what is not set is left out."""
    given = {name.replace("_", "-"): value for name, value in asdict(options).items() if value is not None}
    return {name: value.value if isinstance(value, enum.Enum) else value for name, value in given.items()}


def _job(model: Path, options: RoundsOptions, shards: Sequence[CheckedShard], facts: Mapping[str, Any]) -> bytes:
    """What the ServerApp reads; it waits for this file."""
    # the shards were counted here, so a large one is no lie
    most = max([options.guard.max_examples, *(shard.examples for shard in shards)])
    job = {
        **facts,
        "out": str(options.out.absolute()),
        "trainable": str(model.absolute()),
        "devices": options.device_count,
        "rounds": options.rounds,
        "epochs": options.epochs,
        "lr": options.lr,
        "lr_decay": options.lr_decay,
        "seed": options.seed,
        "quorum": _toml_names(options.replies_options()),
        "guard": _toml_names(replace(options.guard, max_examples=most)),
        "strategy": _toml_names(options.strategy),
        "kept_updates": options.cloud.distill if options.cloud else 0,
        # any round of a private run may be its last one
        "kept_every": options.cloud.every if options.cloud and options.privacy.mode is PrivacyMode.NONE else 1,
        "compression": _toml_names(options.compression),
        "statistics": _statistics(options),
        "journal": _toml_names(options.journal),
        **_modes(options),
        "selection": _toml_names(options.selection),
        "query": options.network is not None,
        "numbered": options.network is None,
        "max_memory_bytes": byte_count(options.max_memory_mb, "max-memory-mb"),
    }
    return json.dumps(job).encode()
