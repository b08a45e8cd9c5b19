"""The demo's releases: a model becomes a bundle, is measured, signed and deployed to a device of the demo's own."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgeloop.atomic import discard, write_file
from edgeloop.bundle import Bundle, Format
from edgeloop.cloud.train.run.run_folder import save_keras
from edgeloop.convert.convert import ConvertResult, convert
from edgeloop.convert.options import ConvertOptions
from edgeloop.convert.training.trainable import TrainableOptions
from edgeloop.demo.data import Split
from edgeloop.demo.files import write_npz
from edgeloop.demo.state import DemoRun
from edgeloop.edge.deploy.enroll import enroll
from edgeloop.edge.deploy.known_devices import FLEET
from edgeloop.edge.deploy.rollout import deploy
from edgeloop.edge.measure.bench import bench
from edgeloop.edge.measure.bench_plan import BenchOptions
from edgeloop.edge.measure.bench_records import Bench, write_bench
from edgeloop.edge.measure.bench_targets import find_targets
from edgeloop.errors import WriteError
from edgeloop.processes.command import run_program
from edgeloop.registry.signatures.sign import sign_bundle
from edgeloop.runtime.agent.paths import HOME
from edgeloop.runtime.device import device_environment
from edgeloop.runtime.runners import AGENT_RUNNERS
from edgeloop.runtime_table import those_of

DEVICE_HOME, KEY = "device", "demo-key"
CALIBRATION = 256  # samples of the cloud's own share


def convert_release(run: DemoRun, model: Any, parts: Split, release: int) -> ConvertResult:
    """Every form of the model, calibrated on the cloud's share and proved on the test images."""
    folder = run.out / "data"
    calibration, evaluation = folder / "calibration.npz", folder / "test.npz"
    write_npz(calibration, x=parts.cloud.x[:CALIBRATION])
    write_npz(evaluation, x=parts.test.x, y=parts.test.y)
    source = run.out / "models" / f"release-{release}.keras"
    save_keras(model, source)
    options = ConvertOptions(
        calibration=calibration,
        evaluation=evaluation,
        trainable=TrainableOptions(),
        release=release,
        name=f"{parts.test.name}-cnn",
        labels=tuple(str(i) for i in range(model.outputs[0].shape[-1])),
        cache=False,  # a loop that skips what it did last time shows nothing
    )
    made = convert(source, run.out / f"release-{release}", options, run.progress)
    runtimes = sorted({row.runtime for row in made.parity})
    run.say(
        f"{'2 convert' if release == 1 else '  convert'}    release {release}: "
        f"{len(made.bundle.manifest.variants)} variants, {len(made.parity)} proofs on {', '.join(runtimes)}"
    )
    return made


def measure_release(run: DemoRun, bundle: Bundle) -> Bench:
    """Latency and memory of every .tflite on every runtime of the device environment; written to bench.json."""
    device = device_environment()
    runtimes = tuple(r.name for r in those_of(Format.TFLITE) if AGENT_RUNNERS[r.name].on(device))
    what = [target for target in find_targets(bundle.path) if target.format is Format.TFLITE]
    measured = bench(what, BenchOptions(devices=(device,), runtimes=runtimes), run.progress)
    write_bench(measured.to_json(), run.out / "bench.json")
    fastest = min((r for r in measured.records if r.batch == 1), key=lambda r: r.p50_ms or math.inf)
    run.say(
        f"3 edge       {len(measured.records)} measurements on {', '.join(runtimes)}; fastest: {fastest.variant} on "
        f"{fastest.runtime}, p50 {fastest.p50_ms:.3f} ms, {fastest.bytes / 1e3:.0f} kB"
    )
    return measured


@contextlib.contextmanager
def own_device(out: Path) -> Iterator[None]:
    """A device of the demo's own, in its folder, that accepts bundles signed with one key alone.

    Inside the block `local` is that device, and it alone is known; what an earlier demo deployed to it is gone.

    Raises:
        EdgeloopError: The device refused.
    """
    home = out.resolve() / DEVICE_HOME
    try:
        discard(home)  # this demo begins at release 1 again
        home.mkdir(parents=True)
    except OSError as e:
        raise WriteError(f"cannot make {home} anew ({e.strerror})", advice="Choose a new folder with -o.") from e
    with _variables({HOME: str(home), FLEET: str(home / "fleet.json")}):
        _enroll(home)
        yield


def _enroll(home: Path) -> None:
    key, signers = home / KEY, home / "signers"
    make_key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "demo", "-f", str(key)]
    run_program(make_key, WriteError, timeout_s=30, advice="Choose another folder with -o.")
    write_file(signers, b"demo " + key.with_suffix(".pub").read_bytes())
    for enrolled in enroll([device_environment()], signers):
        if enrolled.error:
            raise enrolled.error


@contextlib.contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """The environment with these variables, in the block alone."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({} if value is None else {name: value})


def deploy_release(run: DemoRun, bundle: Bundle) -> dict[str, Any]:
    """Sign a release and deploy it: every check of the device has to pass.

    Raises:
        EdgeloopError: The first check that failed.
    """
    sign_bundle(bundle, run.out / DEVICE_HOME / KEY)
    (outcome,) = deploy(bundle.path, [device_environment()], progress=run.progress)
    if outcome.error:
        raise outcome.error
    run.say(
        f"  deploy     release {outcome.version}, signed: {outcome.variant} on {outcome.runtime}, "
        f"{outcome.sent_bytes / 1e3:.0f} kB sent, checked on real inputs, {outcome.result.value}"
    )
    return {"release": outcome.version, "variant": outcome.variant, "runtime": outcome.runtime}
