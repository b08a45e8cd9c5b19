"""The Python names of edgeloop: what the command line can do, an import can do.

    from pathlib import Path

    from edgeloop.api import ConvertOptions, bench, convert

    made = convert("model.keras", "m/", ConvertOptions(calibration=Path("cal.npz")))
    for record in bench("m/").records:
        print(record.variant, record.runtime, record.p50_ms)

A name is loaded when it is first used, so importing this module loads no framework and none of the folders.

Functions, in the order of the loop
    read_train_config   a TOML file that describes a training               -> TrainConfig
    train          a training into a run folder, on one device or several   -> RunResult
    convert        a model file becomes a bundle, every variant proved      -> ConvertResult
    inspect        what a model file or a bundle holds; nothing is run      -> dict
    verify         hashes and parity of a bundle, checked again here        -> VerifyResult
    same           two model files: whether they compute the same           -> SameResult
    sign_bundle    an SSH signature over the manifest                       -> Path
    read_bundle    a bundle folder, every file checked against its hash     -> Bundle
    bench          latency and memory of every variant on every runtime     -> Bench
    compare        two benches, row by row: faster, slower, cannot tell     -> [Comparison]
    enroll         devices learn whose bundles they accept                  -> [EnrollResult]
    deploy         a bundle to devices: checked, tried, activated           -> [DeployResult]
    rollback       devices return to the release before                     -> [RollbackResult]
    publish        a bundle becomes a version in a registry                 -> PublishResult
    run            answers of a deployed model, from the device             -> iterator of dict
    run_rounds     rounds of federated averaging                            -> (RoundRecord, ...)
    browse         the page of a bundle, served on localhost                -> context manager
    parse_device   "local", "local:PYTHON", "ssh://..." to a Device         -> Device
    choose_devices       devices by name, those of a fleet file too         -> ChosenDevices
    options_by_device    what a fleet file says a deploy shall do on each   -> {Device: DeployOptions}
    read_history         what was done to devices and what they answered    -> ReadHistory

Errors are those of `edgeloop.errors`; every function's docstring lists what it raises.

Stability: names in `__all__`, their parameters and the fields of the types named here change only with a note in
CHANGELOG.md; before release 1.0 a change may come with any minor release, from 1.0 on with a major one alone. Files
(bundle, proof.json, bench and rounds documents) carry formats of their own and stay readable. Every other module of
edgeloop may change at any time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeloop.browser.server import serve as browse
    from edgeloop.bundle import Bundle, Format, Scheme, read_bundle
    from edgeloop.cloud.train.config.read_config import read_config as read_train_config
    from edgeloop.cloud.train.config.train_config import TrainConfig
    from edgeloop.cloud.train.run.run_result import RunResult
    from edgeloop.cloud.train.trainer import train_run as train
    from edgeloop.convert.compression.compress import CompressOptions
    from edgeloop.convert.convert import ConvertResult, convert
    from edgeloop.convert.forms.preprocess import Preprocessing
    from edgeloop.convert.options import ConvertOptions
    from edgeloop.convert.proof.prove import ProveOptions
    from edgeloop.convert.proof.verify import VerifyResult, verify
    from edgeloop.convert.same.same import SameOptions, SameResult, same
    from edgeloop.convert.search.search import SearchOptions
    from edgeloop.convert.training.trainable import TrainableOptions
    from edgeloop.edge.deploy.deploy_result import DeployOptions, DeployResult
    from edgeloop.edge.deploy.device_options import options_by_device
    from edgeloop.edge.deploy.enroll import EnrollResult, enroll
    from edgeloop.edge.deploy.history_reading import ReadHistory, read_history
    from edgeloop.edge.deploy.rollback import RollbackResult, rollback
    from edgeloop.edge.deploy.rollout import deploy
    from edgeloop.edge.measure.bench import bench
    from edgeloop.edge.measure.bench_comparison import CompareOptions, Comparison, compare
    from edgeloop.edge.measure.bench_plan import BenchOptions
    from edgeloop.edge.measure.bench_records import Bench
    from edgeloop.edge.on_device.pull.pull_options import PullOptions
    from edgeloop.edge.on_device.pull.release_source import SourceAddress
    from edgeloop.edge.run.options import RunOptions
    from edgeloop.edge.run.run import run
    from edgeloop.federated.rounds.options import RoundsOptions
    from edgeloop.federated.rounds.records import RoundRecord
    from edgeloop.federated.rounds.run_rounds import run_rounds
    from edgeloop.files.inspect import inspect
    from edgeloop.registry.publish import PublishResult, publish
    from edgeloop.registry.signatures.sign import sign_bundle
    from edgeloop.runtime.chosen_devices import ChosenDevices, choose_devices
    from edgeloop.runtime.device import Device, parse_device
    from edgeloop.runtime.device_settings import DeviceSettings

__all__ = [
    "Bench",
    "BenchOptions",
    "Bundle",
    "ChosenDevices",
    "CompareOptions",
    "Comparison",
    "CompressOptions",
    "ConvertOptions",
    "ConvertResult",
    "DeployOptions",
    "DeployResult",
    "Device",
    "DeviceSettings",
    "EnrollResult",
    "Format",
    "Preprocessing",
    "ProveOptions",
    "PublishResult",
    "PullOptions",
    "ReadHistory",
    "RollbackResult",
    "RoundRecord",
    "RoundsOptions",
    "RunOptions",
    "RunResult",
    "SameOptions",
    "SameResult",
    "Scheme",
    "SearchOptions",
    "SourceAddress",
    "TrainConfig",
    "TrainableOptions",
    "VerifyResult",
    "bench",
    "browse",
    "choose_devices",
    "compare",
    "convert",
    "deploy",
    "enroll",
    "inspect",
    "options_by_device",
    "parse_device",
    "publish",
    "read_bundle",
    "read_history",
    "read_train_config",
    "rollback",
    "run",
    "run_rounds",
    "same",
    "sign_bundle",
    "train",
    "verify",
]

_PLACES = {  # where each name lies; `name:other` where its module calls it otherwise
    "edgeloop.browser.server": ("browse:serve",),
    "edgeloop.bundle": ("Bundle", "Format", "Scheme", "read_bundle"),
    "edgeloop.cloud.train.config.read_config": ("read_train_config:read_config",),
    "edgeloop.cloud.train.config.train_config": ("TrainConfig",),
    "edgeloop.cloud.train.run.run_result": ("RunResult",),
    "edgeloop.cloud.train.trainer": ("train:train_run",),
    "edgeloop.convert.compression.compress": ("CompressOptions",),
    "edgeloop.convert.convert": ("ConvertResult", "convert"),
    "edgeloop.convert.forms.preprocess": ("Preprocessing",),
    "edgeloop.convert.options": ("ConvertOptions",),
    "edgeloop.convert.proof.prove": ("ProveOptions",),
    "edgeloop.convert.proof.verify": ("VerifyResult", "verify"),
    "edgeloop.convert.same.same": ("SameResult", "SameOptions", "same"),
    "edgeloop.convert.search.search": ("SearchOptions",),
    "edgeloop.convert.training.trainable": ("TrainableOptions",),
    "edgeloop.edge.deploy.device_options": ("options_by_device",),
    "edgeloop.edge.deploy.enroll": ("EnrollResult", "enroll"),
    "edgeloop.edge.deploy.history_reading": ("ReadHistory", "read_history"),
    "edgeloop.edge.deploy.deploy_result": ("DeployResult", "DeployOptions"),
    "edgeloop.edge.deploy.rollback": ("RollbackResult", "rollback"),
    "edgeloop.edge.deploy.rollout": ("deploy",),
    "edgeloop.edge.measure.bench": ("bench",),
    "edgeloop.edge.measure.bench_comparison": ("Comparison", "CompareOptions", "compare"),
    "edgeloop.edge.measure.bench_plan": ("BenchOptions",),
    "edgeloop.edge.on_device.pull.pull_options": ("PullOptions",),
    "edgeloop.edge.on_device.pull.release_source": ("SourceAddress",),
    "edgeloop.edge.run.options": ("RunOptions",),
    "edgeloop.edge.run.run": ("run",),
    "edgeloop.edge.measure.bench_records": ("Bench",),
    "edgeloop.federated.rounds.records": ("RoundRecord",),
    "edgeloop.federated.rounds.options": ("RoundsOptions",),
    "edgeloop.federated.rounds.run_rounds": ("run_rounds",),
    "edgeloop.files.inspect": ("inspect",),
    "edgeloop.registry.publish": ("PublishResult", "publish"),
    "edgeloop.registry.signatures.sign": ("sign_bundle",),
    "edgeloop.runtime.device": ("Device", "parse_device"),
    "edgeloop.runtime.device_settings": ("DeviceSettings",),
    "edgeloop.runtime.chosen_devices": ("ChosenDevices", "choose_devices"),
}
_MODULE_OF = {
    public: (module, own or public)
    for module, names in _PLACES.items()
    for public, _, own in (name.partition(":") for name in names)
}


if not TYPE_CHECKING:  # a type checker that saw this would take every misspelt name for one that exists

    def __getattr__(name: str) -> Any:
        """Load a public name from the folder it lies in, once."""
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'edgeloop.api' has no attribute {name!r}. It has: {', '.join(__all__)}.")
        module, own = _MODULE_OF[name]
        value = getattr(importlib.import_module(module), own)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
