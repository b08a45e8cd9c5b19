"""The folder of one run: locked while in use, never overwritten, each file whole.

config.toml       the resolved config: `edgeloop train RUN/config.toml` repeats the run
environment.json  versions, devices, strategy, seed
metrics.jsonl     one line an epoch            logs/   the same for TensorBoard
model.keras       the best epoch so far        saved_model/   the same, at the end
checkpoints/      what --resume continues      result.json    what --json printed
labels.txt        names of the classes, where they have any
tasks/            the log of every task that --launch started
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgeloop.atomic import new_folder, write_file
from edgeloop.cloud.train.checkpoints.checkpoint_files import reason_of
from edgeloop.disk_errors import writing
from edgeloop.errors import DataError, WriteError
from edgeloop.extras import need
from edgeloop.processes.file_lock import exclusive

CONFIG, ENVIRONMENT, METRICS, RESULT = "config.toml", "environment.json", "metrics.jsonl", "result.json"
MODEL, SAVED_MODEL, LOGS, LABELS = "model.keras", "saved_model", "logs", "labels.txt"
LOCK = ".lock"
TASKS = "tasks"  # the logs of tasks that --launch started
PACKAGES = ("edgeloop", "tensorflow", "keras", "numpy")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """An open run folder."""

    path: Path

    def write_config(self, toml: str, environment: Mapping[str, Any]) -> None:
        write_file(self.path / CONFIG, toml.encode())
        write_file(self.path / ENVIRONMENT, _json(environment))

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl, and the same for TensorBoard."""
        with _writing(self.path / METRICS), (self.path / METRICS).open("a") as file:
            file.write(json.dumps(record) + "\n")
        numbers = {name: value for name, value in record.items() if isinstance(value, float)}
        with _writing(self.path / LOGS):
            write_scalars(self.path / LOGS, record["step"], numbers)

    def metrics(self) -> list[dict[str, Any]]:
        file = self.path / METRICS
        return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []

    def cut_metrics(self, epochs: int) -> None:
        """Drop the lines after that many epochs: of what a killed run did after its last checkpoint."""
        kept = [record for record in self.metrics() if record["epoch"] <= epochs]
        write_file(self.path / METRICS, "".join(json.dumps(record) + "\n" for record in kept).encode())

    def save_model(self, model: Any) -> None:
        with _writing(self.path / MODEL):
            save_keras(model, self.path / MODEL)

    def export(self, model: Any) -> None:
        """The SavedModel, with what Keras prints on the way sent to standard error."""
        with _writing(self.path / SAVED_MODEL), new_folder(self.path / SAVED_MODEL) as folder:
            model.export(str(folder), verbose=False)

    def write_labels(self, classes: Sequence[str]) -> None:
        """The names of the classes, one a line, as `edgeloop convert --labels` reads them; none: no file."""
        if classes:
            write_file(self.path / LABELS, "".join(f"{name}\n" for name in classes).encode())

    def write_result(self, document: Mapping[str, Any]) -> None:
        write_file(self.path / RESULT, _json(document))

    def remove_result(self) -> None:
        """The run goes on: an evaluator that finds a result ends."""
        (self.path / RESULT).unlink(missing_ok=True)


def holds_run(out: Path) -> bool:
    """Whether a training has begun in this folder."""
    return (out / CONFIG).is_file()


def check_same(out: Path, toml: str) -> None:
    """Whether the run in `out` is of the config that `toml` is the text of.

    Raises:
        WriteError: It has other settings.
    """
    if (out / CONFIG).read_text() != toml:
        raise WriteError(f"{out} holds a training with other settings", advice="Choose a new folder with -o.")


@contextlib.contextmanager
def open_run(out: Path, *, resume: bool) -> Iterator[RunFolder]:
    """Hold the run folder while the block runs.

    Raises:
        WriteError: Another process trains into it, it holds other files or (without `resume`) a run, or it cannot be
            written.
        DataError: `resume`, and it holds no run.
    """
    try:
        is_run = holds_run(out)
        if not is_run and out.is_dir() and any(name.name not in (LOCK, TASKS) for name in out.iterdir()):
            raise WriteError(
                f"{out} holds files that no training wrote, and they are not overwritten",
                advice="Choose a new folder with -o.",
            )
        if resume and not is_run:
            raise DataError(f"{out} holds no run to resume", advice="Leave --resume out to begin one.")
        made = not out.exists()
        out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise _cannot_write(out, e) from e
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive(out / LOCK, 0))
        except TimeoutError as e:
            raise WriteError(
                f"another process trains into {out}", advice="Wait until it ends, or choose a new folder with -o."
            ) from e
        except OSError as e:
            raise _cannot_write(out, e) from e
        if is_run and not resume:
            raise WriteError(
                f"{out} holds a run, which is not overwritten",
                advice="Continue it with --resume, or choose a new folder with -o.",
            )
        try:
            yield RunFolder(out)
        finally:
            if made and [name.name for name in out.iterdir()] == [LOCK]:  # the run never began
                (out / LOCK).unlink()
                out.rmdir()


def write_scalars(folder: Path, step: int, numbers: Mapping[str, float]) -> None:
    """Numbers of one step, as TensorBoard shows them; TensorBoard itself need not be installed."""
    tf = need("tensorflow", extra="cloud")
    scalars = tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
    metadata = tf.compat.v1.SummaryMetadata(plugin_data=scalars)
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default(step=step):
        for name, value in numbers.items():
            tf.summary.write(name, tf.constant(value, tf.float32), metadata=metadata)
    writer.close()


def environment(strategy: str, replicas: int, devices: tuple[str, ...], seed: int) -> dict[str, Any]:
    """What a run depends on beside its config."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in PACKAGES},
        "cpus": os.cpu_count(),
        "devices": list(devices),
        "strategy": strategy,
        "replicas": replicas,
        "seed": seed,
    }


def save_keras(model: Any, path: Path) -> None:
    """Keras writes only to a path of its own that ends in .keras; the bytes then go where they belong in one step."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / MODEL)
        write_file(path, (Path(folder) / MODEL).read_bytes())


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Raises WriteError where the disk refuses what Python or TensorFlow, whose errors are no OSError, writes."""
    errors = need("tensorflow", extra="cloud").errors
    try:
        with writing(path, "choose another folder with -o"):
            yield
    except errors.OpError as e:
        raise WriteError(
            f"cannot write {path}: {reason_of(e)}",
            advice="Free some space there, or choose another folder with -o.",
        ) from e


def _cannot_write(out: Path, e: OSError) -> WriteError:
    return WriteError(
        f"cannot write {out}: {e.strerror or e}", advice="Choose a folder you may write to, with free space."
    )


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()
