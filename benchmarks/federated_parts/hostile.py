"""What two hostile devices of ten cost: accuracy after 15 rounds on MNIST, for each lie and strategy.

The federation is that of `make faults ARGS="-k hostile_devices"` (tests/hostile_federation.py): 600 images a device, a
network of 784-32-10 units in LiteRT, one seed. Lies that the guard refuses are told to the two robust means that the
test names, replays and flipped signs to all. It takes four CPU-minutes: `--only hostile`.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
FINITE = ("replay", "sign-flip", "sign-flip-5")  # of an ordinary norm: the guard takes them


def hostile() -> dict[str, Any]:
    """Accuracy without hostile devices and with each lie; empty without the data."""
    if "EDGELOOP_DATA" not in os.environ:
        print("hostile is left out: EDGELOOP_DATA names no folder with data/mnist", file=sys.stderr)
        return {}
    from flwr.supercore.task_identity import TaskIdentity
    from hostile_federation import EACH, HOSTILE, LIES, NODES, ROBUST, ROUNDS, Federation

    from edgeloop.federated.rounds.strategies import StrategyName, StrategyOptions

    for name in ("_task_id", "_run_id", "_node_id"):
        setattr(TaskIdentity, name, 1)
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    trimmed = {
        f"trimmed-mean-{trim}": StrategyOptions(name=StrategyName.TRIMMED_MEAN, trim=trim) for trim in (0.3, 0.4)
    }
    others = {**trimmed, "median": StrategyOptions(name=StrategyName.MEDIAN), "fed-avg": StrategyOptions()}
    federation = Federation(Path(os.environ["EDGELOOP_DATA"]) / "data" / "mnist")
    with tempfile.TemporaryDirectory() as folder:
        honest = federation.accuracy(Path(folder, "honest"), StrategyOptions())
        found = {
            name: {
                lie: federation.accuracy(Path(folder, name, lie), strategy, lie)
                for lie in (LIES if name in ROBUST else FINITE)
            }
            for name, strategy in {**ROBUST, **others}.items()
        }
    lost = {name: round(100 * (honest - min(each.values())), 2) for name, each in found.items()}
    return {
        "what": "accuracy on 5,000 MNIST images after 15 rounds with two hostile devices of ten, by strategy and lie",
        "devices": NODES,
        "hostile": HOSTILE,
        "examples": EACH,
        "rounds": ROUNDS,
        "honest": honest,
        "accuracy": found,
        "points_lost_max": lost,
    }
