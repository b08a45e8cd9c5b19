"""What edge/ costs beside the bare runtime, and how its parts compare. Ratios of one interleaved run each.

    python benchmarks/edge.py [--only overhead,memory,...]       writes benchmarks/results.json

Models: MLPerf Tiny's ResNet8, float32 and int8 (.tflite below $EDGELOOP_DATA, left out without it), and MobileNetV2 at
96x96 with random weights (seed 0), converted here. One thread; the interpreter that runs this, or it is said.

overhead  a call as the agent times it (`wall`, `cpu`) over one of the tightest raw loop of `interpreter.invoke()`, each
          in a process of its own, blocks in turns. `loop`: the agent's whole loop, its clocks included, over the same
memory    peak RSS (VmHWM) of the agent over that of the raw loop's process, same model, same calls
int8      one call on LiteRT over one on tflite-runtime, both in the device environment, by `bench` itself
loadgen   p90 by LoadGen over p90 by our driver, in one agent: of the same queries by both clocks, and of runs in turns
start     from the start of the process `edgeloop bench` to the first answer of the model, and to the first measured one
inspect   the process `edgeloop inspect` on a model of 14 MB, and what of it is Python and our imports
deploy    the process `edgeloop deploy` of a release that runs there already, to an sshd of this machine
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

RESULTS = Path(__file__).with_name("results.json")
TIMEOUT_S = 300.0
PROCESSES, PAIRS = 5, 30  # fresh pairs of processes: where memory lies differs from one to the next; blocks of each
BLOCK_S = 0.03
REPETITIONS = 10  # of what is one process each
FRAMEWORKS = {"tensorflow", "keras", "ai_edge_litert", "tflite_runtime", "onnxruntime"}


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    found = dict(zip(("min", "p25", "p50", "p75"), np.percentile(values, [0, 25, 50, 75]), strict=True))
    return {name: round(float(value), digits) for name, value in found.items()}


def ratios(of: Sequence[float], to: Sequence[float]) -> dict[str, float]:
    """Their spread, and the 95% interval of their median."""
    from edgeloop.edge.measure.ratios import paired

    found = paired(np.array(of), np.array(to))
    assert found.low is not None and found.high is not None
    return {**spread(np.divide(of, to)), "low": round(found.low, 4), "high": round(found.high, 4)}


# Models


def child_models(folder: Path) -> None:
    """mobilenetv2.tflite, mobilenetv2-int8.tflite and a small bundle, in `folder`."""
    import keras

    from edgeloop.bundle import Format, Scheme
    from edgeloop.convert.convert import convert
    from edgeloop.convert.forms import freeze, tflite
    from edgeloop.convert.options import ConvertOptions
    from edgeloop.convert.samples import Samples
    from edgeloop.convert.sources.source import functional, keras_source

    keras.utils.set_random_seed(0)
    samples = np.random.default_rng(0).random((32, 96, 96, 3), np.float32) * 2 - 1
    network = keras.applications.MobileNetV2((96, 96, 3), weights=None, classifier_activation=None)
    norms = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:  # statistics of data, or all activations are about 0
        norm.momentum = 0.0
    network(samples, training=True)
    source = keras_source(folder / "mobilenetv2.keras", functional(network))
    float32 = tflite.lower(freeze.freeze(source).functional, source)
    ranges = tflite.calibrate(float32, source, Samples(inputs={source.inputs[0].name: samples}))
    (folder / "mobilenetv2.tflite").write_bytes(tflite.quantize(float32, Scheme.FLOAT32, ranges))
    (folder / "mobilenetv2-int8.tflite").write_bytes(
        tflite.to_integers(float32, Scheme.INT8, ranges, io=tflite.Io.INT8).data
    )
    small = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)], name="small")
    small.save(folder / "small.keras")
    convert(folder / "small.keras", folder / "small", ConvertOptions(to=(Format.TFLITE,)))


def models(folder: Path) -> dict[str, Path]:
    """Name -> .tflite."""
    subprocess.run([sys.executable, __file__, "--child", "models", folder], check=True, timeout=TIMEOUT_S)
    found = {name: folder / f"{name}.tflite" for name in ("mobilenetv2", "mobilenetv2-int8")}
    if "EDGELOOP_DATA" not in os.environ:
        print("resnet8 is left out: EDGELOOP_DATA names no folder with it", file=sys.stderr)
        return found
    tiny = Path(os.environ["EDGELOOP_DATA"]) / "models" / "mlperf_tiny_ic"
    return {
        "resnet8": tiny / "pretrainedResnet.tflite",
        "resnet8-int8": tiny / "pretrainedResnet_quant.tflite",
        **found,
    }


# The bare runtime


def child_raw(model: Path) -> None:
    """A number of calls a line: answers with their nanoseconds, of CPU too, and this process's peak RSS in bytes."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(model), num_threads=1)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
    invoke = interpreter.invoke
    for line in sys.stdin:
        calls = range(int(line))
        cpu, start = time.process_time_ns(), time.perf_counter_ns()
        for _ in calls:
            invoke()
        spent = time.perf_counter_ns() - start
        used = time.process_time_ns() - cpu
        status = Path("/proc/self/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
        print(spent, used, peak, flush=True)


@contextmanager
def raw_loop(model: Path) -> Iterator[Callable[[int], tuple[float, float, int]]]:
    """calls -> (milliseconds a call, of CPU a call, peak RSS in bytes)."""
    from edgeloop.processes.children import owned

    # as small a program as does this: what this file imports would count as the runtime's
    text = Path(__file__).read_text()
    program = "import sys, time\nfrom pathlib import Path\nimport numpy as np\n"
    program += text[text.index("def child_raw") : text.index("@contextmanager\ndef raw_loop")]
    command = [sys.executable, "-I", "-c", f"from __future__ import annotations\n{program}\nchild_raw(sys.argv[1])"]
    pipe = subprocess.PIPE
    with owned([*command, model], stdin=pipe, stdout=pipe) as child:
        assert child.stdin is not None and child.stdout is not None

        def run(calls: int) -> tuple[float, float, int]:
            child.stdin.write(b"%d\n" % calls)
            child.stdin.flush()
            spent, used, peak = map(int, child.stdout.readline().split())
            return spent / calls / 1e6, used / calls / 1e6, peak

        yield run


@contextmanager
def our_loop(model: Path) -> Iterator[Callable[[int], Any]]:
    """calls -> the agent's answer."""
    from edgeloop.runtime.client import agent
    from edgeloop.runtime.device import parse_device

    with agent(parse_device("local"), "litert", model.parent) as running:
        (signature, spec), *_ = (running.prepare(model.name).signatures or {}).items()
        inputs = {n: np.zeros([d or 1 for d in s["shape"]], s["dtype"]) for n, s in spec["inputs"].items()}
        yield lambda calls: running.run(inputs, signature, runs=calls)


def beside_the_runtime(model: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """`overhead` and `memory` of one model."""
    reported, cpu, loop, raw_ms, raw_cpu_ms, more_mb = [], [], [], [], [], []
    for _ in range(PROCESSES):
        with raw_loop(model) as raw, our_loop(model) as ours:
            calls = int(min(2000, max(5, BLOCK_S / (raw(20)[0] / 1e3))))
            ours(calls)
            for k in range(PAIRS):
                if k % 2:
                    (bare, used, peak), answer = raw(calls), ours(calls)
                else:
                    answer, (bare, used, peak) = ours(calls), raw(calls)
                whole = answer.started_s[-1] - answer.started_s[0] + (answer.wall_ms[-1] / 1e3)
                raw_ms.append(bare)
                raw_cpu_ms.append(used)
                reported.append(float(np.mean(answer.wall_ms)))
                cpu.append(float(np.mean(answer.cpu_ms)))
                loop.append(1e3 * whole / calls)
            more_mb.append((answer.rss_peak_bytes - peak) / 1e6)
    count = {"processes": PROCESSES, "pairs": len(loop), "calls_a_block": calls}
    times = {"wall": ratios(reported, raw_ms), "cpu": ratios(cpu, raw_cpu_ms), "loop": ratios(loop, raw_ms)}
    return {"raw_p50_ms": round(float(np.median(raw_ms)), 5), **times, **count}, {
        "agent_peak_mb": round(answer.rss_peak_bytes / 1e6, 1),
        "more_mb": spread(more_mb, 2),
    }


# Runtimes and drivers side by side


def int8(model: Path) -> dict[str, Any]:
    """LiteRT over tflite-runtime, where both are installed."""
    from edgeloop.edge.measure.bench import bench
    from edgeloop.edge.measure.bench_plan import BenchOptions
    from edgeloop.edge.measure.bench_targets import find_targets
    from edgeloop.runtime.device import device_environment

    options = BenchOptions(devices=(device_environment(),), runtimes=("tflite-runtime", "litert"), runs=500)
    document = bench(find_targets(model), options).to_json()
    (ratio,) = document["ratios"]
    found = {kind: {k: round(v, 4) for k, v in ratio[kind].items()} for kind in ("wall", "cpu")}
    return {**found, "turns": ratio["n"], "versions": {r["runtime"]: r["runtime_version"] for r in document["bench"]}}


def drivers(model: Path) -> dict[str, Any]:
    from edgeloop.edge.measure.loadgen_client import measure_with_loadgen
    from edgeloop.edge.measure.scenarios import Scenario, query_of, scenario_result
    from edgeloop.runtime.client import agent
    from edgeloop.runtime.device import parse_device

    query, queries = query_of(Scenario.SINGLE_STREAM, 1), 200
    in_turns, same_queries = [], []
    with agent(parse_device("local"), "litert", model.parent) as running:
        (signature, spec), *_ = (running.prepare(model.name).signatures or {}).items()
        inputs = {n: np.zeros([d or 1 for d in s["shape"]], s["dtype"]) for n, s in spec["inputs"].items()}
        running.run(inputs, signature, runs=queries)
        for _ in range(PAIRS):
            ours = scenario_result(query, running.run(inputs, signature, runs=queries).wall_ms)
            driven = measure_with_loadgen(running, inputs, signature, query, queries)
            in_turns.append(driven.outcome.percentile_ms / ours.percentile_ms)
            same_queries.append(driven.outcome.percentile_ms / scenario_result(query, driven.own_ms).percentile_ms)
    found = {"p90_of_the_same_queries": spread(same_queries), "p90_in_turns": spread(in_turns)}
    return {**found, "driver": driven.outcome.driver, "pairs": PAIRS, "queries_a_run": queries}


# Whole processes


def seconds(command: Sequence[str | Path], **more: Any) -> tuple[float, float]:
    """Of a process: elapsed, and of CPU with all its children."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, **more)
    if done.returncode:
        raise RuntimeError(f"{command[:5]} ended with {done.returncode}: {done.stderr[-2000:]}")
    took, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def both(times: Sequence[tuple[float, float]]) -> dict[str, dict[str, float]]:
    wall, cpu = zip(*times, strict=True)
    return {"wall_s": spread(wall, 3), "cpu_s": spread(cpu, 3)}


WATCHED = """
import sys, time
from edgeloop.runtime.client import RuntimeClient
run, notes = RuntimeClient.run, sys.argv.pop(1)
def watched(self, *positions, **names):
    answer = run(self, *positions, **names)
    with open(notes, "a") as file:
        print(time.monotonic(), names.get("runs", 1), file=file)  # one clock for all processes of a machine
    return answer
RuntimeClient.run = watched
from edgeloop.cli import main
main()
"""


def start(model: Path, folder: Path) -> dict[str, Any]:
    """Seconds from the start of `edgeloop bench` to answers of the model, as the host receives them."""
    first, measured, whole = [], [], []
    for k in range(REPETITIONS + 1):  # the first fills the disk's cache
        notes = folder / f"notes-{k}"
        options = ["bench", model, "--runtime", "litert", "--warmup", "1", "--json", "-o", folder / "bench.json"]
        begun = time.monotonic()
        took = seconds([sys.executable, "-c", WATCHED, notes, *options])
        at = [(float(line.split()[0]) - begun, int(line.split()[1])) for line in notes.read_text().splitlines()]
        if k:
            first.append(at[0][0])
            measured.append(next(when for when, runs in at if runs > 1))
            whole.append(took)
    (record,) = json.loads((folder / "bench.json").read_text())["bench"]
    within = {name: round(record[name] / 1e3, 3) for name in ("import_ms", "load_ms", "first_ms")}
    return {
        "first_answer_s": spread(first, 3),
        "first_measured_s": spread(measured, 3),
        "whole_process": both(whole),
        "of_it_in_the_agent_s": {name.replace("_ms", ""): value for name, value in within.items()},
        "repetitions": REPETITIONS,
    }


def inspect(model: Path) -> dict[str, Any]:
    look = [sys.executable, "-m", "edgeloop", "inspect", model, "--json"]
    parts: dict[str, list[str | Path]] = {
        "whole": look,
        "python": [sys.executable, "-c", ""],
        "our_imports": [sys.executable, "-c", "import edgeloop.cli, edgeloop.edge.commands.inspect"],
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in parts}
    for _ in range(REPETITIONS):
        for name, command in parts.items():
            times[name].append(seconds(command))
    program = f"import sys; from edgeloop.cli import run; run({[str(part) for part in look[3:]]!r})"
    seconds([sys.executable, "-c", f"{program}; sys.exit(bool({FRAMEWORKS!r} & sys.modules.keys()))"])  # fails if so
    return {"bytes": model.stat().st_size, **{name: both(t) for name, t in times.items()}}


def deploy(bundle: Path, folder: Path) -> dict[str, Any]:
    """To an sshd as the tests have it."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from devices import make_keys, serving

    from edgeloop.runtime.device import device_environment

    sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if sshd is None:
        raise RuntimeError("no OpenSSH server. Run: sudo apt-get install openssh-server")
    (folder / "keys").mkdir()
    (folder / "device").mkdir()
    make_keys(folder / "keys")
    own = {name: str(folder / name.lower()) for name in ("EDGELOOP_CACHE", "EDGELOOP_HOME", "XDG_CONFIG_HOME")}
    env = {**os.environ, **own, "EDGELOOP_SSH_CONFIG": str(folder / "keys" / "config")}
    with serving(sshd, folder / "keys", folder / "device", device_environment().python) as device:
        command = [sys.executable, "-m", "edgeloop", "deploy", bundle, "--to", device.device.name]
        first, _ = seconds([*command, "--variant", "float32"], env=env)
        again = [seconds([*command, "--variant", "float32"], env=env) for _ in range(REPETITIONS)]
    return {"first_s": round(first, 3), "no_change": both(again), "repetitions": REPETITIONS}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--only",
        default="overhead,memory,int8,loadgen,start,inspect,deploy",
        metavar="NAMES",
        help="Measure these sections, separated by commas.",
    )
    parser.add_argument("--child", nargs=2, metavar=("WHAT", "PATH"))
    asked = parser.parse_args()
    if asked.child:
        child_models(Path(asked.child[1]))
        return
    wanted = asked.only.split(",")
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    measured = results.setdefault("edge", {})
    measured["host"] = {"machine": platform.machine(), "python": platform.python_version(), "cpus": os.cpu_count()}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        files = models(folder)
        largest = files["mobilenetv2"]
        smallest = files.get("resnet8", largest)
        parts: dict[str, Callable[[], Any]] = {
            "int8": lambda: {name: int8(file) for name, file in files.items() if name.endswith("int8")},
            "loadgen": lambda: {name: drivers(file) for name, file in files.items() if not name.endswith("int8")},
            "start": lambda: start(smallest, folder),
            "inspect": lambda: inspect(largest),
            "deploy": lambda: deploy(folder / "small", folder),
        }
        if "overhead" in wanted or "memory" in wanted:
            pairs = {name: beside_the_runtime(file) for name, file in files.items()}
            measured["overhead"] = {name: times for name, (times, _) in pairs.items()}
            measured["memory"] = {name: memory for name, (_, memory) in pairs.items()}
        for name in wanted:
            if name in parts:
                measured[name] = parts[name]()
                print(f"{name}: {json.dumps(measured[name])}", file=sys.stderr, flush=True)
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    json.dump(measured, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
