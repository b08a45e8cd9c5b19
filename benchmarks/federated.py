"""Federated rounds: the server's mean and a device, beside Flower's; compressed updates; hostile devices; MNIST.

    python benchmarks/federated.py [--only mean,compression,device,hostile,journal,mnist] [UPDATES [REPEATS]]

writes benchmarks/results.json.

`mean`: each contender is a process of its own that is given the same replies, one after another, as fresh bytes, as
they come from the network. Flower's FedAvg keeps them and averages at the end; edgeloop folds each into the exact mean.
They alternate. The figures are the peak of resident memory above that before the first reply, the time of all of it,
and the ratios, median over the repeats. Both means are compared.

`compression`: federated_parts/compression.py describes it. It needs data/mnist below $EDGELOOP_DATA.

`device`, `hostile`, `journal`, `mnist`: federated_parts/ describes them. The last three are measured only where
`--only` names them: four minutes of CPU time, 4 GB written in each repeat, and 65 rounds of 36 CPU-seconds.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results.json")
PARAMETERS, UPDATES, REPEATS = 1_000_000, 1000, 3
CONTENDERS = ("flower", "edgeloop")
DISTINCT = 8  # updates that differ; the others repeat them with other weights


def replies(count: int) -> Any:
    """Messages as a server has them: arrays as bytes of their own."""
    import numpy as np
    from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_task_id", "_run_id", "_node_id"):
        setattr(TaskIdentity, name, 1)
    rng = np.random.default_rng(0)
    base = rng.normal(0, 0.05, PARAMETERS)
    made = [Array((base + rng.normal(0, 1e-3, PARAMETERS)).astype(np.float32)) for _ in range(DISTINCT)]

    def reply(index: int) -> Message:
        one = made[index % DISTINCT]
        array = Array(dtype=one.dtype, shape=one.shape, stype=one.stype, data=bytes(bytearray(one.data)))
        metrics = MetricRecord({"num-examples": 600 + index % 7, "train_loss": 0.5, "seconds": 0.1, "device": index})
        message = Message(RecordDict(), dst_node_id=index + 1, message_type="train")
        message.metadata.__dict__["_message_id"] = str(index)
        return Message(RecordDict({"arrays": ArrayRecord({"w000": array}), "metrics": metrics}), reply_to=message)

    return (reply(index) for index in range(count))


def mean_by_flower(source: Any) -> Any:
    from flwr.serverapp.strategy import FedAvg

    arrays, _ = FedAvg(fraction_evaluate=0.0).aggregate_train(1, list(source))
    return arrays["w000"].numpy()


def mean_by_edgeloop(source: Any) -> Any:
    from flwr.serverapp.strategy import FedAvg

    from edgeloop.federated.rounds.aggregation.collect import StreamedMean
    from edgeloop.federated.rounds.guard.update import Update

    mean = StreamedMean({"w000": (PARAMETERS,)})
    for reply in source:
        metrics, arrays = reply.content["metrics"], {"w000": reply.content["arrays"]["w000"].numpy()}
        mean.add(reply, Update(1, metrics["device"], metrics["num-examples"], 0.5, 0.1, 0.0, "", arrays))
    arrays, _ = FedAvg(fraction_evaluate=0.0).aggregate_train(1, mean.replies())
    return arrays["w000"].numpy()


def contend(name: str, count: int) -> None:
    import numpy as np

    for module in ("flwr.serverapp.strategy", "edgeloop.federated.rounds.aggregation.collect"):
        importlib.import_module(module)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    source = replies(count)
    next(source)  # makes the distinct updates
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, started, wall = memory_mb("VmRSS"), time.process_time(), time.perf_counter()
    mean = {"flower": mean_by_flower, "edgeloop": mean_by_edgeloop}[name](source)
    found = {
        "cpu_s": time.process_time() - started,
        "wall_s": time.perf_counter() - wall,
        "peak_mb": memory_mb("VmHWM") - before,
        "sum": float(np.sum(mean, dtype=np.float64)),
    }
    print(json.dumps(found))


def memory_mb(what: str) -> float:
    """A line of /proc/self/status, which counts in kibibytes."""
    (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith(f"{what}:")]
    return int(line.split()[1]) * 1024 / 1e6


def measure(count: int, repeats: int) -> dict[str, Any]:
    """Medians of each contender and of the ratios of neighbours in time."""
    import numpy as np

    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for _ in range(repeats):
        for name in CONTENDERS:
            command = [sys.executable, __file__, "--contend", name, str(count)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=1200)
            runs[name].append(json.loads(done.stdout.splitlines()[-1]))
    sums = [run["sum"] for name in CONTENDERS for run in runs[name]]
    assert max(sums) - min(sums) < 1e-6 * PARAMETERS, "the means differ"
    found: dict[str, Any] = {"updates": count, "parameters": PARAMETERS, "repeats": repeats}
    for key in ("cpu_s", "wall_s", "peak_mb"):
        for name in CONTENDERS:
            found[f"{name}_{key}_p50"] = float(np.median([run[key] for run in runs[name]]))
        pairs = zip(runs["flower"], runs["edgeloop"], strict=True)
        found[f"{key}_flower_over_edgeloop_p50"] = float(np.median([a[key] / b[key] for a, b in pairs]))
    return found


def mean(count: int, repeats: int) -> dict[str, Any]:
    what = "weighted mean of float32 updates on the server: Flower's FedAvg over edgeloop's exact streaming mean"
    return {"what": what, "mean": measure(count, repeats)}


def main() -> None:
    if sys.argv[1:2] == ["--contend"]:
        contend(sys.argv[2], int(sys.argv[3]))
        return
    from importlib.metadata import version

    from federated_parts.compression import compression
    from federated_parts.device import device
    from federated_parts.hostile import hostile
    from federated_parts.journal import journal
    from federated_parts.mnist import mnist

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--only",
        default="mean,compression,device",
        metavar="NAMES",
        help="Measure these sections, separated by commas. hostile, journal and mnist run only if named.",
    )
    parser.add_argument("updates", nargs="?", type=int, default=UPDATES)
    parser.add_argument("repeats", nargs="?", type=int, default=REPEATS)
    given = parser.parse_args()
    sections = {
        "mean": lambda: mean(given.updates, given.repeats),
        "compression": compression,
        "device": device,
        "hostile": hostile,
        "journal": lambda: journal(replies, given.updates, given.repeats),
        "mnist": mnist,
    }
    for name in given.only.split(","):
        if name not in sections:
            parser.error(f"--only has the unknown section {name!r}. Use {', '.join(sections)}.")
    host = {"machine": platform.machine(), "python": platform.python_version(), "flwr": version("flwr")}
    for name in given.only.split(","):
        found = sections[name]()
        if found:
            results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
            results[f"federated_{name}"] = {"host": host, **found}
            RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
            json.dump(results[f"federated_{name}"], sys.stdout, indent=1)
            print()


if __name__ == "__main__":
    main()
