"""Every verb in the order of the loop: all that `edgeloop --help` prints, without importing a verb's module.

A verb is a function; its parameters are its options (Typer's), its docstring begins with the summary that stands here
(a test holds the two together). It returns a `CommandResult` and prints nothing itself. To add one, write the function
and add a line.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple


class Panel(StrEnum):
    """A heading of `edgeloop --help`."""

    START = "Start here"
    CLOUD = "Train in the cloud"
    CONVERT = "Convert a trained model"
    DEVICES = "Measure, deploy and run on devices"
    FEDERATE = "Train on devices"
    BROWSER = "Show in a browser"
    HOUSE = "This installation"


class Verb(NamedTuple):
    """Where a verb is and what it does.

    Attributes:
        converts: Suffixes of the models that become a temporary bundle where one is given instead of a bundle, and the
            format to convert each to; None: every format. The suffix of a SavedModel folder is empty.
    """

    panel: Panel
    function: str
    summary: str
    converts: Mapping[str, str | None] = MappingProxyType({})


VERBS = {
    "demo": Verb(
        Panel.START,
        "edgeloop.demo.command:demo",
        "Run the whole loop once on real data: train, convert, measure, deploy, federate, fine-tune, show in a page.",
    ),
    "train": Verb(
        Panel.CLOUD,
        "edgeloop.cloud.commands.train:train",
        "Train a model in the cloud: on one device, several, or several hosts, as a TOML file says.",
    ),
    "doctor": Verb(
        Panel.CLOUD,
        "edgeloop.cloud.commands.doctor:doctor",
        "Measure what a training waits for, and find the settings of its input that make it faster on this machine.",
    ),
    "data write": Verb(
        Panel.CLOUD,
        "edgeloop.cloud.commands.data:write",
        "Write examples of any format as TFRecord files, in shards that several workers can read.",
    ),
    "distill": Verb(
        Panel.CLOUD,
        "edgeloop.cloud.commands.distill:distill",
        "Train a small model on the answers of larger ones: knowledge distillation.",
    ),
    "tune search": Verb(
        Panel.CLOUD,
        "edgeloop.cloud.commands.tune:search",
        "Search hyperparameters with KerasTuner; a search that was interrupted goes on in the same folder.",
    ),
    "tune ablate": Verb(
        Panel.CLOUD,
        "edgeloop.cloud.commands.tune:ablate",
        "Measure how much each feature is worth: train once with all features, and once without each.",
    ),
    "tune forecast": Verb(
        Panel.CLOUD,
        "edgeloop.cloud.commands.tune:forecast",
        "Forecast what more data would buy: train on parts of the data, and extend the curve of the errors.",
    ),
    "convert": Verb(
        Panel.CONVERT,
        "edgeloop.convert.commands.convert:convert",
        "Convert a model into every format that devices run, and check each file against the original.",
    ),
    "inspect": Verb(
        Panel.CONVERT,
        "edgeloop.edge.commands.inspect:inspect",
        "Show what a model file or bundle holds, without running it.",
    ),
    "verify": Verb(
        Panel.CONVERT,
        "edgeloop.convert.commands.verify:verify",
        "Verify a bundle: its hashes, its signature, and the answers of every variant.",
        converts={".keras": None, ".h5": None, "": None, ".tflite": "tflite"},
    ),
    "same": Verb(
        Panel.CONVERT,
        "edgeloop.convert.commands.same:same",
        "Compare two models of any format: whether they compute the same, and where they differ.",
    ),
    "bench": Verb(
        Panel.DEVICES,
        "edgeloop.edge.commands.bench:bench",
        "Measure latency and memory of each variant, on every device and runtime that can run it.",
        converts={".keras": "tflite", ".h5": "tflite", "": "tflite"},
    ),
    "compare": Verb(
        Panel.DEVICES,
        "edgeloop.edge.commands.compare:compare",
        "Compare two measurements: which variants became faster or slower, with 95% intervals.",
    ),
    "check": Verb(
        Panel.DEVICES,
        "edgeloop.edge.commands.check:check",
        "Check that devices have what edgeloop needs, and print what to install there.",
    ),
    "enroll": Verb(
        Panel.DEVICES,
        "edgeloop.edge.commands.deploy:enroll",
        "Enroll devices: from then on they accept only bundles signed by the given signers.",
    ),
    "deploy": Verb(
        Panel.DEVICES,
        "edgeloop.edge.commands.deploy:deploy",
        "Deploy a bundle to devices: verify, try, activate, and roll back if probation fails.",
    ),
    "rollback": Verb(
        Panel.DEVICES,
        "edgeloop.edge.commands.deploy:rollback",
        "Roll devices back to the previous release, which they keep.",
    ),
    "devices": Verb(
        Panel.DEVICES,
        "edgeloop.edge.commands.deploy:devices",
        "List devices and the release each one runs.",
    ),
    "publish": Verb(
        Panel.DEVICES,
        "edgeloop.edge.commands.publish:publish",
        "Publish a bundle as a version in a registry, which devices follow with edgeloop run --follow.",
    ),
    "run": Verb(
        Panel.DEVICES,
        "edgeloop.edge.commands.run:run",
        "Run the deployed model on its device, and return its answers.",
    ),
    "federate run": Verb(
        Panel.FEDERATE,
        "edgeloop.federated.commands.run:run",
        "Run rounds of federated averaging (FedAvg) on devices of this machine, or on those that join from others.",
    ),
    "federate simulate": Verb(
        Panel.FEDERATE,
        "edgeloop.federated.commands.simulate:simulate",
        "Run the rounds of a federation.toml on Flower's simulation engine, with hundreds of simulated devices.",
    ),
    "federate init": Verb(
        Panel.FEDERATE,
        "edgeloop.federated.commands.init:init",
        "Write a Flower app that trains a bundle, for flwr run and your own changes.",
    ),
    "federate certificate": Verb(
        Panel.FEDERATE,
        "edgeloop.federated.commands.certificate:certificate",
        "Write the certificate that a server of rounds shows to devices of other machines.",
    ),
    "federate join": Verb(
        Panel.FEDERATE,
        "edgeloop.federated.commands.join:join",
        "Join a federation as a device: train on local data in each round, until interrupted.",
    ),
    "browse": Verb(
        Panel.BROWSER,
        "edgeloop.browser.command:browse",
        "Browse a bundle: a page that runs each variant and compares it with the original model.",
    ),
    "cache": Verb(
        Panel.HOUSE,
        "edgeloop.cache_command:cache",
        "List what the cache holds (conversions, programs for devices, measured speeds), or remove entries.",
    ),
    "setup device": Verb(
        Panel.HOUSE,
        "edgeloop.setup:device",
        "Create the device environment, which has the runtimes but no TensorFlow.",
    ),
    "setup tfjs": Verb(
        Panel.HOUSE,
        "edgeloop.setup:tfjs",
        "Install tensorflowjs and Node, which write and check TF.js files.",
    ),
    "setup browser": Verb(
        Panel.HOUSE,
        "edgeloop.setup:browser",
        "Find a Chromium, or install one with Playwright.",
    ),
}

GROUPS = {  # verbs that have verbs of their own
    "data": "Write data sets that a training reads.",
    "federate": "Train a model on devices; their data stays on them.",
    "tune": "Vary a training: search its settings, leave features out, forecast what more data would buy.",
    "setup": "Install what pip cannot install as an extra, pinned with hashes.",
}
